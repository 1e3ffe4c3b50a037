"""The figures of the report, from records and sample files; needs no GPU, no data and no torch.

Figures are drawn without pyplot, so they depend on no display and no global state. Colours are those
of Okabe and Ito (2008), which people with any common colour vision deficiency can tell apart; where a colour carries
meaning, a marker or a line style carries it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from benchmarks.results.formatting import MANY_SEEDS, seeds_text, words
from benchmarks.results.gates import Finding, Judgement, Verdict
from benchmarks.results.records import TIME_PARTS, Record, by_configuration, mean_time
from benchmarks.suite import SUITE
from hw6core.errors import visible

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
WHITE, GREY, REST = "#FFFFFF", "#777777", "#BBBBBB"
_CURVE_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_PART_LOOKS = ((SKY, ""), (YELLOW, ".."), (BLUE, ""), (ORANGE, "//"))  # colour and hatch
# The background, then the classes; more than seven classes reuse the colours.
_CLASS_COLOURS = ("#262626", *(SKY, ORANGE, GREEN, YELLOW, BLUE, VERMILLION, PURPLE) * 37)[:256]
_FEW_EPOCHS = 12
# Inches and points: on a phone, where the page is as wide as the figure, no letter is smaller than 9 points.
_WIDTH, _POINTS, _DOTS_PER_INCH = 4.8, 11, 200

Samples = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Figure:
    """A figure of the report."""

    name: str  # of its file
    drawing: Drawing
    of: str  # its section: a configuration's id, "gates", "speed" or "segmentation"
    shows: str  # the alternative text
    caption: str


def write_figures(results: Path, judgement: Judgement) -> list[Figure]:
    """Draw every figure that the judged records and their sample files allow into ``results/figures``.

    A figure is skipped if the record has no history, or if the sample file is missing or damaged.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = results / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context():
        mpl.rcdefaults()  # ignore the user's matplotlibrc, which may ask for LaTeX
        mpl.rcParams.update(
            {"font.size": _POINTS, "axes.titlesize": _POINTS, "axes.spines.top": False, "axes.spines.right": False}
        )
        figures = list(_drawings(results, judgement))
        for figure in figures:
            figure.drawing.savefig(folder / figure.name, format="png", pil_kwargs={"optimize": True})
    return figures


def _drawings(results: Path, judgement: Judgement) -> Iterator[Figure]:
    """Every figure, in the order of the sections."""
    records = judgement.records
    completed = [record for record in records if record.status == "completed"]
    segmentation = [record for record in completed if SUITE[record.configuration].kind == "segmentation"]
    yield from _overview(judgement)
    yield from _times(completed)
    for name, runs in by_configuration(records).items():
        yield from _learning_curves(name, runs)
        if SUITE[name].kind == "colorization":
            yield from _recolored(results, name, judgement.completed[name])
    yield from _confusions(completed)
    yield from _classes(segmentation)
    yield from _masks(results, segmentation)


# ---------------------------------------------------------------------------------------------------------- overview


def _overview(judgement: Judgement) -> Iterator[Figure]:
    """Every gate as a row: the runs, the bound, the best constant answer and the floor, or "no result"."""
    rows = [
        # An error is drawn relative to that of the constant answer, so its bound must not be 0.
        (configuration.id, gate, [entry for entry in judgement.of(configuration.id, gate) if entry.bound])
        for configuration in judgement.asked.configurations
        for gate in configuration.gates
    ]
    if not any(found for _, _, found in rows):
        return
    panels = [part for part in ([r for r in rows if r[1].direction == d] for d in ("above", "below")) if part]
    heights = [len(part) + 1.2 for part in panels]
    drawing = _drawing(1.4 + 0.5 * sum(heights))
    grid = drawing.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, part in zip(grid[:, 0], panels, strict=True):
        below = part[0][1].direction == "below"
        for row, (_, _, found) in enumerate(part):
            if found:
                _gate_row(axes, row, found)
            else:
                axes.text(0.02, row, "no result", va="center", color=VERMILLION)
        _rows(axes, [f"{name}\n{_words(gate.metric)}" for name, gate, _ in part])
        axes.set_xlim(0, max(1.02, axes.get_xlim()[1]))
        axes.set_xlabel("error / error of the constant answer" if below else "score")
    handles: list[Artist] = [
        _marker("o", BLUE, "passed"),
        _marker("X", VERMILLION, "failed"),
        Line2D([], [], color=BLACK, linewidth=2, label="gate"),
        _marker("s", PURPLE, "floor"),
        _marker("d", GREY, "constant"),
        Patch(color=GREEN, alpha=0.15, label="beyond the gate"),
    ]
    _legend_below(drawing, handles, 3, handletextpad=0.4, columnspacing=1.4)
    yield Figure(
        "overview.png",
        drawing,
        "gates",
        "For each gate a row with the runs' scores, the gate, the floor and the best constant answer",
        "Every gate with the score of each run (one dot per seed), the floor (the best score without training) and the "
        "best constant answer.",
    )


