"""A run: one configuration with one seed, with everything that the workloads share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import interruption
from benchmarks.errors import TimeLimitError
from benchmarks.machine.roofline import Ceiling, StepCost, step_cost
from benchmarks.suite import Configuration, Profile, Work
from benchmarks.workloads.datasets import DataName, Store
from benchmarks.workloads.movement import movement, sampled
from hw6core.checkpoint import Checkpoint, digest, save_weights
from hw6core.data.augment import Augmentation
from hw6core.device import Precision, memory_format, synchronize
from hw6core.files import atomic_write
from hw6core.schedule import Schedule
from hw6core.steps import Capture
from hw6core.training import EVALUATED_AT_ONCE, Callback, Split, Task, Training, predict, train

# The data that each kind of configuration reads.
READS: Mapping[str, DataName] = {
    "segmentation": "segmentation",
    "colorization": "colorization",
    "scratch": "garments",
    "frozen": "garments",
    "new-task": "segmentation",
}


def check_data(store: Store, configurations: Iterable[Configuration]) -> None:
    """Read all data that the configurations read.

    Raises:
        DataError: it is missing or damaged.
    """
    for name in sorted({READS[configuration.kind] for configuration in configurations}):
        store.description(name)


def weights_path(results: Path, configuration: str, seed: int) -> Path:
    """The file of a run's weights in a results folder."""
    return results / "weights" / f"{configuration}-seed{seed}.safetensors"


def checkpoints_folder(results: Path, configuration: str, seed: int) -> Path:
    """The folder of a run's checkpoints, which exist until the run is complete."""
    return results / "checkpoints" / f"{configuration}-seed{seed}"


@dataclass(frozen=True)
class BaseWeights:
    """Weights for `hw6core.models.vgg16`, None for random ones, and their name in reports."""

    source: Path | None
    label: str


