"""Getting the data: the EndoVis course subset, Fashion-MNIST, and VGG16's ImageNet weights.

Each function leaves behind either the whole thing, checked, or what was there before. Everything is first put together
in a temporary folder beside its destination, so that the last step is a rename. What goes wrong is a DataError (or a
UsageError, for arguments that make no sense) of one line.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast
from urllib.parse import SplitResult, unquote, urlsplit

import torch.hub
from torchvision.datasets import FashionMNIST
from torchvision.datasets.utils import check_integrity
from torchvision.models import VGG16_Weights

from hw6core.data.verify import Progress, summary, unpacked_differs, verify
from hw6core.errors import DataError, UsageError

DEFAULT_SOURCE = "https://github.com/keshuaixu/HW6_data"
DEFAULT_REVISION = "f59ed8c79e85a30dde429ff84d870bf4c8696464"

_SET_FOLDERS = ("segmentation", "colorization")
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_SCHEMES = ("http", "https", "ssh", "file")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@+-]*")
_REMOTE_SHELL = re.compile(r"([\w.-]+@)?[\w.-]+:[^:].*")  # git's user@host:path
_CHUNK = 1 << 18
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,  # a name in no known encoding, an offset before the beginning
    struct.error,
    IndexError,  # a member without a name
    NotImplementedError,  # zipfile's word for a compression that it does not know
)


@dataclass(frozen=True)
class Limits:
    """How long to wait, how often to try again, and how much to accept."""

    timeout_s: float = 30.0  # without a byte
    git_timeout_s: float = 1800.0
    attempts: int = 4
    backoff_s: float = 1.0  # doubles with each attempt
    download_bytes: int = 1 << 30
    unpacked_bytes: int = 2 << 30
    members: int = 100_000


DEFAULT_LIMITS = Limits()


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
    git = _is_git(source)
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
                tree = _check_out(source, revision, scratch, limits)
            else:
                tree = _unpack(_obtain_archive(source, scratch, limits, progress), scratch / "tree", limits)
            found = _find_set(tree, source)
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

    torchvision downloads them, from `mirror` (the http or https URL of a folder that holds them) or its own address,
    and checks their MD5 sums. Files that are there and intact are kept; damaged ones are replaced. Only the
    .gz files are installed, as published. An unpacked file there with another content, which a loader would prefer,
    is removed with `force` and an error without.
    Raises UsageError for a mirror that is no such URL, DataError if a file cannot be had or an unpacked one is wrong.
    """
    if mirror is not None and _split(mirror).scheme not in ("http", "https"):  # all that torchvision can do
        raise UsageError(f"the mirror {_shown(mirror)!r} is not an http or https URL of a folder")
    mirrors = FashionMNIST.mirrors if mirror is None else [mirror.rstrip("/") + "/"]
    raw = root / "fashion_mnist" / "FashionMNIST" / "raw"
    try:
        failure = _download_garments(root, raw, mirrors, limits)
        if failure is None:
            _settle_unpacked(root, [raw / name for name, _ in FashionMNIST.resources], force)
    except OSError as error:
        raise DataError(f"cannot write to {root}: {error}; free or choose another folder with --root") from error
    if failure is not None:
        raise DataError(
            f"cannot download Fashion-MNIST from {_shown(mirrors[0])}: {failure}; once the network is there, or with "
            f"another mirror, repeat: {_command(root)}"
        )
    return root / "fashion_mnist"


def _download_garments(root: Path, raw: Path, mirrors: list[str], limits: Limits) -> str | None:
    """Have torchvision complete the files in `raw`; None, or in a few words why it could not."""
    kept = _intact_garments(raw)
    if len(kept) == len(FashionMNIST.resources):
        return None
    # torchvision derives the folder from the name of the class.
    dataset = type("FashionMNIST", (FashionMNIST,), {"mirrors": mirrors})
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fashion_mnist-", dir=root) as scratch:
        fresh = Path(scratch) / "FashionMNIST" / "raw"
        fresh.mkdir(parents=True)
        for name in kept:
            shutil.copyfile(raw / name, fresh / name)
        failure = _attempt(lambda: dataset(scratch, download=True), limits)
        # Whole files are kept even if another one failed: the next call needs only the rest.
        for name in _intact_garments(fresh) - kept:
            raw.mkdir(parents=True, exist_ok=True)
            (fresh / name).replace(raw / name)
    return failure


