"""The report: from a folder of records to RESULTS.md, report.html, figures, and the files that machines read.

Needs neither a GPU nor data nor torch: a report can be made on a laptop from records that were fetched from elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

from benchmarks.report.exports import write_exports
from benchmarks.report.html import page
from benchmarks.results.formatting import (
    MANY_SEEDS,
    NONE,
    Row,
    as_text,
    duration,
    few,
    number,
    one_line,
    plain,
    seeds_text,
    sentence_list,
    signed,
    table,
    text_of,
    values_of,
)
from benchmarks.results.gates import Finding, Judgement, Verdict, combined, judge
from benchmarks.results.records import ENVIRONMENT, TIME_PARTS, Machine, Record, read_records, write_atomically
from benchmarks.results.statistics import paired_interval
from benchmarks.suite import SEEDS, SUITE, Configuration, Gate

if TYPE_CHECKING:
    from benchmarks.options import Options
    from benchmarks.report.figures import Figure

_HOW_TO_ACCEPT = "For one, run `make benchmark PROFILE=full` with the real data on a machine with a GPU."
_SHOWN_REASONS = 3  # where a configuration has more than many
_SHOWN_FILES = 3
_HOW_INTERVAL = "The interval is that of a paired t test over seeds."

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Report:
    """What was written and what it is about.

    Attributes:
        path: of RESULTS.md.
        text: its contents without the figures.
        records: those that were judged.
    """

    path: Path
    text: str
    judgement: Judgement
    records: Sequence[Record]

    @property
    def summary(self) -> str:
        """The verdict as plain text; see `summary`."""
        return summary(self.judgement, self.records)


def report_on(options: Options) -> Report:
    """`write_report` for what a person asked for."""
    return write_report(options.results, options.only, options.seeds, options.allow_not_run, options.profile)


def write_report(
    results: Path,
    configurations: Sequence[Configuration],
    seeds: Sequence[int],
    allow_not_run: Collection[str] = (),
    profile: str | None = None,
) -> Report:
    """Judge the records in ``results`` and write RESULTS.md, report.html, figures/ and the files for machines there.

    Records of other configurations or seeds are left out; the other arguments are those of
    `benchmarks.results.gates.judge`.

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
    before = [
        "# Results",
        *_head(judgement, records),
        *_gate_section(judgement, configurations, seeds, records),
        *_answers(configurations, seeds, records),
    ]
    after = [
        *_speed_section(configurations, seeds, records),
        *_class_section(records),
        *_metrics_section(configurations, seeds, records),
        *_machine_section(records),
        *_environment_section(records),
    ]
    text = _joined([*before, *_figure_section(results, write_figures(results, records)), *after])
    path = results / "RESULTS.md"
    write_atomically(path, text)
    write_atomically(results / "report.html", page(text, results))
    write_exports(results, judgement, records)
    return Report(path, _joined([*before, *after]), judgement, records)


def write_figures(results: Path, records: Sequence[Record]) -> list[Figure]:
    """`benchmarks.report.figures.write_figures`; who judges alone does not wait for matplotlib to be imported."""
    backend = os.environ.pop("MPLBACKEND", None)  # a notebook's own, which matplotlib may refuse to be imported with
    try:
        from benchmarks.report.figures import write_figures as draw
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return draw(results, records)


def _joined(sections: Sequence[str]) -> str:
    return "\n\n".join(sections) + "\n"


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
    remarks = "\n".join(f"- {as_text(text)}" for text in _remarks(judgement))
    reservation = _reservation(judgement, records)
    note = f"> **{reservation.replace('.', '.**', 1)}" if reservation else ""
    first = f"**{_word(judgement)}**: {_count(judgement)}"
    remarkable = (_disagreement(records), _unrepeatable(records), _disturbed(records))
    return _present(first, remarks, note, _facts(judgement, records), *remarkable)


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
    """One line for each thing that did not pass; seeds and gates with the same reason share a line.

    Of a configuration with many reasons the first ones are told, and how many seeds have others.
    """
    seeds: dict[str, dict[str, dict[int, None]]] = {}
    for finding in judgement.findings:
        if finding.verdict is Verdict.PASSED:
            continue
        verdict = finding.verdict if judgement.objects_to(finding) else f"{finding.verdict}, as allowed"
        reasons = seeds.setdefault(finding.configuration, {})
        reasons.setdefault(f"{verdict}: {finding.reason}", {})[finding.seed] = None
    lines = []
    for name, reasons in seeds.items():
        shown = len(reasons) if len(reasons) <= MANY_SEEDS else _SHOWN_REASONS
        entries = [(text, list(listed)) for text, listed in reasons.items()]
        lines += [f"{name}, {seeds_text(listed)}: {one_line(text)}" for text, listed in entries[:shown]]
        if others := entries[shown:]:
            rest = list(dict.fromkeys(seed for _, listed in others for seed in listed))
            lines.append(f"{name}, {seeds_text(rest)}: {len(others)} more reasons; junit.xml has each")
    return lines