def _gate_row(axes: Axes, row: int, found: Sequence[Finding]) -> None:
    """The bound, the range beyond it, and one dot per run, failed ones on top; constant above the dots, floor below.

    Errors of different tasks share no scale, so each is drawn relative to that of the constant answer.
    """

    def drawn(finding: Finding, value: float | None) -> float:
        return (value or 0.0) / ((finding.trivial or 1.0) if finding.gate.direction == "below" else 1.0)

    first = found[0]
    bound, edge = drawn(first, first.bound), 0.0 if first.gate.direction == "below" else 1.0
    axes.barh(row, edge - bound, left=bound, height=0.72, color=GREEN, alpha=0.15)
    axes.plot([bound] * 2, [row - 0.36, row + 0.36], color=BLACK, linewidth=2)
    axes.scatter(drawn(first, first.trivial), row - 0.27, s=34, marker="d", color=GREY, zorder=2)
    if first.floor is not None:
        axes.scatter(drawn(first, first.floor), row + 0.27, s=30, marker="s", color=PURPLE, zorder=2)
    step = min(0.12, 0.3 / max(len(found) - 1, 1))  # keeps all dots between the marks of constant and floor
    scale = 1.0 if len(found) <= MANY_SEEDS else 0.3
    for position, finding in enumerate(found):
        place = drawn(finding, finding.value), row + step * (position - (len(found) - 1) / 2)
        passed = finding.verdict is Verdict.PASSED
        marker, colour, size, order = ("o", BLUE, 38, 3) if passed else ("X", VERMILLION, 60, 4)
        dot = axes.scatter(*place, scale * size, colour, marker=marker, zorder=order)
        dot.set(edgecolor="white", linewidth=0.6 * scale)


# ------------------------------------------------------------------------------------------------------------- times


def _times(records: Sequence[Record]) -> Iterator[Figure]:
    """The parts of each run's time, and when validation first passed the gates."""
    timed = by_configuration([record for record in records if record.timing.total_s is not None])
    if not timed:
        return
    drawing = _drawing(1.9 + 0.42 * len(timed))
    axes = drawing.subplots()
    for row, runs in enumerate(timed.values()):
        left = 0.0
        for key, (colour, hatch) in zip(TIME_PARTS, _PART_LOOKS, strict=True):
            width = mean_time(runs, key) or 0.0
            axes.barh(row, width, left=left, height=0.6, color=colour, hatch=hatch, edgecolor="white", linewidth=0.4)
            left += width
        rest = max((mean_time(runs, "total_s") or 0.0) - left, 0.0)
        axes.barh(row, rest, left=left, height=0.6, color=REST, edgecolor="white", linewidth=0.4)
        before = mean_time(runs, "data_s") or 0.0
        reached = [before + seconds for run in runs if (seconds := run.timing.seconds_to_gate) is not None]
        axes.scatter(reached, [row] * len(reached), marker="d", s=42, color=BLACK, edgecolors="white", zorder=3)
    _rows(axes, list(timed))
    axes.set_axisbelow(True)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds")
    handles: list[Artist] = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=label)
        for label, (colour, hatch) in zip(TIME_PARTS.values(), _PART_LOOKS, strict=True)
    ]
    handles += [Patch(facecolor=REST, label="other"), _marker("d", BLACK, "gate reached on validation")]
    _legend_below(drawing, handles, 2)
    yield Figure(
        "times.png",
        drawing,
        "speed",
        "For each configuration a bar with the seconds of its parts",
        "The time of a run by part (mean over seeds), and when validation first passed the gates (one mark per seed).",
    )


