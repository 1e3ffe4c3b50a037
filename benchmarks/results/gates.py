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
from benchmarks.results.references import Reference, Row, standings
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
        exit_code: what it was due to, if not passed: the training, the machine, lack of weights, or a fault.
    """

    configuration: str
    seed: int
    gate: Gate
    verdict: Verdict
    reason: str
    value: float | None = None
    trivial: float | None = None
    bound: float | None = None
    exit_code: ExitCode = ExitCode.FAILED
    floor: float | None = None
    floor_name: str = ""


@dataclass(frozen=True)
class Asked:
    """What is to be judged: every gate of these configurations for every seed.

    Attributes:
        profile: a record of another one is an error: a quick run must not stand in for a full one. None for any.
        allow_not_run: the configurations that may be "not run"; that is never called passed, only tolerated.
        unclear_passes: whether what these runs cannot tell stands in nobody's way.
    """

    configurations: Sequence[Configuration]
    seeds: Sequence[int]
    profile: str | None = None
    allow_not_run: Collection[str] = ()
    unclear_passes: bool = False


@dataclass(frozen=True)
class Judgement:
    """Findings on all gates of all runs that were asked for, and how they compare with a reference.

    Attributes:
        standings: for each metric with a gate, where a reference fits.
        left_out: for each configuration that no reference fits, why.
        deviations: for each configuration that did not learn as the reference that fits, where that shows first.
        curves_left_out: why no learning curves could be tested, else "".
    """

    findings: Sequence[Finding]
    asked: Asked
    standings: Sequence[Row] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    deviations: Sequence[Deviation] = ()
    curves_left_out: str = ""

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
        tolerated = finding.verdict is Verdict.NOT_RUN and finding.configuration in self.asked.allow_not_run
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
            return ExitCode.CANNOT_TELL if self.unclear and not self.asked.unclear_passes else ExitCode.PASSED
        codes = {finding.exit_code for finding in objections}
        return next(
            code for code in (ExitCode.FAILED, ExitCode.FAULT, ExitCode.MACHINE, ExitCode.DATA) if code in codes
        )

    def of(self, configuration: str, gate: Gate) -> list[Finding]:
        """One gate's findings, a seed each."""
        return [entry for entry in self.findings if entry.configuration == configuration and entry.gate == gate]


def judge(records: Sequence[Record], asked: Asked, references: Sequence[Reference] = ()) -> Judgement:
    """Judge what was asked for; what has no record is "not run". Where a reference fits, runs must be no worse."""
    by_run = {(record.configuration, record.seed): record for record in records}
    runs = [(configuration, seed) for configuration in asked.configurations for seed in asked.seeds]
    findings = [
        finding
        for configuration, seed in runs
        for finding in judge_run(by_run.get((configuration.id, seed)), configuration, seed, asked.profile)
    ]
    judged = [by_run[entry.id, seed] for entry, seed in runs if (entry.id, seed) in by_run]
    return Judgement(findings, asked, *standings(judged, references))


def judge_run(
    record: Record | None, configuration: Configuration, seed: int, profile: str | None = None
) -> list[Finding]:
    """Judge one run by the suite's gates; for the profile see `Asked`."""
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
    best: tuple[float | None, str] = None, ""
    for name in configuration.floors:
        value = _floor(record, name, gate)
        if value is not None and (best[0] is None or gate.better(value, best[0])):
            best = value, name
    return best


def _floor(record: Record, name: str, gate: Gate) -> float | None:
    value = (record.floors or {}).get(name, {}).get(gate.metric)
    return value if value is not None and math.isfinite(value) else None


def _finding(
    record: Record | None, configuration: Configuration, seed: int, profile: str | None, gate: Gate
) -> Finding:
    if record is None:
        return Finding(configuration.id, seed, gate, Verdict.NOT_RUN, "there is no record of this run")
    verdict, reason = _verdict(record, configuration, profile, gate)
    judged = verdict in (Verdict.PASSED, Verdict.FAILED)
    floor, floor_name = best_floor(record, configuration, gate)
    exit_code = ExitCode.FAILED
    if verdict is Verdict.NOT_RUN and record.details.weights_missing:
        exit_code = ExitCode.DATA
    elif verdict is Verdict.ERROR and record.details.unexpected:
        exit_code = ExitCode.FAULT
    elif verdict is Verdict.ERROR and record.details.infrastructure:
        exit_code = ExitCode.MACHINE
    return Finding(
        configuration.id,
        seed,
        gate,
        verdict,
        reason,
        value=record.metrics.get(gate.metric),
        trivial=record.trivial.get(gate.metric),
        bound=gate.bound(record.trivial) if judged else None,
        exit_code=exit_code,
        floor=floor,
        floor_name=floor_name,
    )


def _verdict(record: Record, configuration: Configuration, profile: str | None, gate: Gate) -> tuple[Verdict, str]:
    """The verdict on one gate and the reason for it."""
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
