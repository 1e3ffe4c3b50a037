"""Runs pytest repeatedly in the working folder, each time in a fork of a process that has imported torch.

The arguments are the modules to import first. Run by path, not as a module, because nothing of the checkout may be
imported here. Each line of input has pytest's arguments, each line of output its exit code and the failed tests, as
JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

_SECONDS = 900  # limit for one call of pytest; all tests on the unchanged code take a fifth of it


def main() -> None:
    import pytest

    for name in sys.argv[1:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    output = Path(f"{Path.cwd()}.output")
    for line in sys.stdin:
        arguments = ["-q", "--tb=no", "-p", "no:cacheprovider", f"--basetemp={Path.cwd()}.tmp", *json.loads(line)]
        child = os.fork()
        if not child:
            code = 3
            try:
                _redirect(output)
                code = int(pytest.main(arguments))
            finally:
                sys.stdout.flush()
                os._exit(code)
        code = _wait(child)
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output.read_text(encoding="utf-8"), re.MULTILINE)
        print(json.dumps([code, failed]), flush=True)


def _redirect(output: Path) -> None:
    """Start a new process group without input, with all output into the file."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor in (1, 2):
        os.dup2(written, descriptor)


def _wait(child: int) -> int:
    """The child's exit code, or 124 if it was stopped at the time limit; its own processes are stopped too."""
    deadline = time.monotonic() + _SECONDS
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 124
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(done[1])


if __name__ == "__main__":
    main()
