"""Every cell of the report and the exports and every point of the figures, from records with no number twice.

The expected values are computed here independently from the records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
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
from benchmarks.results.gates import Asked
from benchmarks.results.records import Record
from benchmarks.suite import SUITE, Gate, select
from tests.drawings import drawn as figures_of
from tests.drawings import report_lines
from tests.record_factory import CLASS_NAMES, WEIGHTS, distinct_records

SEEDS = (3, 5, 8)
PARTS = ("data", "warmup", "training", "evaluation")
SEGMENTATION = [name for name, entry in SUITE.items() if entry.kind == "segmentation"]
METRIC_NAMES = {
    "course_dice": "course Dice",
    "present_dice": "present Dice",
    "course_dice_unfiltered": "course Dice unfiltered",
    "validation_mse": "validation MSE",
    "accuracy": "accuracy",
    "training_accuracy": "training accuracy",
    "accuracy_from_scratch": "accuracy from scratch",
    "accuracy_from_pretrained": "accuracy from pretrained",
}
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
    lines = report_lines(folder, records, Asked(select([]), SEEDS))
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


def bounds(gate: Gate, runs: Sequence[Record]) -> list[float]:
    return [gate.threshold or (gate.share_of_trivial or 0.0) * run.trivial[gate.metric] for run in runs]


def gate_cell(gate: Gate, runs: Sequence[Record]) -> str:
    return f"{gate}{'' if gate.threshold else f' = {text(gate.metric, mean(bounds(gate, runs)))}'}"


def best_floors(name: str, gate: Gate, runs: Sequence[Record]) -> tuple[list[float], list[str]]:
    """The best floor of each run, and its name; the control is none."""
    least, names = -1 if gate.direction == "below" else 1, [*SUITE[name].floors]
    if name == "vgg-new-task":
        names.remove("an untrained start")
    found = [max((least * (run.floors or {})[floor][gate.metric], floor) for floor in names) for run in runs]
    return [least * value for value, _ in found], [floor for _, floor in found]


# ------------------------------------------------------------------------------------------------------------- report


def test_the_gates(written: Written) -> None:
    gates = [
        ["verdict", "configuration", "reached", "gate", "floor", "constant", "lead over the floor",
         "lead over the constant"]
    ]  # fmt: skip
    seed_by_seed = [
        ["configuration", "seed 3", "seed 5", "seed 8", "mean ± std (n)", "smallest to largest",
         "epochs (best/trained)", "training time"]
    ]  # fmt: skip
    for name, gate in GATES:
        runs, metric = written.of(name), gate.metric
        values, trivial = scores(runs, metric), [run.trivial[metric] for run in runs]
        floors, floor_names = best_floors(name, gate, runs)
        lead, floor_lead = mean(values) - mean(trivial), mean(values) - mean(floors)
        epochs = [
            " and ".join(f"{best(run)[curve]}/{len(run.history[curve])}" for curve in run.history) for run in runs
        ]
        title = f"{name}, {METRIC_NAMES[metric]}"
        gates.append(
            ["passed", f"{title} ({WEIGHTS[name]})" if name in WEIGHTS else title,
             spread(metric, values), gate_cell(gate, runs),
             f"{text(metric, mean(floors))} ({' / '.join(dict.fromkeys(floor_names))})", text(metric, mean(trivial)),
             signed(metric, -floor_lead if "mse" in metric else floor_lead),
             signed(metric, -lead if "mse" in metric else lead)]
        )  # fmt: skip
        seed_by_seed.append(
            [title, *(text(metric, value) for value in values), spread(metric, values),
             f"{text(metric, min(values))} to {text(metric, max(values))}", ", ".join(epochs),
             seconds(timing(runs, "training_s"))]
        )  # fmt: skip
    assert written.tables["Gates"] == gates
    assert written.tables["Seed by seed"] == seed_by_seed


@pytest.mark.parametrize(
    ("name", "worked"),
    [
        ("seg-baseline", ["0.553", "-", "-"]),
        ("seg-augmented", ["0.457", "-", "-"]),
        ("seg-pretrained", ["0.490", "-", "-"]),
        ("vgg-scratch", ["0.916", "0.920"]),
        ("vgg-frozen", ["0.850", "0.819"]),
        ("colorization", None),
    ],
)
def test_the_results_of_a_question(name: str, worked: list[str] | None, written: Written) -> None:
    """Scores, gates, floors, the best constant answer and the assignment's own, one column per metric."""
    runs, entry = written.of(name), SUITE[name]
    gated = {gate.metric: gate for gate in entry.gates}
    metrics = [*gated, *(m for m in ("course_dice_unfiltered", "training_accuracy") if m in runs[0].metrics)]

    def average(found: Sequence[Mapping[str, float]], metric: str) -> str:
        return text(metric, mean(one[metric] for one in found)) if metric in found[0] else "-"

    expected = [
        ["", *(METRIC_NAMES[metric] for metric in metrics)],
        ["**reached**", *(spread(metric, scores(runs, metric)) for metric in metrics)],
        ["gate", *(gate_cell(gated[metric], runs) if metric in gated else "-" for metric in metrics)],
        *([floor, *(average([(r.floors or {})[floor] for r in runs], m) for m in metrics)] for floor in entry.floors),
        ["the best constant answer", *(average([run.trivial for run in runs], metric) for metric in metrics)],
    ]
    if worked:
        expected.append(["the assignment's own answer", *worked])
    found = written.tables[f"{entry.question} {entry.title}"]
    start = found.index(expected[0])
    assert found[start : start + len(expected)] == expected


