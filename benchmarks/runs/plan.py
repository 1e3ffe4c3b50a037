"""The plan of a call of the suite: which runs, on what data, where and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.suite import STAND_IN, STAND_IN_SEED, Configuration, Profile

if TYPE_CHECKING:  # loads torch
    from benchmarks.results.gates import Asked
    from benchmarks.workloads.run import BaseWeights
    from hw6core.device import Precision
    from hw6core.errors import WeightsUnavailableError

SYNTHETIC_FOLDER = Path(".cache") / "synthetic"  # where synthetic data is drawn if no other data is available
PlannedRun = tuple[Configuration, int]


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``count``, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster."""

    address: str  # of its head; "auto" for the cluster that this machine is a node of, "local" to start one here
    cpus: int = 1  # per run


@dataclass(frozen=True)
class Plan:
    """What a call of the suite does, with every default filled in.

    Attributes:
        configurations: what is trained, each after those that it requires.
        data: the folder with both data sets.
        device: by torch's name, one of `benchmarks.machine.devices.DEVICES`.
        vgg16_weights: a file in torchvision's format, used instead of torchvision's download.
        deterministic: see `hw6core.seeding.set_deterministic`.
        precision: None for the device's default.
        cuda_graphs: see `hw6core.steps.capture_cuda_graph`.
        compiled: whether networks are compiled with torch.compile for training.
        shard: the part of the runs to carry out; None for all.
        limit_s: the time limit of each run.
        workers: number of concurrent runs on this machine.
        gpus: number of GPUs that they use.
        cluster: the Ray cluster that carries out the runs instead, if any.
        selected: what is judged: the configurations without those that others only require.
        allow_not_run: ids that may be "not run" without failing the suite.
        unclear_passes: whether "cannot tell", against a reference, counts as passed.
        base_weights: the pre-trained VGG16 weights, or why there are none; None until `with_base_weights` sets it.
        stand_in: whether a stand-in for them is trained here, as a run that others start from.
    """

    configurations: Sequence[Configuration]
    profile: Profile
    seeds: Sequence[int]
    data: Path
    device: str
    results: Path
    vgg16_weights: Path | None = None
    deterministic: bool = False
    precision: Precision | None = None
    cuda_graphs: bool = False
    compiled: bool = False
    shard: Shard | None = None
    limit_s: float = math.inf
    workers: int = 1
    gpus: int = 0
    cluster: Cluster | None = None
    base_weights: BaseWeights | WeightsUnavailableError | None = None
    stand_in: bool = False
    selected: Sequence[Configuration] = ()
    allow_not_run: Sequence[str] = ()
    unclear_passes: bool = False

    @property
    def runs_at_once(self) -> int:
        """The number of concurrent runs per device."""
        return 1 if self.cluster else -(-self.workers // max(self.gpus, 1))

    @property
    def on_one_device(self) -> bool:
        """Whether all runs use the same device, not only devices of the same kind."""
        return self.cluster is None and self.gpus <= 1 and self.shard is None

    @property
    def asked(self) -> Asked:
        """What is judged."""
        from benchmarks.results.gates import Asked  # requires packages that `check_installed` reports first

        return Asked(self.selected, self.seeds, self.profile, self.allow_not_run, self.unclear_passes)

    @property
    def runs(self) -> list[PlannedRun]:
        """The runs to carry out, each after those that it starts from."""
        if self.shard is not None:
            runs = part(self.configurations, self.seeds, self.shard)
        else:
            runs = [(configuration, seed) for seed in self.seeds for configuration in self.configurations]
        if self.stand_in:
            first = next(index for index, (configuration, _) in enumerate(runs) if configuration.uses_base_weights)
            runs.insert(first, (STAND_IN, STAND_IN_SEED))
        return runs

    def starts_from(self, configuration: Configuration, seed: int) -> list[tuple[str, int]]:
        """Id and seed of each run that this one starts from."""
        stand_in = [(STAND_IN.id, STAND_IN_SEED)] if self.stand_in and configuration.uses_base_weights else []
        return [*((name, seed) for name in configuration.requires), *stand_in]

    def is_required(self, name: str) -> bool:
        """Whether any run starts from a run of this configuration."""
        return any(name == required for run in self.runs for required, _ in self.starts_from(*run))


def part(configurations: Sequence[Configuration], seeds: Sequence[int], shard: Shard) -> list[PlannedRun]:
    """The runs of one shard: every ``count``-th unit, the largest units first so that shards have similar sizes.

    A unit consists of the runs with the same seed that start from one another. Expects each configuration after those
    that it requires.
    """
    groups: list[list[Configuration]] = []
    for configuration in configurations:
        joined = [group for group in groups if {entry.id for entry in group} & set(configuration.requires)]
        groups = [group for group in groups if group not in joined] + [[*chain(*joined), configuration]]
    units = [[(entry, seed) for entry in group] for seed in seeds for group in groups]
    units.sort(key=len, reverse=True)
    return [run for unit in units[shard.number - 1 :: shard.count] for run in unit]


def run_name(configuration: Configuration, seed: int) -> str:
    return configuration.id if configuration.id == STAND_IN.id else f"{configuration.id} seed {seed}"
