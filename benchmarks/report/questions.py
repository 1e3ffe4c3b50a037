"""The assignment, question by question: hyperparameters, results, figures, and the answers to 1(d) and 2(c)."""

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
from benchmarks.results.gates import Finding, Judgement, Verdict, combined
from benchmarks.results.records import Record
from benchmarks.results.statistics import paired_interval
from benchmarks.suite import CONTROL, Configuration

# Required to name the better start in 2(c).
_REAL_WEIGHTS, _SEEDS_TO_ANSWER = "ImageNet", 3
_UNFILTERED = "course_dice_unfiltered"
_HOW_DICE_COUNTS = (
    "Course Dice is the assignment's own metric: a class that is absent from a frame scores 1 if it is not predicted "
    "either, else 0; mean over all classes, then over frames. One stray pixel costs a whole class, so predicted "
    "classes with fewer pixels than the limit for small classes are dropped; course Dice unfiltered is the score "
    "without this rule. Present Dice is the mean over the classes that are present in a frame. The assignment's own "
    "Dice values are lower than the Dice of predicting background everywhere."
)

BySeed = Mapping[int, float]


def question_sections(judgement: Judgement, figures: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A section for each question: hyperparameters, results beside answers without training, figures, the answer."""
    configurations, completed = judgement.asked.configurations, judgement.completed
    yield "## The assignment, question by question"
    if any(configuration.kind == "segmentation" for configuration in configurations):
        yield _HOW_DICE_COUNTS
    if any(configuration.kind in ("scratch", "frozen") for configuration in configurations):
        yield "Training accuracy is measured once, at the end, with the kept weights, without augmentation or dropout."
    for configuration in configurations:
        runs = completed[configuration.id]
        yield f"### {configuration.question} {configuration.title}"
        findings = judgement.of(configuration.id)
        if not runs:
            reason = next((entry.reason for entry in findings), "it has no gate")
            yield f"`{configuration.id}`: {combined(findings)}. {as_text(reason)}"
            continue
        yield f"`{configuration.id}`, {seeds_text([run.seed for run in runs])}: {combined(findings)}."
        yield table(["hyperparameter", "value"], hyperparameters(configuration, runs))
        if configuration.kind == "new-task":
            yield from _better_start(configuration, runs, judgement)
        else:
            yield _results(configuration, runs)
        yield from figures.get(configuration.id, ())
        if configuration.id == "seg-pretrained":
            yield "**Does colorization pre-training help?**"
            yield from _pretraining(judgement)


# --------------------------------------------------------------------------------------------------- hyperparameters


def hyperparameters(configuration: Configuration, runs: Sequence[Record]) -> list[tuple[str, str]]:
    """(name, value) of every hyperparameter, from the records of the configuration's runs."""
    run, kind = runs[0], configuration.kind
    work, own = run.settings.get("work") or {}, run.settings.get("settings") or {}
    size = "x".join(map(str, work.get("working_size", ())))
    averaged = f"the classes that occur in a {own.get('pool', NONE)}" if own.get("absent") == "ignore" else "classes"
    garments = kind in ("scratch", "frozen")
    trained = {
        "scratch": "all, with dropout of 0.5 before the last two",
        "frozen": "the last one only; the rest is frozen, without dropout",
        "new-task": "all, without dropout",
    }
    rows = {
        "network": "U-Net (Ronneberger et al., 2015), 32 to 256 channels, batch norm"
        if kind in ("segmentation", "colorization")
        else "VGG16 (Simonyan and Zisserman, 2015) with a new last layer",
        "starts from": values_of(run.weights or None for run in runs)
        + (": VGG16 trained here on drawn shapes, instead of ImageNet's weights" if run.weights == "stand-in" else ""),
        "trained layers": trained.get(kind, "all"),
        "optimizer": _OPTIMIZERS.get(str(work.get("optimizer")), NONE)
        + f", weight decay {work.get('weight_decay', 0):g}",
        "learning rate": f"one cosine cycle: up to {work.get('learning_rate', NONE)} over the first quarter of the "
        "steps, then down to 0",
        "batch": f"{work.get('batch_size', NONE)} samples, shuffled each epoch",
        "epochs": f"{work.get('epochs', NONE)}; the weights of the best epoch are kept, "
        f"by {_CHOSEN_BY.get(kind, NONE)} on validation",
        "loss": _LOSSES.get(kind, NONE).format(**{"smoothing": NONE, "pool": NONE, "classes": averaged} | own),
        "working size": size + ("" if garments or kind == "new-task" else "; scored at full size (256x320)"),
        "augmentation": augmentation_text(run.settings.get("augmentation")),
        "samples": ", ".join(f"{count} {name}" for name, count in (run.data.samples or {}).items()) or NONE,
    }
    if garments:
        rows["working size"] += ": 28x28 padded by 2" + ("" if size == "32x32" else ", enlarged")
    if work.get("training_samples"):
        rows["samples"] += f"; at most {work['training_samples']} of the training samples are used"
    if garments:
        rows["samples"] += "; a tenth of the training samples used (at most 5,000) is the validation split"
    if kind == "new-task":
        rows["task"] = (
            f"{own.get('cutouts', NONE)} crops of each frame, half its height and width; for each of "
            f"{'x'.join(map(str, own.get('grid', ())))} cells: do instruments cover more than a quarter of it?"
        )
        rows["last layer"] = "weights start at 0, biases at the frequencies of the cells in training"
    if kind == "segmentation":
        rows["last layer's bias"] = "initialised from the class frequencies in the training masks"
        rows["small classes"] = (
            f"predicted classes of fewer than {own.get('minimum_class_pixels', NONE)} pixels in a frame are dropped"
        )
    return [(name, as_text(value) if name != "starts from" else value) for name, value in rows.items()]


_OPTIMIZERS = {"adam": "AdamW", "sgd": "SGD with Nesterov momentum 0.9"}
_CHOSEN_BY = {
    "segmentation": "the mean of course and present Dice",
    "colorization": "MSE",
    **dict.fromkeys(("scratch", "frozen", "new-task"), "accuracy"),
}
_LOSSES = {
    "segmentation": "soft Dice on the softmax, mean over {classes}; smoothing {smoothing:g} in numerator and "
    "denominator; pixels pooled over each {pool}",
    "colorization": "mean squared error of the predicted difference between RGB and grey",
    "scratch": "cross-entropy",
    "frozen": "cross-entropy",
    "new-task": "binary cross-entropy per cell",
}


def augmentation_text(settings: Mapping[str, float] | None) -> str:
    """ "mirrored left to right in 50% of cases, ...", from arguments of `hw6core.data.augment.Augmentation`."""
    if not settings:
        return "none"
    phrases = {
        "horizontal_flip": "mirrored left to right in {:.0%} of cases",
        "rotation_degrees": "rotated by up to {:g} degrees",
        "scale": "scaled by up to {:.0%}",
        "shift": "shifted by up to {:.0%}",
        "brightness": "brightness changed by up to {:g}",
        "contrast": "contrast by up to {:.0%}",
    }
    found = [phrases.get(name, f"{words(name)} {{:g}}").format(value) for name, value in settings.items()]
    return f"{', '.join(found)}; the same for frame and mask" if len(found) > 1 else found[0]


# ----------------------------------------------------------------------------------------------------------- results


def _results(configuration: Configuration, runs: Sequence[Record]) -> str:
    """Scores, gates, answers without training and the assignment's own answer; one column per metric."""
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


def _pretraining(judgement: Judgement) -> Iterator[str]:
    seeds, completed = shown_seeds(judgement.asked.seeds), judgement.completed
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
        each = (signed(metric, differences[seed]) if seed in differences else NONE for seed in seeds)
        interval = interval_text(metric, limits)
        rows.append([words(metric), *each, signed(metric, middle), interval])
        shown = _shown(metric, list(differences.values()), "Pre-training helps", "Pre-training hurts")
        sentences.append(f"- {words(metric)}: {shown}")
    if not rows:
        yield "Not answered: requires runs of seg-augmented and seg-pretrained with the same seed, profile and data."
        return
    yield "seg-pretrained minus seg-augmented with the same seed; the two differ only in their initial weights."
    yield table(["metric", *(f"seed {seed}" for seed in seeds), "mean", "95% interval"], rows)
    yield "\n".join(sentences)
    yield "The interval is that of a paired t test over seeds." if len(pairs) > 1 else ""


def _shown(metric: str, differences: Sequence[float], positive: str, negative: str) -> str:
    """The mean of paired differences, and which of two sentences their 95% interval shows, if any."""
    middle, limits = signed(metric, mean(differences)), paired_interval(differences)
    interval = f"the 95% interval is {interval_text(metric, limits)}."
    if limits is None:
        return f"{middle}. One seed cannot show whether this is more than noise."
    if limits[0] <= 0 <= limits[1]:
        return f"{middle} on average. No significant difference with {len(differences)} seeds: {interval}"
    return f"{middle} on average. {positive if limits[0] > 0 else negative}: {interval}"


def _better_start(configuration: Configuration, runs: Sequence[Record], judgement: Judgement) -> Iterator[str]:
    """Both starts beside answers without training, and which start is better if the difference is significant."""
    seeds = judgement.asked.seeds
    scratch = scores_by_seed(runs, "accuracy_from_scratch")
    pretrained = scores_by_seed(runs, "accuracy_from_pretrained")
    margins = {seed: pretrained[seed] - scratch[seed] for seed in scratch if seed in pretrained}
    starts = dict.fromkeys(as_text(run.weights.split(" against ")[-1]) for run in runs)
    names = ("vgg-scratch", f"vgg-frozen ({' / '.join(starts) or 'pre-trained'})")
    metric, of_both = "accuracy", "accuracy_from_scratch"  # an answer without a start scores the same for both
    answers = {f"started from {names[0]}": scratch, f"started from {names[1]}": pretrained}
    without = {"the best constant answer": [run.trivial for run in runs]}
    without |= {name: [(run.floors or {}).get(name, {}) for run in runs] for name in configuration.floors}
    for name, scores in without.items():
        answers[name] = {run.seed: entry[of_both] for run, entry in zip(runs, scores, strict=True) if of_both in entry}
    rows = [[name, *number_cells(metric, values, seeds)] for name, values in answers.items()]
    yield table(["accuracy on the new task", *seed_headers(seeds)], rows)
    control = answers.get(CONTROL, {})
    gains = [[start[seed] - control[seed] for seed in start if seed in control] for start in (scratch, pretrained)]
    if all(gains):
        yield "Do the weights help? Accuracy minus that of an untrained start with the same seed:"
        lines = (_shown(metric, gain, "They help", "They hurt") for gain in gains)
        yield "\n".join(f"- {name}: {line}" for name, line in zip(names, lines, strict=True))
    margin, limits = mean(margins.values() or [0.0]), paired_interval(list(margins.values()))
    winner, sign, gain = (names[1], 1, gains[1]) if margin > 0 else (names[0], -1, gains[0])
    reasons = list(_not_answered(margins, list(starts), judgement.of(configuration.id)))
    over_control = paired_interval(gain)
    if not reasons and over_control and over_control[0] <= 0:
        reasons = [f"{winner} is the better start, but not shown to be better than an untrained one"]
    if reasons:
        yield f"Not answered: {'; '.join(reasons)}."
        return
    each = few([f"seed {seed}: {signed(metric, sign * value)}" for seed, value in margins.items()])
    yield (
        f"The better start is **{winner}**, by {number(metric, abs(margin))} accuracy on average ({each}): "
        f"pre-trained minus scratch, the 95% interval of a paired t test over seeds is {interval_text(metric, limits)}."
    )


def _not_answered(margins: BySeed, starts: Sequence[str], findings: Sequence[Finding]) -> Iterator[str]:
    """The reasons why the better start of 2(c) cannot be named."""
    if list(starts) != [_REAL_WEIGHTS]:
        yield f"the pre-trained weights are not {_REAL_WEIGHTS}'s ({' / '.join(starts) or 'unknown'})"
    if missed := {entry.seed for entry in findings if entry.verdict in (Verdict.FAILED, Verdict.ERROR)}:
        yield f"a start failed ({seeds_text(sorted(missed))})"
    if len(margins) < _SEEDS_TO_ANSWER:
        yield f"at least {_SEEDS_TO_ANSWER} seeds with scores for both starts are required, found {len(margins)}"
        return
    limits = paired_interval(list(margins.values()))
    if limits is None or limits[0] <= 0 <= limits[1]:
        yield (
            f"no significant difference with {len(margins)} seeds: the 95% interval of a paired t test is "
            f"{interval_text('accuracy', limits)}"
        )
