"""Drawn data: the layout of the real data, decided by the seed, and not solvable by trivial predictors."""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.workloads.floors import most_frequent, nearest, nearest_mean
from hw6core.data import load_endovis, load_fashion_mnist, synthetic
from hw6core.data.synthetic import Sizes, proxy_images, synthesize
from hw6core.data.synthetic_frames import draw_frame
from hw6core.data.synthetic_garments import draw_garments
from hw6core.dice import mean_dice
from hw6core.errors import DataError, UsageError
from hw6core.metrics import accuracy
from hw6core.provenance import data_kind

TINY = Sizes(2, 1, 1, 3, 2, 20, 10)
SMALL = Sizes(32, 2, 16, 33, 2, 20, 10)


def digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    synthesize(folder, seed=3, sizes=SMALL)
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "data"
    synthesize(folder, sizes=TINY)
    return folder


@pytest.fixture
def tiny(drawn: Path, tmp_path: Path) -> Path:
    """A copy that a test may change; copying is much faster than drawing."""
    return Path(shutil.copytree(drawn, tmp_path / "data"))


def test_the_layout_is_the_real_one(root: Path) -> None:
    raw = {f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")}
    expected = {f"fashion_mnist/FashionMNIST/raw/{name}" for name in raw} | {"endovis/mapping.json"}
    for folder, numbers, kinds in (
        ("segmentation/train", range(32), ("input.jpg", "mask.png")),
        ("segmentation/validation", range(2), ("input.jpg", "mask.png")),
        ("segmentation/test", range(16), ("input.jpg", "mask.png")),
        ("colorization/train_cor", range(33), ("input.jpg", "gray.jpg")),
        ("colorization/validation_cor", range(1, 3), ("input.jpg", "gray.jpg")),
    ):
        expected |= {f"endovis/{folder}/{k}/{k}_{kind}" for k in numbers for kind in kinds}
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert {name for name in files if not name.endswith(("SYNTHETIC.json", "/Icon", ".lock"))} == expected


def test_gray_images_are_the_luma_of_their_frames(root: Path) -> None:
    for gray_file in (root / "endovis/colorization/validation_cor").glob("*/*_gray.jpg"):
        frame = Image.open(str(gray_file).replace("_gray", "_input"))
        luma = np.asarray(frame, dtype=float) @ (0.299, 0.587, 0.114)
        assert np.abs(luma - np.asarray(Image.open(gray_file), dtype=float)).mean() < 3  # both went through JPEG


def test_masks_lie_on_the_instruments_of_their_frame(root: Path) -> None:
    """Metal is greyer than tissue: compares pixels just inside and outside of the left and right outlines."""
    frames = load_endovis(root, "train")
    redness = frames.images[:, 0].numpy().astype(float) - frames.images[:, 2].numpy()
    differences = []
    for frame, mask in zip(redness, frames.masks.numpy(), strict=True):
        shown = mask > 0
        inside = shown & np.roll(shown, 12, 1) & np.roll(shown, -12, 1)
        outside = ~shown & (np.roll(shown, 12, 1) | np.roll(shown, -12, 1))
        differences.append(frame[outside].mean() - frame[inside].mean())
    assert min(differences) > 5


def test_only_training_frames_reappear_in_colorization(root: Path) -> None:
    def contents(pattern: str) -> set[bytes]:
        return {file.read_bytes() for file in (root / "endovis").glob(pattern)}

    colorization = contents("colorization/*/*/*_input.jpg")
    assert contents("segmentation/train/*/*_input.jpg") <= contents("colorization/train_cor/*/*_input.jpg")
    assert not colorization & contents("segmentation/validation/*/*_input.jpg")
    assert not colorization & contents("segmentation/test/*/*_input.jpg")
    assert len(colorization) == SMALL.colorization_train + SMALL.colorization_validation
    frames = [file.read_bytes() for file in (root / "endovis").glob("segmentation/*/*/*_input.jpg")]
    assert len(set(frames)) == len(frames)


def test_the_seed_alone_decides_the_bytes(tiny: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "again", sizes=TINY)
    assert digests(tmp_path / "again") == digests(tiny)
    synthesize(tmp_path / "other", seed=1, sizes=TINY)
    other, first = digests(tmp_path / "other"), digests(tiny)
    assert other.keys() == first.keys()
    images = [name for name in first if name.endswith((".jpg", ".png", "images-idx3-ubyte"))]
    assert not [name for name in images if other[name] == first[name]]


def test_complete_data_is_not_changed(tiny: Path) -> None:
    frame = tiny / "endovis/segmentation/train/0/0_input.jpg"
    frame.write_bytes(b"touched")
    synthesize(tiny, sizes=TINY)
    assert frame.read_bytes() == b"touched"


def test_a_damaged_set_is_drawn_again_after_it_was_deleted(tiny: Path) -> None:
    """The folder of both sets is not to be deleted: it may hold the user's own files."""
    complete = digests(tiny)
    (tiny / "endovis/segmentation/train/0/0_mask.png").write_bytes(b"")
    with pytest.raises(DataError, match=f"; delete {tiny}/endovis and draw it again$") as caught:
        load_endovis(tiny, "train")
    assert (caught.value.remedy, caught.value.root) == ("draw", tiny)
    shutil.rmtree(tiny / "endovis")
    synthesize(tiny, sizes=TINY)
    assert digests(tiny) == complete


@pytest.mark.parametrize("marker", [None, '{"generator": "hw6core.data.synthetic", "version": 0}'])
def test_incomplete_or_outdated_data_is_drawn_again(tiny: Path, marker: str | None) -> None:
    complete = digests(tiny)
    (tiny / "endovis/segmentation/train/0/0_input.jpg").unlink()
    (tiny / "SYNTHETIC.json").unlink()
    if marker is not None:
        (tiny / "SYNTHETIC.json").write_text(marker)
    (tiny / "endovis/segmentation/train/7").mkdir()  # of a larger set
    synthesize(tiny, sizes=TINY)
    assert digests(tiny) == complete


def test_other_sizes_replace_the_folder(tiny: Path) -> None:
    synthesize(tiny, sizes=Sizes(1, 1, 1, 1, 1, 10, 10))
    assert [f.name for f in (tiny / "endovis/segmentation/train").iterdir() if f.is_dir()] == ["0"]
    # All splits have the same size now, but different content.
    frames = [file.read_bytes() for file in (tiny / "endovis/segmentation").glob("*/*/*_input.jpg")]
    raw = tiny / "fashion_mnist/FashionMNIST/raw"
    garments = [(raw / f"{name}-images-idx3-ubyte").read_bytes() for name in ("train", "t10k")]
    assert (len(set(frames)), len(set(garments))) == (3, 2)


def test_one_of_several_concurrent_calls_draws(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[object] = []
    monkeypatch.setattr(synthetic, "_draw", lambda *given, draw=synthetic._draw: drawn.append(draw(*given)))
    with ThreadPoolExecutor(3) as pool:  # the lock works between threads as between processes
        made = [pool.submit(synthesize, tmp_path / "shared", sizes=TINY) for _ in range(3)]
    assert [future.result() for future in made] == [None] * 3
    assert len(drawn) == 1
    assert digests(tmp_path / "shared") == digests(tiny)
    assert not list(tmp_path.glob(".*"))  # the folder around it may be read-only


def test_data_that_was_not_drawn_is_never_replaced(tmp_path: Path) -> None:
    real = tmp_path / "endovis/mapping.json"
    real.parent.mkdir()
    real.write_text("real")
    with pytest.raises(DataError, match="choose another folder"):
        synthesize(tmp_path, sizes=TINY)
    assert sorted(f.name for f in tmp_path.iterdir()) == [".lock", "endovis"]
    assert real.read_text() == "real"


def test_the_kind_of_the_root_and_of_each_data_set(drawn: Path, tmp_path: Path) -> None:
    for folder in (drawn, drawn / "endovis", drawn / "fashion_mnist"):
        assert data_kind(folder) == "synthetic"
    for folder in (tmp_path, tmp_path / "missing"):
        assert data_kind(folder) == "real"


@pytest.mark.parametrize("sizes", [(0,), (5, 1, 1, 4)])
def test_invalid_sizes_are_an_error(sizes: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="expected 1 or more of each, and no fewer for colorization than for"):
        Sizes(*sizes)


def test_class_frequencies_are_the_real_ones() -> None:
    plan = synthetic._plan_classes(np.random.default_rng(0), 300)
    appearances = [sum(c in classes for classes in plan) for c in range(1, 8)]
    assert appearances == [66, 149, 138, 49, 8, 22, 95]
    small = synthetic._plan_classes(np.random.default_rng(0), 120)
    assert min(sum(c in classes for classes in small) for c in range(1, 8)) == 6


def test_predicting_only_background_fails(root: Path) -> None:
    masks = load_endovis(root, "test").masks
    assert 0.80 < float((masks == 0).double().mean()) < 0.90
    assert mean_dice(torch.zeros_like(masks), masks, 8, "ignore") < 0.5


def test_the_colour_of_a_pixel_does_not_predict_its_class(root: Path) -> None:
    known, test = (load_endovis(root, split) for split in ("train", "test"))
    bins, test_bins = (
        (frames.images.long() // 16 * torch.tensor([256, 16, 1]).view(3, 1, 1)).sum(1) for frames in (known, test)
    )
    votes = torch.bincount((bins * 8 + known.masks).flatten(), minlength=4096 * 8).view(4096, 8)
    assert mean_dice(votes.argmax(1)[test_bins], test.masks, 8, "ignore") < 0.5


@pytest.mark.parametrize("class_index", range(1, 8))
def test_every_instrument_is_visible(class_index: int) -> None:
    for seed in range(3):
        image, mask = draw_frame(np.random.default_rng(seed), [class_index], np.random.default_rng(seed))
        assert image.shape == (256, 320, 3)
        assert set(np.unique(mask)) == {0, class_index}
        assert 900 <= np.sum(mask == class_index) < 0.4 * mask.size


def test_garments_are_balanced_and_look_ups_do_not_pass_the_gates(root: Path) -> None:
    """5 nearest neighbours stay below 0.85, the nearest class mean below 0.60."""
    (images, labels), (test_images, answers) = (
        [torch.from_numpy(array) for array in draw_garments(np.random.default_rng(seed), count)]
        for seed, count in ((0, 2000), (1, 1000))
    )
    assert images.shape == (2000, 28, 28)
    assert images.dtype == labels.dtype == torch.uint8
    assert torch.bincount(labels).tolist() == [200] * 10
    neighbours = most_frequent(labels.long()[nearest(test_images, images, 5)])
    assert 0.5 < accuracy(neighbours, answers) < 0.78
    assert 0.2 < accuracy(nearest_mean(test_images, images, labels.long()), answers) < 0.5
    written = load_fashion_mnist(root, train=True)  # with its labels
    neighbours = most_frequent(labels.long()[nearest(written.images[:, 0], images, 5)])
    assert accuracy(neighbours, written.labels) > 0.5


def test_proxy_images() -> None:
    images, labels = proxy_images(800, seed=0)
    assert images.shape == (800, 3, 32, 32)
    assert images.dtype == np.uint8
    assert labels.shape == (800,)
    assert labels.dtype == np.int64
    assert set(np.bincount(labels, minlength=8)) == {100}
    again, _ = proxy_images(800, seed=0)
    assert np.array_equal(images, again)
    other, _ = proxy_images(800, seed=1)
    assert not np.array_equal(images, other)
    # Most are nearest to the mean of their class, also in the second block of 512.
    flat = images.reshape(800, -1).astype(np.float32)
    flat = flat - flat.mean(axis=1, keepdims=True)
    means = np.stack([flat[labels == c].mean(axis=0) for c in range(8)])
    right = ((flat[:, None] - means) ** 2).sum(axis=2).argmin(axis=1) == labels
    assert right[:512].mean() > 0.8
    assert right[512:].mean() > 0.8
