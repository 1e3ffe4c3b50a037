"""The report's figures, from records and sample files alone: no GPU, no data and no torch.

Every figure is made with matplotlib's objects on an Agg canvas, so that nothing depends on a display or on state that
another caller of pyplot has left behind. Colours are those of Okabe and Ito (2008), which stay apart for people with
any common colour vision deficiency; where a colour carries meaning, a marker or a line style carries it too.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeGuard

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from benchmarks.results.formatting import MANY_SEEDS, seeds_text
from benchmarks.results.records import TIME_PARTS, History, Record
from benchmarks.suite import SUITE, Gate
from hw6core.errors import visible

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
WHITE, GREY = "#FFFFFF", "#777777"
_CURVE_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_CLASS_COLOURS = ("#262626", SKY, ORANGE, GREEN, YELLOW, BLUE, VERMILLION, PURPLE)  # background first
_LARGEST_PNG = 300_000
_MOST_SAMPLE_BYTES = 64 << 20
_RECOLORED_ROWS = 3
_FEW_EPOCHS = 12

Samples = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Figure:
    """A figure that was written: its file, and what it shows as a sentence or two."""

    path: Path
    caption: str


@dataclass(frozen=True)
class _Curve:
    """One training of one seed; seeds of one configuration share label and colour."""

    label: str
    colour: str
    history: History
    best_epoch: float | None = None


def write_figures(results: Path, records: Sequence[Record]) -> list[Figure]:
    """Draw every figure that the records and their sample files allow into ``results/figures``.

    A record without a history, or a sample file that is missing or damaged, costs its figure and nothing else.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = results / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    known = [record for record in records if record.configuration in SUITE]
    figures = []
    with mpl.rc_context():
        mpl.rcdefaults()  # not what a user's matplotlibrc says, such as LaTeX for all text
        mpl.rcParams.update(
            {"font.size": 10, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False}
        )
        for name, drawing, caption in _drawings(results, known):
            path = folder / name
            _save(drawing, path)
            figures.append(Figure(path, caption))
    return figures


def _drawings(results: Path, records: Sequence[Record]) -> Iterator[tuple[str, Drawing, str]]:
    """File name, drawing and caption of every figure, in the report's order."""
    completed = [record for record in records if record.status == "completed"]
    segmentation = _of_kind(records, "segmentation")
    yield from _overview(completed)
    yield from _times(completed)
    yield from _segmentation_curves(segmentation)
    yield from _validation_scores(segmentation)
    yield from _colorization_curves(_of_kind(records, "colorization"))
    yield from _recolored(results, _of_kind(completed, "colorization"))
    yield from _masks(results, _of_kind(completed, "segmentation"))
    yield from _classes(_of_kind(completed, "segmentation"))
    yield from _vgg_curves(records)
    yield from _confusions(completed)


def _of_kind(records: Sequence[Record], *kinds: str) -> list[Record]:
    return [record for record in records if SUITE[record.configuration].kind in kinds]


# ---------------------------------------------------------------------------------------------------------- overview


def _overview(records: Sequence[Record]) -> Iterator[tuple[str, Drawing, str]]:
    """Every gate as a row: the runs, the bound, the trivial predictor."""
    rows = [
        (configuration.id, gate, runs)
        for configuration in SUITE.values()
        for gate in configuration.gates
        if (runs := [entry for entry in records if entry.configuration == configuration.id and _has(entry, gate)])
    ]
    panels = [part for part in ([r for r in rows if r[1].direction == d] for d in ("above", "below")) if part]
    if not panels:
        return
    heights = [len(part) + 1.2 for part in panels]
    drawing = _drawing(8.5, 1.0 + 0.36 * sum(heights))
    grid = drawing.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, part in zip(grid[:, 0], panels, strict=True):
        _overview_panel(axes, part)
    drawing.legend(
        handles=[
            _marker("o", BLUE, "a run that passed"),
            _marker("X", VERMILLION, "a run that failed"),
            _marker("d", GREY, "trivial predictor"),
            Line2D([], [], color=BLACK, linewidth=2, label="gate"),
            Patch(color=GREEN, alpha=0.15, label="passes"),
        ],
        loc="outside lower center",
        ncols=5,
        frameon=False,
        handletextpad=0.4,
        columnspacing=1.4,
    )
    yield (
        "overview.png",
        drawing,
        "Every gate: what each run reached (a dot a seed), the gate, and what the trivial predictor reaches.",
    )


