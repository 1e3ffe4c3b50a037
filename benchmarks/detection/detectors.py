"""Who notices: the suite's detectors, and one more, on three new runs beside a reference of twenty clean ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import ttest_ind
from torch import Tensor

from benchmarks.detection.faults import Fault, Site
from benchmarks.detection.trainings import TRAININGS, Run, frames, garments, small_classifier, small_unet
from benchmarks.fingerprint.comparison import first_difference
from benchmarks.fingerprint.record import Network
from benchmarks.fingerprint.training import train
from benchmarks.results.statistics import ERROR, Change, Evidence, changes, evidence, holm
from benchmarks.suite import MARGINS, Gate
from hw6core import losses
from hw6core.tasks import unit_range
from hw6core.training import Split

Runs = Sequence[Run]
CURVE_ERROR = 0.002  # a fifth of the reference's: chosen beforehand, so that both together stay near 1%
FINGERPRINT_STEPS = 20
_NOTHING = 1e-12  # a layer that does not move has a logarithm, too


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
        found.append(evidence(before, after, MARGINS[each.metric]))
    return found


def reference(old: Runs, new: Runs) -> bool:
    """The suite's test of final scores: worse than the reference, or too good."""
    verdicts = changes(evidences(old, new), ERROR)
    return any(verdict in (Change.WORSE, Change.BETTER) for verdict in verdicts)


def reference_p(old: Runs, new: Runs) -> float:
    """Of "nothing became worse", by Holm's correction; 0 where no run finished."""
    values = [entry.p_below(0.0) for entry in evidences(old, new)]
    return min([1.0, len(values) * min(values)]) if values else 0.0


def curve(old: Runs, new: Runs) -> bool:
    """Two-sided t tests of every epoch's losses and score, and of how far each layer moved, by Holm's correction."""
    return any(holm(_p_values(old, new), CURVE_ERROR))


def curve_p(old: Runs, new: Runs) -> float:
    values = _p_values(old, new)
    return min([1.0, len(values) * min(values)]) if values else 0.0


def permutation(old: Runs, new: Runs) -> bool:
    """Whether the new runs lie further apart from the old ones than a hundredth of all ways to choose as many."""
    return permutation_p(old, new) <= ERROR


def permutation_p(old: Runs, new: Runs) -> float:
    """Of the largest |t| of any quantity, among all ways to say which runs are new (Westfall and Young 1993).

    However the quantities are distributed, and however they hang together, clean runs have a p of 1% or less in 1% of
    cases at most.
    """
    first, second = _quantities(old), _quantities(new)
    if not len(second):
        return 0.0
    values = np.concatenate([second, first])
    values = values - values.mean(0)
    size, count = len(second), len(values)
    ways = np.array(list(combinations(range(count), size)))  # the first one is the true one
    of_new = values[ways].mean(1)
    of_old = -size * of_new / (count - size)
    within = (values**2).sum(0) - size * of_new**2 - (count - size) * of_old**2
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.nan_to_num((of_new - of_old) ** 2 / within.clip(0), nan=0.0)
    largest = squares.max(1)
    return float((largest >= largest[0] * (1 - 1e-9)).mean())


def _p_values(old: Runs, new: Runs) -> list[float]:
    first, second = _quantities(old), _quantities(new)
    if not len(second):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of values that are all alike
        values = ttest_ind(first, second, axis=0).pvalue
    same = np.isclose(first.mean(0), second.mean(0))
    return np.where(np.isnan(values), np.where(same, 1.0, 0.0), values).tolist()  # type: ignore[no-any-return]


def _quantities(runs: Runs) -> npt.NDArray[np.float64]:
    """(runs that finished, quantities): logarithms of losses and moves, and scores, the final ones last."""
    rows = []
    for run in runs:
        if run.metrics:
            sizes = [*run.curve["train_loss"], *run.curve["validation_loss"], *run.moved.values()]
            scores = [value for key, values in run.curve.items() if not key.endswith("loss") for value in values]
            rows.append([*np.log(np.clip(sizes, _NOTHING, None)), *scores, *run.metrics.values()])
    return np.array(rows)


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
    "curve": curve,
    "permutation": permutation,
}
# What the suite judges a result by, and what would do better than its reference.
OURS, BETTER = ("gate", "floor", "reference"), ("gate", "floor", "permutation")
