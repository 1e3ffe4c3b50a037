"""Where pre-trained VGG16 weights come from: a file, torchvision's cache or its download, or a stand-in made here."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from benchmarks.workloads.run import BaseWeights, Outcome, Run
from hw6core.data.fetch import fetch_vgg16_weights
from hw6core.data.synthetic import proxy_images
from hw6core.errors import DataError, WeightsUnavailableError
from hw6core.models import vgg16
from hw6core.tasks import ClassificationTask
from hw6core.training import Split

IMAGENET = "ImageNet"
_IMAGENET_SHA256 = "397923af"  # how it begins, as in the name of torchvision's file
_PROXY_IMAGES, _PROXY_VALIDATION = 1_920, 320


def find_base_weights(given: Path | None, *, download: bool) -> BaseWeights | WeightsUnavailableError | None:
    """The given file, else torchvision's cache, else a download of 528 MB or why it failed; None where none is allowed.

    Args:
        given: a state dict in torchvision's format.
    """
    if given is not None:
        digest = _digest(given)
        label = IMAGENET if digest.startswith(_IMAGENET_SHA256) else f"file {given.name} ({digest[:8]})"
        return BaseWeights(given, label)
    if cached := cached_imagenet_weights():
        return BaseWeights(cached, IMAGENET)
    if not download:
        return None
    try:
        return BaseWeights(fetch_vgg16_weights(), IMAGENET)
    except DataError as error:
        return WeightsUnavailableError(str(error), error.mend, error.root)


def cached_imagenet_weights() -> Path | None:
    """torchvision's file of VGG16's ImageNet weights, if it was downloaded before, is whole and may be read."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"vgg16-{_IMAGENET_SHA256}.pth"
    with suppress(OSError):  # a home folder of another user
        if path.is_file() and _digest(path).startswith(_IMAGENET_SHA256):
            return path
    return None


@cache
def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_stand_in(run: Run) -> Outcome:
    """VGG16 on drawn shapes and textures: features of something, from something else than the suite's own data."""
    images, labels = (torch.from_numpy(array).to(run.device) for array in proxy_images(_PROXY_IMAGES, run.seed))
    held_out = slice(_PROXY_VALIDATION)
    kept = slice(_PROXY_VALIDATION, None)
    model = vgg16(int(labels.max()) + 1)
    run.place(model)
    validation = Split(images[held_out], labels[held_out])
    result = run.train(model, ClassificationTask(), Split(images[kept], labels[kept]), validation)
    run.keep_weights(model.state_dict())
    return Outcome({"accuracy": result.history[-1]["accuracy"]}, {}, "random")
