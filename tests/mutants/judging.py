"""Errors in what judges: scores, records, gates, comparisons, reports, exit codes."""

from __future__ import annotations

from tests.mutants.runner import Mutant

GATES = ("tests/results/test_gates.py",)
SUITE = ("tests/test_suite.py",)
RECORDS = ("tests/results/test_records.py",)
DICE = ("tests/hw6core/test_dice.py",)
LOSSES = ("tests/hw6core/test_losses.py",)
METRICS = ("tests/hw6core/test_metrics.py",)
TASKS = ("tests/hw6core/test_tasks.py", "tests/workloads/test_workloads.py")
WORKLOADS = ("tests/workloads/test_workloads.py",)
AUGMENT = ("tests/hw6core/test_augment.py",)
SEEDING = ("tests/hw6core/test_seeding.py",)
COMPARE = ("tests/results/test_comparison.py",)
REFERENCES = ("tests/results/test_references.py",)
STATISTICS = ("tests/results/test_statistics.py",)
SHARDS = ("tests/engines/test_shards.py",)
REPORT = ("tests/report/test_markdown.py", "tests/report/test_report_cells.py")
EXPORTS = ("tests/report/test_exports.py", "tests/report/test_report_cells.py")
OPTIONS = ("tests/test_options.py",)
ACCEPTANCE = ("tests/test_acceptance_gates.py::test_the_acceptance_tests_end_as_the_gates_say",)
RUN = ("tests/test_acceptance_gates.py::test_run_ends_as_the_gates_say",)
RUN_SHARD = ("tests/test_acceptance_gates.py::test_a_shard_ends_as_the_gates_of_its_runs_say",)
JUDGE = (
    "tests/test_cli.py::test_judge_refuses_a_lowered_metric",
    "tests/test_cli.py::test_judge_misses_a_seed",
)
MISTAKES = ("tests/test_cli.py::test_a_mistake_gets_one_line_and_an_exit_code",)
COMPARE_CODES = (
    "tests/test_cli.py::test_compare_ends_with_1_if_something_is_worse_and_with_5_if_one_seed_cannot_tell",
)

_MEAN_OF_SEEDS = """\
    from dataclasses import replace
    from statistics import mean

    def averaged(record: Record) -> Record:
        same = [other for other in records if other.configuration == record.configuration]
        means = {name: mean(other.metrics[name] for other in same) for name in record.metrics}
        return replace(record, metrics=means)

    by_run = {(record.configuration, record.seed): averaged(record) for record in records}
    findings = [
        finding
        for configuration in configurations"""

