"""The errors that are put in, and the tests that must notice each. A name says what the suite then does wrong."""

from __future__ import annotations

from tests.mutants.runner import Mutant

GATES = ("tests/test_gates.py",)
SUITE = ("tests/test_suite.py",)
RECORDS = ("tests/test_records.py", "tests/test_record_schema.py")
DICE = ("tests/test_dice.py",)
LOSSES = ("tests/test_losses.py",)
METRICS = ("tests/test_metrics.py",)
TASKS = ("tests/test_tasks.py",)
WORKLOADS = ("tests/test_workloads.py",)
AUGMENT = ("tests/test_augment.py",)
SEEDING = ("tests/test_seeding.py",)
COMPARE = ("tests/test_compare.py",)
STATISTICS = ("tests/test_statistics.py",)
SHARDS = ("tests/test_shards.py",)
REPORT = ("tests/test_report.py",)
EXPORTS = ("tests/test_exports.py",)
OPTIONS = ("tests/test_options.py",)
ACCEPTANCE = ("tests/test_acceptance_gates.py::test_the_acceptance_tests_end_as_the_gates_say",)
RUN = ("tests/test_acceptance_gates.py::test_run_ends_as_the_gates_say",)
RUN_SHARD = ("tests/test_acceptance_gates.py::test_a_shard_ends_as_the_gates_of_its_runs_say",)
JUDGE = (
    "tests/test_cli.py::test_judge_refuses_a_lowered_metric",
    "tests/test_cli.py::test_judge_misses_a_seed",
)
MISTAKES = ("tests/test_cli.py::test_a_mistake_gets_one_line_and_an_exit_code",)
COMPARE_CODES = ("tests/test_cli.py::test_compare_ends_with_1_if_something_became_worse",)

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
        "benchmarks/gates.py",
        "finding.verdict is Verdict.NOT_RUN and finding.configuration in self.allowed",
        "finding.verdict is Verdict.NOT_RUN",
        GATES,
    ),
    Mutant(
        "what may be not run may fail as well",
        "benchmarks/gates.py",
        "finding.verdict is Verdict.NOT_RUN and finding.configuration in self.allowed",
        "finding.configuration in self.allowed",
        GATES,
    ),
    Mutant(
        "a run without a record has passed",
        "benchmarks/gates.py",
        'return finding(Verdict.NOT_RUN, "there is no record of this run")',
        'return finding(Verdict.PASSED, "there is no record of this run")',
        GATES,
    ),
    Mutant(
        "a run that says it was not run has passed",
        "benchmarks/gates.py",
        "return finding(Verdict.NOT_RUN, record.message)",
        "return finding(Verdict.PASSED, record.message)",
        GATES,
    ),
    Mutant(
        "a suite of which nothing ran is accepted",
        "benchmarks/gates.py",
        "return any(finding.verdict is Verdict.PASSED for finding in self.findings) and not self.objections",
        "return not self.objections",
        GATES,
    ),
    Mutant(
        "one gate that passed is enough",
        "benchmarks/gates.py",
        "return any(finding.verdict is Verdict.PASSED for finding in self.findings) and not self.objections",
        "return any(finding.verdict is Verdict.PASSED for finding in self.findings)",
        GATES,
    ),
    Mutant("the exit code is always 0", "benchmarks/gates.py", "        if self.accepted:", "        if True:", GATES),
    Mutant(
        "a machine that failed hides a gate that failed",
        "benchmarks/gates.py",
        "not all(finding.infrastructure or",
        "not any(finding.infrastructure or",
        GATES,
    ),
    Mutant(
        "a completed run may blame the machine",
        "benchmarks/gates.py",
        "broken = verdict is Verdict.ERROR and details",
        "broken = details",
        GATES,
    ),
    Mutant(
        "an error may blame missing weights",
        "benchmarks/gates.py",
        "missing = verdict is Verdict.NOT_RUN and details",
        "missing = details",
        GATES,
    ),
    Mutant(
        "missing weights are the machine's fault",
        "benchmarks/gates.py",
        "return 4 if any(finding.infrastructure for finding in objections) else 3",
        "return 4",
        GATES,
    ),
    Mutant(
        "only the first seed is judged",
        "benchmarks/gates.py",
        "        for seed in seeds\n",
        "        for seed in seeds[:1]\n",
        GATES,
    ),
    Mutant(
        "only the last seed is judged",
        "benchmarks/gates.py",
        "        for seed in seeds\n",
        "        for seed in seeds[-1:]\n",
        GATES,
    ),
    Mutant(
        "the first seed answers for all",
        "benchmarks/gates.py",
        "by_run.get((configuration.id, seed))",
        "by_run.get((configuration.id, seeds[0]))",
        GATES,
    ),
    Mutant(
        "the mean over seeds is judged instead of each seed",
        "benchmarks/gates.py",
        "    by_run = {(record.configuration, record.seed): record for record in records}\n"
        "    findings = [\n        finding\n        for configuration in configurations",
        _MEAN_OF_SEEDS,
        GATES,
    ),
    Mutant(
        "only the first gate of a configuration is judged",
        "benchmarks/gates.py",
        "for gate in configuration.gates]\n\n\ndef combined",
        "for gate in configuration.gates[:1]]\n\n\ndef combined",
        GATES,
    ),
    Mutant(
        "the verdict over several is the best instead of the worst",
        "benchmarks/gates.py",
        "for worst in (Verdict.ERROR, Verdict.FAILED, Verdict.NOT_RUN):",
        "for worst in (Verdict.PASSED, Verdict.NOT_RUN, Verdict.FAILED, Verdict.ERROR):",
        GATES,
    ),
    Mutant(
        "the verdict over nothing is passed",
        "benchmarks/gates.py",
        "return Verdict.PASSED if verdicts else Verdict.NOT_RUN",
        "return Verdict.PASSED",
        GATES,
    ),
    Mutant(
        "a run that ended in an error is judged as if it had not",
        "benchmarks/gates.py",
        'if record.status != "completed":',
        "if False:",
        GATES,
    ),
    Mutant(
        "a run of unknown status counts as completed",
        "benchmarks/gates.py",
        'if record.status != "completed":',
        'if record.status == "error":',
        GATES,
    ),
    Mutant(
        "a quick record stands in for a full one",
        "benchmarks/gates.py",
        "if profile is not None and record.profile != profile:",
        "if False:",
        GATES,
    ),
    Mutant(
        "a record made with other settings is accepted",
        "benchmarks/gates.py",
        'if record.settings != configuration.fingerprint(record.profile, str(record.data.get("kind"))):',
        "if False:",
        GATES,
    ),
    Mutant(
        "a short run on drawn data counts as one on real data",
        "benchmarks/gates.py",
        'configuration.fingerprint(record.profile, str(record.data.get("kind")))',
        'configuration.fingerprint(record.profile, "synthetic")',
        GATES,
    ),
    Mutant(
        "a record made under edited gates is accepted",
        "benchmarks/gates.py",
        "if record.gates != [asdict(entry) for entry in configuration.gates]:",
        "if False:",
        GATES,
    ),
    Mutant(
        "of edited gates only their number is looked at",
        "benchmarks/gates.py",
        "if record.gates != [asdict(entry) for entry in configuration.gates]:",
        "if len(record.gates) != len(configuration.gates):",
        GATES,
    ),
    Mutant(
        "a score that is infinite or not a number is judged",
        "benchmarks/gates.py",
        "not isinstance(value, bool) and math.isfinite(value)",
        "not isinstance(value, bool)",
        GATES,
    ),
    Mutant(
        "true counts as a score of 1",
        "benchmarks/gates.py",
        "and not isinstance(value, bool) and math.isfinite(value)",
        "and math.isfinite(value)",
        GATES,
    ),
    Mutant(
        "a record without the trivial predictor's score is judged",
        "benchmarks/gates.py",
        "if not _is_number(value) or not _is_number(trivial):",
        "if not _is_number(value):",
        GATES,
    ),
    Mutant(
        "the trivial predictor's score is shown as the run's",
        "benchmarks/gates.py",
        "        value = record.metrics.get(gate.metric) if record else None",
        "        value = record.trivial.get(gate.metric) if record else None",
        GATES,
    ),
    Mutant(
        "findings of two configurations with equal gates are mixed up",
        "benchmarks/gates.py",
        "if entry.configuration == configuration and entry.gate == gate]",
        "if entry.gate == gate]",
        GATES,
    ),
)

