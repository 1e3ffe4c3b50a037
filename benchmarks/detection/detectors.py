"""The suite's detectors, applied to three new runs and a reference of twenty clean ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from benchmarks.detection import trainings
from benchmarks.detection.faults import Fault, Site, sound
from benchmarks.detection.trainings import TRAININGS, Run
from benchmarks.fingerprint.comparison import first_difference
from benchmarks.fingerprint.record import Network
from benchmarks.fingerprint.training import train
from benchmarks.results.curves import deviations
from benchmarks.results.statistics import Change, changes, evidence
from benchmarks.suite import MARGINS
from hw6core import losses
from hw6core.steps import Loss
from hw6core.tasks import unit_range

Runs = Sequence[Run]
DETECTORS = ("gate", "floor", "reference", "curves")
_FINGERPRINT_STEPS, _FINGERPRINT_BATCH = 20, 2


@dataclass(frozen=True)
class Trial:
    """Which detectors found a fault in a set of new runs, and the p value of the reference's test."""

    found_by: Mapping[str, bool]
    reference_p: float  # of "nothing became worse", with Holm's correction; 0 if no run finished

    @property
    def found(self) -> bool:
        return any(self.found_by.values())


def detect(old: Runs, new: Runs) -> Trial:
    """Compare new runs with a reference of clean ones by every detector but the fingerprint."""
    name = new[0].training
    gates, constant, look_up = TRAININGS[name].gates, trainings.trivial(name), trainings.floor(name)
    before, after = ([run for run in side if run.metrics] for side in (old, new))
    if not after:
        return Trial(dict.fromkeys(DETECTORS, False) | {"gate": True}, 0.0)
    found = []
    for metric in (gate.metric for gate in gates):
        was, is_now = ({run.seed: run.metrics[metric] for run in side} for side in (before, after))
        found.append(evidence(was, is_now, MARGINS[metric], shuffle=True))
    verdicts = changes(found)
    old_curves, new_curves = ({run.seed: run.learning_curve() for run in side} for side in (before, after))
    differing, _ = deviations({"training": (old_curves, new_curves)})
    scores = [(gate, run.metrics[gate.metric]) for run in after for gate in gates]
    found_by = {
        "gate": len(after) < len(new) or not all(gate.passes(score, constant) for gate, score in scores),
        "floor": not all(gate.better(score, look_up[gate.metric]) for gate, score in scores),
        "reference": any(verdict in (Change.WORSE, Change.BETTER) for verdict in verdicts),
        "curves": bool(differing) and any(verdict is not Change.NO_WORSE for verdict in verdicts),
    }
    return Trial(found_by, min(1.0, len(found) * min(entry.p_below(0.0) for entry in found)))


@cache
def fingerprint(fault: Fault) -> Network:
    """The suite's fingerprint of a small network with a fault: a few steps on fixed data from fixed weights."""

    def batch(step: int) -> tuple[Tensor, Tensor]:
        chosen = slice(step * _FINGERPRINT_BATCH, (step + 1) * _FINGERPRINT_BATCH)
        inputs = unit_range(split.inputs[chosen])
        return inputs.expand(-1, 3, -1, -1).contiguous(), split.targets[chosen].long()

    model: nn.Module
    loss: Loss
    with fault.patches():
        if fault.training == "segmentation":
            model, loss, split = trainings.small_unet(4), losses.DiceLoss(), trainings.frames()["train"]
        else:
            model, loss, split = trainings.small_classifier(), losses.cross_entropy, trainings.garments()["train"]
        if not fault.set_up:
            fault.enter(Site(model, fault.draws(0), _FINGERPRINT_STEPS))
        return train(model, loss, batch, 0.05, torch.device("cpu"), _FINGERPRINT_STEPS)


def difference(fault: Fault) -> str:
    """The first difference between the fingerprints with and without a fault; "" if there is none."""
    found = first_difference("it", fingerprint(sound(fault.training)), fingerprint(fault))
    return str(found) if found else ""
