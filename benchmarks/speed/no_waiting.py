"""Does a training step wait for the device? ``python -m benchmarks.speed.no_waiting`` fails at the operation that does.

It trains each network of the suite on random data with torch's synchronization debug mode, which raises an error for
operations that make the host wait; the mode is on after the second step of an epoch, until its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from benchmarks.exits import exit_code_of
from benchmarks.interruption import exit_process
from benchmarks.machine.devices import open_device
from benchmarks.suite import SUITE
from hw6core import tasks
from hw6core.data.augment import Augmentation
from hw6core.device import default_precision
from hw6core.losses import DiceLoss
from hw6core.models import UNet, vgg16
from hw6core.schedule import Schedule
from hw6core.training import Callback, Split, Task, train

_STEPS = 5
_BATCH = 4


class _SyncDebug(Callback):
    """Turns the synchronization debug mode on and off."""

    _done = 0

    def on_step(self) -> None:
        self._done += 1
        torch.cuda.set_sync_debug_mode("default" if self._done % _STEPS < 2 else "error")


def cases(device: torch.device) -> Iterator[tuple[str, Callable[[], nn.Module], Task, Split]]:
    """The constructor of each network of the suite, with its task and random samples."""
    count, generator = _STEPS * _BATCH, torch.Generator().manual_seed(0)

    def drawn(most: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, most, (count, *shape), generator=generator, dtype=torch.uint8).to(device)

    augmentation = Augmentation(**(SUITE["seg-augmented"].augmentation or {}))
    frames, grays = Split(drawn(256, 3, 96, 120), drawn(8, 256, 320)), drawn(256, 4, 96, 120)
    segmentation = tasks.SegmentationTask(8, DiceLoss(1.0, "batch"), augmentation, 300)
    yield "U-Net, segmentation", partial(UNet, 8), segmentation, frames
    colorization = tasks.ColorizationTask((96, 120), augmentation)
    yield "U-Net, colorization", partial(UNet, 3), colorization, Split(grays, grays)
    classification = tasks.ClassificationTask(tasks.FASHION_MEAN, tasks.FASHION_STD, augmentation)
    yield "VGG16", partial(vgg16, 10), classification, Split(drawn(256, 1, 32, 32), drawn(10).long())


def train_without_waiting(model: nn.Module, task: Task, samples: Split) -> None:
    """Train two epochs in synchronization debug mode.

    Raises:
        RuntimeError: a step made the host wait.
    """
    device = samples.inputs.device
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    schedule, precision = Schedule(epochs=2, batch_size=_BATCH, learning_rate=1e-4), default_precision(device)
    try:
        train(model, task, samples, samples, schedule, seed=0, precision=precision, callback=_SyncDebug())
    finally:
        torch.cuda.set_sync_debug_mode("default")


def main() -> int:
    """Return 0 if no step waits."""
    device = open_device("cuda")
    for name, build, task, samples in cases(device):
        train_without_waiting(build(), task, samples)
        print(f"{name}: no step waited")
    return 0


if __name__ == "__main__":
    exit_process(exit_code_of(main))
