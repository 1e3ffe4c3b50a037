"""The report: from a folder of records to RESULTS.md and its figures.

Needs neither a GPU nor data nor torch: a report can be made on a laptop from records that were fetched from elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

from benchmarks.figures import Figure, write_figures
from benchmarks.gates import Finding, Judgement, Verdict, combined, judge
from benchmarks.records import Record, read_records, write_atomically
from benchmarks.suite import PUBLISHED_SAMPLES, SEEDS, SUITE, Configuration, Gate

NONE = "-"
# 97.5% quantiles of Student's t for n = 2..10 values, that is 1..9 degrees of freedom.
_T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_HOW_TO_ACCEPT = "For one, run `make benchmark PROFILE=full` with the real data on a machine with a GPU."
_HOW_INTERVAL = "The interval is that of a paired t test over seeds."

Row = Sequence[str]
BySeed = Mapping[int, float]


def write_report(
    results: Path,
    configurations: Sequence[Configuration],
    seeds: Sequence[int],
    allow_not_run: Collection[str] = (),
    profile: str | None = None,
) -> Path:
    """Judge the records in ``results``, draw the figures and write ``results/RESULTS.md``.

    Records of other configurations or seeds are left out; the other arguments are those of `benchmarks.gates.judge`.

    Returns:
        the report's path.

    Raises:
        DataError: there are no records, or one of them cannot be read.
        OSError: the folder cannot be written.
    """
    order = {configuration.id: place for place, configuration in enumerate(configurations)}
    records = sorted(
        (entry for entry in read_records(results) if entry.configuration in order and entry.seed in seeds),
        key=lambda entry: (order[entry.configuration], entry.seed),
    )
    judgement = judge(records, configurations, seeds, allow_not_run, profile)
    figures = write_figures(results, records)
    sections = [
        "# Results",
        *_head(judgement, records),
        *_gate_section(judgement, configurations, seeds, records),
        *_metrics_section(configurations, seeds, records),
        *_class_section(records),
        *_speed_section(configurations, seeds, records),
        *_answers(configurations, seeds, records),
        *_figure_section(results, figures),
        *_environment_section(records),
    ]
    path = results / "RESULTS.md"
    write_atomically(path, "\n\n".join(sections) + "\n")
    return path


def summary(judgement: Judgement, records: Sequence[Record] = ()) -> str:
    """The verdict as plain text: one line, then what objects, what was allowed not to run, and any reservation.

    ``records`` are those that were judged; without them nothing is said of profile and data.
    """
    lines = [f"{_word(judgement)}: {_count(judgement)}", *(f"- {text}" for text in _remarks(judgement))]
    if reservation := _reservation(judgement, records):
        lines.append(reservation.replace("`", ""))
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------- verdict


def _head(judgement: Judgement, records: Sequence[Record]) -> list[str]:
    remarks = "\n".join(f"- {_markdown(text)}" for text in _remarks(judgement))
    reservation = _reservation(judgement, records)
    note = f"> **{reservation.replace('.', '.**', 1)}" if reservation else ""
    first = f"**{_word(judgement)}**: {_count(judgement)}"
    return _present(first, remarks, note, _facts(judgement, records), _disagreement(records))


def _present(*parts: str) -> list[str]:
    """The parts that have a text."""
    return [part for part in parts if part]


def _word(judgement: Judgement) -> str:
    return "PASSED" if judgement.accepted else "FAILED"


def _count(judgement: Judgement) -> str:
    """How many configurations passed, and out of how many."""
    runs: dict[str, list[Finding]] = {}
    for finding in judgement.findings:
        runs.setdefault(finding.configuration, []).append(finding)
    verdicts = [combined(findings) for findings in runs.values()]
    parts = [f"{verdicts.count(Verdict.PASSED)} of {len(runs)} configurations reached every gate."]
    if missing := verdicts.count(Verdict.NOT_RUN):
        parts.append(f"{missing} {'was' if missing == 1 else 'were'} not run.")
    return " ".join(parts)


def _remarks(judgement: Judgement) -> list[str]:
    """One line for each thing that did not pass; seeds and gates with the same reason share a line."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for finding in judgement.findings:
        if finding.verdict is Verdict.PASSED:
            continue
        verdict: str = finding.verdict
        if finding not in judgement.objections:
            verdict += ", as allowed"
        listed = seeds.setdefault((finding.configuration, f"{verdict}: {finding.reason}"), [])
        if finding.seed not in listed:
            listed.append(finding.seed)
    return [f"{name}, {_seeds(listed)}: {_one_line(text)}" for (name, text), listed in seeds.items()]


