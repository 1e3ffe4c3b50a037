"""Which devices of a fleet are odd, why, and one word for what to do with each."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

from benchmarks.errors import ExitCode
from benchmarks.fingerprint.comparison import compare, read_envelope
from benchmarks.fleet.devices import Device
from benchmarks.fleet.outliers import LEAST_DEVICES, Quantity, odd_devices
from benchmarks.results.formatting import words
from benchmarks.results.gates import Finding, Verdict, judge_run
from benchmarks.results.hardware import THROTTLED_SHARE, Word, word_of
from benchmarks.suite import COST_MARGINS, ERROR_MARGIN, MARGINS, Configuration, Margin

_SPEED = "samples_per_s"
ERRORS = dict.fromkeys(("ecc_corrected", "pcie_replays", "nvlink_errors"), ERROR_MARGIN)
ERRORS["throttled_share"] = Margin(THROTTLED_SHARE, more_is_better=False)
Reason = tuple[Word, str]


@dataclass(frozen=True)
class Judged:
    """A fleet and what was found.

    Attributes:
        reasons: of each odd device, the gravest first.
        problems: what is wrong, and with no single device, such as a gate that most of them missed.
        fingerprints: how each device's compares with that of most.
    """

    devices: Sequence[Device]
    reasons: Mapping[int, Sequence[Reason]]
    problems: Sequence[str]
    quantities: Sequence[Quantity]
    fingerprints: Mapping[int, str]

    @property
    def odd(self) -> list[int]:
        """The devices that are, the gravest first."""
        return sorted(self.reasons, key=lambda place: -self.reasons[place][0][0])

    @property
    def told(self) -> bool:
        """Whether there was anything to tell an odd device by."""
        return max([len(self.fingerprints), *(len(entry.values) for entry in self.quantities)]) >= LEAST_DEVICES

    @property
    def exit_code(self) -> ExitCode:
        """1 for a device to isolate, reset or reboot, or a problem of all; 5 where too few devices can be compared."""
        if self.problems or any(reasons[0][0] > Word.WATCH for reasons in self.reasons.values()):
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
        if not (finding.exit_code is ExitCode.MACHINE and explained):
            found[place].append((Word.ISOLATE, f"{finding.configuration} {finding.verdict}: {finding.reason}"))
    compared = quantities(devices)
    for place, entry in odd_devices(compared):
        word = Word.ISOLATE if entry.of == "score" else Word.WATCH
        value, median = map(entry.text, (entry.values[place], entry.median))
        found[place].append((word, f"{entry.title} {value}, the fleet's median is {median}"))
    fingerprints, odd, undecided = _fingerprints(devices)
    for place in odd:
        found[place].append((Word.ISOLATE, f"its fingerprint is not that of the others: {fingerprints[place]}"))
    # Two gates of a run that failed have one reason.
    reasons = {place: sorted(dict.fromkeys(those), key=lambda reason: -reason[0]) for place, those in found.items()}
    named = {place: those for place, those in reasons.items() if those}
    return Judged(devices, named, [*problems, *undecided], compared, fingerprints)


def _hardware_reasons(device: Device) -> Iterator[Reason]:
    """What needs no other device to be judged by."""
    if device.left:
        yield Word.ISOLATE, f"it left no record and no fingerprint: {device.left}"
    for xid in sorted({xid for told in device.hardware for xid in told.xids or ()}):
        yield word_of(xid), f"Xid {xid}"
    if count := device.count("ecc_uncorrected"):
        yield Word.ISOLATE, f"uncorrected ECC errors: {count}"
    if count := device.count("remapped_rows"):
        yield Word.RESET, f"rows of memory remapped, which a reset completes: {count}"


def quantities(devices: Sequence[Device]) -> list[Quantity]:
    """All that the devices of a kind are compared by: means over the seeds, and counted errors.

    The mean of all speeds, each divided by the fleet's median, has half of the error: a slow device is slow in all, and
    the mean is less noisy. The rest shares the other half.
    """
    found: list[Quantity] = []
    kinds: dict[str, dict[int, Device]] = defaultdict(dict)
    for place, device in enumerate(devices):
        for made_on in [run.record.environment for run in device.runs[:1]]:
            kinds[f", {made_on.device_name}, {made_on.precision}, {made_on.mode}"][place] = device
    for kind, members in kinds.items():
        suffix = kind if len(kinds) > 1 else ""
        samples: dict[tuple[str, str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for place, device in members.items():
            for phase, record, findings in device.runs:
                scores = {finding.gate.metric: finding.value for finding in findings}
                for metric, value in (*scores.items(), (_SPEED, record.timing.samples_per_s)):
                    if value is not None and record.status == "completed":
                        samples[phase and f", {phase}", record.configuration, metric][place].append(value)
        single, speeds = [], defaultdict(list)
        for (phase, configuration, metric), values in samples.items():
            means = {place: fmean(seeds) for place, seeds in values.items()}
            title, margin = f"{words(metric)} of {configuration}{phase}{suffix}", (MARGINS | COST_MARGINS)[metric]
            single.append(Quantity(title, metric, "rate" if metric == _SPEED else "score", margin, means))
            for place, value in means.items() if metric == _SPEED else ():
                speeds[place].append(math.log(value / single[-1].median))
        for name, margin in ERRORS.items():
            counts = {place: count for place, device in members.items() if (count := device.count(name)) is not None}
            if any(counts.values()):
                single.append(Quantity(f"{words(name)}{suffix}", name, "error", margin, counts))
        if speeds:
            relative = {place: math.exp(fmean(logs)) for place, logs in speeds.items()}
            title, margin = f"speed over all runs{suffix}", COST_MARGINS[_SPEED]
            if len(rates := [entry for entry in single if entry.of == "rate"]) == 1:
                single.remove(rates[0])  # it is that of all runs
            found.append(Quantity(title, _SPEED, "speed", margin, relative, weight=max(len(single), 1)))
        found += single
    return found


def _missed_gates(
    devices: Sequence[Device], configurations: Mapping[str, Configuration], allowed: Collection[str]
) -> tuple[list[tuple[int, Finding]], list[str]]:
    """What a device missed and most others passed, by device; what most did not pass, as sentences.

    A run that most of the devices have is expected of all.
    """
    own = [{(run.phase, run.record.configuration, run.record.seed): run for run in entry.runs} for entry in devices]
    had = Counter(run for runs in own for run in runs)
    phases = Counter(phase for runs in own for phase in {run[0] for run in runs})
    expected = [run for run, times in had.items() if 2 * times > phases[run[0]]]
    gates: dict[tuple[str, str, str], dict[int, Finding]] = defaultdict(dict)
    for place, runs in enumerate(own):
        for key in dict.fromkeys([*runs, *expected] if runs else ()):
            phase, name, seed = key
            for finding in runs[key].findings if key in runs else judge_run(None, configurations[name], seed):
                worst = gates[phase, name, finding.gate.metric]
                tolerated = finding.verdict is Verdict.NOT_RUN and name in allowed
                if not tolerated and (place not in worst or worst[place].verdict is Verdict.PASSED):
                    worst[place] = finding
    missed, problems = [], []
    for (phase, name, metric), worst in gates.items():
        objections = [(place, finding) for place, finding in worst.items() if finding.verdict is not Verdict.PASSED]
        if 2 * len(objections) < len(worst):
            missed += objections
        else:
            many = f"{name} {phase}: {words(metric)} not passed on {len(objections)} of {len(worst)} devices"
            problems.append(f"{many}: {objections[0][1].reason}".replace(" :", ":"))
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
        for most, _ in counts.most_common():  # equal ones are compared once: there may be thousands
            compared = {key: compare(made[most], made[key], envelope) for key in counts}
            if 2 * sum(counts[key] for key in counts if compared[key].verdict.agrees) > counts.total():
                break
        else:
            compared = {}
            problems.append(f"no majority among the fingerprints of {kind}: which is the odd one cannot be told")
        for place, device in enumerate(devices):
            for found in (compared[key] for key in device.fingerprints if key in compared):
                if place not in texts or not found.verdict.agrees:
                    texts[place] = str(found)
                odd.update([place] if found.verdict.exit_code is ExitCode.FAILED else [])
    return texts, odd, problems
