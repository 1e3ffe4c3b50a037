"""`run --every-gpu`: the chosen runs on each device by itself, and the table of the fleet that they are.

First one device after another, then all at once: heat and power show only then. Each has a process of its own, with
the usual command line, and a results folder below RESULTS: alone/gpu-0, together/gpu-0.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fleet.devices import LOG, PHASES, read_fleet
from benchmarks.fleet.page import write_fleet
from benchmarks.fleet.verdicts import judge_fleet
from benchmarks.options import OPTIONS, read_option
from benchmarks.report.exports import append_step_summary
from benchmarks.runs.plan import SYNTHETIC_FOLDER, Plan
from benchmarks.suite import SUITE, at_working_size
from hw6core.errors import UsageError

_SUITE = ("-m", "benchmarks.acceptance")


def judge_folders(folders: Sequence[Path], output: Path) -> int:
    """Judge a fleet, write its table, say its verdict; the exit code is that of `benchmarks.fleet.verdicts.Judged`."""
    size = read_option("WORKING_SIZE", {})
    configurations = {name: at_working_size(entry, size) if size else entry for name, entry in SUITE.items()}
    judged = judge_fleet(read_fleet(folders, configurations), configurations, read_option("ALLOW_NOT_RUN", {}))
    print(write_fleet(output, judged))
    append_step_summary((output / "FLEET.md").read_text(encoding="utf-8"))
    print(f"report: {output / 'FLEET.md'}, fleet.html and fleet.json beside it")
    return judged.exit_code


def run_on_every_gpu(plan: Plan, given: Mapping[str, Any]) -> int:
    """Carry out what was asked for on each GPU (on the CPU: in each of WORKERS processes), and judge the fleet.

    Args:
        given: options of the command line, for the processes; variables they have anyway.
    """
    from benchmarks.engines.engine import prepare
    from benchmarks.machine.devices import visible_devices
    from benchmarks.machine.monitor import available_cpus
    from benchmarks.runs.progress import Display

    if plan.shard is not None:
        raise UsageError("EVERY_GPU=1 carries out all runs on each GPU; leave --shard out")
    prepare(plan, Display())
    said = {name: given[name] for name in OPTIONS if given.get(name)}
    own = {name: text if isinstance(text, str) else " ".join(text) for name, text in said.items()}
    own |= {"DEVICE": plan.device, "PROFILE": plan.profile}
    if plan.cluster is not None:
        return _on_every_node(plan, own)
    own |= {"EVERY_GPU": "0", "WORKERS": "1"}
    if plan.device == "cuda":
        each = [{"CUDA_VISIBLE_DEVICES": name, "GPUS": "1"} for name in visible_devices(plan.gpus)]
    else:
        each = [{"OMP_NUM_THREADS": str(max(available_cpus() // plan.workers, 1))}] * plan.workers
    devices = {
        f"{'gpu' if plan.device == 'cuda' else 'cpu'}-{place}": own | device for place, device in enumerate(each)
    }
    alone, together = (plan.results / phase for phase in PHASES)
    for name, variables in devices.items():
        _at_once({alone / name: variables})
    _at_once({together / name: variables for name, variables in devices.items()})
    return judge_folders([alone, together], plan.results)


def _on_every_node(plan: Plan, own: Mapping[str, str]) -> int:
    """The same on each node of a Ray cluster, all nodes at once."""
    from benchmarks.engines.ray_cluster import run_on_every_node

    variables = {name: os.environ[name] for name in OPTIONS if os.environ.get(name)} | dict(own)
    data = "synthetic" if plan.data == SYNTHETIC_FOLDER else str(plan.data.resolve())
    variables |= {"EVERY_GPU": "1", "ENGINE": "local", "ADDRESS": "", "CPUS": "", "DATA": data}
    for folder in run_on_every_node(plan, _SUITE, variables, LOG):
        print(f"{folder}: done", flush=True)
    return judge_folders([plan.results], plan.results)


def _at_once(variables: Mapping[Path, Mapping[str, str]]) -> None:
    """A suite for each results folder; what it says goes into a file there."""
    running: dict[Path, subprocess.Popen[bytes]] = {}
    try:
        for folder, own in variables.items():
            folder.mkdir(parents=True, exist_ok=True)
            environment = os.environ | own | {"RESULTS": str(folder)}
            with (folder / LOG).open("wb") as log:
                command = [sys.executable, *_SUITE]
                running[folder] = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        for folder, process in running.items():
            print(f"{folder}: exit code {process.wait()}", flush=True)
    finally:
        for process in running.values():
            process.terminate()  # after Ctrl-C: a training saves its state
        for process in running.values():
            process.wait()
