"""Augmentation: image and mask get the same transformation, and the generator decides every draw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hw6core.data.augment import Augmentation, augment

STRONG = Augmentation(0.5, 0.5, rotation_degrees=40, scale=0.3, shift=0.2, brightness=0.2, contrast=0.3)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_images(count: int = 6, height: int = 48, width: int = 80) -> Tensor:
    """(N, 1, H, W) smooth images in [0, 1] without symmetry."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    phase = torch.arange(count).view(-1, 1, 1) * 1.3
    waves = torch.sin(7 * x + 3 * y + phase) + torch.cos(5 * y - 4 * x * y + 2 * phase) + x
    return ((waves - waves.amin()) / (waves.amax() - waves.amin())).unsqueeze(1)


def moved(images: Tensor, masks: Tensor, settings: Augmentation, seed: int = 0) -> tuple[Tensor, Tensor]:
    return augment(images, masks, settings, source(seed))


HEIGHT, WIDTH = 17, 25


def positions(count: int) -> tuple[Tensor, Tensor]:
    """Images whose channels encode column and row of each pixel, in hundredths; masks of columns."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    image = torch.stack([columns, rows]) / 100 + 0.3  # far from 0 and 1
    return image.expand(count, -1, -1, -1), columns.to(torch.uint8).expand(count, -1, -1)


def measured(settings: Augmentation, count: int = 1500) -> dict[str, Tensor]:
    """The transformation of each frame, from the original positions of the pixels around its centre."""
    images, masks = positions(count)
    moved_images, moved_masks = moved(images, masks, settings)
    columns, rows = ((moved_images - 0.3) * 100).unbind(1)
    # Image and mask match at every pixel, reflected edges included: the mask has the nearest column.
    assert float((columns - moved_masks).abs().max()) < 0.5 + 1e-3
    y, x = HEIGHT // 2, WIDTH // 2
    along_x = torch.stack([side[:, y, x + 1] - side[:, y, x - 1] for side in (columns, rows)], 1) / 2
    along_y = torch.stack([side[:, y + 1, x] - side[:, y - 1, x] for side in (columns, rows)], 1) / 2
    area = along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0]
    return {
        "angle": torch.rad2deg(torch.atan2(along_x[:, 1], along_x[:, 0])),
        "zoom": area.abs().rsqrt(),
        "right": x - columns[:, y, x],
        "down": y - rows[:, y, x],
        "mirrored": (area < 0).double(),
        "upside down": (along_y[:, 1] < 0).double(),
        "leftward": (along_x[:, 0] < 0).double(),
    }


def assert_drawn_evenly(drawn: Tensor, low: float, high: float) -> None:
    """All within the limits, and the same number in each fifth (to four standard deviations of 1500 draws)."""
    slack = 0.005 * (high - low)
    assert low - slack <= float(drawn.min()) <= float(drawn.max()) <= high + slack
    shares = torch.histc(drawn.float(), 5, low, high) / len(drawn)
    assert float((shares - 0.2).abs().max()) < 0.045


def assert_uncorrelated(*drawn: Tensor) -> None:
    correlation = torch.corrcoef(torch.stack([entry.double() for entry in drawn])) - torch.eye(len(drawn))
    assert float(correlation.abs().max()) < 0.11


def test_rotation_and_zoom_are_independent_draws_within_their_ranges() -> None:
    found = measured(Augmentation(rotation_degrees=30, scale=0.2))
    assert_drawn_evenly(found["angle"], -30, 30)
    assert_drawn_evenly(found["zoom"], 0.8, 1.2)
    assert_uncorrelated(found["angle"], found["zoom"])
    assert float(found["right"].abs().max()) < 1e-3  # the centre does not move
    assert float(found["down"].abs().max()) < 1e-3


def test_shifts_are_independent_draws_as_shares_of_width_and_height() -> None:
    found = measured(Augmentation(scale=0.1, shift=0.1))
    assert_drawn_evenly(found["right"] * found["zoom"], -2.5, 2.5)  # of 25 columns
    assert_drawn_evenly(found["down"] * found["zoom"], -1.7, 1.7)  # of 17 rows
    assert_uncorrelated(found["right"] * found["zoom"], found["down"] * found["zoom"], found["zoom"])


@pytest.mark.parametrize("rotation", [0.0, 20.0])
def test_flips_are_independent_draws_with_and_without_rotation(rotation: float) -> None:
    found = measured(Augmentation(horizontal_flip=0.25, vertical_flip=0.6, rotation_degrees=rotation))
    assert float(found["leftward"].mean()) == pytest.approx(0.25, abs=0.045)  # four standard deviations
    assert float(found["upside down"].mean()) == pytest.approx(0.6, abs=0.05)
    assert_uncorrelated(found["leftward"], found["upside down"])
    assert torch.equal(found["mirrored"], (found["leftward"] != found["upside down"]).double())
    assert torch.allclose(found["zoom"], torch.ones(()), atol=1e-3)  # rigid, mirrored or not


@pytest.mark.parametrize(("brightness", "contrast"), [(0.1, 0.2), (0.1, 0.0), (0.0, 0.2)])
def test_brightness_and_contrast_are_independent_draws_around_the_mean_of_each_image(
    brightness: float, contrast: float
) -> None:
    # Three channels of two pixels, with a different mean in each frame, all far from 0 and 1.
    images = torch.tensor([[0.3, 0.5], [0.4, 0.42], [0.35, 0.6]]).view(1, 3, 1, 2).repeat(1500, 1, 1, 1)
    images += torch.linspace(0, 0.15, 1500).view(-1, 1, 1, 1)
    masks = torch.ones(1500, 1, 2, dtype=torch.uint8)

    changed, same_masks = moved(images, masks, Augmentation(brightness=brightness, contrast=contrast))

    mean, new_mean = (side.mean((1, 2, 3)) for side in (images, changed))
    factor = (changed[:, 0, 0, 1] - changed[:, 0, 0, 0]) / 0.2
    by_hand = (images - mean.view(-1, 1, 1, 1)) * factor.view(-1, 1, 1, 1) + new_mean.view(-1, 1, 1, 1)
    torch.testing.assert_close(changed, by_hand)
    assert torch.equal(same_masks, masks)
    if brightness:
        assert_drawn_evenly(new_mean - mean, -0.1, 0.1)
    if contrast:
        assert_drawn_evenly(factor, 0.8, 1.2)
    if brightness and contrast:
        assert_uncorrelated(new_mean - mean, factor)


def test_images_get_the_same_draws_with_and_without_masks() -> None:
    images = smooth_images()
    masks = (images[:, 0] > 0.5).long()
    with_masks, _ = moved(images, masks, STRONG)
    without, none = augment(images, None, STRONG, source())
    assert none is None
    assert torch.equal(with_masks, without)


def test_pixels_from_outside_are_filled_by_reflection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.ones(count))
    row, other = torch.tensor([1, 0, 0, 1, 0, 0, 0, 0]), torch.tensor([0, 0, 1, 0, 1, 0, 0, 0])
    mask = torch.outer(other, row).unsqueeze(0)
    image, moved_mask = moved(mask.float().unsqueeze(1), mask, Augmentation(shift=0.25))
    # shifted by two columns and two rows; the row is reflected at the left edge, 0 1 | 1 0 0 1 0 0
    expected = torch.outer(torch.tensor([0, 0, 0, 0, 1, 0, 1, 0]), torch.tensor([0, 1, 1, 0, 0, 1, 0, 0]))
    assert torch.equal(moved_mask[0], expected)
    torch.testing.assert_close(image[0, 0], expected.float())


def test_brightness_is_added_and_clamped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.ones(count))
    images = torch.tensor([0.0, 0.5, 0.9]).view(1, 1, 1, 3)
    brighter, _ = augment(images, None, Augmentation(brightness=0.25), source())
    torch.testing.assert_close(brighter.flatten(), torch.tensor([0.25, 0.75, 1.0]))


def test_the_generator_alone_decides_the_batch() -> None:
    images = smooth_images()
    masks = (images[:, 0] > 0.5).long()
    first = moved(images, masks, STRONG, seed=3)
    torch.rand(5)
    again, other = moved(images, masks, STRONG, seed=3), moved(images, masks, STRONG, seed=4)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_defaults_change_nothing() -> None:
    images, masks = torch.rand(2, 3, 5, 7, generator=source()), torch.randint(0, 8, (2, 5, 7), generator=source())
    same = moved(images, masks, Augmentation())
    assert torch.equal(same[0], images)
    assert torch.equal(same[1], masks)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.uint8])
def test_images_that_are_not_float32_are_refused(dtype: torch.dtype) -> None:
    images = torch.zeros(1, 3, 4, 4, dtype=dtype)
    with pytest.raises(ValueError, match=f"images are {dtype}; expected float32"):
        moved(images, torch.zeros(1, 4, 4, dtype=torch.long), Augmentation())