def _intact_garments(folder: Path) -> set[str]:
    return {name for name, md5 in FashionMNIST.resources if check_integrity(folder / name, md5)}


def _settle_unpacked(root: Path, packed: list[Path], force: bool) -> None:
    for unpacked in (file.with_suffix("") for file in packed if unpacked_differs(file)):
        if not force:
            raise DataError(
                f"{unpacked} is not what {unpacked.name}.gz beside it unpacks to, and a loader would prefer it; "
                f"move it away, or remove it: {_command(root)} --force"
            )
        unpacked.unlink()


def fetch_vgg16_weights(
    destination: Path | None = None, *, progress: Progress | None = None, limits: Limits = DEFAULT_LIMITS
) -> Path:
    """Return a file with torchvision's VGG16 weights for ImageNet (IMAGENET1K_V1, 528 MB), downloaded if need be.

    `destination` is the file to write, or an existing folder to write it into; None means torchvision's own cache. A
    file that is there, or in the cache, is used if its SHA-256 begins as its published name says, else replaced.
    Raises DataError if the weights are not there and cannot be downloaded.
    """
    return _fetch_named_by_hash(
        VGG16_Weights.IMAGENET1K_V1.url, Path(torch.hub.get_dir()) / "checkpoints", destination, progress, limits
    )


def _fetch_named_by_hash(
    url: str, cache: Path, destination: Path | None, progress: Progress | None, limits: Limits
) -> Path:
    """Download `name-<first digits of its sha256>.pth`, unless the destination or the cache holds it already."""
    name = Path(_split(url).path).name
    digits = Path(name).stem.rpartition("-")[2]
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
                _download(url, fresh, limits, progress)
            if not _sha256_begins(fresh, digits):
                raise DataError(f"what {url} sent is not the published file: its sha256 does not begin with {digits}")
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


def _command(root: Path) -> str:
    return f"python -m benchmarks data fetch --root {shlex.quote(str(root))}"