# ------------------------------------------------------------------------------------------------------------ curves


def _learning_curves(name: str, records: Sequence[Record]) -> Iterator[Figure]:
    """Losses above, validation scores below, for one configuration; with several starts only those on validation."""
    kind, gates, records = SUITE[name].kind, SUITE[name].gates, [record for record in records if record.history]
    curves = dict.fromkeys(curve for record in records for curve in record.history)
    if len(curves) > 1:
        starts = list(zip(curves, map(_words, curves), _CURVE_COLOURS, strict=False))
        panels = [[_Line(records, *start, key) for start in starts] for key in ("validation_loss", "accuracy")]
    else:
        one = "".join(curves)
        losses = ("training", BLUE, "train_loss"), ("validation", VERMILLION, "validation_loss")
        metrics = zip((gate.metric for gate in gates), (GREEN, PURPLE), strict=False)
        scores = [(_words(metric), colour, metric) for metric, colour in metrics]
        panels = [[_Line(records, one, *line) for line in panel] for panel in (losses, scores)]
    panels = [drawable for panel in panels if (drawable := [line for line in panel if any(line.points)])]
    if not panels:
        return
    drawing = _drawing(3.3 * len(panels))
    for axes, panel in zip(drawing.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        is_loss = panel[0].key.endswith("loss")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        for line in panel:
            _plot(axes, line, mark_best=not is_loss)
        axes.set_ylabel(_LOSS_NAMES.get(kind, "loss") if is_loss else "on validation")
        axes.set_yscale("log" if kind == "colorization" else "linear")
        handles = [Line2D([], [], color=line.colour, linewidth=2, label=line.label) for line in panel]
        keys = {line.key for line in panel}
        # A gate that depends on the test split's constant answer is no bound on validation.
        on_validation = [gate for gate in gates if gate.threshold is not None or kind == "colorization"]
        bounds = {gate.bound(records[0].trivial) for gate in on_validation if gate.metric in keys}
        for bound in sorted(bounds):
            axes.axhline(bound, linestyle="--", color=BLACK, linewidth=1)
            handles.append(Line2D([], [], color=BLACK, linestyle="--", linewidth=1, label=f"gate {bound:g}"))
        columns = 3 if sum(len(str(handle.get_label())) for handle in handles) < 36 else 2  # as many as fit
        axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, frameon=False)
    count = len(records)
    note = f"Each line is the median over {count} seeds, the band spans the smallest to the largest."
    if count <= MANY_SEEDS:
        seeds = "One seed." if count == 1 else "One line per seed."
        note = f"A dot marks the epoch whose weights were kept. {seeds}"
    yield Figure(
        f"curves-{name}.png",
        drawing,
        name,
        f"Loss and validation scores of {name} against epochs",
        f"{name}: {'validation' if len(curves) > 1 else 'training and validation'} loss, and scores on validation, "
        f"against epochs. {'Loss at the working size, score at full size. ' * (kind == 'colorization')}{note}",
    )


_LOSS_NAMES = {
    "segmentation": "Dice loss",
    "colorization": "mean squared error",
    "scratch": "cross-entropy",
    "frozen": "cross-entropy",
    "new-task": "loss on validation",
}


@dataclass(frozen=True)
class _Line:
    """One quantity of one curve over the epochs."""

    records: Sequence[Record]
    curve: str
    label: str
    colour: str
    key: str

    @property
    def points(self) -> list[list[tuple[float, float]]]:
        """The (epoch, value) pairs of each run; epochs without a number, such as a diverged one, are skipped."""
        histories = (record.history.get(self.curve, ()) for record in self.records)
        return [
            [(epoch, value) for epoch, entry in enumerate(history, 1) if (value := entry.get(self.key)) is not None]
            for history in histories
        ]