_THRESHOLDS = (
    Mutant(
        "at the bound is above it", "benchmarks/suite.py", "return value > bound if", "return value >= bound if", SUITE
    ),
    Mutant("at the bound is below it", "benchmarks/suite.py", "else value < bound", "else value <= bound", SUITE),
    Mutant(
        "every gate asks for more, an error's too",
        "benchmarks/suite.py",
        'return value > bound if self.direction == "above" else value < bound',
        "return value > bound",
        SUITE,
    ),
    Mutant(
        "the trivial predictor's whole error is the bound, not half of it",
        "benchmarks/suite.py",
        "return self.share_of_trivial * trivial[self.metric]",
        "return trivial[self.metric]",
        SUITE,
    ),
    Mutant(
        "present Dice is not gated",
        "benchmarks/suite.py",
        'return Gate("course_dice", "above", threshold), Gate("present_dice", "above", threshold)',
        'return (Gate("course_dice", "above", threshold),)',
        SUITE,
    ),
    Mutant(
        "the gate of the augmented U-Net is loosened",
        "benchmarks/suite.py",
        "gates=dice_gates(0.6),",
        "gates=dice_gates(0.55),",
        SUITE,
    ),
    Mutant(
        "the gate of VGG16 from scratch is loosened",
        "benchmarks/suite.py",
        'Gate("accuracy", "above", 0.85)',
        'Gate("accuracy", "above", 0.80)',
        SUITE,
    ),
    Mutant(
        "one of the two starts of the new task is not gated",
        "benchmarks/suite.py",
        '        Gate("accuracy_from_scratch", "above", share_of_trivial=1.0),\n',
        "",
        SUITE,
    ),
    Mutant(
        "a record is not out of date when the epochs change",
        "benchmarks/suite.py",
        ' if name != "synthetic_epochs"} | settled,',
        ' if name not in ("synthetic_epochs", "epochs")},',
        SUITE,
    ),
    Mutant(
        "a record is not out of date when the loss's settings change",
        "benchmarks/suite.py",
        '            "settings": dict(self.settings),\n',
        "",
        SUITE,
    ),
    Mutant(
        "a record is not out of date when the augmentation changes",
        "benchmarks/suite.py",
        '            "augmentation": None if self.augmentation is None else dict(self.augmentation),\n',
        "",
        SUITE,
    ),
    Mutant(
        "the full profile takes one seed",
        "benchmarks/suite.py",
        '{"full": (0, 1, 2), "quick": (0,)}',
        '{"full": (0,), "quick": (0,)}',
        OPTIONS,
    ),
)