def _attempt(download: Callable[[], object], limits: Limits) -> str | None:
    """Run torchvision's download; None, or in a few words why it failed."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(limits.timeout_s)  # torchvision sets none and would wait for ever
    try:
        download()
    except (RuntimeError, OSError, http.client.HTTPException, zlib.error, EOFError, ValueError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    finally:
        socket.setdefaulttimeout(previous)
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Arguments


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{_shown(url)!r} is not a URL: {error}") from error


def _is_git(source: str) -> bool:
    """Whether the source is a repository rather than an archive; UsageError or DataError if it is neither."""
    if not source or source.startswith("-") or not source.isprintable():
        raise UsageError(f"{source!r} is not a source: give the URL or path of a git repository or an archive")
    if "://" in source:
        scheme = _split(source).scheme
        if scheme not in _SCHEMES:
            raise UsageError(f"cannot fetch over {scheme}: the source must be one of {', '.join(_SCHEMES)}, or a path")
        if scheme == "file" and Path(unquote(_split(source).path)).is_dir():
            return True
        return scheme == "ssh" or not _split(source).path.endswith(_ARCHIVE_SUFFIXES)
    path = Path(source)
    if path.is_dir():
        if not (path / ".git").exists() and not (path / "objects").is_dir():
            raise UsageError(f"{source} is a folder but not a git repository; data that is already there can be used")
        return True
    if path.is_file():
        if not source.endswith(_ARCHIVE_SUFFIXES):
            raise UsageError(f"{source} is not an archive: its name must end in {', '.join(_ARCHIVE_SUFFIXES)}")
        return False
    if _REMOTE_SHELL.fullmatch(source):
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


def _shown(source: str) -> str:
    """The source without the user name and password that a URL may carry."""
    return re.sub(r"://[^/@]*@", "://", source)


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
    raise DataError(f"{_shown(source)}: {expected}, {found}; give another one with --source")


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
        f"what {_shown(source)} holds is not the published data, nothing was installed: {len(problems)} differences, "
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


# ---------------------------------------------------------------------------------------------------------------------
# Git


class _GitError(Exception):
    """What git said, in one line."""


def _check_out(source: str, revision: str | None, scratch: Path, limits: Limits) -> Path:
    """The files of one revision, without the repository around them."""
    # git resolves a relative path against the new repository, not against where we are.
    address = source if _REMOTE_SHELL.fullmatch(source) or "://" in source else str(Path(source).resolve())
    tree = scratch / "tree"
    try:
        try:
            _fetch_one_commit(address, revision or "HEAD", tree, limits)
        except _GitError:
            # Not every server hands out a single commit, and none an abbreviated one.
            shutil.rmtree(tree, ignore_errors=True)
            _clone(address, revision or "HEAD", tree, limits)
    except _GitError as error:
        reason = str(error).replace(address, _shown(source))
        at = f" at {revision}" if revision else ""
        raise DataError(
            f"cannot fetch {_shown(source)}{at}: {reason}; check the address and the network, "
            "or give an archive of it with --source"
        ) from error
    shutil.rmtree(tree / ".git")
    return tree


def _fetch_one_commit(address: str, revision: str, tree: Path, limits: Limits) -> None:
    _run_git(["init", "--quiet", "--", str(tree)], limits)
    _run_git(["-C", str(tree), "fetch", "--quiet", "--depth=1", "--no-tags", "--", address, revision], limits)
    _run_git(["-C", str(tree), "checkout", "--quiet", "--detach", "FETCH_HEAD"], limits)


def _clone(address: str, revision: str, tree: Path, limits: Limits) -> None:
    _run_git(["clone", "--quiet", "--no-checkout", "--", address, str(tree)], limits)
    for name in (revision, f"origin/{revision}"):  # a clone has every branch but the default one under origin/
        with contextlib.suppress(_GitError):
            commit = _run_git(["-C", str(tree), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"], limits)
            break
    else:
        raise _GitError(f"it has no revision {revision}")
    _run_git(["-C", str(tree), "checkout", "--quiet", "--detach", commit], limits)


def _run_git(arguments: list[str], limits: Limits) -> str:
    """git's output; _GitError if it fails, DataError if it is missing or takes too long."""
    settings = [
        "core.symlinks=false",  # a link in the repository must not lead out of the folder
        "core.autocrlf=false",  # the bytes as published
        f"core.hooksPath={os.devnull}",
        "protocol.ext.allow=never",
        "http.lowSpeedLimit=1",
        f"http.lowSpeedTime={max(1, round(limits.timeout_s))}",
    ]
    command = ["git", *(part for setting in settings for part in ("-c", setting)), *arguments]
    try:
        process = subprocess.Popen(
            command,
            env=_git_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # git's helpers, which hold the pipes open, must end with it
        )
    except FileNotFoundError as error:
        raise DataError("git is not installed; install it, or give an archive with --source") from error
    try:
        output, complaint = process.communicate(timeout=limits.git_timeout_s)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise DataError(f"git took more than {limits.git_timeout_s:g} s; give an archive with --source") from error
        raise
    if process.returncode != 0:
        lines = [line.strip() for line in complaint.splitlines() if line.strip()] or ["git failed"]
        fatal = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
        raise _GitError(fatal[-1].removeprefix("fatal:").removeprefix("error:").strip())
    return output.strip()


