"""Model weights and training checkpoints on disk: written atomically, read without running code.

Each file carries a SHA-256 digest of its tensors, so that a changed file is detected.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hw6core.errors import DamagedFileError, DataError
from hw6core.files import atomic_write

_DIGEST = "digest"
_IDENTITY = "identity, format 2"  # raise the number when the content changes: older files are then ignored
_BYTES_PER_S = 500e6  # assumed speed of the disk before the first write


def digest(tensors: Mapping[str, Tensor]) -> str:
    """16 hex digits of SHA-256 over names, types, shapes and bytes; independent of the order of the tensors.

    >>> digest({"weight": torch.zeros(2)}) == digest({"weight": torch.zeros(2)})
    True
    >>> digest({"weight": torch.zeros(2)}) == digest({"weight": -torch.zeros(2)})  # one bit
    False
    """
    found = sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def save_weights(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write a state dict, or other named tensors, as a safetensors file, atomically.

    Returns:
        The digest of the tensors; `verified_digest` reads it back.

    Raises:
        OSError: the folder is not writable or the disk is full; an existing file at ``path`` is then unchanged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = save_weights(Path(folder) / "layer.safetensors", nn.Linear(2, 1).state_dict())
    ...     sorted(load_weights(Path(folder) / "layer.safetensors"))
    ['bias', 'weight']
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    found = digest(plain)
    with atomic_write(Path(path)) as temporary:
        try:
            save_file(plain, temporary, metadata={**(metadata or {}), _DIGEST: found})
            temporary.chmod(0o644)  # safetensors creates it for this user only
        except SafetensorError as error:  # raised when the disk is full
            raise OSError(f"cannot write {path}: {error}") from error
    return found


def read_tensors(path: str | Path, *, foreign: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Memory-mapped tensors and the metadata, which includes their digest.

    Args:
        foreign: accept a file without a digest, written by another program.

    Raises:
        OSError: the file does not exist.
        DamagedFileError: the content is not what `save_weights` wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except OSError:
        raise
    except Exception as error:  # what a damaged or foreign file raises depends on its bytes, and on what torch can map
        raise DamagedFileError(f"{path} is not a valid safetensors file: {error}") from error
    expected = metadata.get(_DIGEST)
    if not (expected is None and foreign) and expected != digest(tensors):
        raise DamagedFileError(f"the tensors in {path} do not match its digest")
    return tensors, metadata


def verified_digest(path: Path) -> str | None:
    """The digest that `save_weights` returned; None if the file is missing or damaged."""
    try:
        return read_tensors(path)[1][_DIGEST]
    except (OSError, DamagedFileError):
        return None


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors, or from a torch file with ``weights_only`` (no code in it is run).

    Raises:
        DataError: the file is missing, damaged, or does not hold named tensors.

    >>> load_weights("nowhere.safetensors")
    Traceback (most recent call last):
    hw6core.errors.DataError: no weights at nowhere.safetensors; expected a .safetensors or .pth state dict
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no weights at {path}; expected a .safetensors or .pth state dict")
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path, foreign=True)[0]
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file raises depends on its bytes: struct, pickle, zip, index errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is not a readable state dict ({reason}); expected .safetensors or .pth") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise DataError(f"{path} holds {type(state).__name__}, not a state dict; save model.state_dict() instead")
    return dict(state)


def transfer(state: Mapping[str, Tensor], model: nn.Module, head: str, source: str) -> None:
    """Copy all tensors except those of the head into a model, by name.

    Args:
        state: the weights to copy; those under ``head`` are ignored, whatever their shape.
        model: keeps its own head.
        head: the module name of the last layer, for instance ``"head"``.
        source: name of the weights in error messages.

    Raises:
        DataError: a tensor outside the head is missing, unknown or of another shape: the weights belong to another
            network. The model is then unchanged.

    >>> old, new = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5))
    >>> transfer(old.state_dict(), new, head="1", source="the old weights")
    >>> torch.equal(new[0].weight, old[0].weight)
    True
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


@dataclass
class Checkpoint:
    """A file with the state of a training, rewritten while it runs, from which another process can resume.

    Attributes:
        path: the file.
        identity: everything that decides the results of the training; a file with another identity is ignored.
        share: maximum share of the training time to spend on writing.
        on_failure: called with a message if the file cannot be written; the training continues without one. The
            default is a Python warning.

    >>> checkpoint = Checkpoint(Path("nowhere.safetensors"), identity="lr 0.1, seed 3")
    >>> checkpoint.read() is None
    True
    """

    path: str | Path
    identity: str
    share: float = 0.05
    on_failure: Callable[[str], object] = warnings.warn
    _written_at: float = field(default_factory=lambda: time.monotonic(), init=False)
    _write_s: float | None = field(default=None, init=False)
    _failed: bool = field(default=False, init=False)

    def due(self, size_bytes: int) -> bool:
        """Whether a checkpoint of this size should be written now."""
        expected_s = size_bytes / _BYTES_PER_S if self._write_s is None else self._write_s
        return not self._failed and (time.monotonic() - self._written_at) * self.share >= expected_s

    def write(self, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
        """Replace the file."""
        began = time.monotonic()
        try:
            save_weights(self.path, tensors, {**notes, _IDENTITY: self.identity})
        except OSError as error:
            self._failed = True
            self.on_failure(
                f"cannot write the checkpoint {self.path} ({error}); after an interruption this training starts over"
            )
        self._written_at = time.monotonic()
        self._write_s = self._written_at - began

    def read(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Tensors and notes; None if the file is missing, damaged or belongs to another training."""
        try:
            tensors, notes = read_tensors(self.path)
        except (OSError, DamagedFileError):
            return None
        return (tensors, notes) if notes.pop(_IDENTITY, None) == self.identity else None
