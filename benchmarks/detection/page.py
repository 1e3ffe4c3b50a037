"""The numbers in docs/detection.md, between its two marks, and its figure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.detection import times
from benchmarks.detection.detectors import DETECTORS, Trial, difference
from benchmarks.detection.faults import sound
from benchmarks.detection.judging import Row, Truth, clean_trials, rows
from benchmarks.detection.trainings import TRAININGS, Run, floor, trivial
from benchmarks.results.formatting import table
from benchmarks.results.records import write_atomically
from benchmarks.results.statistics import ALARM

_PAGE = Path(__file__).parents[2] / "docs" / "detection.md"
_MARKS = "<!-- make detection fills from here -->", "<!-- to here -->"
_TIME_TRIALS = 500


def write_page(runs: Sequence[Run]) -> list[Path]:
    """Fill the page and draw its figure."""
    judged, clean, picture = list(rows(runs)), list(clean_trials(runs)), _PAGE.with_suffix(".png")
    before, _, after = re.split("|".join(_MARKS), _PAGE.read_text(encoding="utf-8"))
    text = "\n\n".join(_numbers(runs, judged, clean))
    write_atomically(_PAGE, f"{before}{_MARKS[0]}\n\n{text}\n\n{_MARKS[1]}{after}")
    _draw(judged, clean, picture)
    return [_PAGE, picture]


def _numbers(runs: Sequence[Run], judged: Sequence[Row], clean: Sequence[Trial]) -> Iterator[str]:
    harmful = [row for row in judged if row.truth is Truth.HARMFUL]
    yield "## Detection and false alarms"
    yield table(["detector", "sets of harmful faults found", "clean sets called faulty"], _rates(harmful, clean))
    truths, names = Counter(row.truth for row in judged), {row.fault.name for row in judged}
    yield (
        f"{len(judged)} faults ({len(names)} kinds) in {len(runs)} trainings: "
        f"{', '.join(f'{truths[truth]} {truth}' for truth in Truth)}. "
        f"Clean runs: {sum(not run.fault for run in runs)}."
    )
    yield "The two trainings without faults:"
    headers = ["training", "metric", "mean", "standard deviation", "constant answer (gate)", "look-up (floor)"]
    cells: list[list[str]] = []
    for name, training in TRAININGS.items():
        for metric in (gate.metric for gate in training.gates):
            values = [run.metrics[metric] for run in runs if run.training == name and not run.fault]
            numbers = (np.mean(values), np.std(values, ddof=1), trivial(name)[metric], floor(name)[metric])
            cells.append([name, metric, *(f"{value:.3f}" for value in numbers)])
    yield table(headers, cells)
    yield "## Missed faults"
    columns = ("fault", "strength", "training", "drop in margins")
    missed = [row for row in harmful if row.found < len(row.trials)]
    yield table([*columns, "found"], [[*_cells(row), f"{row.found} of {len(row.trials)}"] for row in missed])
    yield "## All faults"
    cells = []
    for row in judged:
        counts = (sum(trial.found_by[name] for trial in row.trials) for name in DETECTORS)
        counted = [f"{count} of {len(row.trials)}" for count in counts]
        fingerprint = ("(yes)" if row.fault.once else "yes") if row.fingerprint else "no"
        cells.append([*_cells(row), row.truth, *counted, fingerprint])
    yield table([*columns, "truth", *DETECTORS, "fingerprint"], cells)
    yield "## Times"
    yield _time_table()


def _cells(row: Row) -> list[str]:
    drop, error = row.drop
    unfinished = f", {row.diverged} of {row.runs} did not finish" if row.diverged else ""
    return [row.fault.name, row.fault.strength, row.fault.training, f"{drop:.1f} ± {error:.1f}{unfinished}"]


def _rates(harmful: Sequence[Row], clean: Sequence[Trial]) -> Iterator[Sequence[str]]:
    trials = [trial for row in harmful for trial in row.trials]
    for name in DETECTORS:
        found, alarms = (sum(trial.found_by[name] for trial in side) for side in (trials, clean))
        yield name, _share(found, len(trials)), _share(alarms, len(clean))
    alarms = sum(bool(difference(sound(name))) for name in TRAININGS)
    seen = sum(len(row.trials) for row in harmful if row.in_fingerprint)
    yield "fingerprint", _share(seen, len(trials)), _share(alarms, len(TRAININGS))
    found, alarms = (sum(trial.found for trial in side) for side in (trials, clean))
    yield "all but the fingerprint", _share(found, len(trials)), _share(alarms, len(clean))
    yield "**all of them**", _share(sum(row.found for row in harmful), len(trials)), _share(alarms, len(clean))


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.1%})"


def _time_table() -> str:
    entries = []
    for slowness in (times.CLEAN, *times.slownesses()):
        for noise in times.NOISE:
            slower, error = times.slowdown(slowness, noise)
            excess = slower - times.TOLERANCE.size
            truth = "harmful" if excess > error else "not harmful" if excess < -error else "at the tolerance"
            found = (times.found(slowness, noise, _TIME_TRIALS, error) / _TIME_TRIALS for error in times.ERRORS)
            shares = [f"{share:.1%}" for share in found]
            entries.append([slowness.name, slowness.strength, f"{noise:.0%}", f"{slower:+.1%}", truth, *shares])
    errors = (f"found at {error:.0%}" for error in times.ERRORS)
    return table(["slowness", "strength", "noise of a run", "slower by", "truth", *errors], entries)


def _draw(judged: Sequence[Row], clean: Sequence[Trial], path: Path) -> None:
    """The share of harmful sets found against that of clean sets called faulty, for every limit of the p value."""
    figure = Figure(figsize=(5, 3.6), dpi=90, layout="constrained")
    axes = figure.subplots()
    harmful = [trial for row in judged if row.truth is Truth.HARMFUL for trial in row.trials]
    sides = [np.array([trial.reference_p for trial in side]) for side in (clean, harmful)]
    limits = np.unique(np.concatenate([*sides, [0.0, 1.0]]))
    points = [[(side <= limit).mean() for limit in limits] for side in sides]
    axes.step([0, *points[0]], [0, *points[1]], where="post", color="#0072B2", label="reference's test of final scores")
    both = [np.mean([trial.found_by["curves"] for trial in side]) for side in (clean, harmful)]
    axes.plot(*both, "o", color="#D55E00", label=f"learning curves, at an error of {ALARM:.1%}")
    axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
    axes.set(xlabel="clean sets called faulty", ylabel="sets of harmful faults found", xlim=(-0.01, 1), ylim=(0, 1.01))
    axes.legend(loc="lower right", frameon=False)
    FigureCanvasAgg(figure)
    figure.savefig(path, metadata={"Software": None})
