"""From records to verdicts. Needs no GPU, no data and no torch, and trusts nothing that a record says of its gates."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from benchmarks.errors import ExitCode
from benchmarks.results.curves import Deviation
from benchmarks.results.formatting import words
from benchmarks.results.records import Record
from benchmarks.results.references import Reference, Row, curve_deviations, standings
from benchmarks.results.statistics import Change
from benchmarks.suite import Configuration, Gate


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Finding:
    """One gate of one run.

    Attributes:
        value, trivial, bound: None where the run left none.
        floor, floor_name: the best of the configuration's floors, and which of them that is; None and "" without one.
        reason: why the verdict is what it is, as a sentence.
        infrastructure: the machine failed, not the training; only where the verdict is an error.
        weights_missing: the weights to start from could not be had; only where the verdict is "not run".
    """

    configuration: str
    seed: int
    gate: Gate
    verdict: Verdict
    value: float | None
    trivial: float | None
    bound: float | None
    reason: str
    infrastructure: bool = False
    weights_missing: bool = False
    unexpected: bool = False
    floor: float | None = None
    floor_name: str = ""


@dataclass(frozen=True)
class Judgement:
    """Findings on all gates of all runs that were asked for, and how they compare with a reference.

    Attributes:
        allowed: the configurations that may be "not run"; that is never called passed, only tolerated.
        standings: for each metric with a gate, where a reference fits.
        left_out: for each configuration that no reference fits, why.
        deviations: for each configuration that did not learn as the reference that fits, where that shows first.
        curves_left_out: why no learning curves could be tested, else "".
        unclear_passes: whether what these runs cannot tell stands in nobody's way.
    """

    findings: tuple[Finding, ...]
    allowed: frozenset[str] = frozenset()
    standings: tuple[Row, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    deviations: tuple[Deviation, ...] = ()
    curves_left_out: str = ""
    unclear_passes: bool = False

    @property
    def accepted(self) -> bool:
        """Something was judged, every gate was passed or allowed not to run, and no reference speaks against it."""
        return self.exit_code == ExitCode.PASSED

    @property
    def setbacks(self) -> list[Row]:
        """What is worse than the reference, or so much better that something must have leaked."""
        return [entry for entry in self.standings if entry.change in (Change.WORSE, Change.BETTER)]

    @property
    def unclear(self) -> list[Row]:
        """What these runs cannot tell."""
        return [entry for entry in self.standings if entry.change is Change.CANNOT_TELL]

    @property
    def learned_otherwise(self) -> list[Deviation]:
        """Of the deviations those of configurations that are not shown to be no worse all the same."""
        unproven = {entry.configuration for entry in self.standings if entry.change is not Change.NO_WORSE}
        proven = {entry.configuration for entry in self.standings} - unproven
        return [entry for entry in self.deviations if entry.configuration not in proven]

    @property
    def objections(self) -> list[Finding]:
        """What stands in the way."""
        return [finding for finding in self.findings if self.objects_to(finding)]

    def objects_to(self, finding: Finding) -> bool:
        """Whether a finding stands in the way."""
        tolerated = finding.verdict is Verdict.NOT_RUN and finding.configuration in self.allowed
        return finding.verdict is not Verdict.PASSED and not tolerated

    @property
    def exit_code(self) -> int:
        """0 accepted, 1 a gate was missed, a result is worse than the reference, or runs that are not shown to be no
        worse learned otherwise; else 70 for a fault of the suite, 4 of the machine, 3 for lack of weights, 5 if these
        runs cannot tell whether they are worse.

        What is none of the training's doing may be tried again: on another machine, or when the weights are there.
        """
        objections = self.objections
        passed = any(finding.verdict is Verdict.PASSED for finding in self.findings)
        if self.setbacks or self.learned_otherwise or not (passed or objections):
            return ExitCode.FAILED
        if not objections:
            return ExitCode.CANNOT_TELL if self.unclear and not self.unclear_passes else ExitCode.PASSED
        if not all(finding.infrastructure or finding.weights_missing or finding.unexpected for finding in objections):
            return ExitCode.FAILED
        if any(finding.unexpected for finding in objections):
            return ExitCode.FAULT
        return 4 if any(finding.infrastructure for finding in objections) else 3

    def of(self, configuration: str, gate: Gate) -> list[Finding]:
        """One gate's findings, a seed each."""
        return [entry for entry in self.findings if entry.configuration == configuration and entry.gate == gate]


