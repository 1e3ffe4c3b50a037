"""The suite's detectors, applied to three new runs and a reference of twenty clean ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from benchmarks.results.statistics import Change, Evidence, changes, evidence
from benchmarks.suite import MARGINS
from hw6core import losses
from hw6core.steps import Loss
from hw6core.tasks import unit_range

Runs = Sequence[Run]
_FINGERPRINT_STEPS, _FINGERPRINT_BATCH = 20, 2


def below_gate(old: Runs, new: Runs) -> bool:
    """Whether any run did not finish, or is no better than the best constant answer."""
    gates, bound = TRAININGS[new[0].training].gates, trainings.trivial(new[0].training)
    return any(not (run.metrics and gate.passes(run.metrics[gate.metric], bound)) for run in new for gate in gates)


def below_floor(old: Runs, new: Runs) -> bool:
    """Whether any run is no better than a look-up in the training split."""
    gates, bound = TRAININGS[new[0].training].gates, trainings.floor(new[0].training)
    scores = [(gate, run.metrics[gate.metric]) for run in new if run.metrics for gate in gates]
    return any(not gate.better(score, bound[gate.metric]) for gate, score in scores)


def _evidences(old: Runs, new: Runs) -> list[Evidence]:
    """The evidence on every metric with a gate; empty if no new run finished."""
    old, new = ([run for run in side if run.metrics] for side in (old, new))
    found = []
    for gate in TRAININGS[new[0].training].gates if new else ():
        before, after = ({run.seed: run.metrics[gate.metric] for run in side} for side in (old, new))
        found.append(evidence(before, after, MARGINS[gate.metric], shuffle=True))
    return found


def other_scores(old: Runs, new: Runs) -> bool:
    """Whether any final score is worse than the reference, or better than possible."""
    return any(verdict in (Change.WORSE, Change.BETTER) for verdict in changes(_evidences(old, new)))


def reference_p(old: Runs, new: Runs) -> float:
    """The p value of "nothing became worse", with Holm's correction; 0 if no run finished."""
    values = [entry.p_below(0.0) for entry in _evidences(old, new)]
    return min([1.0, len(values) * min(values)]) if values else 0.0


def other_curves(old: Runs, new: Runs) -> bool:
    """Whether the learning curves differ, and the final scores are not all no worse."""
    sides = [{run.seed: run.learning_curve() for run in side if run.metrics} for side in (old, new)]
    if not sides[1] or not deviations({"training": (sides[0], sides[1])})[0]:
        return False
    return any(verdict is not Change.NO_WORSE for verdict in changes(_evidences(old, new)))


DETECTORS: Mapping[str, Callable[[Runs, Runs], bool]] = {
    "gate": below_gate,
    "floor": below_floor,
    "reference": other_scores,
    "curves": other_curves,
}


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
