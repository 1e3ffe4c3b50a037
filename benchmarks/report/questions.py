"""The assignment, question by question: what was trained and how, what it reached, and the answers to 1(d) and 2(c)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean

from benchmarks.results.formatting import (
    NONE,
    as_text,
    few,
    gate_text,
    interval_text,
    mean_text,
    number,
    number_cells,
    seed_headers,
    seeds_text,
    shown_seeds,
    signed,
    spread_text,
    table,
    values_of,
    words,
)
from benchmarks.results.gates import Judgement, Verdict, combined
from benchmarks.results.records import Record
from benchmarks.results.statistics import paired_interval
from benchmarks.suite import SUITE, Configuration

# What it takes to name the better start.
_REAL_WEIGHTS, _SEEDS_TO_ANSWER = "ImageNet", 3
_UNFILTERED = "course_dice_unfiltered"
_HOW_DICE_COUNTS = (
    "Course Dice is the assignment's own: a class that a frame does not show scores 1 if it was not predicted either, "
    "else 0; mean over all classes, then over frames. One stray pixel costs a whole class, so predicted classes that "
    "cover fewer pixels of a frame than the rule for small classes says are dropped; what that gives is the difference "
    "to course Dice unfiltered. Present Dice is the mean over the classes that a frame shows. The assignment's own "
    "Dice values lie below that of an answer that sees nothing, background everywhere."
)

BySeed = Mapping[int, float]


def question_sections(
    configurations: Sequence[Configuration],
    seeds: Sequence[int],
    completed: Mapping[str, Sequence[Record]],
    judgement: Judgement,
    figures: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    """A section for each question: hyperparameters, results beside what nobody trained, its figures, its answer.

    Args:
        completed: the completed runs of each configuration.
        figures: of each configuration, as Markdown.
    """
    yield "## The assignment, question by question"
    if any(configuration.kind == "segmentation" for configuration in configurations):
        yield _HOW_DICE_COUNTS
    if any(configuration.kind in ("scratch", "frozen") for configuration in configurations):
        yield "Training accuracy is measured once, at the end, on the kept weights, without augmentation and dropout."
    for configuration in configurations:
        runs = completed[configuration.id]
        yield f"### {configuration.question} {configuration.title}"
        findings = [entry for entry in judgement.findings if entry.configuration == configuration.id]
        if not runs:
            reason = next((entry.reason for entry in findings), "it has no gate")
            yield f"`{configuration.id}`: {combined(findings)}. {as_text(reason)}"
            continue
        yield f"`{configuration.id}`, {seeds_text([run.seed for run in runs])}: {combined(findings)}."
        yield table(["hyperparameter", "value"], hyperparameters(runs))
        if configuration.kind == "new-task":
            yield from _better_start(seeds, runs, judgement)
        else:
            yield _results(configuration, runs)
        yield from figures.get(configuration.id, ())
        if configuration.id == "seg-pretrained":
            yield "**Does colorization pre-training help?**"
            yield from _pretraining(seeds, completed)


# --------------------------------------------------------------------------------------------------- hyperparameters


def hyperparameters(runs: Sequence[Record]) -> list[tuple[str, str]]:
    """(name, value) of everything that decides a training, from the records of one configuration's runs."""
    run = runs[0]
    settings = run.settings
    kind, work, own = settings.get("kind"), settings.get("work") or {}, settings.get("settings") or {}
    size = "x".join(map(str, work.get("working_size", ())))
    segmentation, garments = kind == "segmentation", kind in ("scratch", "frozen")
    rows = {
        "network": "U-Net (Ronneberger et al., 2015), 32 to 256 channels, batch norm"
        if kind in ("segmentation", "colorization")
        else "VGG16 (Simonyan and Zisserman, 2015) with a new last layer",
        "starts from": values_of(run.weights or None for run in runs)
        + (": VGG16 trained here on drawn shapes, in place of ImageNet's weights" if run.weights == "stand-in" else ""),
        "what learns": "the last layer alone; the rest is frozen, without dropout"
        if kind == "frozen"
        else "all layers" + (", with dropout of 0.5 before the last two" if kind == "scratch" else ""),
        "optimizer": _OPTIMIZERS.get(str(work.get("optimizer")), NONE)
        + f", weight decay {work.get('weight_decay', 0):g}",
        "learning rate": f"one cycle: up to {work.get('learning_rate', NONE)} over the first quarter of all steps, "
        "then down to 0, both by a cosine",
        "batch": f"{work.get('batch_size', NONE)} samples, in a new order each epoch",
        "epochs": f"{work.get('epochs', NONE)}; the weights of the best are kept, "
        f"by {_CHOSEN_BY.get(str(kind), NONE)} on validation",
        "loss": _LOSSES.get(str(kind), NONE).format(**{"smoothing": NONE, "pool": NONE} | own),
        "working size": size + ("" if garments or kind == "new-task" else "; scored at the frames' own (256x320)"),
        "augmentation": augmentation_text(settings.get("augmentation")),
        "samples": ", ".join(f"{count} {name}" for name, count in (run.data.samples or {}).items()) or NONE,
    }
    if garments:
        rows["working size"] += ": 28x28 with a border of 2" + ("" if size == "32x32" else ", enlarged")
    if work.get("training_samples"):
        rows["samples"] += f"; of those to train on at most {work['training_samples']} are used"
    if garments:
        rows["samples"] += "; a tenth of those to train on, 5,000 at most, is the validation split"
    if kind == "new-task":
        rows["task"] = (
            f"{own.get('cutouts', NONE)} parts of each frame, half as high and wide; for each of "
            f"{'x'.join(map(str, own.get('grid', ())))} cells, whether instruments cover more than a quarter of it"
        )
    if segmentation:
        rows["last layer's bias"] = "starts from how often each class is shown in the training masks"
        rows["small classes"] = (
            f"predicted ones of fewer than {own.get('minimum_class_pixels', NONE)} pixels are dropped"
        )
    return [(name, as_text(value) if name != "starts from" else value) for name, value in rows.items()]


