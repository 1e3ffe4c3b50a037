"""From records to verdicts. Needs no GPU, no data and no torch; gates are the suite's, not those in a record."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from benchmarks.errors import ExitCode
from benchmarks.results.curves import Deviation
from benchmarks.results.formatting import number, spread_text, words
from benchmarks.results.records import Record, best_floor, floor_score
from benchmarks.results.references import Reference, Row, standings
from benchmarks.results.statistics import ERROR, Change, evidence
from benchmarks.suite import CONTROL, MARGINS, Configuration, Gate


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Finding:
    """The verdict on one gate of one run, and why; numbers are None where the record has none."""

    configuration: str
    seed: int
    gate: Gate
    verdict: Verdict
    reason: str
    value: float | None = None
    trivial: float | None = None
    bound: float | None = None
    exit_code: ExitCode = ExitCode.FAILED  # if not passed: due to training, machine, missing weights or a fault
    floor: float | None = None  # the best of the configuration's floors
    floor_name: str = ""


@dataclass(frozen=True)
class Asked:
    """What to judge: every gate of these configurations for every seed."""

    configurations: Sequence[Configuration]
    seeds: Sequence[int]
    profile: str | None = None  # records of another one are errors: a quick run must not replace a full one
    allow_not_run: Collection[str] = ()  # ids that may be "not run": tolerated, never called passed
    unclear_passes: bool = False  # whether "cannot tell" is accepted


@dataclass(frozen=True)
class Judgement:
    """Findings on all gates of all selected runs, and the comparison with references; see `standings`."""

    findings: Sequence[Finding]
    asked: Asked
    records: Sequence[Record] = ()  # that were judged, by configuration and seed
    standings: Sequence[Row] = ()  # one for each metric that was compared with a reference
    left_out: Mapping[str, str] = field(default_factory=dict)  # why a configuration was not compared
    deviations: Sequence[Deviation] = ()  # of learning curves, the first of each configuration
    curves_left_out: str = ""  # why no learning curves could be tested

    @property
    def completed(self) -> dict[str, list[Record]]:
        """The completed runs of each selected configuration."""
        done = [record for record in self.records if record.status == "completed"]
        return {entry.id: [run for run in done if run.configuration == entry.id] for entry in self.asked.configurations}

    @property
    def accepted(self) -> bool:
        """Whether every gate was passed or allowed not to run, and no comparison with a reference failed."""
        return self.exit_code == ExitCode.PASSED

    @property
    def reference_failures(self) -> list[Row]:
        """Metrics that are worse than the reference, or so much better that a data leak is likely."""
        return [entry for entry in self.standings if entry.change in (Change.WORSE, Change.BETTER)]

    @property
    def unclear(self) -> list[Row]:
        """Metrics that are "cannot tell"."""
        return [entry for entry in self.standings if entry.change is Change.CANNOT_TELL]

    @property
    def curve_failures(self) -> list[Deviation]:
        """The deviations of configurations whose final scores are not all "no worse"."""
        unproven = {entry.configuration for entry in self.standings if entry.change is not Change.NO_WORSE}
        proven = {entry.configuration for entry in self.standings} - unproven
        return [entry for entry in self.deviations if entry.configuration not in proven]

    @property
    def objections(self) -> list[Finding]:
        """The findings that prevent acceptance."""
        return [finding for finding in self.findings if self.objects_to(finding)]

    def objects_to(self, finding: Finding) -> bool:
        """Whether a finding prevents acceptance."""
        tolerated = finding.verdict is Verdict.NOT_RUN and finding.configuration in self.asked.allow_not_run
        return finding.verdict is not Verdict.PASSED and not tolerated

    @property
    def exit_code(self) -> int:
        """0 accepted; 1 a gate was missed, a result is worse than the reference, or learning curves differ and the
        scores are not shown to be no worse; else 70 bug in the suite, 4 machine failure, 3 missing weights, 5 cannot
        tell.

        4, 3 and 5 may be retried: on another machine, with weights, with more seeds.
        """
        objections = self.objections
        passed = any(finding.verdict is Verdict.PASSED for finding in self.findings)
        if self.reference_failures or self.curve_failures or not (passed or objections):
            return ExitCode.FAILED
        if not objections:
            return ExitCode.CANNOT_TELL if self.unclear and not self.asked.unclear_passes else ExitCode.PASSED
        codes = {finding.exit_code for finding in objections}
        return next(
            code for code in (ExitCode.FAILED, ExitCode.FAULT, ExitCode.MACHINE, ExitCode.DATA) if code in codes
        )

    def of(self, configuration: str, gate: Gate | None = None) -> list[Finding]:
        """The findings on a configuration, or on one of its gates: one per seed."""
        found = [entry for entry in self.findings if entry.configuration == configuration]
        return [entry for entry in found if gate in (None, entry.gate)]


def judge(records: Sequence[Record], asked: Asked, references: Sequence[Reference] = ()) -> Judgement:
    """Judge the selected runs; a run without a record is "not run". Where a reference fits, runs must be no worse."""
    by_run = {(record.configuration, record.seed): record for record in records}
    runs = [(configuration, seed) for configuration in asked.configurations for seed in asked.seeds]
    findings = [
        finding
        for configuration, seed in runs
        for finding in judge_run(by_run.get((configuration.id, seed)), configuration, seed, asked.profile)
    ]
    findings = [entry for each in asked.configurations for entry in _against_control(each, findings, by_run)]
    wanted = ((entry.id, seed) for entry in asked.configurations for seed in sorted(asked.seeds))
    judged = [by_run[run] for run in wanted if run in by_run]
    return Judgement(findings, asked, judged, *standings(judged, references))


def judge_run(
    record: Record | None, configuration: Configuration, seed: int, profile: str | None = None
) -> list[Finding]:
    """Judge one run by the suite's gates; for the profile see `Asked`."""
    return [_finding(record, configuration, seed, profile, gate) for gate in configuration.gates]