_JUDGING = (
    Mutant(
        "what was not run is tolerated without being allowed",
        "Judgement.objects_to",
        "finding.verdict is Verdict.NOT_RUN and finding.configuration in self.allowed",
        "finding.verdict is Verdict.NOT_RUN",
        GATES,
    ),
    Mutant(
        "what may be not run may fail as well",
        "Judgement.objects_to",
        "finding.verdict is Verdict.NOT_RUN and finding.configuration in self.allowed",
        "finding.configuration in self.allowed",
        GATES,
    ),
    Mutant(
        "a run without a record has passed",
        "_verdict",
        'return Verdict.NOT_RUN, "there is no record of this run"',
        'return Verdict.PASSED, "there is no record of this run"',
        GATES,
    ),
    Mutant(
        "a run that says it was not run has passed",
        "_verdict",
        "return Verdict.NOT_RUN, record.message",
        "return Verdict.PASSED, record.message",
        GATES,
    ),
    Mutant(
        "a suite of which nothing ran is accepted",
        "Judgement.exit_code",
        "or not (passed or objections):",
        "or False:",
        GATES,
    ),
    Mutant(
        "one gate that passed is enough",
        "Judgement.exit_code",
        "        if not objections:\n",
        "        if passed:\n",
        GATES,
    ),
    Mutant("the exit code is always 0", "Judgement.exit_code", "        if not objections:", "        if True:", GATES),
    Mutant(
        "a machine that failed hides a gate that failed",
        "Judgement.exit_code",
        "        if not all(finding.infra",
        "        if not any(finding.infra",
        GATES,
    ),
    Mutant(
        "a completed run may blame the machine",
        "_finding",
        "infrastructure=verdict is Verdict.ERROR and record",
        "infrastructure=record",
        GATES,
    ),
    Mutant(
        "an error may blame missing weights",
        "_finding",
        "weights_missing=verdict is Verdict.NOT_RUN and record",
        "weights_missing=record",
        GATES,
    ),
    Mutant(
        "missing weights are the machine's fault",
        "Judgement.exit_code",
        "return 4 if any(finding.infrastructure for finding in objections) else 3",
        "return 4",
        GATES,
    ),
    Mutant(
        "only the first seed is judged",
        "judge",
        "        for seed in seeds\n",
        "        for seed in seeds[:1]\n",
        GATES,
    ),
    Mutant(
        "only the last seed is judged",
        "judge",
        "        for seed in seeds\n",
        "        for seed in seeds[-1:]\n",
        GATES,
    ),
    Mutant(
        "the first seed answers for all",
        "judge",
        "by_run.get((configuration.id, seed))",
        "by_run.get((configuration.id, seeds[0]))",
        GATES,
    ),
    Mutant(
        "the mean over seeds is judged instead of each seed",
        "judge",
        "    by_run = {(record.configuration, record.seed): record for record in records}\n"
        "    findings = [\n        finding\n        for configuration in configurations",
        _MEAN_OF_SEEDS,
        GATES,
    ),
    Mutant(
        "only the first gate of a configuration is judged",
        "judge_run",
        "for gate in configuration.gates]",
        "for gate in configuration.gates[:1]]",
        GATES,
    ),
    Mutant(
        "the verdict over several is the best instead of the worst",
        "combined",
        "for worst in (Verdict.ERROR, Verdict.FAILED, Verdict.NOT_RUN):",
        "for worst in (Verdict.PASSED, Verdict.NOT_RUN, Verdict.FAILED, Verdict.ERROR):",
        GATES,
    ),
    Mutant(
        "the verdict over nothing is passed",
        "combined",
        "return Verdict.PASSED if verdicts else Verdict.NOT_RUN",
        "return Verdict.PASSED",
        GATES,
    ),
    Mutant(
        "a run that ended in an error is judged as if it had not",
        "_verdict",
        'if record.status != "completed":',
        "if False:",
        GATES,
    ),
    Mutant(
        "a run of unknown status counts as completed",
        "_verdict",
        'if record.status != "completed":',
        'if record.status == "error":',
        GATES,
    ),
    Mutant(
        "a quick record stands in for a full one",
        "_verdict",
        "if profile is not None and record.profile != profile:",
        "if False:",
        GATES,
    ),
    Mutant(
        "a record made with other settings is accepted",
        "_verdict",
        "if record.settings != configuration.fingerprint(record.profile, str(record.data.kind)):",
        "if False:",
        GATES,
    ),
    Mutant(
        "a short run on drawn data counts as one on real data",
        "_verdict",
        "configuration.fingerprint(record.profile, str(record.data.kind))",
        'configuration.fingerprint(record.profile, "synthetic")',
        GATES,
    ),
    Mutant(
        "a record made under edited gates is accepted",
        "_verdict",
        "if record.gates != configuration.gates:",
        "if False:",
        GATES,
    ),
    Mutant(
        "of edited gates only their number is looked at",
        "_verdict",
        "if record.gates != configuration.gates:",
        "if len(record.gates) != len(configuration.gates):",
        GATES,
    ),
    Mutant(
        "a score that is infinite or not a number is judged",
        "_verdict",
        "not (math.isfinite(value) and math.isfinite(trivial)):",
        "not math.isfinite(trivial):",
        GATES,
    ),
    Mutant(
        "a record without the trivial predictor's score is judged",
        "_verdict",
        "if value is None or trivial is None or not (math.isfinite(value) and math.isfinite(trivial)):",
        "if value is None or not math.isfinite(value):",
        GATES,
    ),
    Mutant(
        "the trivial predictor's score is shown as the run's",
        "_finding",
        "value=record.metrics.get(gate.metric)",
        "value=record.trivial.get(gate.metric)",
        GATES,
    ),
    Mutant(
        "findings of two configurations with equal gates are mixed up",
        "Judgement.of",
        "if entry.configuration == configuration and entry.gate == gate]",
        "if entry.gate == gate]",
        GATES,
    ),
)

