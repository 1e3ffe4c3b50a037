"""Named tensors in safetensors files that carry checksums of their content: one that was altered is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hw6core.files import replacing

_SUMS = "checksums"
_WORDS = 2**20  # added up at a time; the sums stand in order


class DamagedFileError(ValueError):
    """A file that is not what was written, or was written by something else."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> str:
    """Write tensors and notes, whole or not at all.

    Returns:
        A digest of the tensors; `verified_digest` reads it back.

    Raises:
        OSError: the folder cannot be written or the disk is full; an older file at ``path`` is then untouched.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sums = _checksums(plain)
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata={**(notes or {}), _SUMS: sums})
        except SafetensorError as error:  # its name for a full disk
            raise OSError(f"{path} could not be written: {error}") from error
    return _digest(sums)


def read_tensors(path: Path, *, foreign: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, mapped from the file, and notes.

    Args:
        foreign: accept a file without checksums, as other programs write them.

    Raises:
        OSError: there is no such file.
        DamagedFileError: its content is not what `write_tensors` wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            notes: dict[str, str] = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except OSError:
        raise
    except Exception as error:  # what a damaged or foreign file raises depends on its bytes, and on what torch can map
        raise DamagedFileError(f"{path} is no whole safetensors file: {error}") from error
    noted = notes.pop(_SUMS, None)
    if noted is None and foreign:
        return tensors, notes
    if noted != _checksums(tensors):
        raise DamagedFileError(f"{path} does not hold what its checksums say")
    return tensors, notes


def verified_digest(path: Path) -> str | None:
    """The digest that `write_tensors` returned; None if the file is not there or not whole any more."""
    try:
        tensors, _ = read_tensors(path)
    except (OSError, DamagedFileError):
        return None
    return _digest(_checksums(tensors))


def _digest(sums: str) -> str:
    return hashlib.sha256(sums.encode()).hexdigest()[:16]


def _checksums(tensors: Mapping[str, Tensor]) -> str:
    return json.dumps({name: _checksum(tensor) for name, tensor in tensors.items()}, sort_keys=True)


def _checksum(tensor: Tensor) -> str:
    """Of type, shape and bytes, at the speed of memory: any flipped bit and any exchanged pieces change it."""
    content = tensor.contiguous().flatten().view(torch.uint8)
    whole = len(content) // 8 * 8
    sums = [int(words.sum()) for words in content[:whole].view(torch.int64).split(_WORDS)]
    described = [str(tensor.dtype), list(tensor.shape), sums, content[whole:].tolist()]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
