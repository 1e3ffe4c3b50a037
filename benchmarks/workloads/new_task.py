"""Question 2(c): both fine-tuned on a task that neither has seen; which start is better?

The task: where in an EndoVis frame are instruments? Which of them a frame shows was no task: the nearest training frame
tells it better than any network, as both come from the same seconds of a recording. Where they are changes from frame
to frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.workloads.classification import features_of, warm_up_features
from benchmarks.workloads.run import Outcome, Run
from hw6core import metrics, tasks
from hw6core.models import FrozenVGG, vgg16
from hw6core.schedule import Schedule
from hw6core.seeding import seed_everything
from hw6core.training import Split


def run_new_task(run: Run) -> Outcome:
    size, grid = run.work.working_size, tuple(run.configuration.settings["grid"])
    base = run.base_weights
    assert base is not None
    with run.timed("data_s"):
        training, validation, test = (
            run.store.segmentation_split(split, size) for split in ("train", "validation", "test")
        )
        cells = tasks.instrument_cells(training.targets, grid)
        truth = tasks.instrument_cells(test.targets, grid)
    starts: dict[str, tuple[Path | None, tuple[Any, Any]]] = {
        "from_scratch": (run.weights_file("vgg-scratch"), (tasks.FASHION_MEAN, tasks.FASHION_STD)),
        "from_pretrained": (base.source, (tasks.IMAGENET_MEAN, tasks.IMAGENET_STD)),
        "untrained": (None, (tasks.IMAGENET_MEAN, tasks.IMAGENET_STD)),  # the control
    }
    majority = (cells.double().mean(0) > 0.5).long().expand_as(truth)
    outcome = Outcome({}, {}, weights=f"vgg-scratch against {base.label}")
    for start, (weights, (mean, std)) in starts.items():
        seed_everything(run.seed)  # every start gets the same new last layer and the same order of samples
        task = tasks.InstrumentCellsTask(mean, std, run.augmentation, grid=grid)
        model = vgg16(truth.shape[1], weights, freeze_features=True)
        assert isinstance(model, FrozenVGG)
        run.place(model)
        warm_up_features(run, model, task, training)
        with run.timed("new_layer_s"):
            probed = _probe(run, model, task, {"train": training, "validation": validation}, start.replace("_", " "))
        model.requires_grad_(True)
        head_alone = {key: value.detach().clone() for key, value in model.state_dict().items()}
        tuned = run.train(model, task, training, validation, start)
        if tuned.history[tuned.best_epoch - 1]["accuracy"] < probed:  # fine-tuning can distort what it starts from
            model.load_state_dict(head_alone)
        outcome.details[f"validation_accuracy_of_new_layer_{start}"] = probed
        answers = run.predict(model, task, test)
        outcome.metrics[f"accuracy_{start}"] = metrics.accuracy(answers, truth)
        outcome.metrics[f"frames_all_right_{start}"] = float((answers == truth).all(1).double().mean())
        outcome.trivial[f"accuracy_{start}"] = metrics.accuracy(majority, truth)
        outcome.details[f"label_accuracy_{start}"] = (answers == truth).double().mean(0).tolist()
    return outcome


def _probe(
    run: Run, model: FrozenVGG, task: tasks.InstrumentCellsTask, splits: Mapping[str, Split], name: str
) -> float:
    """Train the new last layer on the frozen network's features, before everything is fine-tuned.

    (Kumar et al. 2022.) A random last layer on features that vary by a hundredth gives the layers below no direction:
    fine-tuned at once, the network stayed at the label frequencies. The layer sees standardised features; mean and
    scale are then folded into its weights.

    Returns:
        accuracy on validation of the best epoch, whose layer the model then has.
    """
    features = {key: features_of(run, model, task, split) for key, split in splits.items()}
    cells = {key: tasks.instrument_cells(split.targets, task.grid) for key, split in splits.items()}
    mean, scale = features["train"].mean(0), features["train"].std(0) + 1e-4
    standardised = {key: Split((features[key] - mean) / scale, cells[key]) for key in splits}
    layer = model.classifier[-1]
    frequency = (cells["train"].sum(0) + 1) / (len(cells["train"]) + 2)
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
