"""Where pre-trained VGG16 weights come from: a path, torchvision's cache or download, or a stand-in made here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from benchmarks import interruption
from benchmarks.workloads.callbacks import LimitedCallback
from hw6core.checkpoint import Checkpoint, save_weights, verified_digest
from hw6core.data.fetch import fetch_vgg16_weights
from hw6core.data.synthetic import proxy_images
from hw6core.device import Precision
from hw6core.errors import DataError, WeightsUnavailableError
from hw6core.files import file_lock
from hw6core.models import vgg16
from hw6core.schedule import Schedule
from hw6core.seeding import seed_everything
from hw6core.tasks import ClassificationTask
from hw6core.training import Callback, Split, train

IMAGENET, STAND_IN = "ImageNet", "stand-in"
STAND_IN_FILES = "vgg16-stand-in-"  # how their names begin
_IMAGENET_SHA256 = "397923af"  # how it begins, as in the name of torchvision's file
_PROXY_IMAGES, _PROXY_VALIDATION = 1_920, 320
_PROXY_SEED = 0  # one stand-in for all seeds, as there is one set of ImageNet weights


@dataclass(frozen=True)
class BaseWeights:
    """Weights that `hw6core.models.vgg16` accepts, None for random ones, and the name that tables give them."""

    source: Path | None
    label: str


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


def expected_label(given: Path | None, *, stand_in: bool) -> str:
    """The label of the weights that `resolve` would find, without fetching or training anything."""
    if given is not None:
        digest = _digest(given)
        return IMAGENET if digest.startswith(_IMAGENET_SHA256) else f"file {given.name} ({digest[:8]})"
    return STAND_IN if stand_in and cached_imagenet_weights() is None else IMAGENET


@dataclass(frozen=True)
class StandIn:
    """Where a stand-in is kept, and how it is trained if it is not there yet."""

    path: Path
    device: torch.device
    precision: Precision
    progress: Callable[[str, int], Callback]


def resolve(given: Path | None, stand_in: StandIn | None = None) -> BaseWeights:
    """Find the weights: the given file, else torchvision's cache, else a stand-in or, without one, a download.

    Args:
        given: a state dict in torchvision's format.
        stand_in: None if none is acceptable: then 528 MB are fetched.

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
            raise WeightsUnavailableError(str(error), error.mend, error.root) from error
    path = stand_in.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path.with_name(".stand-in.lock")):  # several runs of a suite may want it at once
        if verified_digest(path) is None:
            _train_stand_in(stand_in)
            for other in path.parent.glob(f"{STAND_IN_FILES}*"):  # half a gigabyte each, of other code
                if other != path:
                    other.unlink()
    return BaseWeights(path, label)


def _train_stand_in(stand_in: StandIn) -> None:
    """VGG16 on drawn shapes and textures: features of something, from something else than the suite's own data."""
    path, device, precision = stand_in.path, stand_in.device, stand_in.precision
    seed_everything(_PROXY_SEED)
    images, labels = (torch.from_numpy(array).to(device) for array in proxy_images(_PROXY_IMAGES, _PROXY_SEED))
    held_out = slice(_PROXY_VALIDATION)
    kept = slice(_PROXY_VALIDATION, None)
    model = vgg16(int(labels.max()) + 1).to(device, memory_format=torch.channels_last)
    schedule = Schedule(epochs=1, batch_size=16, learning_rate=1e-4, weight_decay=1e-2)
    steps = (_PROXY_IMAGES - _PROXY_VALIDATION) // schedule.batch_size * schedule.epochs
    checkpoint = Checkpoint(path.with_name("stand-in-training.safetensors"), f"{path.name} {device} {precision}")
    with interruption.deferred():
        result = train(
            model,
            ClassificationTask(),
            Split(images[kept], labels[kept]),
            Split(images[held_out], labels[held_out]),
            schedule,
            seed=_PROXY_SEED,
            precision=precision,
            callback=LimitedCallback(stand_in.progress("stand-in for ImageNet weights", steps)),
            checkpoint=checkpoint,
        )
    scores = {"proxy_accuracy": f"{result.history[-1]['accuracy']:.3f}"}
    save_weights(path, model.state_dict(), {"origin": STAND_IN, **scores})
    checkpoint.path.unlink(missing_ok=True)