def _reservation(judgement: Judgement, records: Sequence[Record]) -> str:
    """Why this does not count as an acceptance result; empty if it does. The first sentence says so."""
    because = []
    judged = {finding.configuration for finding in judgement.findings}
    seeds = {finding.seed for finding in judgement.findings}
    if len(judged) < len(SUITE):
        because.append(f"only {len(judged)} of {len(SUITE)} configurations were asked for")
    if not set(SEEDS["full"]) <= seeds and any(record.profile == "full" for record in records):
        because.append(f"acceptance takes the {seeds_text(SEEDS['full'])}")
    because += _other_data(records)
    if any(record.weights.startswith("file ") or " file " in record.weights for record in records):
        because.append("the pre-trained weights are not torchvision's")
    if any(record.profile == "quick" for record in records):
        because.append("the quick profile trains less than the task asks for")
    if any(record.data.kind == "synthetic" for record in records):
        because.append("synthetic data says nothing about the real data")
    if any("stand-in" in record.weights for record in records):
        because.append("stand-in weights are not ImageNet's")
    if not because:
        return ""
    reasons = sentence_list(because)
    return f"This is not an acceptance result. {reasons[0].upper()}{reasons[1:]}. {_HOW_TO_ACCEPT}"


def _other_data(records: Sequence[Record]) -> Iterator[str]:
    """How the real data that was read differs from the published sets."""
    real = [record.data for record in records if record.data.kind == "real"]
    if not all(data.unpublished for data in real):
        yield "nothing tells whether the data is that which was published"
    # Several configurations read the same files.
    found = {tuple(data.unpublished.first): data.unpublished.count for data in real if data.unpublished}
    if count := sum(found.values()):
        names = [f"`{one_line(name).replace('`', '')}`" for first in found for name in first][:_SHOWN_FILES]
        more = f" and {count - len(names)} more" if count > len(names) else ""
        yield (
            f"the data is not as published in {count} file{'' if count == 1 else 's'} ({', '.join(names)}{more}; "
            "all of them: `python -m benchmarks data verify`)"
        )


def _facts(judgement: Judgement, records: Sequence[Record]) -> str:
    """Profile, data, device, precision, seeds and weights in a line."""
    if not records:
        return "There is no record of any run that was asked for."
    seeds = sorted({finding.seed for finding in judgement.findings})
    return " · ".join(
        [
            f"Profile **{values_of(map(_profile, records))}**",
            f"{values_of(map(_data, records))} data",
            f"device {values_of(map(_device, records))}",
            f"precision {values_of(record.environment.precision for record in records)}",
            f"mode {values_of(record.environment.mode for record in records)}",
            seeds_text(seeds),
            f"weights {_weights(records)}",
        ]
    )


def _weights(records: Sequence[Record]) -> str:
    """What runs started from, and which ones; random starts need no names."""
    started: dict[str, dict[str, None]] = {}
    for record in records:
        if record.status == "completed" and record.weights:
            started.setdefault(as_text(record.weights), {})[record.configuration] = None
    return ", ".join(w if w == "random" else f"{w} ({', '.join(names)})" for w, names in started.items()) or NONE


