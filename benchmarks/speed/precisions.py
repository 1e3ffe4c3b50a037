"""One set of weights scored in bfloat16 (or float16) and in float32: does the precision of the runs cost quality?

``python -m benchmarks.speed.precisions`` scores the segmentations that a suite has left in `RESULTS` on the test split.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.exits import exit_code_of
from benchmarks.machine.devices import choose_precision, open_device
from benchmarks.options import read_options
from benchmarks.results.formatting import number, table
from benchmarks.runs.plan import Plan
from benchmarks.suite import Configuration
from benchmarks.workloads.datasets import Store
from benchmarks.workloads.run import weights_path
from hw6core import metrics, tasks
from hw6core.checkpoint import load_weights
from hw6core.device import HALF, Precision
from hw6core.errors import DataError
from hw6core.losses import DiceLoss
from hw6core.models import UNet
from hw6core.training import predict


def compare(options: Plan) -> tuple[str, bool]:
    """A table of each gated metric in both precisions, and whether every gate says the same in both.

    Raises:
        DataError: no segmentation has left weights, or the data is missing.
    """
    results, seed = options.results, options.seeds[0]
    chosen = [entry for entry in options.selected if weights_path(results, entry.id, seed).is_file()]
    chosen = [entry for entry in chosen if entry.kind == "segmentation"]
    if not chosen:
        raise DataError(f"no weights of a segmentation with seed {seed} in {results}; run the suite there first")
    assert options.data is not None
    store = Store(options.data, open_device(options.device))
    chosen_one = choose_precision(store.device, options.precision)
    precisions: tuple[Precision, Precision] = (chosen_one if chosen_one in HALF else "bfloat16", "float32")
    rows: list[Sequence[str]] = []
    agreed = True
    for configuration in chosen:
        weights = load_weights(weights_path(results, configuration.id, seed))
        scored = [_scores(weights, configuration, store, options.profile, precision) for precision in precisions]
        for gate in configuration.gates:
            low, high = (scores[gate.metric] for scores in scored)
            agreed &= gate.passes(low, {}) == gate.passes(high, {})
            cells = [number(gate.metric, value) for value in (low, high)]
            rows.append([configuration.id, gate.metric, *cells, f"{low - high:+.5f}", str(gate)])
    return table(["weights of", "metric", *precisions, "difference", "gate"], rows), agreed


def _scores(
    weights: dict[str, Tensor], configuration: Configuration, store: Store, profile: str, precision: Precision
) -> dict[str, float]:
    settings, classes = configuration.settings, len(store.segmentation["test"].class_names)
    model = UNet(classes)
    model.load_state_dict(weights)
    model.to(store.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    test = store.segmentation_split("test", configuration.work[profile].working_size)
    loss = DiceLoss(settings["smoothing"], settings["pool"])
    task = tasks.SegmentationTask(classes, loss, None, settings["minimum_class_pixels"])
    answers, _ = predict(model, task, test, precision=precision)
    scores = metrics.segmentation_scores(answers, test.targets, classes)
    return {"course_dice": scores.course_dice, "present_dice": scores.present_dice}


def main() -> int:
    """Exit code 0 if every gate says the same in both precisions."""
    text, agreed = compare(read_options({}))
    print(text)
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
