"""Judges a fleet: which devices are odd, why, and what to do with each."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from benchmarks.errors import ExitCode
from benchmarks.fingerprint.comparison import against_majority, compare_all, read_envelope
from benchmarks.fingerprint.record import Fingerprint
from benchmarks.fleet.devices import Device
from benchmarks.fleet.outliers import LEAST_DEVICES, Quantity, odd_devices
from benchmarks.results.formatting import few, words
from benchmarks.results.gates import Finding, Verdict, judge_run
from benchmarks.results.hardware import THROTTLED_SHARE, Word, word_of
from benchmarks.suite import COST_MARGINS, ERROR_MARGIN, MARGINS, Configuration, Margin

_SPEED = "samples_per_s"
ERRORS = dict.fromkeys(("ecc_corrected", "pcie_replays", "nvlink_errors"), ERROR_MARGIN)
ERRORS["throttled_share"] = Margin(THROTTLED_SHARE, more_is_better=False)
Reason = tuple[Word, str]


@dataclass(frozen=True)
class Judged:
    """A fleet and its findings.

    Attributes:
        reasons: of each odd device, by index, the most severe first.
        problems: of the fleet as a whole, such as a gate that most devices failed.
        fingerprints: how each device's fingerprint compares with that of the majority.
    """

    devices: Sequence[Device]
    reasons: Mapping[int, Sequence[Reason]]
    problems: Sequence[str]
    quantities: Sequence[Quantity]
    fingerprints: Mapping[int, str]

    @property
    def odd(self) -> list[int]:
        """The odd devices, the most severe first."""
        return sorted(self.reasons, key=lambda index: -self.reasons[index][0][0])

    @property
    def faulty(self) -> set[int]:
        """The devices that must be isolated, reset or rebooted."""
        return {index for index, reasons in self.reasons.items() if reasons[0][0] > Word.WATCH}

    @property
    def uncompared(self) -> list[int]:
        """The devices, without faulty ones, that share no quantity and no kind of fingerprint with enough others."""
        kinds: dict[str, set[int]] = defaultdict(set)
        for index, device in enumerate(self.devices):
            for made in device.fingerprints.values():
                kinds[_kind(made)].add(index)
        groups = [*kinds.values(), *({*entry.values} for entry in self.quantities)]
        compared = {index for group in groups if len(group) >= LEAST_DEVICES for index in group}
        return [index for index in range(len(self.devices)) if index not in compared | self.faulty]

    @property
    def exit_code(self) -> ExitCode:
        """1 if a device is faulty or the whole fleet has a problem, 5 if a device could not be compared."""
        if self.problems or self.faulty:
            return ExitCode.FAILED
        return ExitCode.CANNOT_TELL if self.uncompared else ExitCode.PASSED


def judge_fleet(
    devices: Sequence[Device], configurations: Mapping[str, Configuration], allowed: Collection[str] = ()
) -> Judged:
    """Judge every device by the gates and by comparison with others of its kind; ``allowed`` ids may be "not run"."""
    found = {index: list(_hardware_reasons(device)) for index, device in enumerate(devices)}
    explained = {index for index, those in found.items() if {Word.RESET, Word.REBOOT} & {word for word, _ in those}}
    failed, problems = _failed_gates(devices, configurations, allowed)
    silent = [index for index, device in enumerate(devices) if device.last_log_line and index not in explained]
    if silent and 2 * len(silent) >= len(devices):
        which, line = few([str(devices[index]) for index in silent]), devices[silent[0]].last_log_line
        problems.insert(0, f"a process left no record on {len(silent)} of {len(devices)} devices ({which}): {line}")
    else:
        for index in silent:
            found[index].append((Word.ISOLATE, f"a process left no record: {devices[index].last_log_line}"))
    for index, finding in failed:
        lost = finding.exit_code is ExitCode.MACHINE or finding.verdict is Verdict.NOT_RUN
        if not (lost and index in explained):
            found[index].append((Word.ISOLATE, f"{finding.configuration} {finding.verdict}: {finding.reason}"))
    compared = quantities(devices)
    for index, entry in odd_devices(compared):
        word = Word.ISOLATE if entry.of == "score" else Word.WATCH
        value, median = map(entry.text, (entry.values[index], entry.median))
        found[index].append((word, f"{entry.title} {value}, the fleet's median is {median}"))
    fingerprints, odd, undecided = _fingerprints(devices)
    for index in odd:
        found[index].append((Word.ISOLATE, f"its fingerprint differs from the others': {fingerprints[index]}"))
    # Several gates of one run may have failed for the same reason.
    named = {index: sorted(dict.fromkeys(those), key=lambda its: -its[0]) for index, those in found.items() if those}
    return Judged(devices, named, [*problems, *undecided], compared, fingerprints)


def _hardware_reasons(device: Device) -> Iterator[Reason]:
    """Reasons that do not depend on other devices."""
    for xid in sorted(device.xids):
        yield word_of(xid), f"Xid {xid}"
    if count := device.count("ecc_uncorrected"):
        yield Word.ISOLATE, f"uncorrected ECC errors: {count}"
    if count := device.count("remapped_rows"):
        yield Word.RESET, f"rows of memory remapped, which a reset completes: {count}"


def quantities(devices: Sequence[Device]) -> list[Quantity]:
    """All quantities by which devices of the same kind are compared: means over the runs, and error counts.

    The mean of all speeds, each relative to the fleet's median, gets half of the error: a slow device is slow in all
    runs, and the mean has less noise. The other quantities share the other half.
    """
    found: list[Quantity] = []
    kinds: dict[str, dict[int, Device]] = defaultdict(dict)  # each device with its runs of that kind
    for index, device in enumerate(devices):
        for run in device.runs:
            record, made_by = run.record, run.record.environment
            if record.status == "completed":  # other records may lack the data, or even the device
                of = f"{record.profile}, {record.data.kind} data"
                members = kinds[f", {made_by.device_name}, {made_by.precision}, {made_by.mode}, {of}"]
                members.setdefault(index, replace(device, runs=[])).runs.append(run)
    for kind, members in kinds.items():
        if len(members) == 1:
            continue  # nothing to compare with
        suffix = kind if len(kinds) > 1 else ""
        samples: dict[tuple[str, str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for index, device in members.items():
            for phase, record, findings in device.runs:
                scores = {finding.gate.metric: finding.value for finding in findings}
                for metric, value in (*scores.items(), (_SPEED, record.timing.samples_per_s)):
                    if value is not None:
                        samples[phase and f", {phase}", record.configuration, metric][index].append(value)
        single, speeds = [], defaultdict(list)
        for (phase, configuration, metric), values in samples.items():
            means = {index: fmean(seeds) for index, seeds in values.items()}
            title, margin = f"{words(metric)} of {configuration}{phase}{suffix}", (MARGINS | COST_MARGINS)[metric]
            single.append(Quantity(title, metric, "rate" if metric == _SPEED else "score", margin, means))
            for index, value in means.items() if metric == _SPEED else ():
                speeds[index].append(math.log(value / single[-1].median))
        for name, margin in ERRORS.items():
            counts = {index: count for index, device in members.items() if (count := device.count(name)) is not None}
            if any(counts.values()):
                single.append(Quantity(f"{words(name)}{suffix}", name, "error", margin, counts))
        if speeds:
            relative = {index: math.exp(fmean(logs)) for index, logs in speeds.items()}
            title, margin = f"speed over all runs{suffix}", COST_MARGINS[_SPEED]
            if len(rates := [entry for entry in single if entry.of == "rate"]) == 1:
                single.remove(rates[0])  # the same as the speed over all runs
            found.append(Quantity(title, _SPEED, "speed", margin, relative, weight=max(len(single), 1)))
        found += single
    return found


def _failed_gates(
    devices: Sequence[Device], configurations: Mapping[str, Configuration], allowed: Collection[str]
) -> tuple[list[tuple[int, Finding]], list[str]]:
    """Gates that a minority of devices did not pass, by device index, and those that most did not pass, as messages.

    Every device is expected to have the runs that most devices have.
    """
    own: list[dict[tuple[str, str, int], list[Finding]]] = []
    for entry in devices:
        own.append(defaultdict(list))
        for run in entry.runs:  # may have been repeated, for example on another day
            own[-1][run.phase, run.record.configuration, run.record.seed] += run.findings
    counts = Counter(run for runs in own for run in runs)
    phases = Counter(phase for runs in own for phase in {run[0] for run in runs})
    expected = [run for run, count in counts.items() if 2 * count > phases[run[0]]]
    gates: dict[tuple[str, str, str], dict[int, Finding]] = defaultdict(dict)
    for index, runs in enumerate(own):
        for key in dict.fromkeys([*runs, *expected] if runs else ()):
            phase, name, seed = key
            repeats = runs[key] if key in runs else judge_run(None, configurations[name], seed)
            for finding in [entry for entry in repeats if entry.verdict is not Verdict.NOT_RUN] or repeats:
                worst = gates[phase, name, finding.gate.metric]
                tolerated = finding.verdict is Verdict.NOT_RUN and name in allowed
                if not tolerated and (index not in worst or worst[index].verdict is Verdict.PASSED):
                    worst[index] = finding
    failed, problems = [], []
    for (phase, name, metric), worst in gates.items():
        if not worst:  # not run on any device, as is tolerated
            continue
        objections = [(index, finding) for index, finding in worst.items() if finding.verdict is not Verdict.PASSED]
        if 2 * len(objections) < len(worst):
            failed += objections
        else:
            place, count = f"{name} {phase}".strip(), f"{len(objections)} of {len(worst)}"
            problems.append(f"{place}: {words(metric)} not passed on {count} devices: {objections[0][1].reason}")
    return failed, problems


def _kind(found: Fingerprint) -> str:
    return str(found.environment.get("device_name"))


def _fingerprints(devices: Sequence[Device]) -> tuple[dict[int, str], set[int], list[str]]:
    """How each device's fingerprint compares with the majority of its kind, the odd devices, and the problems."""
    texts: dict[int, str] = {}
    odd, problems, envelope = set(), [], read_envelope()
    made = {key: found for device in devices for key, found in device.fingerprints.items()}
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for device in devices:
        for key in device.fingerprints:
            kinds[_kind(made[key])][key] += 1
    for kind, counts in kinds.items():
        if counts.total() == 1:
            continue  # nothing to compare with
        # Equal fingerprints are compared once, as there may be thousands.
        majority, pairs = compare_all({key: made[key] for key, _ in counts.most_common()}, counts, envelope)
        if not majority:
            problems.append(f"the fingerprints of {kind} have no majority: cannot tell which is odd")
            continue
        compared = {key: against_majority(key, majority, pairs)[1] for key in counts}
        for index, device in enumerate(devices):
            for found in (compared[key] for key in device.fingerprints if key in compared):
                if index not in texts or not found.verdict.agrees:
                    texts[index] = str(found)
                odd.update([index] if found.verdict.exit_code is ExitCode.FAILED else [])
    return texts, odd, problems
