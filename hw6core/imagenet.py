"""torchvision's VGG16 weights for ImageNet: found where torchvision keeps them, or downloaded, and always checked."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import torch.hub
from torchvision.models import VGG16_Weights

from hw6core.download import Progress, download, split_url
from hw6core.errors import DataError
from hw6core.limits import DEFAULT_LIMITS, Limits

# torchvision's names hold eight digits, and such a file can be made in minutes; these are all.
_WHOLE_SHA256 = {"397923af": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"}


def fetch_vgg16_weights(
    destination: Path | None = None, *, progress: Progress | None = None, limits: Limits = DEFAULT_LIMITS
) -> Path:
    """Return a file with torchvision's VGG16 weights for ImageNet (IMAGENET1K_V1, 528 MB), downloaded if need be.

    `destination` is the file to write, or an existing folder to write it into; None means torchvision's own cache. A
    file that is there, or in the cache, is used if its SHA-256 is the published one, else replaced.
    Raises DataError if the weights are not there and cannot be downloaded.
    """
    return _fetch_named_by_hash(
        VGG16_Weights.IMAGENET1K_V1.url, Path(torch.hub.get_dir()) / "checkpoints", destination, progress, limits
    )


def _fetch_named_by_hash(
    url: str, cache: Path, destination: Path | None, progress: Progress | None, limits: Limits
) -> Path:
    """Download `name-<first digits of its sha256>.pth`, unless the destination or the cache holds it already."""
    name = Path(split_url(url).path).name
    digits = Path(name).stem.rpartition("-")[2]
    digits = _WHOLE_SHA256.get(digits, digits)
    target = cache if destination is None else destination
    if destination is None or destination.is_dir():
        target = target / name
    try:
        if _sha256_begins(target, digits):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".weights-", dir=target.parent) as scratch:
            fresh = Path(scratch) / name
            if _sha256_begins(cache / name, digits):
                shutil.copyfile(cache / name, fresh)
            else:
                download(url, fresh, limits, progress, intact=lambda file: _sha256_begins(file, digits))
            fresh.replace(target)
    except OSError as error:
        raise DataError(f"cannot write the weights to {target}: {error}; free or choose another folder") from error
    except DataError as error:
        raise DataError(f"no ImageNet weights: {error}; or save that file yourself as {target}") from error
    return target


def _sha256_begins(file: Path, digits: str) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest().startswith(digits)
