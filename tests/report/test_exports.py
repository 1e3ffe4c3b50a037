"""The files for CI systems and dashboards, read back by independent parsers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from benchmarks.report.exports import append_step_summary, junit, openmetrics, pytest_benchmark
from benchmarks.results.gates import Asked, Judgement, judge
from benchmarks.results.records import Record
from benchmarks.suite import select
from tests.record_factory import make_record


def judged(records: Sequence[Record], ids: Sequence[str], allowed: Sequence[str] = ()) -> Judgement:
    return judge(records, Asked(select(ids), [0], allow_not_run=allowed))


def parsed(records: Sequence[Record], ids: Sequence[str], allowed: Sequence[str] = ()) -> ElementTree.Element:
    (suite,) = ElementTree.fromstring(junit(judged(records, ids, allowed)))
    return suite


def counts(suite: ElementTree.Element) -> list[int]:
    """Tests, failures, errors, skipped: the suite's attributes, which must match its elements."""
    found = [int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")]
    assert found == [len(suite.findall(path)) for path in ("testcase", ".//failure", ".//error", ".//skipped")]
    return found


def messages(suite: ElementTree.Element, kind: str) -> list[str]:
    return [element.attrib["message"] for element in suite.iter(kind)]


def test_failures_errors_and_missing_runs_are_different_results() -> None:
    records = [
        make_record("seg-baseline", metrics={"present_dice": 0.343}),
        make_record("vgg-scratch", status="error", message="the training loss of epoch 3 is nan"),
        make_record("vgg-frozen", status="not run", message="no ImageNet weights"),
    ]
    suite = parsed(records, ["seg-baseline", "colorization", "vgg-scratch", "vgg-frozen"])

    assert counts(suite) == [5, 3, 1, 0]
    assert messages(suite, "failure") == [
        "failed: present Dice is 0.343, expected > 0.5",
        "not run: there is no record of this run",
        "not run: no ImageNet weights",
    ]
    assert messages(suite, "error") == ["the training loss of epoch 3 is nan"]
    for element in (*suite.iter("failure"), *suite.iter("error")):
        assert element.text == element.attrib["message"]  # GitLab shows only the body
    # Jenkins' xUnit plugin rejects a file with ``properties`` in a ``testcase``.
    assert {entry.tag for case in suite for entry in case} == {"system-out", "error", "failure"}
    assert {entry.tag for entry in suite} == {"testcase"}


def test_only_runs_that_are_allowed_not_to_run_are_skipped() -> None:
    records = [
        make_record("vgg-scratch", status="error", message="lost"),
        make_record("vgg-frozen", status="not run", message="no ImageNet weights"),
    ]
    suite = parsed(records, ["vgg-scratch", "vgg-frozen"], allowed=["vgg-scratch", "vgg-frozen"])
    assert counts(suite) == [2, 0, 1, 1]
    assert messages(suite, "skipped") == ["not run, as allowed: no ImageNet weights"]


def test_a_message_with_markup_and_control_characters_is_still_xml() -> None:
    message = '<oom> & "x" \x1b[31mred\x00\ufffe\ud800\nsecond line, 3 µs'
    suite = parsed([make_record("vgg-scratch", status="error", message=message)], ["vgg-scratch"])
    assert messages(suite, "error") == ['<oom> & "x" ?[31mred???\nsecond line, 3 µs']


def samples(records: Sequence[Record], ids: Sequence[str]) -> dict[tuple[str, ...], float]:
    """Values by name and labels, the labels sorted by name."""
    families = text_string_to_metric_families(openmetrics(judged(records, ids)))
    found = [sample for family in families for sample in family.samples]
    values = {(s.name, *(f"{key}={s.labels[key]}" for key in sorted(s.labels))): s.value for s in found}
    assert len(values) == len(found)
    return values


def test_a_gate_that_failed_or_never_ran_is_zero_and_nothing_is_accepted() -> None:
    bad = make_record("seg-baseline", metrics={"present_dice": 0.343, "challenge_iou": None})
    values = samples([bad], ["seg-baseline", "vgg-frozen"])
    assert values[("benchmark_accepted",)] == 0.0
    assert {(key[1], key[3]): value for key, value in values.items() if key[0] == "benchmark_gate_passed"} == {
        ("configuration=seg-baseline", "metric=course_dice"): 1.0,
        ("configuration=seg-baseline", "metric=present_dice"): 0.0,
        ("configuration=vgg-frozen", "metric=accuracy"): 0.0,
    }
    assert not any("metric=challenge_iou" in key for key in values)


def test_hardware_counters_above_zero_are_metrics() -> None:
    hardware = {"uuid": "GPU-1", "xids": [79, 79], "pcie_replays": 0, "throttled_s": {"power": 2.5}}
    run = make_record("vgg-scratch", environment={"machine": {"hardware": hardware}})
    values = samples([run, make_record("vgg-frozen")], ["vgg-scratch"])
    found = {key[2]: value for key, value in values.items() if key[0] == "benchmark_hardware" and "gpu=GPU-1" in key}
    assert found == {"counter=xid_79": 2.0, "counter=throttled_by_power_seconds": 2.5}


def test_machine_and_commit_are_exported() -> None:
    environment = {"git_commit": "a" * 40, "git_changed_files": 2, "machine": {"started_at": "2026-01-31T12:00:00"}}
    content = pytest_benchmark([make_record("vgg-scratch", environment=environment)])
    assert content["commit_info"] == {"id": "a" * 40, "dirty": True}
    assert content["datetime"] == "2026-01-31T12:00:00"
    assert content["machine_info"]["device_name"] == "Example GPU"
    assert "machine" not in content["machine_info"]


def test_pytest_benchmark_reads_the_file_which_has_no_throttled_runs(tmp_path: Path) -> None:
    hot = {"machine": {"hardware": {"throttled_s": {"thermal": 100.0}}}}
    changes: list[dict[str, Any]] = [{}, {}, {}, {"environment": hot}]
    records = [
        make_record("vgg-scratch", seed, timing={"training_s": seconds}, **changes[seed])
        for seed, seconds in enumerate([10.0, 40.0, 10.0, 900.0])
    ]
    (tmp_path / "benchmark.json").write_text(json.dumps(pytest_benchmark(records)), encoding="utf-8")
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "benchmark.json", "--columns=mean,rounds"]
    text = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    (line,) = [line.split() for line in text.splitlines() if line.startswith("vgg-scratch (training)")]
    assert line[-2:] == ["20.0000", "3"]


def test_the_step_summary_is_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.md"
    for text, name in (("# Nowhere\n", ""), ("# Results\n", str(path)), ("# Comparison\n", str(path))):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", name)
        append_step_summary(text)
    assert path.read_text(encoding="utf-8") == "# Results\n# Comparison\n"
