"""The report's figures, from records and sample files alone: no GPU, no data and no torch.

Every figure is made with matplotlib's objects on an Agg canvas, so that nothing depends on a display or on state that
another caller of pyplot has left behind. Colours are those of Okabe and Ito (2008), which stay apart for people with
any common colour vision deficiency; where a colour carries meaning, a marker or a line style carries it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from benchmarks.results.formatting import MANY_SEEDS, seeds_text
from benchmarks.results.gates import best_floor
from benchmarks.results.records import TIME_PARTS, History, Record
from benchmarks.suite import SUITE, Gate
from hw6core.errors import visible

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
WHITE, GREY, REST = "#FFFFFF", "#777777", "#BBBBBB"
_CURVE_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_PART_LOOKS = ((SKY, ""), (YELLOW, ".."), (BLUE, ""), (ORANGE, "//"))  # colour and hatch
# The background, then the classes; a ninth one starts over with the colours of the others.
_CLASS_COLOURS = ("#262626", *(SKY, ORANGE, GREEN, YELLOW, BLUE, VERMILLION, PURPLE) * 37)[:256]
_PICTURES = 3  # in a figure
_FEW_EPOCHS = 12

Samples = dict[str, NDArray[Any]]
Drawn = tuple[str, Drawing, str]  # file name, drawing, caption


@dataclass(frozen=True)
class Figure:
    """A figure that was written: its file, and what it shows as a sentence or two."""

    path: Path
    caption: str


def write_figures(results: Path, records: Sequence[Record]) -> list[Figure]:
    """Draw every figure that the records and their sample files allow into ``results/figures``.

    A record without a history, or a sample file that is missing or damaged, costs its figure and nothing else.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = results / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    with mpl.rc_context():
        mpl.rcdefaults()  # not what a user's matplotlibrc says, such as LaTeX for all text
        mpl.rcParams.update(
            {"font.size": 10, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False}
        )
        for name, drawing, caption in _drawings(results, [entry for entry in records if entry.configuration in SUITE]):
            drawing.savefig(folder / name, format="png", pil_kwargs={"optimize": True})
            figures.append(Figure(folder / name, caption))
    return figures


def _drawings(results: Path, records: Sequence[Record]) -> Iterator[Drawn]:
    """Every figure in the report's order."""
    completed = [record for record in records if record.status == "completed"]
    segmentation, colorization = _of_kind(records, "segmentation"), _of_kind(records, "colorization")
    yield from _overview(completed)
    yield from _times(completed)
    questions = "the segmentation configurations, questions 1(a), 1(b) and 1(d)"
    yield from _losses("segmentation", segmentation, "Dice loss", questions)
    yield from _validation_scores(segmentation)
    yield from _losses("colorization", colorization, "mean squared error", "the colorization, question 1(c)", log=True)
    yield from _recolored(results, _of_kind(completed, "colorization"))
    yield from _mask_figures(results, _of_kind(completed, "segmentation"))
    yield from _classes(_of_kind(completed, "segmentation"))
    yield from _vgg_curves(records)
    yield from _confusions(completed)


def _of_kind(records: Sequence[Record], *kinds: str) -> list[Record]:
    return [record for record in records if SUITE[record.configuration].kind in kinds]


def _by_configuration(records: Sequence[Record]) -> Mapping[str, list[Record]]:
    """In the suite's order, those that have a record."""
    found: dict[str, list[Record]] = {name: [] for name in SUITE}
    for record in records:
        found[record.configuration].append(record)
    return {name: runs for name, runs in found.items() if runs}


# ---------------------------------------------------------------------------------------------------------- overview


