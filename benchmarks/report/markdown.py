"""The report: from a folder of records to RESULTS.md, report.html, the figures and the machine-readable files.

Needs neither a GPU nor data nor torch: a laptop can render a report from records that were made elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from benchmarks.errors import ExitCode
from benchmarks.fingerprint.record import findings_line
from benchmarks.report.exports import junit, openmetrics, pytest_benchmark
from benchmarks.report.html import heading_id, page
from benchmarks.report.questions import question_sections, scores_by_seed
from benchmarks.results.formatting import (
    MANY_SEEDS,
    NO_LEAD,
    NONE,
    as_text,
    duration,
    few,
    gate_text,
    lead_text,
    mean_text,
    number,
    number_cells,
    one_line,
    range_text,
    seed_headers,
    seeds_text,
    shown_seeds,
    spread_text,
    table,
    text_of,
    values_of,
    words,
)
from benchmarks.results.gates import Asked, Judgement, Verdict, combined, judge
from benchmarks.results.hardware import COUNTERS, counted, throttled
from benchmarks.results.records import (
    ENVIRONMENT,
    TIME_PARTS,
    Record,
    mean_time,
    read_record,
    read_records,
    record_path,
    write_atomically,
)
from benchmarks.results.references import Reference, read_references, standing_text, verdict_on
from benchmarks.results.statistics import ERROR
from benchmarks.suite import SEEDS, STAND_IN, STAND_IN_SEED, SUITE
from hw6core.errors import DataError

if TYPE_CHECKING:
    from benchmarks.report.figures import Figure
    from benchmarks.runs.plan import Plan

_SHOWN_FILES = 3


@dataclass(frozen=True)
class Report:
    """A report that was written; ``text`` is RESULTS.md without the figures."""

    path: Path
    text: str
    judgement: Judgement


def report_on(plan: Plan) -> Report:
    """`write_report` for a plan, with the repository's references."""
    return write_report(plan.results, plan.asked, read_references())


def write_report(results: Path, asked: Asked, references: Sequence[Reference] = ()) -> Report:
    """Judge the records in ``results`` and write RESULTS.md, report.html, figures/ and the exports there.

    Records of other configurations or seeds are ignored; see `benchmarks.results.gates.judge`.

    Raises:
        DataError: there are no records, or one of them cannot be read.
        OSError: the folder cannot be written.
    """
    judgement = judge(read_records(results), asked, references)
    images: dict[str, list[str]] = {}
    for figure in write_figures(results, judgement):
        image = f"![{figure.shows}](figures/{figure.name})\n\n*{figure.caption}*"
        images.setdefault(figure.of, []).append(image)
    gates, seed_by_seed = _gate_sections(judgement)
    sections = [
        *_about_section(judgement),
        *images.get("gates", ()),
        *_reference_section(judgement),
        *_speed_section(results, judgement),
        *images.get("speed", ()),
        *question_sections(judgement, images),
        *_class_section(judgement.completed),
        *images.get("segmentation", ()),
        *seed_by_seed,
        *_metrics_section(judgement),
        *_machine_section(judgement.records),
        *_environment_section(judgement.records),
        findings_line(results),
    ]
    titles = [section.removeprefix("## ") for section in sections if section.startswith("## ")]
    contents = " · ".join(f"[{title}](#{heading_id(title)})" for title in titles)
    parts = [part for part in (*_head(judgement), *gates, contents, *sections) if part]
    path, whole = results / "RESULTS.md", "\n\n".join(parts) + "\n"
    write_atomically(path, whole)
    write_atomically(results / "report.html", page(whole, results))
    write_atomically(results / "junit.xml", junit(judgement))
    write_atomically(results / "metrics.txt", openmetrics(judgement))
    write_atomically(results / "benchmark.json", json.dumps(pytest_benchmark(judgement.records), indent=1) + "\n")
    without_images = "\n\n".join(part for part in parts if not part.startswith("![")) + "\n"
    return Report(path, without_images, judgement)


def write_figures(results: Path, judgement: Judgement) -> list[Figure]:
    """`benchmarks.report.figures.write_figures`, imported late: commands that only judge need no matplotlib."""
    backend = os.environ.pop("MPLBACKEND", None)  # a notebook sets one that may make the import of matplotlib fail
    try:
        from benchmarks.report.figures import write_figures as draw
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return draw(results, judgement)


