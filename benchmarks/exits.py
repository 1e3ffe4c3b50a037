"""The exit code of every command and the line that explains it.

Needs only the standard library, because it has to report missing packages.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from benchmarks.errors import ExitCode, exit_code, machine_failures
from benchmarks.interruption import interruptible
from hw6core.errors import DataError, HW6Error, UsageError, visible

_OWN = ("benchmarks", "hw6core", "tests")
_PYTHON = shlex.quote(sys.executable or "python")
# The commands that fix a `DataError`.
_FIXES = {
    "fetch": "fetch --root {root}",
    "replace": "fetch --root {root} --force",
    "draw": "synthesize --root {root}",
    "weights": "fetch --only vgg16",
}
# Import name -> name for pip, as in the extra `report` of pyproject.toml.
REPORT_PACKAGES = {
    "filelock": "filelock",
    "markdown_it": "markdown-it-py",
    "matplotlib": "matplotlib",
    "msgspec": "msgspec",
    "numpy": "numpy",
    "PIL": "pillow",
    "prometheus_client": "prometheus-client",
    "pytest_benchmark": "pytest-benchmark",
    "scipy": "scipy",
    "tabulate": "tabulate",
}
TORCH_PACKAGES = {"torch": "torch", "torchvision": "torchvision", "safetensors": "safetensors", "pooch": "pooch"}
RUN_PACKAGES = TORCH_PACKAGES | REPORT_PACKAGES | {"pytest": "pytest", "rich": "rich"}


def exit_code_of(command: Callable[[], int]) -> int:
    """Run a command; if it fails, print the reason to stderr in one line. Output is printed in any encoding.

    Returns:
        What the command returns, else the code of `explain`; 141 if the output's reader closed the pipe.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # replaced by a test
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with machine_failures(), interruptible():
            return command()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # closing stdout at exit would fail otherwise
        return 141  # as a shell reports SIGPIPE: the command may be unfinished
    except (Exception, KeyboardInterrupt) as error:
        code, line = explain(error)
        print(line, file=sys.stderr)
        return code


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the one-line message for an error.

    The code is that of the error's class; 130 after Ctrl-C or SIGTERM; 2 for a package that cannot be imported; 70 for
    anything unexpected, so that it does not look like a failed gate.
    """
    if isinstance(error, HW6Error):
        return exit_code(error), f"error: {' '.join(with_fix(error, _PYTHON).split())}"
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED, "\ninterrupted; finished epochs are kept: run the same command again to resume"
    module = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    if module and module not in _OWN:
        package = RUN_PACKAGES.get(module, module)
        line = f"error: {package} cannot be imported by {_PYTHON} ({visible(str(error))})"
        return ExitCode.USAGE, f"{line}; install it: {_PYTHON} -m pip install {package}"
    return ExitCode.FAULT, f"error: {report_unexpected(error)}"


def with_fix(error: HW6Error, python: str = "python") -> str:
    """The error's message, with the command that fixes it if there is one; a record should not name this ``python``."""
    if not isinstance(error, DataError) or not error.remedy:
        return str(error)
    return f"{error}: {python} -m benchmarks data {_FIXES[error.remedy].format(root=shlex.quote(str(error.root)))}"


def check_installed(packages: Mapping[str, str]) -> None:
    """Check that packages (import name -> name for pip) are installed, and report all missing ones at once.

    Raises:
        UsageError: a package is not installed.
    """
    missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        is_or_are = "is" if len(missing) == 1 else "are"
        raise UsageError(
            f"{', '.join(missing)} {is_or_are} not installed for {_PYTHON}; install: {_PYTHON} -m pip install "
            f"{' '.join(missing)}, or use .venv/bin/python after make setup"
        )


def report_unexpected(error: BaseException, results: Path | None = None) -> str:
    """Write the traceback of an unexpected error to a file, or else to stderr, and return a line that says where."""
    trace = "".join(traceback.format_exception(error))
    reason = visible("".join(traceback.format_exception_only(error)).strip())
    line = f"unexpected {reason}; this is a bug in the suite, not a failed gate; traceback:"
    name = f"traceback-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    # Results folders first, because they outlive a container; "" is the folder for temporary files.
    for folder in (*filter(None, (str(results or ""), os.environ.get("RESULTS"), "results")), ""):
        with suppress(OSError):
            path = Path(folder or tempfile.gettempdir(), name)
            path.write_text(trace, encoding="utf-8", errors="backslashreplace")
            return f"{line} {path}"
    print(trace, file=sys.stderr)
    return f"{line} above"