_FLOORS = (
    Mutant(
        "a run that passes its gate need not beat its floor",
        "_verdict",
        "if floor is not None and",
        "if floor is None and",
        GATES,
    ),
    Mutant(
        "a run as good as its floor beats it",
        "_verdict",
        "not gate.better(value, floor)",
        "gate.better(floor, value)",
        GATES,
    ),
    Mutant(
        "the worst of several floors binds",
        "best_floor",
        "gate.better(value, values[best])",
        "gate.better(values[best], value)",
        GATES,
    ),
    Mutant(
        "a record without floors is judged by its gates alone",
        "_verdict",
        "    if lacking:",
        "    if None in lacking:",
        GATES,
    ),
    Mutant("a floor that is no number binds nobody", "_floor", " and math.isfinite(value)", "", GATES),
    Mutant("a lead of nothing is a lead", "lead_text", "lead > 0", "lead >= 0", REPORT),
    Mutant(
        "the lead over the floor is that over the trivial predictor",
        "_gate_section",
        'mean(floors)), "floor")',
        'mean(trivial)), "floor")',
        REPORT,
    ),
    Mutant(
        "a lead of nothing has no colour",
        "_Renderer.td_open",
        '"class", "failed"',
        '"class", "long"',
        ("tests/report/test_html.py",),
    ),
    Mutant("a run below its floor is drawn as passed", "_gate_row", "gate.better(value, floor))", "value)", REPORT),
    Mutant(
        "the better start is named with a stand-in",
        "_not_answered",
        "if list(starts) != [_REAL_WEIGHTS]",
        "if not starts",
        REPORT,
    ),
    Mutant(
        "two seeds name the better start",
        "_not_answered",
        "len(margins) < _SEEDS_TO_ANSWER",
        "len(margins) < 2",
        REPORT,
    ),
    Mutant(
        "a start below its floor may be the better one",
        "_not_answered",
        "in (Verdict.FAILED, Verdict.ERROR)",
        "is Verdict.ERROR",
        REPORT,
    ),
    Mutant(
        "noise names the better start", "_not_answered", "limits[0] <= 0 <= limits[1]", "limits[0] > limits[1]", REPORT
    ),
    Mutant(
        "CI is told the trivial value as the floor",
        "_case",
        '"floor": finding.floor,',
        '"floor": finding.trivial,',
        EXPORTS,
    ),
    Mutant(
        "the dashboard is told the trivial value as the floor",
        "openmetrics",
        "put(floor, finding.floor",
        "put(floor, finding.trivial",
        EXPORTS,
    ),
)

_THRESHOLDS = (
    Mutant("at the bound is above it", "Gate.better", "return value > other if", "return value >= other if", SUITE),
    Mutant("at the bound is below it", "Gate.better", "else value < other", "else value <= other", SUITE),
    Mutant(
        "every gate asks for more, an error's too",
        "Gate.better",
        'return value > other if self.direction == "above" else value < other',
        "return value > other",
        SUITE,
    ),
    Mutant(
        "the trivial predictor's whole error is the bound, not half of it",
        "Gate.bound",
        "return self.share_of_trivial * trivial[self.metric]",
        "return trivial[self.metric]",
        SUITE,
    ),
    Mutant(
        "present Dice is not gated",
        "dice_gates",
        'return Gate("course_dice", "above", threshold), Gate("present_dice", "above", threshold)',
        'return (Gate("course_dice", "above", threshold),)',
        SUITE,
    ),
    Mutant(
        "the gate of the augmented U-Net is loosened",
        "_SEG_AUGMENTED",
        "gates=dice_gates(0.6),",
        "gates=dice_gates(0.55),",
        SUITE,
    ),
    Mutant(
        "the gate of VGG16 from scratch is loosened",
        "_VGG_SCRATCH",
        'Gate("accuracy", "above", 0.85)',
        'Gate("accuracy", "above", 0.80)',
        SUITE,
    ),
    Mutant(
        "one of the two starts of the new task is not gated",
        "_VGG_NEW_TASK",
        '        Gate("accuracy_from_scratch", "above", share_of_trivial=1.0),\n',
        "",
        SUITE,
    ),
    Mutant(
        "a record is not out of date when the epochs change",
        "Configuration.fingerprint",
        ' if name != "cost"}',
        ' if name not in ("cost", "epochs")}',
        SUITE,
    ),
    Mutant(
        "a record is not out of date when the loss's settings change",
        "Configuration.fingerprint",
        '            "settings": dict(self.settings),\n',
        "",
        SUITE,
    ),
    Mutant(
        "a record is not out of date when the augmentation changes",
        "Configuration.fingerprint",
        '            "augmentation": None if self.augmentation is None else dict(self.augmentation),\n',
        "",
        SUITE,
    ),
    Mutant(
        "the full profile takes one seed",
        "SEEDS",
        '{"full": (0, 1, 2), "quick": (0,)}',
        '{"full": (0,), "quick": (0,)}',
        OPTIONS,
    ),
)

