"""Evaluation of the trainings: which faults do harm, which detectors found them, and how many false alarms."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, variance
from typing import Any

from benchmarks.detection import trainings
from benchmarks.detection.detectors import Trial, detect, difference
from benchmarks.detection.faults import FAULTS, Fault, sound
from benchmarks.detection.trainings import TRAININGS, Run
from benchmarks.suite import MARGINS

SET, REFERENCE = 3, 20  # number of new runs that are judged together, and of clean runs in their reference


class Truth(StrEnum):
    """Whether a metric's mean dropped by more than its margin, beyond the standard error."""

    HARMFUL = "harmful"
    HARMLESS = "not harmful"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Row:
    """The results of one fault at one strength."""

    fault: Fault
    truth: Truth
    drop: tuple[float, float]  # of the metric that dropped most, in units of its margin, and its standard error
    runs: int
    diverged: int  # the number of runs that did not finish
    trials: Sequence[Trial]
    fingerprint: bool  # whether it differs

    @property
    def in_fingerprint(self) -> bool:
        """Whether a fingerprint finds it; one made at another time does not contain a fault that happens once."""
        return self.fingerprint and not self.fault.once

    @property
    def found(self) -> int:
        """Number of sets in which any detector found the fault."""
        return sum(self.in_fingerprint or trial.found for trial in self.trials)


def truth(faulty: Sequence[Run], clean: Sequence[Run]) -> tuple[Truth, tuple[float, float]]:
    """Whether a fault does harm; a run that did not finish counts as the best constant answer.

    Returns:
        The truth, and the largest drop of a metric and its standard error, in margins.
    """
    name, drops = clean[0].training, []
    for gate in TRAININGS[name].gates:
        margin, constant = MARGINS[gate.metric].size, trainings.trivial(name)[gate.metric]
        after, before = ([run.metrics.get(gate.metric, constant) for run in side] for side in (faulty, clean))
        error = (variance(after) / len(after) + variance(before) / len(before)) ** 0.5
        drops.append(((fmean(before) - fmean(after)) / margin, error / margin))
    if any(drop - 1 > error for drop, error in drops):
        return Truth.HARMFUL, max(drops)
    harmless = all(1 - drop > error for drop, error in drops)
    return Truth.HARMLESS if harmless else Truth.UNCLEAR, max(drops)


def rows(runs: Sequence[Run], faults: Sequence[Fault] = FAULTS) -> Iterator[Row]:
    """Evaluate each fault, in their order."""
    for fault in faults:
        clean, faulty = _of(sound(fault.training), runs), _of(fault, runs)
        trials = [_trial(clean, new, (*fault.key, number)) for number, new in enumerate(_sets(faulty))]
        diverged = sum(not run.metrics for run in faulty)
        yield Row(fault, *truth(faulty, clean), len(faulty), diverged, trials, bool(difference(fault)))


def clean_trials(runs: Sequence[Run]) -> Iterator[Trial]:
    """Trials of clean sets, each with a reference of other clean runs."""
    for name in TRAININGS:
        clean = _of(sound(name), runs)
        for number, new in enumerate(_sets(clean)):
            yield _trial([run for run in clean if run not in new], new, (name, number))


def _of(fault: Fault, runs: Sequence[Run]) -> list[Run]:
    found = [run for run in runs if (run.training, run.fault, run.strength) == fault.key]
    return sorted(found, key=lambda run: run.seed)


def _sets(runs: Sequence[Run]) -> list[Sequence[Run]]:
    return [runs[start : start + SET] for start in range(0, len(runs) - SET + 1, SET)]


def _trial(clean: Sequence[Run], new: Sequence[Run], seed: tuple[Any, ...]) -> Trial:
    old = random.Random(str(seed)).sample(clean, min(REFERENCE, len(clean)))
    return detect(old, new)