_RECORDS = (
    Mutant("NaN in a file is read as a number", "benchmarks/records.py", "parse_constant=_refuse, ", "", RECORDS),
    Mutant("1e999 in a file is read as infinity", "benchmarks/records.py", ", parse_float=_finite", "", RECORDS),
    Mutant(
        "a score that is not a number is written as 0",
        "benchmarks/records.py",
        "        return value if math.isfinite(value) else None",
        "        return value if math.isfinite(value) else 0.0",
        RECORDS,
    ),
    Mutant(
        "a record of another schema version is read",
        "benchmarks/records.py",
        'if content.get("schema_version") != SCHEMA_VERSION:',
        'if "schema_version" not in content:',
        RECORDS,
    ),
    Mutant(
        "a record is read unchecked", "benchmarks/records.py", "        _validator()(content)", "        pass", RECORDS
    ),
    Mutant(
        "a record that was changed is read",
        "benchmarks/records.py",
        'if content.pop("checksum") != checksum(content):',
        'if content.pop("checksum") == "":',
        RECORDS,
    ),
    Mutant(
        "a lost run is answered for by an earlier record",
        "benchmarks/workers.py",
        "        if not begun:\n",
        "        if False:\n",
        ("tests/test_workers.py",),
    ),
    Mutant(
        "a record may be renamed to that of another run",
        "benchmarks/records.py",
        "if record_path(Path(), record.configuration, record.seed).name != path.name:",
        "if False:",
        RECORDS,
    ),
    Mutant(
        "a write that breaks off leaves half a record",
        "benchmarks/records.py",
        'temporary.write_text(text, encoding="utf-8")',
        'path.write_text(text, encoding="utf-8")',
        RECORDS,
    ),
)

