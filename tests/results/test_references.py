"""Reference populations: made of records with one key, and used to judge new runs that fit."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.report.exports import junit, openmetrics
from benchmarks.report.markdown import summary
from benchmarks.results import references
from benchmarks.results.comparison import compare
from benchmarks.results.gates import Asked, Judgement, judge
from benchmarks.results.records import Record
from benchmarks.results.references import (
    Reference,
    make_reference,
    read_reference,
    read_references,
    standings,
    verdict_on,
)
from benchmarks.suite import SUITE, Gate
from hw6core.errors import DataError, UsageError
from tests.drawings import report_lines
from tests.record_factory import make_record, write_records

SCRATCH = SUITE["vgg-scratch"]


def runs(values: Sequence[float], first: int = 0, **changes: Any) -> list[Record]:
    return [
        make_record("vgg-scratch", seed, metrics={"accuracy": value}, **changes)
        for seed, value in enumerate(values, first)
    ]


def reference_of(folder: Path, records: Sequence[Record]) -> Reference:
    return read_reference(make_reference([write_records(folder, records)], folder / "reference.json")[0])


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    """Twenty runs: mean 0.93, deviation 0.0046."""
    values = [0.93 + (seed % 5 - 2) * 0.003 + (seed % 2 - 0.5) * 0.003 for seed in range(20)]
    return reference_of(tmp_path / "many", runs(values))


def judged(records: Sequence[Record], references: Sequence[Reference], **options: Any) -> Judgement:
    seeds = [record.seed for record in records]
    return judge(records, Asked([SCRATCH], seeds, **options), references)


def test_a_reference_holds_every_seed_of_every_configuration_and_where_it_was_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = {"device_name": "Example GPU", "machine": {"started_at": "2026-11-27T14:00:00+00:00"}}
    other = {"device_name": "Other GPU", "torch": "2.14.1", "git_commit": "0123abc"}
    first = write_records(tmp_path / "first", [*runs([0.90, 0.91], environment=there), make_record("seg-baseline")])
    second = write_records(tmp_path / "second", runs([0.92], 7, environment=other))
    path = tmp_path / "new" / "reference.json"
    assert main(["reference", "make", str(first), str(second), "--output", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "seg-baseline: seed 0; full, real data, bfloat16, weights random",
        "vgg-scratch: seeds 0, 1, 7; full, real data, bfloat16, weights random",
        str(path),
    ]
    populations = read_reference(path).populations
    assert populations["seg-baseline"].values("present_dice") == {0: 0.85}
    scratch = populations["vgg-scratch"]
    assert scratch.values("accuracy") == {0: 0.90, 1: 0.91, 7: 0.92}
    assert '"accuracy": [0.9, 0.91, 0.92]' in path.read_text()  # a list is a line, so that diffs can be read
    assert [(source.device, source.torch, source.git_commit, source.day, source.seeds) for source in scratch.made] == [
        ("Example GPU", "2.12.0", None, "2026-11-27", [0, 1]),
        ("Other GPU", "2.14.1", "0123abc", None, [7]),
    ]


def test_further_seeds_join_a_reference_and_other_settings_replace_a_population(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    make_reference([write_records(tmp_path / "a", [*runs([0.90, 0.91]), make_record("seg-baseline")])], path)
    make_reference([write_records(tmp_path / "b", runs([0.91, 0.92], 1))], path)  # seed 1 again, with the same result
    populations = read_reference(path).populations
    assert populations["vgg-scratch"].values("accuracy") == {0: 0.90, 1: 0.91, 2: 0.92}
    assert list(populations) == ["seg-baseline", "vgg-scratch"]
    other = write_records(tmp_path / "c", runs([0.94], data={"fingerprint": "ba7816bf"}))
    with pytest.raises(
        UsageError, match=r"new runs of vgg-scratch differ in data from the 3 in .*; choose another file: --output"
    ):
        make_reference([other], path)
    new = write_records(tmp_path / "d", runs([0.95], settings={"work": {"epochs": 1}}))
    _, lines = make_reference([new], path)
    assert lines[0] == "vgg-scratch: replaced 3 runs with different settings or gates"
    assert read_reference(path).populations["vgg-scratch"].values("accuracy") == {0: 0.95}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"profile": "quick"}, "profile, settings"),
        ({"environment": {"precision": "float32"}}, "precision"),
        ({"data": {"fingerprint": "ba7816bf"}}, "data"),
        ({"weights": "stand-in"}, "weights"),
    ],
)
def test_mixed_keys_are_refused(changes: dict[str, Any], what: str, tmp_path: Path) -> None:
    folder = write_records(tmp_path / "mixed", [*runs([0.9]), *runs([0.91], 1, **changes)])
    with pytest.raises(
        UsageError, match=f"vgg-scratch seed 1 differs from the first run in its {what}, which must be the same"
    ):
        make_reference([folder], tmp_path / "reference.json")
    assert not (tmp_path / "reference.json").exists()


def test_data_drawn_on_another_kind_of_processor_fits(tmp_path: Path) -> None:
    drawn = {"kind": "synthetic", "unpublished": None, "drawn": "version 3, seed 0"}

    def drawn_runs(values: Sequence[float], first: int = 0, **changes: str) -> list[Record]:
        return runs(values, first, profile="quick", data=drawn | changes)

    here = tmp_path / "here"
    reference = reference_of(here, drawn_runs([0.90, 0.91, 0.92, 0.93, 0.94], fingerprint="05d22a05"))
    there = drawn_runs([0.92, 0.92, 0.93], 9, fingerprint="b9e64779")
    (entry,), left_out, *_ = standings(there, [reference])
    assert (len(entry.old), left_out) == (5, {})
    assert compare(here, write_records(tmp_path / "there", there)).rows
    assert standings(drawn_runs([0.92], 9, drawn="version 4, seed 0"), [reference])[0] == []


MISSED = "seed 1 missed its gate or its floor (accuracy > 0.85), but a reference must consist of good runs"


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([runs([0.93, 0.2])], MISSED),
        ([runs([0.93, 0.853])], MISSED),  # the floor is 0.8532
        ([runs([0.90]), runs([0.91])], "vgg-scratch seed 0 occurs twice with different results; keep one"),
        ([runs([0.9], status="error", message="lost")], "no completed run in"),
    ],
)
def test_bad_contradictory_or_no_runs_make_no_reference(
    folders: Sequence[Sequence[Record]], message: str, tmp_path: Path
) -> None:
    results = [write_records(tmp_path / str(number), records) for number, records in enumerate(folders)]
    with pytest.raises(DataError, match=re.escape(message)):
        make_reference(results, tmp_path / "reference.json")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"accuracy": [', '"accuracy": 1, "x": ['),
        ('"seeds": [0', '"seeds": [7, 0'),  # as after a bad merge
        ('"schema_version": 1', '"schema_version": 99'),
        ("{", "<<<<<<< HEAD\n{"),
    ],
)
def test_a_damaged_reference_is_refused_in_one_line(old: str, new: str, tmp_path: Path) -> None:
    path, _ = make_reference([write_records(tmp_path / "results", runs([0.9]))], tmp_path / "mine.json")
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError, match=r"mine\.json is not a readable reference .*; make it again, or delete it"):
        read_reference(path)


def test_the_repositorys_references_match_the_suite() -> None:
    for reference in read_references():
        for name, population in reference.populations.items():
            assert set(population.metrics) == {gate.metric for gate in SUITE[name].gates}
            assert sorted(seed for source in population.made for seed in source.seeds) == population.seeds
            kind = str(population.key.data["kind"])
            settings = json.loads(json.dumps(SUITE[name].fingerprint(population.key.profile, kind)))
            assert population.key.settings == settings, f"{name}: other settings than the suite's; make it again"


def test_seeds_are_not_paired_with_those_of_a_reference(tmp_path: Path) -> None:
    """Each seed dropped by 0.02, which a paired test would find; without pairs the deviation of 0.05 hides it."""
    old = [0.86, 0.88, 0.90, 0.92, 0.94]
    (entry,), *_ = standings(runs([value - 0.02 for value in old]), [reference_of(tmp_path / "five", runs(old))])
    assert entry.change == "cannot tell"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"profile": "quick"}, "the reference differs in profile, settings"),
        ({"data": {"fingerprint": "ba7816bf"}}, "the reference differs in data"),
        ({"environment": {"precision": "float32"}}, "the reference differs in precision"),
        ({"weights": "stand-in"}, "the reference differs in weights"),
    ],
)
def test_runs_without_a_matching_reference_are_reported(
    changes: dict[str, Any], reason: str, reference: Reference
) -> None:
    records = runs([0.9, 0.9, 0.9], **changes)
    assert standings(records, [reference])[:2] == ([], {"vgg-scratch": reason})
    text = summary(judged(records, [reference]))
    assert f"- not compared with a reference: vgg-scratch: {reason}" in text.splitlines()


def test_a_gate_that_is_newer_than_the_reference_asks_for_another_one(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_records(tmp_path / "old", runs([0.90, 0.91]))
    path, _ = make_reference([old], tmp_path / "reference.json")
    gates = (*SCRATCH.gates, Gate("training_accuracy", "above", 0.5))
    monkeypatch.setattr(references, "SUITE", {**SUITE, "vgg-scratch": replace(SCRATCH, gates=gates)})
    scores = {"accuracy": 0.92, "training_accuracy": 0.9}
    new = [make_record("vgg-scratch", 2, metrics=scores, trivial={"accuracy": 0.1, "training_accuracy": 0.1})]
    reason = "the reference has no training accuracy; make it again"
    assert standings(new, [reference])[:2] == ([], {"vgg-scratch": reason})
    _, lines = make_reference([write_records(tmp_path / "new", new)], path)
    assert lines[0] == "vgg-scratch: replaced 2 runs with different settings or gates"
    assert read_reference(path).populations["vgg-scratch"].metrics == {"accuracy": [0.92], "training_accuracy": [0.9]}


def test_mixed_runs_small_references_and_failed_runs_are_not_compared(reference: Reference, tmp_path: Path) -> None:
    odd = [*runs([0.9, 0.9]), *runs([0.9], 2, environment={"precision": "float32"})]
    assert standings(odd, [reference])[:2] == ([], {"vgg-scratch": "its runs differ in precision"})
    baseline, reason = make_record("seg-baseline"), "no reference contains it"
    assert standings([baseline], [reference])[:2] == ([], {"seg-baseline": reason})
    assert standings(runs([0.5], status="error"), [reference])[:2] == ([], {})
    # Runs that are in the reference are not compared with themselves.
    small = reference_of(tmp_path / "six", runs([0.90, 0.91, 0.92, 0.93, 0.94, 0.95]))
    (entry,), *_ = standings(runs([0.90]), [small])
    assert sorted(entry.old) == [1, 2, 3, 4, 5]
    for values, others in (([0.90, 0.91], "4 other seeds"), ([0.90, 0.91, 0.92, 0.93, 0.94], "1 other seed")):
        reasons = {"vgg-scratch": f"the reference has {others}, at least 5 are required"}
        assert standings(runs(values), [small])[:2] == ([], reasons)


def test_a_missed_gate_and_a_machine_failure_keep_their_exit_codes(reference: Reference) -> None:
    assert judged(runs([0.5, 0.5, 0.5]), [reference]).exit_code == 1
    lost = runs([0.93], 7, status="error", message="lost", details={"infrastructure": True})
    assert judged([*runs([0.93]), *lost], [reference]).exit_code == 4


@pytest.mark.parametrize(
    ("values", "code", "verdict", "message"),
    [
        ([0.931, 0.929, 0.930], 0, "no worse", ""),
        ([0.900, 0.902, 0.901], 1, "worse",
         "vgg-scratch: accuracy 0.901 ± 0.001 (n=3) is worse than the reference's 0.930 ± 0.005 (n=20)"),
        ([0.980, 0.981, 0.982], 1, "better than possible",
         "vgg-scratch: accuracy 0.981 ± 0.001 (n=3) is better than possible, given the reference's 0.930 ± 0.005 "
         "(n=20): suspect a data leak"),
        ([0.925, 0.924, 0.926], 5, "cannot tell",
         "cannot tell for 1 of 1 results whether they are worse than the reference (vgg-scratch accuracy); "
         "if nothing changed, "),
        ([0.928], 5, "cannot tell", "cannot tell for 1 of 1 results"),
    ],
)  # fmt: skip
def test_every_output_has_the_verdict_of_the_reference_that_fits(
    values: list[float], code: int, verdict: str, message: str, reference: Reference, tmp_path: Path
) -> None:
    records = runs(values, 100, environment={"device_name": "Other GPU", "torch": "3.0", "source": "another"})
    judgement, tolerant = (judged(records, [reference], unclear_passes=tolerated) for tolerated in (False, True))
    (row,) = judgement.standings
    assert verdict_on(row) == verdict
    assert (judgement.exit_code, judgement.accepted) == (code, code == 0)
    passed = "PASSED, full profile on real data: not an acceptance result"
    word = {0: passed, 1: "FAILED", 5: "CANNOT TELL"}[code]
    differs = " 1 differs from the reference." if code == 1 else ""  # else FAILED would contradict the count
    assert summary(judgement).startswith(f"{word}: 1 of 1 configurations reached every gate.{differs}\n")
    assert not message or f"\n- {message}" in summary(judgement)
    lines = report_lines(tmp_path / "new", records, Asked([SCRATCH], [run.seed for run in records]), [reference])
    assert lines[2].startswith(f"**{word}**")
    assert [line for line in lines if line.startswith(f"| {verdict} | vgg-scratch | accuracy | ")]
    assert (f'<failure type="{verdict}" message=' in junit(judgement)) == (code != 0)
    no_worse = 'benchmark_no_worse{configuration="vgg-scratch",metric="accuracy"}'
    assert f"{no_worse} {float(code == 0)}" in openmetrics(judgement)
    # "Cannot tell" may be allowed.
    assert tolerant.exit_code == code % 5
    assert (f'<skipped type="{verdict}" message=' in junit(tolerant)) == (code == 5)
    assert summary(tolerant).startswith("FAILED" if code == 1 else passed)
