"""Splits have the right samples with their labels, and the fingerprint depends on the files that were read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.workloads.datasets import Store
from hw6core.data import load_colorization, load_endovis, load_fashion_mnist
from hw6core.data.fashion_mnist import Garments
from tests.coded_data import coded_store, garments, halved, places
from tests.tiny_data import TINY


def test_each_split_has_the_samples_of_its_folder(data: Path) -> None:
    store = Store(data, torch.device("cpu"))
    for split in ("train", "validation", "test"):
        frames = load_endovis(data, split)
        found = store.segmentation_split(split, (256, 320))
        assert torch.equal(found.inputs, frames.images)
        assert torch.equal(found.targets, frames.masks)
    for split in ("train", "validation"):
        colours = load_colorization(data, split)
        found = store.colorization_split(split)
        assert torch.equal(found.inputs[:, 0], colours.grays[:, 0])  # grey before RGB
        assert torch.equal(found.inputs[:, 1:], colours.images)
        assert torch.equal(found.targets, found.inputs)
    splits = store.garment_splits((32, 32), None)
    for of_train, parts in ((True, ("train", "validation")), (False, ("test",))):
        stored = load_fashion_mnist(data, of_train)
        seen = torch.cat([splits[part].inputs for part in parts])[:, :, 2:-2, 2:-2]
        rows = places(seen, stored.images)
        assert sorted(rows) == list(range(len(stored.images)))
        assert torch.equal(torch.cat([splits[part].targets for part in parts]), stored.labels[rows])


def test_frames_are_resized_before_they_are_moved_to_a_device_that_cannot_average_them(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MPS before pytorch issue 96056: "input sizes must be divisible by output sizes"; "meta" stands in for it."""
    interpolate = F.interpolate

    def on_apple(images: Tensor, size: tuple[int, int], mode: str) -> Tensor:
        if images.device.type == "meta" and (images.shape[-2] % size[0] or images.shape[-1] % size[1]):
            raise RuntimeError("Adaptive pool MPS: input sizes must be divisible by output sizes.")
        return interpolate(images, size=size, mode=mode)

    monkeypatch.setattr(F, "interpolate", on_apple)
    store = Store(data, torch.device("meta"))
    for split in (store.segmentation_split("test", (24, 32)), store.cutouts_split("test", (24, 32), 1)):
        assert split.inputs.device.type == split.targets.device.type == "meta"
        assert split.inputs.shape[-2:] == (24, 32)


def test_crops_have_random_positions_matching_masks_and_half_of_them_are_mirrored(tmp_path: Path) -> None:
    store = coded_store(tmp_path)
    frames = store.segmentation["test"]
    parts = store.cutouts_split("test", (8, 10), 2)
    assert len(parts) == 2 * 103
    found = []
    for number, (image, mask) in enumerate(zip(parts.inputs, parts.targets, strict=True)):
        whole, whole_mask = frames.images[number % 103], frames.masks[number % 103]
        matches = [
            (top, left, mirrored)
            for top in range(9) for left in range(11) for mirrored in (False, True)
            if torch.equal(image, flipped(whole[:, top : top + 8, left : left + 10], mirrored))
        ]  # fmt: skip
        assert len(matches) == 1
        top, left, mirrored = matches[0]
        assert torch.equal(mask, flipped(whole_mask[top : top + 8, left : left + 10], mirrored))
        found.append(matches[0])
    tops, lefts, mirrored_parts = zip(*found, strict=True)
    assert (set(tops), set(lefts)) == (set(range(9)), set(range(11)))
    assert 70 < sum(mirrored_parts) < 136
    torch.manual_seed(99)
    fewer = store.cutouts_split("test", (4, 5), 2, 105)
    assert torch.equal(fewer.inputs.float(), halved(parts.inputs[:105]).round())
    assert torch.equal(fewer.targets, parts.targets[:105])
    # The positions differ between the splits.
    store.segmentation["train"] = frames
    assert not torch.equal(store.cutouts_split("train", (8, 10), 1).targets, parts.targets[:103])