def _overview(records: Sequence[Record]) -> Iterator[Drawn]:
    """Every gate as a row: the runs, the bound, the trivial predictor, the floor."""

    def drawable(record: Record, gate: Gate) -> bool:
        # An error is drawn as a share of the trivial one, which must then be above 0.
        value, trivial = record.metrics.get(gate.metric), record.trivial.get(gate.metric)
        return value is not None and trivial is not None and (gate.direction == "above" or trivial > 0)

    rows = [
        (name, gate, runs)
        for name, found in _by_configuration(records).items()
        for gate in SUITE[name].gates
        if (runs := [record for record in found if drawable(record, gate)])
    ]
    panels = [part for part in ([r for r in rows if r[1].direction == d] for d in ("above", "below")) if part]
    if not panels:
        return
    heights = [len(part) + 1.2 for part in panels]
    drawing = _drawing(8.5, 1.0 + 0.36 * sum(heights))
    grid = drawing.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, part in zip(grid[:, 0], panels, strict=True):
        below = part[0][1].direction == "below"
        for row, (_, gate, runs) in enumerate(part):
            _gate_row(axes, row, gate, runs)
        _rows(axes, [f"{name}  {_words(gate.metric)}" for name, gate, _ in part])
        axes.set_xlim(0, max(1.02, axes.get_xlim()[1]))
        axes.set_xlabel("error as a share of the trivial predictor's (lower is better)" if below else "score")
    handles: list[Artist] = [
        _marker("o", BLUE, "a run that passed"),
        _marker("X", VERMILLION, "a run that failed"),
        _marker("d", GREY, "trivial predictor"),
        _marker("s", PURPLE, "floor"),
        Line2D([], [], color=BLACK, linewidth=2, label="gate"),
        Patch(color=GREEN, alpha=0.15, label="passes"),
    ]
    _legend_below(drawing, handles, 6, handletextpad=0.4, columnspacing=1.4)
    yield (
        "overview.png",
        drawing,
        "Every gate: what each run reached (a dot a seed), the gate, what the trivial predictor reaches and the floor, "
        "which is what the best answer without training reaches.",
    )


def _gate_row(axes: Axes, row: int, gate: Gate, runs: Sequence[Record]) -> None:
    """The bound, what passes, the trivial predictor, the floor, and a dot a run: those that failed on top.

    An error has no common scale with another task's: it is shown as a share of the trivial predictor's.
    """
    first = runs[0].trivial
    unit, edge = (first[gate.metric], 0.0) if gate.direction == "below" else (1.0, 1.0)
    bound = gate.bound(first) / unit
    axes.barh(row, edge - bound, left=bound, height=0.62, color=GREEN, alpha=0.15)
    axes.plot([bound] * 2, [row - 0.31, row + 0.31], color=BLACK, linewidth=2)
    axes.scatter(first[gate.metric] / unit, row, s=34, marker="d", color=GREY, zorder=2)
    floors = [best_floor(record, SUITE[record.configuration], gate)[0] for record in runs]
    if floors[0] is not None:
        axes.scatter(floors[0] / unit, row, s=30, marker="s", color=PURPLE, zorder=2)
    step = min(0.16, 0.5 / max(len(runs) - 1, 1))  # within the row however many there are
    dots: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for position, (record, floor) in enumerate(zip(runs, floors, strict=True)):
        value = record.metrics[gate.metric] or 0.0
        unit = record.trivial[gate.metric] if gate.direction == "below" else 1.0
        passed = gate.passes(value, record.trivial) and (floor is None or gate.better(value, floor))
        dots[passed].append((value / unit, row + step * (position - (len(runs) - 1) / 2)))
    shrink = 1.0 if len(runs) <= MANY_SEEDS else 0.3
    for passed, places in dots.items():
        if places:
            _dots(
                axes,
                places,
                s=shrink * (38 if passed else 60),
                marker="o" if passed else "X",
                color=BLUE if passed else VERMILLION,
                edgecolors="white",
                linewidths=0.6 * shrink,
                zorder=3 if passed else 4,
            )


# ------------------------------------------------------------------------------------------------------------- times


