"""How a run's time is spent, and when it first passes its gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.suite import Gate
from benchmarks.workloads.run import Run


def timing(run: Run, gates: Sequence[Gate], trivial: Mapping[str, float]) -> dict[str, float | None]:
    trainings = run.trainings.values()
    features_s = run.seconds.get("features_s", 0.0)
    counted_s = sum(training.training_s for training in trainings) + features_s
    samples = sum(training.samples for training in trainings)
    # The gates of each curve are those that name it, or all if none names any. A control has no gate.
    named = {curve: tuple(gate for gate in gates if gate.metric.endswith(f"_{curve}")) for curve in run.trainings}
    gated = {curve: own for curve, own in named.items() if own} or dict.fromkeys(run.trainings, tuple(gates))
    first = [first_pass(curve, run.trainings[curve].history, own, trivial) for curve, own in gated.items()]
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


def first_pass(
    curve: str, history: Sequence[Mapping[str, float]], gates: Sequence[Gate], trivial: Mapping[str, float]
) -> Mapping[str, float] | None:
    """The first epoch whose validation scores pass every gate; None if no epoch does.

    A gate may have the name of the curve at its end: accuracy_from_scratch is the accuracy of the curve from_scratch.
    """
    scores = {gate: gate.metric.removesuffix(f"_{curve}") for gate in gates}
    for entry in history:
        if all(score in entry and gate.passes(entry[score], trivial) for gate, score in scores.items()):
            return entry
    return None
