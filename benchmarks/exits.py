"""How every command of the suite ends: with an exit code of its own for each reason, and one line about it.

Needs nothing but Python itself: what is missing must still be told.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from benchmarks.errors import ExitCode, exit_code, machine_failures
from benchmarks.interruption import INTERRUPTED_CODE, interruptible
from hw6core.errors import DataError, HW6Error, UsageError, visible

INTERRUPTED = "interrupted; finished epochs are kept: the same command goes on from there"
_OWN = ("benchmarks", "hw6core", "tests")
# The commands after which a `DataError` is gone.
_MENDS = {
    "fetch": "fetch --root {root}",
    "replace": "fetch --root {root} --force",
    "draw": "synthesize --root {root}",
    "weights": "fetch --only vgg16",
}
# The names that packages are imported by, and those that pip installs them by: the extra `report` of pyproject.toml.
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
    """Carry out a command and say in one line, on stderr, why it did not do what it was asked for.

    Returns:
        What the command returns, or see `ending`; 141 if the reader of the output left.
    """
    print_in_any_encoding()
    try:
        with machine_failures(), interruptible():
            return command()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or closing it would complain
        return 141  # the reader of our output left, as `head` does; what was under way is not done
    except (Exception, KeyboardInterrupt) as error:
        code, line = ending(error)
        print(line, file=sys.stderr)
        return code


def ending(error: BaseException) -> tuple[int, str]:
    """The exit code for an error and its one line.

    That of its class; 130 after Ctrl-C or SIGTERM; 2 for a package that cannot be imported; 70 for what nobody
    expected, which is no gate that failed.
    """
    if isinstance(error, HW6Error):
        return exit_code(error), f"error: {' '.join(sentence(error).split())}"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED_CODE, f"\n{INTERRUPTED}"
    module = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    if module and module not in _OWN:
        package = RUN_PACKAGES.get(module, module)
        reason = visible(str(error))
        return (
            ExitCode.USAGE,
            f"error: {package} cannot be imported by {_python()} ({reason}); install: {_install(package)}",
        )
    return ExitCode.FAULT, f"error: {unexpected(error)}"


def sentence(error: HW6Error) -> str:
    """What the library says is wrong, and the command that mends it."""
    if not isinstance(error, DataError) or not error.remedy:
        return str(error)
    return f"{error}: python -m benchmarks data {_MENDS[error.remedy].format(root=shlex.quote(str(error.root)))}"


def print_in_any_encoding() -> None:
    """What an ASCII, Latin-1 or strict UTF-8 output cannot show is spelled as an escape instead of ending the suite."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a test's own
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def check_installed(packages: Mapping[str, str]) -> None:
    """Name all that is missing at once, before one after the other is missed.

    Args:
        packages: names for pip by names for import.

    Raises:
        UsageError: some are not installed.
    """
    missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        is_or_are = "is" if len(missing) == 1 else "are"
        raise UsageError(
            f"{', '.join(missing)} {is_or_are} not installed for {_python()}; install: {_install(*missing)}, "
            "or all that is locked: make setup"
        )


def unexpected(error: BaseException, results: Path | None = None) -> str:
    """A line about an error that nobody foresaw, and where its traceback lies: in a file, or else above on stderr."""
    trace = "".join(traceback.format_exception(error))
    reason = visible("".join(traceback.format_exception_only(error)).strip())
    sentence = f"unexpected {reason}; that is a fault of the suite, and no gate failed; traceback:"
    name = f"traceback-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    for folder in _places(results):
        with suppress(OSError):
            path = folder / name
            path.write_text(trace, encoding="utf-8", errors="backslashreplace")
            return f"{sentence} {path}"
    print(trace, file=sys.stderr)
    return f"{sentence} above"


def _places(results: Path | None) -> Iterator[Path]:
    """Where a traceback outlives a container, then where it can be written."""
    for folder in (results, Path(os.environ.get("RESULTS") or "results"), Path("results")):
        if folder is not None and folder.is_dir():
            yield folder
    with suppress(OSError):
        yield Path(tempfile.gettempdir())


def _python() -> str:
    return shlex.quote(sys.executable or "python")


def _install(*packages: str) -> str:
    return f"{_python()} -m pip install {' '.join(packages)}"
