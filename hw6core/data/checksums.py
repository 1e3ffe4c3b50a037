"""Is the data on disk the data that the results speak of?

`SHA256SUMS.gz`, beside this file, lists the 4,073 published files as `sha256sum` does, folder by folder, and what the
four packed ones of Fashion-MNIST unpack to. The same question without this package, in the folder of both sets:
`zcat SHA256SUMS.gz | sha256sum --check --ignore-missing --quiet`.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from hw6core.data import remedy
from hw6core.errors import DataError

PUBLISHED = Path(__file__).with_name("SHA256SUMS.gz")

# What a set's own folder holds, by which it is told from the folder with both sets.
_MARKS = {"endovis": "mapping.json", "fashion_mnist": "FashionMNIST/raw"}


class Problem(NamedTuple):
    """Something that is not as published: its path below the folder that was verified, and what is wrong with it."""

    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


def verify(root: Path) -> list[Problem]:
    """Hold the data in `root` against the published sums; returns what differs, nothing if all is as published.

    `root` is the folder with both sets (then both must be there) or a set's own folder. Missing, changed and unreadable
    files and samples with a number that was not published are named; other files lying about (`.DS_Store`, `Icon`) are
    not looked at. A folder that is missing is named once, not file by file.

    Raises:
        DataError: `root` is neither kind of folder, or may not be entered.
    """
    sums, own = _published(), _own_folder(root)
    try:
        return [
            problem
            for folder, paths in groupby((path for path in sums if path.startswith(own)), _folder_of)
            for problem in _problems_in(root, folder, {path: sums[path] for path in paths}, own)
        ]
    except OSError as error:  # a folder that may not be entered; a file that may not be read is a Problem
        raise DataError(f"cannot look into {error.filename}: {error.strerror}; make it readable") from error


def require_published(root: Path) -> int:
    """How many files `verify(root)` looked for, all of them as published: 4,073 in the folder with both sets.

    Raises:
        DataError: something differs, and what comes first; or as `verify` does.
    """
    problems, own = verify(root), _own_folder(root)
    if not problems:
        sums = _published()
        return sum(path.startswith(own) and f"{path}.gz" not in sums for path in sums)
    shown = "; ".join(str(problem) for problem in problems[:3])
    rest = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    noun = "difference" if len(problems) == 1 else "differences"
    # A set's own folder is fetched into the folder around it; "." does not say which one that is.
    home = (root if root.name else root.resolve()).parent if own else root
    endovis = own == "endovis/" or (
        (root / "endovis").is_dir() and any(problem.path.startswith("endovis") for problem in problems)
    )
    unpacked = any(problem.path.endswith("-ubyte") for problem in problems)
    raise DataError(
        f"{root}: {len(problems)} {noun} from the published data: {shown}{rest}; to mend",
        "replace" if endovis or unpacked else "fetch",
        home,
    )


def identify(files: Iterable[Path], base: Path) -> tuple[str, list[str]]:
    """What was read, from one reading of each file: its fingerprint, and which paths are not as published.

    The fingerprint, 16 hex digits, depends on the files' contents and their paths below `base`, not on their order. Not
    as published are files with another content, files that were not published, and published ones of the same folders
    that are missing, with their paths below the folder of both sets. An unpacked file stands for the packed one.

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

    found = {}
    for path, value in read.items():
        first = path.split("/")[0]
        own = "" if first in _MARKS else "fashion_mnist/" if first == "FashionMNIST" else "endovis/"
        found[own + path] = value
    sums, folders, others = _published(), {_folder_of(path) for path in found}, []
    for path, expected in sums.items():
        if _folder_of(path) not in folders:
            continue
        if path in found:
            if found[path] != expected:
                others.append(path)
        elif f"{path}.gz" not in sums and path.removesuffix(".gz") not in found:
            others.append(path)
    return fingerprint, [*others, *(path for path in found if path not in sums)]


def sha256(file: Path) -> str:
    """64 hex digits. Raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _published() -> dict[str, str]:
    """The published sums by path below the folder of both sets, in the order of the list."""
    with gzip.open(PUBLISHED, "rt", encoding="ascii") as lines:
        return {path: value for value, path in (line.split() for line in lines)}


def _folder_of(path: str) -> str:
    """The folder that a file belongs to: for a numbered sample, the one with the numbers."""
    return re.sub(r"(/\d+)?/[^/]+$", "", path)


def _own_folder(root: Path) -> str:
    """Which part of the list `root` holds: "endovis/" or "fashion_mnist/" for a set's own folder, "" for all of it."""
    if any((root / name).is_dir() for name in _MARKS):
        return ""
    for name, mark in _MARKS.items():
        if (root / mark).exists():
            return f"{name}/"
    raise DataError(
        f"no data in {root}: expected the folders endovis/ and fashion_mnist/, or a mapping.json, "
        "or FashionMNIST/raw; to get it",
        "fetch",
        root,
    )


def _problems_in(root: Path, folder: str, sums: dict[str, str], own: str) -> Iterator[Problem]:
    """`sums` are those of the folder; paths in the list begin with `own`, those below `root` do not."""
    place = f"{folder}/".removeprefix(own).rstrip("/")
    unpacked = {path for path in sums if f"{path}.gz" in sums}  # need not be there; a loader prefers it if it is
    if not (root / place).is_dir():
        yield Problem(place, f"the folder is missing, with {len(sums) - len(unpacked)} files")
        return
    for path, expected in sums.items():
        file = root / path.removeprefix(own)
        if not file.is_file():
            if path not in unpacked:
                yield Problem(path.removeprefix(own), "missing")
            continue
        try:
            found = sha256(file)
        except OSError as error:
            yield Problem(path.removeprefix(own), f"cannot be read: {error.strerror}")
            continue
        if found != expected:
            detail = f"changed: its sha256 begins with {found[:12]}, not {expected[:12]}"
            yield Problem(path.removeprefix(own), detail)
    numbers = {path.split("/")[-2] for path in sums}
    if all(number.isdigit() for number in numbers):  # a loader would train on samples beyond the published ones
        for entry in sorted((root / place).iterdir()):
            if entry.name.isdigit() and entry.name not in numbers and entry.is_dir():
                path = f"{folder}/{entry.name}".removeprefix(own)
                yield Problem(path, "this sample is not among the published ones")