@dataclass
class Outcome:
    """The results of a run; the fields are those of `benchmarks.results.records.Record`."""

    metrics: dict[str, float | None]
    trivial: dict[str, float]
    weights: str
    details: dict[str, Any] = field(default_factory=dict)
    floors: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Run:
    """One configuration with one seed and profile, its inputs, and the measurements collected so far.

    Attributes:
        results: the folder for weights and samples.
        base_weights: pre-trained VGG16 weights, if the configuration uses them.
        progress: (label, steps) -> callback that displays the progress of a training.
        seconds: time spent in each part outside the trainings.
        trainings: completed trainings by the name of their curve.
        ceiling: peak arithmetic and memory bandwidth of the device.
        identity: everything that decides the results of the run; see `hw6core.checkpoint.Checkpoint`.
        floors_identity: everything that decides the floors; the same for all seeds.
        warn: called with a warning.
        on_trained: called when the run's own work is done, before the floors are scored.
        deadline: `time.monotonic` at which the run fails; infinite for no limit.
        capture, compiled: see `hw6core.steps.TrainingStep`.
        accumulation_steps: see `hw6core.schedule.Schedule`.
        weights_digest: digest of the saved weights; see `hw6core.checkpoint.verified_digest`.
        learned: in deterministic mode, a digest of the best weights of each curve.
        movement: for each curve, how far training moved each layer; see `benchmarks.workloads.movement`.
        arithmetic_s, memory_s: lower bounds of the training time, by arithmetic and by memory bandwidth alone.
    """

    configuration: Configuration
    profile: Profile
    seed: int
    store: Store
    device: torch.device
    precision: Precision
    results: Path
    base_weights: BaseWeights | None
    progress: Callable[[str, int], Callback]
    ceiling: Ceiling
    identity: str = ""
    floors_identity: str = ""
    warn: Callable[[str], None] = lambda line: None
    on_trained: Callable[[], None] = lambda: None
    deadline: float = math.inf
    capture: Capture | None = None
    compiled: bool = False
    accumulation_steps: int = 1
    # Measured by the run; `dataclasses.replace` makes them anew.
    weights_digest: str | None = field(default=None, init=False)
    learned: dict[str, str] = field(default_factory=dict, init=False)
    movement: dict[str, dict[str, float]] = field(default_factory=dict, init=False)
    arithmetic_s: float = field(default=0.0, init=False)
    memory_s: float = field(default=0.0, init=False)
    seconds: dict[str, float] = field(default_factory=dict, init=False)
    trainings: dict[str, Training] = field(default_factory=dict, init=False)

    @property
    def work(self) -> Work:
        return self.configuration.work_on(self.profile, self.store.kind)

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.configuration.settings_on(self.profile, self.store.kind)

    @property
    def augmentation(self) -> Augmentation | None:
        settings = self.configuration.augmentation
        return None if settings is None else Augmentation(**settings)

    @property
    def samples_file(self) -> Path:
        return self.results / "samples" / f"{self.configuration.id}-seed{self.seed}.npz"

    @property
    def not_captured(self) -> str | None:
        """Why steps could not be captured as a CUDA graph: the first reason of its trainings, or None."""
        return next((training.not_captured for training in self.trainings.values() if training.not_captured), None)

    def weights_file(self, configuration: str) -> Path:
        return weights_path(self.results, configuration, self.seed)

    def keep_weights(self, state: Mapping[str, Tensor]) -> None:
        """Save weights for the runs that start from this one."""
        self.weights_digest = save_weights(self.weights_file(self.configuration.id), state)

    def schedule(self) -> Schedule:
        work = self.work
        return Schedule(
            work.epochs,
            work.batch_size,
            work.learning_rate,
            work.optimizer,
            work.weight_decay,
            patience=work.patience,
            accumulation_steps=self.accumulation_steps,
        )

    def place(self, model: nn.Module) -> None:
        """Move a model to the device, in the fastest memory format for its images."""
        layout = memory_format(self.device, self.work.working_size)
        model.to(device=self.device, memory_format=layout)  # type: ignore[call-overload]

    def train(
        self, model: nn.Module, task: Task, training: Split, validation: Split, curve: str = "training"
    ) -> Training:
        """Train with the schedule of the configuration and record the result as ``curve``."""
        label, schedule = "" if curve == "training" else curve.replace("_", " "), self.schedule()
        kept = checkpoints_folder(self.results, self.configuration.id, self.seed) / f"{curve}.safetensors"
        steps = schedule.epochs * max(len(training) // min(schedule.batch_size, len(training)), 1)
        start = sampled(model.state_dict())
        with interruption.deferred():
            result = train(
                model,
                task,
                training,
                validation,
                schedule,
                seed=self.seed,
                precision=self.precision,
                callback=self.callback(label, steps),
                capture=self.capture,
                checkpoint=Checkpoint(kept, f"{self.identity} {curve} {schedule}", on_failure=self.warn),
                compiled=self.compiled,
            )
        if result.not_captured and not self.not_captured:
            name = f"{self.configuration.id} seed {self.seed}"
            self.warn(f"{name}: steps are not captured as a CUDA graph: {result.not_captured}")
        self.trainings[curve] = result
        self.movement[curve] = movement(start, sampled(result.best_state))
        if torch.are_deterministic_algorithms_enabled():
            self.learned[curve] = digest(result.best_state)
        sample = task.evaluation_batch(training.inputs[:1], training.targets[:1])[0].shape[1:]
        batch = min(self.work.batch_size, len(training))
        self.count(step_cost(model, tuple(sample), batch, self.precision), result.samples)
        return result

    def count(self, cost: StepCost, samples: int) -> None:
        """Add the lower bounds of the time for this number of samples."""
        steps = samples / cost.samples
        self.arithmetic_s += steps * cost.arithmetic_s(self.ceiling)
        self.memory_s += steps * cost.memory_s(self.ceiling)

    def callback(self, label: str, steps: int) -> Callback:
        """The callback of one part of the run: shows progress and ends it at the deadline."""
        return LimitedCallback(self.progress(label, steps), self.deadline)

    def predict(self, model: nn.Module, task: Task, split: Split) -> Tensor:
        with self.timed("evaluation_s"):
            at_once = EVALUATED_AT_ONCE // self.accumulation_steps
            return predict(model, task, split, precision=self.precision, batch_size=at_once)[0]

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        synchronize(self.device)
        start = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


class LimitedCallback(Callback):
    """Forwards to another callback; ends the training at the deadline of the run or on an interruption."""

    def __init__(self, inner: Callback, deadline: float) -> None:
        self._inner, self._deadline = inner, deadline

    def on_resume(self, steps: int, seconds: float) -> None:
        self._inner.on_resume(steps, seconds)

    def on_step(self) -> None:
        self._inner.on_step()
        if time.monotonic() > self._deadline:
            raise TimeLimitError("the run exceeded its time limit; set a longer one: LIMIT=MINUTES")

    def on_epoch(self, entry: Mapping[str, float]) -> None:
        self._inner.on_epoch(entry)

    def on_end(self) -> None:
        self._inner.on_end()

    def should_stop(self) -> bool:
        return interruption.requested()


def save_samples(path: Path, **arrays: Tensor) -> None:
    plain = {name: array.cpu().numpy() for name, array in arrays.items()}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **plain)