def _reservation(judgement: Judgement, records: Sequence[Record]) -> str:
    """Why this does not count as an acceptance result; empty if it does. The first sentence says so."""
    because = []
    judged = {finding.configuration for finding in judgement.findings}
    seeds = {finding.seed for finding in judgement.findings}
    if len(judged) < len(SUITE):
        because.append(f"only {len(judged)} of {len(SUITE)} configurations were asked for")
    if not set(SEEDS["full"]) <= seeds and any(record.profile == "full" for record in records):
        because.append(f"acceptance takes the {_seeds(SEEDS['full'])}")
    if not all(_published(record) for record in records):
        because.append("the data has other numbers of samples than the published sets")
    if any(record.weights.startswith("file ") or " file " in record.weights for record in records):
        because.append("the pre-trained weights are not torchvision's")
    if any(record.profile == "quick" for record in records):
        because.append("the quick profile trains less than the task asks for")
    if any(record.data.get("kind") == "synthetic" for record in records):
        because.append("synthetic data says nothing about the real data")
    if any("stand-in" in record.weights for record in records):
        because.append("stand-in weights are not ImageNet's")
    if not because:
        return ""
    reasons = _sentence_list(because)
    return f"This is not an acceptance result. {reasons[0].upper()}{reasons[1:]}. {_HOW_TO_ACCEPT}"


def _published(record: Record) -> bool:
    """Whether a record of real data that counts its samples read the whole of a published set."""
    samples = record.data.get("samples")
    return record.data.get("kind") != "real" or samples is None or samples in PUBLISHED_SAMPLES


def _facts(judgement: Judgement, records: Sequence[Record]) -> str:
    """Profile, data, device, precision, seeds and weights in a line."""
    if not records:
        return "There is no record of any run that was asked for."
    seeds = sorted({finding.seed for finding in judgement.findings})
    return " · ".join(
        [
            f"Profile **{_values(map(_profile, records))}**",
            f"{_values(map(_data, records))} data",
            f"device {_values(map(_device, records))}",
            f"precision {_values(record.environment.get('precision') for record in records)}",
            _seeds(seeds),
            f"weights {_weights(records)}",
        ]
    )


def _weights(records: Sequence[Record]) -> str:
    """What runs started from, and which ones; random starts need no names."""
    started: dict[str, dict[str, None]] = {}
    for record in records:
        if record.status == "completed" and record.weights:
            started.setdefault(record.weights, {})[record.configuration] = None
    return ", ".join(w if w == "random" else f"{w} ({', '.join(names)})" for w, names in started.items()) or NONE


def _disagreement(records: Sequence[Record]) -> str:
    """A line that says which records were made under other circumstances than the rest; empty if none."""
    texts = []
    for name, of in (("profile", _profile), ("data", _data), ("device", _device)):
        names: dict[str, list[str]] = {}
        for record in records:
            if value := of(record):
                names.setdefault(str(value), []).append(f"{record.configuration} seed {record.seed}")
        if len(names) > 1:
            # The rarest first: it is what was left over or slipped in.
            rarest = sorted(names.items(), key=lambda entry: len(entry[1]))
            texts.append(f"{name} is {', '.join(f'{v} in {_few(runs)}' for v, runs in rarest)}")
    return f"**The records disagree:** {'; '.join(texts)}. Do not compare across them." if texts else ""


def _profile(record: Record) -> object:
    return record.profile


def _data(record: Record) -> object:
    return record.data.get("kind")