def _overview_panel(axes: Axes, rows: Sequence[tuple[str, Gate, list[Record]]]) -> None:
    below = rows[0][1].direction == "below"
    for row, (_, gate, runs) in enumerate(rows):
        first = runs[0].trivial
        unit, edge = (first[gate.metric], 0.0) if below else (1.0, 1.0)
        bound = gate.bound(first) / unit
        axes.barh(row, edge - bound, left=bound, height=0.62, color=GREEN, alpha=0.15)
        axes.plot([bound] * 2, [row - 0.31, row + 0.31], color=BLACK, linewidth=2)
        axes.scatter(first[gate.metric] / unit, row, s=34, marker="d", color=GREY, zorder=2)
        _overview_dots(axes, row, gate, runs)
    axes.set_yticks(range(len(rows)), [f"{name}  {_words(gate.metric)}" for name, gate, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(1.02, axes.get_xlim()[1]))
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("error as a share of the trivial predictor's (lower is better)" if below else "score")


def _overview_dots(axes: Axes, row: int, gate: Gate, runs: Sequence[Record]) -> None:
    """A dot a run, within the row however many there are; those that failed on top."""
    step = min(0.16, 0.5 / max(len(runs) - 1, 1))
    dots: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for position, record in enumerate(runs):
        # An error has no common scale with another task's: it is shown as a share of the trivial predictor's.
        unit = record.trivial[gate.metric] if gate.direction == "below" else 1.0
        value = record.metrics[gate.metric]
        assert value is not None
        passed = gate.passes(value, record.trivial)
        dots[passed].append((value / unit, row + step * (position - (len(runs) - 1) / 2)))
    shrink = 1.0 if len(runs) <= MANY_SEEDS else 0.3
    for passed, places in ((passed, places) for passed, places in dots.items() if places):
        axes.scatter(
            *_columns(places),
            s=shrink * (38 if passed else 60),
            marker="o" if passed else "X",
            color=BLUE if passed else VERMILLION,
            edgecolors="white",
            linewidths=0.6 * shrink,
            zorder=3 if passed else 4,
        )


def _columns(places: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in places], [y for _, y in places]


# ------------------------------------------------------------------------------------------------------------- times


_PART_LOOKS = ((SKY, ""), (PURPLE, "xx"), (YELLOW, ".."), (BLUE, ""), (ORANGE, "//"))  # colour and hatch


def _times(records: Sequence[Record]) -> Iterator[tuple[str, Drawing, str]]:
    """Where the time went, and when each run was good enough."""
    names = [name for name in SUITE if any(r.configuration == name and _is_number(r.timing.total_s) for r in records)]
    if not names:
        return
    drawing = _drawing(8.5, 1.3 + 0.42 * len(names))
    axes = drawing.subplots()
    for row, name in enumerate(names):
        runs = [record for record in records if record.configuration == name]
        left = 0.0
        for key, (colour, hatch) in zip(TIME_PARTS, _PART_LOOKS, strict=True):
            width = _mean_timing(runs, key) or 0.0
            axes.barh(row, width, left=left, height=0.6, color=colour, hatch=hatch, edgecolor="white", linewidth=0.4)
            left += width
        rest = max((_mean_timing(runs, "total_s") or 0.0) - left, 0.0)
        axes.barh(row, rest, left=left, height=0.6, color="#BBBBBB", edgecolor="white", linewidth=0.4)
        before = sum(_mean_timing(runs, key) or 0.0 for key in ("data_s", "base_weights_s"))
        reached = [before + value for record in runs if _is_number(value := record.timing.seconds_to_gate)]
        axes.scatter(reached, [row] * len(reached), marker="d", s=42, color=BLACK, edgecolors="white", zorder=3)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_xlabel("seconds")
    parts = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=label)
        for label, (colour, hatch) in zip(TIME_PARTS.values(), _PART_LOOKS, strict=True)
    ]
    rest_and_gate = [Patch(facecolor="#BBBBBB", label="the rest"), _marker("d", BLACK, "gate reached on validation")]
    drawing.legend(handles=parts + rest_and_gate, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    yield (
        "times.png",
        drawing,
        "Where the time of a run went (mean over seeds), and when validation first cleared the gates (a mark a seed).",
    )


def _mean_timing(records: Sequence[Record], key: str) -> float | None:
    values = [value for record in records if _is_number(value := getattr(record.timing, key))]
    return float(np.mean(values)) if values else None


# ------------------------------------------------------------------------------------------------------------ curves


def _segmentation_curves(records: Sequence[Record]) -> Iterator[tuple[str, Drawing, str]]:
    curves = _curves(records)
    if not curves:
        return
    drawing = _drawing(8.0, 4.4)
    axes = drawing.subplots()
    _plot_losses(axes, curves, "Dice loss")
    _legend(axes, curves)
    yield (
        "curves-segmentation.png",
        drawing,
        "Training and validation loss of the segmentation configurations, questions 1(a), 1(b) and 1(d). "
        + _seed_note(curves),
    )


def _validation_scores(records: Sequence[Record]) -> Iterator[tuple[str, Drawing, str]]:
    curves = _curves(records)
    metrics = [metric for metric in ("course_dice", "present_dice") if _recorded(curves, metric)]
    if not metrics:
        return
    drawing = _drawing(10.0, 4.4)
    panels = drawing.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _plot_all(axes, curves, metric, mark_best=True)
        for bound in sorted({g.bound(r.trivial) for r in records for g in _gates(r) if g.metric == metric}):
            _level(axes, bound, f"gate {bound:g}", "--", BLACK, outside=True)
        for trivial in sorted({r.trivial[metric] for r in records if metric in r.trivial}):
            _level(axes, trivial, f"trivial predictor {trivial:.3f}", ":", GREY, outside=False)
        axes.set_title(_words(metric))
        axes.set_ylim(0, 1)
        _epoch_axis(axes)
    panels[0].set_ylabel("score on validation")
    drawing.legend(handles=_label_handles(curves), loc="outside lower center", ncols=3, frameon=False)
    yield (
        "validation-scores.png",
        drawing,
        "Course and present Dice on validation, with the gates and what the trivial predictor reaches on test. "
        + _best_note(curves)
        + _seed_note(curves),
    )


def _colorization_curves(records: Sequence[Record]) -> Iterator[tuple[str, Drawing, str]]:
    curves = _curves(records)
    if not curves:
        return
    drawing = _drawing(8.0, 4.0)
    axes = drawing.subplots()
    _plot_losses(axes, curves, "mean squared error")
    axes.set_yscale("log")
    _legend(axes, curves)
    yield (
        "curves-colorization.png",
        drawing,
        "Training and validation loss of the colorization, question 1(c). " + _seed_note(curves),
    )


def _vgg_curves(records: Sequence[Record]) -> Iterator[tuple[str, Drawing, str]]:
    """One row a task: loss and accuracy of two different tasks do not belong on one axis."""
    groups = [
        (title, curves)
        for title, members in (
            ("Fashion-MNIST", _of_kind(records, "scratch", "frozen")),
            ("new task", _of_kind(records, "new-task")),
        )
        if (curves := _curves(members))
    ]
    if not groups:
        return
    drawing = _drawing(10.0, 0.4 + 3.3 * len(groups))
    grid = drawing.subplots(len(groups), 2, squeeze=False)
    for (losses, scores), (title, curves) in zip(grid, groups, strict=True):
        _plot_losses(losses, curves, "loss")
        losses.set_title(f"{title}: loss")
        _legend(losses, curves)
        _plot_all(scores, curves, "accuracy", style="--", mark_best=True)
        scores.set_title(f"{title}: accuracy on validation")
        scores.set_ylabel("accuracy")
        _epoch_axis(scores)
    shown = [curve for _, part in groups for curve in part]
    yield (
        "curves-vgg.png",
        drawing,
        "Loss and validation accuracy of the VGG16 configurations, questions 2(a) to 2(c). "
        + _best_note(shown)
        + _seed_note(shown),
    )


def _curves(records: Sequence[Record]) -> list[_Curve]:
    """Every training with a history; a colour for each label."""
    colours: dict[str, str] = {}
    curves = []
    for record in sorted(records, key=lambda entry: (list(SUITE).index(entry.configuration), entry.seed)):
        for name, history in record.history.items():
            if not history:
                continue
            several = len(record.history) > 1
            label = f"{record.configuration}, {_words(name)}" if several else record.configuration
            colour = colours.setdefault(label, _CURVE_COLOURS[len(colours) % len(_CURVE_COLOURS)])
            best = (record.details.best_epochs or {}).get(name)
            curves.append(_Curve(label, colour, history, best))
    return curves


def _plot_losses(axes: Axes, curves: Sequence[_Curve], name: str) -> None:
    _plot_all(axes, curves, "train_loss")
    _plot_all(axes, curves, "validation_loss", style="--")
    axes.set_ylabel(name)
    _epoch_axis(axes)


def _plot_all(axes: Axes, curves: Sequence[_Curve], key: str, style: str = "-", mark_best: bool = False) -> None:
    """A line a seed; of many seeds their median and a band."""
    for bundle in _bundles(curves):
        if len(bundle) > MANY_SEEDS:
            _plot_band(axes, bundle, key, style)
        else:
            for curve in bundle:
                _plot(axes, curve, key, style, mark_best)


def _bundles(curves: Sequence[_Curve]) -> list[list[_Curve]]:
    """The seeds of each label."""
    bundles: dict[str, list[_Curve]] = {}
    for curve in curves:
        bundles.setdefault(curve.label, []).append(curve)
    return list(bundles.values())


def _plot_band(axes: Axes, curves: Sequence[_Curve], key: str, style: str) -> None:
    """The median over the seeds that trained so far, and the band from the smallest to the largest."""
    values: dict[float, list[float]] = {}
    for curve in curves:
        for epoch, value in _points(curve.history, key):
            values.setdefault(epoch, []).append(value)
    epochs = sorted(values)
    colour = curves[0].colour
    lowest, highest = ([limit(values[epoch]) for epoch in epochs] for limit in (min, max))
    axes.fill_between(epochs, lowest, highest, color=colour, alpha=0.15, linewidth=0)
    axes.plot(epochs, [median(values[epoch]) for epoch in epochs], style, color=colour, linewidth=1.2)


def _plot(axes: Axes, curve: _Curve, key: str, style: str = "-", mark_best: bool = False) -> None:
    points = _points(curve.history, key)
    epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
    # A line through one or two epochs is hardly seen.
    marker = "." if len(points) <= _FEW_EPOCHS else ""
    axes.plot(epochs, values, style, marker=marker, color=curve.colour, linewidth=1.2, alpha=0.85)
    best = [(epoch, value) for epoch, value in points if epoch == curve.best_epoch]
    if mark_best and best:
        axes.plot(*best[0], "o", markersize=6, color=curve.colour, markeredgecolor="white", zorder=3)


def _points(history: History, key: str) -> list[tuple[float, float]]:
    """(epoch, value) of the epochs that have a number there; a diverged run has none in its last."""
    return [(epoch, value) for epoch, entry in enumerate(history, 1) if _is_number(value := entry.get(key))]


def _recorded(curves: Sequence[_Curve], key: str) -> bool:
    return any(_points(curve.history, key) for curve in curves)


def _level(axes: Axes, height: float, label: str, style: str, colour: str, outside: bool) -> None:
    """A horizontal line with its name at its right end: beside the panel, or above the line within it."""
    axes.axhline(height, linestyle=style, color=colour, linewidth=1)
    axes.annotate(
        label,
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0) if outside else (-2, 2),
        textcoords="offset points",
        ha="left" if outside else "right",
        va="center" if outside else "bottom",
        fontsize=8,
        color=colour,
    )


