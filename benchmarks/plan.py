"""What a call of the suite is to do: which runs, on what data, where, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.options import DEVICES, SYNTHETIC_FOLDER, Options
from benchmarks.progress import Display
from benchmarks.shards import Shard, part
from benchmarks.suite import Configuration, Profile, with_requirements
from hw6core.data.synthetic import synthesize
from hw6core.errors import (
    InfrastructureError,
    UsageError,
)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster.

    Attributes:
        address: of its head; "auto" for the one that this machine is a node of, "local" to start one here.
        cpus: processors that each run takes.
    """

    address: str
    cpus: int = 1


@dataclass(frozen=True)
class Plan:
    """What a call of the suite is to do.

    Attributes:
        configurations: each after those that it requires.
        data: the folder with both data sets.
        device: "cuda" or "cpu".
        vgg16_weights: a file in torchvision's format instead of its own.
        deterministic: see `hw6core.seeding.set_deterministic`.
        cuda_graphs: see `hw6core.train.record_cuda_graph`.
        shard: the part of the runs to carry out; None for all.
        limit_s: the longest that one run may take.
        workers: how many runs are carried out at once on this machine.
        gpus: over how many GPUs they are spread.
        cluster: where and how runs are carried out by a Ray cluster instead.
        stand_ins: the folder in which a stand-in for ImageNet weights is kept; None for that of the other weights.
    """

    configurations: Sequence[Configuration]
    profile: Profile
    seeds: Sequence[int]
    data: Path
    device: str
    results: Path
    vgg16_weights: Path | None = None
    deterministic: bool = False
    cuda_graphs: bool = False
    shard: Shard | None = None
    limit_s: float = math.inf
    workers: int = 1
    gpus: int = 0
    cluster: Cluster | None = None
    stand_ins: Path | None = None

    @property
    def runs_at_once(self) -> int:
        """On one device."""
        return 1 if self.cluster else -(-self.workers // max(self.gpus, 1))

    @property
    def on_one_device(self) -> bool:
        """Whether every run has the same one, and not merely one of the same kind."""
        return self.cluster is None and self.gpus <= 1 and self.shard is None

    @property
    def runs(self) -> list[tuple[Configuration, int]]:
        """What is to be carried out, in order."""
        if self.shard is not None:
            return part(self.configurations, self.seeds, self.shard)
        return [(configuration, seed) for seed in self.seeds for configuration in self.configurations]


def make_plan(options: Options, display: Display) -> Plan:
    """The plan that a person's options ask for; draws the synthetic data where no other is at hand."""
    if options.engine == "local":  # a cluster's devices are elsewhere
        open_device(options.device)  # one that is not there is told before data is drawn
    folder = options.data
    if folder is None:
        folder = SYNTHETIC_FOLDER
        display.say(f"synthetic data in {folder} (drawn once, about half a minute); real data: make data")
        synthesize(folder)
    return Plan(
        configurations=with_requirements(options.only),
        profile=options.profile,
        seeds=options.seeds,
        data=folder,
        device=options.device,
        results=options.results,
        vgg16_weights=options.vgg16_weights,
        deterministic=options.deterministic,
        cuda_graphs=options.cuda_graphs,
        limit_s=options.limit_s,
        workers=options.workers,
        gpus=options.gpus,
        cluster=Cluster(options.address, options.cpus) if options.engine == "ray" else None,
    )


def open_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        UsageError: no such name.
        InfrastructureError: torch does not see it.
    """
    if name not in DEVICES:
        raise UsageError(f"unknown device {name!r}; expected {' or '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InfrastructureError(
            f"no CUDA device is visible to torch {torch.__version__}; ask why: make smoke, or use the CPU: DEVICE=cpu"
        )
    return torch.device(name)


def run_name(configuration: Configuration, seed: int) -> str:
    return f"{configuration.id} seed {seed}"