_SCORES = (
    Mutant(
        "a class that the frame does not show scores 1 though it was answered",
        "hw6core/dice.py",
        "torch.where((target == 0) & (predicted == 0), 1.0, score)",
        "torch.where(target == 0, 1.0, score)",
        DICE,
    ),
    Mutant(
        "a class that the frame shows and the answer lacks scores 1",
        "hw6core/dice.py",
        "torch.where((target == 0) & (predicted == 0), 1.0, score)",
        "torch.where(predicted == 0, 1.0, score)",
        DICE,
    ),
    Mutant(
        "present Dice counts an absent class as 1",
        "hw6core/dice.py",
        'torch.nan if absent == "ignore" else 0.0',
        '1.0 if absent == "ignore" else 0.0',
        DICE,
    ),
    Mutant(
        "the rule zero counts an absent class as 1",
        "hw6core/dice.py",
        'torch.nan if absent == "ignore" else 0.0',
        'torch.nan if absent == "ignore" else 1.0',
        DICE,
    ),
    Mutant(
        "prediction and target are swapped",
        "hw6core/dice.py",
        "for shown, answered in zip(target.split(_FRAMES_AT_ONCE), prediction.split(_FRAMES_AT_ONCE), strict=True)",
        "for answered, shown in zip(target.split(_FRAMES_AT_ONCE), prediction.split(_FRAMES_AT_ONCE), strict=True)",
        DICE,
    ),
    Mutant(
        "Dice is the overlap over the sum, not twice that",
        "hw6core/dice.py",
        "score = 2 * both / (predicted + target).clamp(min=1)",
        "score = both / (predicted + target).clamp(min=1)",
        DICE,
    ),
    Mutant(
        "intersection over union is called Dice",
        "hw6core/dice.py",
        "score = 2 * both / (predicted + target).clamp(min=1)",
        "score = both / (predicted + target - both).clamp(min=1)",
        DICE,
    ),
    Mutant(
        "frames with more classes weigh more",
        "hw6core/dice.py",
        "return float(per_class.nanmean(1).nanmean())",
        "return float(per_class.nanmean())",
        DICE,
    ),
    Mutant(
        "absent classes count as 0 in the mean of present ones",
        "hw6core/dice.py",
        "return float(per_class.nanmean(1).nanmean())",
        "return float(per_class.nan_to_num().mean(1).mean())",
        DICE,
    ),
    Mutant(
        "a class at the least size is dropped",
        "hw6core/dice.py",
        ">= minimum_pixels",
        "> minimum_pixels",
        DICE,
    ),
    Mutant(
        "a mask with a class too many is scored",
        "hw6core/dice.py",
        "if low < 0 or high >= num_classes:",
        "if low < 0 or high > num_classes:",
        DICE,
    ),
    Mutant(
        "smoothing stands above the line alone",
        "hw6core/dice.py",
        "/ (overlap.predicted + overlap.target + smoothing)",
        "/ (overlap.predicted + overlap.target)",
        LOSSES,
    ),
    Mutant(
        "the gradient of the loss points the wrong way",
        "hw6core/dice.py",
        "gradient = (of_predicted.unsqueeze(2) - s)",
        "gradient = (of_predicted.unsqueeze(2) + s)",
        LOSSES,
    ),
    Mutant(
        "the loss rewards what it should punish",
        "hw6core/losses.py",
        "return 1 - smooth_dice(overlap, self.smoothing).mean()",
        "return smooth_dice(overlap, self.smoothing).mean()",
        LOSSES,
    ),
    Mutant(
        "the loss leaves out the background",
        "hw6core/losses.py",
        "return 1 - smooth_dice(overlap, self.smoothing).mean()",
        "return 1 - smooth_dice(overlap, self.smoothing)[..., 1:].mean()",
        LOSSES,
    ),
    Mutant(
        "the loss is pooled frame by frame whatever was asked for",
        "hw6core/losses.py",
        '        if self.pool == "batch":',
        "        if False:",
        LOSSES,
    ),
    Mutant(
        "course Dice is reported as present Dice",
        "hw6core/metrics.py",
        "present_dice=mean_over_frames(present),",
        'present_dice=mean_over_frames(dice_of_counts(overlap, "course")),',
        METRICS,
    ),
    Mutant(
        "the challenge's score counts the background",
        "hw6core/metrics.py",
        "torch.where(overlap.target == 0, torch.nan, iou)[:, 1:]",
        "torch.where(overlap.target == 0, torch.nan, iou)",
        METRICS,
    ),
    Mutant(
        "the trivial predictor answers the rarest class",
        "hw6core/metrics.py",
        "minlength=num_classes).argmax())",
        "minlength=num_classes).argmin())",
        METRICS,
    ),
    Mutant(
        "answers of another shape are broadcast and scored",
        "hw6core/metrics.py",
        "if prediction.shape != target.shape or target.numel() == 0:",
        "if target.numel() == 0:",
        METRICS,
    ),
    Mutant(
        "the best epoch is chosen by course Dice alone, which a blind network wins",
        "benchmarks/tasks.py",
        '"selection_dice": (scores.course_dice + scores.present_dice) / 2,',
        '"selection_dice": scores.course_dice,',
        TASKS,
    ),
    Mutant(
        "the augmented image is shown with the mask of the plain one",
        "benchmarks/tasks.py",
        "return augmented, moved",
        "return augmented, masks",
        TASKS,
    ),
)

