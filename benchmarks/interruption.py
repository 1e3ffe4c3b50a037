"""Handling of Ctrl-C and SIGTERM (sent by schedulers): a running training saves its state before the process ends.

A second signal ends it at once, unless it comes with the first: a terminal and a parent process may both send one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Never

from benchmarks.errors import ExitCode
from hw6core.errors import TrainingStoppedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TOGETHER_S = 1.0


class _State:
    deferring = False
    requested = False
    since = 0.0


@contextmanager
def interruptible(*signals: signal.Signals) -> Iterator[None]:
    """Within the block, ``signals`` (default: SIGINT and SIGTERM) raise KeyboardInterrupt.

    They do so at once, or at the end of a `deferred` block. Python handles signals in the main thread only; in other
    threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with restored_handlers():
        for number in signals or _SIGNALS:
            signal.signal(number, _handle)
        try:
            yield
        finally:
            _State.requested = False


@contextmanager
def restored_handlers() -> Iterator[None]:
    """Restore the handlers of both signals at the end of the block."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not installed by Python, which cannot restore it
                signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Within the block, the first signal only makes `requested` true; it is raised when the block ends."""
    _State.deferring = True
    try:
        yield
    except TrainingStoppedError:
        if not _State.requested:
            raise
    finally:
        _State.deferring = False
    if _State.requested:
        raise KeyboardInterrupt


def requested() -> bool:
    """Whether a signal has arrived."""
    return _State.requested


def exit_process(code: int) -> Never:
    """Exit with a code; after an interruption without cleanup.

    Unfinished work in torch's threads could otherwise abort the process, with a different exit code.
    """
    if code == ExitCode.INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _handle(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if not _State.requested:
        _State.requested, _State.since = True, now
        if _State.deferring:
            return
    elif _State.deferring and now - _State.since < _TOGETHER_S:
        return
    raise KeyboardInterrupt