def _against_control(
    configuration: Configuration, findings: Sequence[Finding], by_run: Mapping[tuple[str, int], Record]
) -> list[Finding]:
    """The findings on a configuration; starts that are worse than an untrained one by more than the margin fail.

    Tested over seeds: the control is a training with noise of its own, which a single seed would mistake for harm.
    """
    found = [entry for entry in findings if entry.configuration == configuration.id]
    for gate in configuration.gates if CONTROL in configuration.floors else ():
        passed = [entry.seed for entry in found if entry.gate == gate and entry.verdict is Verdict.PASSED]
        runs = [by_run[configuration.id, seed] for seed in passed]
        start = {run.seed: value for run in runs if (value := run.metrics.get(gate.metric)) is not None}
        control = {run.seed: value for run in runs if (value := floor_score(run, CONTROL, gate)) is not None}
        drop = evidence(control, start, MARGINS[gate.metric]) if start else None
        if drop is None or drop.p_below(-drop.margin) > ERROR / len(configuration.gates):
            continue
        reached, untrained = (spread_text(gate.metric, side.values()) for side in (start, control))
        margin = number(gate.metric, drop.margin)
        reason = f"{words(gate.metric)} {reached} is more than {margin} below {untrained} of {CONTROL}"
        found = [
            replace(entry, verdict=Verdict.FAILED, reason=reason)
            if entry.gate == gate and entry.seed in passed
            else entry
            for entry in found
        ]
    return found


def combined(findings: Sequence[Finding]) -> Verdict:
    """The verdict over several seeds or gates: passed only if all passed, else the worst."""
    verdicts = {finding.verdict for finding in findings}
    for worst in (Verdict.ERROR, Verdict.FAILED, Verdict.NOT_RUN):
        if worst in verdicts:
            return worst
    return Verdict.PASSED if verdicts else Verdict.NOT_RUN


def _finding(
    record: Record | None, configuration: Configuration, seed: int, profile: str | None, gate: Gate
) -> Finding:
    if record is None:
        return Finding(configuration.id, seed, gate, Verdict.NOT_RUN, "there is no record of this run")
    verdict, reason = _verdict(record, configuration, profile, gate)
    value, trivial = record.metrics.get(gate.metric), record.trivial.get(gate.metric)
    bound = gate.bound(record.trivial) if verdict in (Verdict.PASSED, Verdict.FAILED) else None
    exit_code = ExitCode.FAILED
    if verdict is Verdict.NOT_RUN and record.details.weights_missing:
        exit_code = ExitCode.DATA
    elif verdict is Verdict.ERROR and record.details.unexpected:
        exit_code = ExitCode.FAULT
    elif verdict is Verdict.ERROR and record.details.infrastructure:
        exit_code = ExitCode.MACHINE
    floor, name = best_floor(record, configuration, gate)
    return Finding(configuration.id, seed, gate, verdict, reason, value, trivial, bound, exit_code, floor, name)


def _verdict(record: Record, configuration: Configuration, profile: str | None, gate: Gate) -> tuple[Verdict, str]:
    """The verdict on one gate and the reason."""
    if record.status == "not run":
        return Verdict.NOT_RUN, record.message
    if record.status != "completed":
        return Verdict.ERROR, record.message or f"the run has the status {record.status!r}"
    if profile is not None and record.profile != profile:
        return Verdict.ERROR, f"the record was made under the profile {record.profile!r}, expected {profile!r}"
    settings = configuration.fingerprint(record.profile, str(record.data.kind))
    if record.settings != settings:
        work = record.settings.get("work") or {}
        resized = {**work, "working_size": settings["work"]["working_size"]}
        if {**record.settings, "work": resized} == settings:
            size = "x".join(map(str, work.get("working_size", ())))
            return Verdict.ERROR, f"the record was made at another working size; judge it with WORKING_SIZE={size}"
        return Verdict.ERROR, "the record was made with other settings than the suite's; run it again"
    if record.gates != configuration.gates:
        return Verdict.ERROR, "the record was made under other gates than the suite's; run it again"
    value, trivial = record.metrics.get(gate.metric), record.trivial.get(gate.metric)
    if value is None or trivial is None or not (math.isfinite(value) and math.isfinite(trivial)):
        return Verdict.ERROR, f"the record has no {words(gate.metric)} of the run or of the constant answer"
    missing = [name for name in configuration.floors if floor_score(record, name, gate) is None]
    if missing:
        return Verdict.ERROR, f"the record has no {gate.metric} of the floor {missing[0]!r}; run it again"
    what, bound = f"{words(gate.metric)} is {value:.4g}", gate.bound(record.trivial)
    expected = f"expected {gate}" if gate.threshold is not None else f"expected {gate} ({bound:.4g})"
    if not gate.passes(value, record.trivial):
        return Verdict.FAILED, f"{what}, {expected}"
    floor, name = best_floor(record, configuration, gate)
    if floor is not None and not gate.better(value, floor):
        reason = f"{what}, {gate.direction} the gate's {bound:.4g}, but not better than the floor {floor:.4g} ({name})"
        return Verdict.FAILED, reason
    return Verdict.PASSED, f"{what}, {expected}"