def _device(record: Record) -> object:
    return record.environment.get("device_name")


# ------------------------------------------------------------------------------------------------------------- gates


def _gate_section(
    judgement: Judgement, configurations: Sequence[Configuration], seeds: Sequence[int], records: Sequence[Record]
) -> list[str]:
    rows = [
        _gate_row(configuration, gate, judgement.of(configuration.id, gate), seeds, records)
        for configuration in configurations
        for gate in configuration.gates
    ]
    headers = ["configuration", "question", "metric", *_seed_headers(seeds), "mean ± std"]
    headers += ["gate", "trivial predictor", "lead", "verdict", "epochs (best/trained)", "training time"]
    return [
        "## Gates",
        _table(headers, rows),
        "The trivial predictor gives the best constant answer: all background, the majority class, the grey image. "
        "The lead over it is counted so that more is better. ± is the sample standard deviation over seeds. "
        "Values in bold missed their gate. Training time is the mean over seeds, without evaluation.",
    ]


def _gate_row(
    configuration: Configuration,
    gate: Gate,
    findings: Sequence[Finding],
    seeds: Sequence[int],
    records: Sequence[Record],
) -> Row:
    runs = _completed(records, configuration)
    judged = {entry.seed: entry for entry in findings if entry.verdict in (Verdict.PASSED, Verdict.FAILED)}
    values = {seed: entry.value for seed, entry in judged.items() if entry.value is not None}
    trivial = [entry.trivial for entry in judged.values() if entry.trivial is not None]
    bounds = [entry.bound for entry in judged.values() if entry.bound is not None]
    cells = []
    for seed in seeds:
        text = _number(gate.metric, values[seed]) if seed in values else NONE
        cells.append(f"**{text}**" if seed in values and judged[seed].verdict is Verdict.FAILED else text)
    limit = str(gate)
    if gate.threshold is None and bounds:
        limit += f" ({_number(gate.metric, mean(bounds))})"
    lead = NONE
    if values:
        sign = 1 if gate.direction == "above" else -1
        lead = _signed(gate.metric, sign * (mean(values.values()) - mean(trivial)))
    return [
        _name(configuration, runs),
        configuration.question,
        gate.metric,
        *cells,
        _spread(gate.metric, values, seeds),
        limit,
        _number(gate.metric, mean(trivial)) if trivial else NONE,
        lead,
        combined(findings),
        ", ".join(_epochs(record) for record in runs) or NONE,
        _duration(_average(runs, "training_s")),
    ]


def _name(configuration: Configuration, runs: Sequence[Record]) -> str:
    weights = list(dict.fromkeys(record.weights for record in runs if record.weights not in ("", "random")))
    return f"{configuration.id} ({' / '.join(weights)})" if weights else configuration.id


def _spread(metric: str, values: BySeed, seeds: Sequence[int]) -> str:
    """Mean and sample standard deviation; the number of values where it is not that of the seeds, or is 1."""
    if not values:
        return NONE
    center = _number(metric, mean(values.values()))
    if len(values) == 1:
        return f"{center} (n=1)"
    text = f"{center} ± {_number(metric, stdev(values.values()))}"
    return text if len(values) == len(seeds) else f"{text} (n={len(values)})"


def _epochs(record: Record) -> str:
    best, trained = record.timing.get("best_epoch"), record.timing.get("epochs")
    return "/".join(NONE if value is None else f"{value:.0f}" for value in (best, trained))


# ----------------------------------------------------------------------------------------------- what is not a gate


def _metrics_section(
    configurations: Sequence[Configuration], seeds: Sequence[int], records: Sequence[Record]
) -> list[str]:
    """Every metric that no gate asks for."""
    rows: list[Row] = []
    for configuration in configurations:
        runs = _completed(records, configuration)
        gated = {gate.metric for gate in configuration.gates}
        for metric in dict.fromkeys(name for record in runs for name in record.metrics if name not in gated):
            values = _by_seed(runs, metric)
            trivial = [record.trivial[metric] for record in runs if metric in record.trivial]
            rows.append(
                [
                    configuration.id,
                    metric,
                    *_seed_cells(metric, values, seeds),
                    _spread(metric, values, seeds),
                    _number(metric, mean(trivial)) if trivial else NONE,
                ]
            )
    if not rows:
        return []
    headers = ["configuration", "metric", *_seed_headers(seeds), "mean ± std", "trivial predictor"]
    return ["## Further metrics", _table(headers, rows), "No gate depends on these."]