HYPERPARAMETERS = {
    "seg-augmented": {
        "network": "U-Net (Ronneberger et al., 2015), 32 to 256 channels, batch norm",
        "starts from": "random",
        "optimizer": "AdamW, weight decay 0.0001",
        "learning rate": "one cosine cycle: up to 0.003 over the first quarter of the steps, then down to 0",
        "batch": "10 samples, shuffled each epoch",
        "epochs": "120; the weights of the best epoch are kept, by the mean of course and present Dice on validation",
        "loss": "soft Dice on the softmax, mean over the classes that occur in a batch; smoothing 1 in numerator and "
        "denominator; pixels pooled over each batch",
        "working size": "96x120; scored at full size (256x320)",
        "augmentation": "mirrored left to right in 50% of cases, rotated by up to 10 degrees, scaled by up to 10%, "
        "shifted by up to 5%, brightness changed by up to 0.1, contrast by up to 10%; the same for frame and mask",
        "small classes": "predicted classes of fewer than 300 pixels in a frame are dropped",
    },
    "vgg-frozen": {
        "starts from": "ImageNet",
        "trained layers": "the last one only; the rest is frozen, without dropout",
        "optimizer": "AdamW, weight decay 0",
        "loss": "cross-entropy",
        "working size": "64x64: 28x28 padded by 2, enlarged",
        "augmentation": "none",
    },
    "vgg-new-task": {
        "trained layers": "all, without dropout",
        "loss": "binary cross-entropy per cell",
        "learning rate": "one cosine cycle: up to 3e-05 over the first quarter of the steps, then down to 0",
    },
}


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_the_hyperparameters_are_stated(name: str, written: Written) -> None:
    rows = dict(row for row in written.tables[f"{SUITE[name].question} {SUITE[name].title}"] if len(row) == 2)
    assert {key: rows[key] for key in HYPERPARAMETERS[name]} == HYPERPARAMETERS[name]


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
    assert written.tables["Dice of each class"] == [["class", "test frames with it", *names], *rows]


def test_the_further_metrics(written: Written) -> None:
    rows = []
    for name in SUITE:
        runs, gated = written.of(name), {gate.metric for gate in SUITE[name].gates}
        for metric in (metric for metric in runs[0].metrics if metric not in gated):
            values = scores(runs, metric)
            trivial = mean(run.trivial[metric] for run in runs)
            title = metric.replace("_", " ").replace("dice", "Dice").replace("iou", "IoU")
            rows.append(
                [name, title, *(text(metric, v) for v in values), spread(metric, values), text(metric, trivial)]
            )
    assert rows
    header, *found = written.tables["Further metrics"]
    assert header == ["configuration", "metric", "seed 3", "seed 5", "seed 8", "mean ± std (n)", "constant"]
    assert found == rows


