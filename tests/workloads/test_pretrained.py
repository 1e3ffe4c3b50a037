"""The sources of pre-trained weights, and the stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks.suite import STAND_IN
from benchmarks.workloads import execute, pretrained
from benchmarks.workloads.datasets import Store
from benchmarks.workloads.pretrained import find_base_weights
from benchmarks.workloads.run import BaseWeights
from hw6core.checkpoint import load_weights
from hw6core.data import fetch
from hw6core.data.synthetic import proxy_images
from hw6core.errors import DataError, WeightsUnavailableError
from hw6core.models import FrozenVGG, parameter_count, vgg16
from tests.coded_data import normalised, places
from tests.short_runs import new_run
from tests.watching import shrink_networks, watching


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise DataError("the VGG16 weights could not be downloaded")

    monkeypatch.setattr(pretrained, "fetch_vgg16_weights", refuse)


def test_weights_that_do_not_fit_on_the_disk_are_unavailable(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrained, "fetch_vgg16_weights", full)
    found = find_base_weights(None, may_fetch=True)
    assert isinstance(found, WeightsUnavailableError)
    assert (str(found), found.remedy) == ("no ImageNet weights: [Errno 28] No space left on device", "weights")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path


def test_a_given_file_comes_first(empty_cache: Path, tmp_path: Path) -> None:
    given = tmp_path / "my.pth"
    given.write_bytes(b"abc")  # SHA-256 ba7816bf...
    assert find_base_weights(given, may_fetch=False) == BaseWeights(given, "file my.pth (ba7816bf)")


@pytest.mark.parametrize("may_fetch", [True, False])
def test_the_cache_comes_second(
    empty_cache: Path, no_network: None, monkeypatch: pytest.MonkeyPatch, may_fetch: bool
) -> None:
    cached = empty_cache / "checkpoints" / "vgg16-397923af.pth"
    cached.parent.mkdir()
    cached.touch()
    assert find_base_weights(None, may_fetch=False) is None  # a damaged file is ignored
    monkeypatch.setattr(fetch, "sha256", lambda path: fetch.VGG16_SHA256)
    assert find_base_weights(None, may_fetch=may_fetch) == BaseWeights(cached, "ImageNet")


def test_a_download_comes_last_and_only_if_allowed(empty_cache: Path, no_network: None) -> None:
    assert find_base_weights(None, may_fetch=False) is None
    refused = find_base_weights(None, may_fetch=True)
    assert isinstance(refused, WeightsUnavailableError)
    assert "could not be downloaded" in str(refused)


def test_a_stand_in_is_trained_on_drawn_shapes_and_scored_on_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_networks(monkeypatch)
    monkeypatch.setattr(pretrained, "_PROXY_IMAGES", 160)
    monkeypatch.setattr(pretrained, "_PROXY_VALIDATION", 32)
    images, labels = map(torch.from_numpy, proxy_images(160, 0))
    seen = normalised(images.float() / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    run = new_run(STAND_IN, Store(tmp_path, torch.device("cpu")), tmp_path, seed=0)
    with watching() as watch:
        outcome = execute(run)

    trained, evaluated = watch.of(FrozenVGG)
    rows = [places(call.inputs, seen) for call in trained]
    assert {row for batch in rows for row in batch} == set(range(32, 160))
    for call, chosen, step in zip(trained, rows, watch.steps, strict=True):
        wrong = call.outputs.softmax(1) - F.one_hot(labels[chosen], 8)
        assert torch.allclose(step["last_gradient"], wrong.mean(0), atol=1e-6)
    answers = [call.outputs.argmax(1) for call in evaluated]
    right = [float((answer == labels[:32]).double().mean()) for answer in answers]
    assert [entry["accuracy"] for entry in run.trainings["training"].history] == pytest.approx(right)
    assert [places(call.inputs, seen) for call in evaluated] == [list(range(32))] * len(right)
    assert outcome.metrics == {"accuracy": pytest.approx(right[-1])}
    assert {step["trainable"] for step in watch.steps} == {parameter_count(vgg16(8))}
    kept = load_weights(run.weights_file("vgg16-stand-in"))
    model = vgg16(8).eval()
    model.load_state_dict(kept)
    with torch.inference_mode():
        assert torch.allclose(model(seen[:32]), evaluated[-1].outputs, atol=1e-6)
