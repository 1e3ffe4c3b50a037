"""Checks that the data on disk is the published data.

`SHA256SUMS.gz`, beside this file, lists the 4,073 published files in the format of `sha256sum`, folder by folder, and
the unpacked contents of the four packed files of Fashion-MNIST. To check without this package, in the folder of both
data sets: `zcat SHA256SUMS.gz | sha256sum --check --ignore-missing --quiet`.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from hw6core.data import remedy
from hw6core.errors import DataError
from hw6core.provenance import SETS

PUBLISHED = Path(__file__).with_name("SHA256SUMS.gz")


class Problem(NamedTuple):
    """A difference from the published data: the path below the verified folder, and what differs."""

    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


def verify(root: Path) -> list[Problem]:
    """Compare the data in `root` with the published checksums; returns the differences.

    `root` is the folder of both data sets (then both must exist) or of one. Reported are missing, changed and
    unreadable files, and samples with a number that was not published; other files (`.DS_Store`, `Icon`) are ignored. A
    missing folder is reported once.

    Raises:
        DataError: `root` is neither kind of folder, or is not readable.
    """
    sums = _published(root)
    if not sums:
        raise DataError(
            f"no data in {root}: expected the folders endovis/ and fashion_mnist/, or a mapping.json, "
            "or FashionMNIST/raw; download it",
            "fetch",
            root,
        )
    try:
        return [
            problem
            for folder, paths in groupby(sums, _folder_of)
            for problem in _problems_in(root, folder, {path: sums[path] for path in paths})
        ]
    except OSError as error:  # a folder is not readable; an unreadable file is a Problem
        raise DataError(f"cannot read {error.filename}: {error.strerror}; make it readable") from error


def require_published(root: Path) -> int:
    """The number of files that `verify(root)` checked if all are as published: 4,073 in the folder of both data sets.

    Raises:
        DataError: something differs, with the first differences; or as for `verify`.
    """
    problems, sums = verify(root), _published(root)
    if not problems:
        return sum(f"{path}.gz" not in sums for path in sums)
    shown = "; ".join(str(problem) for problem in problems[:3])
    rest = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    noun = "difference" if len(problems) == 1 else "differences"
    # A data set is downloaded into its parent folder, which "." must be resolved for.
    home = root if _holds_sets(root) else (root if root.name else root.resolve()).parent
    # A download without force keeps intact files, and EndoVis in any state.
    endovis = (root / "mapping.json").exists() or (
        (root / "endovis").is_dir() and any(problem.path.startswith("endovis") for problem in problems)
    )
    unpacked = any(problem.path.endswith("-ubyte") for problem in problems)
    raise DataError(
        f"{root}: {len(problems)} {noun} from the published data: {shown}{rest}; fix it",
        "replace" if endovis or unpacked else "fetch",
        home,
    )


def identify(files: Iterable[Path], base: Path) -> tuple[str, list[str]]:
    """The fingerprint of files, and the paths that are not as published, reading each file once.

    The fingerprint, 16 hex digits, depends on the contents of the files and their paths below `base`, not on their
    order. Not as published are changed files, files that were not published, and missing files of the same folders. An
    unpacked file counts as the packed one.

    Raises:
        DataError: a file cannot be read.
    """
    read: dict[str, str] = {}
    for file in files:
        try:
            read[file.relative_to(base).as_posix()] = sha256(file)
        except OSError as error:
            raise remedy.damaged(f"cannot read {file}: {error.strerror}", file) from error
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
    own = None if _holds_sets(root) else next((name for name, mark in SETS.items() if (root / mark).exists()), "?")
    if own is None:
        return _sums()
    return {path.removeprefix(f"{own}/"): value for path, value in _sums().items() if path.startswith(f"{own}/")}


def _folder_of(path: str) -> str:
    """The folder of a file; for a file of a sample, the folder of its split."""
    return re.sub(r"(^|/)\d+$", "", path.rpartition("/")[0])


def _problems_in(root: Path, folder: str, sums: Mapping[str, str]) -> Iterator[Problem]:
    """The differences in a folder whose published checksums, by path below `root`, are `sums`."""
    unpacked = {path for path in sums if f"{path}.gz" in sums}  # optional; a loader prefers them to the packed files
    if not (root / folder).is_dir():
        yield Problem(folder, f"the folder is missing, with {len(sums) - len(unpacked)} files")
        return
    for path, expected in sums.items():
        file = root / path
        if not file.is_file():
            if path not in unpacked:
                yield Problem(path, "missing")
            continue
        try:
            found = sha256(file)
        except OSError as error:
            yield Problem(path, f"cannot be read: {error.strerror}")
            continue
        if found != expected:
            yield Problem(path, f"changed: its SHA-256 is {found[:12]}..., expected {expected[:12]}...")
    numbers = {Path(path).parent.name for path in sums}
    if all(number.isdigit() for number in numbers):  # a loader would also read samples that were not published
        for entry in sorted((root / folder).iterdir()):
            if entry.name.isdigit() and entry.name not in numbers and entry.is_dir():
                yield Problem(f"{folder}/{entry.name}", "not a published sample")
