"""Is the data on disk the data that the results speak of?

The package carries the SHA-256 sums of the 4,073 published files in `checksums/course.txt`, one line a folder:

    folder  count  digest  files  prefixes

`files` spells the names out (`mapping.json`) or, for numbered samples, as a range (`0..299/input.jpg,mask.png` stands
for `0/0_input.jpg`, `0/0_mask.png`, `1/1_input.jpg`, ...). `digest` is the SHA-256 of the lines `sha256  path`, sorted
by path: it decides. `prefixes` holds the first six bytes of each file's own sum, in the same order, as base64: they
name the file that is damaged.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import re
import shlex
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from hw6core.download import Progress
from hw6core.errors import DataError, UsageError

COURSE_CHECKSUMS = Path(__file__).parent / "checksums" / "course.txt"

# What a set's own folder holds, by which it is told from the folder with both sets.
_MARKS = {"endovis": "mapping.json", "fashion_mnist": "FashionMNIST/raw"}

# The published packed files' unpacked contents: how their SHA-256 sums begin.
_UNPACKED = {
    "t10k-images-idx3-ubyte.gz": "5b4141f0afba",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd",
    "train-images-idx3-ubyte.gz": "c59f468a2f67",
    "train-labels-idx1-ubyte.gz": "bad3541b69d9",
}

_CHUNK = 1 << 20
_PREFIX_BYTES = 6
_FINGERPRINT_DIGITS = 16
_NUMBERED = re.compile(r"(\d+)\.\.(\d+)/(.+)")
_SAMPLE = re.compile(r"(\d+)/\1_([^/]+)")  # below its folder
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S+)")
_HEADER = """\
# SHA-256 sums of the published data; hw6core/data/verify.py explains the columns and writes this file.
# folder count digest files prefixes
"""


@dataclass(frozen=True)
class Problem:
    """One thing that is not as published: `path` is relative to the folder that was verified, in posix form."""

    path: str
    kind: Literal["missing", "changed", "unexpected", "unreadable"]
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


@dataclass(frozen=True)
class _Group:
    """One line of the list: the files of one folder, sorted by path."""

    folder: str
    names: tuple[str, ...]
    prefixes: tuple[bytes, ...]
    digest: str
    numbers: range | None  # the samples' numbers, None where the names are spelled out


# ---------------------------------------------------------------------------------------------------------------------
# Verifying


def verify(root: Path, checksums: Path = COURSE_CHECKSUMS, progress: Progress | None = None) -> list[Problem]:
    """Compare the data in `root` with the published sums and return what differs, empty if nothing does.

    `root` is the folder with both sets (then both must be there) or a set's own folder. Missing, changed and unreadable
    files and samples with a number that was not published are named; other files lying about (`.DS_Store`, `Icon`) are
    not looked at. A folder that is missing is named once, not file by file.
    Raises DataError if `root` is neither kind of folder or the list cannot be used.
    """
    groups = _read_groups(checksums)
    try:
        located = _locate(root, groups)
        count = _byte_counter(root, located, progress)
        return [problem for place, group in located for problem in _check_group(root, place, group, count)]
    except OSError as error:  # a folder that may not be entered; a file that may not be read is a Problem
        raise DataError(f"cannot look into {error.filename}: {error.strerror}; make it readable") from error


def expected_count(root: Path, checksums: Path = COURSE_CHECKSUMS) -> int:
    """How many files `verify(root)` looks for: 4,073 in the folder with both published sets.

    Raises DataError where `verify` does.
    """
    return sum(len(group.names) for _, group in _locate(root, _read_groups(checksums)))


def summary(problems: list[Problem], root: Path, limit: int = 3) -> str:
    """One line for an error message: the first problems, how many more there are, and the command that mends them."""
    shown = "; ".join(str(problem) for problem in problems[:limit])
    rest = f"; and {len(problems) - limit} more" if len(problems) > limit else ""
    noun = "difference" if len(problems) == 1 else "differences"
    return f"{root}: {len(problems)} {noun} from the published data: {shown}{rest}; to mend: {_mend(root, problems)}"


def fingerprint(files: Iterable[Path], base: Path) -> str:
    """16 hex digits that identify these files' contents and their paths below `base`, in whatever order they come.

    Raises UsageError for no files or a file outside `base`, DataError for a file that cannot be read.
    """
    return identify(files, base)[0]


def identify(files: Iterable[Path], base: Path, checksums: Path = COURSE_CHECKSUMS) -> tuple[str, list[str]]:
    """The fingerprint of files that were read, and which paths are not as published, from one reading of each.

    Such are files with another content, files that were not published, and published ones of the same folders that
    are missing, with their paths below the folder of both sets. An unpacked file stands for the packed one.
    Raises what `fingerprint` raises.
    """
    sums: dict[str, str] = {}
    for file in files:
        if not file.is_relative_to(base):
            raise UsageError(f"cannot fingerprint {file}: it is not below {base}")
        try:
            sums[file.relative_to(base).as_posix()] = _sha256(file)
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror}; {_fetch_command(base)}") from error
    if not sums:
        raise UsageError(f"nothing to fingerprint: no files given below {base}")
    return _digest(sums)[:_FINGERPRINT_DIGITS], list(_unpublished(sums, _read_groups(checksums)))


def _unpublished(sums: Mapping[str, str], groups: list[_Group]) -> Iterator[str]:
    read = {_below_both_sets(path): value for path, value in sums.items()}
    folders = {_folder_of(path) for path in read}
    for group in groups:
        if group.folder not in folders:
            continue
        for name, prefix in zip(group.names, group.prefixes, strict=True):
            path = f"{group.folder}/{name}"
            unpacked = path.removesuffix(".gz")
            if path in read:
                shown, start = path, prefix.hex()
            else:
                shown, start = (unpacked, _UNPACKED.get(name, "none")) if unpacked in read else (path, "none")
            if not read.pop(shown, "").startswith(start):
                yield shown
    yield from read


def _below_both_sets(path: str) -> str:
    """A path below the folder of both sets, of one that may be below a set's own."""
    first = path.split("/")[0]
    return path if first in _MARKS else f"{'fashion_mnist' if first == 'FashionMNIST' else 'endovis'}/{path}"