_RECORDS = (
    Mutant(
        "NaN and infinity in a file are read as numbers",
        "benchmarks.results.records:Number",
        "| Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]",
        "| float",
        RECORDS,
    ),
    Mutant(
        "a score that is not a number is written as 0",
        "write_record",
        "parse_constant=lambda constant: None)",
        "parse_constant=lambda constant: 0.0)",
        RECORDS,
    ),
    Mutant(
        "a record of another schema version is read",
        "read_record",
        'if content.get("schema_version") != SCHEMA_VERSION:',
        'if "schema_version" not in content:',
        RECORDS,
    ),
    Mutant(
        "a record with unknown keys is read",
        "benchmarks.results.records:Record",
        "class Record(Struct, forbid_unknown_fields=True):",
        "class Record(Struct):",
        RECORDS,
    ),
    Mutant(
        "a record that was changed is read",
        "read_record",
        "if record.checksum != checksum(content):",
        'if record.checksum == "":',
        RECORDS,
    ),
    Mutant(
        "a lost run is answered for by an earlier record",
        "Workers._record_of_lost",
        "        if not begun:\n",
        "        if False:\n",
        ("tests/engines/test_workers.py",),
    ),
    Mutant(
        "a record may be renamed to that of another run",
        "read_record",
        "if record_path(Path(), record.configuration, record.seed).name != path.name:",
        "if False:",
        RECORDS,
    ),
    Mutant(
        "a write that breaks off leaves half a record",
        "write_atomically",
        'temporary.write_text(text, encoding="utf-8")',
        'path.write_text(text, encoding="utf-8")',
        RECORDS,
    ),
)

_SCORES = (
    Mutant(
        "a class that the frame does not show scores 1 though it was answered",
        "dice_of_counts",
        "torch.where((target == 0) & (predicted == 0), 1.0, score)",
        "torch.where(target == 0, 1.0, score)",
        DICE,
    ),
    Mutant(
        "a class that the frame shows and the answer lacks scores 1",
        "dice_of_counts",
        "torch.where((target == 0) & (predicted == 0), 1.0, score)",
        "torch.where(predicted == 0, 1.0, score)",
        DICE,
    ),
    Mutant(
        "present Dice counts an absent class as 1",
        "dice_of_counts",
        'torch.nan if absent == "ignore" else 0.0',
        '1.0 if absent == "ignore" else 0.0',
        DICE,
    ),
    Mutant(
        "the rule zero counts an absent class as 1",
        "dice_of_counts",
        'torch.nan if absent == "ignore" else 0.0',
        'torch.nan if absent == "ignore" else 1.0',
        DICE,
    ),
    Mutant(
        "prediction and target are swapped",
        "confusion_counts",
        "for shown, answered in zip(target.split(_FRAMES_AT_ONCE), prediction.split(_FRAMES_AT_ONCE), strict=True)",
        "for answered, shown in zip(target.split(_FRAMES_AT_ONCE), prediction.split(_FRAMES_AT_ONCE), strict=True)",
        DICE,
    ),
    Mutant(
        "Dice is the overlap over the sum, not twice that",
        "dice_of_counts",
        "score = 2 * both / (predicted + target).clamp(min=1)",
        "score = both / (predicted + target).clamp(min=1)",
        DICE,
    ),
    Mutant(
        "intersection over union is called Dice",
        "dice_of_counts",
        "score = 2 * both / (predicted + target).clamp(min=1)",
        "score = both / (predicted + target - both).clamp(min=1)",
        DICE,
    ),
    Mutant(
        "frames with more classes weigh more",
        "mean_over_frames",
        "return float(per_class.nanmean(1).nanmean())",
        "return float(per_class.nanmean())",
        DICE,
    ),
    Mutant(
        "absent classes count as 0 in the mean of present ones",
        "mean_over_frames",
        "return float(per_class.nanmean(1).nanmean())",
        "return float(per_class.nan_to_num().mean(1).mean())",
        DICE,
    ),
    Mutant(
        "a class at the least size is dropped",
        "_large",
        ">= minimum_pixels",
        "> minimum_pixels",
        DICE,
    ),
    Mutant(
        "a mask with a class too many is scored",
        "_check_classes",
        "if low < 0 or high >= num_classes:",
        "if low < 0 or high > num_classes:",
        DICE,
    ),
    Mutant(
        "smoothing stands above the line alone",
        "smooth_dice",
        "/ (overlap.predicted + overlap.target + smoothing)",
        "/ (overlap.predicted + overlap.target)",
        LOSSES,
    ),
    Mutant(
        "the gradient of the loss points the wrong way",
        "_SoftmaxOverlap.backward",
        "gradient = (of_predicted.unsqueeze(2) - s)",
        "gradient = (of_predicted.unsqueeze(2) + s)",
        LOSSES,
    ),
    Mutant(
        "the loss rewards what it should punish",
        "DiceLoss.forward",
        "return 1 - smooth_dice(overlap, self.smoothing).mean()",
        "return smooth_dice(overlap, self.smoothing).mean()",
        LOSSES,
    ),
    Mutant(
        "the loss leaves out the background",
        "DiceLoss.forward",
        "return 1 - smooth_dice(overlap, self.smoothing).mean()",
        "return 1 - smooth_dice(overlap, self.smoothing)[..., 1:].mean()",
        LOSSES,
    ),
    Mutant(
        "the loss is pooled frame by frame whatever was asked for",
        "DiceLoss.forward",
        '        if self.pool == "batch":',
        "        if False:",
        LOSSES,
    ),
    Mutant(
        "course Dice is reported as present Dice",
        "segmentation_scores",
        "present_dice=mean_over_frames(present),",
        'present_dice=mean_over_frames(dice_of_counts(overlap, "course")),',
        METRICS,
    ),
    Mutant(
        "the challenge's score counts the background",
        "segmentation_scores",
        "torch.where(overlap.target == 0, torch.nan, iou)[:, 1:]",
        "torch.where(overlap.target == 0, torch.nan, iou)",
        METRICS,
    ),
    Mutant(
        "the trivial predictor answers the rarest class",
        "majority_class",
        "minlength=num_classes).argmax())",
        "minlength=num_classes).argmin())",
        METRICS,
    ),
    Mutant(
        "answers of another shape are broadcast and scored",
        "hw6core.metrics:accuracy",
        "if prediction.shape != target.shape or target.numel() == 0:",
        "if target.numel() == 0:",
        METRICS,
    ),
    Mutant(
        "the best epoch is chosen by course Dice alone, which a blind network wins",
        "SegmentationTask.score",
        '"selection_dice": (scores.course_dice + scores.present_dice) / 2,',
        '"selection_dice": scores.course_dice,',
        TASKS,
    ),
    Mutant(
        "the augmented image is shown with the mask of the plain one",
        "SegmentationTask.training_batch",
        "return augmented, moved",
        "return augmented, masks",
        TASKS,
    ),
)

