"""What each task hands to the loop, and how answers are scored."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from benchmarks.tasks import (
    FASHION_MEAN,
    FASHION_STD,
    ClassificationTask,
    ColorizationTask,
    MultiLabelTask,
    SegmentationTask,
    resize_images,
    resize_masks,
)
from hw6core.data.augment import Augmentation
from hw6core.dice import drop_small_classes
from hw6core.losses import DiceLoss
from hw6core.metrics import segmentation_scores
from hw6core.models import UNet, start_from_frequencies
from tests.peak_memory import peak_bytes


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def segmentation(augmentation: Augmentation | None = None, minimum: int = 0) -> SegmentationTask:
    return SegmentationTask(3, DiceLoss(), augmentation, minimum)


def test_images_are_averaged_and_masks_are_not() -> None:
    image = torch.tensor([[[[0, 100], [200, 100]]]], dtype=torch.uint8)
    assert resize_images(image, (1, 1)).tolist() == [[[[100]]]]
    mask = torch.tensor([[[0, 0, 2, 2], [0, 0, 2, 2]]], dtype=torch.uint8)
    assert resize_masks(mask, (1, 2)).tolist() == [[[0, 2]]]


def test_the_network_sees_the_working_size_and_is_scored_at_the_masks() -> None:
    images = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    masks = torch.zeros(2, 16, 20, dtype=torch.uint8)
    masks[:, :, 10:] = 2
    task = segmentation()
    inputs, targets = task.evaluation_batch(images, masks)
    assert inputs.shape == (2, 3, 4, 5)
    assert targets.shape == (2, 4, 5)
    assert targets.dtype == torch.int64
    logits = torch.zeros(2, 3, 4, 5)
    logits[:, 2, :, 2:] = 1.0
    answers = task.answer(logits, (16, 20))
    assert answers.shape == (2, 16, 20)
    # Columns 1 and 2 of 5 have their centres at 5.5 and 9.5 of 20; between them class 2 rises from a tie with class 0.
    assert (answers[:, :, :6] == 0).all()
    assert (answers[:, :, 6:] == 2).all()


def test_both_gates_weigh_the_same_in_the_choice_of_the_epoch() -> None:
    truth = torch.tensor([[[0, 0], [0, 1]]], dtype=torch.uint8)
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 0] = 1.0  # background everywhere
    task = segmentation()
    scores = task.score(task.summary(logits, truth), truth)
    background = 2 * 3 / (3 + 4)
    assert math.isclose(scores["course_dice"], (background + 0 + 1) / 3)
    assert math.isclose(scores["present_dice"], background / 2)
    assert math.isclose(scores["selection_dice"], (scores["course_dice"] + scores["present_dice"]) / 2)


def test_small_classes_are_dropped_before_scoring() -> None:
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 0] = 1.0
    logits[0, 2, 0, 0] = 9.0  # one stray pixel of class 2
    assert segmentation(minimum=0).answer(logits, (4, 4)).unique().tolist() == [0, 2]
    assert segmentation(minimum=2).answer(logits, (4, 4)).unique().tolist() == [0]


def test_what_is_done_with_all_frames_takes_little_memory_beside_its_result(tmp_path: Path) -> None:
    images, masks = torch.zeros(1000, 3, 64, 80, dtype=torch.uint8), torch.zeros(1000, 256, 320, dtype=torch.uint8)
    head = UNet(3).head
    for work in (
        lambda: resize_images(images, (32, 40)),
        lambda: drop_small_classes(masks, 3, 2),
        lambda: segmentation_scores(masks, masks, 3),
        lambda: start_from_frequencies(head, masks),
    ):
        # As much as all masks, 78 MiB, and the working copies of a hundred frames; all at once took up to 700 MiB.
        assert peak_bytes(work, tmp_path) < masks.nbytes + 100 * 2**20


def test_training_masks_follow_their_images() -> None:
    images = torch.zeros(4, 3, 2, 4, dtype=torch.uint8)
    images[..., :2] = 255
    masks = (images[:, 0] > 0).to(torch.uint8)
    inputs, targets = segmentation(Augmentation(horizontal_flip=1.0)).training_batch(images, masks, generator())
    assert torch.equal((inputs[:, 0] > 0.5).long(), targets)
    assert (targets[..., 2:] == 1).all()


def colour_frames() -> torch.Tensor:
    """Two frames of (grey, R, G, B) with different colours on each half."""
    frames = torch.zeros(2, 4, 8, 8, dtype=torch.uint8)
    frames[:, 0] = 100
    frames[:, 1:, :, :4] = torch.tensor([200, 60, 40], dtype=torch.uint8).view(3, 1, 1)
    frames[:, 1:, :, 4:] = torch.tensor([90, 110, 100], dtype=torch.uint8).view(3, 1, 1)
    return frames


def test_colorization_of_nothing_is_the_grey_frame() -> None:
    frames = colour_frames()
    task = ColorizationTask((4, 4), None)
    gray, rgb = frames[:, :1].double() / 255, frames[:, 1:].double() / 255
    score = task.score(task.summary(torch.zeros(2, 3, 4, 4), frames), frames)["validation_mse"]
    assert math.isclose(score, float((gray - rgb).square().mean()), rel_tol=1e-5)


def test_colorization_target_is_what_the_grey_frame_lacks() -> None:
    task = ColorizationTask((2, 2), None)
    inputs, targets = task.evaluation_batch(colour_frames(), colour_frames())
    assert inputs.shape == (2, 3, 2, 2)
    assert torch.allclose(inputs, torch.tensor(100 / 255))
    assert torch.allclose(targets[0, :, 0, 0] * 255, torch.tensor([100.0, -40.0, -60.0]), atol=1e-3)
    assert torch.allclose(targets[0, :, 0, 1] * 255, torch.tensor([-10.0, 10.0, 0.0]), atol=1e-3)


def test_a_perfect_difference_at_full_size_has_no_error() -> None:
    frames = colour_frames()
    task = ColorizationTask((8, 8), None)
    _, targets = task.evaluation_batch(frames, frames)
    assert task.score(task.summary(targets, frames), frames)["validation_mse"] < 1e-12


def test_grey_and_colour_are_flipped_together() -> None:
    task = ColorizationTask((8, 8), Augmentation(horizontal_flip=1.0))
    frames = colour_frames()
    flipped = task.training_batch(frames, frames, generator())
    straight = task.evaluation_batch(frames, frames)
    for after, before in zip(flipped, straight, strict=True):
        assert torch.allclose(after, before.flip(-1))


def test_garments_are_normalised_with_the_given_statistics_and_shown_to_three_channels() -> None:
    task = ClassificationTask(FASHION_MEAN, FASHION_STD)
    inputs, labels = task.evaluation_batch(torch.full((2, 1, 4, 4), 255, dtype=torch.uint8), torch.tensor([3, 4]))
    assert inputs.shape == (2, 3, 4, 4)
    assert torch.allclose(inputs, torch.tensor((1 - 0.2860) / 0.3530))
    assert labels.tolist() == [3, 4]


def test_yes_no_answers_are_scored_one_by_one() -> None:
    task = MultiLabelTask(FASHION_MEAN, FASHION_STD)
    truth = torch.tensor([[1, 0, 0], [0, 1, 1]])
    logits = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 0.1, -0.2]])
    assert task.answer(logits).tolist() == [[1, 0, 1], [0, 1, 0]]
    assert math.isclose(task.score(task.summary(logits, truth), truth)["accuracy"], 4 / 6)