def _locate(root: Path, groups: list[_Group]) -> list[tuple[str, _Group]]:
    """Pair each group that belongs in `root` with its folder there, relative to `root`."""
    if _holds_sets(root):
        return [(group.folder, group) for group in groups]
    for name, mark in _MARKS.items():
        if (root / mark).exists():
            own = [group for group in groups if PurePosixPath(group.folder).parts[0] == name]
            return [(PurePosixPath(group.folder).relative_to(name).as_posix(), group) for group in own]
    raise DataError(
        f"no data in {root}: expected the folders endovis/ and fashion_mnist/, or a mapping.json, "
        f"or FashionMNIST/raw; to get it: {_fetch_command(root)}"
    )


def _holds_sets(root: Path) -> bool:
    return any((root / name).is_dir() for name in _MARKS)


def _byte_counter(
    root: Path, located: list[tuple[str, _Group]], progress: Progress | None
) -> Callable[[Path], None] | None:
    """A function to call with each file that has been read; None if nobody listens, to save looking up the sizes."""
    if progress is None:
        return None
    files = [root / place / name for place, group in located for name in group.names]
    sizes = {file: file.stat().st_size for file in files if file.is_file()}
    total = sum(sizes.values())
    done = 0

    def count(file: Path) -> None:
        nonlocal done
        done += sizes.get(file, 0)
        progress(done, total)

    return count


def _check_group(root: Path, place: str, group: _Group, count: Callable[[Path], None] | None) -> Iterator[Problem]:
    folder = root / place
    if not folder.is_dir():
        yield Problem(place, "missing", f"the folder is missing, with {len(group.names)} files")
        return
    sums: dict[str, str] = {}
    named = False
    for name, prefix in zip(group.names, group.prefixes, strict=True):
        shown = (PurePosixPath(place) / name).as_posix()
        result = _check_file(folder / name, shown, prefix)
        if isinstance(result, Problem):
            named = True
            yield result
        else:
            sums[f"{group.folder}/{name}"] = result
            yield from _check_unpacked(folder / name, shown)
        if count is not None:
            count(folder / name)
    if not named and _digest(sums) != group.digest:
        # The prefixes alone would let a forged file pass that agrees in the first six bytes of its sum.
        yield Problem(place, "changed", "a file differs from the published one, though no file can be named")
    yield from _unexpected(folder, place, group)