def _times(records: Sequence[Record]) -> Iterator[Drawn]:
    """Where the time went, and when each run was good enough."""
    timed = _by_configuration([record for record in records if record.timing.total_s is not None])
    if not timed:
        return
    drawing = _drawing(8.5, 1.3 + 0.42 * len(timed))
    axes = drawing.subplots()
    for row, runs in enumerate(timed.values()):
        left = 0.0
        for key, (colour, hatch) in zip(TIME_PARTS, _PART_LOOKS, strict=True):
            width = _mean_s(runs, key)
            axes.barh(row, width, left=left, height=0.6, color=colour, hatch=hatch, edgecolor="white", linewidth=0.4)
            left += width
        rest = max(_mean_s(runs, "total_s") - left, 0.0)
        axes.barh(row, rest, left=left, height=0.6, color=REST, edgecolor="white", linewidth=0.4)
        before = _mean_s(runs, "data_s")
        reached = [before + seconds for run in runs if (seconds := run.timing.seconds_to_gate) is not None]
        axes.scatter(reached, [row] * len(reached), marker="d", s=42, color=BLACK, edgecolors="white", zorder=3)
    _rows(axes, list(timed))
    axes.set_axisbelow(True)
    axes.set_xlabel("seconds")
    handles: list[Artist] = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=label)
        for label, (colour, hatch) in zip(TIME_PARTS.values(), _PART_LOOKS, strict=True)
    ]
    handles += [Patch(facecolor=REST, label="the rest"), _marker("d", BLACK, "gate reached on validation")]
    _legend_below(drawing, handles, 4, fontsize=9)
    yield (
        "times.png",
        drawing,
        "Where the time of a run went (mean over seeds), and when validation first cleared the gates (a mark a seed).",
    )


def _mean_s(records: Sequence[Record], key: str) -> float:
    values = [value for record in records if (value := getattr(record.timing, key)) is not None]
    return mean(values) if values else 0.0


# ------------------------------------------------------------------------------------------------------------ curves


@dataclass
class _Curve:
    """What the seeds of a configuration learned under one name: the history of each, and its best epoch."""

    label: str
    colour: str
    runs: list[tuple[History, int | None]] = field(default_factory=list)

    def points(self, key: str) -> list[list[tuple[float, float]]]:
        """(epoch, value) of each run where there is a number; a diverged run has none in its last epoch."""
        return [
            [(epoch, value) for epoch, entry in enumerate(history, 1) if (value := entry.get(key)) is not None]
            for history, _ in self.runs
        ]


def _curves(records: Sequence[Record]) -> list[_Curve]:
    """Every training with a history, a colour for each label."""
    curves: dict[str, _Curve] = {}
    for configuration, runs in _by_configuration(records).items():
        for record in sorted(runs, key=lambda entry: entry.seed):
            for name, history in record.history.items():
                label = f"{configuration}, {_words(name)}" if len(record.history) > 1 else configuration
                if history:
                    colour = _CURVE_COLOURS[len(curves) % len(_CURVE_COLOURS)]
                    best = (record.details.best_epochs or {}).get(name)
                    curves.setdefault(label, _Curve(label, colour)).runs.append((history, best))
    return list(curves.values())


def _losses(name: str, records: Sequence[Record], loss: str, of: str, *, log: bool = False) -> Iterator[Drawn]:
    curves = _curves(records)
    if not curves:
        return
    drawing = _drawing(8.0, 4.4)
    axes = drawing.subplots()
    _plot_losses(axes, curves, loss)
    axes.set_yscale("log" if log else "linear")
    yield f"curves-{name}.png", drawing, f"Training and validation loss of {of}. {_seed_note(curves)}"


