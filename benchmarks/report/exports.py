"""Verdicts and measurements in the formats that CI systems and dashboards read.

junit.xml       a test case for each gate of each run, with its numbers as output
metrics.txt     OpenMetrics text: GitLab's metrics reports, Prometheus
benchmark.json  pytest-benchmark's format: `pytest-benchmark compare`, dashboards of benchmark results
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.exposition import generate_latest
from pytest_benchmark.stats import Stats

from benchmarks.results.gates import Finding, Judgement, Verdict
from benchmarks.results.hardware import counted, throttled
from benchmarks.results.records import ENVIRONMENT, TIME_PARTS, Environment, Record, by_configuration
from benchmarks.results.references import standing_text, verdict_on
from benchmarks.results.statistics import Change
from hw6core.errors import visible

_MADE_ON = ("device_name", "torch", "git_commit")  # fields of a record's environment
_BENCHMARK_VERSION = "5.0.0"  # version of pytest-benchmark's format


def junit(judgement: Judgement) -> str:
    """A suite with a case for each finding, and for each metric that is compared with a reference.

    "Not run" and "cannot tell" are failures, or skipped where they are allowed.
    """
    by_run = {(record.configuration, record.seed): record for record in judgement.records}
    cases = []
    timed: set[tuple[str, int]] = set()
    for finding in judgement.findings:
        run = (finding.configuration, finding.seed)
        record = by_run.get(run)
        # Only the first gate of a run has its time, so that the times of all cases add up to that of the suite.
        seconds = (record.timing.total_s or 0.0) if record and run not in timed else 0.0
        timed.add(run)
        cases.append(_case(finding, record, judgement.objects_to(finding), seconds))
    against = [(row.configuration, row.name, verdict_on(row), standing_text(row)) for row in judgement.standings]
    for found in judgement.curve_failures:
        against.append((found.configuration, "learning curve", "learning curves differ", str(found)))
    for configuration, what, verdict, message in against:
        name = f"{what} against the reference"
        case = ElementTree.Element("testcase", classname=configuration, name=name, time="0.000")
        if verdict != Change.NO_WORSE:
            tolerated = judgement.asked.unclear_passes and verdict == Change.CANNOT_TELL
            kind, message = "skipped" if tolerated else "failure", _printable(message)
            ElementTree.SubElement(case, kind, type=verdict, message=message).text = message
        cases.append(case)
    suite = ElementTree.Element("testsuite", name="benchmarks", tests=str(len(cases)))
    for kind, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(kind) is not None for case in cases)))
    suite.set("time", f"{sum(float(case.get('time', 0)) for case in cases):.3f}")
    suite.extend(cases)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(finding: Finding, record: Record | None, is_failure: bool, seconds: float) -> ElementTree.Element:
    name = f"{finding.gate.metric}[seed {finding.seed}]"
    case = ElementTree.Element("testcase", classname=finding.configuration, name=name, time=f"{seconds:.3f}")
    if finding.verdict is not Verdict.PASSED:
        kind, message = "skipped", f"not run, as allowed: {finding.reason}"
        if finding.verdict is Verdict.ERROR:
            kind, message = "error", finding.reason
        elif is_failure:
            kind, message = "failure", f"{finding.verdict}: {finding.reason}"
        message = _printable(message)
        # Twice: GitLab shows only the body, others the attribute.
        ElementTree.SubElement(case, kind, message=message).text = message
    facts: dict[str, object] = {"value": finding.value, "gate": finding.gate}
    facts |= {"bound": finding.bound, "trivial": finding.trivial}
    facts |= {"floor": finding.floor, "floor by": finding.floor_name or None}
    if record is not None:
        facts |= {"profile": record.profile, "data": record.data.kind, "weights": record.weights or None}
        facts |= {name: getattr(record.environment, name) for name in _MADE_ON}
    # As output, because Jenkins' xUnit plugin rejects a file with properties in a test case.
    output = [f"{name}: {_printable(str(value))}" for name, value in facts.items() if value is not None]
    ElementTree.SubElement(case, "system-out").text = "\n".join(output)
    return case


def _printable(text: str) -> str:
    """Replace control characters, which XML 1.0 forbids and ElementTree does not check."""
    return "".join(letter if letter.isprintable() or letter in "\t\n" else "?" for letter in text)


def openmetrics(judgement: Judgement) -> str:
    """Gauges of quality, gates and times, labelled with configuration and seed."""
    registry = CollectorRegistry()
    run = ("configuration", "seed", "profile", "data")

    def gauge(name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"benchmark_{name}", meaning, labels, registry=registry)

    def put(into: Gauge, value: float | None, *labels: object) -> None:
        if value is not None:
            into.labels(*(visible(str(label)) for label in labels)).set(value)

    quality = gauge("quality", "Final score or error of a run", *run, "metric")
    passed = gauge("gate_passed", "1 if a run passed a gate, its floor and its control", *run, "metric")
    floor = gauge("floor", "Score or error of the best answer without training", *run, "metric")
    seconds = gauge("seconds", "Time of each part of a run; parts do not overlap", *run, "part")
    total = gauge("total_seconds", "Time of a run", *run)
    to_gate = gauge("to_gate_seconds", "Training until validation passed the gates", *run)
    info = gauge("info", "1; labels name device, torch and commit of the runs", *_MADE_ON)
    rate = gauge("training_samples_per_second", "Training throughput", *run)
    hardware = gauge("hardware", "Increase of a GPU counter during a run, if any", *run, "gpu", "counter")
    no_worse = gauge("no_worse", "1 if the runs are shown to be no worse than the reference", "configuration", "metric")
    for entry in judgement.standings:
        put(no_worse, entry.change is Change.NO_WORSE, entry.configuration, entry.name)
    gauge("accepted", "1 if the selected runs are accepted").set(judgement.accepted)
    by_run = {(record.configuration, record.seed): record for record in judgement.records}
    for finding in judgement.findings:
        record = by_run.get((finding.configuration, finding.seed))
        labels = (record.profile, record.data.kind or "") if record else ("", "")
        is_passed = finding.verdict is Verdict.PASSED
        put(passed, is_passed, finding.configuration, finding.seed, *labels, finding.gate.metric)
        put(floor, finding.floor, finding.configuration, finding.seed, *labels, finding.gate.metric)
    for record in judgement.records:
        put(info, 1, *(getattr(record.environment, name) or "" for name in _MADE_ON))
        of = (record.configuration, record.seed, record.profile, record.data.kind or "")
        for metric, value in record.metrics.items():
            put(quality, value, *of, metric)
        for part in TIME_PARTS:
            put(seconds, getattr(record.timing, part), *of, part.removesuffix("_s"))
        put(total, record.timing.total_s, *of)
        put(to_gate, record.timing.seconds_to_gate, *of)
        put(rate, record.timing.samples_per_s, *of)
        gpu = record.environment.machine.hardware
        for counter, count in counted(gpu).items():
            put(hardware, count, *of, gpu and gpu.uuid, counter)
    return str(generate_latest(registry).decode("utf-8"))


def pytest_benchmark(records: Sequence[Record]) -> dict[str, Any]:
    """Training and total time of each configuration, one round per seed.

    Throttled runs are left out, and the total of resumed ones, which is that of the last process.
    """
    completed = [record for record in records if record.status == "completed"]
    environment = completed[0].environment if completed else Environment()
    benchmarks = []
    for name, runs in by_configuration(completed).items():
        comparable = [run for run in runs if not throttled(run)]
        scores = dict.fromkeys(metric for run in runs for metric in run.metrics)
        for key, part in {"training_s": "training", "seconds_to_gate": "to gate", "total_s": "total"}.items():
            whole = (run for run in comparable if not (key == "total_s" and run.timing.interruptions))
            timed = {run.seed: seconds for run in whole if (seconds := getattr(run.timing, key))}
            if not timed:
                continue
            stats = Stats()
            for seconds in timed.values():
                stats.update(seconds)
            benchmarks.append(
                {
                    "group": part,
                    "name": f"{name} ({part})",
                    "fullname": f"benchmarks/{name} ({part})",
                    "params": None,
                    "param": None,
                    "extra_info": {
                        "seeds": list(timed),
                        "metrics": {key: [run.metrics.get(key) for run in runs if run.seed in timed] for key in scores},
                    },
                    "options": {"timer": "perf_counter", "min_rounds": len(stats.data)},
                    "stats": stats.as_dict() | {"data": stats.data, "iterations": 1},
                }
            )
    return {
        "machine_info": {
            name: value for name in ENVIRONMENT if not isinstance(value := getattr(environment, name), Mapping)
        },
        "commit_info": {"id": environment.git_commit, "dirty": bool(environment.git_changed_files)},
        "benchmarks": benchmarks,
        "datetime": environment.machine.started_at,
        "version": _BENCHMARK_VERSION,
    }


def append_step_summary(text: str) -> None:
    """Append Markdown to the summary of a GitHub job, if this is one; a failure to write is only a warning."""
    try:
        if name := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(name).open("a", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        print(f"warning: cannot write the job's summary ({error})", file=sys.stderr)
