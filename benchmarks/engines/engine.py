"""Where the runs of a plan are carried out: in this process, by several on this machine, or on a Ray cluster."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.exits import sentence
from benchmarks.machine.devices import open_device
from benchmarks.results.records import Record
from benchmarks.results.references import read_references
from benchmarks.runs.plan import SYNTHETIC_FOLDER, Plan
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import Runner
from benchmarks.workloads.pretrained import find_base_weights
from hw6core.data.synthetic import synthesize
from hw6core.errors import WeightsUnavailableError


def execute_plan(plan: Plan, display: Display) -> list[Record]:
    """The records of all runs of a plan; a run that fails leaves one that says so, and the others go on.

    Raises:
        HW6Error: nothing can be run: no data, no device, a results folder that is taken or full.
        KeyboardInterrupt: Ctrl-C or SIGTERM; trainings on this machine have saved their state.
    """
    prepare(plan, display)
    plan = with_base_weights(plan, display)
    if plan.cluster is not None:
        from benchmarks.engines.ray_cluster import run_on_ray

        return run_on_ray(plan, display)
    if plan.workers > 1:
        from benchmarks.engines.workers import run_on_workers

        return run_on_workers(plan, display)
    return Runner(plan, display).run_all()


def prepare(plan: Plan, display: Display) -> None:
    """What must be there before the first run: the device, and data where no other than drawn data is at hand.

    Raises:
        DataError: a reference that judges the runs in the end cannot be read.
    """
    read_references()
    if plan.cluster is None:  # a cluster's devices are elsewhere
        open_device(plan.device)  # one that is not there is told before data is drawn
    if plan.data == SYNTHETIC_FOLDER:
        display.say(f"synthetic data in {plan.data} (drawn once, about half a minute); real data: make data")
        synthesize(plan.data)


def with_base_weights(plan: Plan, display: Display) -> Plan:
    """Decide where pre-trained VGG16 weights come from, if a run needs them; the quick profile takes a stand-in.

    A download takes time, and its failure is better known now than in hours. A cluster's nodes have their own.
    """
    full = plan.profile == "full"
    if not any(entry.uses_base_weights for entry, _ in plan.runs) or (full and plan.cluster):
        return plan
    found = find_base_weights(plan.vgg16_weights, may_fetch=full)
    if isinstance(found, WeightsUnavailableError):
        display.say(f"no ImageNet weights, so what needs them will be 'not run': {sentence(found)}")
    return replace(plan, base_weights=found, stand_in=found is None)
