"""Scores the same weights in bfloat16 (or float16) and in float32: does the precision of the runs cost quality?

``python -m benchmarks.speed.precisions`` uses the segmentation weights in `RESULTS` and the test split.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.exits import exit_code_of
from benchmarks.interruption import exit_process
from benchmarks.machine.devices import choose_precision, open_device
from benchmarks.options import read_options
from benchmarks.results.formatting import number, table
from benchmarks.runs.plan import Plan
from benchmarks.workloads.datasets import Store
from benchmarks.workloads.run import weights_path
from hw6core.checkpoint import load_weights
from hw6core.device import HALF, Precision
from hw6core.errors import DataError
from hw6core.losses import DiceLoss
from hw6core.models import UNet
from hw6core.tasks import SegmentationTask
from hw6core.training import predict


def compare(options: Plan) -> tuple[str, bool]:
    """A table of each gated metric in both precisions, and whether every gate has the same verdict in both.

    Raises:
        DataError: there are no segmentation weights, or the data is missing.
    """
    seed, segmentation = options.seeds[0], [entry for entry in options.selected if entry.kind == "segmentation"]
    files = [(entry, weights_path(options.results, entry.id, seed)) for entry in segmentation]
    files = [(entry, file) for entry, file in files if file.is_file()]
    if not files:
        missing = f"no segmentation weights for seed {seed} in {options.results}"
        raise DataError(f"{missing}; make them: python -m benchmarks run")
    store = Store(options.data, open_device(options.device))
    own = choose_precision(store.device, options.precision)
    precisions: tuple[Precision, Precision] = (own if own in HALF else "bfloat16", "float32")
    rows: list[Sequence[str]] = []
    agreed = True
    for configuration, file in files:
        settings = configuration.settings_on(options.profile, store.kind)
        classes = len(store.segmentation["test"].class_names)
        model = UNet(classes)
        model.load_state_dict(load_weights(file))
        model.to(store.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        test = store.segmentation_split("test", configuration.work_on(options.profile, store.kind).working_size)
        loss = DiceLoss(settings["smoothing"], settings["pool"], settings.get("absent", "course"))
        task = SegmentationTask(classes, loss, None, settings["minimum_class_pixels"])
        scores = [task.score(predict(model, task, test, precision=each)[0], test.targets) for each in precisions]
        for gate in configuration.gates:
            low, high = (found[gate.metric] for found in scores)
            agreed &= gate.passes(low, {}) == gate.passes(high, {})
            cells = [number(gate.metric, value) for value in (low, high)]
            rows.append([configuration.id, gate.metric, *cells, f"{low - high:+.5f}", str(gate)])
    return table(["weights of", "metric", *precisions, "difference", "gate"], rows), agreed


def main() -> int:
    """Return 0 if every gate has the same verdict in both precisions, else 1."""
    text, agreed = compare(read_options({}))
    print(text)
    return 0 if agreed else 1


if __name__ == "__main__":
    exit_process(exit_code_of(main))
