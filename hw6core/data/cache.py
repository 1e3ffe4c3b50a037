"""Decoded data, kept between processes: the second load of a folder maps a file into memory instead of decoding images.

A cache file answers for exactly the files that it was made from and for this version of the code that reads them. A
file is told by its path, size, inode and both times of change: that of its content can be set, and is by tools that
copy; that of its inode cannot. A cache file that was cut short or altered is made again; see
`hw6core.checkpoint.save_weights`.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import Timeout
from torch import Tensor

from hw6core.checkpoint import read_tensors, save_weights
from hw6core.data.checksums import sha256
from hw6core.errors import DamagedFileError
from hw6core.files import file_lock

VARIABLE = "HW6_CACHE"
_OFF = ("off", "0", "no", "false")
_KEPT = 4  # cache files of a kind: those of so many folders
_DIGITS = 24  # in the name of a file
_PATIENCE_S = 600.0

Tensors = dict[str, Tensor]


def cached(files: Sequence[Path], kind: str, load: Callable[[], Tensors], identity: str = "") -> Tensors:
    """What ``load`` makes of the files, from the cache if it was made before.

    Args:
        files: everything that ``load`` reads.
        kind: a name for what it makes of them.
        load: returns uint8 tensors; they must not be changed in place afterwards.
        identity: what else decides what it makes.

    Raises:
        Whatever ``load`` raises; nothing is kept then.
    """
    path = _path(files, kind, Path(load.__code__.co_filename), identity)
    if path is None:
        return load()
    with suppress(OSError, DamagedFileError):
        return read_tensors(path)[0]
    made = load()
    with suppress(OSError):
        _write(path, made)
    return made


@contextmanager
def one_at_a_time(kind: str) -> Iterator[None]:
    """Other processes wait until this one has put something of a kind into the cache, so that it is made once.

    Where there is no cache or no lock to be had, and after ten minutes, nobody waits.
    """
    folder = _folder()
    with ExitStack() as stack:
        if folder is not None:
            with suppress(OSError, Timeout):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(file_lock(folder / f"{kind}.lock").acquire(timeout=_PATIENCE_S))
        yield


def _folder() -> Path | None:
    named = os.environ.get(VARIABLE, "").strip()
    if named.lower() in _OFF:
        return None
    with suppress(RuntimeError):  # a home folder that is not known
        return Path(named or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/hw6core").expanduser()
    return None


def _path(files: Sequence[Path], kind: str, code: Path, identity: str) -> Path | None:
    folder = _folder()
    if folder is None:
        return None
    try:
        # As text: the paths' own functions take longer for hundreds of files than reading the cache.
        names = [str(path) for path in files]
        found = [(name, os.stat(name)) for name in names]  # noqa: PTH116
        seen = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in found]
        version = sha256(code)
    except OSError:
        return None  # `load` will tell what is wrong
    digest = hashlib.sha256(json.dumps([version, kind, identity, str(Path.cwd()), seen]).encode()).hexdigest()
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
