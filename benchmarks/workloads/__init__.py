"""The training of each kind of configuration: data and weights in, scores and history out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.suite import Kind
from benchmarks.workloads.classification import run_frozen, run_scratch
from benchmarks.workloads.colorization import run_colorization
from benchmarks.workloads.floors import find_floors
from benchmarks.workloads.new_task import run_new_task
from benchmarks.workloads.pretrained import run_stand_in
from benchmarks.workloads.run import Outcome, Run
from benchmarks.workloads.segmentation import run_segmentation
from hw6core.seeding import seed_everything

WORKLOADS: Mapping[Kind, Callable[[Run], Outcome]] = {
    "segmentation": run_segmentation,
    "colorization": run_colorization,
    "scratch": run_scratch,
    "frozen": run_frozen,
    "new-task": run_new_task,
    "stand-in": run_stand_in,
}


def execute(run: Run) -> Outcome:
    """Train, score, save what later runs and the report need, and score the floors.

    Raises:
        HW6Error: data or weights are missing, the training diverged, or the deadline has passed.
    """
    seed_everything(run.seed)
    outcome = WORKLOADS[run.configuration.kind](run)
    run.on_trained()
    if run.configuration.floors:
        outcome.floors = find_floors(run, outcome.metrics)
    return outcome