def _disagreement(records: Sequence[Record]) -> str:
    """A line that says which records were made under other circumstances than the rest; empty if none."""
    texts = []
    for name, of in (("profile", _profile), ("data", _data), ("device", _device)):
        names: dict[str, list[str]] = {}
        for record in records:
            if value := of(record):
                names.setdefault(as_text(str(value)), []).append(_run_of(record))
        if len(names) > 1:
            # The rarest first: it is what was left over or slipped in.
            rarest = sorted(names.items(), key=lambda entry: len(entry[1]))
            texts.append(f"{name} is {', '.join(f'{v} in {few(runs)}' for v, runs in rarest)}")
    return f"**The records disagree:** {'; '.join(texts)}. Do not compare across them." if texts else ""


def _unrepeatable(records: Sequence[Record]) -> str:
    """What keeps the deterministic mode from its promise; empty if nothing does."""
    names = {name for record in records for name in record.details.nondeterministic_operations or ()}
    return f"**Without a deterministic form:** {', '.join(map(as_text, sorted(names)))}." if names else ""


def _disturbed(records: Sequence[Record]) -> str:
    """Runs that did not go as planned, and what that means for their numbers; empty if there are none."""
    texts = []
    if runs := [_run_of(record) for record in records if record.details.gradient_accumulation]:
        texts.append(f"**Out of memory:** {few(runs)} took each batch in parts, which batch norm and the loss notice.")
    if runs := [_run_of(record) for record in records if record.details.not_recorded]:
        texts.append(f"**Not recorded:** the steps of {few(runs)} were started one kernel at a time.")
    if runs := [_run_of(record) for record in records if record.timing.interruptions]:
        texts.append(f"**Interrupted:** {few(runs)} went on in another process; total times are those of the last one.")
    return " ".join(texts)


def _run_of(record: Record) -> str:
    return f"{record.configuration} seed {record.seed}"


def _profile(record: Record) -> object:
    return record.profile


def _data(record: Record) -> object:
    return record.data.kind


def _device(record: Record) -> object:
    return record.environment.device_name


# ------------------------------------------------------------------------------------------------------------- gates


