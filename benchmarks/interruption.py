"""Ctrl-C and SIGTERM, as from a scheduler that takes the machine away: a training under way first saves itself.

A second signal is not waited for, save one that comes with the first: a terminal and a parent process may both send.
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

from hw6core.errors import TrainingStoppedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TOGETHER_S = 1.0
INTERRUPTED_CODE = 130


class _State:
    deferring = False
    requested = False
    since = 0.0


@contextmanager
def interruptible(*signals: signal.Signals) -> Iterator[None]:
    """Within the block the signals, both unless some are named, raise KeyboardInterrupt.

    They do so at once, or at the end of what is `deferred`. Signals belong to the main thread; in another one nothing
    is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handlers_kept():
        for number in signals or _SIGNALS:
            signal.signal(number, _handle)
        try:
            yield
        finally:
            _State.requested = False


@contextmanager
def handlers_kept() -> Iterator[None]:
    """What the block changes about the handling of both signals is taken back at its end."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:  # one that Python cannot set: it was not made by Python
                    signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Within the block the first signal only makes `requested` true; the block may end early, and then it is raised."""
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
    """Whether somebody asked for an end."""
    return _State.requested


def leave(code: int) -> Never:
    """End the process with an exit code; after an interruption at once.

    What it left undone in threads of torch would otherwise end the process by an abort, with another code.
    """
    if code == INTERRUPTED_CODE:
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