def test_both_starts_of_the_new_task(written: Written) -> None:
    runs, metric = written.of("vgg-new-task"), "accuracy_from_scratch"
    starts = [scores(runs, metric), scores(runs, "accuracy_from_pretrained"), [run.trivial[metric] for run in runs]]
    starts += [[(run.floors or {})[floor][metric] for run in runs] for floor in SUITE["vgg-new-task"].floors]
    names = ["started from vgg-scratch", "started from vgg-frozen (ImageNet)", "the best constant answer"]
    names += SUITE["vgg-new-task"].floors
    assert written.tables[f"2(c) {SUITE['vgg-new-task'].title}"][-len(starts) :] == [
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
    for run in written.records:
        name = run.configuration
        about = {"profile": "full", "data": "real", "weights": run.weights}
        about |= {"device_name": "Example GPU", "torch": "2.12.0"}
        for place, gate in enumerate(SUITE[name].gates):
            spent = timing([run], "total_s")[0] if place == 0 else 0.0
            attributes = {"classname": name, "name": f"{gate.metric}[seed {run.seed}]", "time": f"{spent:.3f}"}
            (bound,), ((floor,), (floor_name,)) = bounds(gate, [run]), best_floors(name, gate, [run])
            numbers = {"value": run.metrics[gate.metric], "bound": bound, "trivial": run.trivial[gate.metric]}
            facts = {key: str(value) for key, value in (numbers | {"floor": floor, "gate": gate}).items()}
            expected.append((attributes, facts | {"floor by": floor_name} | about))
    assert found == expected


def test_openmetrics(written: Written) -> None:
    families = text_string_to_metric_families((written.folder / "metrics.txt").read_text(encoding="utf-8"))
    labels = ("configuration", "seed", "metric", "part")
    found = {
        (sample.name.removeprefix("benchmark_"), *(sample.labels.get(key, "") for key in labels)): sample.value
        for family in families
        for sample in family.samples
    }
    times = {"total_seconds": "total_s", "to_gate_seconds": "seconds_to_gate"}
    times["training_samples_per_second"] = "samples_per_s"
    expected: dict[tuple[str, ...], float | None] = {("accepted", "", "", "", ""): 1.0, ("info", "", "", "", ""): 1.0}
    for run in written.records:
        of = (run.configuration, str(run.seed))
        expected |= {("quality", *of, metric, ""): value for metric, value in run.metrics.items()}
        for gate in SUITE[run.configuration].gates:
            expected["gate_passed", *of, gate.metric, ""] = 1.0
            expected["floor", *of, gate.metric, ""] = best_floors(run.configuration, gate, [run])[0][0]
        expected |= {("seconds", *of, "", part): timing([run], f"{part}_s")[0] for part in PARTS}
        expected |= {(name, *of, "", ""): timing([run], key)[0] for name, key in times.items()}
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
            scores = {key: [run.metrics[key] for run in written.of(name)] for key in written.of(name)[0].metrics}
            assert entry["extra_info"] == {"seeds": list(SEEDS), "metrics": scores}


# ------------------------------------------------------------------------------------------------------------ figures


@pytest.fixture(scope="module")
def drawn(written: Written) -> dict[str, tuple[Drawing, str]]:
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> NDArray[np.uint8]:
        return rng.integers(0, 256, shape, dtype=np.uint8)

    (written.folder / "samples").mkdir()
    for run in (run for run in written.records if run.details.samples):
        samples: dict[str, NDArray[Any]] = {"images": noise(3, 8, 10, 3), "frames": np.array([7, 40, 3])}
        for name in ("truth", "prediction", "look_up"):
            samples[name] = noise(3, 8, 10) % 8
        for name in ("scores", "look_up_scores", "errors"):
            samples[name] = rng.random(3)
        samples |= {"grays": noise(3, 8, 10), "predictions": noise(3, 8, 10, 3)}
        np.savez(written.folder / str(run.details.samples), allow_pickle=False, **samples)
    return figures_of(written.folder, written.records)


def test_all_figures_are_in_the_report(written: Written, drawn: dict[str, tuple[Drawing, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Drawing, "savefig", lambda *_, **__: None)  # they are rendered in tests/test_exits.py
        text = write_report(written.folder, Asked(select([]), SEEDS)).path.read_text(encoding="utf-8")
    names = "overview times curves-seg-baseline curves-seg-augmented curves-colorization recolored "
    names += "curves-seg-pretrained curves-vgg-scratch confusion-vgg-scratch curves-vgg-frozen confusion-vgg-frozen "
    names += "curves-vgg-new-task classes masks"
    files = [f"{name}.png" for name in names.split()]
    assert re.findall(r"!\[[^]]*\]\(figures/([^)]*)\)", text) == files
    assert sorted(drawn) == sorted(files)


def points(axes: Axes) -> set[tuple[float, float]]:
    """The positions of the marks."""
    offsets = [part.get_offsets() for part in axes.collections if isinstance(part, PathCollection)]
    return rounded(np.concatenate([np.asarray(places, dtype=float) for places in offsets]).tolist())


def rounded(places: Sequence[Sequence[float]]) -> set[tuple[float, float]]:
    return {(round(x, 9), round(y, 9)) for x, y in places}


def xy(line: Any) -> list[list[float]]:
    """The points of a matplotlib line."""
    found: list[list[float]] = np.asarray(line.get_xydata(), dtype=float).tolist()
    return found


def bars(axes: Axes) -> list[tuple[float, float]]:
    """Start and end of the horizontal bars."""
    return [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches if isinstance(bar, Rectangle)]


def test_the_overview(written: Written, drawn: dict[str, tuple[Drawing, str]]) -> None:
    above, below = drawn["overview.png"][0].axes
    for axes, direction in ((above, "above"), (below, "below")):
        gates = [(name, gate) for name, gate in GATES if gate.direction == direction]
        expected: list[tuple[float, float]] = []
        for row, (name, gate) in enumerate(gates):
            runs = written.of(name)
            units = [run.trivial[gate.metric] if direction == "below" else 1.0 for run in runs]
            values = zip(scores(runs, gate.metric), units, (-0.12, 0, 0.12), strict=True)
            expected += [(value / unit, row + shift) for value, unit, shift in values]
            expected.append((runs[0].trivial[gate.metric] / units[0], row - 0.27))
            expected.append((best_floors(name, gate, runs)[0][0] / units[0], row + 0.27))
            bound = bounds(gate, runs)[0] / units[0]
            edges = sorted(bars(axes)[row])
            assert edges == pytest.approx([0, bound] if direction == "below" else [bound, 1])
            (mark,) = [[x for x, _ in xy(line)] for line in axes.lines if abs(mean(y for _, y in xy(line)) - row) < 0.1]
            assert mark == pytest.approx([bound, bound])
        assert points(axes) == rounded(expected)
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert labels == [f"{name}\n{METRIC_NAMES[gate.metric]}" for name, gate in gates]


def test_the_times(written: Written, drawn: dict[str, tuple[Drawing, str]]) -> None:
    (axes,) = drawn["times.png"][0].axes
    expected: list[tuple[float, float]] = []
    marks: list[tuple[float, float]] = []
    for row, name in enumerate(SUITE):
        runs = written.of(name)
        widths = [mean(timing(runs, f"{part}_s")) for part in PARTS]
        widths.append(max(mean(timing(runs, "total_s")) - sum(widths), 0.0))
        expected += pairwise(accumulate(widths, initial=0.0))
        marks += [(widths[0] + value, row) for value in timing(runs, "seconds_to_gate")]
    assert bars(axes) == [pytest.approx(bar) for bar in expected]
    assert points(axes) == rounded(marks)


@pytest.mark.parametrize("name", SUITE)
def test_the_curves(name: str, written: Written, drawn: dict[str, tuple[Drawing, str]]) -> None:
    """Losses above, validation scores and the gate below; one line per seed, in the legend's colour."""
    drawing, caption = drawn[f"curves-{name}.png"]
    runs, gates = written.of(name), SUITE[name].gates
    if SUITE[name].kind == "new-task":
        starts = {"from scratch": "from_scratch", "from pretrained": "from_pretrained", "untrained": "untrained"}
        panels = [{label: (start, key) for label, start in starts.items()} for key in ("validation_loss", "accuracy")]
    else:
        panels = [{"training": ("training", "train_loss"), "validation": ("training", "validation_loss")}]
        panels.append({METRIC_NAMES[gate.metric]: ("training", gate.metric) for gate in gates})
    for axes, expected in zip(drawing.axes, panels, strict=True):
        legend = axes.get_legend()
        assert legend is not None
        colours = {
            entry.get_text(): matplotlib.colors.to_hex(handle.get_color())
            for entry, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
            if isinstance(handle, Line2D)
        }
        lines = [(xy(line), matplotlib.colors.to_hex(str(line.get_color()))) for line in axes.lines]
        found = [(points, colour) for points, colour in lines if len(points) > 2]
        assert sorted(found) == sorted(
            ([[entry["epoch"], entry[key]] for entry in run.history[curve]], colours[label])
            for label, (curve, key) in expected.items()
            for run in runs
        )
        dots = [xy(line)[0] for line in axes.lines if line.get_marker() == "o"]
        kept = [
            (float(best(run)[curve]), run.history[curve][best(run)[curve] - 1][key] or 0.0)
            for curve, key in expected.values()
            for run in runs
        ]
        levels = {round(xy(line)[0][1], 9) for line in axes.lines if line.get_linestyle() == "--"}
        if axes is drawing.axes[0]:
            assert not dots
            assert not levels
        else:
            assert rounded(dots) == rounded(kept)
            # No bound depends on the test split: colorization's constant answer is that of validation.
            share = runs[0].trivial.get("validation_mse", 0.0) / 2
            assert levels == {round(gate.threshold or share, 9) for gate in gates if gate.threshold or share}
    assert len(set(colours.values())) == len(colours)
    assert caption.endswith("A dot marks the epoch whose weights were kept. One line per seed.")


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
        f"{name.replace('_', ' ')}\n{frames} frames"
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
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("prediction", "truth")
    assert caption.endswith("in percent of each true class, seeds 3, 5, 8.")


PALETTE = ["#262626", "#56B4E9", "#E69F00", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"]


def samples_of(written: Written, name: str) -> dict[str, NDArray[Any]]:
    """The samples of the first seed."""
    with np.load(written.folder / str(written.of(name)[0].details.samples)) as content:
        return dict(content)


def picture(axes: Axes) -> NDArray[Any]:
    return np.asarray(axes.images[0].get_array())


def test_the_recolored_frames(written: Written, drawn: dict[str, tuple[Drawing, str]]) -> None:
    drawing, caption = drawn["recolored.png"]
    samples, panels = samples_of(written, "colorization"), np.reshape(np.array(drawing.axes, dtype=object), (3, 3))
    assert "(seed 3)" in caption
    assert [axes.get_title() for axes in panels[0]] == ["grey input", "recolored", "original"]
    for row in range(3):
        for axes, key in zip(panels[row], ("grays", "predictions", "images"), strict=True):
            assert (picture(axes) == samples[key][row]).all()
        assert panels[row][0].get_ylabel() == f"frame {samples['frames'][row]}\nMSE {samples['errors'][row]:.5f}"


def test_the_masks(written: Written, drawn: dict[str, tuple[Drawing, str]]) -> None:
    drawing, caption = drawn["masks.png"]
    assert caption.endswith("Seed 3.")
    panels = np.reshape(np.array(drawing.axes, dtype=object), (6, 3))
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["image", "truth", "look-up", "1(a)", "1(b)", "1(d)"]
    colours = np.array([[int(255 * part + 0.5) for part in matplotlib.colors.to_rgb(colour)] for colour in PALETTE])
    first = samples_of(written, "seg-baseline")
    answers = [(first["look_up"], first["look_up_scores"])]
    answers += [(found["prediction"], found["scores"]) for found in map(partial(samples_of, written), SEGMENTATION)]
    for column, frame in enumerate((7, 40, 3)):
        assert panels[0, column].get_title() == f"frame {frame}"
        assert (picture(panels[0, column]) == first["images"][column]).all()
        assert (picture(panels[1, column]) == colours[first["truth"][column]]).all()
        for axes, (masks, values) in zip(panels[2:, column], answers, strict=True):
            assert (picture(axes) == colours[masks[column]]).all()
            assert [text.get_text() for text in axes.texts] == [f"Dice {values[column]:.3f}"]
    legend = drawing.legends[0]
    named = {label.replace("_", " "): colour.lower() for label, colour in zip(CLASS_NAMES, PALETTE, strict=True)}
    shown = zip(legend.get_texts(), legend.get_patches(), strict=True)
    assert {text.get_text(): matplotlib.colors.to_hex(patch.get_facecolor()) for text, patch in shown} == named
