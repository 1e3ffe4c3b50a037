"""The numbers of docs/detection.md, between its two marks, and its picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.detection import times
from benchmarks.detection.detectors import DETECTORS
from benchmarks.detection.judging import Row, Trial, Truth, clean_trials, rows
from benchmarks.detection.records import Fingerprinted
from benchmarks.detection.trainings import TRAININGS, Run
from benchmarks.results.formatting import table
from benchmarks.results.records import write_atomically
from benchmarks.results.statistics import ALARM

DOCS = Path(__file__).parents[2] / "docs"
_MARKS = "<!-- make detection fills from here -->", "<!-- to here -->"
_TIME_TRIALS = 500


def write_page(runs: Sequence[Run], fingerprints: Sequence[Fingerprinted], docs: Path = DOCS) -> list[Path]:
    """Fill the page and draw its picture."""
    judged, clean = list(rows(runs, fingerprints)), clean_trials(runs)
    page, picture = docs / "detection.md", docs / "detection.png"
    before, rest = page.read_text(encoding="utf-8").split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    text = "\n\n".join(_numbers(runs, fingerprints, judged, clean))
    write_atomically(page, f"{before}{_MARKS[0]}\n\n{text}\n\n{_MARKS[1]}{after}")
    _draw(judged, clean, picture)
    return [page, picture]


def _numbers(
    runs: Sequence[Run], fingerprints: Sequence[Fingerprinted], judged: Sequence[Row], clean: Sequence[Trial]
) -> Iterator[str]:
    harmful = [row for row in judged if row.truth is Truth.HARMFUL]
    yield "## Both rates"
    yield table(
        ["detector", "sets of harmful faults found", "of clean sets called faulty"],
        _rates(fingerprints, harmful, clean),
    )
    counts = Counter(row.truth for row in judged)
    names = {row.fault.name for row in judged}
    yield (
        f"{len(judged)} faults ({len(names)} kinds) in {len(runs)} trainings: "
        f"{', '.join(f'{counts[truth]} {truth}' for truth in Truth)}. "
        f"Clean runs: {sum(not run.fault for run in runs)}."
    )
    yield "The two trainings, clean:"
    yield table(
        ["training", "metric", "mean", "standard deviation", "constant answer (gate)", "look-up (floor)"], _clean(runs)
    )
    yield "## What is not found"
    yield table(
        ["fault", "strength", "training", "drop in margins", "found"],
        [
            [*_told(row), _drop(row), f"{row.found()} of {len(row.trials)}"]
            for row in harmful
            if row.found() < len(row.trials)
        ],
    )
    yield "## All faults"
    yield table(
        ["fault", "strength", "training", "drop in margins", "truth", *DETECTORS, "fingerprint"],
        [[*_told(row), _drop(row), str(row.truth), *_counts(row)] for row in judged],
    )
    yield "## Times"
    yield _time_table()


def _rates(
    fingerprints: Sequence[Fingerprinted], harmful: Sequence[Row], clean: Sequence[Trial]
) -> Iterator[Sequence[str]]:
    trials = sum(len(row.trials) for row in harmful)
    for name in DETECTORS:
        alarms = sum(trial.found[name] for trial in clean)
        yield name, _share(sum(row.count(name) for row in harmful), trials), _share(alarms, len(clean))
    again = [entry for entry in fingerprints if not entry.fault]
    seen = sum(len(row.trials) for row in harmful if row.in_fingerprint)
    yield "fingerprint", _share(seen, trials), _share(sum(bool(entry.difference) for entry in again), len(again))
    called = _share(sum(any(trial.found.values()) for trial in clean), len(clean))
    yield (
        "all but the fingerprint",
        _share(sum(any(t.found.values()) for row in harmful for t in row.trials), trials),
        called,
    )
    yield "**all of them**", _share(sum(row.found() for row in harmful), trials), called


def _clean(runs: Sequence[Run]) -> Iterator[Sequence[str]]:
    for name, training in TRAININGS.items():
        for gate in training.gates:
            values = [run.metrics[gate.metric] for run in runs if run.training == name and not run.fault]
            others = (training.trivial()[gate.metric], training.floor()[gate.metric])
            yield name, gate.metric, *(f"{value:.3f}" for value in (np.mean(values), np.std(values, ddof=1), *others))


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.1%})" if whole else "none"


def _told(row: Row) -> list[str]:
    return [row.fault.name, row.fault.strength, row.fault.training]


def _drop(row: Row) -> str:
    drop, error = row.drop
    return f"{drop:.1f} ± {error:.1f}" + (f", {row.diverged} of {row.runs} did not finish" if row.diverged else "")


def _counts(row: Row) -> Iterator[str]:
    for name in DETECTORS:
        yield f"{row.count(name)} of {len(row.trials)}"
    yield ("(yes)" if row.fault.once else "yes") if row.fingerprint else "no"


def _time_table() -> str:
    entries = []
    for slowness in (times.CLEAN, *times.slownesses()):
        for noise in times.NOISE:
            slower, error = times.slowdown(slowness, noise)
            excess = slower - times.TOLERANCE.size
            truth = "harmful" if excess > error else "not harmful" if excess < -error else "at the tolerance"
            found = [
                f"{times.found(slowness, noise, _TIME_TRIALS, error) / _TIME_TRIALS:.1%}" for error in times.ERRORS
            ]
            entries.append([slowness.name, slowness.strength, f"{noise:.0%}", f"{slower:+.1%}", truth, *found])
    headers = [
        "slowness",
        "strength",
        "noise of a run",
        "slower by",
        "truth",
        *(f"found at {error:.0%}" for error in times.ERRORS),
    ]
    return table(headers, entries)


def _draw(judged: Sequence[Row], clean: Sequence[Trial], path: Path) -> None:
    """Share of harmful sets found against share of clean sets called faulty, for every limit of the p value."""
    figure = Figure(figsize=(5, 3.6), dpi=90, layout="constrained")
    axes = figure.subplots()
    harmful = [trial for row in judged if row.truth is Truth.HARMFUL for trial in row.trials]
    sides = [np.array([trial.reference_p for trial in side]) for side in (clean, harmful)]
    limits = np.unique(np.concatenate([*sides, [0.0, 1.0]]))
    points = [[(side <= limit).mean() for limit in limits] for side in sides]
    axes.step([0, *points[0]], [0, *points[1]], where="post", color="#0072B2", label="reference's test of final scores")
    both = [np.mean([trial.found["curves"] for trial in side]) for side in (clean, harmful)]
    axes.plot(*both, "o", color="#D55E00", label=f"learning curves, at an error of {ALARM:.1%}")
    axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
    axes.set(xlabel="clean sets called faulty", ylabel="sets of harmful faults found", xlim=(-0.01, 1), ylim=(0, 1.01))
    axes.legend(loc="lower right", frameon=False)
    FigureCanvasAgg(figure)
    figure.savefig(path, metadata={"Software": None})
