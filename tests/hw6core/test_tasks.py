"""The batches and scores of the tasks; whole runs are in test_workloads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from hw6core.dice import drop_small_classes
from hw6core.losses import DiceLoss
from hw6core.metrics import segmentation_scores
from hw6core.models import UNet, start_from_frequencies
from hw6core.tasks import (
    ClassificationTask,
    InstrumentCellsTask,
    SegmentationTask,
    instrument_cells,
    resize_images,
    resize_masks,
)
from tests.peak_memory import peak_bytes


def test_images_are_resized_by_area_and_masks_by_nearest_neighbour() -> None:
    image = torch.tensor([[[[0, 101], [205, 101]]]], dtype=torch.uint8)
    assert resize_images(image, (1, 1)).tolist() == [[[[102]]]]  # 101.75
    mask = torch.tensor([[[0, 1, 2, 3, 4, 255]] * 3])
    for kind in (torch.uint8, torch.int64, torch.int32):
        assert resize_masks(mask.to(kind), (1, 2)).tolist() == [[[1, 4]]]  # the middle of three pixels


def test_images_in_the_unit_range_are_refused() -> None:
    """They would be divided by 255 again: nearly black."""
    with pytest.raises(ValueError, match=r"^images are torch.float32; expected uint8, 0 to 255$"):
        ClassificationTask().evaluation_batch(torch.rand(1, 3, 4, 4), torch.tensor([0]))


def test_images_have_a_gradient_also_after_an_evaluation() -> None:
    task, image = ClassificationTask(std=(0.5, 0.25, 0.125)), torch.zeros(1, 3, 1, 1, requires_grad=True)
    with torch.inference_mode():
        task.normalise(torch.zeros(1, 3, 1, 1))
    task.normalise(image).sum().backward()
    assert image.grad is not None
    assert image.grad.flatten().tolist() == [2, 4, 8]


def test_both_gates_have_the_same_weight_in_the_choice_of_the_epoch() -> None:
    truth = torch.tensor([[[0, 0], [0, 1]]], dtype=torch.uint8)
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 0] = 1.0  # background everywhere
    task = SegmentationTask(3, DiceLoss(), None, 0)
    background = 2 * 3 / (3 + 4)
    course, present = (background + 0 + 1) / 3, background / 2
    assert math.isclose(task.score(task.summary(logits, truth), truth)[task.monitor], (course + present) / 2)
    assert task.maximise


def test_operations_on_all_frames_need_little_memory_beyond_their_result(tmp_path: Path) -> None:
    images, masks = torch.zeros(400, 3, 64, 80, dtype=torch.uint8), torch.zeros(400, 256, 320, dtype=torch.uint8)
    head = UNet(3).head
    for work in (
        lambda: resize_images(images, (32, 40)),
        lambda: drop_small_classes(masks, 3, 2),
        lambda: segmentation_scores(masks, masks, 3),
        lambda: start_from_frequencies(head, masks),
    ):
        # The size of all masks, 31 MiB, plus working copies of 100 frames; all frames at once took up to 280 MiB.
        assert peak_bytes(work, tmp_path) < masks.nbytes + 100 * 2**20


def test_cells_of_hundreds_of_frames_keep_their_order() -> None:
    masks = torch.zeros(230, 2, 2, dtype=torch.uint8)
    masks[::3] = 1
    assert instrument_cells(masks, (1, 1)).flatten().tolist() == [int(frame % 3 == 0) for frame in range(230)]


def test_a_cell_is_1_if_more_than_a_quarter_shows_an_instrument() -> None:
    masks = torch.zeros(3, 6, 8, dtype=torch.uint8)
    masks[0, 2:4, 6:] = torch.tensor([[1, 0], [0, 7]], dtype=torch.uint8)  # two of four pixels, second row, last column
    masks[1, 5, 0] = 2  # one of four
    task = InstrumentCellsTask((0.0,) * 3, (1.0,) * 3, grid=(3, 4))
    cells = task.evaluation_batch(torch.zeros(3, 3, 6, 8, dtype=torch.uint8), masks)[1]
    assert cells.tolist() == [[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], [0] * 12, [0] * 12]
    assert task.score(torch.zeros(3, 12, dtype=torch.int64), masks) == {"accuracy": 35 / 36}
    assert task.summary(torch.tensor([[0.1, -0.2, 0.0]]), masks).tolist() == [[1, 0, 0]]


def test_cells_are_computed_from_resized_masks_in_training_and_full_masks_in_scoring() -> None:
    images, masks = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    masks[0, 1::2, 1::2] = 5  # a quarter of the pixels, but all pixels of the resized mask
    task = InstrumentCellsTask(augmentation=None, grid=(1, 1))
    assert task.training_batch(images, masks, torch.Generator())[1].tolist() == [[1]]
    assert task.evaluation_batch(images, masks)[1].tolist() == [[0]]
