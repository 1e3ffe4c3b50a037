"""Where pre-trained VGG16 weights come from: a path, torchvision's cache or download, or a stand-in made here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from benchmarks import tasks
from hw6core.checkpoints import save_weights
from hw6core.data.synthetic import proxy_images
from hw6core.errors import DataError, WeightsUnavailableError
from hw6core.imagenet import fetch_vgg16_weights
from hw6core.models import vgg16
from hw6core.seeding import seed_everything
from hw6core.train import Precision, Progress, Schedule, Split, train

IMAGENET, STAND_IN = "ImageNet", "stand-in"
STAND_IN_FILES = "vgg16-stand-in-"  # how their names begin
_IMAGENET_SHA256 = "397923af"  # how it begins, as in the name of torchvision's file
_PROXY_IMAGES, _PROXY_VALIDATION = 6_400, 320
_PROXY_SEED = 0  # one stand-in for all seeds, as there is one set of ImageNet weights


@dataclass(frozen=True)
class BaseWeights:
    """Weights that `hw6core.models.vgg16` accepts, and the name that tables give them."""

    source: Path
    label: str


def cached_imagenet_weights() -> Path | None:
    """torchvision's file of VGG16's ImageNet weights, if it was downloaded before and is whole."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"vgg16-{_IMAGENET_SHA256}.pth"
    return path if path.is_file() and _digest(path).startswith(_IMAGENET_SHA256) else None


@cache
def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def expected_label(given: Path | None, *, stand_in: bool) -> str:
    """The label of the weights that `resolve` would find, without fetching or training anything."""
    if given is not None:
        digest = _digest(given)
        return IMAGENET if digest.startswith(_IMAGENET_SHA256) else f"file {given.name} ({digest[:8]})"
    return STAND_IN if stand_in and cached_imagenet_weights() is None else IMAGENET


def resolve(
    given: Path | None,
    *,
    stand_in: Path | None,
    device: torch.device,
    precision: Precision,
    progress: Callable[[str, int], Progress],
) -> BaseWeights:
    """Find the weights: the given file, else torchvision's cache, else a stand-in or, without one, a download.

    Args:
        given: a state dict in torchvision's format.
        stand_in: where a stand-in is kept, or trained if it is not there yet; None if none is acceptable: then 528 MB
            are fetched.

    Raises:
        WeightsUnavailableError: none of these can be had.
    """
    label = expected_label(given, stand_in=stand_in is not None)
    if given is not None:
        return BaseWeights(given, label)
    cached = cached_imagenet_weights()
    if cached is not None:
        return BaseWeights(cached, label)
    if stand_in is None:
        try:
            return BaseWeights(fetch_vgg16_weights(), label)
        except DataError as error:
            raise WeightsUnavailableError(str(error)) from error
    if not stand_in.is_file():
        _train_stand_in(stand_in, device, precision, progress)
        for other in stand_in.parent.glob(f"{STAND_IN_FILES}*"):  # half a gigabyte each, of other versions of the code
            if other != stand_in:
                other.unlink()
    return BaseWeights(stand_in, label)


def _train_stand_in(
    path: Path, device: torch.device, precision: Precision, progress: Callable[[str, int], Progress]
) -> None:
    """VGG16 on drawn shapes and textures: features of something, from something else than the suite's own data."""
    seed_everything(_PROXY_SEED)
    images, labels = (torch.from_numpy(array).to(device) for array in proxy_images(_PROXY_IMAGES, _PROXY_SEED))
    held_out = slice(_PROXY_VALIDATION)
    kept = slice(_PROXY_VALIDATION, None)
    model = vgg16(int(labels.max()) + 1).to(device, memory_format=torch.channels_last)
    schedule = Schedule(epochs=1, batch_size=64, learning_rate=2e-4, weight_decay=1e-2)
    steps = (_PROXY_IMAGES - _PROXY_VALIDATION) // schedule.batch_size * schedule.epochs
    result = train(
        model,
        tasks.ClassificationTask(tasks.IMAGENET_MEAN, tasks.IMAGENET_STD),
        Split(images[kept], labels[kept]),
        Split(images[held_out], labels[held_out]),
        schedule,
        seed=_PROXY_SEED,
        precision=precision,
        progress=progress("stand-in for ImageNet weights", steps),
    )
    scores = {"proxy_accuracy": f"{result.history[-1]['accuracy']:.3f}"}
    save_weights(path, model.state_dict(), {"origin": STAND_IN, **scores})