def _gate_section(
    judgement: Judgement, configurations: Sequence[Configuration], seeds: Sequence[int], records: Sequence[Record]
) -> list[str]:
    rows = [
        _gate_row(configuration, gate, judgement.of(configuration.id, gate), seeds, records)
        for configuration in configurations
        for gate in configuration.gates
    ]
    headers = ["configuration", "question", "metric", "verdict"]
    headers += ["missed by"] if _many(seeds) else _seed_headers(seeds)
    headers += ["mean ± std (n)"]
    headers += ["smallest to largest"] if len(seeds) > 1 else []
    headers += ["gate", "trivial predictor", "lead", "epochs (best/trained)", "training time"]
    return [
        "## Gates",
        table(headers, rows),
        "The trivial predictor gives the best constant answer: all background, the majority class, "
        "the grey image with the best constant colour cast. "
        "The lead over it is counted so that more is better. ± is the sample standard deviation over seeds. "
        f"{'' if _many(seeds) else 'Values in bold missed their gate. '}"
        "Training time is the mean over seeds, without evaluation.",
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
    limit = str(gate)
    if gate.threshold is None and bounds:
        limit += f" ({number(gate.metric, mean(bounds))})"
    lead = NONE
    if values:
        sign = 1 if gate.direction == "above" else -1
        lead = signed(gate.metric, sign * (mean(values.values()) - mean(trivial)))
    return [
        _name(configuration, runs),
        configuration.question,
        gate.metric,
        combined(findings),
        *_gate_cells(gate, findings, seeds),
        _spread(gate.metric, values),
        *([_range(gate.metric, values)] if len(seeds) > 1 else []),
        limit,
        number(gate.metric, mean(trivial)) if trivial else NONE,
        lead,
        (_epoch_ranges(runs) if _many(runs) else ", ".join(map(_epochs, runs))) or NONE,
        duration(_average(runs, "training_s")),
    ]


def _gate_cells(gate: Gate, findings: Sequence[Finding], seeds: Sequence[int]) -> list[str]:
    """A value a seed, in bold where it missed the gate; of many seeds those that did not pass."""
    if _many(seeds):
        missed = [entry.seed for entry in findings if entry.verdict is not Verdict.PASSED]
        return [seeds_text(missed) if missed else NONE]
    judged = {entry.seed: entry for entry in findings if entry.verdict in (Verdict.PASSED, Verdict.FAILED)}
    texts = {seed: number(gate.metric, entry.value) for seed, entry in judged.items() if entry.value is not None}
    return [
        f"**{texts[s]}**" if s in texts and judged[s].verdict is Verdict.FAILED else texts.get(s, NONE) for s in seeds
    ]


def _name(configuration: Configuration, runs: Sequence[Record]) -> str:
    weights = dict.fromkeys(as_text(record.weights) for record in runs if record.weights not in ("", "random"))
    return f"{configuration.id} ({' / '.join(weights)})" if weights else configuration.id


def _spread(metric: str, values: BySeed) -> str:
    """Mean, sample standard deviation where there is one, number of values."""
    if not values:
        return NONE
    center = number(metric, mean(values.values()))
    deviation = f" ± {number(metric, stdev(values.values()))}" if len(values) > 1 else ""
    return f"{center}{deviation} (n={len(values)})"


def _range(metric: str, values: BySeed) -> str:
    return f"{number(metric, min(values.values()))} to {number(metric, max(values.values()))}" if values else NONE


def _epoch_ranges(runs: Sequence[Record]) -> str:
    """The same over many runs, from the smallest to the largest."""
    texts = []
    for curve in dict.fromkeys(curve for record in runs for curve in record.history):
        best = [found for record in runs if (found := (record.details.best_epochs or {}).get(curve)) is not None]
        trained = [len(record.history[curve]) for record in runs if curve in record.history]
        texts.append(f"{_whole_range(best)}/{_whole_range(trained)}")
    return " and ".join(texts)


def _whole_range(values: Sequence[float]) -> str:
    """ "7", "7 to 12", or that there is none."""
    return " to ".join(dict.fromkeys(f"{value:.0f}" for value in (min(values), max(values)))) if values else NONE


def _epochs(record: Record) -> str:
    """The best epoch of those trained, for each curve of the run."""
    best = record.details.best_epochs or {}
    return " and ".join(f"{best.get(curve, NONE)}/{len(history)}" for curve, history in record.history.items())


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
            trivial = _by_seed(runs, metric, lambda record: record.trivial).values()
            rows.append(
                [
                    configuration.id,
                    as_text(metric),
                    *_seed_cells(metric, values, seeds),
                    _spread(metric, values),
                    number(metric, mean(trivial)) if trivial else NONE,
                ]
            )
    if not rows:
        return []
    headers = ["configuration", "metric", *_seed_headers(seeds), "mean ± std (n)", "trivial predictor"]
    return ["## Further metrics", table(headers, rows), "No gate depends on these."]


def _class_section(records: Sequence[Record]) -> list[str]:
    """Pooled Dice a class, mean over seeds."""
    runs = [record for record in records if record.status == "completed" and record.details.pooled_dice is not None]
    if not runs:
        return []
    names = list(dict.fromkeys(name for record in runs for name in record.details.class_names or ()))
    columns = list(dict.fromkeys(record.configuration for record in runs))
    rows = []
    for name in names:
        cells = []
        for column in columns:
            values = [_of_class(r, r.details.pooled_dice, name) for r in runs if r.configuration == column]
            found = [value for value in values if value is not None]
            cells.append(number("dice", mean(found)) if found else NONE)
        support = {_of_class(record, record.details.support_frames, name) for record in runs} - {None}
        rows.append([as_text(plain(name)), ", ".join(f"{value:.0f}" for value in support if value is not None), *cells])
    return [
        "## Dice of each class",
        table(["class", "frames that show it", *columns], rows),
        f"Over all pixels of the test split, mean over seeds. {NONE}: neither shown nor predicted.",
    ]


def _of_class(record: Record, values: Sequence[float | None] | None, name: str) -> float | None:
    """One class's entry of a list in the details."""
    listed = dict(zip(record.details.class_names or (), values or (), strict=False))
    value = listed.get(name)
    return None if value is None else float(value)


def _speed_section(
    configurations: Sequence[Configuration], seeds: Sequence[int], records: Sequence[Record]
) -> list[str]:
    """How fast quality came, and where the time went."""
    rows: list[Row] = []
    for configuration in configurations:
        runs = _completed(records, configuration)
        if not runs:
            continue
        first = {record.seed: record.timing.epochs_to_gate for record in runs}
        throughput, share = _average(runs, "samples_per_s"), _average(runs, "share_of_attainable")
        rows.append(
            [
                configuration.id,
                *_epochs_to_gate(first, seeds),
                duration(_average(runs, "seconds_to_gate")),
                duration(_average(runs, "total_s")),
                NONE if throughput is None else f"{throughput:.0f}",
                NONE if share is None else f"{share:.0%}",
                values_of(record.details.limited_by for record in runs),
                *(duration(_average(runs, part)) for part in TIME_PARTS),
            ]
        )
    if not rows:
        return []
    each = ["epochs to gate"] if _many(seeds) else [f"epochs to gate, {name}" for name in _seed_headers(seeds)]
    headers = ["configuration", *each]
    headers += ["time to gate", "total time", "training samples/s", "of attainable", "limited by", *TIME_PARTS.values()]
    return [
        "## Speed",
        table(headers, rows),
        "To gate: until validation first cleared the gates. Warm-up is the first step and evaluation of each training, "
        "in which kernels are chosen and memory is first taken; samples/s leave it out. Weights: finding or making the "
        "pre-trained ones. Means over seeds.",
        "Attainable is the rate at which the nearer of two limits of this very device, measured before the first run, "
        "would leave nothing unused: its matrix products or its memory. A share far below that of the same work on the "
        "same kind of device tells of a machine that is throttled, shared or wrongly set up.",
    ]


def _epochs_to_gate(first: Mapping[int, float | None], seeds: Sequence[int]) -> Row:
    if not _many(seeds):
        return [NONE if (value := first.get(seed)) is None else f"{value:.0f}" for seed in seeds]
    reached = [value for value in first.values() if value is not None]
    return [f"{_whole_range(reached)} (n={len(reached)})"]


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
            sentences.append(f"- {metric}: {signed(metric, mean(differences.values()))}{average}. {shown}")
    if not rows:
        return [
            "Not answered: that takes runs of seg-augmented and seg-pretrained with the same seed, profile and data."
        ]
    return _present(
        "seg-pretrained minus seg-augmented with the same seed; they differ in their start alone.",
        table(["metric", *_seed_headers(seeds), "mean", "95% interval"], rows),
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
    starts = dict.fromkeys(as_text(record.weights.split(" against ")[-1]) for record in found)
    weights = " / ".join(starts) or "pre-trained"
    names = ("vgg-scratch", f"vgg-frozen ({weights})")
    accuracy = "accuracy"
    rows = [
        [f"started from {name}", *_seed_cells(accuracy, values, seeds), _spread(accuracy, values)]
        for name, values in zip(names, (scratch, pretrained), strict=True)
    ]
    trivial = _by_seed(found, metrics[0], lambda record: record.trivial)
    rows.append(["trivial predictor", *_seed_cells(accuracy, trivial, seeds), _spread(accuracy, trivial)])
    return _present(
        table(["accuracy on the new task", *_seed_headers(seeds), "mean ± std (n)"], rows),
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
    each = ", ".join(f"seed {seed}: {signed('accuracy', value)}" for seed, value in mine.items())
    if _many(mine):
        each = f"{signed('accuracy', min(mine.values()))} to {signed('accuracy', max(mine.values()))}"
    start = "The better start is" if len(margins) == 1 else "The better start on average is"
    shown = _shown("accuracy", mine, "This is more than noise", "This is more than noise")
    return f"{start} **{winner}**, by {number('accuracy', abs(margin))} accuracy ({each}). {shown}"


def _trivial_sentence(trivial: BySeed) -> str:
    if not trivial:
        return ""
    return f" The trivial predictor reaches {number('accuracy', mean(trivial.values()))}."


def _shown(metric: str, differences: BySeed, above: str, below: str) -> str:
    """What differences seed by seed can and cannot show, as a sentence."""
    limits = paired_interval(list(differences.values()))
    if limits is None:
        return "One seed cannot show whether this is more than noise."
    low, high = limits
    text = f"the 95% interval is {signed(metric, low)} to {signed(metric, high)}"
    if low <= 0 <= high:
        return f"No difference that {len(differences)} seeds could show: {text}."
    return f"{above if low > 0 else below}: {text}."


def _difference_cells(metric: str, differences: BySeed, seeds: Sequence[int]) -> Row:
    limits = paired_interval(list(differences.values()))
    return [
        *([] if _many(seeds) else (signed(metric, differences[s]) if s in differences else NONE for s in seeds)),
        signed(metric, mean(differences.values())),
        f"{signed(metric, limits[0])} to {signed(metric, limits[1])}" if limits else NONE,
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


def _machine_section(records: Sequence[Record]) -> list[str]:
    """Clocks, heat and load at both ends of each run: what made a time long, if not the work."""
    if _many({record.seed for record in records}):
        return _machine_ranges(records)
    rows: list[Row] = []
    for record in records:
        machine = record.environment.machine
        start, end = machine.start, machine.end
        used = {key: getattr(machine, key) for key in _USED}
        cells = [f"{plain(key)} {text_of(value)}" for key, value in used.items() if value is not None]
        for key in dict.fromkeys([*start, *end]):
            both = [text_of(value) for state in (start, end) if (value := state.get(key)) is not None]
            if both:
                cells.append(f"{as_text(plain(key))} {' to '.join(dict.fromkeys(both))}")
        if cells:
            rows.append([f"{record.configuration} seed {record.seed}", "; ".join(cells)])
    return ["## The machine during each run", table(["run", "from start to end"], rows)] if rows else []


_USED = ("peak_memory_gib", "peak_device_memory_gib", "energy_j")


def _machine_ranges(records: Sequence[Record]) -> list[str]:
    """The same for many seeds: what was seen at either end of a configuration's runs, smallest to largest."""
    rows: list[Row] = []
    for name in dict.fromkeys(record.configuration for record in records):
        seen: dict[str, list[object]] = {}
        for record in records:
            machine = record.environment.machine if record.configuration == name else Machine()
            states = [{key: getattr(machine, key) for key in _USED}, machine.start, machine.end]
            for key, value in ((key, value) for state in states for key, value in state.items()):
                if value is not None:
                    seen.setdefault(key, []).append(value)
        if seen:
            rows.append([name, "; ".join(f"{plain(key)} {_seen_text(values)}" for key, values in seen.items())])
    return ["## The machine during the runs", table(["runs", "smallest to largest"], rows)] if rows else []


def _seen_text(values: Sequence[object]) -> str:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return values_of(values)
    return " to ".join(dict.fromkeys(map(text_of, (min(numbers), max(numbers)))))


def _environment_section(records: Sequence[Record]) -> list[str]:
    values = ((name, values_of(getattr(r.environment, name) for r in records)) for name in ENVIRONMENT)
    rows = [[as_text(name), text] for name, text in values if text != NONE]
    return ["## Environment", table(["what", "value"], rows)] if rows else []


# ------------------------------------------------------------------------------------------------------------- tools


def _completed(records: Sequence[Record], configuration: Configuration) -> list[Record]:
    return [entry for entry in records if entry.configuration == configuration.id and entry.status == "completed"]


def _by_seed(
    runs: Sequence[Record],
    metric: str,
    of: Callable[[Record], Mapping[str, float | None]] = lambda record: record.metrics,
) -> dict[int, float]:
    return {record.seed: value for record in runs if (value := of(record).get(metric)) is not None}


def _many(seeds: Sized) -> bool:
    """Whether there are so many seeds that a table tells of all together instead of each."""
    return len(seeds) > MANY_SEEDS


def _seed_cells(metric: str, values: BySeed, seeds: Sequence[int]) -> list[str]:
    """A cell a seed; none of many."""
    return [] if _many(seeds) else [number(metric, values[seed]) if seed in values else NONE for seed in seeds]


def _seed_headers(seeds: Sequence[int]) -> list[str]:
    """The headers of `_seed_cells`."""
    return [] if _many(seeds) else [f"seed {seed}" for seed in seeds]


def _average(runs: Sequence[Record], key: str) -> float | None:
    values = [value for record in runs if (value := getattr(record.timing, key)) is not None]
    return mean(values) if values else None