def _validation_scores(records: Sequence[Record]) -> Iterator[Drawn]:
    curves = _curves(records)
    metrics = [m for m in ("course_dice", "present_dice") if any(any(curve.points(m)) for curve in curves)]
    if not metrics:
        return
    drawing = _drawing(10.0, 4.4)
    panels = drawing.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _plot(axes, curves, metric, mark_best=True)
        gates = [(gate, r) for r in records for gate in SUITE[r.configuration].gates if gate.metric == metric]
        for bound in sorted({gate.bound(record.trivial) for gate, record in gates}):
            axes.axhline(bound, linestyle="--", color=BLACK, linewidth=1)
            _name_line(axes, bound, f"gate {bound:g}", BLACK, xytext=(3, 0), ha="left", va="center")
        for trivial in sorted({r.trivial[metric] for r in records if metric in r.trivial}):
            axes.axhline(trivial, linestyle=":", color=GREY, linewidth=1)
            name = f"trivial predictor {trivial:.3f}"
            _name_line(axes, trivial, name, GREY, xytext=(-2, 2), ha="right", va="bottom")
        floors = (best_floor(record, SUITE[record.configuration], gate)[0] for gate, record in gates)
        for floor in sorted({value for value in floors if value is not None}):
            axes.axhline(floor, linestyle="-.", color=PURPLE, linewidth=1)
            _name_line(axes, floor, f"floor {floor:.3f}", PURPLE, xytext=(-2, -2), ha="right", va="top")
        axes.set_title(_words(metric))
        axes.set_ylim(0, 1)
    panels[0].set_ylabel("score on validation")
    _legend_below(drawing, _labels(curves), 3)
    yield (
        "validation-scores.png",
        drawing,
        "Course and present Dice on validation, with the gates and what the trivial predictor and the floor reach on "
        "test. " + _seed_note(curves, marked=True),
    )


def _name_line(axes: Axes, height: float, name: str, colour: str, **places: Any) -> None:
    """The name of a horizontal line at its right end."""
    looks: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 8}
    axes.annotate(name, (1, height), color=colour, **looks, **places)


def _vgg_curves(records: Sequence[Record]) -> Iterator[Drawn]:
    """One row a task: loss and accuracy of two different tasks do not belong on one axis."""
    tasks = {"Fashion-MNIST": ("scratch", "frozen"), "new task": ("new-task",)}
    groups = [(title, curves) for title, kinds in tasks.items() if (curves := _curves(_of_kind(records, *kinds)))]
    if not groups:
        return
    drawing = _drawing(10.0, 0.4 + 3.3 * len(groups))
    grid = drawing.subplots(len(groups), 2, squeeze=False)
    for (losses, scores), (title, curves) in zip(grid, groups, strict=True):
        _plot_losses(losses, curves, "loss")
        losses.set_title(f"{title}: loss")
        _plot(scores, curves, "accuracy", style="--", mark_best=True)
        scores.set_title(f"{title}: accuracy on validation")
        scores.set_ylabel("accuracy")
    note = _seed_note([curve for _, curves in groups for curve in curves], marked=True)
    what = "Loss and validation accuracy of the VGG16 configurations, questions 2(a) to 2(c)."
    yield "curves-vgg.png", drawing, f"{what} {note}"


def _plot_losses(axes: Axes, curves: Sequence[_Curve], name: str) -> None:
    _plot(axes, curves, "train_loss")
    _plot(axes, curves, "validation_loss", style="--")
    axes.set_ylabel(name)
    lines = [
        Line2D([], [], color=GREY, linestyle="-", label="training"),
        Line2D([], [], color=GREY, linestyle="--", label="validation"),
    ]
    axes.legend(handles=_labels(curves) + lines, frameon=False, fontsize=9)


def _plot(axes: Axes, curves: Sequence[_Curve], key: str, style: str = "-", mark_best: bool = False) -> None:
    """A line a seed; of many seeds the median of those that trained so far, and a band from smallest to largest."""
    for curve in curves:
        if len(curve.runs) > MANY_SEEDS:
            values: dict[float, list[float]] = {}
            for epoch, value in (point for points in curve.points(key) for point in points):
                values.setdefault(epoch, []).append(value)
            epochs = sorted(values)
            lowest, highest, middle = ([of(values[epoch]) for epoch in epochs] for of in (min, max, median))
            axes.fill_between(epochs, lowest, highest, color=curve.colour, alpha=0.15, linewidth=0)
            axes.plot(epochs, middle, style, color=curve.colour, linewidth=1.2)
            continue
        for points, (_, best_epoch) in zip(curve.points(key), curve.runs, strict=True):
            marker = "." if len(points) <= _FEW_EPOCHS else ""  # a line through one or two epochs is hardly seen
            epochs, heights = [epoch for epoch, _ in points], [value for _, value in points]
            axes.plot(epochs, heights, style, marker=marker, color=curve.colour, linewidth=1.2, alpha=0.85)
            for epoch, value in points:
                if mark_best and epoch == best_epoch:
                    axes.plot(epoch, value, "o", markersize=6, color=curve.colour, markeredgecolor="white", zorder=3)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _labels(curves: Sequence[_Curve]) -> list[Line2D]:
    return [Line2D([], [], color=curve.colour, linewidth=2, label=curve.label) for curve in curves]