def _epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _legend(axes: Axes, curves: Sequence[_Curve]) -> None:
    styles = [
        Line2D([], [], color=GREY, linestyle="-", label="training"),
        Line2D([], [], color=GREY, linestyle="--", label="validation"),
    ]
    axes.legend(handles=_label_handles(curves) + styles, frameon=False, fontsize=9)


def _label_handles(curves: Sequence[_Curve]) -> list[Line2D]:
    colours = {curve.label: curve.colour for curve in curves}
    return [Line2D([], [], color=colour, linewidth=2, label=label) for label, colour in colours.items()]


def _seed_note(curves: Sequence[_Curve]) -> str:
    most = max(map(len, _bundles(curves)))
    if most > MANY_SEEDS:
        return f"A line is the median over seeds ({most} at most), its band reaches from the smallest to the largest."
    return "One line a seed." if most > 1 else "One seed."


def _best_note(curves: Sequence[_Curve]) -> str:
    """What `_plot_all` marks; bands have no marks."""
    if all(len(bundle) > MANY_SEEDS for bundle in _bundles(curves)):
        return ""
    return "A dot marks the epoch whose weights were kept. "


# ------------------------------------------------------------------------------------------------------------ images


def _recolored(results: Path, records: Sequence[Record]) -> Iterator[tuple[str, Drawing, str]]:
    found = _first_samples(results, records, ("grays", "images", "predictions", "frames", "errors"))
    if found is None:
        return
    record, samples = found
    count = min(_RECOLORED_ROWS, len(samples["frames"]))
    drawing = _drawing(7.2, 0.2 + 2.05 * count)
    grid = drawing.subplots(count, 3, squeeze=False)
    for row, panels in enumerate(grid):
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


