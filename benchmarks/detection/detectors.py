"""Who notices: the suite's detectors, on three new runs beside a reference of twenty clean ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.detection.faults import Fault, Site
from benchmarks.detection.trainings import TRAININGS, Run, frames, garments, small_classifier, small_unet
from benchmarks.fingerprint.comparison import first_difference
from benchmarks.fingerprint.record import Network
from benchmarks.fingerprint.training import train
from benchmarks.results.curves import deviations
from benchmarks.results.statistics import Change, Evidence, changes, evidence
from benchmarks.suite import MARGINS, Gate
from hw6core import losses
from hw6core.tasks import unit_range
from hw6core.training import Split

Runs = Sequence[Run]
FINGERPRINT_STEPS = 20


def gate(new: Runs) -> bool:
    """Some run did not finish, or is no better than the best constant answer."""
    training = TRAININGS[new[0].training]
    return any(
        not (run.metrics and each.passes(run.metrics[each.metric], training.trivial())) for run, each in _each(new)
    )


def floor(new: Runs) -> bool:
    """Some run is no better than a look-up in the training split."""
    known = TRAININGS[new[0].training].floor()
    return any(
        bool(run.metrics) and not each.better(run.metrics[each.metric], known[each.metric]) for run, each in _each(new)
    )


def _each(new: Runs) -> list[tuple[Run, Gate]]:
    return [(run, each) for run in new for each in TRAININGS[run.training].gates]


def evidences(old: Runs, new: Runs) -> list[Evidence]:
    """Of every metric that has a gate; none where no new run finished."""
    old, new = ([run for run in side if run.metrics] for side in (old, new))
    if not new:
        return []
    found = []
    for each in TRAININGS[new[0].training].gates:
        before, after = ({run.seed: run.metrics[each.metric] for run in side} for side in (old, new))
        found.append(evidence(before, after, MARGINS[each.metric], shuffle=True))
    return found


def reference(old: Runs, new: Runs) -> bool:
    """The suite's test of final scores: worse than the reference, or too good."""
    verdicts = changes(evidences(old, new))
    return any(verdict in (Change.WORSE, Change.BETTER) for verdict in verdicts)


def reference_p(old: Runs, new: Runs) -> float:
    """Of "nothing became worse", by Holm's correction; 0 where no run finished."""
    values = [entry.p_below(0.0) for entry in evidences(old, new)]
    return min([1.0, len(values) * min(values)]) if values else 0.0


def curves(old: Runs, new: Runs) -> bool:
    """The suite's test of learning curves: they differ, and the final scores are not shown to be no worse."""
    sides = [{run.seed: run.learning_curve() for run in side if run.metrics} for side in (old, new)]
    if not sides[1] or not deviations({"training": (sides[0], sides[1])})[0]:
        return False
    return any(verdict is not Change.NO_WORSE for verdict in changes(evidences(old, new)))


# --------------------------------------------------------------------------------------------------------- fingerprint


def fingerprint(name: str, fault: Fault | None = None) -> Network:
    """The suite's fingerprint of a small network, with the same fault: a few steps of fixed data and weights."""
    model, loss, batches = (
        (small_unet(4), losses.DiceLoss(), partial(_batch, frames()["train"]))
        if name == "segmentation"
        else (small_classifier(), lambda *pair: losses.cross_entropy(*pair), partial(_batch, garments()["train"]))
    )
    lr = 0.05
    if fault is None:
        return train(model, loss, batches, lr, torch.device("cpu"), FINGERPRINT_STEPS)
    with fault.patches():
        if not fault.set_up:
            fault.enter(Site(model, fault.draws(0), FINGERPRINT_STEPS))
        return train(model, loss, batches, lr, torch.device("cpu"), FINGERPRINT_STEPS)


def _batch(split: Split, step: int, count: int = 2) -> tuple[Tensor, Tensor]:
    chosen = slice(step * count, (step + 1) * count)
    inputs = unit_range(split.inputs[chosen])
    return inputs.expand(-1, 3, -1, -1).contiguous(), split.targets[chosen].long()


def difference(old: Network, new: Network) -> str:
    """Where they begin to differ; "" if nowhere."""
    found = first_difference("it", old, new)
    return str(found) if found else ""


Detector = Callable[[Runs, Runs], bool]
DETECTORS: Mapping[str, Detector] = {
    "gate": lambda old, new: gate(new),
    "floor": lambda old, new: floor(new),
    "reference": reference,
    "curves": curves,
}
