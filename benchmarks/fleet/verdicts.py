"""Which devices of a fleet are odd, why, and one word for what to do with each."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from statistics import fmean

from benchmarks.errors import ExitCode
from benchmarks.fingerprint.comparison import agreement, read_envelope
from benchmarks.fleet.devices import SHARES, Device
from benchmarks.fleet.outliers import LEAST_DEVICES, Quantity, odd_devices
from benchmarks.results.formatting import number, words
from benchmarks.results.gates import Finding, Verdict, judge_run
from benchmarks.suite import COST_MARGINS, HARDWARE_MARGINS, MARGINS, Configuration

SPEED = "samples_per_s"


class Word(IntEnum):
    """What to do with a device; of several the greatest."""

    WATCH = 1  # slow, throttled, or with far more corrected errors than the others
    RESET = 2
    REBOOT = 3
    ISOLATE = 4  # it computes wrongly, or does not finish what others do

    def __str__(self) -> str:
        return self.name.lower()


Reason = tuple[Word, str]
# By NVIDIA's catalogue, docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html, column "Resolution Bucket
# (Immediate Action)": RESET_GPU, and RESTART_BM or RESTART_VM. It leaves a choice for 48 and its details 171 and 172,
# for 64 and 157 (what could not be remapped or retired) and 54 (no auxiliary power): out of service until tested. For
# 74 it asks for a reset, for 94 for one when convenient, as docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt does for 63;
# for 110 for a cold reset of the system. All others (RESTART_APP, IGNORE) are a program's own as a rule.
XIDS: Mapping[Word, Collection[int]] = {
    Word.ISOLATE: (48, 54, 64, 157, 171, 172),
    Word.REBOOT: (79, 110, 151),
    Word.RESET: (46, 62, 63, 74, 94, 95, 109, 119, 120, 136, 140, 143, 155, 156, 158),
}


@dataclass(frozen=True)
class Judged:
    """A fleet and what was found.

    Attributes:
        reasons: of each odd device, the gravest first.
        problems: what is wrong, and with no single device, such as a gate that most of them missed.
        fingerprints: how each device's compares with that of most.
        told: whether there was anything to tell an odd device by.
    """

    devices: Sequence[Device]
    reasons: Mapping[int, Sequence[Reason]]
    problems: Sequence[str]
    quantities: Sequence[Quantity]
    fingerprints: Mapping[int, str]
    told: bool

    @property
    def odd(self) -> list[int]:
        """The devices that are, the gravest first."""
        return sorted(self.reasons, key=lambda place: -self.reasons[place][0][0])

    @property
    def exit_code(self) -> ExitCode:
        """1 for a device to isolate, reset or reboot, or a problem of all; 5 where too few devices can be compared."""
        if self.problems or any(word > Word.WATCH for reasons in self.reasons.values() for word, _ in reasons):
            return ExitCode.FAILED
        return ExitCode.PASSED if self.told else ExitCode.CANNOT_TELL


def judge_fleet(
    devices: Sequence[Device], configurations: Mapping[str, Configuration], allowed: Collection[str] = ()
) -> Judged:
    """Judge every device by the gates, and by all others of its kind; ``allowed`` ones may be "not run"."""
    found = {place: list(_hardware_reasons(device)) for place, device in enumerate(devices)}
    missed, problems = _missed_gates(devices, configurations, allowed)
    for place, finding in missed:
        explained = any(word in (Word.RESET, Word.REBOOT) for word, _ in found[place])
        if not (finding.infrastructure and explained):
            found[place].append((Word.ISOLATE, f"{finding.configuration} {finding.verdict}: {finding.reason}"))
    compared = quantities(devices)
    for place, entry in odd_devices(compared):
        value, usual = entry.values[place], entry.median
        if entry.of in ("speed", "rate"):
            reason = Word.WATCH, f"{entry.title} {1 - value / usual:.0%} below the fleet's median"
        elif entry.of == "error":
            reason = Word.WATCH, f"{entry.title}: {value:.3g}, the fleet's median is {usual:.3g}"
        else:
            texts = (number(entry.metric, score) for score in (value, usual))
            reason = Word.ISOLATE, f"{entry.title}: {next(texts)}, the fleet's median is {next(texts)}"
        found[place].append(reason)
    fingerprints, odd, undecided = _fingerprints(devices)
    for place in odd:
        found[place].append((Word.ISOLATE, f"its fingerprint is not that of the others: {fingerprints[place]}"))
    reasons = {place: sorted(dict.fromkeys(those), key=lambda reason: -reason[0]) for place, those in found.items()}
    return Judged(
        devices,
        {place: those for place, those in reasons.items() if those},
        [*problems, *undecided],
        compared,
        fingerprints,
        max([len(fingerprints), *(len(entry.values) for entry in compared)]) >= LEAST_DEVICES,
    )


def _hardware_reasons(device: Device) -> Iterator[Reason]:
    """What needs no other device to be judged by."""
    if device.left:
        yield Word.ISOLATE, f"it left no record and no fingerprint: {device.left}"
    for xid in sorted({xid for told in device.hardware for xid in told.xids or ()}):
        word = next((word for word, xids in XIDS.items() if xid in xids), Word.WATCH)
        yield word, f"Xid {xid}{'' if word > Word.WATCH else ', most often of a program'}"
    if count := device.count("ecc_uncorrected"):
        yield Word.ISOLATE, f"{count} uncorrected ECC errors"
    if count := device.count("remapped_rows"):
        yield Word.RESET, f"{count} rows of its memory remapped, which a reset completes"


def quantities(devices: Sequence[Device]) -> list[Quantity]:
    """All that the devices of a kind are compared by: means over the seeds, and counted errors.

    The mean of all speeds, each divided by the fleet's median, has half of the error: a slow device is slow in all, and
    the mean is less noisy. The rest shares the other half.
    """
    found: list[Quantity] = []
    kinds: dict[str, dict[int, Device]] = defaultdict(dict)
    for place, device in enumerate(devices):
        for _, record, _ in device.runs[:1]:
            made_on = record.environment
            kinds[f"{made_on.device_name}, {made_on.precision}, {made_on.mode}"][place] = device
    for kind, members in kinds.items():
        of_kind = kind if len(kinds) > 1 else ""
        samples: dict[tuple[str, str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for place, device in members.items():
            for phase, record, findings in device.runs:
                scores = {finding.gate.metric: finding.value for finding in findings}
                for metric, value in (*scores.items(), (SPEED, record.timing.samples_per_s)):
                    if value is not None and record.status == "completed":
                        samples[phase, record.configuration, metric][place].append(value)
        single, speeds = [], defaultdict(list)
        rates = [where for where in samples if where[2] == SPEED]
        for (phase, configuration, metric), values in samples.items():
            title = ", ".join(filter(None, (f"{words(metric)} of {configuration}", phase, of_kind)))
            means = {place: fmean(seeds) for place, seeds in values.items()}
            margin = (MARGINS | COST_MARGINS)[metric]
            entry = Quantity(title, metric, "rate" if metric == SPEED else "score", margin, means)
            for place, value in means.items() if metric == SPEED else ():
                speeds[place].append(math.log(value / entry.median))
            single += [entry] if metric != SPEED or len(rates) > 1 else []  # one alone is that of all runs
        for name, margin in HARDWARE_MARGINS.items():
            counts = {place: count for place, device in members.items() if (count := device.count(name)) is not None}
            if any(counts.values()):  # no error and one are the same: neither is "far more than the others"
                told = counts if name in SHARES else {place: max(count, 1) for place, count in counts.items()}
                single.append(Quantity(", ".join(filter(None, (words(name), of_kind))), name, "error", margin, told))
        if speeds:
            relative = {place: math.exp(fmean(logs)) for place, logs in speeds.items()}
            title = ", ".join(filter(None, ("speed over all runs", of_kind)))
            found.append(Quantity(title, SPEED, "speed", COST_MARGINS[SPEED], relative, max(len(single), 1)))
        found += single
    return found


def _missed_gates(
    devices: Sequence[Device], configurations: Mapping[str, Configuration], allowed: Collection[str]
) -> tuple[list[tuple[int, Finding]], list[str]]:
    """What a device missed and most others passed, by device; what most did not pass, as sentences.

    A run that most of the devices have is expected of all.
    """
    own = [
        {(phase, record.configuration, record.seed): found for phase, record, found in entry.runs} for entry in devices
    ]
    had, phases = (
        Counter(chain.from_iterable(own)),
        Counter(phase for runs in own for phase in {run[0] for run in runs}),
    )
    expected = [run for run, times in had.items() if 2 * times > phases[run[0]]]
    gates: dict[tuple[str, str, str], dict[int, Finding]] = defaultdict(dict)
    for place, runs in enumerate(own):
        for phase, name, seed in dict.fromkeys([*runs, *expected] if runs else ()):
            for finding in runs.get((phase, name, seed)) or judge_run(None, configurations[name], seed):
                worst = gates[phase, name, finding.gate.metric]
                tolerated = finding.verdict is Verdict.NOT_RUN and name in allowed
                if not tolerated and (place not in worst or worst[place].verdict is Verdict.PASSED):
                    worst[place] = finding
    missed, problems = [], []
    for (phase, name, metric), worst in gates.items():
        objections = [(place, finding) for place, finding in worst.items() if finding.verdict is not Verdict.PASSED]
        passed = len(worst) - len(objections)
        if objections and 2 * passed <= len(worst):
            what = " ".join(filter(None, (name, phase, words(metric))))
            problems.append(f"{what} passed on {passed} of {len(worst)} devices: {objections[0][1].reason}")
        else:
            missed += objections
    return missed, problems


def _fingerprints(devices: Sequence[Device]) -> tuple[dict[int, str], set[int], list[str]]:
    """How each device's compares with that of most of its kind, in words; who is odd; where there is no majority."""
    texts: dict[int, str] = {}
    odd, problems, envelope = set(), [], read_envelope()
    made = {key: found for device in devices for key, found in device.fingerprints.items()}
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for key in chain.from_iterable(device.fingerprints for device in devices):
        kinds[str(made[key].environment.get("device_name"))][key] += 1
    for kind, counts in kinds.items():
        compared = agreement({key: made[key] for key in counts}, counts, envelope)
        if compared is None:
            problems.append(f"no majority among the fingerprints of {kind}: which is the odd one cannot be told")
            continue
        for place, device in enumerate(devices):
            for found in (compared[key] for key in device.fingerprints if key in counts):
                if place not in texts or not found.verdict.agrees:
                    texts[place] = str(found)
                odd.update([place] if found.verdict.exit_code is ExitCode.FAILED else [])
    return texts, odd, problems