def flipped(planes: Tensor, mirrored: bool) -> Tensor:
    return planes.flip(-1) if mirrored else planes


@pytest.mark.parametrize(("limit", "used", "validate"), [(None, 330, 33), (119, 119, 11)])
def test_a_tenth_of_the_training_garments_is_held_out_for_validation(
    limit: int | None, used: int, validate: int, tmp_path: Path
) -> None:
    store = coded_store(tmp_path)
    stored = store.garments["train"]
    splits = store.garment_splits((32, 32), limit)
    rows = {name: places(splits[name].inputs[:, :, 2:-2, 2:-2], stored.images) for name in ("train", "validation")}
    assert len(rows["validation"]) == validate
    assert len({*rows["train"], *rows["validation"]}) == used == len(rows["train"]) + validate
    assert sorted(rows["validation"]) != list(range(validate))  # drawn at random
    for name, chosen in rows.items():
        assert torch.equal(splits[name].targets, stored.labels[chosen])
    assert len(splits["test"]) == 103
    torch.manual_seed(99)
    assert torch.equal(store.garment_splits((32, 32), limit)["validation"].inputs, splits["validation"].inputs)


def test_at_most_five_thousand_garments_are_held_out(tmp_path: Path) -> None:
    store = coded_store(tmp_path)
    count = 60_000
    images = torch.zeros(1, dtype=torch.uint8).expand(count, 1, 28, 28)
    store.garments["train"] = Garments(images, torch.arange(count), (), ())
    splits = store.garment_splits((32, 32), None)
    assert len(splits["validation"]) == 5_000
    assert len(torch.cat([splits["train"].targets, splits["validation"].targets]).unique()) == count


def test_garments_are_padded_and_enlarged_bilinearly(tmp_path: Path) -> None:
    store = coded_store(tmp_path)
    shown = store.garments["test"]
    small = store.garment_splits((32, 32), None)["test"].inputs.float() / 255
    assert torch.allclose(small.expand(-1, 3, -1, -1), garments(shown.images, 0.0, 1.0))
    shown.images[0] = 201
    large = store.garment_splits((64, 64), None)["test"].inputs[0, 0]
    # Two pixels of padding, interpolated at quarters.
    assert large[32, :8].tolist() == [0, 0, 0, 50, 151, 201, 201, 201]
    assert large[:8, 32].tolist() == [0, 0, 0, 50, 151, 201, 201, 201]


def test_the_fingerprint_depends_on_exactly_the_files_of_a_run(data: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(data, root)

    def described() -> dict[str, dict[str, object]]:
        store = Store(root, torch.device("cpu"))
        return {name: store.description(name) for name in ("segmentation", "colorization", "garments")}

    before = described()
    assert {name: entry["samples"] for name, entry in before.items()} == {
        "segmentation": {
            "train": TINY.segmentation_train,
            "validation": TINY.segmentation_validation,
            "test": TINY.segmentation_test,
        },
        "colorization": {"train": TINY.colorization_train, "validation": TINY.colorization_validation},
        "garments": {"train": TINY.garments_train, "test": TINY.garments_test},
    }
    assert {entry["kind"] for entry in before.values()} == {"synthetic"}
    assert len({entry["fingerprint"] for entry in before.values()}) == 3
    for name, split in (
        ("segmentation", "train"), ("segmentation", "validation"), ("segmentation", "test"),
        ("colorization", "train_cor"), ("colorization", "validation_cor"),
    ):  # fmt: skip
        path = next((root / "endovis" / name / split).glob("*/*_input.jpg"))
        path.write_bytes(path.read_bytes() + b"\0")  # after the end of the image
        after = described()
        assert [other for other in after if after[other]["fingerprint"] != before[other]["fingerprint"]] == [name]
        before = after