_RUNS = (
    Mutant(
        "the best epoch of segmentation is chosen on test",
        "benchmarks/workloads.py",
        "    run.train(model, task, training, validation)\n    answers = run.predict(model, task, test)",
        "    run.train(model, task, training, test)\n    answers = run.predict(model, task, test)",
        WORKLOADS,
    ),
    Mutant(
        "the best epoch of VGG16 from scratch is chosen on test",
        "benchmarks/workloads.py",
        'run.train(model, task, splits["train"], splits["validation"])',
        'run.train(model, task, splits["train"], splits["test"])',
        WORKLOADS,
    ),
    Mutant(
        "the best epoch of the new task is chosen on test",
        "benchmarks/workloads.py",
        "tuned = run.train(model, task, training, validation, start)",
        "tuned = run.train(model, task, training, test, start)",
        WORKLOADS,
    ),
    Mutant(
        "the frozen network trains on test",
        "benchmarks/workloads.py",
        'run.train(head, task, features["train"], features["validation"])',
        'run.train(head, task, features["test"], features["validation"])',
        WORKLOADS,
    ),
    Mutant(
        "segmentation is scored on validation and told as test",
        "benchmarks/workloads.py",
        "    answers = run.predict(model, task, test)\n    truth = test.targets",
        "    answers = run.predict(model, task, validation)\n    truth = validation.targets",
        WORKLOADS,
    ),
    Mutant(
        "a run's seed is ignored where the first weights are drawn",
        "benchmarks/workloads.py",
        "    seed_everything(run.seed)\n    return _WORKLOADS",
        "    seed_everything(0)\n    return _WORKLOADS",
        WORKLOADS,
    ),
    Mutant(
        "a run's seed is ignored by the training loop",
        "benchmarks/workloads.py",
        "                seed=self.seed,\n",
        "                seed=0,\n",
        WORKLOADS,
    ),
    Mutant(
        "the majority class is that of the test labels",
        "benchmarks/workloads.py",
        'majority = metrics.majority_class(splits["train"].targets, len(names))',
        "majority = metrics.majority_class(truth, len(names))",
        WORKLOADS,
    ),
    Mutant(
        "the trivial answer of segmentation is class 1",
        "benchmarks/workloads.py",
        "metrics.segmentation_scores(torch.zeros_like(truth), truth, len(names))",
        "metrics.segmentation_scores(torch.ones_like(truth), truth, len(names))",
        WORKLOADS,
    ),
    Mutant(
        "the trivial answer of colorization is black",
        "benchmarks/workloads.py",
        "trivial = task.frame_errors(nothing, validation.targets)",
        "trivial = task.frame_errors(nothing - 1, validation.targets)",
        WORKLOADS,
    ),
    Mutant(
        "the trivial answer of the new task is that no frame shows anything",
        "benchmarks/workloads.py",
        "majority = (training.targets.double().mean(0) > 0.5)",
        "majority = (training.targets.double().mean(0) > 1)",
        WORKLOADS,
    ),
    Mutant(
        "every seed draws the same numbers",
        "hw6core/seeding.py",
        "    torch.manual_seed(seed)\n",
        "    torch.manual_seed(0)\n",
        SEEDING,
    ),
    Mutant(
        "augmentation draws from everybody's stream",
        "hw6core/data/augment.py",
        "return (torch.rand(count, device=images.device, generator=generator) * 2 - 1) * reach",
        "return (torch.rand(count, device=images.device) * 2 - 1) * reach",
        AUGMENT,
    ),
    Mutant(
        "image and mask are flipped apart",
        "hw6core/data/augment.py",
        "masks = None if masks is None else torch.where(flipped.view(-1, 1, 1), masks.flip(axis), masks)",
        "masks = masks",
        AUGMENT,
    ),
    Mutant(
        "masks are interpolated between classes",
        "hw6core/data/augment.py",
        'F.grid_sample(planes, grid, mode="nearest"',
        'F.grid_sample(planes, grid, mode="bilinear"',
        AUGMENT,
    ),
)

