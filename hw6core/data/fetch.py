"""Getting the data: the EndoVis course subset, Fashion-MNIST and VGG16's ImageNet weights.

Each function leaves behind the whole thing, checked, or what was there before: all is put together in a temporary
folder beside the destination, so that the last step is a rename.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import torch.hub
from torchvision.datasets import FashionMNIST
from torchvision.datasets.utils import check_integrity
from torchvision.models import VGG16_Weights

from hw6core.data.checksums import require_published, sha256, verify
from hw6core.errors import DataError, UsageError
from hw6core.files import scratch_folder

ENDOVIS = "https://github.com/keshuaixu/HW6_data/archive/f59ed8c79e85a30dde429ff84d870bf4c8696464.tar.gz"
VGG16_SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
_ARCHIVE = "an archive (.zip, .tar, .tar.gz, .tgz)"
_URL = re.compile("https?://", re.IGNORECASE)
_TIMEOUT_S = 30  # without a byte
_RETRIES = 3
_HALVES = ("segmentation", "colorization")
_GIT = shutil.ignore_patterns(".git")


def fetch_endovis(root: Path, source: str | None = None, *, force: bool = False, progressbar: object = False) -> Path:
    """Install the EndoVis course subset as `root/endovis` and return that folder.

    A set that is already there stays as it is unless `force` is given; what else is there is never replaced without.

    Args:
        source: a folder, an archive (.zip, .tar, .tar.gz, .tgz), or the http or https URL of one. The set is the one
            folder in it with `mapping.json`, `segmentation` and `colorization`, at whatever depth. It may differ from
            the published set; `hw6core.data.checksums.verify` tells in what. None for the published set itself.
        progressbar: as for `pooch.HTTPDownloader`: True for a bar of tqdm's, or an object with its methods.

    Raises:
        DataError: the set cannot be had, there is something else in its place, or what should be the published set,
            fetched or there before, is not. `root/endovis` is then as it was.
    """
    target = root / "endovis"
    occupied = os.path.lexists(target)
    if not force and _is_set(target):
        if source is None:
            require_published(target)
        return target
    if not force and occupied and (not target.is_dir() or any(target.iterdir())):
        found = _some(entry.name for entry in target.iterdir()) if target.is_dir() else "not a folder"
        raise DataError(
            f"{target} is in the way: expected mapping.json, segmentation and colorization, found {found}; "
            "move it away, or replace it",
            "replace",
            root,
        )
    with _writable(root) as scratch:
        try:
            fresh = _find_set(source or ENDOVIS, scratch, progressbar)
        except DataError as error:
            if source is not None:
                raise
            raise DataError(f"no EndoVis data: {error}; once that is mended, repeat", "fetch", root) from error
        if source is None and (problems := verify(fresh)):
            listed = "; ".join(str(problem) for problem in problems[:3])
            raise DataError(
                f"what {ENDOVIS} holds is not the published data, nothing was installed: {len(problems)} differences, "
                f"first {listed}; give another source"
            )
        if occupied:
            target.rename(scratch / "replaced")
        try:
            fresh.rename(target)
        except BaseException:  # else the old set would go with the scratch folder
            if occupied:
                (scratch / "replaced").rename(target)
            raise
    return target


def fetch_fashion_mnist(
    root: Path, mirror: str | None = None, *, force: bool = False, progressbar: object = False
) -> Path:
    """Put the four files of Fashion-MNIST into `root/fashion_mnist/FashionMNIST/raw` and return `root/fashion_mnist`.

    Files that are there and intact are kept, damaged ones are replaced. Only the packed files are installed, as
    published. An unpacked one there with another content, which a loader would prefer, is removed with `force` and an
    error without.

    Args:
        mirror: the http or https URL of a folder that holds the four files, instead of torchvision's.
        progressbar: as for `fetch_endovis`.

    Raises:
        UsageError: the mirror is no such URL.
        DataError: a file cannot be had, and none was replaced; or an unpacked one is wrong.
    """
    if mirror is not None and not _URL.match(mirror):
        raise UsageError(f"the mirror {mirror!r} is not an http or https URL of a folder")
    address = FashionMNIST.mirrors[0] if mirror is None else mirror.rstrip("/") + "/"
    raw = root / "fashion_mnist" / "FashionMNIST" / "raw"
    wanted = [(name, md5) for name, md5 in FashionMNIST.resources if not check_integrity(raw / name, md5)]
    if wanted:
        with _writable(root) as scratch:
            try:
                fresh = [_download(address + name, scratch / name, f"md5:{md5}", progressbar) for name, md5 in wanted]
            except DataError as error:
                reason = f"no Fashion-MNIST: {error}; once that is mended, or with another mirror, repeat"
                raise DataError(reason, "fetch", root) from error
            raw.mkdir(parents=True, exist_ok=True)
            for file in fresh:
                file.replace(raw / file.name)
    for unpacked in (root / "fashion_mnist" / problem.path for problem in verify(root / "fashion_mnist")):
        if unpacked.suffix == ".gz":
            continue
        if not force:
            raise DataError(
                f"{unpacked} is not what {unpacked.name}.gz beside it unpacks to, and a loader would prefer it; "
                "move it away, or remove it",
                "replace",
                root,
            )
        unpacked.unlink()
    return root / "fashion_mnist"


def cached_imagenet_weights() -> Path | None:
    """torchvision's file of VGG16's ImageNet weights (IMAGENET1K_V1), if it is in its cache, whole, and may be read."""
    with suppress(OSError):
        return _vgg16_file() if sha256(_vgg16_file()) == VGG16_SHA256 else None
    return None


def _vgg16_file() -> Path:
    name = Path(urlsplit(VGG16_Weights.IMAGENET1K_V1.url).path).name
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def fetch_vgg16_weights(progressbar: object = False) -> Path:
    """Return the same file, downloaded (528 MB) if it is not there or not the published one.

    Args:
        progressbar: as for `fetch_endovis`.

    Raises:
        DataError: it is not there, and cannot be downloaded or written.
    """
    if cached := cached_imagenet_weights():
        return cached
    target = _vgg16_file()
    try:
        with _writable(target.parent) as scratch:
            _download(VGG16_Weights.IMAGENET1K_V1.url, scratch / target.name, VGG16_SHA256, progressbar).replace(target)
    except DataError as error:
        reason = f"no ImageNet weights: {error}; save that file yourself as {target}, or repeat"
        raise DataError(reason, "weights") from error
    return target


@contextmanager
def _writable(folder: Path) -> Iterator[Path]:
    """A folder for what is unfinished, in `folder`. What the disk refuses in the block becomes a DataError."""
    try:
        with scratch_folder(folder) as scratch:
            yield scratch
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error}; make room or choose another folder") from error


def _download(url: str, file: Path, known_hash: str | None, progressbar: object) -> Path:
    """Write what the URL holds to a new file, and return that.

    Raises:
        DataError: the last attempt failed, or what came does not have the hash.
        OSError: the file cannot be written.
    """
    import pooch  # with requests: a quarter of a second that only a download is worth
    from requests import RequestException

    pooch.get_logger().setLevel("ERROR")
    store = pooch.create(
        file.parent, base_url="", registry={file.name: known_hash}, urls={file.name: url}, retry_if_failed=_RETRIES
    )
    # A packed file that is unpacked on its way, as some servers suggest, has another hash.
    headers = {"Accept-Encoding": "identity"}
    http = pooch.HTTPDownloader(progressbar=progressbar, chunk_size=1 << 18, timeout=_TIMEOUT_S, headers=headers)
    try:
        store.fetch(file.name, downloader=http)
        file.chmod(0o644)  # pooch's own files are for nobody else
        return file
    except RequestException as error:
        first: BaseException = error
        while first.__context__ is not None:  # the later ones repeat it in many words
            first = first.__context__
        answer = error.response
        reason = str(first) if answer is None else f"the server answers {answer.status_code} {answer.reason}"
    except ValueError:
        reason = "what it sent is not the published file: its checksum is another"
    raise DataError(
        f"cannot download {_shown(url)}: {_shown(reason)} ({1 + _RETRIES} attempts); check the network and the address"
    )


def _shown(text: str) -> str:
    """Without the user name and password that a URL may carry."""
    return re.sub(r"://[^/\s]*@", "://", text)


def _find_set(source: str, scratch: Path, progressbar: object) -> Path:
    """The set in a folder, an archive or what a URL holds, put into `scratch`."""
    tree, archive = scratch / "tree", Path(source)
    if _URL.match(source):
        archive = _download(source, scratch / "archive", None, progressbar)
    if archive.is_dir():
        tree = archive
    elif archive.is_file():
        _unpack(archive, tree, _shown(source))
    else:
        raise DataError(f"no such file or folder: {source}; expected a folder, {_ARCHIVE} or the URL of one")
    holders = sorted(file.parent for file in tree.rglob("mapping.json") if file.is_file())
    sets = [folder for folder in holders if _is_set(folder)]
    if len(sets) == 1:
        return sets[0] if tree != archive else shutil.copytree(sets[0], scratch / "copy", ignore=_GIT)
    places = _some(f"./{folder.relative_to(tree)}" for folder in sets or holders)
    if sets:
        found = f"found {len(sets)}: {places}"
    elif holders:
        found = f"found mapping.json without the two folders beside it in {places}"
    else:
        found = f"found no mapping.json; at the top: {_some(entry.name for entry in tree.iterdir())}"
    raise DataError(
        f"{_shown(source)}: expected one folder with mapping.json, segmentation and colorization, {found}; "
        "give another source"
    )


def _unpack(archive: Path, tree: Path, source: str) -> None:
    tree.mkdir()
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(tree, filter="data")
            return
        with zipfile.ZipFile(archive) as bundle:
            for member in bundle.infolist():
                member.filename = member.filename.replace("\\", "/")  # as PowerShell packs them
                bundle.extract(member, tree)
    except Exception as error:  # what a damaged archive raises depends on its bytes
        if isinstance(error, OSError) and error.errno is not None:  # the disk's
            raise
        raise DataError(f"{source} is damaged or not {_ARCHIVE}: {error}; fetch it again") from error


def _is_set(folder: Path) -> bool:
    return (folder / "mapping.json").is_file() and all((folder / name).is_dir() for name in _HALVES)


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return (", ".join(listed[:8]) or "nothing") + (", ..." if len(listed) > 8 else "")
