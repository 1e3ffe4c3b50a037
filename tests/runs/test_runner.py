"""The whole suite, shortened: seven real trainings on tiny synthetic data, their records, the report, a second call."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from benchmarks.engines.engine import with_base_weights
from benchmarks.errors import InfrastructureError
from benchmarks.machine.monitor import Meter
from benchmarks.report.markdown import write_report
from benchmarks.results.gates import Asked, judge
from benchmarks.results.records import TIME_PARTS, Details, Record, read_record, read_records, record_path
from benchmarks.runs.plan import Cluster, Plan, Shard
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import Runner
from benchmarks.suite import STAND_IN, SUITE
from benchmarks.workloads import execute, pretrained
from benchmarks.workloads.run import Outcome, Run, weights_path
from hw6core import steps
from hw6core.errors import DataError, UsageError
from hw6core.training import Training
from tests.fake_nvml import UUID, install
from tests.finished_runs import no_figures
from tests.killed_suite import make_fast
from tests.record_factory import make_record
from tests.short_runs import SOME_CEILING, run, shortened


@pytest.fixture(scope="module", autouse=True)
def small_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_fast(patch)
        patch.setattr(pretrained, "_PROXY_IMAGES", 96)
        patch.setattr(pretrained, "_PROXY_VALIDATION", 32)
        patch.setattr(pretrained, "cached_imagenet_weights", lambda: None)
        yield


@pytest.fixture(scope="module")
def plan(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    configurations = [shortened(configuration) for configuration in SUITE.values()]
    return Plan(configurations, "quick", (0,), data, "cpu", tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def finished(plan: Plan) -> tuple[list[Record], str]:
    return run(plan)


def test_every_configuration_is_completed(finished: tuple[list[Record], str]) -> None:
    records, _ = finished
    assert {record.configuration: record.message for record in records if record.status != "completed"} == {}
    assert [record.configuration for record in records] == list(SUITE)


def test_made_up_records_have_the_keys_of_real_ones(finished: tuple[list[Record], str]) -> None:
    """Other tests use `make_record`; its keys and its texts about the weights must be those of real records."""

    def names(record: Record) -> dict[str, set[str]]:
        (first, *_) = record.history.values()
        return {
            "metrics": set(record.metrics),
            "trivial": set(record.trivial),
            "floors": {f"{name}: {metric}" for name, floor in (record.floors or {}).items() for metric in floor},
            "history": set(record.history),
            "epoch": set(first[0]),
            "details": set(msgspec.to_builtins(record.details)),
        }

    for record in finished[0]:
        made = make_record(record.configuration)
        assert names(made) == names(record)
        assert made.weights.replace("ImageNet", "stand-in") == record.weights


def test_parts_of_a_run_are_not_longer_than_the_whole(finished: tuple[list[Record], str]) -> None:
    for record in finished[0]:
        assert 0 < sum(getattr(record.timing, part) or 0.0 for part in TIME_PARTS) <= (record.timing.total_s or 0.0)
        assert (record.timing.floors_s or 0.0) > 0
        assert (record.environment.machine.peak_memory_gib or 0.0) > 0


def test_a_suite_trained_for_two_epochs_is_judged_and_reported_as_failed(
    finished: tuple[list[Record], str], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.report.markdown.write_figures", no_figures)
    judgement = judge(read_records(plan.results), Asked(plan.configurations, [0]))
    assert not judgement.accepted
    report = write_report(plan.results, Asked(plan.configurations, [0])).path.read_text(encoding="utf-8")
    assert "FAILED" in report.splitlines()[2]
    assert all(f"| {name} " in report for name in SUITE if name != "vgg-frozen")
    assert "The stand-in for ImageNet weights was trained in " in report
    assert "vgg16-stand-in" not in report
    assert "synthetic" in report


def test_a_second_call_skips_finished_runs(finished: tuple[list[Record], str], plan: Plan) -> None:
    before = {path: path.stat().st_mtime_ns for path in (plan.results / "records").iterdir()}
    records, seen = run(plan)
    assert seen.count("already done") == len(SUITE) + 1  # and the stand-in
    assert records == [read_record(record_path(plan.results, name, 0)) for name in SUITE]
    assert {path: path.stat().st_mtime_ns for path in (plan.results / "records").iterdir()} == before


def test_a_missing_run_is_repeated_with_its_dependents(finished: tuple[list[Record], str], plan: Plan) -> None:
    record_path(plan.results, "colorization", 0).unlink()
    chosen = [entry for entry in plan.configurations if entry.kind in ("segmentation", "colorization")]
    before = {record.configuration: record for record in finished[0]}
    records, seen = run(replace(plan, configurations=chosen))
    assert seen.count("already done") == 2
    again = {record.configuration for record in records if record.timing != before[record.configuration].timing}
    assert again == {"colorization", "seg-pretrained"}
    # The same seed on the same machine has the same scores.
    assert all(record.metrics == before[record.configuration].metrics for record in records)


class Found:
    """Replaces `execute`: trains nothing, and derives all results from the number of the run."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def __call__(self, run: Run) -> Outcome:
        self.runs.append(run)
        number = 100.0 * len(self.runs)
        if run.configuration.id == "vgg-frozen" and run.accumulation_steps == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for index, curve in enumerate(("first", "second")):
            history = [{"epoch": float(epoch), "accuracy": number + index, "seconds": 1.0} for epoch in range(1, 4)]
            run.trainings[curve] = Training(history, index + 1, {}, training_s=number, samples=7)
        run.seconds["data_s"], run.arithmetic_s, run.memory_s = number, number, 250.0
        run.weights_digest, run.learned = f"digest {number}", {"first": f"learned {number}"}
        run.seconds["floors_s"] = 1e6
        floors = {str(name): {"accuracy": number + 1} for name in run.configuration.floors}
        details = {"pooled_dice": [number]}
        return Outcome({"accuracy": number}, {"accuracy": -number}, f"weights {number}", details, floors)


