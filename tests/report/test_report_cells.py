"""Every cell of the report, of the exports and every point of the figures, from records in which no number is twice.

What is expected is computed here from the records alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from xml.etree import ElementTree

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from benchmarks.report.markdown import write_report
from benchmarks.results.records import Record, write_record
from benchmarks.suite import SUITE, Gate, select
from tests.drawings import drawn as figures_of
from tests.record_factory import CLASS_NAMES, WEIGHTS, distinct_records

SEEDS = (3, 5, 8)
PARTS = ("data", "warmup", "training", "evaluation")
SEGMENTATION = [name for name, entry in SUITE.items() if entry.kind == "segmentation"]
GATES = [(name, gate) for name, entry in SUITE.items() for gate in entry.gates]


@dataclass(frozen=True)
class Written:
    """A results folder, the records in it, and the tables of its report by their section."""

    folder: Path
    records: Sequence[Record]
    tables: Mapping[str, list[list[str]]]

    def of(self, name: str) -> list[Record]:
        return [record for record in self.records if record.configuration == name]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("results")
    records = distinct_records(SEEDS)
    for record in records:
        write_record(folder, record)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.report.markdown.write_figures", lambda results, records: [])
        lines = write_report(folder, select([]), SEEDS).path.read_text(encoding="utf-8").splitlines()
    tables: dict[str, list[list[str]]] = {}
    section = ""
    for line in lines:
        if line.startswith("#"):
            section = line.strip("# ")
        elif line.startswith("|") and not line.startswith("|-"):
            tables.setdefault(section, []).append([cell.strip() for cell in line.strip("|").split("|")])
    return Written(folder, records, tables)


def text(metric: str, value: float) -> str:
    return f"{value:.5f}" if "mse" in metric else f"{value:.3f}"


def signed(metric: str, value: float) -> str:
    return ("-" if value < 0 else "+") + text(metric, abs(value))


def spread(metric: str, values: Sequence[float]) -> str:
    return f"{text(metric, mean(values))} ± {text(metric, stdev(values))} (n=3)"


def seconds(values: Sequence[float | None]) -> str:
    """The mean as minutes and seconds, or as seconds below a minute."""
    average = mean(value for value in values if value is not None)
    minutes, rest = divmod(round(average), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def timing(runs: Sequence[Record], key: str) -> list[float]:
    return [float(getattr(run.timing, key) or 0.0) for run in runs]


def scores(runs: Sequence[Record], metric: str) -> list[float]:
    return [float(run.metrics[metric] or 0.0) for run in runs]


def best(run: Record) -> dict[str, int]:
    return run.details.best_epochs or {}


def named(name: str) -> str:
    return f"{name} ({WEIGHTS[name]})" if name in WEIGHTS else name


def bounds(gate: Gate, runs: Sequence[Record]) -> list[float]:
    shares = [gate.share_of_trivial or 0.0] * 3
    return [gate.threshold or share * run.trivial[gate.metric] for share, run in zip(shares, runs, strict=True)]


def best_floors(name: str, gate: Gate, runs: Sequence[Record]) -> tuple[list[float], list[str]]:
    """Of each run the best of its floors, and their names."""
    least = -1 if gate.direction == "below" else 1
    found = [
        max((least * (run.floors or {})[floor][gate.metric], floor) for floor in SUITE[name].floors) for run in runs
    ]
    return [least * value for value, _ in found], [floor for _, floor in found]


# ------------------------------------------------------------------------------------------------------------- report


def test_the_gates(written: Written) -> None:
    expected = [
        ["configuration", "question", "metric", "verdict", "seed 3", "seed 5", "seed 8", "mean ± std (n)",
         "smallest to largest", "gate", "trivial predictor", "lead", "floor", "lead over the floor",
         "epochs (best/trained)", "training time"]
    ]  # fmt: skip
    for name, gate in GATES:
        runs, metric = written.of(name), gate.metric
        values, trivial = scores(runs, metric), [run.trivial[metric] for run in runs]
        share = f" ({text(metric, mean(bounds(gate, runs)))})" if gate.threshold is None else ""
        floors, floor_names = best_floors(name, gate, runs)
        lead, floor_lead = mean(values) - mean(trivial), mean(values) - mean(floors)
        epochs = [
            " and ".join(f"{best(run)[curve]}/{len(run.history[curve])}" for curve in run.history) for run in runs
        ]
        expected.append(
            [named(name), SUITE[name].question, metric, "passed", *(text(metric, value) for value in values),
             spread(metric, values), f"{text(metric, min(values))} to {text(metric, max(values))}", f"{gate}{share}",
             text(metric, mean(trivial)), signed(metric, -lead if "mse" in metric else lead),
             f"{text(metric, mean(floors))} ({' / '.join(dict.fromkeys(floor_names))})",
             signed(metric, -floor_lead if "mse" in metric else floor_lead), ", ".join(epochs),
             seconds(timing(runs, "training_s"))]
        )  # fmt: skip
    assert written.tables["Gates"] == expected


def test_the_speed(written: Written) -> None:
    rows = []
    for name in SUITE:
        runs = written.of(name)
        rows.append([
            name,
            *(f"{value:.0f}" for value in timing(runs, "epochs_to_gate")),
            seconds(timing(runs, "seconds_to_gate")),
            seconds(timing(runs, "total_s")),
            f"{mean(timing(runs, 'samples_per_s')):.0f}",
            f"{100 * mean(timing(runs, 'share_of_attainable')):.0f}%",
            f"limit of {name}",
            *(seconds(timing(runs, f"{part}_s")) for part in PARTS),
        ])  # fmt: skip
    header, *found = written.tables["Speed"]
    assert header == [
        *("configuration", "epochs to gate, seed 3", "epochs to gate, seed 5", "epochs to gate, seed 8"),
        *("time to gate", "total time", "training samples/s", "of attainable", "limited by"),
        *("data", "warm-up", "training", "evaluation"),
    ]
    assert found == rows


def test_the_classes(written: Written) -> None:
    names = [name for name in SUITE if SUITE[name].kind == "segmentation"]
    support = [50, 9, 32, 21, 2, 0, 0, 27]
    rows = [
        [label.replace("_", " "), str(support[row])]
        + [f"{mean((run.details.pooled_dice or [])[row] or 0.0 for run in written.of(name)):.3f}" for name in names]
        for row, label in enumerate(CLASS_NAMES)
    ]
    assert written.tables["Dice of each class"] == [["class", "frames that show it", *names], *rows]


def test_the_further_metrics(written: Written) -> None:
    rows = []
    for name in SUITE:
        runs, gated = written.of(name), {gate.metric for gate in SUITE[name].gates}
        for metric in (metric for metric in runs[0].metrics if metric not in gated):
            values = scores(runs, metric)
            trivial = mean(run.trivial[metric] for run in runs)
            rows.append(
                [name, metric, *(text(metric, v) for v in values), spread(metric, values), text(metric, trivial)]
            )
    assert rows
    header, *found = written.tables["Further metrics"]
    assert header == ["configuration", "metric", "seed 3", "seed 5", "seed 8", "mean ± std (n)", "trivial predictor"]
    assert found == rows


def interval(differences: Sequence[float]) -> str:
    half = 4.303 * stdev(differences) / 3**0.5
    return f"{signed('', mean(differences) - half)} to {signed('', mean(differences) + half)}"


def test_the_answers(written: Written) -> None:
    rows = []
    for metric in ("course_dice", "present_dice"):
        after, before = (scores(written.of(name), metric) for name in ("seg-pretrained", "seg-augmented"))
        gains = [new - old for new, old in zip(after, before, strict=True)]
        rows.append([metric, *(signed(metric, gain) for gain in gains), signed(metric, mean(gains)), interval(gains)])
    assert written.tables["1(d) Does colorization pre-training help?"][1:] == rows
    runs, metric = written.of("vgg-new-task"), "accuracy_from_scratch"
    starts = [scores(runs, metric), scores(runs, "accuracy_from_pretrained"), [run.trivial[metric] for run in runs]]
    starts += [[(run.floors or {})[floor][metric] for run in runs] for floor in SUITE["vgg-new-task"].floors]
    names = ["started from vgg-scratch", "started from vgg-frozen (ImageNet)", "trivial predictor"]
    names += SUITE["vgg-new-task"].floors
    assert written.tables["2(c) Which start is better?"][1:] == [
        [name, *(text(metric, value) for value in values), spread(metric, values)]
        for name, values in zip(names, starts, strict=True)
    ]


# ------------------------------------------------------------------------------------------------------------ exports


def test_junit(written: Written) -> None:
    (suite,) = ElementTree.parse(written.folder / "junit.xml").getroot()
    found = [
        (case.attrib, dict(line.split(": ", 1) for line in (case.findtext("system-out") or "").splitlines()))
        for case in suite
    ]
    expected = []
    for name, entry in SUITE.items():
        for run in written.of(name):
            for place, gate in enumerate(entry.gates):
                spent = timing([run], "total_s")[0] if place == 0 else 0.0
                attributes = {"classname": name, "name": f"{gate.metric}[seed {run.seed}]", "time": f"{spent:.3f}"}
                (bound,) = [gate.threshold or (gate.share_of_trivial or 0.0) * run.trivial[gate.metric]]
                numbers = {"value": run.metrics[gate.metric], "bound": bound, "trivial": run.trivial[gate.metric]}
                (numbers["floor"],), (floor,) = best_floors(name, gate, [run])
                about = {
                    "floor by": floor,
                    "gate": str(gate),
                    "profile": "full",
                    "data": "real",
                    "weights": run.weights,
                }
                made_on = {"device_name": "Example GPU", "torch": "2.12.0"}
                expected.append((attributes, {key: str(value) for key, value in numbers.items()} | about | made_on))
    assert found == expected


def test_openmetrics(written: Written) -> None:
    families = text_string_to_metric_families((written.folder / "metrics.txt").read_text(encoding="utf-8"))
    found = {
        (
            sample.name.removeprefix("benchmark_"),
            *(sample.labels.get(key) for key in ("configuration", "seed", "metric", "part")),
        ): sample.value
        for family in families
        for sample in family.samples
    }
    expected: dict[tuple[str | None, ...], float] = {("accepted", *[None] * 4): 1.0, ("info", *[None] * 4): 1.0}
    for run in written.records:
        of = (run.configuration, str(run.seed))
        gated = {gate.metric for gate in SUITE[run.configuration].gates}
        expected |= {
            ("quality", *of, metric, None): value for metric, value in run.metrics.items() if value is not None
        }
        expected |= {("gate_passed", *of, metric, None): 1.0 for metric in gated}
        expected |= {
            ("floor", *of, gate.metric, None): best_floors(run.configuration, gate, [run])[0][0]
            for gate in SUITE[run.configuration].gates
        }
        expected |= {("seconds", *of, None, part): timing([run], f"{part}_s")[0] for part in PARTS}
        for name, key in (
            ("total_seconds", "total_s"),
            ("to_gate_seconds", "seconds_to_gate"),
            ("training_samples_per_second", "samples_per_s"),
        ):
            expected[name, *of, None, None] = timing([run], key)[0]
    assert found == expected


def test_pytest_benchmark(written: Written) -> None:
    content = json.loads((written.folder / "benchmark.json").read_text(encoding="utf-8"))
    parts = {"training": "training_s", "to gate": "seconds_to_gate", "total": "total_s"}
    found = {(entry["name"], entry["group"]): entry for entry in content["benchmarks"]}
    assert list(found) == [(f"{name} ({part})", part) for name in SUITE for part in parts]
    for name in SUITE:
        for part, key in parts.items():
            entry, values = found[f"{name} ({part})", part], timing(written.of(name), key)
            assert entry["stats"]["data"] == values
            assert entry["stats"]["mean"] == pytest.approx(mean(values))
            assert entry["extra_info"] == {"seeds": list(SEEDS), "metrics": written.of(name)[0].metrics}


# ------------------------------------------------------------------------------------------------------------ figures


@pytest.fixture(scope="module")
def drawn(written: Written) -> dict[str, tuple[Drawing, str]]:
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> NDArray[np.uint8]:
        return rng.integers(0, 256, shape, dtype=np.uint8)

    (written.folder / "samples").mkdir()
    for run in written.records:
        kind = SUITE[run.configuration].kind
        samples: dict[str, NDArray[Any]] = {"images": noise(3, 8, 10, 3), "frames": noise(3)}
        if kind == "segmentation":
            samples |= {"truth": noise(3, 8, 10) % 8, "prediction": noise(3, 8, 10) % 8, "scores": rng.random(3)}
        else:
            samples |= {"grays": noise(3, 8, 10), "predictions": noise(3, 8, 10, 3), "errors": rng.random(3)}
        if kind in ("segmentation", "colorization"):
            np.savez(written.folder / str(run.details.samples), allow_pickle=False, **samples)
    return figures_of(written.folder, written.records)


def points(axes: Axes) -> set[tuple[float, float]]:
    """Where marks stand."""
    offsets = [part.get_offsets() for part in axes.collections if isinstance(part, PathCollection)]
    return rounded(np.concatenate([np.asarray(places, dtype=float) for places in offsets]).tolist())


def rounded(places: Sequence[Sequence[float]]) -> set[tuple[float, float]]:
    return {(round(x, 9), round(y, 9)) for x, y in places}


def xy(line: Any) -> list[list[float]]:
    """The points of a line of matplotlib's."""
    found: list[list[float]] = np.asarray(line.get_xydata(), dtype=float).tolist()
    return found