def _masks(results: Path, records: Sequence[Record]) -> Iterator[tuple[str, Drawing, str]]:
    for name in [name for name in SUITE if any(record.configuration == name for record in records)]:
        runs = [record for record in records if record.configuration == name]
        found = _first_samples(results, runs, ("images", "truth", "prediction", "frames", "scores"))
        if found is not None:
            record, samples = found
            yield (
                f"masks-{name}.png",
                _masks_drawing(samples, record.details.class_names or []),
                f"Test frames of {name} (seed {record.seed}): the best, the median and the worst by present Dice.",
            )


def _masks_drawing(samples: Samples, names: Sequence[str]) -> Drawing:
    count = min(3, len(samples["frames"]))
    shown = sorted(set(np.unique(samples["truth"][:count])) | set(np.unique(samples["prediction"][:count])))
    drawing = _drawing(7.2, 0.6 + 2.2 * count)
    grid = drawing.subplots(count, 3, squeeze=False)
    for row, (panels, place) in enumerate(zip(grid, ("best", "median", "worst"), strict=False)):
        _show(panels[0], samples["images"][row], "")
        _show(panels[1], _colours_of(samples["truth"][row]), "")
        _show(panels[2], _colours_of(samples["prediction"][row]), "")
        panels[0].set_title(f"{place}: frame {samples['frames'][row]}", fontsize=10)
        panels[1].set_title("truth", fontsize=10)
        panels[2].set_title(f"prediction, present Dice {samples['scores'][row]:.3f}", fontsize=10)
    drawing.legend(
        handles=[
            Patch(
                facecolor=_class_colour(index), label=_words(names[index]) if index < len(names) else f"class {index}"
            )
            for index in map(int, shown)
        ],
        loc="outside lower center",
        ncols=4,
        fontsize=9,
        frameon=False,
    )
    return drawing


