"""Is the data on disk the data that the results speak of?

`SHA256SUMS.gz`, beside this file, lists the 4,073 published files as `sha256sum` does, folder by folder, and what the
four packed ones of Fashion-MNIST unpack to. The same question without this package, in the folder of both sets:
`zcat SHA256SUMS.gz | sha256sum --check --ignore-missing --quiet`.
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
    sums = _published(root)
    if not sums:
        raise DataError(
            f"no data in {root}: expected the folders endovis/ and fashion_mnist/, or a mapping.json, "
            "or FashionMNIST/raw; to get it",
            "fetch",
            root,
        )
    try:
        return [
            problem
            for folder, paths in groupby(sums, _folder_of)
            for problem in _problems_in(root, folder, {path: sums[path] for path in paths})
        ]
    except OSError as error:  # a folder that may not be entered; a file that may not be read is a Problem
        raise DataError(f"cannot look into {error.filename}: {error.strerror}; make it readable") from error


def require_published(root: Path) -> int:
    """How many files `verify(root)` looked for, all of them as published: 4,073 in the folder with both sets.

    Raises:
        DataError: something differs, and what comes first; or as `verify` does.
    """
    problems, sums = verify(root), _published(root)
    if not problems:
        return sum(f"{path}.gz" not in sums for path in sums)
    shown = "; ".join(str(problem) for problem in problems[:3])
    rest = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    noun = "difference" if len(problems) == 1 else "differences"
    # A set's own folder is fetched into the folder around it; "." does not say which one that is.
    home = root if _holds_sets(root) else (root if root.name else root.resolve()).parent
    # What is there and intact is kept without force, an EndoVis set in any state.
    endovis = (root / "mapping.json").exists() or (
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
    that are missing. An unpacked file stands for the packed one.

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

    found = {}  # by the list's paths: each set may lie in `base` itself or in the folder that has its name
    for path, value in read.items():
        first = path.split("/")[0]
        own = "" if first in SETS else "fashion_mnist/" if first == "FashionMNIST" else "endovis/"
        found[own + path] = value
    sums, folders, others = _sums(), {_folder_of(path) for path in found}, []
    for path, expected in sums.items():
        if path in found:
            if found[path] != expected:
                others.append(path)
        elif _folder_of(path) in folders and f"{path}.gz" not in sums and path.removesuffix(".gz") not in found:
            others.append(path)
    return fingerprint, [*others, *(path for path in found if path not in sums)]


def sha256(file: Path) -> str:
    """64 hex digits. Raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _holds_sets(root: Path) -> bool:
    return any((root / name).is_dir() for name in SETS)


def _sums() -> dict[str, str]:
    """What was published, by path below the folder of both sets, in the order of the list."""
    with gzip.open(PUBLISHED, "rt", encoding="ascii") as lines:
        return {path: value for value, path in (line.split() for line in lines)}


def _published(root: Path) -> dict[str, str]:
    """The sums of what was published, in the order of the list, by path below `root`: the folder of both sets, or the
    one of a set, which holds a part of the list; nothing for another folder."""
    own = None if _holds_sets(root) else next((name for name, mark in SETS.items() if (root / mark).exists()), "?")
    if own is None:
        return _sums()
    return {path.removeprefix(f"{own}/"): value for path, value in _sums().items() if path.startswith(f"{own}/")}


def _folder_of(path: str) -> str:
    """The folder that a file belongs to: for a numbered sample, the one with the numbers."""
    return re.sub(r"(^|/)\d+$", "", path.rpartition("/")[0])


def _problems_in(root: Path, folder: str, sums: Mapping[str, str]) -> Iterator[Problem]:
    """`sums` are those of the folder, by path below `root`."""
    unpacked = {path for path in sums if f"{path}.gz" in sums}  # need not be there; a loader prefers it if it is
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
            yield Problem(path, f"changed: its sha256 begins with {found[:12]}, not {expected[:12]}")
    numbers = {Path(path).parent.name for path in sums}
    if all(number.isdigit() for number in numbers):  # a loader would train on samples beyond the published ones
        for entry in sorted((root / folder).iterdir()):
            if entry.name.isdigit() and entry.name not in numbers and entry.is_dir():
                yield Problem(f"{folder}/{entry.name}", "this sample is not among the published ones")
