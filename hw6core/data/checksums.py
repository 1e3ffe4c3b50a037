"""Checks that the data on disk is the published data.

`SHA256SUMS.gz`, beside this file, lists the 4,073 published files in the format of `sha256sum`, folder by folder, and
the unpacked contents of the four packed files of Fashion-MNIST. To check without this package, in the folder of both
data sets: `zcat SHA256SUMS.gz | sha256sum --check --ignore-missing --quiet`.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from hw6core.data import remedy
from hw6core.errors import DataError
from hw6core.provenance import SETS

PUBLISHED = Path(__file__).with_name("SHA256SUMS.gz")


@remedy.unreadable_is_missing()
def verify(root: str | Path) -> dict[str, str]:
    """Compare the data in `root` with the published checksums; returns the differences by path below `root`.

    `root` is the folder of both data sets (then both must exist) or of one. Reported are missing, changed and
    unreadable files, and samples with a number that was not published; other files (`.DS_Store`, `Icon`) are ignored.

    Raises:
        DataError: `root` is neither kind of folder, or is not readable.
    """
    root = Path(root)
    sums, problems = _published(root), {}
    if not sums:
        raise DataError(
            f"no data in {root}: expected the folders endovis/ and fashion_mnist/, or a mapping.json, "
            "or FashionMNIST/raw; download it",
            "fetch",
            root,
        )
    for path, expected in sums.items():
        try:
            found = sha256(root / path)
        except FileNotFoundError:
            if f"{path}.gz" not in sums:  # unpacked files are optional, but a loader prefers them to the packed ones
                problems[path] = "missing"
        except OSError as error:
            problems[path] = f"cannot be read: {error.strerror}"
        else:
            if found != expected:
                problems[path] = f"changed: its SHA-256 is {found[:12]}..., expected {expected[:12]}..."
    # A loader would also read samples that were not published.
    samples = {folder for folder in (Path(path).parent for path in sums) if folder.name.isdigit()}
    for split in sorted({sample.parent for sample in samples}):
        for entry in sorted((root / split).glob("[0-9]*")):
            if entry.name.isdigit() and entry.is_dir() and split / entry.name not in samples:
                problems[f"{split.as_posix()}/{entry.name}"] = "not a published sample"
    return problems


def summary(problems: Mapping[str, str]) -> str:
    """The number of differences that `verify` found, and the first three, for a message."""
    shown = "; ".join(f"{path}: {detail}" for path, detail in list(problems.items())[:3])
    rest = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return f"{len(problems)} difference{'s' * (len(problems) > 1)} from the published data: {shown}{rest}"


def require_published(root: str | Path) -> int:
    """The number of files that `verify(root)` checked if all are as published: 4,073 in the folder of both data sets.

    Raises:
        DataError: something differs, with the first differences; or as for `verify`.
    """
    root = Path(root)
    problems, sums = verify(root), _published(root)
    if not problems:
        return sum(f"{path}.gz" not in sums for path in sums)
    home = root if _holds_sets(root) else remedy.parent(root)
    raise DataError(f"{root}: {summary(problems)}; fix it", "replace", home)


@remedy.unreadable_is_missing()
def identify(files: Iterable[Path], base: Path) -> tuple[str, list[str]]:
    """The fingerprint of files, and the paths that are not as published, reading each file once.

    The fingerprint, 16 hex digits, depends on the contents of the files and their paths below `base`, not on their
    order. Not as published are changed files, files that were not published, and missing files of the same folders. An
    unpacked file counts as the packed one.

    Raises:
        DataError: a file is missing or not readable.
    """
    read: dict[str, str] = {}
    for file in files:
        try:
            read[file.relative_to(base).as_posix()] = sha256(file)
        except FileNotFoundError as error:
            raise remedy.damaged(f"no {file}", file) from error
    lines = "".join(f"{read[path]}  {path}\n" for path in sorted(read))
    fingerprint = hashlib.sha256(lines.encode()).hexdigest()[:16]

    found = {}  # by the paths of the list: each data set may be in `base` itself or in a folder of its name
    for path, value in read.items():
        first = path.split("/")[0]
        own = "" if first in SETS else "fashion_mnist/" if first == "FashionMNIST" else "endovis/"
        found[own + path] = value
    sums, folders, different = _sums(), {_folder_of(path) for path in found}, []
    for path, expected in sums.items():
        if path in found:
            if found[path] != expected:
                different.append(path)
        elif _folder_of(path) in folders and f"{path}.gz" not in sums and path.removesuffix(".gz") not in found:
            different.append(path)
    return fingerprint, [*different, *(path for path in found if path not in sums)]


def sha256(file: Path) -> str:
    """64 hex digits. Raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _holds_sets(root: Path) -> bool:
    return any((root / name).is_dir() for name in SETS)


def _sums() -> dict[str, str]:
    """The published checksums by path below the folder of both data sets, in the order of the list."""
    with gzip.open(PUBLISHED, "rt", encoding="ascii") as lines:
        return {path: value for value, path in (line.split() for line in lines)}


def _published(root: Path) -> dict[str, str]:
    """The published checksums by path below `root`, the folder of both data sets or of one; empty for other folders."""
    if _holds_sets(root):
        return _sums()
    own = next((f"{name}/" for name, mark in SETS.items() if (root / mark).exists()), "?")
    return {path.removeprefix(own): value for path, value in _sums().items() if path.startswith(own)}


def _folder_of(path: str) -> str:
    """The folder of a file; for a file of a sample, the folder of its split."""
    return re.sub(r"(^|/)\d+$", "", path.rpartition("/")[0])