# ----------------------------------------------------------------------------------------------------------- verdict


def summary(judgement: Judgement) -> str:
    """The verdict as plain text: one line, then one line for each problem and why it is not an acceptance result."""
    word, count = _verdict_and_count(judgement)
    lines = [f"{word}: {count}", *(f"- {text}" for text in _remarks(judgement))]
    if reservation := _reservation(judgement):
        lines.append(reservation.replace("`", ""))
    return "\n".join(lines)


def _head(judgement: Judgement) -> Iterator[str]:
    yield f"# {_title(judgement.records)}"
    word, count = _verdict_and_count(judgement)
    yield f"**{word}**: {count}"
    yield "\n".join(f"- {as_text(text)}" for text in _remarks(judgement))
    yield from _warnings(judgement.records)
    if not judgement.records:
        yield "There is no record of any of the selected runs."


def _about_section(judgement: Judgement) -> Iterator[str]:
    """Profile, data, device and weights, and why the results are not an acceptance result."""
    records = judgement.records
    if not records:
        return
    yield "## What was measured"
    if reservation := _reservation(judgement):
        yield f"> **{reservation.replace(':', ':**', 1)}"
    started: dict[str, dict[str, None]] = {}
    for record in records:
        if record.status == "completed" and record.weights:
            started.setdefault(as_text(record.weights), {})[record.configuration] = None
    weights = [name if name == "random" else f"{name} ({', '.join(of)})" for name, of in started.items()]
    yield " · ".join(
        [
            f"Profile **{values_of(record.profile for record in records)}**",
            f"{values_of(record.data.kind for record in records)} data",
            f"device {values_of(record.environment.device_name for record in records)}",
            f"precision {values_of(record.environment.precision for record in records)}",
            f"mode {values_of(record.environment.mode for record in records)}",
            seeds_text(sorted(judgement.asked.seeds)),
            f"weights {', '.join(weights) or NONE}",
        ]
    )


def _title(records: Sequence[Record]) -> str:
    """Date, commit and device."""
    days = sorted({started[:10] for record in records if (started := record.environment.machine.started_at)})
    commits = values_of(record.environment.git_commit and record.environment.git_commit[:10] for record in records)
    parts = [" to ".join(dict.fromkeys(map(as_text, (days[0], days[-1]))))] if days else []
    parts += [f"commit {commits}"] if commits != NONE else []
    parts.append(values_of(record.environment.device_name for record in records))
    return f"Does it still train? {', '.join(part for part in parts if part != NONE)}".rstrip()


def _verdict_and_count(judgement: Judgement) -> tuple[str, str]:
    """The verdict in capitals, and how many of the configurations passed."""
    verdicts = [combined(judgement.of(configuration.id)) for configuration in judgement.asked.configurations]
    count = f"{verdicts.count(Verdict.PASSED)} of {len(verdicts)} configurations reached every gate."
    if missing := verdicts.count(Verdict.NOT_RUN):
        count += f" {missing} {'was' if missing == 1 else 'were'} not run."
    differing = {row.configuration for row in judgement.reference_failures}
    differing |= {deviation.configuration for deviation in judgement.curve_failures}
    if differing:
        count += f" {len(differing)} differ{'s' if len(differing) == 1 else ''} from the reference."
    if judgement.accepted:
        if not _reservation(judgement):
            return "PASSED", count
        profile = values_of(run.profile for run in judgement.records)
        kind = values_of(run.data.kind for run in judgement.records)
        return f"PASSED, {profile} profile on {kind} data: not an acceptance result", count
    return "CANNOT TELL" if judgement.exit_code == ExitCode.CANNOT_TELL else "FAILED", count