def test_every_record_holds_what_its_own_run_found(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Found()
    monkeypatch.setattr("benchmarks.runs.runner.execute", found)
    chosen = [shortened(SUITE["seg-baseline"]), shortened(SUITE["vgg-frozen"])]
    records, _ = run(Plan(chosen, "quick", (4, 2), data, "cpu", tmp_path))
    # The second and the fourth run did not fit into memory and were repeated.
    runs = [("seg-baseline", 4, 100.0), ("vgg-frozen", 4, 400.0), ("seg-baseline", 2, 500.0), ("vgg-frozen", 2, 700.0)]
    assert [(run.configuration.id, run.seed, run.accumulation_steps) for run in found.runs] == [
        *(("seg-baseline", 4, 1), ("vgg16-stand-in", 0, 1), ("vgg-frozen", 4, 1), ("vgg-frozen", 4, 4)),
        *(("seg-baseline", 2, 1), ("vgg-frozen", 2, 1), ("vgg-frozen", 2, 4)),
    ]
    for record, (name, seed, number) in zip(records, runs, strict=True):
        assert record == read_record(record_path(tmp_path, name, seed))
        assert (record.configuration, record.seed, record.profile, record.status) == (name, seed, "quick", "completed")
        assert (record.metrics, record.trivial) == ({"accuracy": number}, {"accuracy": -number})
        assert record.weights == f"weights {number}"
        assert record.floors == {floor: {"accuracy": number + 1} for floor in SUITE[name].floors}
        accuracies = {curve: history[0]["accuracy"] for curve, history in record.history.items()}
        assert accuracies == {"first": number, "second": number + 1}
        entry = SUITE[name]
        assert record.gates == entry.gates
        assert record.settings == shortened(entry).fingerprint("quick", "synthetic")
        samples = {"train": 8, "validation": 4, "test": 4} if name == "seg-baseline" else {"train": 100, "test": 40}
        assert record.data.samples == samples
        assert record.details == Details(
            pooled_dice=[number],
            weights_digest=f"digest {number}",
            learned={"first": f"learned {number}"},
            best_epochs={"first": 1, "second": 2},
            limited_by="arithmetic" if number > 250 else "memory",
            started_from={},
            gradient_accumulation=4 if name == "vgg-frozen" else None,
        )
        assert (record.timing.data_s, record.timing.training_s) == (number, 2 * number)
        assert record.timing.least_training_s == max(number, 250.0)
        assert record.timing.floors_s == 1e6
        assert -1e6 < (record.timing.total_s or 0.0) < 60 - 1e6  # without the (made-up) time of the floors
        assert record.environment.ceiling == asdict(SOME_CEILING)


def test_whatever_decides_a_number_makes_another_run_and_an_older_record_out_of_date(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Found()
    monkeypatch.setattr("benchmarks.runs.runner.execute", found)
    monkeypatch.setattr("benchmarks.runs.runner.check_vgg16_weights", lambda path: None)
    other_data = tmp_path / "data"
    shutil.copytree(data, other_data)
    images = next((other_data / "endovis" / "segmentation" / "test").glob("*/*_input.jpg"))
    images.write_bytes(images.read_bytes() + b"\0")
    weights = [tmp_path / name for name in ("one.pth", "two.pth")]
    for path in weights:
        path.write_text(path.name)
    plan = Plan([shortened(SUITE["seg-baseline"])], "quick", (0,), data, "cpu", tmp_path / "results")

    def identity(changed: Plan, **environment: str) -> str:
        """The identity of the run with the first one's record in the folder; "already done" if that is still valid."""
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(plan.results, folder)
        display = Display(io.StringIO())
        runner = Runner(with_base_weights(replace(changed, results=folder), display), display)
        runner.environment |= environment
        before = len(found.runs)
        runner.run_all()
        return found.runs[-1].identity if len(found.runs) > before else "already done"

    run(plan)
    first = found.runs[0].identity
    assert identity(plan) == "already done"
    assert identity(plan, gpu_uuid="another") == first
    on_any_gpu: list[dict[str, Any]] = [{"gpus": 2}, {"cluster": Cluster("auto")}, {"shard": Shard(1, 1)}]
    for several in on_any_gpu:
        assert identity(replace(plan, **several), gpu_uuid="another") == "already done"
    frozen = replace(plan, configurations=[shortened(SUITE["vgg-frozen"])])
    for judged_by in ({"floors": ("nearest class mean",)}, {"gates": SUITE["vgg-frozen"].gates}):
        judged_otherwise = replace(plan.configurations[0], **judged_by)
        assert identity(replace(plan, configurations=[judged_otherwise])) == first
    changed = [
        identity(replace(plan, data=other_data)),
        identity(replace(plan, configurations=[shortened(SUITE["seg-baseline"], epochs=3)])),
        identity(replace(plan, seeds=(1,))),
        *(
            identity(plan, **{name: "another"})
            for name in ("torch", "device_name", "source", "image", "precision", "mode")
        ),
        *(identity(replace(frozen, vgg16_weights=path)) for path in weights),
    ]
    assert "already done" not in changed
    assert len({first, *changed}) == 1 + len(changed)
    # Another GPU of the same kind, seed or pre-trained weights, or split batches do not change the floors.
    floors = [run.floors_identity for run in found.runs]
    assert len({*floors[:4], floors[6]}) == 1
    assert len({*floors[-4:]}) == 1
    assert len({*floors}) == len(floors) - 4 - 3


def test_a_diverged_run_is_an_error_and_so_is_a_run_that_starts_from_it(data: Path, tmp_path: Path) -> None:
    names = ("colorization", "seg-pretrained", "seg-baseline")
    colorization, pretrained_run, baseline = (shortened(SUITE[name]) for name in names)
    exploding = replace(colorization, work={"quick": replace(colorization.work["quick"], learning_rate=1e30)})
    plan = Plan([exploding, pretrained_run, baseline], "quick", (0,), data, "cpu", tmp_path)
    records, _ = run(plan)
    assert [record.status for record in records] == ["error", "error", "completed"]
    assert records[0].message.startswith("the training loss of step 2 (epoch 2) is inf; the last finite one was 0.01")
    assert records[1].message == "this run starts from colorization seed 0, which has the status 'error'"


@pytest.mark.parametrize(
    ("error", "machine"),
    [
        (OSError(28, "No space left on device"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyError("a bug"), False),
    ],
)
def test_machine_failures_are_distinguished_from_bugs(
    error: Exception, machine: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: object) -> object:
        raise error

    monkeypatch.setattr("benchmarks.runs.runner.execute", fail)
    chosen = [shortened(SUITE[name]) for name in ("colorization", "seg-pretrained")]
    records, _ = run(Plan(chosen, "quick", (0,), data, "cpu", tmp_path))
    assert [record.status for record in records] == ["error", "error"]
    assert records[0].message.startswith(type(error).__name__ if machine else f"unexpected {type(error).__name__}")
    assert judge(records, Asked(chosen, [0])).exit_code == (4 if machine else 70)
    assert any(tmp_path.glob("traceback-*.txt")) is not machine


def test_an_xid_makes_a_run_an_infrastructure_error_and_it_is_repeated(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = install(monkeypatch)
    monkeypatch.setattr("benchmarks.runs.runner.Meter", lambda device, shared: Meter(torch.device("cuda"), shared=True))
    plan = Plan([shortened(SUITE["seg-baseline"])], "quick", (0,), data, "cpu", tmp_path)
    sentence = f"GPU GPU-{UUID} had Xid 79 (it fell off the bus) during the run"

    def falls_off(run: Run) -> Outcome:
        outcome = execute(run)
        nvml.fire(45, 79)
        return outcome

    def is_lost(run: Run) -> Outcome:
        nvml.fire(79)
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr("benchmarks.runs.runner.execute", falls_off)
    (record,), seen = run(plan)
    assert (record.status, record.metrics.keys() >= {"course_dice"}, record.message in seen) == ("error", True, True)
    assert record.message.startswith(sentence)
    assert judge(read_records(tmp_path), Asked(plan.configurations, [0])).exit_code == 4
    monkeypatch.setattr("benchmarks.runs.runner.execute", execute)
    (again,), _ = run(plan)
    assert (again.status, again.timing.interruptions) == ("completed", 0), "it resumed from the end of the first"
    monkeypatch.setattr("benchmarks.runs.runner.execute", is_lost)
    with pytest.raises(InfrastructureError, match=f"launch failure; {re.escape(sentence)}"):
        run(replace(plan, seeds=(1,)))


def test_steps_that_cannot_be_captured_run_eagerly_with_a_message_and_a_note_in_the_record(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def capture(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nfurther lines")

    monkeypatch.setattr("benchmarks.runs.runner.capture_cuda_graph", capture)
    chosen = [shortened(SUITE["seg-baseline"], epochs=6)]
    (record,), output = run(Plan(chosen, "quick", (0,), data, "cpu", tmp_path, cuda_graphs=True))
    reason = "operation not permitted when stream is capturing"
    assert (record.status, record.details.not_recorded) == ("completed", reason)
    assert output.count(f"seg-baseline seed 0: steps are not captured as a CUDA graph: {reason}\n") == 1


def test_missing_imagenet_weights_are_reported_once_before_anything_is_trained(
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
    expected = ("not run", "the VGG16 weights could not be downloaded")
    assert [(record.status, record.message) for record in records] == [expected] * 2
    assert len(attempts) == 1
    assert seen.splitlines()[0].startswith("no ImageNet weights, so runs that need them will be 'not run'")


def test_a_damaged_stand_in_is_made_again(finished: tuple[list[Record], str], plan: Plan, tmp_path: Path) -> None:
    assert "vgg16-stand-in: completed" in finished[1]
    shutil.copytree(plan.results, tmp_path, dirs_exist_ok=True)
    made = weights_path(tmp_path, "vgg16-stand-in", 0)
    whole = made.read_bytes()
    made.write_bytes(whole[:-100])
    _, seen = run(replace(plan, results=tmp_path))
    assert seen.count("already done") == len(SUITE)
    assert made.read_bytes() == whole


def test_the_error_of_a_stand_in_is_reported_by_the_run_that_starts_from_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = replace(STAND_IN.work["quick"], learning_rate=1e30)
    monkeypatch.setitem(STAND_IN.work, "quick", work)
    chosen = [shortened(SUITE[name]) for name in ("vgg-frozen", "seg-baseline")]
    records, _ = run(Plan(chosen, "quick", (1,), data, "cpu", tmp_path))
    statuses = {record.configuration: record.status for record in records}
    assert statuses == {"vgg-frozen": "error", "seg-baseline": "completed"}
    expected = "this run starts from vgg16-stand-in seed 0, which has the status 'error': the training loss of step "
    assert records[0].message.startswith(expected)
    assert [record.configuration for record in read_records(tmp_path)] == ["seg-baseline", "vgg-frozen"]


def test_precision_and_compilation_change_a_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that cannot be compiled is an error in its record; a missing compiler is one before any training."""

    def compiler(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        if refused in graph.code:
            raise RuntimeError("no g++")
        return graph

    refused = "conv2d"
    plan = Plan([shortened(SUITE["seg-baseline"], 1)], "quick", (0,), data, "cpu", tmp_path, precision="float32")
    monkeypatch.setattr(steps, "COMPILER", compiler)
    for changed in (plan, replace(plan, precision="float16")):
        for done in (False, True):
            (record,), text = run(changed)
            assert ("already done" in text) is done
        assert (record.environment.precision, record.environment.mode) == (changed.precision, "fast")
    (record,), _ = run(replace(plan, compiled=True))
    assert (record.status, record.environment.mode, record.details.unexpected) == ("error", "fast, compiled", False)
    assert record.message == "torch.compile failed: backend='compiler' raised: RuntimeError: no g++"
    refused = "sin"
    with pytest.raises(UsageError, match=r"^COMPILE=1, but torch .* cannot compile .* no g\+\+\); install "):
        run(replace(plan, compiled=True))