def bars(axes: Axes) -> list[tuple[float, float]]:
    """Where the horizontal bars begin and end."""
    return [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches if isinstance(bar, Rectangle)]


def lines(axes: Axes, style: str) -> list[tuple[list[tuple[float, float]], str]]:
    """Lines of a style with their colour; a level, which has two points at the ends, is none."""
    return [
        ([(x, y) for x, y in xy(line)], str(line.get_color()))
        for line in axes.lines
        if line.get_linestyle() == style and len(xy(line)) > 2
    ]


def curves(runs: Sequence[Record], key: str) -> list[tuple[str, list[tuple[float, float]]]]:
    """Every curve of these records and its label."""
    return [
        (
            run.configuration if len(run.history) == 1 else f"{run.configuration}, {name.replace('_', ' ')}",
            [(entry["epoch"] or 0.0, entry[key] or 0.0) for entry in history],
        )
        for run in runs
        for name, history in run.history.items()
    ]


def shows(axes: Axes, drawing: Drawing, runs: Sequence[Record], key: str, style: str) -> None:
    """Each curve is there, in the colour that the legend gives its label."""
    legends = [*drawing.legends, *[legend for other in drawing.axes if (legend := other.get_legend())]]
    colours = {
        entry.get_text(): matplotlib.colors.to_hex(handle.get_color())
        for legend in legends
        for entry, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if isinstance(handle, Line2D)
    }
    labels = {label for label, _ in curves(runs, key)}
    assert len({colours[label] for label in labels}) == len(labels)
    found = [(line, matplotlib.colors.to_hex(colour)) for line, colour in lines(axes, style)]
    assert sorted(found) == sorted((line, colours[label]) for label, line in curves(runs, key))


