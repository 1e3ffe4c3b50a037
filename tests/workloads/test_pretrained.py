"""Where the pre-trained weights come from, and what happens without them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.vgg import VGG

from benchmarks.workloads import pretrained
from benchmarks.workloads.pretrained import BaseWeights, StandIn, expected_label, resolve
from hw6core.checkpoint import load_weights, write_tensors
from hw6core.data.synthetic import proxy_images
from hw6core.errors import DataError, WeightsUnavailableError
from hw6core.models import vgg16
from hw6core.training import Callback
from tests.coded_data import normalised, places
from tests.watching import shrink_networks, watching


def find(given: Path | None, stand_in: Path | None) -> BaseWeights:
    cpu = torch.device("cpu")
    quick = StandIn(stand_in, cpu, "float32", lambda label, steps: Callback()) if stand_in else None
    return resolve(given, quick)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise DataError("the VGG16 weights could not be downloaded")

    monkeypatch.setattr(pretrained, "fetch_vgg16_weights", refuse)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path


def test_a_given_file_comes_first(empty_cache: Path, tmp_path: Path) -> None:
    given = tmp_path / "my.pth"
    given.write_bytes(b"abc")  # SHA-256 ba7816bf...
    assert find(given, tmp_path / "stand-in.safetensors") == BaseWeights(given, "file my.pth (ba7816bf)")


@pytest.mark.parametrize("stand_in", [True, False])
def test_the_cache_comes_second(
    empty_cache: Path, no_network: None, monkeypatch: pytest.MonkeyPatch, stand_in: bool
) -> None:
    cached = empty_cache / "checkpoints" / "vgg16-397923af.pth"
    cached.parent.mkdir()
    cached.touch()
    assert expected_label(None, stand_in=True) == "stand-in"  # an empty file is not torchvision's
    monkeypatch.setattr(pretrained, "_digest", lambda path: "397923af" + "0" * 56)
    assert find(None, empty_cache / "any" if stand_in else None) == BaseWeights(cached, "ImageNet")
    assert expected_label(None, stand_in=stand_in) == "ImageNet"


def test_a_stand_in_that_is_damaged_is_made_again(
    empty_cache: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = empty_cache / "stand-in.safetensors"
    write_tensors(made, {"weight": torch.zeros(1000)})
    whole = made.read_bytes()
    made.write_bytes(whole[:-100])
    monkeypatch.setattr(pretrained, "_train_stand_in", lambda stand_in: stand_in.path.write_bytes(whole))
    find(None, made)
    assert made.read_bytes() == whole


def test_a_new_stand_in_takes_the_place_of_older_ones(
    empty_cache: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "_train_stand_in", lambda stand_in: stand_in.path.touch())
    names = ("vgg16-stand-in-1.safetensors", "mine.safetensors", "vgg16-stand-in-2.safetensors")
    old, other, new = (empty_cache / name for name in names)
    old.touch()
    other.touch()
    find(None, new)
    assert (old.exists(), other.exists(), new.exists()) == (False, True, True)


def test_a_stand_in_is_used_only_where_it_is_acceptable(empty_cache: Path, no_network: None) -> None:
    made = empty_cache / "stand-in.safetensors"
    write_tensors(made, {"weight": torch.zeros(1)})
    assert find(None, made) == BaseWeights(made, "stand-in")
    assert expected_label(None, stand_in=True) == "stand-in"
    with pytest.raises(WeightsUnavailableError, match="could not be downloaded"):
        find(None, None)


class Epochs(Callback):
    """Keeps what it is told of each epoch."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, float]] = []

    def on_epoch(self, entry: Mapping[str, float]) -> None:
        self.told.append(entry)


def test_a_stand_in_learns_drawn_outlines_and_is_scored_on_others(
    empty_cache: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_networks(monkeypatch)
    monkeypatch.setattr(pretrained, "_PROXY_IMAGES", 160)
    monkeypatch.setattr(pretrained, "_PROXY_VALIDATION", 32)
    images, labels = map(torch.from_numpy, proxy_images(160, 0))
    seen = normalised(images.float() / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    made, epochs = empty_cache / "stand-in.safetensors", Epochs()
    with watching() as watch:
        resolve(None, StandIn(made, torch.device("cpu"), "float32", lambda label, steps: epochs))

    learned, evaluated = watch.of(VGG)
    rows = [places(call.inputs, seen) for call in learned]
    assert {row for batch in rows for row in batch} == set(range(32, 160))
    for call, chosen, step in zip(learned, rows, watch.steps, strict=True):
        wrong = call.outputs.softmax(1) - F.one_hot(labels[chosen], 8)
        assert torch.allclose(step["last_gradient"], wrong.mean(0), atol=1e-6)
    answers = [call.outputs.argmax(1) for call in evaluated]
    right = [float((answer == labels[:32]).double().mean()) for answer in answers]
    assert [entry["accuracy"] for entry in epochs.told] == pytest.approx(right)
    assert [places(call.inputs, seen) for call in evaluated] == [list(range(32))] * len(epochs.told)
    kept = load_weights(made)
    model = vgg16(8).eval()
    model.load_state_dict(kept)
    with torch.inference_mode():
        assert torch.allclose(model(seen[:32]), evaluated[-1].outputs, atol=1e-6)
