"""What the trainings say: which faults do harm, who found them, and how often a clean set was called faulty."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, variance
from typing import Any

from benchmarks.detection.detectors import DETECTORS, reference_p
from benchmarks.detection.faults import FAULTS, Fault
from benchmarks.detection.records import Fingerprinted
from benchmarks.detection.trainings import TRAININGS, Run
from benchmarks.suite import MARGINS

SET, REFERENCE = 3, 20  # new runs that are judged together, and clean ones that they are judged by


class Truth(StrEnum):
    """Whether a metric's mean dropped by more than its margin, by more than the standard error of that."""

    HARMFUL = "harmful"
    HARMLESS = "not harmful"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Trial:
    """A set of new runs: which detectors found it, and the p value of the reference's test."""

    found: Mapping[str, bool]
    reference_p: float


@dataclass(frozen=True)
class Row:
    """One fault at one strength.

    Attributes:
        drop: of the metric that dropped most, in units of its margin; with its standard error.
        diverged: runs that did not finish.
        fingerprint: it differs.
    """

    fault: Fault
    truth: Truth
    drop: tuple[float, float]
    runs: int
    diverged: int
    trials: Sequence[Trial]
    fingerprint: bool

    def count(self, detector: str) -> int:
        return sum(trial.found[detector] for trial in self.trials)

    @property
    def in_fingerprint(self) -> bool:
        """A fingerprint does not happen to meet what happens once."""
        return self.fingerprint and not self.fault.once

    def found(self) -> int:
        """Sets that any detector found."""
        return sum(self.in_fingerprint or any(trial.found.values()) for trial in self.trials)


def truth(faulty: Sequence[Run], clean: Sequence[Run]) -> tuple[Truth, tuple[float, float]]:
    """A run that did not finish counts as the best constant answer.

    Returns:
        The truth, and the largest drop of a metric and its standard error, in margins.
    """
    training = TRAININGS[clean[0].training]
    drops = []
    for gate in training.gates:
        margin, constant = MARGINS[gate.metric].size, training.trivial()
        after, before = (
            [run.metrics.get(gate.metric, constant[gate.metric]) for run in side] for side in (faulty, clean)
        )
        error = (variance(after) / len(after) + variance(before) / len(before)) ** 0.5
        drops.append(((fmean(before) - fmean(after)) / margin, error / margin))
    if any(drop - 1 > error for drop, error in drops):
        found = Truth.HARMFUL
    else:
        found = Truth.HARMLESS if all(1 - drop > error for drop, error in drops) else Truth.UNCLEAR
    return found, max(drops)


def rows(runs: Sequence[Run], fingerprints: Sequence[Fingerprinted], faults: Sequence[Fault] = FAULTS) -> Iterator[Row]:
    """In the order of the faults."""
    differing = {(entry.training, entry.fault, entry.strength): bool(entry.difference) for entry in fingerprints}
    clean, faulty = _clean(runs), _grouped(runs)
    for fault in faults:
        key = fault.training, fault.name, fault.strength
        found, drop = truth(faulty[key], clean[fault.training])
        trials = [_trial(clean[fault.training], new, (*key, number)) for number, new in enumerate(_sets(faulty[key]))]
        diverged = sum(not run.metrics for run in faulty[key])
        yield Row(fault, found, drop, len(faulty[key]), diverged, trials, differing[key])


def clean_trials(runs: Sequence[Run]) -> list[Trial]:
    """Clean sets, each beside a reference of other clean runs."""
    return [
        _trial([run for run in clean if run not in new], new, (name, number))
        for name, clean in _clean(runs).items()
        for number, new in enumerate(_sets(clean))
    ]


def _clean(runs: Sequence[Run]) -> dict[str, list[Run]]:
    return {name: group for (name, fault, _), group in _grouped(runs).items() if not fault}


def _grouped(runs: Sequence[Run]) -> dict[tuple[str, str, str], list[Run]]:
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        groups.setdefault((run.training, run.fault, run.strength), []).append(run)
    return groups


def _sets(runs: Sequence[Run]) -> list[Sequence[Run]]:
    return [runs[start : start + SET] for start in range(0, len(runs) - SET + 1, SET)]


def _trial(clean: Sequence[Run], new: Sequence[Run], seed: tuple[Any, ...]) -> Trial:
    old = random.Random(str(seed)).sample(clean, min(REFERENCE, len(clean)))
    return Trial({name: detect(old, new) for name, detect in DETECTORS.items()}, reference_p(old, new))
