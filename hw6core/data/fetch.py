"""Downloads the EndoVis course subset, Fashion-MNIST and VGG16's ImageNet weights.

Each function installs verified data, or changes nothing if it fails: files are prepared in a temporary folder beside
the destination and then renamed. On a full disk it raises an OSError.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import torch.hub
from torchvision.datasets import FashionMNIST
from torchvision.datasets.utils import check_integrity
from torchvision.models import VGG16_Weights

from hw6core.data import remedy
from hw6core.data.checksums import require_published, sha256, summary, verify
from hw6core.errors import DataError
from hw6core.files import scratch_folder
from hw6core.provenance import MARKER

ENDOVIS = "https://github.com/keshuaixu/HW6_data/archive/f59ed8c79e85a30dde429ff84d870bf4c8696464.tar.gz"
VGG16_SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
_ARCHIVE = "an archive (.zip, .tar, .tar.gz, .tgz)"
_URL = re.compile("https?://", re.IGNORECASE)
_TIMEOUT_S = 30  # without data
_RETRIES = 3
_HALVES = ("segmentation", "colorization")


@remedy.unreadable_is_missing()
def fetch_endovis(
    root: str | Path, source: str | None = None, *, force: bool = False, progressbar: object = False
) -> Path:
    """Install the EndoVis course subset as `root/endovis` and return that folder.

    An existing `root/endovis` that is not empty is replaced only with `force`.

    Args:
        source: a folder, an archive (.zip, .tar, .tar.gz, .tgz), or the http or https URL of one. It must contain one
            folder with `mapping.json`, `segmentation` and `colorization`, at any depth, which may differ from the
            published data (see `hw6core.data.checksums.verify`). None for the published data.
        progressbar: as for `pooch.HTTPDownloader`: True for a tqdm bar, or an object with the same methods.

    Raises:
        DataError: the data is not available, `root/endovis` holds something else, or, without `source`, the data is
            not as published. `root/endovis` is then unchanged.
    """
    root = Path(root)
    target = root / "endovis"
    if not force and _is_set(target):
        if source is None:
            require_published(target)
        elif (target / MARKER).is_file():
            raise DataError(f"{target} holds drawn data; move it, or replace it", "replace", root)
        return target
    if not force and os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise DataError(
            f"{target} already exists, without mapping.json, segmentation or colorization; move it, or replace it",
            "replace",
            root,
        )
    with _writable(root) as scratch:
        try:
            fresh = _find_set(source or ENDOVIS, scratch, progressbar)
        except DataError as error:
            if source is not None:
                raise
            raise DataError(f"no EndoVis data: {error}; then retry", "fetch", root) from error
        if source is None and (problems := verify(fresh)):
            raise DataError(f"{ENDOVIS} has {summary(problems)}; nothing was installed; use another source")
        with suppress(FileNotFoundError):  # also what another process has installed meanwhile
            target.rename(scratch / "replaced")
        try:
            fresh.rename(target)
        except BaseException:  # or the old data would be deleted with the scratch folder
            with suppress(FileNotFoundError):  # there was none
                (scratch / "replaced").rename(target)
            raise
        (root / MARKER).unlink(missing_ok=True)
    return target


@remedy.unreadable_is_missing()
def fetch_fashion_mnist(
    root: str | Path, mirror: str | None = None, *, force: bool = False, progressbar: object = False
) -> Path:
    """Put the four files of Fashion-MNIST into `root/fashion_mnist/FashionMNIST/raw` and return `root/fashion_mnist`.

    Intact files are kept, damaged ones are replaced. Only the packed files are installed. An existing unpacked file
    with other content, which a loader would prefer, is removed with `force`, otherwise it is an error.

    Args:
        mirror: the http or https URL of a folder with the four files, instead of torchvision's.
        progressbar: as for `fetch_endovis`.

    Raises:
        DataError: a file is not available, or an unpacked file has other content. Nothing was then changed.
    """
    root = Path(root)
    address = FashionMNIST.mirrors[0] if mirror is None else mirror.rstrip("/") + "/"
    folder = root / "fashion_mnist"
    raw = folder / "FashionMNIST" / "raw"
    differing = [folder / path for path in verify(folder)] if raw.is_dir() else []
    unpacked = [file for file in differing if file.suffix != ".gz"]
    if unpacked and not force:
        raise DataError(
            f"{unpacked[0]} differs from the content of {unpacked[0].name}.gz and would be loaded instead; "
            "move it, or remove it",
            "replace",
            root,
        )
    wanted = [(name, md5) for name, md5 in FashionMNIST.resources if not check_integrity(raw / name, md5)]
    if wanted:
        with _writable(root) as scratch:
            try:
                fresh = [_download(address + name, scratch / name, f"md5:{md5}", progressbar) for name, md5 in wanted]
            except DataError as error:
                reason = f"no Fashion-MNIST: {error}, or use another mirror; then retry"
                raise DataError(reason, "fetch", root) from error
            raw.mkdir(parents=True, exist_ok=True)
            for file in fresh:
                file.replace(raw / file.name)
    for path in (*unpacked, root / MARKER, folder / MARKER):
        path.unlink(missing_ok=True)
    return folder


def cached_imagenet_weights() -> Path | None:
    """VGG16's ImageNet weights (IMAGENET1K_V1) in torchvision's cache; None if missing, damaged or unreadable."""
    with suppress(OSError):
        return _vgg16_file() if sha256(_vgg16_file()) == VGG16_SHA256 else None
    return None


def _vgg16_file() -> Path:
    name = Path(urlsplit(VGG16_Weights.IMAGENET1K_V1.url).path).name
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def fetch_vgg16_weights(progressbar: object = False) -> Path:
    """VGG16's ImageNet weights in torchvision's cache, downloaded (528 MB) if missing or damaged.

    Args:
        progressbar: as for `fetch_endovis`.

    Raises:
        DataError: the file cannot be downloaded or written.
    """
    if cached := cached_imagenet_weights():
        return cached
    target = _vgg16_file()
    try:
        with _writable(target.parent) as scratch:
            _download(VGG16_Weights.IMAGENET1K_V1.url, scratch / target.name, VGG16_SHA256, progressbar).replace(target)
    except DataError as error:
        reason = f"no ImageNet weights: {error}; save the file as {target}, or retry"
        raise DataError(reason, "weights") from error
    return target


@contextmanager
def _writable(folder: Path) -> Iterator[Path]:
    """A scratch folder in `folder`; an OSError in the block is raised as a DataError, unless the disk is full."""
    try:
        with scratch_folder(folder) as scratch:
            yield scratch
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise DataError(f"cannot write to {folder}: {error}; choose another folder") from error


def _download(url: str, file: Path, known_hash: str | None, progressbar: object) -> Path:
    """Download a URL to a new file and return that.

    Raises:
        DataError: the last attempt failed, or the hash does not match.
        OSError: the file cannot be written.
    """
    import pooch  # takes a quarter of a second, with requests
    from requests import RequestException

    pooch.get_logger().setLevel("ERROR")
    store = pooch.create(
        file.parent, base_url="", registry={file.name: known_hash}, urls={file.name: url}, retry_if_failed=_RETRIES
    )
    # With another encoding the client would unpack the .gz files, whose hash would not match.
    headers = {"Accept-Encoding": "identity"}
    http = pooch.HTTPDownloader(progressbar=progressbar, chunk_size=1 << 18, timeout=_TIMEOUT_S, headers=headers)
    try:
        store.fetch(file.name, downloader=http)
        file.chmod(0o644)  # pooch creates it for this user only
        return file
    except RequestException as error:
        first: BaseException = error
        while first.__context__ is not None:  # the others wrap it
            first = first.__context__
        response = error.response
        reason = str(first) if response is None else f"the server returned {response.status_code} {response.reason}"
    except ValueError:
        reason = "not the published file: the checksum does not match"
    raise DataError(
        f"cannot download {_redact(url)}: {_redact(reason)} ({1 + _RETRIES} attempts); check the network and the URL"
    )


def _redact(text: str) -> str:
    """Remove user names and passwords from URLs."""
    return re.sub(r"://[^/\s]*@", "://", text)


@remedy.unreadable_is_missing()
def _find_set(source: str, scratch: Path, progressbar: object) -> Path:
    """The data set in a folder, an archive or a URL; unpacked or copied to `scratch`."""
    tree, archive = scratch / "tree", Path(source)
    if _URL.match(source):
        archive = _download(source, scratch / "archive", None, progressbar)
    if archive.is_dir():
        tree = archive
    elif archive.is_file():
        _unpack(archive, tree, _redact(source))
    else:
        raise DataError(f"no such file or folder: {source}; expected a folder, {_ARCHIVE} or the URL of one")
    sets = [file.parent for file in tree.rglob("mapping.json") if _is_set(file.parent)]
    if len(sets) != 1:
        names = sorted(str(path.relative_to(tree)) for path in sets or tree.iterdir())
        found = f"{len(sets)} ({'' if sets else 'top level: '}{', '.join(names[:8])})"
        raise DataError(
            f"{_redact(source)}: expected one folder with mapping.json, segmentation and colorization, found {found}; "
            "use another source"
        )
    if tree != archive:
        return sets[0]
    copy = scratch / "copy"
    try:
        shutil.copytree(sets[0], copy, ignore=shutil.ignore_patterns(".git"))
    except shutil.Error as error:
        _, _, reason = error.args[0][0]  # source, target and reason of every failure
        raise DataError(f"cannot copy {sets[0]}: {reason}; make its files readable, or free up space") from error
    copy.chmod(0o755)  # a read-only folder cannot be renamed
    return copy


def _unpack(archive: Path, tree: Path, source: str) -> None:
    tree.mkdir()
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(tree, filter="data")
            return
        with zipfile.ZipFile(archive) as bundle:
            for member in bundle.infolist():
                member.filename = member.filename.replace("\\", "/")  # written by PowerShell
                bundle.extract(member, tree)
    except Exception as error:  # damaged archives raise many types
        if isinstance(error, OSError) and error.errno is not None:  # a disk error
            raise
        raise DataError(f"{source} is damaged or not {_ARCHIVE}: {error}; download it again") from error


def _is_set(folder: Path) -> bool:
    return (folder / "mapping.json").is_file() and all((folder / name).is_dir() for name in _HALVES)
