"""Runs every configuration of the `full` profile at its real size with the suite's runner on a simulated GPU.

    python -m tests.dry_gpu.rehearsal RESULT.json JOBS

in a process with the environment of `tests.dry_gpu.environment`. JOBS is a JSON list of objects: ``only`` (ids),
``deterministic``, ``captured``, ``defect`` (a name in `DEFECTS`, applied to the loss), ``environment``. The result has
for each run of each job its status and message, the calls of a steady step and the peak device memory. For a job with a
``command`` of the command line it has the exit code and the error output.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import torch
from torch import Tensor

from benchmarks.__main__ import main as command_line
from benchmarks.engines.engine import with_base_weights
from benchmarks.machine import environment
from benchmarks.results.records import write_record
from benchmarks.runs.plan import Plan
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import Runner
from benchmarks.suite import Configuration, select
from benchmarks.workloads import run as workloads
from benchmarks.workloads import segmentation
from benchmarks.workloads.datasets import Store
from hw6core import models
from hw6core.checkpoint import Checkpoint
from hw6core.data.endovis import ColorizationFrames, SegmentationFrames
from hw6core.data.fashion_mnist import CLASS_NAMES, Garments
from hw6core.losses import DiceLoss
from hw6core.training import Callback
from tests.dry_gpu import counted

_STEPS = 7  # per epoch, of which there are two
_COLD_STEPS = 4  # in which kernels are chosen and the step is captured


DEFECTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "item": lambda loss: loss * (1 + loss.item()),
    "cpu tensor": lambda loss: (loss + torch.zeros(2)).sum(),
    "cpu index": lambda loss: loss.expand(3)[torch.tensor([0, 2])].sum(),
}


class _Watch(Callback):
    """Records the calls of the last step; a step that synchronizes raises, except the first ones of an epoch.

    The first step of an epoch draws the order, and the losses are read after the last one.
    """

    def __init__(self, steps: int) -> None:
        self._steps, self._done, self._before = max(steps // 2, 1), 0, counted()
        self.last: dict[str, int] = {}

    def on_step(self) -> None:
        now = counted()
        self._done += 1
        place = self._done % self._steps
        if place > _COLD_STEPS + 1:
            self.last = {name: now[name] - self._before[name] for name in now}
        torch.cuda.set_sync_debug_mode("error" if place > _COLD_STEPS else "default")
        self._before = counted()


class _Watched(Display):
    """Keeps the `_Watch` of every training."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.watches: list[_Watch] = []

    def training(self, run: str, label: str, steps: int) -> Any:
        if label.endswith("features"):  # forward passes without epochs
            return Callback()
        self.watches.append(_Watch(steps))
        return self.watches[-1]


def _store(configuration: Configuration) -> Store:
    """Empty samples of the real size, enough for a few steps."""
    batch = configuration.work["full"].batch_size
    counts = {"train": batch * _STEPS, "validation": 50, "test": 50}
    store = Store(Path("nowhere"), torch.device("cuda"))

    def pixels(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.uint8)

    if configuration.kind in ("segmentation", "new-task"):
        names = tuple(f"class {index}" for index in range(8))
        store.__dict__["segmentation"] = {
            split: SegmentationFrames(pixels(n, 3, 256, 320), pixels(n, 256, 320), names, ())
            for split, n in counts.items()
        }
    elif configuration.kind == "colorization":
        store.__dict__["colorization"] = {
            split: ColorizationFrames(pixels(counts[split], 3, 256, 320), pixels(counts[split], 1, 256, 320), ())
            for split in ("train", "validation")
        }
    else:
        store.__dict__["garments"] = {
            split: Garments(pixels(n, 1, 28, 28), torch.zeros(n, dtype=torch.int64), CLASS_NAMES, ())
            for split, n in (("train", batch * _STEPS * 10 // 9 + 1), ("test", 500))
        }
    return store


@contextmanager
def _without_files() -> Iterator[None]:
    """Do not initialise, hash (seconds for VGG16) or write weights; loaded weights are those of a new network."""

    def stored(path: Path) -> dict[str, Tensor]:
        network = models.UNet(3) if "colorization" in Path(path).name else models.vgg16(10)
        return network.state_dict()

    made = torch.optim.AdamW.__init__

    def optimizer(self: torch.optim.AdamW, weights: Any, lr: Any, **more: Any) -> None:
        """torch compares a learning rate on the device with 0, by a kernel that is not run."""
        made(self, weights, float(lr), **more)
        for group in self.param_groups:
            group["lr"] = lr

    replaced = [
        (torch.optim.AdamW, "__init__", optimizer),
        *((torch.nn.init, name, lambda tensor, *_, **__: tensor) for name in ("kaiming_uniform_", "kaiming_normal_")),
        (torch.nn.init, "normal_", lambda tensor, *_, **__: tensor),
        (segmentation, "load_weights", stored),
        (models, "load_weights", stored),
        (workloads, "save_weights", lambda path, state: f"digest of {len(state)} tensors"),
        (workloads, "digest", lambda state: f"digest of {len(state)} tensors"),
        (Checkpoint, "due", lambda self, size_bytes: False),  # writing a checkpoint synchronizes
    ]
    with ExitStack() as stack:
        for place, name, value in replaced:
            stack.enter_context(mock.patch.object(place, name, value))
        yield


def rehearse(job: Mapping[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Run all configurations of a job with `Runner`; {id: results}."""
    weights = folder / "vgg16.pth"
    weights.touch()
    found = {}
    with ExitStack() as stack:
        if defect := job.get("defect"):
            right, wrong = DiceLoss.forward, DEFECTS[defect]
            stack.enter_context(mock.patch.object(DiceLoss, "forward", lambda self, *pair: wrong(right(self, *pair))))
        for configuration in select(job.get("only", [])):
            work = replace(configuration.work["full"], epochs=2, patience=None)
            brief = replace(configuration, work={"full": work})
            plan = Plan(
                [brief], "full", (0,), Path("nowhere"), "cuda", folder, weights,
                deterministic=job.get("deterministic", False), cuda_graphs=job.get("captured", False),
            )  # fmt: skip
            display = _Watched()
            runner = Runner(with_base_weights(plan, display), display)
            runner.store = _store(brief)
            torch.cuda.reset_peak_memory_stats()
            record = runner._run(brief, runner.run_key(brief, 0))
            torch.cuda.set_sync_debug_mode("default")
            write_record(folder, record)
            found[configuration.id] = {
                "status": record.status,
                "message": record.message,
                "precision": runner.precision,
                "details": msgspec.to_builtins(record.details),
                "step": next((watch.last for watch in reversed(display.watches) if watch.last), {}),
                "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
                "reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
            }
            torch.cuda.empty_cache()
    return found


def execute(folder: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run a job in a process that has not used a device; the folder has the results of earlier jobs."""
    os.environ.update(job.get("environment", {}))
    if "command" in job:
        with redirect_stderr(io.StringIO()) as printed:
            return {"code": command_line(job["command"]), "printed": printed.getvalue().splitlines()}
    described = mock.patch.object(Store, "description", return_value={"kind": "real", "samples": {}})
    with _without_files(), described:
        return rehearse(job, folder)


def main() -> None:
    result, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
    for digest in (environment._packages_digest, environment.source_digest):
        digest()  # cached for all forks
    forks = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder, forks.Pool(1, maxtasksperchild=1) as pool:
        found = pool.map(partial(execute, Path(folder)), jobs, chunksize=1)
    result.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
