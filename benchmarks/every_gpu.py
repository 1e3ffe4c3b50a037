"""`run --every-gpu`: the selected runs on each device, and a table that compares the devices.

First one device after another, then all at once, because problems of heat and power show only then. Each device has
its own process, with the usual command line, and its own results folder below RESULTS: alone/gpu-0, together/gpu-0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engines.node import run_at_once
from benchmarks.fleet.devices import PHASES, read_fleet
from benchmarks.fleet.page import write_fleet
from benchmarks.fleet.verdicts import judge_fleet
from benchmarks.options import OPTIONS, read_option
from benchmarks.report.exports import append_step_summary
from benchmarks.runs.plan import SYNTHETIC_FOLDER, Plan
from benchmarks.suite import SUITE, at_working_size
from hw6core.errors import UsageError

_SUITE = ("-m", "benchmarks.acceptance")


def judge_folders(folders: Sequence[Path], output: Path, given: Mapping[str, Any]) -> int:
    """Judge a fleet, write its table, print its verdict and return the exit code; see `benchmarks.fleet.verdicts`.

    ``given`` options of the command line take precedence over the environment variables.
    """
    size = read_option("WORKING_SIZE", given)
    configurations = {name: at_working_size(entry, size) if size else entry for name, entry in SUITE.items()}
    judged = judge_fleet(read_fleet(folders, configurations), configurations, read_option("ALLOW_NOT_RUN", given))
    print(write_fleet(output, judged))
    append_step_summary((output / "FLEET.md").read_text(encoding="utf-8"))
    print(f"report: {output / 'FLEET.md'}, with fleet.html and fleet.json beside it")
    return judged.exit_code


def run_on_every_gpu(plan: Plan, given: Mapping[str, Any]) -> int:
    """Carry out the plan on each GPU (on the CPU: in each of WORKERS processes), and judge the fleet.

    ``given`` options of the command line are passed on to the processes, which inherit the environment variables.
    """
    from benchmarks.engines.engine import prepare
    from benchmarks.machine.devices import visible_devices
    from benchmarks.machine.monitor import available_cpus
    from benchmarks.runs.progress import Display

    if plan.shard is not None:
        raise UsageError("EVERY_GPU=1 carries out all runs on each GPU and cannot be combined with --shard")
    prepare(plan, Display())
    options = ((name, given[name]) for name in OPTIONS if given.get(name))
    shared = {name: text if isinstance(text, str) else " ".join(text) for name, text in options}
    shared |= {"DEVICE": plan.device, "PROFILE": plan.profile}
    if plan.cluster is not None:
        return _run_on_every_node(plan, shared, given)
    shared |= {"EVERY_GPU": "0", "WORKERS": "1"}
    if plan.device == "cuda":
        kind, each = "gpu", [{"CUDA_VISIBLE_DEVICES": name, "GPUS": "1"} for name in visible_devices(plan.gpus)]
    else:
        kind, each = plan.device, [{"OMP_NUM_THREADS": str(max(available_cpus() // plan.workers, 1))}] * plan.workers
    devices = {f"{kind}-{index}": shared | own for index, own in enumerate(each)}
    alone, together = ({plan.results / phase / name: own for name, own in devices.items()} for phase in PHASES)
    for folder, variables in alone.items():
        run_at_once(_SUITE, {folder: variables})
    run_at_once(_SUITE, together)
    return judge_folders([*alone, *together], plan.results, given)


def _run_on_every_node(plan: Plan, shared: Mapping[str, str], given: Mapping[str, Any]) -> int:
    """Carry out the plan on all nodes of a Ray cluster at once, and judge the fleet."""
    from benchmarks.engines.ray_cluster import run_on_every_node

    variables = {name: os.environ[name] for name in OPTIONS if os.environ.get(name)} | dict(shared)
    paths = {name: read_option(name, given) for name in ("VGG16_WEIGHTS", "AGAINST")}
    variables |= {name: str(path.resolve()) for name, path in paths.items() if path}
    data = "synthetic" if plan.data == SYNTHETIC_FOLDER else str(plan.data.resolve())
    variables |= {"EVERY_GPU": "1", "ENGINE": "local", "ADDRESS": "", "CPUS": "", "DATA": data}
    folders = []
    for folder in run_on_every_node(plan, _SUITE, variables):
        print(f"{folder}: done", flush=True)
        folders.append(folder)
    return judge_folders(folders, plan.results, given)
