"""Separate processes, for tests that measure or kill one: forked from a server that has imported the suite."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.killed_suite"])  # imports torch and the suite, but no test module


def alone(work: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
    """Call a function of a test module in a separate process."""
    with ProcessPoolExecutor(1, FORKS) as process:
        return process.submit(work, *arguments, **more).result()