_SHARDS = (
    Mutant(
        "parts are merged though one is missing",
        "benchmarks/shards.py",
        "    if twice or missing:\n",
        "    if twice:\n",
        SHARDS,
    ),
    Mutant(
        "the first part is not missed",
        "benchmarks/shards.py",
        "set(range(1, count + 1))",
        "set(range(2, count + 1))",
        SHARDS,
    ),
    Mutant(
        "parts are merged though one is given twice",
        "benchmarks/shards.py",
        "    if twice or missing:\n",
        "    if missing:\n",
        SHARDS,
    ),
    Mutant(
        "a part is merged though it lacks a record",
        "benchmarks/shards.py",
        "            if not path.is_file() or path.is_symlink():",
        "            if False:",
        SHARDS,
    ),
    Mutant(
        "a part is merged though one of its records is damaged",
        "benchmarks/shards.py",
        "            read_record(path)\n",
        "",
        SHARDS,
    ),
    Mutant(
        "parts of a quick and of a full run are merged",
        "benchmarks/shards.py",
        "if len(counts) != 1 or len(profiles) != 1:",
        "if len(counts) != 1:",
        SHARDS,
    ),
    Mutant(
        "records of an older run stay among the merged ones",
        "benchmarks/shards.py",
        "    if others:\n",
        "    if False:\n",
        SHARDS,
    ),
    Mutant(
        "a part leaves out its last run",
        "benchmarks/shards.py",
        "ordered[shard.number - 1 :: shard.count] for run in unit]",
        "ordered[shard.number - 1 :: shard.count] for run in unit[:-1] or unit]",
        SHARDS,
    ),
)

