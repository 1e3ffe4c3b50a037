"""Chooses where the runs of a plan are carried out: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.exits import with_fix
from benchmarks.machine.devices import open_device
from benchmarks.results.records import Record
from benchmarks.results.references import read_references
from benchmarks.runs.plan import SYNTHETIC_FOLDER, Plan
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import Runner
from benchmarks.workloads.datasets import Store
from benchmarks.workloads.pretrained import find_base_weights
from benchmarks.workloads.run import check_data
from hw6core.data.synthetic import synthesize
from hw6core.errors import WeightsUnavailableError


def execute_plan(plan: Plan, display: Display) -> list[Record]:
    """Carry out all runs of a plan and return their records; a run that fails does not stop the others.

    Raises:
        HW6Error: nothing can be run: no data, no device, or a results folder that is in use or full.
        KeyboardInterrupt: Ctrl-C or SIGTERM; trainings on this machine have saved their state.
    """
    prepare(plan, display)
    plan = with_base_weights(plan, display)
    if plan.cluster is not None:
        from benchmarks.engines.ray_cluster import run_on_ray

        return run_on_ray(plan, display)
    if plan.workers > 1:
        from benchmarks.engines.workers import Workers

        return Workers(plan, display).run_all()
    return Runner(plan, display).run_all()


def prepare(plan: Plan, display: Display) -> None:
    """Check the references and the device, and draw synthetic data if the plan uses it.

    Raises:
        DataError: a reference that the runs are judged by cannot be read.
    """
    read_references()
    if plan.cluster is None:  # a cluster's devices are on other machines
        open_device(plan.device)  # fails before data is drawn
    if plan.data == SYNTHETIC_FOLDER:
        display.log(f"using synthetic data in {plan.data} (drawn once, about 30 s); for real data: make data")
        synthesize(plan.data)


def with_base_weights(plan: Plan, display: Display) -> Plan:
    """Find the pre-trained VGG16 weights if a run needs them; the quick profile uses a stand-in.

    They are downloaded now, so that a failure is known before hours of training. A cluster's nodes have their own.
    """
    full = plan.profile == "full"
    if not any(entry.uses_base_weights for entry, _ in plan.runs) or (full and plan.cluster):
        return plan
    found = find_base_weights(plan.vgg16_weights, may_fetch=False)
    if found is None and full:
        check_data(Store(plan.data, torch.device("cpu")), plan.configurations)  # before 528 MB are downloaded
        found = find_base_weights(None, may_fetch=True)
    if isinstance(found, WeightsUnavailableError):
        display.log(f"no ImageNet weights, so runs that need them will be 'not run': {with_fix(found)}")
    return replace(plan, base_weights=found, stand_in=found is None)