def test_the_overview(written: Written, drawn: dict[str, tuple[Drawing, str]]) -> None:
    above, below = drawn["overview.png"][0].axes
    for axes, direction in ((above, "above"), (below, "below")):
        gates = [(name, gate) for name, gate in GATES if gate.direction == direction]
        expected: list[tuple[float, float]] = []
        for row, (name, gate) in enumerate(gates):
            runs = written.of(name)
            units = [run.trivial[gate.metric] if direction == "below" else 1.0 for run in runs]
            values = zip(scores(runs, gate.metric), units, (-0.16, 0, 0.16), strict=True)
            expected += [(value / unit, row + shift) for value, unit, shift in values]
            expected.append((runs[0].trivial[gate.metric] / units[0], row))
            expected.append((best_floors(name, gate, runs)[0][0] / units[0], row))
            bound = bounds(gate, runs)[0] / units[0]
            edges = sorted(bars(axes)[row])
            assert edges == pytest.approx([0, bound] if direction == "below" else [bound, 1])
            (mark,) = [[x for x, _ in xy(line)] for line in axes.lines if abs(mean(y for _, y in xy(line)) - row) < 0.1]
            assert mark == pytest.approx([bound, bound])
        assert points(axes) == rounded(expected)
        labels = [label.get_text() for label in axes.get_yticklabels()]
        metrics = {"validation_mse": "validation MSE", "course_dice": "course Dice", "present_dice": "present Dice"}
        assert labels == [f"{n}  {metrics.get(g.metric, g.metric.replace('_', ' '))}" for n, g in gates]