def _remarks(judgement: Judgement) -> list[str]:
    """One line for each problem; seeds and gates with the same reason share a line.

    Of a configuration with many reasons only the first ones are listed; the others are counted.
    """
    lines = []
    for name in (configuration.id for configuration in judgement.asked.configurations):
        reasons: dict[str, dict[int, None]] = {}
        for finding in judgement.of(name):
            if finding.verdict is not Verdict.PASSED:
                allowed = "" if judgement.objects_to(finding) else ", as allowed"
                reasons.setdefault(f"{finding.verdict}{allowed}: {finding.reason}", {})[finding.seed] = None
        listed = [(text, list(seeds)) for text, seeds in reasons.items()]
        lines += [f"{name}, {seeds_text(seeds)}: {one_line(text)}" for text, seeds in listed[:MANY_SEEDS]]
        if others := listed[MANY_SEEDS:]:
            rest = list(dict.fromkeys(seed for _, seeds in others for seed in seeds))
            lines.append(f"{name}, {seeds_text(rest)}: {len(others)} more reasons; see junit.xml")
    lines += [f"{entry.configuration}: {standing_text(entry)}" for entry in judgement.reference_failures]
    for deviation in judgement.deviations:
        but = "" if deviation in judgement.curve_failures else "; its scores are no worse"
        lines.append(f"{deviation.configuration}: learning curves differ from the reference's: {deviation}{but}")
    if judgement.unclear:
        lines.append(_seeds_needed(judgement))
    left_out: dict[str, list[str]] = {}
    for name, reason in judgement.left_out.items():
        left_out.setdefault(reason, []).append(name)
    lines += [f"not compared with a reference: {few(names)}: {reason}" for reason, names in left_out.items()]
    return lines


def _seeds_needed(judgement: Judgement) -> str:
    """The metrics that these runs cannot judge, and how many more seeds would be enough."""
    unclear = judgement.unclear
    needed = [entry.evidence.more_seeds(ERROR, on_both_sides=False) for entry in unclear]
    names = few([f"{entry.configuration} {words(entry.name)}" for entry in unclear])
    enough = [count for count in needed if count is not None]
    if len(enough) == len(needed):
        more = f"{max(enough)} more seed{'s' if max(enough) > 1 else ''} would show it, each in 80% of cases"
    else:
        more = "100 more seeds would not show it for all of them: the reference needs more seeds as well"
    return (
        f"cannot tell for {len(unclear)} of {len(judgement.standings)} results whether they are worse than the "
        f"reference ({names}); if nothing changed, {more}"
    )


def _reservation(judgement: Judgement) -> str:
    """Why this is not an acceptance result; empty if it is one."""
    asked, records, reasons = judgement.asked, judgement.records, []
    if len(asked.configurations) < len(SUITE):
        reasons.append(f"only {len(asked.configurations)} of {len(SUITE)} configurations were selected")
    not_run = {finding.configuration for finding in judgement.findings if finding.verdict is Verdict.NOT_RUN}
    if not_run and judgement.accepted:
        reasons.append(f"{few(sorted(not_run))} {'was' if len(not_run) == 1 else 'were'} not run")
    if any(record.profile == "full" for record in records) and not set(SEEDS["full"]) <= set(asked.seeds):
        reasons.append(f"acceptance requires {seeds_text(SEEDS['full'])}")
    real = [record.data.unpublished for record in records if record.data.kind == "real"]
    if not all(real):
        reasons.append("the records do not say whether the data is as published")
    # A set, because several configurations read the same files.
    found = {tuple(unpublished.first): unpublished.count for unpublished in real if unpublished}
    if count := sum(found.values()):
        names = [f"`{one_line(name).replace('`', '')}`" for first in found for name in first][:_SHOWN_FILES]
        more = f" and {count - len(names)} more" if count > len(names) else ""
        reasons.append(
            f"{count} data file{' differs' if count == 1 else 's differ'} from the published data "
            f"({', '.join(names)}{more}; list all: `python -m benchmarks data verify`)"
        )
    if any(record.weights.startswith("file ") or " file " in record.weights for record in records):
        reasons.append("the pre-trained weights are not torchvision's")
    if sizes := sorted({size for record in records if (size := _other_working_size(record))}):
        reasons.append(f"the working size {' / '.join(sizes)} is not the suite's")
    if any(record.profile == "quick" for record in records):
        reasons.append("the quick profile trains less than the full one")
    if any(record.data.kind == "synthetic" for record in records):
        reasons.append("the data is synthetic")
    if any("stand-in" in record.weights for record in records):
        reasons.append("stand-in weights replace ImageNet's")
    if not reasons:
        return ""
    *rest, last = reasons
    text = f"{', '.join(rest)} and {last}" if rest else last
    return (
        f"This is not an acceptance result: {text}. "
        "To get one, run `make benchmark PROFILE=full` with the real data on a machine with a GPU."
    )