def _seed_note(curves: Sequence[_Curve], *, marked: bool = False) -> str:
    """What a line is and, where best epochs are ``marked``, a dot; bands have none."""
    counts = [len(curve.runs) for curve in curves]
    note = "A dot marks the epoch whose weights were kept. " if marked and min(counts) <= MANY_SEEDS else ""
    most = max(counts)
    if most <= MANY_SEEDS:
        return note + ("One line a seed." if most > 1 else "One seed.")
    return f"{note}A line is the median over seeds ({most} at most), its band reaches from the smallest to the largest."


# ------------------------------------------------------------------------------------------------------------ images


def _recolored(results: Path, records: Sequence[Record]) -> Iterator[Drawn]:
    found = _first_samples(results, records, ("grays", "images", "predictions", "frames", "errors"))
    if found is None:
        return
    record, samples = found
    count = min(_PICTURES, len(samples["frames"]))
    drawing = _drawing(7.2, 0.2 + 2.05 * count)
    for row, panels in enumerate(drawing.subplots(count, 3, squeeze=False)):
        _show(panels[0], samples["grays"][row], "grey input" if row == 0 else "")
        _show(panels[1], samples["predictions"][row], "recolored" if row == 0 else "")
        _show(panels[2], samples["images"][row], "original" if row == 0 else "")
        panels[0].set_ylabel(f"frame {samples['frames'][row]}\nMSE {samples['errors'][row]:.5f}", fontsize=9)
    yield (
        "recolored.png",
        drawing,
        f"Validation frames that the colorization has not seen (seed {record.seed}): what the network was given, "
        "what it answered, and the original.",
    )


def _mask_figures(results: Path, records: Sequence[Record]) -> Iterator[Drawn]:
    palette = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in _CLASS_COLOURS], np.uint8)
    for name, runs in _by_configuration(records).items():
        found = _first_samples(results, runs, ("images", "truth", "prediction", "frames", "scores"))
        if found is None:
            continue
        record, samples = found
        count = min(_PICTURES, len(samples["frames"]))
        drawing = _drawing(7.2, 0.6 + 2.2 * count)
        grid = drawing.subplots(count, 3, squeeze=False)
        for row, (panels, place) in enumerate(zip(grid, ("best", "median", "worst"), strict=False)):
            _show(panels[0], samples["images"][row], f"{place}: frame {samples['frames'][row]}")
            _show(panels[1], palette[samples["truth"][row]], "truth")
            score = f"prediction, present Dice {samples['scores'][row]:.3f}"
            _show(panels[2], palette[samples["prediction"][row]], score)
        names = dict(enumerate(map(_words, record.details.class_names or ())))
        shown = np.union1d(samples["truth"][:count], samples["prediction"][:count])
        labels = {index: names.get(index, f"class {index}") for index in map(int, shown)}
        handles = [Patch(facecolor=_CLASS_COLOURS[index], label=label) for index, label in labels.items()]
        _legend_below(drawing, handles, 4, fontsize=9)
        caption = f"Test frames of {name} (seed {record.seed}): the best, the median and the worst by present Dice."
        yield f"masks-{name}.png", drawing, caption


def _first_samples(results: Path, records: Sequence[Record], keys: Sequence[str]) -> tuple[Record, Samples] | None:
    """The sample file of the lowest seed that has one with all ``keys``."""
    for record in sorted(records, key=lambda entry: entry.seed):
        name = record.details.samples or f"samples/{record.configuration}-seed{record.seed}.npz"
        try:
            with np.load(results / name, allow_pickle=False) as content:
                samples = {key: content[key] for key in keys}
        except Exception:  # no file, or a damaged one: what numpy raises depends on its bytes
            continue
        if len(samples["frames"]):
            return record, samples
    return None


