"""What a run does, for each kind of configuration: data and weights in, scores and history out."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import tasks
from benchmarks.ceiling import Ceiling, StepCost, step_cost
from benchmarks.pretrained import BaseWeights
from benchmarks.store import DataName, Store
from benchmarks.suite import Configuration, Profile, Work
from hw6core import metrics
from hw6core.checkpoints import load_weights, save_weights, transfer
from hw6core.data.augment import Augmentation
from hw6core.errors import TimeLimitError
from hw6core.files import replacing
from hw6core.losses import DiceLoss
from hw6core.models import UNET_HEAD, VGG_HEAD, FrozenVGG, UNet, start_from_frequencies, vgg16
from hw6core.resume import Checkpoint
from hw6core.seeding import seed_everything
from hw6core.train import (
    EVALUATED_AT_ONCE,
    Precision,
    Progress,
    Recorder,
    Schedule,
    Split,
    Training,
    autocast,
    forward,
    predict,
    train,
    wait_for,
)

# What a kind reads.
READS: Mapping[str, DataName] = {
    "segmentation": "segmentation",
    "colorization": "colorization",
    "scratch": "garments",
    "frozen": "garments",
    "new-task": "segmentation",
}


_IMAGES_AT_ONCE = 250  # of which the frozen network's features are computed; their activations are not kept


def weights_path(results: Path, configuration: str, seed: int) -> Path:
    """Where a run leaves its weights in a results folder."""
    return results / "weights" / f"{configuration}-seed{seed}.safetensors"


def checkpoints_folder(results: Path, configuration: str, seed: int) -> Path:
    """Where the trainings of a run keep their states until the run is over."""
    return results / "checkpoints" / f"{configuration}-seed{seed}"


@dataclass
class Outcome:
    """What a run found out; the fields are those of `benchmarks.records.Record`."""

    metrics: dict[str, float | None]
    trivial: dict[str, float]
    weights: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """One configuration with one seed under one profile, and what it needs around it.

    Attributes:
        results: the folder that weights and samples are written to.
        base_weights: tells where pre-trained VGG16 weights come from, when they are asked for.
        progress: (label, steps) -> what the training loop tells about itself.
        seconds: collects the time spent in each part outside the trainings.
        trainings: those done so far, by the name of their curve.
        ceiling: what the device can do at most.
        identity: everything that decides what the run computes; see `hw6core.resume.Checkpoint`.
        complain: told what a person should know though the run goes on.
        deadline: when the run is to be given up, by `time.monotonic`; infinite for never.
        recorder: see `hw6core.train.train`.
        not_recorded: why steps could not be recorded and went on eagerly, the first reason first.
        parts: see `hw6core.train.Schedule`.
        weights_digest: of the weights that the run leaves; see `hw6core.tensor_files.verified_digest`.
        learned: in deterministic mode, a digest of the best weights of each curve.
        arithmetic_s, memory_s: the least time that what was trained by the schedule takes, by either limit alone.
    """

    configuration: Configuration
    profile: Profile
    seed: int
    store: Store
    device: torch.device
    precision: Precision
    results: Path
    base_weights: Callable[[], BaseWeights]
    progress: Callable[[str, int], Progress]
    ceiling: Ceiling
    identity: str = ""
    complain: Callable[[str], None] = lambda line: None
    deadline: float = math.inf
    recorder: Recorder | None = None
    not_recorded: list[str] = field(default_factory=list)
    parts: int = 1
    weights_digest: str | None = None
    learned: dict[str, str] = field(default_factory=dict)
    arithmetic_s: float = 0.0
    memory_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    trainings: dict[str, Training] = field(default_factory=dict)

    @property
    def work(self) -> Work:
        return self.configuration.work_on(self.profile, self.store.kind)

    @property
    def augmentation(self) -> Augmentation | None:
        settings = self.configuration.augmentation
        return None if settings is None else Augmentation(**settings)

    @property
    def samples_file(self) -> Path:
        return self.results / "samples" / f"{self.configuration.id}-seed{self.seed}.npz"

    def weights_file(self, configuration: str) -> Path:
        return weights_path(self.results, configuration, self.seed)

    def keep_weights(self, state: Mapping[str, Tensor]) -> None:
        """Leave weights for the runs that start from this one."""
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
            parts=self.parts,
        )

    def place(self, model: nn.Module) -> None:
        """Move a model to the device, in the layout that convolutions are fastest in."""
        model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(
        self,
        model: nn.Module,
        task: Any,
        training: Split,
        validation: Split,
        curve: str = "training",
    ) -> Training:
        """Train by the configuration's schedule and keep account under ``curve``; see `hw6core.train.train`."""
        label = "" if curve == "training" else curve.replace("_", " ")
        result = self.train_aside(model, task, training, validation, self.schedule(), label)
        self.trainings[curve] = result
        if torch.are_deterministic_algorithms_enabled():
            self.learned[curve] = _digest(result.best_state)
        sample = task.evaluation_batch(training.inputs[:1], training.targets[:1])[0].shape[1:]
        batch = min(self.work.batch_size, len(training))
        self.count(step_cost(model, tuple(sample), batch, self.precision), result.samples)
        return result

    def count(self, cost: StepCost, samples: int) -> None:
        """Add the least time that so many samples take."""
        steps = samples / cost.samples
        self.arithmetic_s += steps * cost.arithmetic_s(self.ceiling)
        self.memory_s += steps * cost.memory_s(self.ceiling)

    def train_aside(
        self, model: nn.Module, task: Any, training: Split, validation: Split, schedule: Schedule, label: str
    ) -> Training:
        """A training by another schedule, which no curve shows."""
        steps = schedule.epochs * max(len(training) // min(schedule.batch_size, len(training)), 1)
        watch = self.watch(label, steps)
        try:
            return train(
                model,
                task,
                training,
                validation,
                schedule,
                seed=self.seed,
                precision=self.precision,
                progress=watch,
                recorder=self.recorder,
                checkpoint=self.checkpoint(label or "training", schedule),
            )
        finally:
            watch.close()

    def find_base_weights(self) -> BaseWeights:
        """Pre-trained VGG16 weights, before anything is drawn: to make a stand-in just now takes of the same stream."""
        with self.timed("base_weights_s"):
            found = self.base_weights()
        seed_everything(self.seed)
        return found

    def watch(self, label: str, steps: int) -> Progress:
        """The progress of one part of the run, which ends at the run's deadline."""
        return _Limited(self.progress(label, steps), self.deadline)

    def checkpoint(self, label: str, schedule: Schedule) -> Checkpoint:
        """Where one training of the run keeps its state."""
        path = checkpoints_folder(self.results, self.configuration.id, self.seed)
        name = re.sub(r"\W+", "-", label)
        identity = f"{self.identity} {label} {schedule}"
        return Checkpoint(path / f"{name}.safetensors", identity, complain=self.complain)

    def predict(self, model: nn.Module, task: Any, split: Split) -> Tensor:
        with self.timed("evaluation_s"):
            at_once = EVALUATED_AT_ONCE // self.parts
            return predict(model, task, split, precision=self.precision, batch_size=at_once)[0]

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        wait_for(self.device)
        start = time.perf_counter()
        yield
        wait_for(self.device)
        self.add_seconds(part, time.perf_counter() - start)

    def add_seconds(self, part: str, seconds: float) -> None:
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds


def _digest(state: Mapping[str, Tensor]) -> str:
    """16 hex digits over names, types, shapes and bytes."""
    found = sha256()
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


class _Limited:
    """`Progress` that ends a run at its deadline."""

    def __init__(self, progress: Progress, deadline: float) -> None:
        self._progress, self._deadline = progress, deadline
        self.resume, self.epoch, self.close = progress.resume, progress.epoch, progress.close

    def step(self) -> None:
        self._progress.step()
        if time.monotonic() > self._deadline:
            raise TimeLimitError("not done within the time limit of a run; a longer one: LIMIT=MINUTES")


def carry_out(run: Run) -> Outcome:
    """Train, score and save what later runs and the report need.

    Raises:
        SuiteError: data or weights are missing, the training diverged, or the deadline is over.
    """
    seed_everything(run.seed)
    return _WORKLOADS[run.configuration.kind](run)


def _segmentation(run: Run) -> Outcome:
    settings, size = run.configuration.settings, run.work.working_size
    with run.timed("data_s"):
        names = run.store.segmentation["train"].class_names
        training, validation, test = (
            run.store.segmentation_split(split, size) for split in ("train", "validation", "test")
        )
    task = tasks.SegmentationTask(
        len(names),
        DiceLoss(settings["smoothing"], settings["pool"]),
        run.augmentation,
        settings["minimum_class_pixels"],
    )
    model, weights = UNet(len(names)), "random"
    for source in run.configuration.requires:
        transfer(load_weights(run.weights_file(source)), model, UNET_HEAD, f"{source}'s weights")
        weights = source
    start_from_frequencies(model.head, training.targets)
    run.place(model)
    run.train(model, task, training, validation)
    answers = run.predict(model, task, test)
    truth = test.targets
    with run.timed("evaluation_s"):
        scores = metrics.segmentation_scores(answers, truth, len(names))
        trivial = metrics.segmentation_scores(torch.zeros_like(truth), truth, len(names))
    run.keep_weights(model.state_dict())
    _save_segmentation_samples(run, answers, scores.frame_present_dice)
    return Outcome(
        metrics=_headline(scores),
        trivial={name: value for name, value in _headline(trivial).items() if value is not None},
        weights=weights,
        details={
            "class_names": names,
            "pooled_dice": scores.pooled_dice,
            "support_frames": scores.support_frames,
            "frame_present_dice": scores.frame_present_dice,
            "samples": str(run.samples_file.relative_to(run.results)),
        },
    )


def _headline(scores: metrics.SegmentationScores) -> dict[str, float | None]:
    return {
        "course_dice": scores.course_dice,
        "present_dice": scores.present_dice,
        "challenge_iou": scores.challenge_iou,
        "pixel_accuracy": scores.pixel_accuracy,
    }


def _save_segmentation_samples(run: Run, answers: Tensor, frame_scores: tuple[float, ...]) -> None:
    """Best, median and worst test frame."""
    frames = run.store.segmentation["test"]
    ranked = sorted(range(len(frame_scores)), key=lambda frame: frame_scores[frame], reverse=True)
    shown = [ranked[0], ranked[len(ranked) // 2], ranked[-1]]
    _save_samples(
        run.samples_file,
        images=frames.images[shown].permute(0, 2, 3, 1),
        truth=frames.masks[shown],
        prediction=answers[shown],
        frames=torch.tensor(shown),
        scores=torch.tensor([frame_scores[frame] for frame in shown]),
    )


def _save_samples(path: Path, **arrays: Tensor) -> None:
    plain = {name: array.cpu().numpy() for name, array in arrays.items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **plain)


def _colorization(run: Run) -> Outcome:
    with run.timed("data_s"):
        training, validation = (run.store.colorization_split(split) for split in ("train", "validation"))
    task = tasks.ColorizationTask(run.work.working_size, run.augmentation)
    model = UNet(num_classes=3)
    nn.init.zeros_(model.head.weight)  # the first answer is then the grey frame itself
    run.place(model)
    run.train(model, task, training, validation)
    errors = run.predict(model, task, validation)
    with run.timed("evaluation_s"):
        cast = tasks.mean_colour(training.targets).expand(len(validation), -1, -1, -1)
        trivial = task.frame_errors(cast, validation.targets)
    run.keep_weights(model.state_dict())
    ranked = errors.argsort().tolist()
    shown = [ranked[0], ranked[len(ranked) // 2], ranked[-1]]
    frames = validation.targets[shown]
    with torch.inference_mode(), run.timed("warmup_s"):  # kernels are chosen for a batch of three
        outputs, _ = forward(model, task, Split(frames, frames), precision=run.precision)
    _save_samples(
        run.samples_file,
        grays=frames[:, 0],
        images=frames[:, 1:].permute(0, 2, 3, 1),
        predictions=(task.recolor(outputs, frames[:, :1]) * 255).round().to(torch.uint8).permute(0, 2, 3, 1),
        frames=torch.tensor(shown),
        errors=errors[shown],
    )
    return Outcome(
        metrics={"validation_mse": float(errors.mean())},
        trivial={"validation_mse": float(trivial.mean())},
        weights="random",
        details={"samples": str(run.samples_file.relative_to(run.results))},
    )


def _scratch(run: Run) -> Outcome:
    with run.timed("data_s"):
        splits = run.store.garment_splits(run.work.working_size, run.work.training_samples)
    task = tasks.ClassificationTask(tasks.FASHION_MEAN, tasks.FASHION_STD, run.augmentation)
    names = run.store.garments["train"].class_names
    model = vgg16(len(names))
    run.place(model)
    run.train(model, task, splits["train"], splits["validation"])
    answers = run.predict(model, task, splits["test"])
    run.keep_weights(model.state_dict())
    return _classified(answers, splits, names, "random")


def _frozen(run: Run) -> Outcome:
    base = run.find_base_weights()
    with run.timed("data_s"):
        splits = run.store.garment_splits(run.work.working_size, run.work.training_samples)
    task = tasks.FeatureTask(tasks.IMAGENET_MEAN, tasks.IMAGENET_STD)
    names = run.store.garments["train"].class_names
    model = vgg16(len(names), base.source, freeze_features=True)
    run.place(model)
    assert isinstance(model, FrozenVGG)
    _warm_up_features(run, model, task, splits["train"])
    with run.timed("features_s"):
        features = {name: Split(_features(run, model, task, split), split.targets) for name, split in splits.items()}
    cost = step_cost(model, (3, *run.work.working_size), _IMAGES_AT_ONCE, run.precision, training=False)
    run.count(cost, sum(map(len, splits.values())))
    head = model.classifier[-1]
    run.train(head, task, features["train"], features["validation"])
    answers = run.predict(head, task, features["test"])
    # The frozen layers are those of the base weights: only what was learned is kept.
    run.keep_weights({f"{VGG_HEAD}.{name}": value for name, value in head.state_dict().items()})
    return _classified(answers, splits, names, base.label)


def _warm_up_features(run: Run, model: FrozenVGG, task: tasks.ClassificationTask, split: Split) -> None:
    """Kernels are chosen, as in a training's first step."""
    with run.timed("warmup_s"):
        frozen_features(model, task, split.inputs[: _IMAGES_AT_ONCE // run.parts], run.precision)


def _features(run: Run, model: FrozenVGG, task: tasks.ClassificationTask, split: Split) -> Tensor:
    at_once = _IMAGES_AT_ONCE // run.parts
    watch = run.watch("features", -(-len(split) // at_once))
    return frozen_features(model, task, split.inputs, run.precision, watch, at_once)


@torch.inference_mode()
def frozen_features(
    model: FrozenVGG,
    task: tasks.ClassificationTask,
    images: Tensor,
    precision: Precision,
    progress: Progress | None = None,
    at_once: int = _IMAGES_AT_ONCE,
) -> Tensor:
    """The input of the last layer: the frozen network sees each image once, not once an epoch.

    (N, C, H, W) uint8 -> (N, 4096) float32.
    """
    collected = []
    for part in images.split(at_once):
        inputs = task.normalise(tasks.unit_range(part)).contiguous(memory_format=torch.channels_last)
        with autocast(images.device, precision):
            collected.append(model.penultimate(inputs).float())
        if progress is not None:
            progress.step()
    return torch.cat(collected)


def _classified(
    answers: Tensor,
    splits: Mapping[str, Split],
    names: tuple[str, ...],
    weights: str,
) -> Outcome:
    truth = splits["test"].targets
    majority = metrics.majority_class(splits["train"].targets, len(names))
    return Outcome(
        metrics={"accuracy": metrics.accuracy(answers, truth)},
        trivial={"accuracy": metrics.accuracy(torch.full_like(truth, majority), truth)},
        weights=weights,
        details={
            "class_names": names,
            "confusion_matrix": metrics.confusion_matrix(answers, truth, len(names)).tolist(),
        },
    )


def _new_task(run: Run) -> Outcome:
    size = run.work.working_size
    base = run.find_base_weights()
    with run.timed("data_s"):
        instruments = run.store.segmentation["train"].class_names[1:]
        training, validation, test = (
            run.store.instruments_split(split, size) for split in ("train", "validation", "test")
        )
    starts: dict[str, tuple[str | Path, tuple[Any, Any]]] = {
        "from_scratch": (run.weights_file("vgg-scratch"), (tasks.FASHION_MEAN, tasks.FASHION_STD)),
        "from_pretrained": (base.source, (tasks.IMAGENET_MEAN, tasks.IMAGENET_STD)),
    }
    majority = (training.targets.double().mean(0) > 0.5).long().expand_as(test.targets)
    outcome = Outcome({}, {}, weights=f"vgg-scratch against {base.label}", details={"class_names": instruments})
    for start, (weights, (mean, std)) in starts.items():
        seed_everything(run.seed)  # both starts get the same new last layer and the same order of samples
        task = tasks.MultiLabelTask(mean, std, run.augmentation)
        model = vgg16(len(instruments), weights, freeze_features=True)
        assert isinstance(model, FrozenVGG)
        run.place(model)
        _warm_up_features(run, model, task, training)
        with run.timed("new_layer_s"):
            probed = _probe(run, model, task, {"train": training, "validation": validation}, start.replace("_", " "))
        model.requires_grad_(True)
        head_alone = {key: value.detach().clone() for key, value in model.state_dict().items()}
        tuned = run.train(model, task, training, validation, start)
        if tuned.history[tuned.best_epoch - 1]["accuracy"] < probed:  # fine-tuning can distort what it starts from
            model.load_state_dict(head_alone)
        outcome.details[f"validation_accuracy_of_new_layer_{start}"] = probed
        answers = run.predict(model, task, test)
        outcome.metrics[f"accuracy_{start}"] = metrics.accuracy(answers, test.targets)
        outcome.metrics[f"frames_all_right_{start}"] = float((answers == test.targets).all(1).double().mean())
        outcome.trivial[f"accuracy_{start}"] = metrics.accuracy(majority, test.targets)
        outcome.details[f"label_accuracy_{start}"] = (answers == test.targets).double().mean(0).tolist()
    return outcome


def _probe(run: Run, model: FrozenVGG, task: tasks.ClassificationTask, splits: Mapping[str, Split], name: str) -> float:
    """Train the new last layer on the frozen network's features, before everything is fine-tuned.

    (Kumar et al. 2022.) A random last layer on features that vary by a hundredth gives the layers below no direction:
    fine-tuned at once, the network stayed at the label frequencies. The layer sees standardised features; mean and
    scale are then folded into its weights.

    Returns:
        accuracy on validation of the best epoch, whose layer the model then has.
    """
    features = {key: _features(run, model, task, split) for key, split in splits.items()}
    mean, scale = features["train"].mean(0), features["train"].std(0) + 1e-4
    standardised = {key: Split((features[key] - mean) / scale, split.targets) for key, split in splits.items()}
    layer = model.classifier[-1]
    frequency = (splits["train"].targets.sum(0) + 1) / (len(splits["train"]) + 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.logit(frequency))
    result = run.train_aside(
        layer,
        tasks.MultiLabelFeatureTask(task.mean, task.std),
        standardised["train"],
        standardised["validation"],
        Schedule(**run.configuration.settings["new_layer"]),
        f"{name}, new layer",
    )
    run.add_seconds("warmup_s", result.warmup_s)
    run.add_seconds("new_layer_s", -result.warmup_s)
    with torch.no_grad():
        layer.weight /= scale
        layer.bias -= layer.weight @ mean
    return result.history[result.best_epoch - 1]["accuracy"]


_WORKLOADS: Mapping[str, Callable[[Run], Outcome]] = {
    "segmentation": _segmentation,
    "colorization": _colorization,
    "scratch": _scratch,
    "frozen": _frozen,
    "new-task": _new_task,
}
