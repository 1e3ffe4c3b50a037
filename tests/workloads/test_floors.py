"""The floors worked out by hand; cached for all seeds and recomputed for other data."""

from __future__ import annotations

import doctest
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from benchmarks.suite import SUITE, Floor
from benchmarks.workloads import floors, movement
from benchmarks.workloads.datasets import Store
from benchmarks.workloads.floors import colour_of_levels, find_floors, most_frequent, nearest, nearest_mean
from hw6core.data.endovis import ColorizationFrames, SegmentationFrames
from hw6core.data.fashion_mnist import Garments
from hw6core.models import vgg16
from hw6core.seeding import seed_everything
from tests.coded_data import NAMES, coded_store
from tests.short_runs import new_run
from tests.watching import shrink_networks, watching

FRAME = (32, 40)


@pytest.mark.parametrize("module", [floors, movement])
def test_examples(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


def pixels(*rows: Sequence[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.uint8)


def test_a_class_without_samples_is_never_predicted() -> None:
    # The means are (2, 0) for class 3 and (12, 0) for class 0; classes 1 and 2, without samples, would have (0, 0).
    known, labels = pixels((0, 0), (4, 0), (12, 0)), torch.tensor([3, 3, 0])
    assert nearest_mean(pixels((0, 0), (6, 0), (8, 0), (255, 9)), known, labels).tolist() == [3, 3, 0, 0]


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_the_chunk_size_does_not_matter(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.Generator().manual_seed(0)
    known = torch.randint(0, 256, (40, 1, 28, 28), generator=draws, dtype=torch.uint8)
    known[20:30] = known[:10]  # at equal distances
    queries = torch.randint(0, 256, (7, 1, 28, 28), generator=draws, dtype=torch.uint8)
    labels = torch.arange(40) % 10
    squares = (queries[:, None].long() - known[None].long()).square().flatten(2).sum(2)
    ranked = squares.argsort(dim=1, stable=True)[:, :5]
    means = torch.stack([known[labels == label].double().mean(0) for label in range(10)])
    closest = (queries[:, None] - means).square().flatten(2).sum(2).argmin(1)
    frames = torch.randint(0, 256, (7, 4, 4, 4), generator=draws, dtype=torch.uint8)
    whole = colour_of_levels(frames)
    for name in ("_QUERIES_AT_ONCE", "_FRAMES_AT_ONCE"):
        monkeypatch.setattr(floors, name, at_once)
    assert torch.equal(nearest(queries, known, 5), ranked)
    assert torch.equal(nearest_mean(queries, known, labels), closest)
    assert torch.equal(colour_of_levels(frames), whole)


def flat(*levels: int) -> Tensor:
    """Frames of one colour."""
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, *FRAME).clone()


def masks(*classes: Sequence[int]) -> Tensor:
    """Masks from the classes of the left and right half of each frame."""
    return torch.tensor(classes, dtype=torch.uint8).view(-1, 1, 2).repeat_interleave(20, 2).expand(-1, *FRAME).clone()


def store_of_frames(root: Path, light: Sequence[int] = (1, 0)) -> Store:
    """The training frames are a dark one of background and a light one, by default with class 1 on the left."""
    store = Store(root, torch.device("cpu"))
    store.segmentation = {
        "train": SegmentationFrames(flat(10, 200), masks((0, 0), light), NAMES, ()),
        "validation": SegmentationFrames(flat(255), masks((2, 2)), NAMES, ()),
        "test": SegmentationFrames(flat(0, 180, 255), masks((0, 0), (1, 1), (2, 2)), NAMES, ()),
    }
    return store


def found(store: Store, root: Path, name: str, floor: Floor, identity: str = "", seed: int = 5) -> dict[str, float]:
    """The scores of one floor of a configuration of the suite."""
    configuration = replace(SUITE[name], floors=(floor,))
    ((_, scores),) = find_floors(new_run(configuration, store, root, seed, floors_identity=identity), {}).items()
    return scores


def test_the_mask_of_the_nearest_training_frame(tmp_path: Path) -> None:
    """The first test frame is all correct. The second, of class 1, is half correct: class 1 has 2/3, background, which
    is absent, 0, and class 2, absent and not predicted, 1. The third, of class 2, has no correct pixel.
    """
    assert found(store_of_frames(tmp_path), tmp_path, "seg-baseline", "nearest training frame's mask") == {
        "course_dice": pytest.approx((1 + (0 + 2 / 3 + 1) / 3 + 0) / 3),
        "present_dice": pytest.approx((1 + 2 / 3 + 0) / 3),
    }


@pytest.mark.parametrize(("light", "right"), [((1, 1), 1.0), ((0, 0), 1 / 3)])
def test_the_labels_of_the_nearest_training_crop(light: Sequence[int], right: float, tmp_path: Path) -> None:
    """The dark test frame has no instruments, the others only instruments; the light training frame is near those."""
    scores = found(store_of_frames(tmp_path, light), tmp_path, "vgg-new-task", "nearest training part's labels")
    assert scores == dict.fromkeys(("accuracy_from_scratch", "accuracy_from_pretrained"), pytest.approx(right))


def test_a_colour_for_each_grey_level(tmp_path: Path) -> None:
    """Level 100 has 151 more in red; level 50 once 102 more in blue and once no more, on average 51.

    Level 7, which is not in the training frames, has 51 more in green.
    """
    store = Store(tmp_path, torch.device("cpu"))
    colours, grays = flat(100, 50, 50, 7), flat(100, 50, 50, 7)[:, :1]
    colours[0, 0] += 151
    colours[2, 2] += 102
    colours[3, 1] += 51
    store.colorization = {
        "train": ColorizationFrames(colours[:3], grays[:3], ()),
        "validation": ColorizationFrames(colours[1:], grays[1:], ()),
    }
    # Off by 51 of 255 in one of three channels of each frame.
    scores = found(store, tmp_path, "colorization", "colour for each grey level")
    assert scores == {"validation_mse": pytest.approx(0.2**2 / 3, rel=1e-5)}


def store_of_garments(root: Path, levels: Sequence[int], labels: Sequence[int]) -> Store:
    """Garments of uniform grey; those of the test set have levels 0, 90 and 250 and labels 0, 1 and 1."""
    store = Store(root, torch.device("cpu"))
    store.garments = {
        split: Garments(flat(*values)[:, :1, :28, :28], torch.tensor(truth), tuple("0123456789"), ())
        for split, values, truth in (("train", levels, labels), ("test", (0, 90, 250), (0, 1, 1)))
    }
    return store


def test_neighbours_and_class_means_of_garments(tmp_path: Path) -> None:
    store = store_of_garments(tmp_path, (0, 1, 2, 60, 80, 200, 210, 220, 230), (0, 0, 0, 1, 1, 2, 2, 2, 1))
    # Neighbours of 0: 0 0 0 1 1; of 90: 1 1 0 0 0; of 250: 1 2 2 2 1.
    assert found(store, tmp_path, "vgg-scratch", "5 nearest neighbours") == {"accuracy": pytest.approx(1 / 3)}
    # Means 1, (60 + 80 + 230) / 3 and 210.
    assert found(store, tmp_path, "vgg-frozen", "nearest class mean") == {"accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("name", "named"), [("vgg-scratch", "5 nearest neighbours"), ("vgg-frozen", "nearest class mean")]
)
def test_only_training_samples_of_the_run_are_looked_up(name: str, named: Floor, tmp_path: Path) -> None:
    store = store_of_garments(tmp_path, list(range(100)), [0] * 100)
    validation = store.garment_splits((32, 32), None)["validation"].inputs[:, 0, 9, 9].long()
    store.garments["train"].images[validation] = 250  # like a test garment
    store.garments["train"].labels[validation] = 1
    assert found(store, tmp_path, name, named) == {"accuracy": pytest.approx(1 / 3)}
    samples = dict(SUITE[name].work) | {"quick": replace(SUITE[name].work["quick"], training_samples=10)}
    few = new_run(replace(SUITE[name], floors=(named,), work=samples), store, tmp_path)
    assert find_floors(few, {})[named] == {"accuracy": pytest.approx(2 / 3)}  # nine of these ten are training samples


def test_the_untrained_network_is_the_same_for_all_seeds_and_the_run_is_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_networks(monkeypatch)
    work = {"quick": replace(SUITE["vgg-frozen"].work["quick"], epochs=2, training_samples=120)}
    configuration = replace(SUITE["vgg-frozen"], floors=("untrained VGG16's features",), work=work)
    seed_everything(0)
    drawn = vgg16(10, freeze_features=True).state_dict()
    scores, runs = [], [new_run(configuration, coded_store(tmp_path), tmp_path / str(seed), seed) for seed in (5, 6)]
    for run in runs:
        run.deadline = 0.0  # of the run, which is complete
        with watching() as watch:
            scores.append(find_floors(run, {}))
        (body,) = [start for start in watch.starts if "28.weight" in start]
        assert all(torch.equal(body[key], drawn[f"features.{key}"]) for key in body)
        assert len(watch.steps) == 2 * (108 // 64)
        assert (run.trainings, run.learned, run.movement) == ({}, {}, {})
        assert (list(run.seconds), run.arithmetic_s) == (["floors_s"], 0.0)
        assert not run.results.exists()
    assert scores[0] == scores[1]
    assert 0 <= scores[0]["untrained VGG16's features"]["accuracy"] < 1


def test_the_untrained_control_of_a_run_is_a_floor(tmp_path: Path) -> None:
    named: tuple[Floor, ...] = ("nearest training part's labels", "an untrained start")
    run = new_run(replace(SUITE["vgg-new-task"], floors=named), store_of_frames(tmp_path), tmp_path)
    floors = find_floors(run, {"accuracy_untrained": 0.25, "accuracy_from_scratch": 0.5})
    assert list(floors) == list(named)
    assert floors["an untrained start"] == {"accuracy_from_scratch": 0.25, "accuracy_from_pretrained": 0.25}


def test_floors_are_cached_for_all_seeds_and_recomputed_for_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HW6_CACHE", str(tmp_path / "cache"))
    one, other = store_of_frames(tmp_path), store_of_frames(tmp_path, light=(2, 2))

    def present_dice(store: Store, identity: str, seed: int = 5) -> float:
        return found(store, tmp_path, "seg-baseline", "nearest training frame's mask", identity, seed)["present_dice"]

    first = present_dice(one, "one")
    assert first == pytest.approx(5 / 9)
    assert present_dice(other, "one", seed=6) == first  # from the cache
    assert present_dice(other, "other") == pytest.approx((1 + 0 + 1) / 3)
    monkeypatch.setenv("HW6_CACHE", "off")
    assert present_dice(other, "one") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("name", "floor", "scores"),
    [
        ("seg-baseline", "nearest training frame's mask", {"course_dice": 0.869, "present_dice": 0.664}),
        ("colorization", "colour for each grey level", {"validation_mse": 0.00202}),
        ("vgg-new-task", "nearest training part's labels", dict.fromkeys(
            ("accuracy_from_scratch", "accuracy_from_pretrained"), 0.77875)),
        # With the 5,400 garments of the quick profile; all 60,000 give 0.6768.
        ("vgg-frozen", "nearest class mean", {"accuracy": 0.6716}),
    ],
)  # fmt: skip
def test_the_floors_of_the_real_data(
    name: str, floor: Floor, scores: dict[str, float], real_data: Path, tmp_path: Path
) -> None:
    store = Store(real_data, torch.device("cpu"))
    assert found(store, tmp_path, name, floor) == pytest.approx(scores, rel=1e-3, abs=1e-5)


def test_the_published_accuracies_on_all_of_fashion_mnist(real_data: Path) -> None:
    """Neighbours for the first 500 test images; all 10,000 take a minute and have an accuracy of 0.8554."""
    store = Store(real_data, torch.device("cpu"))
    train, test = store.garments["train"], store.garments["test"]
    of_means = nearest_mean(test.images, train.images, train.labels)
    assert float((of_means == test.labels).double().mean()) == pytest.approx(0.6768, abs=1e-4)
    of_neighbours = most_frequent(train.labels[nearest(test.images[:500], train.images, 5)])
    assert float((of_neighbours == test.labels[:500]).double().mean()) == pytest.approx(0.882, abs=1e-4)
