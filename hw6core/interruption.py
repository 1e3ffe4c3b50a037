"""Ctrl-C and SIGTERM, as from a scheduler that takes the machine away: a training under way first saves itself.

A second signal is not waited for.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _State:
    deferring = False
    wanted = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block both signals raise KeyboardInterrupt, at once or at the end of what is `deferred`.

    Signals belong to the main thread; in another one nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _handle) for number in _SIGNALS}
    try:
        yield
    finally:
        _State.wanted = False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Within the block the first signal only makes `wanted` true; the block may end early, and then it is raised."""
    _State.deferring = True
    try:
        yield
    finally:
        _State.deferring = False
    if _State.wanted:
        raise KeyboardInterrupt


def wanted() -> bool:
    """Whether somebody asked for an end."""
    return _State.wanted


def _handle(number: int, frame: FrameType | None) -> None:
    again, _State.wanted = _State.wanted, True
    if again or not _State.deferring:
        raise KeyboardInterrupt