def _show(axes: Axes, image: NDArray[Any], title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


# ----------------------------------------------------------------------------------------------------------- classes


def _classes(records: Sequence[Record]) -> Iterator[Drawn]:
    """Dice of each class, with the number of frames behind it: a class that two frames show proves little."""
    runs = _by_configuration([r for r in records if r.details.pooled_dice and r.details.class_names])
    if not runs:
        return
    first = next(iter(runs.values()))[0].details
    names = first.class_names or []
    support = dict(zip(names, first.support_frames or [], strict=False))
    drawing = _drawing(8.5, 1.0 + 0.5 * len(names))
    axes = drawing.subplots()
    markers = []
    for place, (column, found) in enumerate(runs.items()):
        shift = 0.22 * (place - (len(runs) - 1) / 2)
        colour, marker = _CURVE_COLOURS[place % len(_CURVE_COLOURS)], "osD^v"[place % 5]
        markers.append(_marker(marker, colour, column))
        dots: list[tuple[float, float]] = []
        for details in (record.details for record in found):
            listed = dict(zip(details.class_names or [], details.pooled_dice or [], strict=False))
            dots += [(value, row + shift) for row, name in enumerate(names) if (value := listed.get(name)) is not None]
        _dots(axes, dots, marker=marker, s=34, color=colour, edgecolors="white", zorder=3)
    for row in range(len(names) - 1):
        axes.axhline(row + 0.5, color=GREY, alpha=0.2, linewidth=0.8)
    _rows(axes, [f"{_words(name)}\n{support.get(name, '?')} frames show it" for name in names], fontsize=9)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Dice over all pixels of the test split")
    _legend_below(drawing, markers, 3)
    yield (
        "classes.png",
        drawing,
        "Dice of each class on test, a mark a seed. A class without a mark is neither shown nor predicted; one that no "
        "frame shows has 0 as soon as a pixel is taken for it.",
    )


def _confusions(records: Sequence[Record]) -> Iterator[Drawn]:
    for name, runs in _by_configuration([r for r in records if r.details.confusion_matrix]).items():
        counts = np.sum([np.array(record.details.confusion_matrix, dtype=float) for record in runs], axis=0)
        percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        names = [_words(entry) for entry in runs[0].details.class_names or range(len(counts))]
        side = 2.2 + 0.5 * len(names)
        drawing = _drawing(side, side)
        axes = drawing.subplots()
        axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        for (row, column), value in np.ndenumerate(percent):
            if counts[row, column]:
                text, colour = "<1" if value < 1 else f"{value:.0f}", "white" if value > 55 else BLACK
                axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("answer")
        axes.set_ylabel("truth")
        seeds = seeds_text(sorted(record.seed for record in runs))
        what = f"{name}: what each class of the test split was taken for, in percent of its samples, {seeds}."
        yield f"confusion-{name}.png", drawing, what


# ------------------------------------------------------------------------------------------------------------- tools


def _drawing(width: float, height: float) -> Drawing:
    """An empty figure, sizes in inches."""
    drawing = Drawing(figsize=(width, height), dpi=110, layout="constrained", facecolor=WHITE)
    FigureCanvasAgg(drawing)
    return drawing


def _dots(axes: Axes, places: Sequence[tuple[float, float]], **looks: Any) -> None:
    axes.scatter([x for x, _ in places], [y for _, y in places], **looks)


def _rows(axes: Axes, labels: Sequence[str], **text: Any) -> None:
    """The labels from top to bottom, and a grid along the rows."""
    axes.set_yticks(range(len(labels)), labels, **text)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)


def _legend_below(drawing: Drawing, handles: Sequence[Artist], columns: int, **looks: Any) -> None:
    drawing.legend(handles=list(handles), loc="outside lower center", ncols=columns, frameon=False, **looks)


def _marker(shape: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], linestyle="", marker=shape, color=colour, label=label)


def _words(name: object) -> str:
    """A key as people write it."""
    text = visible(str(name)).replace("$", r"\$")  # or matplotlib takes it for a formula
    return text.replace("_", " ").replace("dice", "Dice").replace(" mse", " MSE")