_COMPARING = (
    Mutant(
        "what became worse is no regression",
        "benchmarks/compare.py",
        "for row in self.rows if row.change is Change.WORSE)]",
        "for row in self.rows if row.change is Change.UNCLEAR)]",
        COMPARE,
    ),
    Mutant(
        "a run that was lost is no regression",
        "benchmarks/compare.py",
        "return [*self.lost, *(_sentence",
        "return [*(_sentence",
        COMPARE,
    ),
    Mutant(
        "a gate that is missed now is no regression",
        "benchmarks/compare.py",
        "if _GRAVITY[finding.verdict] > _GRAVITY[was.verdict]]",
        "if _GRAVITY[finding.verdict] < _GRAVITY[was.verdict]]",
        COMPARE,
    ),
    Mutant(
        "a seed that was not asked for is a run that was lost",
        "benchmarks/compare.py",
        'if old and old.status == "completed" and seed in new_seeds:',
        'if old and old.status == "completed":',
        COMPARE,
    ),
    Mutant(
        "a run that left no record is taken for one that was not asked for",
        "benchmarks/compare.py",
        'if old and old.status == "completed" and seed in new_seeds:',
        "if False:",
        COMPARE,
    ),
    Mutant(
        "more time is better",
        "benchmarks/compare.py",
        "* (1 if pair.more_is_better else -1)",
        "* 1",
        COMPARE,
    ),
    Mutant(
        "ten times the tolerance",
        "benchmarks/compare.py",
        "    score: float = 0.02\n",
        "    score: float = 0.2\n",
        COMPARE,
    ),
    Mutant(
        "noise is taken for a difference",
        "benchmarks/compare.py",
        "elif _beyond_noise(interval) or abs(gain) > THRESHOLDS.certain * pair.tolerance:",
        "elif True:",
        COMPARE,
    ),
    Mutant(
        "one run without noise can show nothing, however bad",
        "benchmarks/compare.py",
        "elif _beyond_noise(interval) or abs(gain) > THRESHOLDS.certain * pair.tolerance:",
        "elif _beyond_noise(interval):",
        COMPARE,
    ),
    Mutant(
        "results on other data are compared",
        "benchmarks/compare.py",
        '_SAME = ("profile", "data", "weights", "settings", "gates")',
        '_SAME = ("profile", "weights", "settings", "gates")',
        COMPARE,
    ),
    Mutant(
        "results under other gates are compared",
        "benchmarks/compare.py",
        '_SAME = ("profile", "data", "weights", "settings", "gates")',
        '_SAME = ("profile", "data", "weights", "settings")',
        COMPARE,
    ),
    Mutant(
        "a configuration that the new side lacks is passed over",
        "benchmarks/compare.py",
        "    if set(sides[0]) != set(sides[1]):",
        "    if set(sides[0]) < set(sides[1]):",
        COMPARE,
    ),
    Mutant(
        "an interval takes the seeds for a degree of freedom more than there are",
        "benchmarks/statistics.py",
        "half = _quantile(count - 1) * stdev(differences)",
        "half = _quantile(count) * stdev(differences)",
        STATISTICS,
    ),
)

