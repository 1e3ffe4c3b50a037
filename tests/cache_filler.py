"""A process that fills the cache, for tests of what goes wrong meanwhile."""

from __future__ import annotations

import argparse
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from hw6core.data.cache import cached

MIB = 2**20
_PATIENCE_S = 60


def fill(folder: Path, size: int, meet: Callable[[], None] = lambda: None) -> Tensor:
    """So many ones, from the cache; where they are made, the file "decoded" tells so, and ``meet`` is called.

    They are made of the file "source" in the folder.
    """

    def decode() -> dict[str, Tensor]:
        (folder / "decoded").touch()
        meet()
        return {"ones": torch.ones(size, dtype=torch.uint8)}

    return cached([folder / "source"], "ones", decode)["ones"]


def _wait_for_both(folder: Path, number: int) -> None:
    (folder / f"ready-{number}").touch()
    end = time.monotonic() + _PATIENCE_S
    while not (folder / f"ready-{1 - number}").exists():
        if time.monotonic() > end:
            raise TimeoutError("the other process did not come")
        time.sleep(0.001)


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("size", type=int)
    parser.add_argument("--meet", type=int, help="0 or 1; decode only when the other one does")
    parser.add_argument("--killed-at", type=int, help="bytes of a file at which the system kills this process")
    arguments = parser.parse_args()
    if arguments.killed_at is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments.killed_at,) * 2)
    meet = arguments.meet
    ones = fill(
        arguments.folder, arguments.size, lambda: None if meet is None else _wait_for_both(arguments.folder, meet)
    )
    assert len(ones) == arguments.size
    assert bool((ones == 1).all())


if __name__ == "__main__":
    _main()