def test_the_times(written: Written, drawn: dict[str, tuple[Drawing, str]]) -> None:
    (axes,) = drawn["times.png"][0].axes
    expected, marks = [], []
    for row, name in enumerate(SUITE):
        runs = written.of(name)
        widths = [mean(timing(runs, f"{part}_s")) for part in PARTS]
        widths.append(max(mean(timing(runs, "total_s")) - sum(widths), 0.0))
        expected += [(sum(widths[:part]), sum(widths[: part + 1])) for part in range(len(widths))]
        before = widths[0]
        marks += [(before + value, row) for value in timing(runs, "seconds_to_gate")]
    assert bars(axes) == [pytest.approx(bar) for bar in expected]
    assert points(axes) == rounded(marks)


@pytest.mark.parametrize(
    ("figure", "panel", "names", "solid", "dashed"),
    [
        ("curves-segmentation.png", 0, SEGMENTATION, "train_loss", "validation_loss"),
        ("validation-scores.png", 0, SEGMENTATION, "course_dice", ""),
        ("validation-scores.png", 1, SEGMENTATION, "present_dice", ""),
        ("curves-colorization.png", 0, ["colorization"], "train_loss", "validation_loss"),
        ("curves-vgg.png", 0, ["vgg-scratch", "vgg-frozen"], "train_loss", "validation_loss"),
        ("curves-vgg.png", 1, ["vgg-scratch", "vgg-frozen"], "", "accuracy"),
        ("curves-vgg.png", 2, ["vgg-new-task"], "train_loss", "validation_loss"),
        ("curves-vgg.png", 3, ["vgg-new-task"], "", "accuracy"),
    ],
)  # fmt: skip
def test_the_curves(
    figure: str,
    panel: int,
    names: list[str],
    solid: str,
    dashed: str,
    written: Written,
    drawn: dict[str, tuple[Drawing, str]],
) -> None:
    drawing, caption = drawn[figure]
    axes, runs = drawing.axes[panel], [run for name in names for run in written.of(name)]
    for key, style in ((solid, "-"), (dashed, "--")):
        if key:
            shows(axes, drawing, runs, key, style)
    assert caption.endswith("One line a seed.")
    key = dashed if "accuracy" in dashed else solid
    if "Dice" in axes.get_title() or "accuracy" in axes.get_title():
        marked = [
            (float(best(run)[name]), history[best(run)[name] - 1][key] or 0.0)
            for run in runs
            for name, history in run.history.items()
        ]
        dots = [xy(line)[0] for line in axes.lines if line.get_marker() == "o" and len(xy(line)) == 1]
        assert rounded(dots) == rounded(marked)
    if "Dice" in axes.get_title():
        levels = {round(xy(line)[0][1], 9) for line in axes.lines if line.get_linestyle() in ("--", ":")}
        assert levels == {0.5, 0.6, *(round(run.trivial[key], 9) for run in runs)}
        floors = {round(xy(line)[0][1], 9) for line in axes.lines if line.get_linestyle() == "-."}
        assert floors == {round((run.floors or {})["nearest training frame's mask"][key], 9) for run in runs}