def _git_environment() -> dict[str, str]:
    # Within a git hook, GIT_DIR and its like would send these commands to the repository around us.
    local = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE")
    environment = {name: value for name, value in os.environ.items() if name not in local}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    return environment


# ---------------------------------------------------------------------------------------------------------------------
# Download


class _TransientError(Exception):
    """A failure that may not repeat itself."""


@dataclass
class _Partial:
    """What has arrived of a file, and the server's word for its version."""

    file: Path
    received: int = 0
    version: str = ""


def _obtain_archive(source: str, scratch: Path, limits: Limits, progress: Progress | None) -> Path:
    if "://" not in source:
        return Path(source)
    url = _split(source)
    if url.scheme == "file":
        archive = Path(unquote(url.path))
        if not archive.is_file():
            raise DataError(f"no such file: {archive}; give the URL or path of an archive with --source")
        return archive
    archive = scratch / Path(unquote(url.path)).name
    _download(source, archive, limits, progress)
    return archive


def _download(url: str, destination: Path, limits: Limits, progress: Progress | None) -> None:
    """Write what the URL holds to a new file, taking up a transfer that broke off where the server allows it.

    Raises DataError if the server refuses, if more comes than the limits allow, or after the last attempt.
    """
    partial = _Partial(destination)
    for attempt in range(1, limits.attempts + 1):
        try:
            return _receive(url, partial, limits, progress)
        except _TransientError as error:
            reason = str(error)
        if attempt < limits.attempts:
            time.sleep(limits.backoff_s * 2 ** (attempt - 1))
    raise DataError(f"cannot download {_shown(url)}: {reason} ({limits.attempts} attempts); check the network")


def _receive(url: str, partial: _Partial, limits: Limits, progress: Progress | None) -> None:
    with _open(url, partial, limits) as response:
        if not _continues(response, partial):
            partial.received = 0
        length = response.headers.get("Content-Length", "")
        total = partial.received + int(length) if length.isdigit() else None
        partial.version = _version(response)
        _require_size(url, total or 0, limits)
        with partial.file.open("ab" if partial.received else "wb") as out:
            while chunk := _read(response):
                partial.received += len(chunk)
                _require_size(url, partial.received, limits)
                out.write(chunk)
                if progress is not None:
                    progress(partial.received, total)
    if total is not None and partial.received != total:
        raise _TransientError(f"the connection broke off after {partial.received} of {total} bytes")


def _open(url: str, partial: _Partial, limits: Limits) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "hw6core", "Accept-Encoding": "identity"})
    if partial.received:
        request.add_header("Range", f"bytes={partial.received}-")
        if partial.version:  # otherwise the halves of two versions could be put together
            request.add_header("If-Range", partial.version)
    try:
        return cast(http.client.HTTPResponse, urllib.request.urlopen(request, timeout=limits.timeout_s))
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answers {error.code} {error.reason}"
        if error.code == 416:  # what we have is not the beginning of what it has
            partial.received = 0
        if error.code in (408, 416, 425, 429) or error.code >= 500:
            raise _TransientError(answer) from error
        raise DataError(f"cannot download {_shown(url)}: {answer}; check the address") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DataError(f"cannot download {_shown(url)}: {reason}; mend the machine's certificates") from error
        raise _TransientError(getattr(reason, "strerror", None) or str(reason)) from error
    except ValueError as error:  # a port that is no number, a host that is no name
        raise UsageError(f"cannot download {_shown(url)}: {error}") from error


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _TransientError(str(error) or type(error).__name__) from error


def _continues(response: http.client.HTTPResponse, partial: _Partial) -> bool:
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if response.status != 206:
        return False
    if start is None or int(start[1]) != partial.received:
        partial.received = 0
        raise _TransientError("the server sent another part than was asked for")
    return True


def _version(response: http.client.HTTPResponse) -> str:
    """A tag that changes with the content; a weak ETag may not stand in If-Range."""
    tag = str(response.headers.get("ETag", ""))
    return tag if tag.startswith('"') else str(response.headers.get("Last-Modified", ""))


