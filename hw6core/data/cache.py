"""Decoded data, kept between processes: the second load of a folder maps a file into memory instead of decoding images.

A cache file answers for exactly the files that it was made from (their paths, sizes and times of change) and for this
version of the code that reads them. It carries a checksum of its content: one that was cut short or altered is made
again. A folder that cannot be written costs the cache, nothing else.

The folder is ``HW6_CACHE``, else ``hw6core`` in the user's cache folder. ``HW6_CACHE=off`` (or 0) turns it off.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

VARIABLE = "HW6_CACHE"
_OFF = ("off", "0", "no", "false")
_WORDS = 2**20  # added up at a time; the sums stand in order
_KEPT = 4  # cache files of a kind: one a split, and those of a second folder

Tensors = dict[str, Tensor]


def cached(files: Sequence[Path], kind: str, load: Callable[[], Tensors]) -> Tensors:
    """What ``load`` makes of the files, from the cache if it was made before.

    Args:
        files: everything that ``load`` reads.
        kind: a name for what it makes of them.
        load: returns uint8 tensors; they must not be changed in place afterwards.

    Raises:
        Whatever ``load`` raises; nothing is kept then.
    """
    path = _path(files, kind, Path(load.__code__.co_filename))
    if path is None:
        return load()
    kept = _read(path)
    if kept is not None:
        return kept
    made = load()
    _write(path, made)
    return made


def _folder() -> Path | None:
    named = os.environ.get(VARIABLE, "").strip()
    if named.lower() in _OFF:
        return None
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):  # a user without a home
        return (Path(base) if base else Path.home() / ".cache") / "hw6core"
    return None


def _path(files: Sequence[Path], kind: str, code: Path) -> Path | None:
    folder = _folder()
    if folder is None:
        return None
    try:
        # As text: the paths' own functions take longer for hundreds of files than reading the cache.
        names = [str(path) for path in files]
        seen = [(name, (status := os.stat(name)).st_size, status.st_mtime_ns) for name in names]  # noqa: PTH116
        version = hashlib.sha256(code.read_bytes()).hexdigest()
    except OSError:
        return None  # `load` will tell what is wrong
    digest = hashlib.sha256(json.dumps([version, kind, str(Path.cwd()), seen]).encode()).hexdigest()
    return folder / f"{kind}-{digest[:24]}.safetensors"


def _read(path: Path) -> Tensors | None:
    """The tensors of a cache file; None if there is none or its content is not what was written."""
    try:
        with safe_open(path, framework="pt") as file:
            noted: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (OSError, SafetensorError):
        return None
    return tensors if noted == _sums(tensors) else None


def _write(path: Path, tensors: Tensors) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata=_sums(tensors))
        temporary.replace(path)
        kind = path.name.rsplit("-", 1)[0]
        others = sorted(path.parent.glob(f"{kind}-*.safetensors"), key=lambda other: other.stat().st_mtime_ns)
        for old in others[:-_KEPT]:
            old.unlink()
    except (OSError, SafetensorError):
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sums(tensors: Tensors) -> dict[str, str]:
    """A checksum of each tensor's bytes at the speed of memory: any flipped bit and any exchanged pieces change it."""
    return {name: _sum(tensor.contiguous().flatten()) for name, tensor in tensors.items()}


def _sum(content: Tensor) -> str:
    whole = len(content) // 8 * 8
    sums = [int(words.sum()) for words in content[:whole].view(torch.int64).split(_WORDS)]
    return hashlib.sha256(json.dumps([len(content), sums, content[whole:].tolist()]).encode()).hexdigest()