def test_the_marks_of_the_classes(written: Written, drawn: dict[str, tuple[Drawing, str]]) -> None:
    (axes,) = drawn["classes.png"][0].axes
    expected = [
        (value or 0.0, row + 0.22 * (place - (len(SEGMENTATION) - 1) / 2))
        for place, name in enumerate(name for name in SUITE if SUITE[name].kind == "segmentation")
        for run in written.of(name)
        for row, value in enumerate(run.details.pooled_dice or [])
    ]
    assert points(axes) == rounded(expected)
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"{name.replace('_', ' ')}\n{frames} frames show it"
        for name, frames in zip(CLASS_NAMES, [50, 9, 32, 21, 2, 0, 0, 27], strict=True)
    ]


@pytest.mark.parametrize("name", ["vgg-scratch", "vgg-frozen"])
def test_the_confusions(name: str, written: Written, drawn: dict[str, tuple[Drawing, str]]) -> None:
    drawing, caption = drawn[f"confusion-{name}.png"]
    (axes,) = drawing.axes
    counts = np.sum([run.details.confusion_matrix or [] for run in written.of(name)], axis=0)
    percent = 100 * counts / counts.sum(1, keepdims=True)
    assert np.asarray(axes.images[0].get_array()) == pytest.approx(percent)
    cells = {tuple(map(int, cell.get_position())): cell.get_text() for cell in axes.texts}
    assert cells == {
        (column, row): f"{value:.0f}" if value >= 1 else "<1"
        for (row, column), value in np.ndenumerate(percent)
        if value
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answer", "truth")
    assert caption.endswith("in percent of its samples, seeds 3, 5, 8.")


PALETTE = ["#262626", "#56B4E9", "#E69F00", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"]


@pytest.mark.parametrize("name", ["colorization", "seg-baseline", "seg-augmented", "seg-pretrained"])
def test_the_pictures_are_those_of_the_first_seed(
    name: str, written: Written, drawn: dict[str, tuple[Drawing, str]]
) -> None:
    drawing, caption = drawn["recolored.png" if name == "colorization" else f"masks-{name}.png"]
    assert "(seed 3)" in caption
    panels = np.reshape(np.array(drawing.axes, dtype=object), (3, 3))
    with np.load(written.folder / str(written.of(name)[0].details.samples)) as content:
        samples = dict(content)
    colours = np.array([[int(255 * part + 0.5) for part in matplotlib.colors.to_rgb(colour)] for colour in PALETTE])
    for row, place in enumerate(("best", "median", "worst")):
        shown = [np.asarray(axes.images[0].get_array()) for axes in panels[row]]
        frame = int(samples["frames"][row])
        if name == "colorization":
            expected = [samples[key][row] for key in ("grays", "predictions", "images")]
            assert panels[row][0].get_ylabel() == f"frame {frame}\nMSE {samples['errors'][row]:.5f}"
        else:
            expected = [samples["images"][row], colours[samples["truth"][row]], colours[samples["prediction"][row]]]
            assert panels[row][0].get_title() == f"{place}: frame {frame}"
            assert panels[row][2].get_title() == f"prediction, present Dice {samples['scores'][row]:.3f}"
        assert all((found == wanted).all() for found, wanted in zip(shown, expected, strict=True))
    if name == "colorization":
        assert [axes.get_title() for axes in panels[0]] == ["grey input", "recolored", "original"]
    else:
        legend = {
            entry.get_text(): patch
            for entry, patch in zip(drawing.legends[0].get_texts(), drawing.legends[0].get_patches(), strict=True)
        }
        named = {label.replace("_", " "): colour for label, colour in zip(CLASS_NAMES, PALETTE, strict=True)}
        assert {label: matplotlib.colors.to_hex(patch.get_facecolor()).upper() for label, patch in legend.items()} == {
            label: named[label].upper() for label in legend
        }
