"""Questions 1(a), 1(b) and 1(d): the U-Net segments instruments, from random or pre-trained weights."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.workloads.floors import nearest_masks
from benchmarks.workloads.run import Outcome, Run, save_samples
from hw6core import metrics, tasks
from hw6core.checkpoint import load_weights, transfer
from hw6core.dice import drop_small_classes
from hw6core.losses import DiceLoss
from hw6core.models import UNET_HEAD, UNet, start_from_frequencies


def run_segmentation(run: Run) -> Outcome:
    settings, size = run.settings, run.work.working_size
    with run.timed("data_s"):
        names = run.store.segmentation["train"].class_names
        training, validation, test = (
            run.store.segmentation_split(split, size) for split in ("train", "validation", "test")
        )
    task = tasks.SegmentationTask(
        len(names),
        DiceLoss(settings["smoothing"], settings["pool"], settings.get("absent", "course")),
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
    unfiltered = run.predict(model, replace(task, minimum_class_pixels=0), test)
    truth = test.targets
    with run.timed("evaluation_s"):
        answers = drop_small_classes(unfiltered, len(names), settings["minimum_class_pixels"])
        without_rule = metrics.segmentation_scores(unfiltered, truth, len(names)).course_dice
        scores = metrics.segmentation_scores(answers, truth, len(names))
        trivial = metrics.segmentation_scores(torch.zeros_like(truth), truth, len(names))
    run.keep_weights(model.state_dict())
    _save_segmentation_samples(run, answers, scores.frame_present_dice)
    return Outcome(
        metrics={**_headline(scores), "course_dice_unfiltered": without_rule},
        trivial={name: value for name, value in _headline(trivial).items() if not math.isnan(value)},
        weights=weights,
        details={
            "class_names": names,
            "pooled_dice": scores.pooled_dice,
            "support_frames": scores.support_frames,
            "frame_present_dice": scores.frame_present_dice,
            "samples": str(run.samples_file.relative_to(run.results)),
        },
    )


def _headline(scores: metrics.SegmentationScores) -> dict[str, float]:
    return {
        "course_dice": scores.course_dice,
        "present_dice": scores.present_dice,
        "challenge_iou": scores.challenge_iou,
        "pixel_accuracy": scores.pixel_accuracy,
    }


def _save_segmentation_samples(run: Run, answers: Tensor, frame_scores: tuple[float, ...]) -> None:
    """Save the test frames with the look-up's best, median and worst score; the same for all configurations."""
    frames, look_up = run.store.segmentation["test"], nearest_masks(run).cpu()
    known = metrics.segmentation_scores(look_up, frames.masks, len(frames.class_names)).frame_present_dice
    ranked = sorted(range(len(known)), key=lambda frame: known[frame], reverse=True)
    shown = [ranked[0], ranked[len(ranked) // 2], ranked[-1]]
    save_samples(
        run.samples_file,
        images=frames.images[shown].permute(0, 2, 3, 1),
        truth=frames.masks[shown],
        prediction=answers[shown],
        look_up=look_up[shown],
        frames=torch.tensor(shown),
        scores=torch.tensor([frame_scores[frame] for frame in shown]),
        look_up_scores=torch.tensor([known[frame] for frame in shown]),
    )
