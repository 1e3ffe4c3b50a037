"""The whole suite, short: seven real trainings on tiny synthetic data, their records, the table, and a second call."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import pretrained
from benchmarks.faults import nondeterministic_operations
from benchmarks.gates import judge
from benchmarks.plan import Cluster, Plan, open_device
from benchmarks.records import Record, read_record, read_records, record_path, write_record
from benchmarks.report import write_report
from benchmarks.runner import Runner, is_current
from benchmarks.shards import Shard
from benchmarks.suite import SUITE, Configuration
from benchmarks.timing import first_pass, timing
from hw6core.errors import DataError, InfrastructureError, UsageError
from hw6core.seeding import set_deterministic
from hw6core.train import Training
from tests.short_runs import run, shortened


@pytest.fixture(scope="module")
def small_stand_in() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "_PROXY_IMAGES", 96)
        patch.setattr(pretrained, "_PROXY_VALIDATION", 32)
        patch.setattr(pretrained, "cached_imagenet_weights", lambda: None)
        yield


@pytest.fixture(scope="module")
def plan(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    configurations = [shortened(configuration) for configuration in SUITE.values()]
    return Plan(configurations, "quick", (0,), data, "cpu", tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def finished(plan: Plan, small_stand_in: None) -> tuple[list[Record], str]:
    return run(plan)


def test_every_configuration_is_completed(finished: tuple[list[Record], str]) -> None:
    records, _ = finished
    assert {record.configuration: record.message for record in records if record.status != "completed"} == {}
    assert [record.configuration for record in records] == list(SUITE)


def test_a_record_holds_what_judging_and_reporting_need(finished: tuple[list[Record], str]) -> None:
    for record in finished[0]:
        gated = {gate.metric for gate in SUITE[record.configuration].gates}
        assert gated <= set(record.metrics)
        assert gated <= set(record.trivial)
        assert {"training_s", "evaluation_s", "data_s", "total_s", "epochs", "best_epoch"} <= set(record.timing)
        assert record.timing["epochs"] == 2
        assert all(len(curve) == 2 for curve in record.history.values())
        assert {"train_loss", "validation_loss", "seconds"} <= set(next(iter(record.history.values()))[0])
        parts = ("data_s", "base_weights_s", "warmup_s", "training_s", "evaluation_s")
        assert 0 < sum(record.timing.get(part) or 0.0 for part in parts) <= (record.timing["total_s"] or 0.0)
        assert (record.timing["warmup_s"] or 0.0) > 0
        assert {key: len(curve) for key, curve in record.history.items()} == dict.fromkeys(record.history, 2)
        assert set(record.details["best_epochs"]) == set(record.history)
        assert record.environment["machine"]["peak_memory_gib"] > 0
        assert record.environment["device"] == "cpu"
        assert record.data["kind"] == "synthetic"


def test_runs_start_from_the_weights_that_they_say(finished: tuple[list[Record], str]) -> None:
    assert {record.configuration: record.weights for record in finished[0]} == {
        "seg-baseline": "random",
        "seg-augmented": "random",
        "colorization": "random",
        "seg-pretrained": "colorization",
        "vgg-scratch": "random",
        "vgg-frozen": "stand-in",
        "vgg-new-task": "vgg-scratch against stand-in",
    }


def test_a_suite_trained_for_two_epochs_is_judged_and_reported_as_failed(
    finished: tuple[list[Record], str], plan: Plan
) -> None:
    judgement = judge(read_records(plan.results), plan.configurations, [0])
    assert not judgement.accepted
    report = write_report(plan.results, plan.configurations, [0]).path.read_text(encoding="utf-8")
    assert "FAILED" in report.splitlines()[2]
    assert all(f"| {name} " in report for name in SUITE if name != "vgg-frozen")
    assert "synthetic" in report
    figures = {path.name for path in (plan.results / "figures").iterdir()}
    assert {"curves-segmentation.png", "recolored.png", "masks-seg-baseline.png"} <= figures


def test_a_second_call_skips_what_is_done(finished: tuple[list[Record], str], plan: Plan) -> None:
    before = {path: path.stat().st_mtime_ns for path in (plan.results / "records").iterdir()}
    records, seen = run(plan)
    assert seen.count("done before") == len(SUITE)
    assert records == [read_record(record_path(plan.results, name, 0)) for name in SUITE]
    assert {path: path.stat().st_mtime_ns for path in (plan.results / "records").iterdir()} == before


def test_what_is_missing_runs_again_with_all_that_starts_from_it(
    finished: tuple[list[Record], str], plan: Plan
) -> None:
    record_path(plan.results, "colorization", 0).unlink()
    chosen = [entry for entry in plan.configurations if entry.kind in ("segmentation", "colorization")]
    before = {record.configuration: record for record in finished[0]}
    records, seen = run(replace(plan, configurations=chosen))
    assert seen.count("done before") == 2
    again = {record.configuration for record in records if record.timing != before[record.configuration].timing}
    assert again == {"colorization", "seg-pretrained"}
    # The same seed on the same machine: the repetition finds the same scores.
    assert all(record.metrics == before[record.configuration].metrics for record in records)


def test_a_record_of_other_conditions_is_out_of_date(finished: tuple[list[Record], str]) -> None:
    record, configuration = finished[0][0], shortened(SUITE["seg-baseline"])

    def current(environment: dict[str, object], data: dict[str, object], entry: Configuration) -> bool:
        return is_current(record, entry, "quick", environment, data)

    assert current(record.environment, record.data, configuration)
    for name in ("torch", "device_name", "source", "precision"):
        assert not current(record.environment | {name: "other"}, record.data, configuration)
    assert not current(record.environment, record.data | {"fingerprint": "0" * 16}, configuration)
    longer = replace(configuration, work={"quick": replace(configuration.work["quick"], epochs=3)})
    assert not current(record.environment, record.data, longer)


def test_two_shards_carry_out_what_one_call_would(data: Path, tmp_path: Path) -> None:
    chosen = [shortened(SUITE[name]) for name in ("seg-baseline", "colorization", "seg-pretrained")]
    found = []
    for number in (1, 2):
        plan = Plan(chosen, "quick", (0,), data, "cpu", tmp_path / str(number), shard=Shard(number, 2))
        found.append([(record.configuration, record.status) for record in run(plan)[0]])
    assert found == [[("colorization", "completed"), ("seg-pretrained", "completed")], [("seg-baseline", "completed")]]


def test_a_diverged_run_is_an_error_and_what_starts_from_it_is_not_run(data: Path, tmp_path: Path) -> None:
    names = ("colorization", "seg-pretrained", "seg-baseline")
    colorization, pretrained_run, baseline = (shortened(SUITE[name]) for name in names)
    exploding = replace(colorization, work={"quick": replace(colorization.work["quick"], learning_rate=1e30)})
    plan = Plan([exploding, pretrained_run, baseline], "quick", (0,), data, "cpu", tmp_path)
    records, _ = run(plan)
    assert [record.status for record in records] == ["error", "error", "completed"]
    assert records[0].message.startswith("the training loss of step 2 (epoch 2) is inf; the last finite one was 0.01")
    assert records[1].message == "colorization seed 0 has the status 'error', and this run starts from it"


@pytest.mark.parametrize(
    ("error", "machine"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: no"),
            True,
        ),
        (OSError(28, "No space left on device"), True),
        (MemoryError(), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyError("a fault of ours"), False),
    ],
)
def test_what_the_machine_did_is_told_from_what_the_program_did(
    error: Exception, machine: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: object) -> object:
        raise error

    monkeypatch.setattr("benchmarks.runner.carry_out", fail)
    chosen = [shortened(SUITE[name]) for name in ("colorization", "seg-pretrained")]
    records, _ = run(Plan(chosen, "quick", (0,), data, "cpu", tmp_path))
    assert [record.status for record in records] == ["error", "error"]
    assert records[0].message.startswith(type(error).__name__ if machine else f"unexpected {type(error).__name__}")
    assert judge(records, chosen, [0]).exit_code == (4 if machine else 70)


def test_missing_data_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    plan = Plan([shortened(SUITE["vgg-scratch"])], "quick", (0,), tmp_path, "cpu", tmp_path / "results")
    with pytest.raises(DataError, match="no Fashion-MNIST in"):
        run(plan)
    assert not (tmp_path / "results").exists()


def test_missing_imagenet_weights_are_looked_for_once_and_told_before_anything_is_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def refuse() -> Path:
        attempts.append(1)
        raise DataError("the VGG16 weights could not be downloaded")

    monkeypatch.setattr(pretrained, "cached_imagenet_weights", lambda: None)
    monkeypatch.setattr(pretrained, "fetch_vgg16_weights", refuse)
    work = {"full": shortened(SUITE["vgg-frozen"]).work["quick"]}
    plan = Plan([replace(SUITE["vgg-frozen"], work=work)], "full", (0, 1), data, "cpu", tmp_path)
    records, seen = run(plan)
    assert [(record.status, record.message) for record in records] == [
        ("not run", "the VGG16 weights could not be downloaded")
    ] * 2
    assert len(attempts) == 1
    assert seen.splitlines()[0].startswith("no ImageNet weights, so what needs them will be 'not run'")


def test_each_start_of_the_new_task_reaches_its_own_gate() -> None:
    gates, trivial = SUITE["vgg-new-task"].gates, {"accuracy_from_scratch": 0.82, "accuracy_from_pretrained": 0.9}
    history = [{"epoch": epoch, "accuracy": 0.80 + 0.05 * epoch, "seconds": 5.0 * epoch} for epoch in (0, 1, 2, 3)]
    scratch, pretrained_start = (
        first_pass(f"from_{start}", history, gates, trivial) for start in ("scratch", "pretrained")
    )
    assert scratch is not None
    assert scratch["epoch"] == 1  # 0.85
    assert pretrained_start is not None
    assert pretrained_start["epoch"] == 3  # 0.95: 0.90 is not above 0.9
    assert first_pass("from_scratch", history[:1], gates, trivial) is None


def test_the_deterministic_mode_repeats_weights_bit_for_bit_and_is_told(data: Path, tmp_path: Path) -> None:
    weights, learned = [], []
    for name in ("first", "second"):
        plan = Plan(
            [shortened(SUITE["seg-augmented"])], "quick", (3,), data, "cpu", tmp_path / name, deterministic=True
        )
        (record,), _ = run(plan)
        assert record.environment["mode"] == "deterministic"
        assert "nondeterministic_operations" not in record.details
        weights.append((tmp_path / name / "weights" / "seg-augmented-seed3.safetensors").read_bytes())
        learned.append(record.details["learned"])
    set_deterministic(False)
    assert weights[0] == weights[1]
    assert learned[0] == learned[1]
    assert learned[0].keys() == {"training"}


def test_another_gpu_of_the_same_kind_goes_on_with_a_training_and_another_kind_does_not(
    data: Path, tmp_path: Path
) -> None:
    at_work = Runner(Plan([SUITE["seg-baseline"]], "quick", (0,), data, "cpu", tmp_path))
    before = at_work._identity(SUITE["seg-baseline"], 0)
    at_work.environment["gpu_uuid"] = "GPU-2"
    assert at_work._identity(SUITE["seg-baseline"], 0) == before
    at_work.environment["device_name"] = "another"
    assert at_work._identity(SUITE["seg-baseline"], 0) != before


@pytest.mark.parametrize(
    ("change", "expected"),
    [({}, True), ({"gpus": 1}, True), ({"gpus": 2}, False), ({"cluster": Cluster("auto")}, False),
     ({"shard": Shard(1, 2)}, False)],
)  # fmt: skip
def test_a_scheduler_may_give_a_part_another_gpu_each_time(change: dict[str, Any], expected: bool) -> None:
    assert replace(Plan([], "quick", (0,), Path(), "cpu", Path()), **change).on_one_device is expected


def test_an_operation_without_a_deterministic_form_is_named() -> None:
    set_deterministic(True)
    with nondeterministic_operations() as found:
        warnings.warn("grid_sampler_2d_backward_cuda does not have a deterministic implementation, but", stacklevel=1)
    set_deterministic(False)
    assert found == {"grid_sampler_2d_backward_cuda"}


def test_an_error_record_is_not_taken_for_done(data: Path, tmp_path: Path) -> None:
    plan = Plan([shortened(SUITE["seg-baseline"])], "quick", (0,), data, "cpu", tmp_path)
    (record,), _ = run(plan)
    record.status = "error"
    write_record(tmp_path, record)
    (again,), seen = run(plan)
    assert again.status == "completed"
    assert "done before" not in seen


def test_a_device_that_is_not_there_is_infrastructure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InfrastructureError, match="no CUDA device is visible"):
        open_device("cuda")
    with pytest.raises(UsageError, match="unknown device 'tpu'; expected cpu or cuda"):
        open_device("tpu")


def test_every_configuration_runs_with_every_seed() -> None:
    plan = Plan([SUITE["seg-baseline"], SUITE["colorization"]], "quick", (3, 5), Path(), "cpu", Path())
    assert [(configuration.id, seed) for configuration, seed in plan.runs] == [
        ("seg-baseline", 3),
        ("colorization", 3),
        ("seg-baseline", 5),
        ("colorization", 5),
    ]


def test_a_run_from_other_base_weights_runs_again(
    finished: tuple[list[Record], str], plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = next(record for record in finished[0] if record.configuration == "vgg-frozen")
    configuration = next(entry for entry in plan.configurations if entry.id == "vgg-frozen")
    runner = Runner(plan)
    assert runner._valid_record(configuration, 0) is not None
    assert record.weights == "stand-in"
    monkeypatch.setattr("benchmarks.runner.expected_label", lambda given, stand_in: "ImageNet")
    assert runner._valid_record(configuration, 0) is None


def test_a_stand_in_that_is_made_leaves_the_run_the_same_draws_as_one_that_is_there(
    finished: tuple[list[Record], str], plan: Plan, tmp_path: Path
) -> None:
    """A run that was killed after its stand-in was made goes on with what is there."""
    made = next(record for record in finished[0] if record.configuration == "vgg-frozen")
    configuration = next(entry for entry in plan.configurations if entry.id == "vgg-frozen")
    stand_ins = plan.results / "weights"
    assert list(stand_ins.glob(f"{pretrained.STAND_IN_FILES}*"))
    (found,), _ = run(replace(plan, configurations=[configuration], results=tmp_path, stand_ins=stand_ins))
    losses = [[entry["train_loss"] for entry in record.history["training"]] for record in (made, found)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_time_to_gate_needs_every_curve_to_reach_its_own() -> None:
    gates, trivial = SUITE["vgg-new-task"].gates, {"accuracy_from_scratch": 0.5, "accuracy_from_pretrained": 0.9}
    good = [{"epoch": 1.0, "accuracy": 0.95, "seconds": 4.0}]
    poor = [{"epoch": 1.0, "accuracy": 0.85, "seconds": 3.0}]

    def told(pretrained_curve: list[dict[str, float]]) -> dict[str, float | None]:
        trainings = {
            "from_scratch": Training(history=good, best_epoch=1),
            "from_pretrained": Training(history=pretrained_curve, best_epoch=1),
        }
        run = SimpleNamespace(trainings=trainings, seconds={}, arithmetic_s=0.0, memory_s=0.0)
        return timing(run, gates, trivial)  # type: ignore[arg-type]

    assert told(good)["seconds_to_gate"] == 8.0
    assert told(poor)["seconds_to_gate"] is None
    assert told(poor)["epochs_to_gate"] is None