_OPTIMIZERS = {"adam": "AdamW", "sgd": "SGD with Nesterov momentum 0.9"}
_CHOSEN_BY = {
    "segmentation": "the mean of course and present Dice",
    "colorization": "MSE",
    **dict.fromkeys(("scratch", "frozen", "new-task"), "accuracy"),
}
_LOSSES = {
    "segmentation": "soft Dice of the softmax, mean over classes; smoothing {smoothing:g} above and below; "
    "pixels pooled over each {pool}",
    "colorization": "mean squared error of the colour that the grey frame lacks",
    "scratch": "cross-entropy",
    "frozen": "cross-entropy",
    "new-task": "binary cross-entropy of each cell",
}


def augmentation_text(settings: Mapping[str, float] | None) -> str:
    """ "mirrored in 0.5 of cases, turned by up to 10 degrees"; the numbers of `hw6core.data.augment.Augmentation`."""
    if not settings:
        return "none"
    sentences = {
        "horizontal_flip": "mirrored left to right in {:.0%} of cases",
        "vertical_flip": "mirrored top to bottom in {:.0%} of cases",
        "rotation_degrees": "turned by up to {:g} degrees",
        "scale": "scaled by up to {:.0%}",
        "shift": "shifted by up to {:.0%}",
        "brightness": "brightness changed by up to {:g}",
        "contrast": "contrast by up to {:.0%}",
    }
    said = [sentences.get(name, f"{words(name)} {{:g}}").format(value) for name, value in settings.items()]
    return f"{', '.join(said)}; the same for frame and mask" if len(said) > 1 else said[0]


# ----------------------------------------------------------------------------------------------------------- results


def _results(configuration: Configuration, runs: Sequence[Record]) -> str:
    """What was reached beside its gate, what nobody trained, and the assignment's own answer; a column a metric."""
    gates = {gate.metric: gate for gate in configuration.gates}
    further = [name for name in (_UNFILTERED, "training_accuracy") if any(name in run.metrics for run in runs)]
    metrics, trivial = [*gates, *further], [run.trivial for run in runs]
    rows = [
        ["**reached**", *(spread_text(metric, scores_by_seed(runs, metric).values()) for metric in metrics)],
        ["gate", *(gate_text(gates[metric], trivial) if metric in gates else NONE for metric in metrics)],
    ]
    answers: dict[str, Sequence[Mapping[str, float]]] = {
        name: [(run.floors or {}).get(name, {}) for run in runs] for name in configuration.floors
    }
    answers["the best constant answer"] = trivial
    if worked := configuration.worked_answer:
        answers["the assignment's own answer"] = [worked]
    for name, scores in answers.items():
        known = ([entry[metric] for entry in scores if metric in entry] for metric in metrics)
        rows.append([name, *map(mean_text, metrics, known)])
    return table(["", *map(words, metrics)], rows)


def scores_by_seed(runs: Sequence[Record], metric: str) -> BySeed:
    return {run.seed: value for run in runs if (value := run.metrics.get(metric)) is not None}


# ----------------------------------------------------------------------------------------------------------- answers