def _plot(axes: Axes, line: _Line, *, mark_best: bool) -> None:
    """One line per seed; for many seeds the median and the range of those that reached each epoch."""
    if len(line.records) > MANY_SEEDS:
        values: dict[float, list[float]] = {}
        for epoch, value in (point for points in line.points for point in points):
            values.setdefault(epoch, []).append(value)
        epochs = sorted(values)
        lowest, highest, middle = ([of(values[epoch]) for epoch in epochs] for of in (min, max, median))
        axes.fill_between(epochs, lowest, highest, color=line.colour, alpha=0.15, linewidth=0)
        axes.plot(epochs, middle, color=line.colour, linewidth=1.2)
        return
    for record, points in zip(line.records, line.points, strict=True):
        marker = "." if len(points) <= _FEW_EPOCHS else ""  # a line through one or two epochs is hardly visible
        axes.plot(*zip(*points, strict=True), marker=marker, color=line.colour, linewidth=1.2, alpha=0.85)
        best_epoch = (record.details.best_epochs or {}).get(line.curve)
        for epoch, value in points:
            if mark_best and epoch == best_epoch:
                axes.plot(epoch, value, "o", markersize=6, color=line.colour, markeredgecolor="white", zorder=3)


# ------------------------------------------------------------------------------------------------------------ images


def _recolored(results: Path, name: str, records: Sequence[Record]) -> Iterator[Figure]:
    found = _first_samples(results, records, ("grays", "images", "predictions", "frames", "errors"))
    if found is None:
        return
    record, samples = found
    count = len(samples["frames"])
    drawing = _drawing(0.3 + 1.25 * count)
    for row, panels in enumerate(drawing.subplots(count, 3, squeeze=False)):
        _show(panels[0], samples["grays"][row], "grey input" if row == 0 else "")
        _show(panels[1], samples["predictions"][row], "recolored" if row == 0 else "")
        _show(panels[2], samples["images"][row], "original" if row == 0 else "")
        panels[0].set_ylabel(f"frame {samples['frames'][row]}\nMSE {samples['errors'][row]:.5f}")
    yield Figure(
        "recolored.png",
        drawing,
        name,
        "Grey frames, their colorizations, and the originals",
        f"The best, the median and the worst validation frame (seed {record.seed}): grey input, prediction, original. "
        "None of them was used in training.",
    )


def _masks(results: Path, records: Sequence[Record]) -> Iterator[Figure]:
    """The same test frames for every configuration: one column per frame, one row per prediction."""
    palette = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in _CLASS_COLOURS], np.uint8)
    keys = ("images", "truth", "prediction", "frames", "scores", "look_up", "look_up_scores")
    found = {
        name: sample
        for name, runs in by_configuration(records).items()
        if (sample := _first_samples(results, runs, keys)) is not None
    }
    if not found:
        return
    record, first = next(iter(found.values()))
    count = len(first["frames"])
    predictions = {"look-up": (first["look_up"], first["look_up_scores"])}
    for name, (_, samples) in found.items():
        if np.array_equal(samples["frames"], first["frames"]):
            predictions[SUITE[name].question] = samples["prediction"], samples["scores"]
    drawing = _drawing(0.9 + 1.35 * (2 + len(predictions)))
    grid = drawing.subplots(2 + len(predictions), count, squeeze=False)
    for column in range(count):
        _show(grid[0, column], first["images"][column], f"frame {first['frames'][column]}")
        _show(grid[1, column], palette[first["truth"][column]])
        for axes, (masks, scores) in zip(grid[2:, column], predictions.values(), strict=True):
            _show(axes, palette[masks[column]])
            axes.text(0.03, 0.95, f"Dice {scores[column]:.3f}", color=WHITE, va="top", transform=axes.transAxes)
    for axes, label in zip(grid[:, 0], ("image", "truth", *predictions), strict=True):
        axes.set_ylabel(label)
    names = [_words(name) for name in record.details.class_names or ()]
    shown = np.unique([first["truth"][:count], *(masks[:count] for masks, _ in predictions.values())])
    handles = [Patch(facecolor=_CLASS_COLOURS[i], label=names[i]) for i in map(int, shown)]
    _legend_below(drawing, handles, 2)
    yield Figure(
        "masks.png",
        drawing,
        "segmentation",
        "Three test frames with their true masks and each configuration's prediction",
        "The same test frames for every configuration: those that the mask of the nearest training frame (look-up) "
        f"fits best, in the median, and worst. Each prediction shows its present Dice. Seed {record.seed}.",
    )


