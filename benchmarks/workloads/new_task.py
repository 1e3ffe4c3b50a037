"""Question 2(c): both VGG16s fine-tuned on a new task; which initial weights are better?

The task: which cells of a crop of an EndoVis frame show instruments? Recognising the instruments of a whole frame is
not a useful task: the nearest training frame, seconds apart in the same recording, predicts them better, and so do the
features of an untrained network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.workloads.run import Outcome, Run
from hw6core import metrics, tasks
from hw6core.device import double
from hw6core.models import vgg16
from hw6core.seeding import seed_everything


def run_new_task(run: Run) -> Outcome:
    size, settings = run.work.working_size, run.settings
    grid = tuple(settings["grid"])
    base = run.base_weights
    assert base is not None
    with run.timed("data_s"):
        training = run.store.cutouts_split("train", size, settings["cutouts"], run.work.training_samples)
        validation, test = (
            run.store.cutouts_split(split, size, settings["cutouts"]) for split in ("validation", "test")
        )
        cells = tasks.instrument_cells(training.targets, grid)
        truth = tasks.instrument_cells(test.targets, grid)
    starts: dict[str, tuple[Path | None, tuple[Any, Any]]] = {
        "from_scratch": (run.weights_file("vgg-scratch"), (tasks.FASHION_MEAN, tasks.FASHION_STD)),
        "from_pretrained": (base.source, (tasks.IMAGENET_MEAN, tasks.IMAGENET_STD)),
        "untrained": (None, (tasks.IMAGENET_MEAN, tasks.IMAGENET_STD)),  # the control
    }
    majority = (2 * cells.sum(0) > len(cells)).long().expand_as(truth)
    frequency = (cells.sum(0) + 1) / (len(cells) + 2)  # never 0 or 1
    outcome = Outcome({}, {}, weights=f"vgg-scratch against {base.label}")
    for start, (weights, (mean, std)) in starts.items():
        seed_everything(run.seed)  # the same order of samples for all
        task = tasks.InstrumentCellsTask(mean, std, run.augmentation, grid=grid)
        model = vgg16(truth.shape[1], weights, freeze_features=True)  # disables dropout, see FrozenVGG
        model.requires_grad_(True)
        with torch.no_grad():  # the same last layer for all, which first predicts the frequencies of the cells
            model.classifier[-1].weight.zero_()
            model.classifier[-1].bias.copy_(torch.logit(frequency))
        run.place(model)
        run.train(model, task, training, validation, start)
        answers = run.predict(model, task, test)
        outcome.metrics[f"accuracy_{start}"] = metrics.accuracy(answers, truth)
        outcome.metrics[f"frames_all_right_{start}"] = float(double((answers == truth).all(1)).mean())
        outcome.trivial[f"accuracy_{start}"] = metrics.accuracy(majority, truth)
    return outcome
