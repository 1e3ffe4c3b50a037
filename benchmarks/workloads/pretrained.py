"""Pre-trained VGG16 weights: from a file, torchvision's cache, a download, or a stand-in trained here."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.workloads.classification import shift_start
from benchmarks.workloads.run import BaseWeights, Outcome, Run
from hw6core.data.checksums import sha256
from hw6core.data.fetch import VGG16_SHA256, cached_imagenet_weights, fetch_vgg16_weights
from hw6core.data.synthetic import proxy_images
from hw6core.errors import DataError, WeightsUnavailableError
from hw6core.models import vgg16
from hw6core.tasks import ClassificationTask
from hw6core.training import Split

IMAGENET = "ImageNet"
_PROXY_IMAGES, _PROXY_VALIDATION = 1_920, 320


def find_base_weights(given: Path | None, *, may_fetch: bool) -> BaseWeights | WeightsUnavailableError | None:
    """The given state dict in torchvision's format, else torchvision's cache, else a download of 528 MB.

    Returns:
        The weights; the error if the download failed; None if it is needed and not allowed.
    """
    if given is not None:
        digest = sha256(given)
        label = IMAGENET if digest == VGG16_SHA256 else f"file {given.name} ({digest[:8]})"
        return BaseWeights(given, label)
    if cached := cached_imagenet_weights():
        return BaseWeights(cached, IMAGENET)
    if not may_fetch:
        return None
    try:
        return BaseWeights(fetch_vgg16_weights(), IMAGENET)
    except DataError as error:
        return WeightsUnavailableError(str(error), error.remedy, error.root)
    except OSError as error:  # the disk is full: runs without these weights may still succeed
        return WeightsUnavailableError(f"no ImageNet weights: {error}", "weights")


def run_stand_in(run: Run) -> Outcome:
    """Train VGG16 on drawn shapes, so that its features are not random and do not come from the suite's data."""
    images, labels = (torch.from_numpy(array).to(run.device) for array in proxy_images(_PROXY_IMAGES, run.seed))
    validation = Split(images[:_PROXY_VALIDATION], labels[:_PROXY_VALIDATION])
    training = Split(images[_PROXY_VALIDATION:], labels[_PROXY_VALIDATION:])
    task = ClassificationTask()
    model = vgg16(int(labels.max()) + 1, freeze_features=True)  # without dropout, for a training of a hundred steps
    model.requires_grad_(True)
    shift_start(model, task, training)
    run.place(model)
    result = run.train(model, task, training, validation)
    run.keep_weights(model.state_dict())
    return Outcome({"accuracy": result.history[-1]["accuracy"]}, {}, "random")
