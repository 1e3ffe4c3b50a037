"""Decoded data, kept between processes: the second load of a folder maps a file into memory instead of decoding images.

A cache file answers for exactly the files that it was made from (their paths, sizes and times of change) and for this
version of the code that reads them. It carries a checksum of its content: one that was cut short, altered or is not
ours is made again. It appears under its name when it is complete: processes that fill the cache at once, or are killed
meanwhile, leave no other. What they leave unfinished is removed with the next one that is written.

A folder that cannot be written costs the cache, nothing else; so does a disk that is so full that the file would take
more than half of what is free. Writing takes no memory beside the tensors; reading maps the file, whose pages the
system can take back.

The folder is ``HW6_CACHE``, else ``hw6core`` in the user's cache folder. ``HW6_CACHE=off`` (or 0) turns it off.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hw6core.locks import locked

VARIABLE = "HW6_CACHE"
_OFF = ("off", "0", "no", "false")
_WORDS = 2**20  # added up at a time; the sums stand in order
_KEPT = 4  # cache files of a kind: those of so many folders
_DIGITS = 24  # in the name of a file
_UNFINISHED = ".hw6-unfinished-"  # how the names of folders begin in which a file is being written

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
    return folder / f"{kind}-{digest[:_DIGITS]}.safetensors"


def _read(path: Path) -> Tensors | None:
    """The tensors of a cache file; None if there is none or its content is not what was written."""
    try:
        if not path.is_file():  # to open a pipe would wait for somebody to write into it
            return None
        with safe_open(path, framework="pt") as file:
            noted: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except Exception:  # what a damaged or foreign file raises depends on its bytes, and on what torch can map
        return None
    ours = bool(tensors) and all(tensor.dtype == torch.uint8 for tensor in tensors.values())
    return tensors if ours and noted == _sums(tensors) else None


def _write(path: Path, tensors: Tensors) -> None:
    with suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(path.parent)
        if 2 * sum(tensor.nbytes for tensor in tensors.values()) > shutil.disk_usage(path.parent).free:
            return
        with (
            # A folder, as safetensors writes into a file of its own choice before it renames it.
            tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=path.parent, ignore_cleanup_errors=True) as scratch,
            locked(Path(scratch), wait=False),
        ):
            complete = Path(scratch) / path.name
            save_file(tensors, complete, metadata=_sums(tensors))
            complete.replace(path)
        _remove_oldest(path)


def _remove_unfinished(folder: Path) -> None:
    """What killed processes left. Whoever is still writing holds the lock; where there are no locks, nobody knows."""
    for scratch in folder.glob(f"{_UNFINISHED}*"):
        with suppress(OSError), locked(scratch, wait=False) as abandoned:
            if abandoned:
                shutil.rmtree(scratch, ignore_errors=True)


def _remove_oldest(path: Path) -> None:
    """All but the newest of the kind of a file."""
    kind = path.name.rsplit("-", 1)[0]
    files = path.parent.glob(f"{kind}-{'[0-9a-f]' * _DIGITS}.safetensors")
    for old in sorted(files, key=lambda file: file.stat().st_mtime_ns)[:-_KEPT]:
        old.unlink(missing_ok=True)


def _sums(tensors: Tensors) -> dict[str, str]:
    """A checksum of each tensor at the speed of memory: any flipped bit and any exchanged pieces change it."""
    return {name: _sum(list(tensor.shape), tensor.contiguous().flatten()) for name, tensor in tensors.items()}


def _sum(shape: list[int], content: Tensor) -> str:
    whole = len(content) // 8 * 8
    sums = [int(words.sum()) for words in content[:whole].view(torch.int64).split(_WORDS)]
    return hashlib.sha256(json.dumps([shape, sums, content[whole:].tolist()]).encode()).hexdigest()