def _first_samples(results: Path, records: Sequence[Record], keys: Sequence[str]) -> tuple[Record, Samples] | None:
    """The sample file of the lowest seed that has one with all ``keys``."""
    for record in records:
        try:
            with np.load(results / str(record.details.samples), allow_pickle=False) as content:
                return record, {key: content[key] for key in keys}
        except Exception:  # a missing or damaged file: what numpy raises depends on its bytes
            continue
    return None


def _show(axes: Axes, image: NDArray[Any], title: str = "") -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(title, pad=2)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


# ----------------------------------------------------------------------------------------------------------- classes


def _classes(records: Sequence[Record]) -> Iterator[Figure]:
    """Dice of each class with its number of frames: a class in only two frames proves little."""
    runs = by_configuration([r for r in records if r.details.pooled_dice and r.details.class_names])
    if not runs:
        return
    first = next(iter(runs.values()))[0].details
    names = first.class_names or []
    support: Sequence[object] = first.support_frames or ["?"] * len(names)
    drawing = _drawing(1.2 + 0.55 * len(names))
    axes = drawing.subplots()
    markers = []
    for place, (column, found) in enumerate(runs.items()):
        shift = 0.22 * (place - (len(runs) - 1) / 2)
        colour, marker = _CURVE_COLOURS[place % len(_CURVE_COLOURS)], "osD^v"[place % 5]
        markers.append(_marker(marker, colour, column))
        dice = [(row, value) for record in found for row, value in enumerate(record.details.pooled_dice or ())]
        dots = [(value, row + shift) for row, value in dice if value is not None]
        xs, ys = zip(*dots, strict=True)
        axes.scatter(xs, ys, marker=marker, s=34, color=colour, edgecolors="white", zorder=3)
    for row in range(len(names) - 1):
        axes.axhline(row + 0.5, color=GREY, alpha=0.2, linewidth=0.8)
    frames = zip(names, support, strict=False)
    _rows(axes, [f"{_words(name)}\n{count} frame{'' if count == 1 else 's'}" for name, count in frames])
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Dice, all pixels of test")
    _legend_below(drawing, markers, 2)
    yield Figure(
        "classes.png",
        drawing,
        "segmentation",
        "For each class the Dice of each configuration",
        "Dice of each class on the test split, one mark per seed; below its name, the number of test frames with it. A "
        "class without a mark is neither present nor predicted; an absent class scores 0 if any pixel is predicted as "
        "it.",
    )


def _confusions(records: Sequence[Record]) -> Iterator[Figure]:
    for name, runs in by_configuration([r for r in records if r.details.confusion_matrix]).items():
        counts = np.sum([np.array(record.details.confusion_matrix, dtype=float) for record in runs], axis=0)
        percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        names = [_words(entry) for entry in runs[0].details.class_names or range(len(counts))]
        drawing = _drawing(_WIDTH)
        axes = drawing.subplots()
        axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        for (row, column), value in np.ndenumerate(percent):
            if counts[row, column]:
                text, colour = "<1" if value < 1 else f"{value:.0f}", "white" if value > 55 else BLACK
                axes.text(column, row, text, ha="center", va="center", color=colour)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("prediction")
        axes.set_ylabel("truth")
        seeds = seeds_text(sorted(record.seed for record in runs))
        yield Figure(
            f"confusion-{name}.png",
            drawing,
            name,
            f"Confusion matrix of {name} on the test split",
            f"{name}: confusion matrix of the test split, in percent of each true class, {seeds}.",
        )


# ------------------------------------------------------------------------------------------------------------- tools


def _drawing(height: float) -> Drawing:
    """An empty figure of this height in inches."""
    return Drawing(figsize=(_WIDTH, height), dpi=_DOTS_PER_INCH, layout="constrained", facecolor=WHITE)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """The labels from top to bottom, and a grid along the rows."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)


def _legend_below(drawing: Drawing, handles: Sequence[Artist], columns: int, **looks: Any) -> None:
    drawing.legend(handles=list(handles), loc="outside lower center", ncols=columns, frameon=False, **looks)


def _marker(shape: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], linestyle="", marker=shape, color=colour, label=label)


def _words(name: object) -> str:
    return words(visible(str(name)).replace("$", r"\$"))  # matplotlib would read $...$ as a formula