_RUNS = (
    Mutant(
        "the best epoch of segmentation is chosen on test",
        "run_segmentation",
        "    run.train(model, task, training, validation)\n    answers = run.predict(model, task, test)",
        "    run.train(model, task, training, test)\n    answers = run.predict(model, task, test)",
        WORKLOADS,
    ),
    Mutant(
        "the best epoch of VGG16 from scratch is chosen on test",
        "run_scratch",
        'run.train(model, task, splits["train"], splits["validation"])',
        'run.train(model, task, splits["train"], splits["test"])',
        WORKLOADS,
    ),
    Mutant(
        "the best epoch of the new task is chosen on test",
        "run_new_task",
        "run.train(model, task, training, validation, start)",
        "run.train(model, task, training, test, start)",
        WORKLOADS,
    ),
    Mutant(
        "the frozen network trains on test",
        "run_frozen",
        'run.train(head, task, features["train"], features["validation"])',
        'run.train(head, task, features["test"], features["validation"])',
        WORKLOADS,
    ),
    Mutant(
        "segmentation is scored on validation and told as test",
        "run_segmentation",
        "    answers = run.predict(model, task, test)\n    truth = test.targets",
        "    answers = run.predict(model, task, validation)\n    truth = validation.targets",
        WORKLOADS,
    ),
    Mutant(
        "a run's seed is ignored where the first weights are drawn",
        "execute",
        "    seed_everything(run.seed)\n    outcome = WORKLOADS",
        "    seed_everything(0)\n    outcome = WORKLOADS",
        WORKLOADS,
    ),
    Mutant(
        "a run's seed is ignored by the training loop",
        "Run.train",
        "                seed=self.seed,\n",
        "                seed=0,\n",
        WORKLOADS,
    ),
    Mutant(
        "the majority class is that of the test labels",
        "classified",
        'majority = metrics.majority_class(splits["train"].targets, len(names))',
        "majority = metrics.majority_class(truth, len(names))",
        WORKLOADS,
    ),
    Mutant(
        "the trivial answer of segmentation is class 1",
        "run_segmentation",
        "metrics.segmentation_scores(torch.zeros_like(truth), truth, len(names))",
        "metrics.segmentation_scores(torch.ones_like(truth), truth, len(names))",
        WORKLOADS,
    ),
    Mutant(
        "the trivial answer of colorization is the grey frame",
        "run_colorization",
        "trivial = task.frame_errors(cast, validation.targets)",
        "trivial = task.frame_errors(0 * cast, validation.targets)",
        WORKLOADS,
    ),
    Mutant(
        "the trivial answer of the new task is that no frame shows anything",
        "run_new_task",
        "majority = (cells.double().mean(0) > 0.5)",
        "majority = (cells.double().mean(0) > 1)",
        WORKLOADS,
    ),
    Mutant(
        "every seed draws the same numbers",
        "seed_everything",
        "    torch.manual_seed(seed)\n",
        "    torch.manual_seed(0)\n",
        SEEDING,
    ),
    Mutant(
        "augmentation draws from everybody's stream",
        "augment.draw",
        "return (torch.rand(count, device=images.device, generator=generator) * 2 - 1) * reach",
        "return (torch.rand(count, device=images.device) * 2 - 1) * reach",
        AUGMENT,
    ),
    Mutant(
        "image and mask are flipped apart",
        "augment",
        "masks = None if masks is None else torch.where(flipped.view(-1, 1, 1), masks.flip(axis), masks)",
        "masks = masks",
        AUGMENT,
    ),
    Mutant(
        "masks are interpolated between classes",
        "augment",
        'F.grid_sample(planes, grid, mode="nearest"',
        'F.grid_sample(planes, grid, mode="bilinear"',
        AUGMENT,
    ),
)