def _check_file(file: Path, shown: str, prefix: bytes) -> str | Problem:
    """The file's sum if it begins as published, otherwise what is wrong."""
    if not file.is_file():
        unpacked = file.with_suffix("")
        if file.suffix == ".gz" and unpacked.is_file():
            detail = f"missing: only the unpacked {unpacked.name} is there, the .gz itself is needed"
            return Problem(shown, "missing", detail)
        return Problem(shown, "missing", "missing")
    try:
        found = _sha256(file)
    except OSError as error:
        return Problem(shown, "unreadable", f"cannot be read: {error.strerror}")
    if bytes.fromhex(found)[:_PREFIX_BYTES] != prefix:
        detail = f"changed: its sha256 begins with {found[: 2 * _PREFIX_BYTES]}, not {prefix.hex()}"
        return Problem(shown, "changed", detail)
    return found


def _check_unpacked(file: Path, shown: str) -> Iterator[Problem]:
    """An unpacked copy beside an intact .gz: the loader prefers it, so it must hold the same."""
    if file.suffix == ".gz" and unpacked_differs(file):
        detail = f"changed: it is not what {file.name} beside it unpacks to"
        yield Problem(shown.removesuffix(".gz"), "changed", detail)


def unpacked_differs(packed: Path) -> bool:
    """Whether beside a .gz file lies a file of that name without .gz, but with another content."""
    unpacked = packed.with_suffix("")
    if not unpacked.is_file():
        return False
    try:
        with gzip.open(packed) as inflated, unpacked.open("rb") as plain:
            while chunk := plain.read(_CHUNK):
                if inflated.read(len(chunk)) != chunk:
                    return True
            return inflated.read(1) != b""  # no more is inflated than there is to compare with
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return True


def _unexpected(folder: Path, place: str, group: _Group) -> Iterator[Problem]:
    """Samples beyond the published numbers: a loader would train on them."""
    if group.numbers is None:
        return
    known = {str(number) for number in group.numbers}
    for entry in sorted(folder.iterdir()):
        if entry.name.isdigit() and entry.name not in known and entry.is_dir():
            shown = (PurePosixPath(place) / entry.name).as_posix()
            yield Problem(shown, "unexpected", "this sample is not among the published ones")


def _mend(root: Path, problems: list[Problem]) -> str:
    """The command that gets the data again; what is there and not as published is replaced only with --force."""
    if not _holds_sets(root):
        # A set's own folder is fetched into the folder around it; "." does not say which one that is.
        home = (root if root.name else root.resolve()).parent
        endovis = (root / _MARKS["endovis"]).exists()
    else:
        home = root
        endovis = (root / "endovis").is_dir() and any(problem.path.startswith("endovis") for problem in problems)
    unpacked = any(problem.kind == "changed" and problem.path.endswith("-ubyte") for problem in problems)
    return _fetch_command(home, force=endovis or unpacked)


def _fetch_command(root: Path, force: bool = False) -> str:
    return f"python -m benchmarks data fetch --root {shlex.quote(str(root))}" + (" --force" if force else "")


# ---------------------------------------------------------------------------------------------------------------------
# The list


def write_checksums(sums_file: Path, destination: Path) -> None:
    """Turn the output of `sha256sum` over the folder with both sets into the list that `verify` reads.

    Raises DataError if the file is unreadable, empty, or has a line that is not `sha256  path` with a relative path
    without blanks, or the same path twice, or if the list cannot be written.
    """
    sums = _read_sums(sums_file)
    folders: dict[str, dict[str, str]] = {}
    for path, value in sums.items():
        folders.setdefault(_folder_of(path), {})[path] = value
    lines = [_format_group(folder, members) for folder, members in sorted(folders.items())]
    try:
        _write_atomically(destination, _HEADER + "".join(line + "\n" for line in lines))
    except OSError as error:
        raise DataError(f"cannot write {destination}: {error.strerror}") from error


def _folder_of(path: str) -> str:
    """The folder that a file is listed under: for a numbered sample, the one with the numbers."""
    parent, sample = PurePosixPath(path).parent, "/".join(path.split("/")[-2:])
    is_sample = _SAMPLE.fullmatch(sample) is not None and len(parent.parts) > 1
    return (parent.parent if is_sample else parent).as_posix()


