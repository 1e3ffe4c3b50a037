"""The state of a training on disk, from which another process goes on as if nothing had happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from hw6core.tensor_files import DamagedFileError, read_tensors, write_tensors

_IDENTITY = "identity"
_BYTES_PER_S = 500e6  # of a disk that nothing is known of yet


@dataclass
class Checkpoint:
    """One file, written again and again while a training goes on.

    Attributes:
        path: the file.
        identity: everything that decides the training's numbers; a file with another one is not used.
        share: the most of a training's time that writing may take: it waits until what would be lost is worth it.
        complain: told once that the disk does not take it; the training goes on without.
    """

    path: Path
    identity: str
    share: float = 0.05
    complain: Callable[[str], None] = lambda line: None
    _written_at: float = field(default_factory=lambda: time.monotonic(), init=False)
    _write_s: float | None = field(default=None, init=False)
    _refused: bool = field(default=False, init=False)

    def due(self, size_bytes: int) -> bool:
        """Whether so many bytes should be written now."""
        expected_s = size_bytes / _BYTES_PER_S if self._write_s is None else self._write_s
        return not self._refused and (time.monotonic() - self._written_at) * self.share >= expected_s

    def write(self, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
        """Replace the file."""
        began = time.monotonic()
        try:
            write_tensors(self.path, tensors, {**notes, _IDENTITY: self.identity})
        except OSError as error:
            self._refused = True
            self.complain(f"{self.path.parent} takes no checkpoint ({error}); if this is interrupted, it starts again")
        self._written_at = time.monotonic()
        self._write_s = self._written_at - began

    def read(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Tensors and notes; None if there are none, or not those of this training, or not whole."""
        try:
            tensors, notes = read_tensors(self.path)
        except (OSError, DamagedFileError):
            return None
        return (tensors, notes) if notes.pop(_IDENTITY, None) == self.identity else None
