"""Weights on disk: written whole or not at all, read without running code, moved between networks by name."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hw6core.errors import DataError
from hw6core.tensor_files import read_tensors, write_tensors


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write a state dict as safetensors with checksums: the file appears under its name only when it is complete.

    Returns:
        A digest of the weights; see `hw6core.tensor_files.verified_digest`.

    Raises:
        OSError: the folder cannot be written or the disk is full; an older file at ``path`` is then untouched.
    """
    return write_tensors(path, state, metadata)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors, or from a torch file with ``weights_only`` (no code in it is run).

    Raises:
        DataError: the file is missing, damaged, or holds something else than named tensors.
    """
    if not path.is_file():
        raise DataError(f"no weights at {path}; expected a .safetensors or .pth state dict")
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path, foreign=True)[0]
        _refuse_packed(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file raises depends on its bytes: struct, pickle, zip, index errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is not a readable state dict ({reason}); expected .safetensors or .pth") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise DataError(f"{path} holds {type(state).__name__}, not a state dict; save model.state_dict() instead")
    return dict(state)


def _refuse_packed(path: Path) -> None:
    """torch stores tensors as they are: a file that would unpack to more than itself was not made to be used."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > path.stat().st_size:
            raise ValueError(f"its {path.stat().st_size} bytes claim to hold {unpacked}")


def transfer(state: Mapping[str, Tensor], model: nn.Module, head: str, source: str) -> list[str]:
    """Copy every tensor but those of the head into a model, by name.

    Args:
        state: the weights to copy; those under ``head`` are passed over, whatever their shape.
        model: keeps its own head.
        head: the module name of the last layer, for instance ``"head"``.
        source: what to call the weights in an error.

    Returns:
        The names that were copied: all of the model's but those under ``head``.

    Raises:
        DataError: a tensor below the head is missing, left over, or of another shape: these weights belong to another
            network. The model is then unchanged.
    """
    own = model.state_dict()
    body = {name for name in own if not name.startswith(f"{head}.")}
    given = {name for name in state if not name.startswith(f"{head}.")}
    if body != given:
        example = sorted(body ^ given)[0]
        raise DataError(
            f"{source} do not fit: {len(body - given)} tensors missing, {len(given - body)} unknown "
            f"(first: {example}); expected the same network up to {head}"
        )
    for name in sorted(body):
        if own[name].shape != state[name].shape:
            raise DataError(
                f"{source} do not fit: {name} has shape {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
            )
    with torch.no_grad():
        for name in body:
            own[name].copy_(state[name])
    return sorted(body)