def _other_working_size(record: Record) -> str:
    """The working size of a run if it differs from the suite's ("256x320"), else ""."""
    configuration, size = SUITE.get(record.configuration), (record.settings.get("work") or {}).get("working_size")
    if configuration is None or size is None:
        return ""
    same = tuple(size) == configuration.work_on(record.profile, str(record.data.kind)).working_size
    return "" if same else "x".join(map(str, size))


def _warnings(records: Sequence[Record]) -> Iterator[str]:
    """Warnings: records that differ in profile, data or device, and runs that did not go as planned."""
    texts = []
    for what in ("profile", "data", "device"):
        names: dict[str, list[str]] = {}
        for record in records:
            values = {"profile": record.profile, "data": record.data.kind, "device": record.environment.device_name}
            if value := values[what]:
                names.setdefault(as_text(value), []).append(_run_name(record))
        if len(names) > 1:
            # The rarest first: it is most likely the one that does not belong there.
            rarest = sorted(names.items(), key=lambda entry: len(entry[1]))
            texts.append(f"{what} is {', '.join(f'{value} in {few(runs)}' for value, runs in rarest)}")
    if texts:
        yield f"**The records differ:** {'; '.join(texts)}. Do not compare across them."
    if unsafe := {name for record in records for name in record.details.nondeterministic_operations or ()}:
        yield f"**Nondeterministic operations:** {', '.join(map(as_text, sorted(unsafe)))}."
    texts = []
    if runs := [_run_name(record) for record in records if record.details.gradient_accumulation]:
        texts.append(f"**Out of memory:** {few(runs)} split each batch, which changes batch norm and the loss.")
    if runs := [_run_name(record) for record in records if record.details.not_recorded]:
        texts.append(f"**No CUDA graphs:** {few(runs)} launched each kernel separately.")
    kinds = {"ROCm" if str(run.cuda).startswith("ROCm") else run.device for run in (r.environment for r in records)}
    if untested := sorted(kind for kind in kinds if kind not in (None, "cpu", "cuda")):
        texts.append(
            f"**This suite is untested on {' or '.join(map(as_text, untested))}:** a failure may be the suite's fault, "
            "and the device's clocks, temperature and energy are not recorded."
        )
    if runs := [_run_name(record) for record in records if record.timing.interruptions]:
        texts.append(f"**Interrupted:** {few(runs)} resumed in another process; total times are those of the last one.")
    if slow := [f"{_run_name(record)} ({how})" for record in records if (how := throttled(record))]:
        texts.append(f"**Throttled:** {few(slow)}: do not compare times with these.")
    yield " ".join(texts)


def _run_name(record: Record) -> str:
    return f"{record.configuration} seed {record.seed}"


# ------------------------------------------------------------------------------------------------------------ tables


def _gate_sections(judgement: Judgement) -> tuple[list[str], list[str]]:
    """The table of gates, and the same scores seed by seed with epochs and times."""
    seeds, completed = judgement.asked.seeds, judgement.completed
    rows, by_seed = [], []
    for configuration, gate in ((entry, gate) for entry in judgement.asked.configurations for gate in entry.gates):
        runs, metric = completed[configuration.id], gate.metric
        findings = judgement.of(configuration.id, gate)
        judged = [entry for entry in findings if entry.verdict in (Verdict.PASSED, Verdict.FAILED)]
        values = {entry.seed: entry.value for entry in judged if entry.value is not None}
        trivial = [entry.trivial for entry in judged if entry.trivial is not None]
        floors = [entry.floor for entry in judged if entry.floor is not None]
        floor_names = dict.fromkeys(entry.floor_name for entry in judged)
        missed = [entry.seed for entry in judged if entry.verdict is Verdict.FAILED]
        weights = dict.fromkeys(as_text(run.weights) for run in runs if run.weights not in ("", "random"))
        sign = 1 if gate.direction == "above" else -1
        name = f"{configuration.id}, {words(metric)}"
        rows.append(
            [
                combined(findings),
                f"{name} ({' / '.join(weights)})" if weights else name,
                spread_text(metric, values.values()),
                gate_text(gate, [run.trivial for run in runs]),
                f"{number(metric, mean(floors))} ({' / '.join(floor_names)})" if floors else NONE,
                mean_text(metric, trivial),
                lead_text(metric, sign * (mean(values.values()) - mean(floors)), "floor") if floors else NONE,
                lead_text(metric, sign * (mean(values.values()) - mean(trivial)), "constant") if values else NONE,
            ]
        )
        by_seed.append(
            [
                name,
                *number_cells(metric, values, seeds, missed),
                *([range_text(metric, list(values.values()))] if len(seeds) > 1 else []),
                few(list(map(_epochs, runs))) or NONE,
                duration(mean_time(runs, "training_s")),
            ]
        )
    headers = ["verdict", "configuration", "reached", "gate", "floor", "constant"]
    headers += ["lead over the floor", "lead over the constant"]
    gates = [
        "## Gates",
        table(headers, rows),
        "Reached: mean over seeds ± sample standard deviation (n seeds). Floor: the best score without training for "
        "the task, such as a look-up in the training set; the control of 2(c) is not one, see there. "
        "Constant: the best constant answer, which is all background, the majority class, or the grey image with the "
        "best constant colour cast. A positive lead is better, for errors too; one that is not positive is "
        f'marked "{NO_LEAD}".',
    ]
    headers = ["configuration", *seed_headers(seeds), *(["smallest to largest"] if len(seeds) > 1 else [])]
    one_by_one = [
        "## Seed by seed",
        table([*headers, "epochs (best/trained)", "training time"], by_seed),
        f"{'Values in bold failed. ' if shown_seeds(seeds) else ''}"
        "Training time is the mean over seeds, without evaluation.",
    ]
    return gates, one_by_one


