"""Floors, the scores of baselines without training: look-ups in the training split, and an untrained network.

A run that does not beat them has not learned its task. A look-up uses only the training samples of the run, is
deterministic, and is scored by the same functions as the run.

Distances between images are sums of squares of integers, which are exact in float64: the same on every device and for
every chunk size. Of training samples at equal distance the first is the nearest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.suite import CONTROL, Floor
from benchmarks.workloads.classification import run_frozen
from benchmarks.workloads.run import BaseWeights, Run
from hw6core import metrics, tasks
from hw6core.data.cache import cached, one_at_a_time
from hw6core.device import double
from hw6core.seeding import seed_everything

_FRAME = (32, 40)  # the size at which frames are compared
_NEIGHBOURS = 5
_QUERIES_AT_ONCE = 200  # against 54,000 images: 90 MB
_FRAMES_AT_ONCE = 100
_UNTRAINED_SEED = 0  # the same untrained network for all seeds, as there is one set of ImageNet weights

Scores = dict[str, float]


def find_floors(run: Run, reached: Mapping[str, float | None]) -> dict[str, Scores]:
    """{name: {metric of a gate: value}} for the floors of the configuration.

    Look-ups are cached.

    Args:
        reached: the metrics of the run; those of its untrained control are one of the floors.

    Raises:
        DataError: the data is missing or damaged.
    """
    names = [name for name in run.configuration.floors if name != CONTROL]
    kind = f"floors-{run.configuration.id}"

    def look_up() -> dict[str, Tensor]:
        text = json.dumps({name: _LOOK_UPS[name](run) for name in names})
        return {"json": torch.tensor(list(text.encode()), dtype=torch.uint8)}

    floors: dict[str, Scores] = {}
    if names:
        with run.timed("floors_s"), one_at_a_time(kind):
            found = cached([], kind, look_up, f"{run.floors_identity} {names}")
        floors = json.loads(bytes(found["json"].tolist()))
    if CONTROL in run.configuration.floors:
        accuracy = reached["accuracy_untrained"]
        assert accuracy is not None
        floors[CONTROL] = {gate.metric: accuracy for gate in run.configuration.gates}
    return floors


def nearest_masks(run: Run) -> Tensor:
    """The mask of the nearest training frame for each test frame: (N, H, W) uint8 classes."""
    training, test = (run.store.segmentation_split(split, _FRAME) for split in ("train", "test"))
    return training.targets[nearest(test.inputs, training.inputs)[:, 0]]


def _nearest_mask(run: Run) -> Scores:
    test = run.store.segmentation["test"]
    scores = metrics.segmentation_scores(nearest_masks(run), test.masks.to(run.device), len(test.class_names))
    return {"course_dice": scores.course_dice, "present_dice": scores.present_dice}


def _nearest_labels(run: Run) -> Scores:
    settings = run.settings
    training = run.store.cutouts_split("train", _FRAME, settings["cutouts"], run.work.training_samples)
    test = run.store.cutouts_split("test", _FRAME, settings["cutouts"])
    known, truth = (tasks.instrument_cells(split.targets, tuple(settings["grid"])) for split in (training, test))
    accuracy = metrics.accuracy(known[nearest(test.inputs, training.inputs)[:, 0]], truth)
    return {gate.metric: accuracy for gate in run.configuration.gates}


def _colour_for_each_grey_level(run: Run) -> Scores:
    training, validation = (run.store.colorization_split(split).targets for split in ("train", "validation"))
    difference = colour_of_levels(training)[validation[:, 0].long()].permute(0, 3, 1, 2)
    errors = tasks.ColorizationTask(run.work.working_size, augmentation=None).frame_errors(difference, validation)
    return {"validation_mse": float(errors.mean())}


def colour_of_levels(frames: Tensor) -> Tensor:
    """Mean colour minus grey of each grey level: (N, 4, H, W) uint8, grey before RGB -> (256, 3) float32.

    The best prediction by squared error from a pixel's grey level alone; 0 for a level that does not occur.

    >>> colour_of_levels(torch.tensor([9, 60, 9, 0], dtype=torch.uint8).view(1, 4, 1, 1))[9]
    tensor([ 0.2000,  0.0000, -0.0353])
    """
    counts = torch.zeros(3, 256 * 256, dtype=torch.int64, device=frames.device)
    for chunk in frames.split(_FRAMES_AT_ONCE):
        pairs = chunk[:, :1].int() * 256 + chunk[:, 1:]
        for colour, count in enumerate(counts):
            count += torch.bincount(pairs[:, colour].flatten(), minlength=256 * 256)
    histogram, levels = counts.view(3, 256, 256), torch.arange(256, device=frames.device)
    pixels = histogram.sum(2)
    sums = (histogram * levels).sum(2) - pixels * levels
    return (sums / pixels.clamp(min=1) / 255).T


def _nearest_neighbours(run: Run) -> Scores:
    splits = run.store.garment_splits(run.work.working_size, run.work.training_samples)
    training, test = splits["train"], splits["test"]
    labels = training.targets[nearest(test.inputs, training.inputs, _NEIGHBOURS)]
    return {"accuracy": metrics.accuracy(most_frequent(labels), test.targets)}


def most_frequent(labels: Tensor) -> Tensor:
    """(N, K) int64 -> (N,): the most frequent label of each row, the smallest of equally frequent ones.

    >>> most_frequent(torch.tensor([[2, 7, 7], [3, 1, 2]]))
    tensor([7, 1])
    """
    return F.one_hot(labels).sum(1).argmax(1)


def _nearest_class_mean(run: Run) -> Scores:
    splits = run.store.garment_splits(run.work.working_size, run.work.training_samples)
    training, test = splits["train"], splits["test"]
    answers = nearest_mean(test.inputs, training.inputs, training.targets)
    return {"accuracy": metrics.accuracy(answers, test.targets)}


def _untrained_features(run: Run) -> Scores:
    """The same run with an untrained network."""
    with TemporaryDirectory() as folder:
        untrained = replace(
            run,
            seed=_UNTRAINED_SEED,
            results=Path(folder),
            base_weights=BaseWeights(None, "untrained"),
            deadline=math.inf,  # the run itself is complete
            progress=lambda label, steps: run.progress(f"floor: {label or 'last layer'}", steps),
        )
        seed_everything(untrained.seed)
        accuracy = run_frozen(untrained).metrics["accuracy"]
    assert accuracy is not None
    return {"accuracy": accuracy}


_LOOK_UPS: Mapping[Floor, Callable[[Run], Scores]] = {
    "nearest training frame's mask": _nearest_mask,
    "colour for each grey level": _colour_for_each_grey_level,
    "5 nearest neighbours": _nearest_neighbours,
    "nearest class mean": _nearest_class_mean,
    "untrained VGG16's features": _untrained_features,
    "nearest training part's labels": _nearest_labels,
}


def nearest(queries: Tensor, known: Tensor, count: int = 1) -> Tensor:
    """Indices of the ``count`` nearest known samples of each query, by Euclidean distance, nearest first.

    (Q, ...) and (N, ...) uint8 -> (Q, count) int64.

    >>> nearest(torch.tensor([[4], [9]], dtype=torch.uint8), torch.tensor([[3], [8], [5]], dtype=torch.uint8), 2)
    tensor([[0, 2],
            [1, 2]])
    """
    pixels = known.flatten(1)
    varying = (pixels != pixels[0]).any(0)  # constant pixels, such as a border, do not affect the order
    indices = double(torch.arange(len(known), device=known.device))
    found = []
    for distances in _squared_distances(queries.flatten(1)[:, varying], double(pixels[:, varying])):
        ranks = distances * len(known) + indices  # distinct integers below 2^53
        found.append((ranks.topk(count, largest=False).values % len(known)).long())
    return torch.cat(found).to(known.device)


def nearest_mean(queries: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """The label with the nearest class mean for each query: (Q, ...) and (N, ...) uint8, (N,) int64 -> (Q,) int64.

    >>> known, labels = torch.tensor([[0], [8], [9]], dtype=torch.uint8), torch.tensor([4, 1, 4])
    >>> nearest_mean(torch.tensor([[6], [7]], dtype=torch.uint8), known, labels)
    tensor([4, 1])
    """
    members = F.one_hot(labels)
    counts = members.sum(0)
    chunks = zip(known.flatten(1).split(_QUERIES_AT_ONCE), members.split(_QUERIES_AT_ONCE), strict=True)
    sums = sum(double(chosen).T @ double(images) for images, chosen in chunks)
    means = sums / double(counts).clamp(min=1).unsqueeze(1)
    distances = torch.cat(list(_squared_distances(queries.flatten(1), means)))
    return distances.masked_fill(double(counts) == 0, torch.inf).argmin(1).to(known.device)


def _squared_distances(queries: Tensor, known: Tensor) -> Iterator[Tensor]:
    """(Q, F) uint8 and (N, F) float64 -> chunks of (Q, N) float64."""
    lengths = known.square().sum(1)
    for chunk in queries.split(_QUERIES_AT_ONCE):
        values = double(chunk)
        yield values.square().sum(1, keepdim=True) + lengths - 2 * values @ known.T