def judge(
    records: Sequence[Record],
    configurations: Sequence[Configuration],
    seeds: Sequence[int],
    allow_not_run: Collection[str] = (),
    profile: str | None = None,
    references: Sequence[Reference] = (),
    *,
    unclear_passes: bool = False,
) -> Judgement:
    """Judge every gate of every configuration for every seed; what has no record is "not run".

    With a profile named, a record of another one is an error: a quick run must not stand in for a full one. Where a
    reference fits, the runs must be no worse than it.
    """
    by_run = {(record.configuration, record.seed): record for record in records}
    findings = [
        finding
        for configuration in configurations
        for seed in seeds
        for finding in judge_run(by_run.get((configuration.id, seed)), configuration, seed, profile)
    ]
    judged = [by_run[entry.id, seed] for entry in configurations for seed in seeds if (entry.id, seed) in by_run]
    compared, left_out = standings(judged, references)
    differing, curves_left_out = curve_deviations(judged, references)
    return Judgement(
        tuple(findings),
        frozenset(allow_not_run),
        tuple(compared),
        left_out,
        tuple(differing),
        curves_left_out,
        unclear_passes,
    )


def judge_run(
    record: Record | None, configuration: Configuration, seed: int, profile: str | None = None
) -> list[Finding]:
    """Judge one run by the suite's gates; arguments as for `judge`."""
    return [_finding(record, configuration, seed, profile, gate) for gate in configuration.gates]


def combined(findings: Sequence[Finding]) -> Verdict:
    """The verdict over several seeds or gates: passed only if all passed, else the worst."""
    verdicts = {finding.verdict for finding in findings}
    for worst in (Verdict.ERROR, Verdict.FAILED, Verdict.NOT_RUN):
        if worst in verdicts:
            return worst
    return Verdict.PASSED if verdicts else Verdict.NOT_RUN


def best_floor(record: Record, configuration: Configuration, gate: Gate) -> tuple[float | None, str]:
    """The best of the floors that the suite names, by the gate's direction, and which it is; (None, "") without any."""
    values = {name: value for name in configuration.floors if (value := _floor(record, name, gate)) is not None}
    best = None
    for name, value in values.items():
        if best is None or gate.better(value, values[best]):
            best = name
    return (None, "") if best is None else (values[best], best)


def _floor(record: Record, name: str, gate: Gate) -> float | None:
    value = (record.floors or {}).get(name, {}).get(gate.metric)
    return value if value is not None and math.isfinite(value) else None


def _finding(
    record: Record | None, configuration: Configuration, seed: int, profile: str | None, gate: Gate
) -> Finding:
    verdict, reason = _verdict(record, configuration, profile, gate)
    if record is None:
        return Finding(configuration.id, seed, gate, verdict, None, None, None, reason)
    judged = verdict in (Verdict.PASSED, Verdict.FAILED)
    floor, floor_name = best_floor(record, configuration, gate)
    return Finding(
        configuration.id,
        seed,
        gate,
        verdict,
        value=record.metrics.get(gate.metric),
        trivial=record.trivial.get(gate.metric),
        bound=gate.bound(record.trivial) if judged else None,
        reason=reason,
        infrastructure=verdict is Verdict.ERROR and record.details.infrastructure,
        weights_missing=verdict is Verdict.NOT_RUN and record.details.weights_missing,
        unexpected=verdict is Verdict.ERROR and record.details.unexpected,
        floor=floor,
        floor_name=floor_name,
    )


def _verdict(
    record: Record | None, configuration: Configuration, profile: str | None, gate: Gate
) -> tuple[Verdict, str]:
    """The verdict on one gate and the reason for it."""
    if record is None:
        return Verdict.NOT_RUN, "there is no record of this run"
    if record.status == "not run":
        return Verdict.NOT_RUN, record.message
    if record.status != "completed":
        return Verdict.ERROR, record.message or f"the run has the status {record.status!r}"
    if profile is not None and record.profile != profile:
        return Verdict.ERROR, f"the record was made under the profile {record.profile!r}, expected {profile!r}"
    if record.settings != configuration.fingerprint(record.profile, str(record.data.kind)):
        return Verdict.ERROR, "the record was made with other settings than the suite's; run it again"
    if record.gates != configuration.gates:
        return Verdict.ERROR, "the record was made under other gates than the suite's; run it again"
    value, trivial = record.metrics.get(gate.metric), record.trivial.get(gate.metric)
    if value is None or trivial is None or not (math.isfinite(value) and math.isfinite(trivial)):
        return Verdict.ERROR, f"the record has no {words(gate.metric)} of the run or of the constant answer"
    lacking = [name for name in configuration.floors if _floor(record, name, gate) is None]
    if lacking:
        return Verdict.ERROR, f"the record does not say what {gate.metric} {lacking[0]} would have; run it again"
    what, bound = f"{words(gate.metric)} is {value:.4g}", gate.bound(record.trivial)
    expected = f"expected {gate}" if gate.threshold is not None else f"expected {gate} ({bound:.4g})"
    if not gate.passes(value, record.trivial):
        return Verdict.FAILED, f"{what}, {expected}"
    floor, name = best_floor(record, configuration, gate)
    if floor is not None and not gate.better(value, floor):
        return Verdict.FAILED, (
            f"{what}, {gate.direction} the gate's {bound:.4g}, but no better than {floor:.4g} by "
            f"{name}: nothing was learned that a look-up does not know"
        )
    return Verdict.PASSED, f"{what}, {expected}"