def _reference_section(judgement: Judgement) -> Iterator[str]:
    rows = judgement.standings
    if not rows:  # `_remarks` says why
        return
    yield "## Against the reference"
    cells = []
    for row in rows:
        *first, _, visible = row.cells(ERROR / len(rows))
        cells.append([verdict_on(row), *first, visible])
    headers = ["verdict", "configuration", "metric", "reference", "here", "difference", "margin", "visible drop"]
    yield table(headers, cells)
    yield (
        "No worse: a drop (of errors: a rise) as large as the margin is ruled out. Worse: it dropped. Both by "
        f"one-sided t tests at {ERROR:.0%}; worse and better than possible with Holm's correction over this table, "
        "worse also by a permutation test if there are enough runs. Visible drop: what this number of runs detects in "
        "80% of cases. See docs/judging.md."
    )
    if judgement.curves_left_out:
        yield f"Learning curves were not compared: {judgement.curves_left_out}."
    elif differing := [entry.configuration for entry in judgement.deviations]:
        yield f"Learning curves differ from the reference's in {few(differing)}."
    else:
        yield "No difference from the reference's learning curves was found."


def _epochs(run: Record) -> str:
    """The best epoch of those trained, for each curve of the run."""
    best = run.details.best_epochs or {}
    return " and ".join(f"{best.get(curve, NONE)}/{len(history)}" for curve, history in run.history.items())


def _metrics_section(judgement: Judgement) -> Iterator[str]:
    seeds, rows = judgement.asked.seeds, []
    for name, runs in judgement.completed.items():
        gated = {gate.metric for gate in SUITE[name].gates}
        for metric in dict.fromkeys(metric for run in runs for metric in run.metrics if metric not in gated):
            trivial = [run.trivial[metric] for run in runs if metric in run.trivial]
            cells = number_cells(metric, scores_by_seed(runs, metric), seeds)
            rows.append([name, as_text(words(metric)), *cells, mean_text(metric, trivial)])
    if rows:
        yield "## Further metrics"
        yield table(["configuration", "metric", *seed_headers(seeds), "constant"], rows)
        yield "No gate depends on these."


