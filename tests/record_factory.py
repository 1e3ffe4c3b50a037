"""Made-up records for tests."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.results.records import Data, Details, Environment, Record, Timing, Unpublished, write_record
from benchmarks.suite import SUITE, Floor
from hw6core.data.synthetic import CLASS_LEVELS

CLASS_NAMES = list(CLASS_LEVELS)
STARTS = ("from_scratch", "from_pretrained", "untrained")
GARMENTS = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
SEGMENTATION = ("course_dice", "present_dice", "challenge_iou", "pixel_accuracy", "course_dice_unfiltered")
METRICS: dict[str, dict[str, float]] = {
    "seg-baseline": dict(zip(SEGMENTATION, (0.9, 0.85, 0.7, 0.97, 0.88), strict=True)),
    "seg-augmented": dict(zip(SEGMENTATION, (0.91, 0.86, 0.72, 0.975, 0.89), strict=True)),
    "seg-pretrained": dict(zip(SEGMENTATION, (0.92, 0.87, 0.73, 0.98, 0.902), strict=True)),
    "colorization": {"validation_mse": 0.00071},
    "vgg-scratch": {"accuracy": 0.93, "training_accuracy": 0.96},
    "vgg-frozen": {"accuracy": 0.8, "training_accuracy": 0.82},
    "vgg-new-task": {
        "accuracy_from_scratch": 0.86,
        "frames_all_right_from_scratch": 0.4,
        "accuracy_from_pretrained": 0.89,
        "frames_all_right_from_pretrained": 0.5,
        "accuracy_untrained": 0.84,
        "frames_all_right_untrained": 0.3,
    },
}
TRIVIAL: dict[str, float] = {
    "course_dice": 0.762,
    "present_dice": 0.343,
    "challenge_iou": 0.0,
    "pixel_accuracy": 0.85,
    "validation_mse": 0.0028,
    "accuracy": 0.1,
    "accuracy_from_scratch": 0.824,
    "accuracy_from_pretrained": 0.824,
    "accuracy_untrained": 0.824,
}
# Measured on the real data.
FLOORS: dict[Floor, dict[str, float]] = {
    "nearest training frame's mask": {"course_dice": 0.869, "present_dice": 0.664},
    "colour for each grey level": {"validation_mse": 0.00202},
    "5 nearest neighbours": {"accuracy": 0.8532},
    "nearest class mean": {"accuracy": 0.6768},
    "untrained VGG16's features": {"accuracy": 0.756},
    "nearest training part's labels": {"accuracy_from_scratch": 0.85, "accuracy_from_pretrained": 0.85},
    "an untrained start": {"accuracy_from_scratch": 0.84, "accuracy_from_pretrained": 0.84},
}
# A change for `make_record`, for tests of low scores against the gates only.
LOW_FLOOR: dict[str, Any] = {"floors": {name: dict.fromkeys(TRIVIAL, 0.05) for name in FLOORS}}
WEIGHTS = {"seg-pretrained": "colorization", "vgg-frozen": "ImageNet", "vgg-new-task": "vgg-scratch against ImageNet"}


def metrics_of(configuration: str) -> dict[str, float]:
    """The metrics of a configuration, or of another one of its kind, so that a new one needs no entry in `METRICS`."""
    kind = SUITE[configuration].kind
    nearest = next((name for name in METRICS if SUITE[name].kind == kind), "") if configuration not in METRICS else ""
    return METRICS[nearest or configuration]


def make_record(configuration: str, seed: int = 0, **changes: Any) -> Record:
    """A completed ``full`` record on real data that passes every gate.

    ``changes`` replace fields; dictionaries are merged into the existing ones.
    """
    suite_entry = SUITE[configuration]
    metrics, history = metrics_of(configuration), make_history(configuration, seed)
    record = Record(
        configuration=configuration,
        profile="full",
        seed=seed,
        status="completed",
        metrics=dict(metrics),
        trivial={name: TRIVIAL[name] for name in metrics if name in TRIVIAL},
        floors={name: dict(FLOORS[name]) for name in suite_entry.floors},
        gates=suite_entry.gates,
        history=dict(history),
        timing=Timing(training_s=245.0, evaluation_s=12.0, total_s=260.0, epochs=40, best_epoch=36),
        environment=Environment(device_name="Example GPU", precision="bfloat16", mode="fast", torch="2.12.0"),
        data=Data("real", unpublished=Unpublished(0, [])),
        weights=WEIGHTS.get(configuration, "random"),
        details=Details(
            **_details(suite_entry.kind, f"samples/{configuration}-seed{seed}.npz"),
            best_epochs=dict.fromkeys(history, 36),
            movement={curve: {"head": 0.5} for curve in history},
            limited_by="memory",
            weights_digest=None if configuration == "vgg-new-task" else "0123456789abcdef",
            started_from=dict.fromkeys(suite_entry.requires, "fedcba9876543210"),
        ),
    )
    for name, value in changes.items():
        present = getattr(record, name)
        if isinstance(present, msgspec.Struct) and isinstance(value, dict):
            value = msgspec.convert(msgspec.to_builtins(present) | value, type(present))
        setattr(record, name, present | value if isinstance(present, dict) else value)
    if "settings" not in changes:
        record.settings = suite_entry.fingerprint(record.profile, str(record.data.kind))
    return record


def write_records(folder: Path, records: Iterable[Record]) -> Path:
    for record in records:
        write_record(folder, record)
    return folder


def make_history(configuration: str, seed: int = 0, epochs: int = 40) -> dict[str, list[dict[str, float]]]:
    """Smooth curves with a ripple that depends on the seed."""
    kind = SUITE[configuration].kind
    pace = 0.9 * list(SUITE).index(configuration) - 3 * (kind == "new-task")
    curves = STARTS if kind == "new-task" else ("training",)
    return {
        name: [_entry(kind, place, pace, epoch, seed) for epoch in range(1, epochs + 1)]
        for place, name in enumerate(curves)
    }


def _entry(kind: str, place: int, pace: float, epoch: int, seed: int) -> dict[str, float]:
    learned = 1 - math.exp(-epoch / (9 - 3 * place - pace)) * (1 + 0.15 * math.sin(2.1 * epoch + seed))
    entry = {"epoch": float(epoch), "learning_rate": 1e-3, "seconds": 6.0 * epoch}
    if kind == "segmentation":
        scores = {"course_dice": 0.3 + 0.6 * learned, "present_dice": 0.2 + 0.65 * learned}
        scores["selection_dice"] = sum(scores.values()) / 2
        losses = 0.9 - 0.82 * learned, 0.9 - 0.75 * learned
    elif kind == "colorization":
        losses = 0.02 - 0.0194 * learned, 0.02 - 0.019 * learned
        scores = {"validation_mse": losses[1]}
    else:
        scores, losses = {"accuracy": 0.5 + 0.42 * learned}, (2.2 - 2.1 * learned, 2.2 - 1.9 * learned)
    return entry | scores | dict(zip(("train_loss", "validation_loss"), losses, strict=True))


def _details(kind: str, samples: str) -> dict[str, Any]:
    if kind == "segmentation":
        return {
            "class_names": list(CLASS_NAMES),
            "pooled_dice": [0.98, 0.7, 0.81, 0.85, 0.4, None, None, 0.62],
            "support_frames": [50, 9, 32, 21, 2, 0, 0, 27],
            "frame_present_dice": [0.5 + index / 100 for index in range(50)],
            "samples": samples,
        }
    if kind == "colorization":
        return {"samples": samples}
    if kind == "new-task":
        return {}
    matrix = [[900 if row == column else 11 for column in range(10)] for row in range(10)]
    matrix[6][0] = 150  # shirts mistaken for T-shirts
    return {"class_names": list(GARMENTS), "confusion_matrix": matrix}


def distinct_records(seeds: Sequence[int]) -> list[Record]:
    """A passing record of every configuration for every seed, in which every number is different.

    Scores are above 0.9 and differ in the third digit, errors in the fifth; times are whole seconds below an hour.
    """
    draws = random.Random(0)
    scores, trivial, floors = (iter(draws.sample(range(1, 99), 98)) for _ in range(3))
    times = iter(draws.sample(range(1, 3500), 3499))
    records = []
    for name in SUITE:
        for seed in seeds:
            record = make_record(name, seed)
            for metric in record.metrics:
                small = metric == "validation_mse"
                record.metrics[metric] = next(scores) * 1e-5 if small else 0.9 + next(scores) * 1e-3
                record.trivial[metric] = 0.004 + next(trivial) * 1e-5 if small else next(trivial) * 1e-3
            for floor in (record.floors or {}).values():
                for metric in floor:
                    small = metric == "validation_mse"
                    floor[metric] = 0.002 + next(floors) * 1e-5 if small else 0.5 + next(floors) * 1e-3
            parts = ("data_s", "warmup_s", "training_s", "evaluation_s", "total_s", "epochs_to_gate")
            record.timing = Timing(**{part: float(next(times)) for part in parts})
            record.timing.seconds_to_gate, record.timing.samples_per_s = float(next(times)), float(next(times))
            record.timing.share_of_attainable = next(times) / 3500
            history = make_history(name, seed, epochs=draws.randint(4, 10))
            for entry in (entry for entries in history.values() for entry in entries):
                entry |= {key: draws.random() for key in entry if key != "epoch"}
            record.history = dict(history)
            details = record.details
            details.best_epochs = {curve: draws.randint(1, len(entries)) for curve, entries in history.items()}
            details.limited_by = f"limit of {name}"
            if details.pooled_dice:
                details.pooled_dice = [draws.random() for _ in CLASS_NAMES]
            if details.confusion_matrix:
                details.confusion_matrix = [[draws.randint(0, 99) for _ in GARMENTS] for _ in GARMENTS]
            records.append(record)
    return records
