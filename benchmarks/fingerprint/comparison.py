"""Comparison of fingerprints: identical, benign drift, different without a cause, or harm. Needs no torch.

Digests decide equality. Losses and norms decide the size of a difference: they may deviate as much as between runs with
benign causes only, times a factor (`Envelope`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from benchmarks.errors import ExitCode
from benchmarks.fingerprint.record import DIGITS, STEPS, VERSION, Fingerprint, Network, Place, read_fingerprint

ENVELOPE = Path(__file__).with_name("envelope.json")
# Fields of an environment that may change bits without harm; those of the CPU do not change what a GPU computes.
_CPU_CAUSES = ("threads", "cpu_capability", "kernels")
CAUSES = ("device_name", *_CPU_CAUSES, "torch", "cuda", "cudnn", "driver")
_LEAST = 2.0**-23  # float32's rounding: the envelope is never narrower


class Verdict(StrEnum):
    """The result of a comparison."""

    IDENTICAL = "identical"
    BENIGN = "benign drift"
    DIFFERS = "differs"  # inside the envelope, but no difference of the environments explains it
    HARM = "harm"
    UNCLEAR = "cannot tell"

    @property
    def exit_code(self) -> ExitCode:
        if self.agrees:
            return ExitCode.PASSED
        return ExitCode.CANNOT_TELL if self is Verdict.UNCLEAR else ExitCode.FAILED

    @property
    def agrees(self) -> bool:
        return self in (Verdict.IDENTICAL, Verdict.BENIGN)


class Envelope(Struct):
    """The largest deviations between benign runs, which were compared pair by pair."""

    version: int
    factor: float  # how many times as large other deviations may be
    runs: int
    causes: dict[str, list[Any]]  # the values of `CAUSES` in the runs
    deviations: dict[str, dict[str, list[float]]]  # of each network, see `deviations`


@dataclass(frozen=True)
class Difference:
    """The first tensor, in the order of computation, whose bits differ.

    Attributes:
        step: from 1; a parameter that differs in the phase "forward" was changed by the step before, or since then.
        ulps: the sum of the differences of all values in units in the last place; 0 if they cancel. Flipping bit b of
            one value makes a difference of 2**b.
    """

    network: str
    step: int
    place: Place
    ulps: int

    def __str__(self) -> str:
        phase, layer, tensor = self.place
        what = tensor if phase == "forward" else f"gradient of its {tensor}"
        size = f"{self.ulps:,} units in the last place" if self.ulps else "units in the last place that cancel out"
        return f"{self.network} first differs at step {self.step}, layer {layer}, {phase} ({what}), by {size}"


@dataclass(frozen=True)
class Comparison:
    """A verdict, its reason, and the first difference of each network."""

    verdict: Verdict
    reason: str = ""
    differences: Sequence[Difference] = ()

    def __str__(self) -> str:
        return "; ".join([f"{self.verdict}{f': {self.reason}' if self.reason else ''}", *map(str, self.differences)])


Pairs = Mapping[frozenset[str], Comparison]


def compare(old: Fingerprint, new: Fingerprint, envelope: Envelope) -> Comparison:
    """Compare a fingerprint with an older one, or with that of another machine."""
    if reason := _incomparable(old, new, envelope):
        return Comparison(Verdict.UNCLEAR, reason)
    first = (first_difference(name, network, new.networks[name]) for name, network in old.networks.items())
    differences = [found for found in first if found]
    if not differences:
        return Comparison(Verdict.IDENTICAL)
    share, where = largest_share(old, new, envelope)
    causes = [
        f"{cause} {_text(old.environment.get(cause))} / {_text(new.environment.get(cause))}"
        for cause in CAUSES
        if old.environment.get(cause) != new.environment.get(cause)
        and (cause not in _CPU_CAUSES or new.environment.get("device") == "cpu")
    ]
    size = where if share else "no loss and no norm differs"
    text = f"{size}; the environments differ in {', '.join(causes) or 'nothing that explains it'}"
    if share > 1:
        if old.environment.get("device") != new.environment.get("device"):
            return Comparison(Verdict.UNCLEAR, f"the envelope covers one kind of device only; {text}", differences)
        return Comparison(Verdict.HARM, f"outside the envelope: {text}", differences)
    return Comparison(Verdict.BENIGN if causes else Verdict.DIFFERS, f"inside the envelope: {text}", differences)


def largest_share(old: Fingerprint, new: Fingerprint, envelope: Envelope) -> tuple[float, str]:
    """The largest deviation as a share of the allowed one (above 1: outside the envelope), and its description."""
    return max(
        (deviation / allowed, f"{name}, {quantity}, step {step}: {deviation:.1e} of {allowed:.1e}")
        for name, network in old.networks.items()
        for quantity, found in deviations(network, new.networks[name]).items()
        for deviation, (step, allowed) in zip(found, _allowed(envelope, name, quantity).items(), strict=False)
    )


def _incomparable(old: Fingerprint, new: Fingerprint, envelope: Envelope) -> str:
    """Why two fingerprints cannot be compared; empty if they can."""
    versions = {old.version, new.version, envelope.version}
    if versions != {VERSION}:
        return f"the fingerprints and the envelope have versions {sorted(versions)}, expected {VERSION}"
    if not old.networks.keys() == new.networks.keys() <= envelope.deviations.keys():
        return "the fingerprints or the envelope have different networks"
    for name, network in old.networks.items():
        other = new.networks[name]
        if network.start != other.start:
            return f"{name} started from different weights or data"
        if (network.places, len(network.loss)) != (other.places, len(other.loss)):
            return f"{name} has different layers or steps"
    return ""


def first_difference(name: str, old: Network, new: Network) -> Difference | None:
    """The first difference between two trainings of a network."""
    for step, (before, now) in enumerate(zip(old.digests, new.digests, strict=True), start=1):
        if before != now:
            at = next(at for at in range(0, len(now), DIGITS) if before[at : at + DIGITS] != now[at : at + DIGITS])
            first, second = (int(digests[at + DIGITS // 2 : at + DIGITS], 16) for digests in (before, now))
            ulps = (second - first) % 2**32
            return Difference(name, step, old.places[at // DIGITS], min(ulps, 2**32 - ulps))
    return None


def deviations(old: Network, new: Network) -> dict[str, list[float]]:
    """Relative deviations between two trainings of a network; infinite for values that are not finite.

    Returns:
        For every step those of the loss and of the norm of all gradients; for each of `STEPS` the largest deviation of
        any layer's norm of outputs, gradients and weights, relative to the norm over all layers. A layer's own norm can
        be almost zero, for instance of gradients that cancel before a batch norm.
    """
    found = {}
    for quantity in ("loss", "gradient_norm"):
        before, now = (np.array(getattr(side, quantity), np.float64) for side in (old, new))
        found[quantity.replace("_", " ")] = _relative(np.abs(before - now), np.maximum(np.abs(before), np.abs(now)))
    kinds = [
        "gradients" if phase == "backward" else "outputs" if tensor == "output" else "weights"
        for phase, _, tensor in old.places
    ]
    recorded = sum(step <= len(old.loss) for step in STEPS)
    before, now = (np.array(side.norms, np.float64)[:, :recorded] for side in (old, new))
    for kind in dict.fromkeys(kinds):
        rows = np.array(kinds) == kind
        found[kind] = _relative(np.abs(before - now)[rows].max(0), np.linalg.norm(before[rows], axis=0))
    return found


def _relative(difference: npt.NDArray[np.float64], size: npt.NDArray[np.float64]) -> list[float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(difference == 0, 0.0, difference / size)
    found: list[float] = np.nan_to_num(shares, nan=np.inf, posinf=np.inf).tolist()
    return found


def _allowed(envelope: Envelope, name: str, quantity: str) -> dict[int, float]:
    """The allowed deviation at each step: the largest one seen until twice as many steps, times the factor.

    Rounding errors jump when a ReLU or a pooling switches, at a different step in every run; and two losses that
    deviated may cross later.
    """
    steps = range(1, max(STEPS) + 1) if quantity in ("loss", "gradient norm") else STEPS
    seen = dict(zip(steps, envelope.deviations[name][quantity], strict=False))
    until = {step: [seen[other] for other in seen if other <= 2 * step] for step in seen}
    return {step: envelope.factor * max(*values, _LEAST) for step, values in until.items()}


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={entry}" for name, entry in value.items()) or "default"
    return "none" if value is None else str(value)


def read_envelope() -> Envelope:
    """The envelope in this package."""
    return msgspec.json.decode(ENVELOPE.read_bytes(), type=Envelope)


def judge_files(paths: Sequence[Path], *, asked: bool) -> tuple[list[str], ExitCode]:
    """Compare fingerprints, the newest last: one line with the verdict, then one for each difference.

    Args:
        asked: whether the user asked for a comparison; a single fingerprint then means "cannot tell".

    Raises:
        DataError: one of them cannot be read.
    """
    unique = {path.resolve(): path for path in paths}.values()
    found = {str(path): read_fingerprint(path) for path in unique}
    if len(found) == 1:
        ((name, only),) = found.items()
        code = ExitCode.CANNOT_TELL if asked else ExitCode.PASSED
        return [f"{name}: made {only.made_at}, no other one to compare with"], code
    envelope = read_envelope()
    if len(found) > 2:
        return judge_several(found, envelope)
    (old_name, old), (name, new) = found.items()
    comparison = compare(old, new, envelope)
    verdict = replace(comparison, differences=())  # each difference gets its own line
    line = f"{name} (made {new.made_at}) against {old_name} (made {old.made_at}): {verdict}"
    return [line, *map(str, comparison.differences)], comparison.verdict.exit_code


def judge_several(found: Mapping[str, Fingerprint], envelope: Envelope) -> tuple[list[str], ExitCode]:
    """Name the odd ones among several fingerprints.

    Returns:
        Lines to print, and the exit code: 1 for harm or a difference without a cause, 5 for "cannot tell".
    """
    majority, pairs = compare_all(found, dict.fromkeys(found, 1), envelope)
    differing = {pair: comparison for pair, comparison in pairs.items() if not comparison.verdict.agrees}
    code = min((comparison.verdict.exit_code for comparison in differing.values()), default=ExitCode.PASSED)
    if not majority:
        lines = [f"{' and '.join(sorted(pair))}: {comparison}" for pair, comparison in differing.items()]
        return [f"no majority among {len(found)} fingerprints: cannot tell which one is odd", *lines], code
    lines = [f"{len(majority)} of {len(found)} fingerprints agree"]
    for name in (name for name in found if name != majority[0]):
        other, comparison = against_majority(name, majority, pairs)
        lines.append(f"{'' if name in majority else 'odd one out: '}{name} (against {other}): {comparison}")
    return lines, code


def compare_all(
    found: Mapping[str, Fingerprint], counts: Mapping[str, int], envelope: Envelope
) -> tuple[list[str], Pairs]:
    """Compare fingerprints pair by pair; ``counts``: how many machines made each.

    Returns:
        The names of the majority: those that differ from most others are left out until the rest agree with each other;
        empty if these are not more than half of all. And every comparison.
    """
    pairs = {
        frozenset((one, other)): compare(found[one], found[other], envelope) for one, other in combinations(found, 2)
    }
    differing = {pair for pair, comparison in pairs.items() if not comparison.verdict.agrees}
    majority = list(found)
    while True:
        differs_from = {
            name: sum(counts[other] for other in majority if frozenset((name, other)) in differing) for name in majority
        }
        if not (most := max(differs_from.values(), default=0)):
            break
        majority = [name for name in majority if differs_from[name] < most]
    is_most = 2 * sum(counts[name] for name in majority) > sum(counts.values())
    return majority if is_most else [], pairs


def against_majority(name: str, majority: Sequence[str], pairs: Pairs) -> tuple[str, Comparison]:
    """The majority's first fingerprint and the comparison with it; for an odd one, one that it differs from."""
    if name in majority:
        return majority[0], pairs.get(frozenset((majority[0], name)), Comparison(Verdict.IDENTICAL))
    differing = (pair for pair, comparison in pairs.items() if name in pair and not comparison.verdict.agrees)
    (other,) = min(differing, key=lambda pair: not pair & {*majority}) - {name}
    return other, pairs[frozenset((other, name))]