_TOLD = (
    Mutant(
        "the report says PASSED whatever was judged",
        "benchmarks/report.py",
        'return "PASSED" if judgement.accepted else "FAILED"',
        'return "PASSED"',
        REPORT,
    ),
    Mutant(
        "a quick result looks like an acceptance result",
        "benchmarks/report.py",
        'if any(record.profile == "quick" for record in records):',
        "if False:",
        REPORT,
    ),
    Mutant(
        "a part of the suite looks like an acceptance result",
        "benchmarks/report.py",
        "    if len(judged) < len(SUITE):\n",
        "    if False:\n",
        REPORT,
    ),
    Mutant(
        "an error that became smaller is told as a loss",
        "benchmarks/report.py",
        'sign = 1 if gate.direction == "above" else -1',
        "sign = 1",
        REPORT,
    ),
    Mutant(
        "a difference within the noise is told as a gain",
        "benchmarks/report.py",
        "    if low <= 0 <= high:\n",
        "    if False:\n",
        REPORT,
    ),
    Mutant(
        "CI is told that a gate which was missed is skipped",
        "benchmarks/exports.py",
        "    elif objected:\n",
        "    elif False:\n",
        EXPORTS,
    ),
    Mutant(
        "the dashboard is told that everything is accepted",
        "benchmarks/exports.py",
        ".set(judgement.accepted)",
        ".set(True)",
        EXPORTS,
    ),
    Mutant(
        "the dashboard is told that every gate passed",
        "benchmarks/exports.py",
        "_labelled(passed, *labels).set(finding.verdict is Verdict.PASSED)",
        "_labelled(passed, *labels).set(True)",
        EXPORTS,
    ),
)

_COMMANDS = (
    Mutant(
        "judge always ends with 0",
        "benchmarks/__main__.py",
        "    print(summary(judgement, records))\n    return judgement.exit_code",
        "    print(summary(judgement, records))\n    return 0",
        JUDGE,
    ),
    Mutant(
        "run always ends with 0",
        "benchmarks/__main__.py",
        "    return report.judgement.exit_code",
        "    return 0",
        RUN,
    ),
    Mutant(
        "a shard always ends with 0",
        "benchmarks/__main__.py",
        "    return judgement.exit_code if judgement.objections else 0",
        "    return 0",
        RUN_SHARD,
    ),
    Mutant(
        "compare always ends with 0",
        "benchmarks/__main__.py",
        "    return 1 if comparison.regressions else 0",
        "    return 0",
        COMPARE_CODES,
    ),
    Mutant(
        "missing data ends with 0",
        "benchmarks/__main__.py",
        "        return error.exit_code",
        "        return 0",
        MISTAKES,
    ),
    Mutant(
        "make benchmark ends as pytest does, so a suite that was skipped has passed",
        "benchmarks/conftest.py",
        "        session.exitstatus = report.judgement.exit_code",
        "        pass",
        ACCEPTANCE,
    ),
    Mutant(
        "a gate that was missed is no failed test",
        "benchmarks/test_acceptance.py",
        "    if messages:\n",
        "    if False:\n",
        ACCEPTANCE,
    ),
    Mutant(
        "make benchmark judges the first seed alone",
        "benchmarks/test_acceptance.py",
        "judge(records, [configuration], options.seeds,",
        "judge(records, [configuration], options.seeds[:1],",
        ACCEPTANCE,
    ),
    Mutant(
        "make benchmark accepts records of any profile",
        "benchmarks/test_acceptance.py",
        "options.allow_not_run, options.profile)",
        "options.allow_not_run)",
        ACCEPTANCE,
    ),
    Mutant(
        "the full profile runs on drawn data",
        "benchmarks/options.py",
        '    if text == SYNTHETIC:\n        if profile == "full":',
        "    if text == SYNTHETIC:\n        if False:",
        OPTIONS,
    ),
    Mutant(
        "a GPU that torch cannot use is passed over",
        "benchmarks/options.py",
        "    if found is not None:\n",
        "    if False:\n",
        OPTIONS,
    ),
    Mutant(
        "a seed given twice counts as two measurements",
        "benchmarks/options.py",
        "    if len(set(seeds)) != len(seeds):\n",
        "    if False:\n",
        OPTIONS,
    ),
)

MUTANTS: tuple[Mutant, ...] = (
    *_JUDGING,
    *_THRESHOLDS,
    *_RECORDS,
    *_SCORES,
    *_RUNS,
    *_SHARDS,
    *_COMPARING,
    *_TOLD,
    *_COMMANDS,
)
