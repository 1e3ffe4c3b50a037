"""Shards: parts of a plan that different machines carry out, and the merging of their results.

Each shard has its own results folder, in which `shard.json` says which runs it has carried out.
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

_FILE = "shard.json"
_ID = r"^[a-z0-9][a-z0-9-]*$"  # of a configuration, as in a record's schema


class _ShardFile(Struct):
    """The content of `shard.json`, which is not trusted: ids are checked before they become parts of paths."""

    number: int
    count: int
    profile: str
    runs: list[tuple[Annotated[str, Meta(pattern=_ID)], int]]


def parse_shard(text: str) -> Shard:
    """Parse "2/4", the second of four shards.

    Raises:
        UsageError: the text is not valid.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard is {shortened(text)!r}; expected I/N with I from 1 to N, for instance 2/4")
    return Shard(int(found[1]), int(found[2]))


def write_shard_file(results: Path, shard: Shard, profile: str, runs: Sequence[PlannedRun]) -> None:
    """Write `shard.json` when the runs are done: a shard that is refused must not replace that of another one.

    Raises:
        OSError: the folder cannot be written.
    """
    content = _ShardFile(shard.number, shard.count, profile, [(entry.id, seed) for entry, seed in runs])
    write_atomically(results / _FILE, msgspec.json.format(msgspec.json.encode(content), indent=1).decode() + "\n")


def merge(folders: Sequence[Path], results: Path) -> None:
    """Copy the records and samples of all shards into one results folder.

    Raises:
        UsageError: ``results`` is one of the folders.
        DataError: a folder is not a shard's, a shard is missing or given twice, a shard lacks a record, or ``results``
            contains other records.
        OSError: the folder cannot be written.
    """
    if results.resolve() in {folder.resolve() for folder in folders}:
        raise UsageError(f"{results} is one of the shards; merge into another folder: --results FOLDER")
    shards = [(folder, _read_shard_file(folder)) for folder in folders]
    kinds = sorted({(shard.count, shard.profile) for _, shard in shards})
    if len(kinds) > 1:
        named = ", ".join(f"{count} shards of the profile {profile!r}" for count, profile in kinds)
        raise DataError(f"the shards belong to different runs: {named}")
    count = kinds[0][0]
    numbers = [shard.number for _, shard in shards]
    wrong = [f"{number}/{count}" for number in range(1, count + 1) if numbers.count(number) != 1]
    if wrong:
        raise DataError(f"missing or given twice: shard {', '.join(wrong)}; expected each of the {count} shards once")
    records = [(shard, record_path(folder, *run)) for folder, shard in shards for run in shard.runs]
    for shard, path in records:
        if not path.is_file() or path.is_symlink():
            raise DataError(f"shard {shard.number}/{count} lacks a record: {path}")
        read_record(path)
    others = sorted({path.name for path in record_files(results)} - {path.name for _, path in records})
    if others:
        raise DataError(f"{results} contains {others[0]}, which belongs to no shard; merge into another folder")
    for _, record in records:
        for path in (record, record.parents[1] / "samples" / f"{record.stem}.npz"):
            if path.is_file() and not path.is_symlink():  # a link could point to any file on this machine
                with atomic_write(results / path.parent.name / path.name) as temporary:
                    shutil.copyfile(path, temporary)


def _read_shard_file(folder: Path) -> _ShardFile:
    try:
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=_ShardFile)
    except (OSError, ValueError, RecursionError) as error:  # msgspec raises ValueErrors
        raise DataError(
            f"{folder} is not a finished shard ({error}); expected {_FILE}, which `run --shard I/N` writes at its end"
        ) from error
