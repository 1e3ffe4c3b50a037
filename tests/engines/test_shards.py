"""Shards: every run is in exactly one, runs that depend on each other stay together, and results can be merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.engines.shards import merge, write_shard_file
from benchmarks.results.records import read_records, write_record
from benchmarks.runs.plan import Shard, part
from benchmarks.suite import SUITE
from hw6core.errors import DataError, UsageError
from tests import finished_runs
from tests.record_factory import make_record

ALL = list(SUITE.values())


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 12, 20])
def test_every_run_is_in_exactly_one_shard_after_its_requirements(count: int) -> None:
    parts = [part(ALL, [0, 1, 2], Shard(number, count)) for number in range(1, count + 1)]
    everything = [(entry.id, seed) for runs in parts for entry, seed in runs]
    assert sorted(everything) == sorted((name, seed) for name in SUITE for seed in (0, 1, 2))
    for runs in parts:
        seen: set[tuple[str, int]] = set()
        for entry, seed in runs:
            assert all((name, seed) in seen for name in entry.requires)
            seen.add((entry.id, seed))
    sizes = [len(runs) for runs in parts]
    assert max(sizes) - min(sizes) <= 3  # units have one to three runs


def test_a_shard_that_is_refused_leaves_the_file_of_the_first_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise UsageError("the folder is in use by process 1")

    finished_runs.install(monkeypatch)
    write_record(tmp_path, make_record("seg-baseline"))
    command = ["run", "--device", "cpu", "--data", "synthetic", "--results", str(tmp_path), "seg-baseline", "--shard"]
    assert main([*command, "1/2"]) == 1  # the record is of another profile
    first = (tmp_path / "shard.json").read_text(encoding="utf-8")
    assert json.loads(first) == {"number": 1, "count": 2, "profile": "quick", "runs": [["seg-baseline", 0]]}
    monkeypatch.setattr(finished_runs.FinishedRunner, "run_all", refuse)
    assert main([*command, "2/2"]) == 2
    assert (tmp_path / "shard.json").read_text(encoding="utf-8") == first


def test_a_run_that_others_only_require_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_runs.install(monkeypatch)
    quick: dict[str, Any] = {"profile": "quick", "data": {"kind": "synthetic"}}
    write_record(tmp_path, make_record("colorization", metrics={"validation_mse": 0.1}, **quick))
    write_record(tmp_path, make_record("seg-pretrained", **quick))
    command = ["run", "--device", "cpu", "--data", "synthetic", "--results", str(tmp_path), "seg-pretrained"]
    assert main(command) == main([*command, "--shard", "1/1"]) == 0


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """The whole suite with seed 0 in three shards."""
    folders = [tmp_path / f"shard{number}" for number in (1, 2, 3)]
    for number, folder in enumerate(folders, 1):
        runs = part(ALL, [0], Shard(number, 3))
        write_shard_file(folder, Shard(number, 3), "full", runs)
        for entry, seed in runs:
            write_record(folder, make_record(entry.id, seed))
            (folder / "samples").mkdir(exist_ok=True)
            (folder / "samples" / f"{entry.id}-seed{seed}.npz").write_bytes(b"samples")
    return folders


def test_merged_shards_give_the_same_report(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.report.markdown.write_figures", finished_runs.no_figures)
    for name in SUITE:
        write_record(tmp_path / "whole", make_record(name))
    assert main(["report", "--results", str(tmp_path / "whole"), "--seeds", "0"]) == 0
    assert main(["report", "--results", str(tmp_path / "merged"), "--seeds", "0", "--merge", *map(str, shards)]) == 0
    whole, merged = ((tmp_path / name / "RESULTS.md").read_text(encoding="utf-8") for name in ("whole", "merged"))
    assert merged == whole
    assert len(list((tmp_path / "merged" / "samples").iterdir())) == len(SUITE)
    merge(shards, tmp_path / "merged")  # again
    assert {record.configuration for record in read_records(tmp_path / "merged")} == set(SUITE)


def test_a_damaged_record_is_found_before_anything_is_merged(shards: list[Path], tmp_path: Path) -> None:
    (shards[1] / "records" / "seg-pretrained-seed0.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"seg-pretrained-seed0\.json is not a readable record"):
        merge(shards, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_incomplete_or_inconsistent_shards_are_not_merged(shards: list[Path], tmp_path: Path) -> None:
    results = tmp_path / "merged"
    for number in (1, 2, 3):
        with pytest.raises(DataError, match=f"missing or given twice: shard {number}/3; expected each of the 3 "):
            merge([folder for folder in shards if folder != shards[number - 1]], results)
    with pytest.raises(DataError, match="given twice: shard 1/3"):
        merge([*shards, shards[0]], results)
    with pytest.raises(DataError, match=r"is not a finished shard .*expected shard.json"):
        merge([*shards, tmp_path], results)
    (shards[2] / "records" / "seg-baseline-seed0.json").unlink()
    with pytest.raises(DataError, match=r"shard 3/3 lacks a record: .*seg-baseline-seed0\.json"):
        merge(shards, results)
    for count, profile, found in (
        (4, "full", "3 shards of the profile 'full', 4 shards of the profile 'full'"),
        (3, "quick", "3 shards of the profile 'full', 3 shards of the profile 'quick'"),
    ):
        write_shard_file(shards[1], Shard(2, count), profile, [])
        with pytest.raises(DataError, match=f"the shards belong to different runs: {found}"):
            merge(shards, results)
    assert not results.exists()


def test_a_folder_with_other_records_is_not_merged_into(shards: list[Path], tmp_path: Path) -> None:
    write_record(tmp_path / "merged", make_record("seg-baseline", 7))
    with pytest.raises(DataError, match=r"seg-baseline-seed7\.json, which belongs to no shard; merge into another"):
        merge(shards, tmp_path / "merged")
    assert len(read_records(tmp_path / "merged")) == 1