def _pretraining(seeds: Sequence[int], completed: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    before = {run.seed: run for run in completed.get("seg-augmented", ())}
    pairs = [
        (run, before[run.seed])
        for run in completed["seg-pretrained"]
        if run.seed in before and (run.profile, run.data.kind) == (before[run.seed].profile, before[run.seed].data.kind)
    ]
    rows, sentences = [], []
    for metric in ("course_dice", "present_dice"):
        differences = {
            run.seed: first - second
            for run, start in pairs
            if (first := run.metrics.get(metric)) is not None and (second := start.metrics.get(metric)) is not None
        }
        if not differences:
            continue
        middle, limits = mean(differences.values()), paired_interval(list(differences.values()))
        each = (signed(metric, differences[seed]) if seed in differences else NONE for seed in shown_seeds(seeds))
        interval = interval_text(metric, limits)
        rows.append([words(metric), *each, signed(metric, middle), interval])
        average = " on average" if len(differences) > 1 else ""
        if limits is None:
            shown = "One seed cannot show whether this is more than noise."
        elif limits[0] <= 0 <= limits[1]:
            shown = f"No difference that {len(differences)} seeds could show: the 95% interval is {interval}."
        else:
            shown = f"Pre-training {'helps' if limits[0] > 0 else 'hurts'}: the 95% interval is {interval}."
        sentences.append(f"- {words(metric)}: {signed(metric, middle)}{average}. {shown}")
    if not rows:
        yield "Not answered: that takes runs of seg-augmented and seg-pretrained with the same seed, profile and data."
        return
    yield "seg-pretrained minus seg-augmented with the same seed; they differ in their start alone."
    yield table(["metric", *(f"seed {seed}" for seed in shown_seeds(seeds)), "mean", "95% interval"], rows)
    yield "\n".join(sentences)
    yield "The interval is that of a paired t test over seeds." if len(pairs) > 1 else ""


def _better_start(seeds: Sequence[int], runs: Sequence[Record], judgement: Judgement) -> Iterator[str]:
    """Both starts beside what nobody trained; the better one is named where that is more than noise."""
    scratch = scores_by_seed(runs, "accuracy_from_scratch")
    pretrained = scores_by_seed(runs, "accuracy_from_pretrained")
    margins = {seed: pretrained[seed] - scratch[seed] for seed in scratch if seed in pretrained}
    if not margins:
        yield "Not answered: that takes a run of vgg-new-task that scored both starts."
        return
    starts = dict.fromkeys(as_text(run.weights.split(" against ")[-1]) for run in runs)
    names = ("vgg-scratch", f"vgg-frozen ({' / '.join(starts) or 'pre-trained'})")
    metric = "accuracy"
    rows = [
        [f"started from {name}", *number_cells(metric, values, seeds)]
        for name, values in zip(names, (scratch, pretrained), strict=True)
    ]
    trivial = {run.seed: found for run in runs if (found := run.trivial.get("accuracy_from_scratch")) is not None}
    rows.append(["the best constant answer", *number_cells(metric, trivial, seeds)])
    for name in SUITE["vgg-new-task"].floors:
        floors = {run.seed: (run.floors or {}).get(name, {}).get("accuracy_from_scratch") for run in runs}
        known = {seed: value for seed, value in floors.items() if value is not None}
        rows.append([name, *number_cells(metric, known, seeds)])
    yield table(["accuracy on the new task", *seed_headers(seeds)], rows)
    if reasons := list(_not_answered(margins, list(starts), judgement)):
        yield f"Not answered: {'; '.join(reasons)}."
        return
    margin, limits = mean(margins.values()), paired_interval(list(margins.values()))
    winner, sign = (names[1], 1) if margin > 0 else (names[0], -1)
    each = few([f"seed {seed}: {signed(metric, sign * value)}" for seed, value in margins.items()])
    yield (
        f"The better start is **{winner}**, by {number(metric, abs(margin))} accuracy on average ({each}): "
        f"pre-trained minus scratch, the 95% interval of a paired t test over seeds is {interval_text(metric, limits)}."
    )


def _not_answered(margins: BySeed, starts: Sequence[str], judgement: Judgement) -> Iterator[str]:
    """Why the better start of 2(c) is not named, if it is not."""
    if list(starts) != [_REAL_WEIGHTS]:
        yield f"the pre-trained weights are not {_REAL_WEIGHTS}'s ({' / '.join(starts) or 'unknown'})"
    missed = [
        finding.seed
        for finding in judgement.findings
        if finding.configuration == "vgg-new-task" and finding.verdict in (Verdict.FAILED, Verdict.ERROR)
    ]
    if missed:
        yield f"a start did not pass its gate and its floor ({seeds_text(list(dict.fromkeys(missed)))})"
    if len(margins) < _SEEDS_TO_ANSWER:
        yield f"that takes at least {_SEEDS_TO_ANSWER} seeds that scored both starts, not {len(margins)}"
        return
    limits = paired_interval(list(margins.values()))
    if limits is None or limits[0] <= 0 <= limits[1]:
        yield (
            f"no difference that {len(margins)} seeds could show, as the 95% interval of a paired t test is "
            f"{interval_text('accuracy', limits)}"
        )
