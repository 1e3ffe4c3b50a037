"""Getting the data: the EndoVis course subset and Fashion-MNIST.

Each function leaves behind either the whole thing, checked, or what was there before. Everything is first put together
in a temporary folder beside its destination, so that the last step is a rename. What goes wrong is a DataError (or a
UsageError, for arguments that make no sense) of one line.

How a file comes over the network is `hw6core.download`'s affair, git that of `git_source`, and what an archive may hold
that of `archives`.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from torchvision.datasets import FashionMNIST
from torchvision.datasets.utils import check_integrity

from hw6core.data import archives
from hw6core.data.git_source import REMOTE_SHELL, check_out
from hw6core.data.verify import summary, unpacked_differs, verify
from hw6core.download import Progress, download, shown, split_url
from hw6core.errors import DataError, UsageError
from hw6core.imagenet import fetch_vgg16_weights
from hw6core.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "DEFAULT_REVISION",
    "DEFAULT_SOURCE",
    "Limits",
    "fetch_endovis",
    "fetch_fashion_mnist",
    "fetch_vgg16_weights",
]

DEFAULT_SOURCE = "https://github.com/keshuaixu/HW6_data"
DEFAULT_REVISION = "f59ed8c79e85a30dde429ff84d870bf4c8696464"

_SET_FOLDERS = ("segmentation", "colorization")
_SCHEMES = ("http", "https", "ssh", "file")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@+-]*")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024  # it has no more
_NAME_LENGTH = 100  # of a downloaded archive
_GARMENT_BYTES = 64 << 20  # the largest of the four files has 26 MB


# ---------------------------------------------------------------------------------------------------------------------
# What is fetched


def fetch_endovis(
    root: Path,
    source: str = DEFAULT_SOURCE,
    revision: str | None = None,
    *,
    force: bool = False,
    verify: bool | None = None,
    progress: Progress | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Path:
    """Install the EndoVis course subset as `root/endovis` and return that folder.

    `source` is a git repository (http, https, ssh or file URL, `user@host:path`, or a local path) or an archive (.zip,
    .tar, .tar.gz or .tgz: http, https or file URL, or a local path). `revision` is a commit, tag or branch of the
    repository; None means the published commit for the default source and the default branch for any other. Within the
    source the set is the one folder with `mapping.json`, `segmentation` and `colorization`, at whatever depth.

    A set that is already there stays as it is unless `force` is given; what else is there is never replaced without
    `force`. With `verify`, by default where source and revision are the published ones, a tree that differs from the
    published checksums is not installed, and one that is already there is checked too. `progress` is told about the
    download of an archive; git reports none.

    Raises UsageError for a source or revision that cannot be meant, DataError for everything else. On failure
    `root/endovis` is as it was.
    """
    try:
        git = _is_git(source)
    except OSError as error:  # a name that no file can have
        raise UsageError(f"{source[:100]!r} is not a source: {error.strerror}") from error
    revision = _chosen_revision(source, revision, git)
    if verify is None:
        verify = _is_default(source) and revision == DEFAULT_REVISION
    target = root / "endovis"
    try:
        if not force and _is_installed(target):
            if verify:
                _require_published(target, None)
            return target
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".endovis-", dir=root) as scratch_name:
            scratch = Path(scratch_name)
            if git:
                tree = check_out(source, revision, scratch, limits)
            else:
                tree = archives.unpack(_obtain_archive(source, scratch, limits, progress), scratch / "tree", limits)
            found = _find_set(tree, source)
            _refuse_pointers(found, source)
            if verify:
                _require_published(found, source)
            _install(found, target, scratch / "replaced")
    except OSError as error:
        raise DataError(f"cannot write to {root}: {error}; free or choose another folder with --root") from error
    return target


def fetch_fashion_mnist(
    root: Path, mirror: str | None = None, *, force: bool = False, limits: Limits = DEFAULT_LIMITS
) -> Path:
    """Put the four files of Fashion-MNIST into `root/fashion_mnist/FashionMNIST/raw` and return `root/fashion_mnist`.

    They come from `mirror` (the http or https URL of a folder that holds them) or torchvision's address, and are held
    against torchvision's MD5 sums. Files that are there and intact are kept; damaged ones are replaced. Only the
    .gz files are installed, as published. An unpacked file there with another content, which a loader would prefer,
    is removed with `force` and an error without.
    Raises UsageError for a mirror that is no such URL, DataError if a file cannot be had or an unpacked one is wrong.
    """
    if mirror is not None and split_url(mirror).scheme not in ("http", "https"):
        raise UsageError(f"the mirror {shown(mirror)!r} is not an http or https URL of a folder")
    address = FashionMNIST.mirrors[0] if mirror is None else mirror.rstrip("/") + "/"
    raw = root / "fashion_mnist" / "FashionMNIST" / "raw"
    try:
        for name, md5 in FashionMNIST.resources:
            _complete_garment(root, raw / name, address + name, md5, limits)
        _settle_unpacked(root, [raw / name for name, _ in FashionMNIST.resources], force)
    except OSError as error:
        raise DataError(f"cannot write to {root}: {error}; free or choose another folder with --root") from error
    return root / "fashion_mnist"


def _complete_garment(root: Path, file: Path, url: str, md5: str, limits: Limits) -> None:
    """Leave an intact file be, else put the one of the URL in its place."""
    if check_integrity(file, md5):
        return
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fashion_mnist-", dir=root) as scratch:
        fresh = Path(scratch) / file.name
        small = replace(limits, download_bytes=min(limits.download_bytes, _GARMENT_BYTES))
        try:
            download(url, fresh, small, intact=lambda path: check_integrity(path, md5))
        except DataError as error:
            raise DataError(
                f"no Fashion-MNIST: {error}; once that is mended, or with another --mirror, repeat: {_command(root)}"
            ) from error
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.replace(file)


def _settle_unpacked(root: Path, packed: list[Path], force: bool) -> None:
    for unpacked in (file.with_suffix("") for file in packed if unpacked_differs(file)):
        if not force:
            raise DataError(
                f"{unpacked} is not what {unpacked.name}.gz beside it unpacks to, and a loader would prefer it; "
                f"move it away, or remove it: {_command(root)} --force"
            )
        unpacked.unlink()


def _command(root: Path) -> str:
    return f"python -m benchmarks data fetch --root {shlex.quote(str(root))}"


# ---------------------------------------------------------------------------------------------------------------------
# Arguments


def _is_git(source: str) -> bool:
    """Whether the source is a repository rather than an archive; UsageError or DataError if it is neither."""
    if not source or source.startswith("-") or not source.isprintable():
        raise UsageError(f"{source!r} is not a source: give the URL or path of a git repository or an archive")
    if "://" in source:
        scheme = split_url(source).scheme
        if scheme not in _SCHEMES or not source.lower().startswith(f"{scheme}://"):  # https::ext://x names a helper
            raise UsageError(f"cannot fetch over {scheme}: the source must be one of {', '.join(_SCHEMES)}, or a path")
        if scheme == "file" and Path(unquote(split_url(source).path)).is_dir():
            return True
        return scheme == "ssh" or not split_url(source).path.lower().endswith(archives.SUFFIXES)
    path = Path(source)
    if path.is_dir():
        if not (path / ".git").exists() and not (path / "objects").is_dir():
            raise UsageError(f"{source} is a folder but not a git repository; data that is already there can be used")
        return True
    if path.is_file():
        if not source.lower().endswith(archives.SUFFIXES):
            raise UsageError(f"{source} is not an archive: its name must end in {', '.join(archives.SUFFIXES)}")
        return False
    if REMOTE_SHELL.fullmatch(source):
        return True
    raise DataError(f"no such file or folder: {source}; give the URL or path of a git repository or an archive")


def _chosen_revision(source: str, revision: str | None, git: bool) -> str | None:
    if revision is None:
        return DEFAULT_REVISION if _is_default(source) else None
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise UsageError(f"{revision!r} is not a revision: give a commit, tag or branch")
    if not git and revision != DEFAULT_REVISION:
        raise UsageError(f"an archive has no revisions: leave out {revision!r}")
    return revision


def _is_default(source: str) -> bool:
    return source.rstrip("/").removesuffix(".git") == DEFAULT_SOURCE


# ---------------------------------------------------------------------------------------------------------------------
# The folder


def _is_set(folder: Path) -> bool:
    return (folder / "mapping.json").is_file() and all((folder / name).is_dir() for name in _SET_FOLDERS)


def _is_installed(target: Path) -> bool:
    """Whether the set is at `target`; DataError if something else is."""
    if not target.exists() and not target.is_symlink():
        return False
    if _is_set(target):
        return True
    names = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else ["not a folder"]
    if not names:
        return False
    raise DataError(
        f"{target} is in the way: expected mapping.json, segmentation and colorization, found {_some(names)}; move it "
        f"away, or replace it: {_command(target.parent)} --force"
    )


def _find_set(tree: Path, source: str) -> Path:
    """The one folder in the tree with mapping.json and both halves of the set."""
    holders = sorted(file.parent for file in tree.rglob("mapping.json") if file.is_file())
    sets = [folder for folder in holders if _is_set(folder)]
    if len(sets) == 1:
        return sets[0]
    places = [f"./{folder.relative_to(tree).as_posix()}".removesuffix("/.") for folder in sets or holders]
    expected = "expected one folder with mapping.json, segmentation and colorization"
    if sets:
        found = f"found {len(sets)}: {_some(places)}"
    elif holders:
        found = f"found mapping.json without the two folders beside it in {_some(places)}"
    else:
        found = f"found no mapping.json; at the top: {_some(sorted(entry.name for entry in tree.iterdir()))}"
    raise DataError(f"{shown(source)}: {expected}, {found}; give another one with --source")


def _some(names: list[str], limit: int = 8) -> str:
    return (", ".join(names[:limit]) or "nothing") + (", ..." if len(names) > limit else "")


def _require_published(folder: Path, source: str | None) -> None:
    """DataError unless the folder holds the published set; `source` is where it came from, None if it was there."""
    problems = verify(folder)
    if not problems:
        return
    if source is None:
        raise DataError(summary(problems, folder))
    listed = "; ".join(str(problem) for problem in problems[:3])
    raise DataError(
        f"what {shown(source)} holds is not the published data, nothing was installed: {len(problems)} differences, "
        f"first {listed}; give another copy with --source"
    )


def _install(found: Path, target: Path, aside: Path) -> None:
    """Put `found` in the place of `target`, which goes `aside`; a failure leaves `target` as it was."""
    replaced = target.exists() or target.is_symlink()
    if replaced:
        target.rename(aside)
    try:
        found.rename(target)
    except BaseException:
        if replaced:
            aside.rename(target)
        raise


def _obtain_archive(source: str, scratch: Path, limits: Limits, progress: Progress | None) -> Path:
    if "://" not in source:
        return Path(source)
    url = split_url(source)
    if url.scheme == "file":
        archive = Path(unquote(url.path))
        if not archive.is_file():
            raise DataError(f"no such file: {archive}; give the URL or path of an archive with --source")
        return archive
    name = Path(unquote(url.path)).name[-_NAME_LENGTH:]
    archive = scratch / "".join(letter if letter.isprintable() else "_" for letter in name)
    download(source, archive, limits, progress)
    return archive


def _refuse_pointers(found: Path, source: str) -> None:
    """DataError for a set whose files are kept elsewhere: Git LFS is not asked, which would go wherever it is told."""
    for file in found.rglob("*"):
        if file.is_file() and file.stat().st_size <= _POINTER_BYTES and file.read_bytes().startswith(_LFS_POINTER):
            raise DataError(
                f"{shown(source)} keeps {file.name} in Git LFS, the repository has only a pointer to it; "
                "give an archive of the files with --source"
            )