_SHARDS = (
    Mutant(
        "parts are merged though one is missing",
        "merge",
        "    if twice or missing:\n",
        "    if twice:\n",
        SHARDS,
    ),
    Mutant(
        "the first part is not missed",
        "merge",
        "set(range(1, count + 1))",
        "set(range(2, count + 1))",
        SHARDS,
    ),
    Mutant(
        "parts are merged though one is given twice",
        "merge",
        "    if twice or missing:\n",
        "    if missing:\n",
        SHARDS,
    ),
    Mutant(
        "a part is merged though it lacks a record",
        "merge",
        "            if not path.is_file() or path.is_symlink():",
        "            if False:",
        SHARDS,
    ),
    Mutant(
        "a part is merged though one of its records is damaged",
        "merge",
        "            read_record(path)\n",
        "",
        SHARDS,
    ),
    Mutant(
        "parts of a quick and of a full run are merged",
        "merge",
        "if len(counts) != 1 or len(profiles) != 1:",
        "if len(counts) != 1:",
        SHARDS,
    ),
    Mutant(
        "records of an older run stay among the merged ones",
        "merge",
        "    if others:\n",
        "    if False:\n",
        SHARDS,
    ),
    Mutant(
        "a part leaves out its last run",
        "part",
        "ordered[shard.number - 1 :: shard.count] for run in unit]",
        "ordered[shard.number - 1 :: shard.count] for run in unit[:-1] or unit]",
        SHARDS,
    ),
)

_COMPARING = (
    Mutant(
        "what became worse is no regression",
        "Comparison.regressions",
        "for row in self.rows if row.change is Change.WORSE)]",
        "for row in self.rows if row.change is Change.BETTER)]",
        COMPARE,
    ),
    Mutant(
        "a run that was lost is no regression",
        "Comparison.regressions",
        "return [*self.lost, *(_sentence",
        "return [*(_sentence",
        COMPARE,
    ),
    Mutant(
        "a gate that is missed now is no regression",
        "_lost",
        "if _SEVERITY[finding.verdict] > _SEVERITY[was.verdict]]",
        "if _SEVERITY[finding.verdict] < _SEVERITY[was.verdict]]",
        COMPARE,
    ),
    Mutant(
        "a seed that was not asked for is a run that was lost",
        "_lost",
        'if old and old.status == "completed" and seed in new_seeds:',
        'if old and old.status == "completed":',
        COMPARE,
    ),
    Mutant(
        "a run that left no record is taken for one that was not asked for",
        "_lost",
        'if old and old.status == "completed" and seed in new_seeds:',
        "if False:",
        COMPARE,
    ),
    Mutant(
        "more time is better",
        "evidence",
        "sign = 1 if more_is_better else -1",
        "sign = 1",
        COMPARE,
    ),
    Mutant(
        "ten times the margin",
        "benchmarks.suite:MARGINS",
        '    "present_dice": Margin(0.02),',
        '    "present_dice": Margin(0.2),',
        COMPARE,
    ),
    Mutant(
        "what cannot be told ends with 0",
        "Comparison.exit_code",
        "if unclear and not unclear_passes else",
        "if False else",
        COMPARE,
    ),
    Mutant(
        "a run on its own cannot be seen to repeat another",
        "_evidence",
        "same = old == new and",
        "same = False and",
        COMPARE,
    ),
    Mutant(
        "the same scores are taken for the same training",
        "_evidence",
        "(name in COST_MARGINS or _learned(runs[0]) == _learned(runs[1]))",
        "True",
        COMPARE,
    ),
    Mutant(
        "noise of scores stands for noise of times",
        "_evidence",
        "None if name in COST_MARGINS else fitting",
        "fitting",
        COMPARE,
    ),
    Mutant(
        "times are judged together with quality",
        "benchmarks.results.comparison:_rows",
        "((MARGINS, ERROR), (COST_MARGINS, TIME_ERROR))",
        "((MARGINS | COST_MARGINS, ERROR),)",
        COMPARE,
    ),
    Mutant(
        "results on other data are compared",
        "benchmarks.results.comparison:_SAME",
        '_SAME = ("profile", "data", "weights", "settings", "gates")',
        '_SAME = ("profile", "weights", "settings", "gates")',
        COMPARE,
    ),
    Mutant(
        "results under other gates are compared",
        "benchmarks.results.comparison:_SAME",
        '_SAME = ("profile", "data", "weights", "settings", "gates")',
        '_SAME = ("profile", "data", "weights", "settings")',
        COMPARE,
    ),
    Mutant(
        "a configuration that the new side lacks is passed over",
        "_sides",
        "    if set(sides[0]) != set(sides[1]):",
        "    if set(sides[0]) < set(sides[1]):",
        COMPARE,
    ),
)

