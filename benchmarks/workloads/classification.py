"""Questions 2(a) and 2(b): VGG16 on Fashion-MNIST, from random weights or with all layers but the last frozen."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchvision.models.vgg import VGG

from benchmarks.machine.roofline import step_cost
from benchmarks.workloads.run import Outcome, Run
from hw6core import metrics, tasks
from hw6core.device import Precision, autocast
from hw6core.models import VGG_HEAD, FrozenVGG, start_from_shifts, vgg16
from hw6core.training import Callback, Split

_FEATURE_BATCH = 250  # images; no activations are kept for a backward pass
_IMAGES_FOR_START = 64


def run_scratch(run: Run) -> Outcome:
    with run.timed("data_s"):
        splits = run.store.garment_splits(run.work.working_size, run.work.training_samples)
    task = tasks.ClassificationTask(tasks.FASHION_MEAN, tasks.FASHION_STD, run.augmentation)
    names = run.store.garments["train"].class_names
    model = vgg16(len(names))
    if run.work.shifted_start:
        shift_start(model, task, splits["train"])
    run.place(model)
    run.train(model, task, splits["train"], splits["validation"])
    answers = {name: run.predict(model, task, splits[name]) for name in ("test", "train")}
    run.keep_weights(model.state_dict())
    start = "random, shifted copies" if run.work.shifted_start else "random"
    return classification_outcome(answers, splits, names, start)


def shift_start(model: VGG, task: tasks.ClassificationTask, training: Split) -> None:
    """`start_from_shifts` with training images; on the CPU, so that the weights are the same for every device."""
    start_from_shifts(model, task.normalise(tasks.unit_range(training.inputs[:_IMAGES_FOR_START].cpu())))


def run_frozen(run: Run) -> Outcome:
    base = run.base_weights
    assert base is not None
    with run.timed("data_s"):
        splits = run.store.garment_splits(run.work.working_size, run.work.training_samples)
    task = tasks.FeatureTask(tasks.IMAGENET_MEAN, tasks.IMAGENET_STD)
    names = run.store.garments["train"].class_names
    model = vgg16(len(names), base.source, freeze_features=True)
    run.place(model)
    assert isinstance(model, FrozenVGG)
    at_once = _FEATURE_BATCH // run.accumulation_steps
    with run.timed("warmup_s"):  # kernels are chosen, as in the first step of a training
        frozen_features(model, task, splits["train"].inputs[:at_once], run.precision)
    features = {}
    with run.timed("features_s"):
        for name, split in splits.items():
            callback = run.callback("features", -(-len(split) // at_once))
            inputs = frozen_features(model, task, split.inputs, run.precision, callback, at_once)
            features[name] = Split(inputs, split.targets)
    cost = step_cost(model, (3, *run.work.working_size), _FEATURE_BATCH, run.precision, training=False)
    run.count(cost, sum(map(len, splits.values())))
    head = model.classifier[-1]
    run.train(head, task, features["train"], features["validation"])
    answers = {name: run.predict(head, task, features[name]) for name in ("test", "train")}
    # Only the trained layer is saved; all others have the base weights.
    run.keep_weights({f"{VGG_HEAD}.{name}": value for name, value in head.state_dict().items()})
    return classification_outcome(answers, splits, names, base.label)


@torch.inference_mode()
def frozen_features(
    model: FrozenVGG,
    task: tasks.ClassificationTask,
    images: Tensor,
    precision: Precision,
    callback: Callback | None = None,
    at_once: int = _FEATURE_BATCH,
) -> Tensor:
    """The input of the last layer, computed once instead of in every epoch.

    (N, C, H, W) uint8 -> (N, 4096) float32.
    """
    collected = []
    for part in images.split(at_once):
        inputs = task.normalise(tasks.unit_range(part)).contiguous(memory_format=torch.channels_last)
        with autocast(images.device, precision):
            collected.append(model.penultimate(inputs).float())
        if callback is not None:
            callback.on_step()
    return torch.cat(collected)


def classification_outcome(
    answers: Mapping[str, Tensor], splits: Mapping[str, Split], names: tuple[str, ...], weights: str
) -> Outcome:
    """Scores of the predicted labels of the test split, and of the training split for comparison."""
    truth = splits["test"].targets
    majority = metrics.majority_class(splits["train"].targets, len(names))
    return Outcome(
        metrics={
            "accuracy": metrics.accuracy(answers["test"], truth),
            "training_accuracy": metrics.accuracy(answers["train"], splits["train"].targets),
        },
        trivial={"accuracy": metrics.accuracy(torch.full_like(truth, majority), truth)},
        weights=weights,
        details={
            "class_names": names,
            "confusion_matrix": metrics.confusion_matrix(answers["test"], truth, len(names)).tolist(),
        },
    )
