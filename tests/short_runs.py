"""The configurations of the suite with very little work, for tests that run the real training code."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.engines.engine import with_base_weights
from benchmarks.machine.roofline import Ceiling, StepCost
from benchmarks.results.records import Record
from benchmarks.runs.plan import Plan
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import Runner
from benchmarks.suite import Configuration, Work
from benchmarks.workloads.datasets import Store
from benchmarks.workloads.run import BaseWeights, Run
from hw6core.training import Callback

# For tests that do not depend on them, because measuring and counting take seconds.
SOME_CEILING, SOME_COST = Ceiling(1e12, 1e10), StepCost(10**9, 10**6, 8)


def shortened(configuration: Configuration, epochs: int = 2) -> Configuration:
    """The configuration with a few epochs on frames of 32x40 or garments of 32x32."""
    garments = configuration.kind in ("scratch", "frozen")
    work = Work(epochs, 8, 1e-4, (32, 32) if garments else (32, 40), training_samples=30 if garments else None)
    return replace(configuration, work={"quick": work})


def run(plan: Plan) -> tuple[list[Record], str]:
    """The records, and the output without a terminal."""
    stream = io.StringIO()
    display = Display(stream)
    return Runner(with_base_weights(plan, display), display).run_all(), stream.getvalue()


def new_run(configuration: Configuration, store: Store, results: Path, seed: int = 5, **more: Any) -> Run:
    """The input of a workload, without a runner."""
    return Run(
        configuration,
        "quick",
        seed,
        store,
        store.device,
        "float32",
        results,
        BaseWeights(results / "base.pth", "stand-in"),
        lambda label, steps: Callback(),
        Ceiling(1.0, 1.0),
        **more,
    )