def _class_section(records: Sequence[Record]) -> list[str]:
    """Pooled Dice a class, mean over seeds."""
    needed = {"class_names", "pooled_dice"}
    runs = [record for record in records if record.status == "completed" and needed <= set(record.details)]
    if not runs:
        return []
    names = list(dict.fromkeys(name for record in runs for name in record.details["class_names"]))
    columns = list(dict.fromkeys(record.configuration for record in runs))
    rows = []
    for name in names:
        cells = []
        for column in columns:
            values = [_of_class(r, "pooled_dice", name) for r in runs if r.configuration == column]
            found = [value for value in values if value is not None]
            cells.append(_number("dice", mean(found)) if found else NONE)
        support = {_of_class(record, "support_frames", name) for record in runs} - {None}
        rows.append([_plain(name), ", ".join(f"{value:.0f}" for value in support if value is not None), *cells])
    return [
        "## Dice of each class",
        _table(["class", "frames that show it", *columns], rows),
        f"Over all pixels of the test split, mean over seeds. {NONE}: neither shown nor predicted.",
    ]


def _of_class(record: Record, key: str, name: str) -> float | None:
    """One class's entry of a list in the details."""
    listed = dict(zip(record.details["class_names"], record.details.get(key) or [], strict=False))
    value = listed.get(name)
    return None if value is None else float(value)


def _speed_section(
    configurations: Sequence[Configuration], seeds: Sequence[int], records: Sequence[Record]
) -> list[str]:
    """How fast quality came: the first epoch whose validation scores cleared the gates."""
    rows: list[Row] = []
    for configuration in configurations:
        runs = _completed(records, configuration)
        first = {record.seed: record.timing.get("epochs_to_gate") for record in runs}
        throughput = _average(runs, "samples_per_s")
        if throughput is not None or any(value is not None for value in first.values()):
            rows.append(
                [
                    configuration.id,
                    *(NONE if (value := first.get(seed)) is None else f"{value:.0f}" for seed in seeds),
                    _duration(_average(runs, "seconds_to_gate")),
                    NONE if throughput is None else f"{throughput:.0f}",
                    _duration(_average(runs, "evaluation_s")),
                    _duration(_average(runs, "total_s")),
                ]
            )
    if not rows:
        return []
    headers = ["configuration", *(f"epochs to gate, {name}" for name in _seed_headers(seeds))]
    headers += ["time to gate", "training samples/s", "evaluation time", "total time"]
    return [
        "## Speed",
        _table(headers, rows),
        "To gate: until validation first cleared the gates. Times and rates are means over seeds.",
    ]


# ----------------------------------------------------------------------------------------------------------- answers


def _answers(configurations: Sequence[Configuration], seeds: Sequence[int], records: Sequence[Record]) -> list[str]:
    """The two questions of the assignment that compare runs, if they were asked for."""
    asked = {configuration.id for configuration in configurations}
    runs = {(entry.configuration, entry.seed): entry for entry in records if entry.status == "completed"}
    parts: list[str] = []
    if "seg-pretrained" in asked:
        parts += ["### 1(d) Does colorization pre-training help?", *_pretraining(seeds, runs)]
    if "vgg-new-task" in asked:
        parts += ["### 2(c) Which start is better?", *_better_start(seeds, runs)]
    return ["## Answers", *parts] if parts else []