def _colours_of(classes: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W) class indices -> (H, W, 3) uint8."""
    palette = np.array([_rgb(_class_colour(index)) for index in range(256)], dtype=np.uint8)
    return np.take(palette, classes, axis=0)


def _rgb(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]


def _class_colour(index: int) -> str:
    """Index 0 is the background; a ninth class starts over with the colours of the others."""
    return _CLASS_COLOURS[0] if index == 0 else _CLASS_COLOURS[1 + (index - 1) % (len(_CLASS_COLOURS) - 1)]


def _first_samples(results: Path, records: Sequence[Record], keys: Sequence[str]) -> tuple[Record, Samples] | None:
    """The sample file of the lowest seed that has one with all ``keys``."""
    for record in sorted(records, key=lambda entry: entry.seed):
        name = record.details.samples or f"samples/{record.configuration}-seed{record.seed}.npz"
        try:
            _refuse_bomb(results / name)
            with np.load(results / name, allow_pickle=False) as content:
                samples = {key: content[key] for key in keys}
        except Exception:  # no file, or a damaged one: what numpy raises depends on its bytes
            continue
        if len(samples["frames"]):
            return record, samples
    return None


def _refuse_bomb(path: Path) -> None:
    """ValueError for a file that inflates to more than samples ever take, or in pieces that cannot be bounded."""
    with zipfile.ZipFile(path) as bundle:
        members = bundle.infolist()
    packed = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
    if sum(member.file_size for member in members) > _MOST_SAMPLE_BYTES or {m.compress_type for m in members} - packed:
        raise ValueError(f"{path} is no file of samples")


def _show(axes: Axes, image: NDArray[Any], title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


# ----------------------------------------------------------------------------------------------------------- classes


def _classes(records: Sequence[Record]) -> Iterator[tuple[str, Drawing, str]]:
    """Dice of each class, with the number of frames behind it: a class that two frames show proves little."""
    runs = [record for record in records if record.details.pooled_dice and record.details.class_names]
    if not runs:
        return
    names = runs[0].details.class_names or []
    support = dict(zip(names, runs[0].details.support_frames or [], strict=False))
    columns = list(dict.fromkeys(record.configuration for record in runs))
    drawing = _drawing(8.5, 1.0 + 0.5 * len(names))
    axes = drawing.subplots()
    for place, column in enumerate(columns):
        shift = 0.22 * (place - (len(columns) - 1) / 2)
        colour, marker = _CURVE_COLOURS[place % len(_CURVE_COLOURS)], "osD^v"[place % 5]
        found: list[tuple[float, float]] = []
        for record in (entry for entry in runs if entry.configuration == column):
            listed = dict(zip(record.details.class_names or [], record.details.pooled_dice or [], strict=False))
            found += [(value, row + shift) for row, name in enumerate(names) if _is_number(value := listed.get(name))]
        axes.scatter(*_columns(found), marker=marker, s=34, color=colour, edgecolors="white", zorder=3)
    axes.set_yticks(
        range(len(names)), [f"{_words(name)}\n{support.get(name, '?')} frames show it" for name in names], fontsize=9
    )
    for row in range(len(names) - 1):
        axes.axhline(row + 0.5, color=GREY, alpha=0.2, linewidth=0.8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("Dice over all pixels of the test split")
    markers = [
        _marker("osD^v"[place % 5], _CURVE_COLOURS[place % len(_CURVE_COLOURS)], column)
        for place, column in enumerate(columns)
    ]
    drawing.legend(handles=markers, loc="outside lower center", ncols=3, frameon=False)
    yield (
        "classes.png",
        drawing,
        "Dice of each class on test, a mark a seed. A class without a mark is neither shown nor predicted; one that no "
        "frame shows has 0 as soon as a pixel is taken for it.",
    )


# --------------------------------------------------------------------------------------------------------- confusion


def _confusions(records: Sequence[Record]) -> Iterator[tuple[str, Drawing, str]]:
    for name in SUITE:
        runs = [r for r in records if r.configuration == name and r.details.confusion_matrix]
        if not runs:
            continue
        counts = np.sum([np.array(record.details.confusion_matrix, dtype=float) for record in runs], axis=0)
        names = [_words(entry) for entry in runs[0].details.class_names or range(len(counts))]
        seeds = seeds_text(sorted(record.seed for record in runs))
        yield (
            f"confusion-{name}.png",
            _confusion_drawing(counts, names),
            f"{name}: what each class of the test split was taken for, in percent of its samples, {seeds}.",
        )


def _confusion_drawing(counts: NDArray[np.float64], names: Sequence[str]) -> Drawing:
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.5 * len(names)
    drawing = _drawing(side, side)
    axes = drawing.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(percent):
        if counts[row, column]:
            text = "<1" if value < 1 else f"{value:.0f}"
            colour = "white" if value > 55 else BLACK
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    return drawing


# ------------------------------------------------------------------------------------------------------------- tools


def _drawing(width: float, height: float) -> Drawing:
    """An empty figure, sizes in inches."""
    drawing = Drawing(figsize=(width, height), dpi=110, layout="constrained", facecolor=WHITE)
    FigureCanvasAgg(drawing)
    return drawing


def _save(drawing: Drawing, path: Path) -> None:
    """Write a PNG; photographs that would make a large file get a palette."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png")
    image = Image.open(buffer).convert("RGB")
    content = _png(image)
    path.write_bytes(content if len(content) <= _LARGEST_PNG else _png(_with_palette(image)))