def _class_section(completed: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    """Pooled Dice per class, mean over seeds."""
    details = {name: [run.details for run in runs if run.details.pooled_dice] for name, runs in completed.items()}
    columns = {name: found for name, found in details.items() if found}
    if not columns:
        return
    every = [each for found in columns.values() for each in found]
    rows = []
    for place, label in enumerate(every[0].class_names or ()):
        support = dict.fromkeys(str(each.support_frames[place]) for each in every if each.support_frames)
        dice = ([(each.pooled_dice or ())[place] for each in found] for found in columns.values())
        means = (mean_text("dice", [value for value in values if value is not None]) for values in dice)
        rows.append([as_text(label.replace("_", " ")), ", ".join(support), *means])
    yield "## Dice of each class"
    yield table(["class", "test frames with it", *columns], rows)
    yield f"Dice over all pixels of the test split, mean over seeds. {NONE}: neither present nor predicted."


def _speed_section(results: Path, judgement: Judgement) -> Iterator[str]:
    """Epochs and time until the gates were passed, throughput, and the parts of a run's time."""
    seeds, completed = judgement.asked.seeds, {name: runs for name, runs in judgement.completed.items() if runs}
    rows = []
    for name, runs in completed.items():
        first = {run.seed: run.timing.epochs_to_gate for run in runs}
        throughput, share = mean_time(runs, "samples_per_s"), mean_time(runs, "share_of_attainable")
        rows.append(
            [
                name,
                *(NONE if (value := first.get(seed)) is None else f"{value:.0f}" for seed in shown_seeds(seeds)),
                duration(mean_time(runs, "seconds_to_gate")),
                duration(mean_time(runs, "total_s")),
                NONE if throughput is None else f"{throughput:.0f}",
                NONE if share is None else f"{share:.0%}",
                values_of(run.details.limited_by for run in runs),
                *(duration(mean_time(runs, part)) for part in TIME_PARTS),
            ]
        )
    if not rows:
        return
    headers = ["configuration", *(f"epochs to gate, seed {seed}" for seed in shown_seeds(seeds))]
    headers += ["time to gate", "total time", "training samples/s", "of attainable", "limited by", *TIME_PARTS.values()]
    yield "## Speed"
    yield table(headers, rows)
    yield (
        "Means over seeds. To gate: until the validation scores first passed the gates. Warm-up: the first step and "
        "evaluation of each training, in which kernels are selected and memory is allocated; samples/s excludes it."
    )
    if any("runs at once" in str(run.environment.mode) for runs in completed.values() for run in runs):
        yield "Several runs shared the machine, so their times depend on each other."
    if any("stand-in" in run.weights for runs in completed.values() for run in runs):
        with suppress(DataError):  # merged shards do not contain its record
            took_s = read_record(record_path(results, STAND_IN.id, STAND_IN_SEED)).timing.total_s
            yield f"The stand-in for ImageNet weights was trained in {duration(took_s)}, once for all seeds."
    yield (
        "Of attainable: the share of the highest rate that this device allows, limited by its arithmetic (matrix "
        "products) or its memory bandwidth, both measured before the first run. A share far below that of the same "
        "work on the same kind of device means that the machine is throttled, shared or misconfigured."
    )


def _machine_section(records: Sequence[Record]) -> Iterator[str]:
    """Clocks, temperature and load at both ends of the runs, peaks, and hardware counters."""
    seen: dict[str, dict[str, list[float | str]]] = {}
    for record in records:
        machine = record.environment.machine
        peaks = {key: getattr(machine, key) for key in ("peak_memory_gib", "peak_device_memory_gib", "energy_j")}
        peaks |= counted(machine.hardware)
        for key, value in (*peaks.items(), *machine.start.items(), *machine.end.items()):
            if value is not None:
                seen.setdefault(record.configuration, {}).setdefault(key, []).append(value)
    rows = []
    for name, states in seen.items():
        texts = []
        for key, values in states.items():
            numbers = [value for value in values if not isinstance(value, str)]
            if len(numbers) == len(values):
                text = " to ".join(dict.fromkeys(map(text_of, (min(numbers), max(numbers)))))
            else:
                text = values_of(values)
            texts.append(f"{as_text(words(key))}: {text}")
        rows.append([name, "; ".join(texts)])
    if rows:
        yield "## The machine during the runs"
        yield table(["runs", "smallest to largest"], rows)
    watched = [(_run_name(run), hardware) for run in records if (hardware := run.environment.machine.hardware)]
    if watched:
        found = [run for run, hardware in watched if any("throttled" not in name for name in counted(hardware))]
        missing = dict.fromkeys(words(counter) for _, hardware in watched for counter in hardware.not_told)
        if all(set(COUNTERS) <= set(hardware.not_told) for _, hardware in watched):
            yield "Hardware counters: not available on this device."
        else:
            more = f"; not available on this device: {', '.join(map(as_text, missing))}" if missing else ""
            yield f"{f'Hardware errors in {few(found)}' if found else 'No hardware errors'}{more}."


def _environment_section(records: Sequence[Record]) -> Iterator[str]:
    values = ((name, values_of(getattr(record.environment, name) for record in records)) for name in ENVIRONMENT)
    rows = [[as_text(words(name)), text] for name, text in values if text != NONE]
    if rows:
        yield "## Environment"
        yield table(["what", "value"], rows)