def _read_sums(sums_file: Path) -> dict[str, str]:
    try:
        text = sums_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {sums_file}: {error}; expected the output of sha256sum") from error
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _SUM_LINE.fullmatch(line)
        if match is None or not _is_plain_path(match[2]):
            raise DataError(f"{sums_file}:{number}: expected 'sha256  folder/file', found {line[:100]!r}")
        if match[2] in sums:
            raise DataError(f"{sums_file}:{number}: {match[2]} is listed twice")
        sums[match[2]] = match[1]
    if not sums:
        raise DataError(f"{sums_file} is empty: expected the output of sha256sum")
    return sums


def _is_plain_path(path: str) -> bool:
    """Whether the path is relative, has a folder, and holds none of the list's own signs."""
    parts = path.split("/")
    clean = path.isascii() and "," not in path and ".." not in path
    return clean and len(parts) > 1 and not any(part in ("", ".") for part in parts)


def _format_group(folder: str, sums: Mapping[str, str]) -> str:
    paths = sorted(sums)
    names = [path.removeprefix(folder + "/") for path in paths]
    prefixes = b"".join(bytes.fromhex(sums[path])[:_PREFIX_BYTES] for path in paths)
    files = _as_range(names) or ",".join(names)
    return f"{folder} {len(names)} {_digest(sums)} {files} {base64.b64encode(prefixes).decode('ascii')}"


def _as_range(names: list[str]) -> str | None:
    """`0..299/input.jpg,mask.png` if exactly these names are numbered samples without a gap, else None."""
    matches = [match for match in map(_SAMPLE.fullmatch, names) if match]
    numbers = sorted({int(match[1]) for match in matches})
    suffixes = sorted({match[2] for match in matches})
    if not numbers or sorted(names) != _numbered_names(range(numbers[0], numbers[-1] + 1), suffixes):
        return None
    return f"{numbers[0]}..{numbers[-1]}/{','.join(suffixes)}"


def _numbered_names(numbers: range, suffixes: Iterable[str]) -> list[str]:
    return sorted(f"{number}/{number}_{suffix}" for suffix in suffixes for number in numbers)


def _read_groups(checksums: Path) -> list[_Group]:
    try:
        lines = checksums.read_text(encoding="ascii").splitlines()
        groups = [_parse_group(line) for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError) as error:
        raise DataError(f"cannot use the checksum list {checksums}: {error}; reinstall the package") from error
    if not groups:
        raise DataError(f"the checksum list {checksums} is empty; reinstall the package")
    return groups


def _parse_group(line: str) -> _Group:
    """Raises ValueError for a line that does not add up."""
    folder, count_text, digest, files, encoded = line.split(" ")
    count = int(count_text)
    numbers, names = _parse_files(files, count)
    try:
        joined = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the sums of {folder} are not base64") from error
    if len(names) != count or len(joined) != count * _PREFIX_BYTES:
        raise ValueError(f"{folder} announces {count} files but lists {len(names)} with {len(joined)} bytes of sums")
    prefixes = tuple(joined[start : start + _PREFIX_BYTES] for start in range(0, len(joined), _PREFIX_BYTES))
    return _Group(folder, tuple(names), prefixes, digest, numbers)


def _parse_files(files: str, count: int) -> tuple[range | None, list[str]]:
    match = _NUMBERED.fullmatch(files)
    if match is None:
        return None, files.split(",")
    numbers = range(int(match[1]), int(match[2]) + 1)
    suffixes = match[3].split(",")
    if len(numbers) * len(suffixes) != count:  # before a mistyped range fills the memory
        raise ValueError(f"{files} does not make {count} files")
    return numbers, _numbered_names(numbers, suffixes)


def _digest(sums: Mapping[str, str]) -> str:
    """SHA-256 of the lines that `sha256sum` prints for these paths, sorted by path."""
    lines = "".join(f"{sums[path]}  {path}\n" for path in sorted(sums))
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_atomically(destination: Path, text: str) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".checksums-", dir=destination.parent) as scratch:
        written = Path(scratch) / destination.name
        written.write_text(text, encoding="ascii")
        written.replace(destination)