_WEIGHING = (
    Mutant("the standard error of one side alone", "Evidence.tests", "1 / old + 1 / new", "1 / new", STATISTICS),
    Mutant("a paired test on one degree too many", "Evidence.tests", "count - 1)", "count)", STATISTICS),
    Mutant(
        "of two tests the clearer one at the whole error",
        "Evidence.p_above",
        "len(tests) * float(value)",
        "float(value)",
        STATISTICS,
    ),
    Mutant(
        "two pairs that agree by chance leave no doubt",
        "benchmarks.results.statistics:_LEAST_PAIRS",
        "_LEAST_PAIRS = 3",
        "_LEAST_PAIRS = 2",
        STATISTICS,
    ),
    Mutant("a sample's mean costs no degree", "Spread.of", " - sum(map(bool, samples))", "", STATISTICS),
    Mutant(
        "a share is taken for a difference",
        "evidence",
        "abs(math.log1p(-sign * margin)) if relative else margin",
        "margin",
        STATISTICS,
    ),
    Mutant(
        "no worse without any test against the margin",
        "benchmarks.results.statistics:changes",
        "entry.p_above(-entry.margin) <= error",
        "entry.difference > -entry.margin",
        STATISTICS,
    ),
    Mutant(
        "worse only beyond the margin",
        "benchmarks.results.statistics:changes",
        "entry.p_below(0.0)",
        "entry.p_below(-entry.margin)",
        STATISTICS,
    ),
    Mutant(
        "better than possible without a margin",
        "benchmarks.results.statistics:changes",
        "entry.p_above(entry.margin) for",
        "entry.p_above(0.0) for",
        STATISTICS,
    ),
    Mutant("many numbers, no correction", "holm", "error / (len(p_values) - rank)", "error", STATISTICS),
    Mutant(
        "each refuted alone, whatever was kept", "holm", "            break\n", "            continue\n", STATISTICS
    ),
    Mutant(
        "the visible drop is found in half of the cases",
        "benchmarks.results.statistics:POWER",
        "POWER = 0.8",
        "POWER = 0.5",
        STATISTICS,
    ),
    Mutant(
        "more seeds on one side where both grow",
        "Evidence.more_seeds",
        "1 / (old + more * on_both_sides)",
        "1 / old",
        STATISTICS,
    ),
    Mutant(
        "a reference of other settings fits",
        "benchmarks.results.references:fitting",
        "population.key == keys[0]",
        "population.key.profile == keys[0].profile",
        REFERENCES,
    ),
    Mutant(
        "runs without a result are compared with the reference",
        "standings",
        ' and run.status == "completed"]',
        "]",
        REFERENCES,
    ),
    Mutant(
        "the same seed on another machine is taken for the same draw",
        "standings",
        "{-1 - seed: value for",
        "{seed: value for",
        REFERENCES,
    ),
    Mutant(
        "worse than the reference and accepted",
        "Judgement.setbacks",
        "in (Change.WORSE, Change.BETTER)",
        "in (Change.BETTER,)",
        REFERENCES,
    ),
    Mutant(
        "too good to be true and accepted",
        "Judgement.setbacks",
        "in (Change.WORSE, Change.BETTER)",
        "in (Change.WORSE,)",
        REFERENCES,
    ),
    Mutant(
        "cannot tell is accepted",
        "Judgement.exit_code",
        "if self.unclear and not self.unclear_passes else",
        "if False else",
        REFERENCES,
    ),
    Mutant(
        "a seed with two results keeps the last one",
        "_condensed",
        "        if run.seed in values:\n",
        "        if False:\n",
        REFERENCES,
    ),
    Mutant(
        "a population of other settings gets further seeds",
        "make_reference",
        "if known is not None and known.key != key:",
        "if False:",
        REFERENCES,
    ),
)

