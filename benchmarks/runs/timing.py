"""How a run's time is spent, and when it first passes its gates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.suite import Gate
from benchmarks.workloads.run import Run


def timing(run: Run, gates: Sequence[Gate], trivial: Mapping[str, float]) -> dict[str, float | None]:
    trainings = run.trainings.values()
    features_s = run.seconds.get("features_s", 0.0)
    counted_s = sum(training.training_s for training in trainings) + features_s
    samples = sum(training.samples for training in trainings)
    curves = gated_curves(run.trainings, gates)
    first = [first_pass(curve, run.trainings[curve].history, gates, trivial) for curve in curves]
    reached = [entry for entry in first if entry is not None]
    return {
        "data_s": run.seconds.get("data_s", 0.0),
        "interruptions": float(sum(training.interruptions for training in trainings)),
        "warmup_s": sum(training.warmup_s for training in trainings) + run.seconds.get("warmup_s", 0.0),
        "training_s": counted_s,
        "evaluation_s": sum(training.evaluation_s for training in trainings) + run.seconds.get("evaluation_s", 0.0),
        "epochs": max(len(training.history) for training in trainings),
        "best_epoch": next(iter(trainings)).best_epoch if len(trainings) == 1 else None,
        "samples": float(samples),
        "samples_per_s": samples / counted_s if samples else None,
        "least_training_s": max(run.arithmetic_s, run.memory_s),
        "share_of_attainable": max(run.arithmetic_s, run.memory_s) / counted_s if samples else None,
        "epochs_to_gate": max(entry["epoch"] for entry in reached) if len(reached) == len(first) else None,
        "seconds_to_gate": features_s + sum(entry["seconds"] for entry in reached)
        if len(reached) == len(first)
        else None,
        "floors_s": run.seconds.get("floors_s", 0.0),
    }


def gated_curves(curves: Iterable[str], gates: Sequence[Gate]) -> list[str]:
    """The curves that a gate's metric names; all if none does. A control has no gate."""
    named = [curve for curve in curves if any(gate.metric.endswith(f"_{curve}") for gate in gates)]
    return named or list(curves)


def first_pass(
    curve: str, history: Sequence[Mapping[str, float]], gates: Sequence[Gate], trivial: Mapping[str, float]
) -> Mapping[str, float] | None:
    """The first epoch whose validation scores pass every gate of this curve; None if no epoch does.

    If a run has several curves, a gate belongs to the one in its name: accuracy_from_scratch to from_scratch.
    """
    named = [gate for gate in gates if gate.metric.endswith(f"_{curve}")]
    scores = {gate: gate.metric.removesuffix(f"_{curve}") for gate in named or gates}
    for entry in history:
        if all(score in entry and gate.passes(entry[score], trivial) for gate, score in scores.items()):
            return entry
    return None
