"""Parts of a plan that machines carry out apart, and the results put together again.

A shard leaves its records in a folder of its own beside `shard.json`, which says what it was asked for.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from benchmarks.options import shortened
from benchmarks.results.records import read_record, record_files, record_path, write_atomically
from benchmarks.runs.plan import PlannedRun, Shard
from hw6core.errors import DataError, UsageError
from hw6core.files import atomic_write

_NOTE = "shard.json"
_MOST_SHARDS = 10_000
_ID = r"^[a-z0-9][a-z0-9-]*$"  # of a configuration, as in a record's schema


class _Note(Struct):
    """What a folder holds; it may come from anywhere, so names are checked before they become parts of paths."""

    number: Annotated[int, Meta(ge=1)]
    count: Annotated[int, Meta(ge=1, le=_MOST_SHARDS)]
    profile: str
    runs: list[tuple[Annotated[str, Meta(pattern=_ID)], int]]

    def __post_init__(self) -> None:
        if self.number > self.count:
            raise ValueError(f"shard {self.number} of {self.count}")


def parse_shard(text: str) -> Shard:
    """ "2/4" -> the second of four.

    Raises:
        UsageError: it is no such thing.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard is {shortened(text)!r}; expected I/N with I from 1 to N, for instance 2/4")
    return Shard(int(found[1]), int(found[2]))


def note_shard(results: Path, shard: Shard, profile: str, runs: Sequence[PlannedRun]) -> None:
    """Leave word of what this folder holds.

    Raises:
        OSError: the folder cannot be written.
    """
    note = _Note(shard.number, shard.count, profile, [(entry.id, seed) for entry, seed in runs])
    write_atomically(results / _NOTE, msgspec.json.format(msgspec.json.encode(note), indent=1).decode() + "\n")


def merge(folders: Sequence[Path], results: Path) -> None:
    """Put the records and samples of all shards into one results folder.

    Raises:
        UsageError: ``results`` is one of the folders.
        DataError: a folder is no shard's, a shard is missing or given twice, a shard lacks a record, or ``results``
            holds records of something else.
        OSError: the folder cannot be written.
    """
    if results.resolve() in {folder.resolve() for folder in folders}:
        raise UsageError(f"{results} is one of the shards; name another folder to merge into")
    notes = [(folder, _note(folder)) for folder in folders]
    counts = {note.count for _, note in notes}
    profiles = {note.profile for _, note in notes}
    if len(counts) != 1 or len(profiles) != 1:
        raise DataError(f"these are shards of different runs: of {sorted(counts)} parts, profiles {sorted(profiles)}")
    (count,) = counts
    numbers = [note.number for _, note in notes]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    missing = sorted(set(range(1, count + 1)) - set(numbers))
    if twice or missing:
        what, which = ("given twice", twice) if twice else ("missing", missing)
        named = ", ".join(f"{number}/{count}" for number in which)
        raise DataError(f"{what}: shard {named}; expected each of {count} once")
    for folder, note in notes:
        for name, seed in note.runs:
            path = record_path(folder, name, seed)
            if not path.is_file() or path.is_symlink():
                raise DataError(f"shard {note.number}/{count} in {folder} lacks the record of {name} seed {seed}")
            read_record(path)
    merged = {record_path(results, name, seed).name for _, note in notes for name, seed in note.runs}
    others = sorted({path.name for path in record_files(results)} - merged)
    if others:
        raise DataError(f"{results} holds {others[0]}, which is of no shard; name another folder to merge into")
    for folder, note in notes:
        for name, seed in note.runs:
            record = record_path(folder, name, seed)
            for path in (record, folder / "samples" / f"{record.stem}.npz"):
                if path.is_file() and not path.is_symlink():  # a link would bring a file of this machine
                    with atomic_write(results / path.parent.name / path.name) as temporary:
                        shutil.copyfile(path, temporary)


def _note(folder: Path) -> _Note:
    try:
        return msgspec.json.decode((folder / _NOTE).read_bytes(), type=_Note)
    except (OSError, ValueError, RecursionError) as error:  # msgspec's is a ValueError
        raise DataError(f"{folder} holds no shard ({error}); expected {_NOTE} of `run --shard I/N`") from error
