"""A cache of decoded data: the second load of a folder maps a file into memory instead of decoding images.

A cache file is valid for the files it was made from and for the version of the code that decoded them. Files are
identified by path, size, inode, modification time, which copying tools may set, and inode change time, which they
cannot. A damaged cache file is replaced; see `hw6core.checkpoint.save_weights`.

Nothing is cached if the folder is not writable or the file would take more than half of the free disk space. Writing
needs no memory beyond the tensors; reading maps the file.

The folder is ``HW6_CACHE``, else ``hw6core`` in the user's cache folder. ``HW6_CACHE=off`` (or 0) disables the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import PIL
from filelock import Timeout
from PIL import features
from torch import Tensor

from hw6core.checkpoint import read_tensors, save_weights
from hw6core.data.checksums import sha256
from hw6core.errors import DamagedFileError
from hw6core.files import file_lock

VARIABLE = "HW6_CACHE"
_OFF = ("off", "0", "no", "false")
_KEPT = 4  # most recent files of each kind, one for each data folder
_DIGITS = 24  # in the name of a file
_LOCK_TIMEOUT_S = 600.0

Tensors = dict[str, Tensor]


def cached(files: Sequence[Path], kind: str, load: Callable[[], Tensors], identity: str = "") -> Tensors:
    """The result of ``load``, from the cache if possible.

    Args:
        files: all files that ``load`` reads.
        kind: name of the result.
        load: returns uint8 tensors, which must not be changed in place afterwards.
        identity: everything else that decides the result.

    Raises:
        Whatever ``load`` raises; nothing is cached then.
    """
    path = _path(files, kind, Path(load.__code__.co_filename), identity)
    if path is None:
        return load()
    with suppress(OSError, DamagedFileError):
        return read_tensors(path)[0]
    tensors = load()
    with suppress(OSError):
        _write(path, tensors)
    return tensors


@contextmanager
def one_at_a_time(kind: str) -> Iterator[None]:
    """Let one process at a time compute and cache a result of this kind, so that it is computed once.

    Waits at most ten minutes, and not at all if the cache is off or cannot be locked.
    """
    folder = _folder()
    with ExitStack() as stack:
        if folder is not None:
            with suppress(OSError, Timeout):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(file_lock(folder / f"{kind}.lock").acquire(timeout=_LOCK_TIMEOUT_S))
        yield


def _folder() -> Path | None:
    named = os.environ.get(VARIABLE, "").strip()
    if named.lower() in _OFF:
        return None
    with suppress(RuntimeError):  # no home folder
        return Path(named or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/hw6core").expanduser()
    return None


def _path(files: Sequence[Path], kind: str, code: Path, identity: str) -> Path | None:
    folder = _folder()
    if folder is None:
        return None
    try:
        # os.stat on strings: for hundreds of files pathlib takes longer than reading the cache.
        names = [str(path) for path in files]
        found = [(name, os.stat(name)) for name in names]  # noqa: PTH116
        seen = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in found]
        version = sha256(code)
    except OSError:
        return None  # `load` reports the error
    # The decoders too: a cache that another image filled must not hide what this image's libraries make of the files.
    decoders = [PIL.__version__, *(features.version(name) for name in ("jpg", "libjpeg_turbo", "zlib"))]
    key = [version, decoders, kind, identity, str(Path.cwd()), seen]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return folder / f"{kind}-{digest[:_DIGITS]}.safetensors"


def _write(path: Path, tensors: Tensors) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if 2 * sum(tensor.nbytes for tensor in tensors.values()) > shutil.disk_usage(path.parent).free:
        return
    save_weights(path, tensors)
    kind = path.name.rsplit("-", 1)[0]
    files = path.parent.glob(f"{kind}-{'?' * _DIGITS}.safetensors")
    for old in sorted(files, key=lambda file: file.stat().st_mtime_ns)[:-_KEPT]:
        old.unlink(missing_ok=True)