def _pretraining(seeds: Sequence[int], runs: Mapping[tuple[str, int], Record]) -> list[str]:
    pairs = {}
    for seed in seeds:
        after, before = runs.get(("seg-pretrained", seed)), runs.get(("seg-augmented", seed))
        if after and before and (after.profile, _data(after)) == (before.profile, _data(before)):
            pairs[seed] = (after, before)
    rows, sentences = [], []
    for metric in ("course_dice", "present_dice"):
        differences = {
            seed: first - second
            for seed, (after, before) in pairs.items()
            if (first := after.metrics.get(metric)) is not None and (second := before.metrics.get(metric)) is not None
        }
        if differences:
            rows.append([metric, *_difference_cells(metric, differences, seeds)])
            shown = _shown(metric, differences, "Pre-training helps", "Pre-training hurts")
            average = " on average" if len(differences) > 1 else ""
            sentences.append(f"- {metric}: {_signed(metric, mean(differences.values()))}{average}. {shown}")
    if not rows:
        return [
            "Not answered: that takes runs of seg-augmented and seg-pretrained with the same seed, profile and data."
        ]
    return _present(
        "seg-pretrained minus seg-augmented with the same seed; they differ in their start alone.",
        _table(["metric", *_seed_headers(seeds), "mean", "95% interval"], rows),
        "\n".join(sentences),
        _HOW_INTERVAL if len(pairs) > 1 else "",
    )


def _better_start(seeds: Sequence[int], runs: Mapping[tuple[str, int], Record]) -> list[str]:
    metrics = ("accuracy_from_scratch", "accuracy_from_pretrained")
    found = [run for seed in seeds if (run := runs.get(("vgg-new-task", seed)))]
    scratch, pretrained = (_by_seed(found, metric) for metric in metrics)
    margins = {seed: pretrained[seed] - scratch[seed] for seed in scratch if seed in pretrained}
    if not margins:
        return ["Not answered: that takes a run of vgg-new-task that scored both starts."]
    weights = " / ".join(dict.fromkeys(record.weights for record in found if record.weights)) or "pre-trained"
    names = ("vgg-scratch", f"vgg-frozen ({weights})")
    accuracy = "accuracy"
    rows = [
        [f"started from {name}", *_seed_cells(accuracy, values, seeds), _spread(accuracy, values, seeds)]
        for name, values in zip(names, (scratch, pretrained), strict=True)
    ]
    trivial = _by_seed(found, metrics[0], lambda record: record.trivial)
    rows.append(["trivial predictor", *_seed_cells(accuracy, trivial, seeds), _spread(accuracy, trivial, seeds)])
    return _present(
        _table(["accuracy on the new task", *_seed_headers(seeds), "mean ± std"], rows),
        _start_sentence(margins, names) + _trivial_sentence(trivial),
        _HOW_INTERVAL if len(margins) > 1 else "",
    )


def _start_sentence(margins: BySeed, names: tuple[str, str]) -> str:
    """The better start, its margin for each seed, and whether that could be chance."""
    margin = mean(margins.values())
    if margin == 0:
        return "Neither start is better on average."
    winner, sign = (names[1], 1) if margin > 0 else (names[0], -1)
    mine = {seed: sign * value for seed, value in margins.items()}
    each = ", ".join(f"seed {seed}: {_signed('accuracy', value)}" for seed, value in mine.items())
    start = "The better start is" if len(margins) == 1 else "The better start on average is"
    shown = _shown("accuracy", mine, "This is more than noise", "This is more than noise")
    return f"{start} **{winner}**, by {_number('accuracy', abs(margin))} accuracy ({each}). {shown}"


def _trivial_sentence(trivial: BySeed) -> str:
    if not trivial:
        return ""
    return f" The trivial predictor reaches {_number('accuracy', mean(trivial.values()))}."


def _shown(metric: str, differences: BySeed, above: str, below: str) -> str:
    """What differences seed by seed can and cannot show, as a sentence."""
    limits = interval(list(differences.values()))
    if limits is None:
        return "One seed cannot show whether this is more than noise."
    low, high = limits
    text = f"the 95% interval is {_signed(metric, low)} to {_signed(metric, high)}"
    if low <= 0 <= high:
        return f"No difference that {len(differences)} seeds could show: {text}."
    return f"{above if low > 0 else below}: {text}."


def interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """The 95% interval of the mean of paired differences (Student's t); None for fewer than two.

    More than ten values get the quantile of ten, which is a little too wide.
    """
    count = len(differences)
    if count < 2:
        return None
    quantile = _T_QUANTILES[min(count - 2, len(_T_QUANTILES) - 1)]
    half = quantile * stdev(differences) / math.sqrt(count)
    return mean(differences) - half, mean(differences) + half


def _difference_cells(metric: str, differences: BySeed, seeds: Sequence[int]) -> Row:
    limits = interval(list(differences.values()))
    return [
        *(_signed(metric, differences[seed]) if seed in differences else NONE for seed in seeds),
        _signed(metric, mean(differences.values())),
        f"{_signed(metric, limits[0])} to {_signed(metric, limits[1])}" if limits else NONE,
    ]


# ------------------------------------------------------------------------------------------- figures and environment


def _figure_section(results: Path, figures: Sequence[Figure]) -> list[str]:
    if not figures:
        return []
    parts = ["## Figures"]
    for figure in figures:
        name = figure.path.relative_to(results).as_posix()
        parts.append(f"![{figure.path.stem}]({name})\n\n*{figure.caption}*")
    return parts


def _environment_section(records: Sequence[Record]) -> list[str]:
    keys = dict.fromkeys(key for record in records for key in record.environment)
    rows = [[key, text] for key in keys if (text := _values([r.environment.get(key) for r in records])) != NONE]
    return ["## Environment", _table(["what", "value"], rows)] if rows else []


# ------------------------------------------------------------------------------------------------------------- words


def _table(headers: Row, rows: Iterable[Row]) -> str:
    """A Markdown table; cells appear as they are given, save for what would break it."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    return tabulate(cells, headers=list(headers), tablefmt="github", disable_numparse=True)


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def _markdown(text: str) -> str:
    """Text from elsewhere, such as an error message, shown as it is: no tag, emphasis or code starts in it."""
    return re.sub(r"([\\`*]|<(?=[A-Za-z/!])|_(?=_)|(?<=_)_)", r"\\\1", text)


def _number(metric: str, value: float) -> str:
    """Errors are small and get five decimals, scores three."""
    return f"{value:.5f}" if "mse" in metric else f"{value:.3f}"


def _signed(metric: str, value: float) -> str:
    text = _number(metric, abs(value))
    return f"-{text}" if value < 0 and float(text) else f"+{text}"


def _completed(records: Sequence[Record], configuration: Configuration) -> list[Record]:
    return [entry for entry in records if entry.configuration == configuration.id and entry.status == "completed"]


def _by_seed(
    runs: Sequence[Record],
    metric: str,
    of: Callable[[Record], Mapping[str, float | None]] = lambda record: record.metrics,
) -> dict[int, float]:
    return {record.seed: value for record in runs if (value := of(record).get(metric)) is not None}


def _seed_cells(metric: str, values: BySeed, seeds: Sequence[int]) -> Row:
    return [_number(metric, values[seed]) if seed in values else NONE for seed in seeds]


def _seed_headers(seeds: Sequence[int]) -> Row:
    return [f"seed {seed}" for seed in seeds]


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) != 1 else ''} {', '.join(map(str, seeds))}"


def _average(runs: Sequence[Record], key: str) -> float | None:
    values = [value for record in runs if (value := record.timing.get(key)) is not None]
    return mean(values) if values else None


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _values(values: Iterable[object]) -> str:
    """The distinct values that are not None; many are shortened to the first ones and their number."""
    texts = dict.fromkeys(_text(value) for value in values if value is not None)
    listed = [text for text in texts if text]
    if not listed:
        return NONE
    return " / ".join(listed) if len(listed) <= 3 else f"{' / '.join(listed[:2])} / ... ({len(listed)} values)"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(entry) for entry in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(entry)}" for key, entry in value.items() if entry is not None)
    return _one_line(str(value))


def _few(names: Sequence[str]) -> str:
    """At most three names."""
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _sentence_list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
