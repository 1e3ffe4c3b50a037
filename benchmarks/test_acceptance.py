"""The acceptance gates: every configuration, every gate, every seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks.results.gates import Verdict, judge
from benchmarks.results.records import Record, record_path
from benchmarks.runs.plan import Plan
from benchmarks.suite import Configuration, Gate


def test_gate(configuration: Configuration, gate: Gate, records: Sequence[Record], plan: Plan) -> None:
    judgement = judge(records, replace(plan.asked, configurations=[configuration]))
    messages = [
        f"seed {finding.seed}: {finding.verdict}: {finding.reason}; constant answer {_number(finding.trivial)}; "
        f"floor {_number(finding.floor)} ({finding.floor_name or 'none'}); "
        f"record {record_path(plan.results, configuration.id, finding.seed)}"
        for finding in judgement.objections
        if finding.gate == gate
    ]
    if messages:
        pytest.fail(f"{configuration.id} ({configuration.question})\n" + "\n".join(messages), pytrace=False)
    if any(finding.verdict is Verdict.NOT_RUN for finding in judgement.of(configuration.id, gate)):
        pytest.skip(f"{configuration.id} was not run, as ALLOW_NOT_RUN permits")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