_TOLD = (
    Mutant(
        "the report says PASSED whatever was judged",
        "_word_and_count",
        "    if judgement.accepted:\n",
        "    if True:\n",
        REPORT,
    ),
    Mutant(
        "a quick result looks like an acceptance result",
        "_reservation",
        'if any(record.profile == "quick" for record in records):',
        "if False:",
        REPORT,
    ),
    Mutant(
        "a part of the suite looks like an acceptance result",
        "_reservation",
        "    if len(judged) < len(SUITE):\n",
        "    if False:\n",
        REPORT,
    ),
    Mutant(
        "an error that became smaller is told as a loss",
        "_gate_section",
        'sign = 1 if gate.direction == "above" else -1',
        "sign = 1",
        REPORT,
    ),
    Mutant(
        "a difference within the noise is told as a gain",
        "benchmarks.report.markdown:_shown",
        "    if low <= 0 <= high:\n",
        "    if False:\n",
        REPORT,
    ),
    Mutant(
        "CI is told that a gate which was missed is skipped",
        "_case",
        "        elif objected:\n",
        "        elif False:\n",
        EXPORTS,
    ),
    Mutant(
        "the dashboard is told that everything is accepted",
        "openmetrics",
        ".set(judgement.accepted)",
        ".set(True)",
        EXPORTS,
    ),
    Mutant(
        "the dashboard is told that every gate passed",
        "openmetrics",
        "is_passed = finding.verdict is Verdict.PASSED",
        "is_passed = True",
        EXPORTS,
    ),
)

_COMMANDS = (
    Mutant(
        "judge always ends with 0",
        "_judge",
        "    print(summary(judgement, records))\n    return judgement.exit_code",
        "    print(summary(judgement, records))\n    return 0",
        JUDGE,
    ),
    Mutant(
        "run always ends with 0",
        "_run",
        "    return report.judgement.exit_code",
        "    return 0",
        RUN,
    ),
    Mutant(
        "a shard always ends with 0",
        "_run_shard",
        "    return judgement.exit_code if judgement.objections else 0",
        "    return 0",
        RUN_SHARD,
    ),
    Mutant(
        "compare always ends with 0",
        "_compare",
        "    return comparison.exit_code(unclear_passes=unclear_passes)",
        "    return 0",
        COMPARE_CODES,
    ),
    Mutant(
        "missing data ends with 0",
        "ending",
        "        return exit_code(error), ",
        "        return 0, ",
        MISTAKES,
    ),
    Mutant(
        "what nobody expected reads as a gate that failed",
        "ending",
        "    return ExitCode.FAULT, ",
        "    return 1, ",
        ("tests/test_exits.py::test_each_reason_has_its_exit_code_and_one_line",),
    ),
    Mutant(
        "a fault of the suite in a run reads as a gate that failed",
        "Judgement.exit_code",
        "finding.infrastructure or finding.weights_missing or finding.unexpected for",
        "finding.infrastructure or finding.weights_missing for",
        GATES,
    ),
    Mutant(
        "a suite that trained nothing has passed",
        "pytest_sessionfinish",
        "        session.exitstatus = ExitCode.USAGE",
        "        pass",
        ("tests/test_acceptance_gates.py::test_what_measures_nothing_has_not_passed",),
    ),
    Mutant(
        "make benchmark ends as pytest does, so a suite that was skipped has passed",
        "pytest_sessionfinish",
        "        session.exitstatus = _done(session.config, lambda: _judged(session))",
        "        _done(session.config, lambda: _judged(session))",
        ACCEPTANCE,
    ),
    Mutant(
        "a gate that was missed is no failed test",
        "test_gate",
        "    if messages:\n",
        "    if False:\n",
        ACCEPTANCE,
    ),
    Mutant(
        "make benchmark judges the first seed alone",
        "test_gate",
        "judge(records, [configuration], plan.seeds,",
        "judge(records, [configuration], plan.seeds[:1],",
        ACCEPTANCE,
    ),
    Mutant(
        "make benchmark accepts records of any profile",
        "test_gate",
        "plan.allow_not_run, plan.profile)",
        "plan.allow_not_run)",
        ACCEPTANCE,
    ),
    Mutant(
        "the full profile runs on drawn data",
        "_data_folder",
        '    if text == SYNTHETIC:\n        if profile == "full":',
        "    if text == SYNTHETIC:\n        if False:",
        OPTIONS,
    ),
    Mutant(
        "a GPU that torch cannot use is passed over",
        "default_device",
        "    if found is not None:\n",
        "    if False:\n",
        OPTIONS,
    ),
    Mutant(
        "a seed given twice counts as two measurements",
        "_seeds",
        "    if len(set(seeds)) != len(seeds):\n",
        "    if False:\n",
        OPTIONS,
    ),
)

JUDGING: tuple[Mutant, ...] = (
    *_JUDGING,
    *_FLOORS,
    *_THRESHOLDS,
    *_RECORDS,
    *_SCORES,
    *_RUNS,
    *_SHARDS,
    *_COMPARING,
    *_WEIGHING,
    *_TOLD,
    *_COMMANDS,
)