def _require_size(url: str, size: int, limits: Limits) -> None:
    if size > limits.download_bytes:
        raise DataError(f"{_shown(url)} is larger than the {limits.download_bytes} bytes allowed; check the address")


# ---------------------------------------------------------------------------------------------------------------------
# Archives


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive; `open` is None for a folder."""

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None


def _unpack(archive: Path, tree: Path, limits: Limits) -> Path:
    """Unpack into the new folder `tree`: plain files and folders only, none outside of it, within the limits."""
    tree.mkdir()
    members = _zip_members(archive) if archive.name.endswith(".zip") else _tar_members(archive, tree)
    unpacked = 0
    try:
        with contextlib.closing(members):
            for count, member in enumerate(members, 1):
                if count > limits.members:
                    raise DataError(f"{archive.name} has more than the {limits.members} members allowed")
                if unpacked + member.size > limits.unpacked_bytes:
                    raise DataError(f"{archive.name} unpacks to more than the {limits.unpacked_bytes} bytes allowed")
                unpacked += _write_member(member, tree, archive)
    except (*_DAMAGED, OSError) as error:
        if not isinstance(error, _DAMAGED) and error.errno != errno.EINVAL:  # that is a seek to nowhere
            raise
        raise DataError(f"{archive.name} is damaged or not an archive: {error}; fetch it again") from error
    return tree


def _write_member(member: _Member, tree: Path, archive: Path) -> int:
    """Write one member and return its size."""
    target = tree.joinpath(*_safe_parts(member.name, archive))
    if member.open is None:
        target.mkdir(parents=True, exist_ok=True)
        return 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        out = target.open("xb")
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"{archive.name}: {member.name!r} is there twice; nothing was installed") from error
    with out, member.open() as stream:
        # No more than was announced: the sum over the announced sizes is what was held against the limit.
        written = 0
        while written < member.size and (chunk := stream.read(min(_CHUNK, member.size - written))):
            written += out.write(chunk)
    if written != member.size:
        raise EOFError(f"{member.name!r} is cut off")
    return written


def _safe_parts(name: str, archive: Path) -> list[str]:
    """The path's parts; a backslash and a drive count too, so that an archive means the same everywhere."""
    slashed = name.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    if slashed.startswith("/") or re.match(r"[A-Za-z]:", slashed) or ".." in parts or "\0" in name:
        raise DataError(f"{archive.name}: {name!r} leads out of the folder; nothing was installed")
    return parts


def _refuse_special(name: str, archive: Path) -> None:
    raise DataError(f"{archive.name}: {name!r} is neither a file nor a folder; nothing was installed")


def _tar_members(archive: Path, tree: Path) -> Generator[_Member]:
    with tarfile.open(archive, "r:gz" if archive.name.endswith("gz") else "r:") as tar:
        for member in tar:
            _safe_parts(member.name, archive)
            if not member.isdir() and not member.isfile():
                _refuse_special(member.name, archive)
            if hasattr(tarfile, "data_filter"):  # a second opinion, which Python has from 3.11.4 on
                tarfile.data_filter(member, str(tree))
            yield _Member(member.name, member.size, None if member.isdir() else _tar_opener(tar, member))


def _tar_opener(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    # extractfile returns None only for what is not a file.
    return lambda: cast(IO[bytes], tar.extractfile(member))


def _zip_members(archive: Path) -> Generator[_Member]:
    with zipfile.ZipFile(archive) as bundle:
        for info in bundle.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):  # 0: written where there are no such kinds
                _refuse_special(info.filename, archive)
            if info.flag_bits & 0x1:
                raise DataError(f"{archive.name} is encrypted; fetch another copy")
            yield _Member(info.filename, info.file_size, None if info.is_dir() else _zip_opener(bundle, info))


def _zip_opener(bundle: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: bundle.open(info)