def _with_palette(image: Image.Image) -> Image.Image:
    """256 colours: mostly the picture's own, but greys stay grey and classes keep the colour of the legend."""
    exact = [_rgb(colour) for colour in (WHITE, *_CLASS_COLOURS)]
    fixed = [*exact, *([round(step * 255 / 55)] * 3 for step in range(56))]
    own = np.reshape(image.quantize(256 - len(fixed)).getpalette() or [], (-1, 3)).tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette([level for colour in [*fixed, *own][:256] for level in colour])
    small = image.quantize(palette=palette, dither=Image.Dither.NONE)
    # Pillow finds the nearest colour only roughly; a background that is not quite white would show on the page.
    pixels, indices = np.asarray(image), np.array(small)
    for index, colour in enumerate(exact):
        indices[(pixels == colour).all(axis=-1)] = index
    exactly = Image.fromarray(indices)
    exactly.putpalette(small.getpalette() or [])
    return exactly


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _marker(shape: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], linestyle="", marker=shape, color=colour, label=label)


def _words(name: object) -> str:
    """A key as people write it."""
    text = visible(str(name)).replace("$", r"\$")  # or matplotlib takes it for a formula
    return text.replace("_", " ").replace("dice", "Dice").replace(" mse", " MSE")


def _gates(record: Record) -> tuple[Gate, ...]:
    return SUITE[record.configuration].gates


def _has(record: Record, gate: Gate) -> bool:
    """Whether there is something to draw; an error is drawn as a share, which takes a trivial one above 0."""
    value, trivial = record.metrics.get(gate.metric), record.trivial.get(gate.metric)
    return _is_number(value) and _is_number(trivial) and (gate.direction == "above" or trivial > 0)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
