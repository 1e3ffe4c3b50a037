"""Kills, full disks, lack of memory, hangs: finished work is kept, partial work is not used, the machine is blamed."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from benchmarks.errors import InfrastructureError
from benchmarks.results.gates import Asked, judge
from benchmarks.results.records import Record, read_record, record_path
from benchmarks.runs import runner
from benchmarks.runs.plan import Plan
from benchmarks.runs.results_folder import _needed_gb, locked
from benchmarks.suite import SUITE
from benchmarks.workloads import run as workloads
from benchmarks.workloads.run import Run, checkpoints_folder, weights_path
from hw6core.checkpoint import Checkpoint
from hw6core.errors import UsageError
from hw6core.seeding import set_deterministic
from hw6core.training import Training
from tests.killed_suite import NAMES, execute, make_fast, plan
from tests.own_process import FORKS
from tests.short_runs import run, shortened

_CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _no_ceilings_and_fast_again() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_fast(patch)
        yield
    set_deterministic(False)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("undisturbed")
    run(plan(data, results))
    return results


def what_was_learned(results: Path) -> Mapping[str, Any]:
    """Everything in the records except times, and the weights' bytes."""
    learned: dict[str, Any] = {}
    for name in NAMES:
        record = read_record(record_path(results, name, 0))
        assert record.status == "completed", record.message
        assert (record.environment.mode, record.details.nondeterministic_operations) == ("deterministic", None)
        assert record.details.learned
        history = {
            curve: [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]
            for curve, entries in record.history.items()
        }
        details = msgspec.structs.replace(record.details, started_from=None, limited_by=None)
        learned[name] = (record.metrics, record.trivial, history, details)
        learned[f"{name} weights"] = weights_path(results, name, 0).read_bytes()
    return learned


# Where and at which call the process is killed; what the next one prints about both runs. A step is an epoch here.
KILL_POINTS = {
    "loading the data": ("benchmarks.workloads.datasets:load_colorization", 2, "", ""),
    "the last validation": ("hw6core.training:predict", 3, "resumed from step 2 of 3", ""),
    "writing a checkpoint": ("hw6core.checkpoint:save_file", 2, "resumed from step 1 of 3", ""),
    "scoring": ("benchmarks.workloads.run:predict", 1, "resumed from step 3 of 3", ""),
    "saving the weights": ("benchmarks.workloads.run:save_weights", 1, "resumed from step 3 of 3", ""),
    "writing the record": ("benchmarks.runs.runner:write_record", 1, "resumed from step 3 of 3", ""),
    "the second run's training": ("hw6core.training:predict", 5, "already done", "resumed from step 1 of 3"),
    "the report": ("benchmarks.report.markdown:write_report", 1, "already done", "already done"),
}


@pytest.mark.parametrize("moment", KILL_POINTS)
def test_a_killed_run_ends_with_the_same_bits(moment: str, data: Path, undisturbed: Path, tmp_path: Path) -> None:
    point, count, *texts = KILL_POINTS[moment]
    process = FORKS.Process(target=execute, args=(data, tmp_path, point, count))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    records, seen = run(plan(data, tmp_path))
    assert [record.status for record in records] == ["completed"] * 2
    assert what_was_learned(tmp_path) == what_was_learned(undisturbed)
    for name, text in zip(NAMES, texts, strict=True):
        lines = "\n".join(line for line in seen.splitlines() if f"{name} seed 0:" in line)
        assert text in lines
        assert ("resumed" in lines) == ("resumed" in text)
    assert not list(tmp_path.rglob(".hw6-unfinished*"))
    assert not list((tmp_path / "checkpoints").glob("*"))
    interruptions = sum(record.timing.interruptions or 0.0 for record in records)
    assert interruptions == ("resumed" in "".join(texts))


def test_sigterm_saves_the_state_and_ends_with_its_exit_code(data: Path, tmp_path: Path) -> None:
    """As sent by a scheduler, to the real command line in the middle of a long training."""
    variables = {"PROFILE": "quick", "DATA": str(data), "RESULTS": str(tmp_path), "ONLY": "seg-baseline"}
    command, environment = [sys.executable, "-m", "benchmarks", "run"], os.environ | variables | {"DEVICE": "cpu"}
    process = subprocess.Popen(command, cwd=_CHECKOUT, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[1/1] seg-baseline"):
            break
    time.sleep(1.5)  # until about the first steps; it must end wherever it is
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("interrupted; finished epochs are kept")
    assert not record_path(tmp_path, "seg-baseline", 0).exists()


def test_two_suites_do_not_share_a_results_folder(data: Path, tmp_path: Path) -> None:
    with locked(plan(data, tmp_path)):
        with pytest.raises(UsageError, match=r"is in use by another process; wait until it is done, or use another"):
            run(plan(data, tmp_path))
        run_elsewhere = replace(plan(data, tmp_path / "other"), configurations=[shortened(SUITE["colorization"])])
        assert run(run_elsewhere)[0][0].status == "completed"
    with locked(plan(data, tmp_path)):
        pass  # free again


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    ("attempts", "full"),
    [
        (1, FULL),
        (2, FULL),
        (2, torch.AcceleratorError("CUDA error: out of memory\nhint")),
        (1, MemoryError()),
        (1, RuntimeError("[enforce fail at alloc_cpu.cpp:130] DefaultCPUAllocator: can't allocate memory")),
        (1, RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
        (1, RuntimeError("GET was unable to find an engine to execute this computation")),
    ],
    ids=lambda value: str(value)[:60],
)
def test_out_of_memory_is_retried_once_with_split_batches(
    attempts: int, full: Exception, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    deadlines: set[float] = set()
    outcome = workloads.Outcome({}, {}, "random")

    def execute(todo: Run) -> workloads.Outcome:
        seen.append(todo.schedule().accumulation_steps)
        deadlines.add(todo.deadline)
        if len(seen) <= attempts:
            raise full
        todo.trainings["training"] = Training(training_s=1.0)
        return outcome

    monkeypatch.setattr(runner, "execute", execute)
    chosen = [shortened(SUITE["colorization"])]
    (record,), output = run(Plan(chosen, "quick", (0,), data, "cpu", tmp_path, limit_s=3600))
    assert seen == [1, 4]
    assert len(deadlines) == 1  # a run that takes longer is ended as one that hangs
    assert "colorization seed 0: out of memory; retrying with batches in 4 parts" in output
    if attempts == 1:
        assert record.status == "completed"
        assert record.details.gradient_accumulation == 4
    else:
        assert record.message == f"{type(full).__name__}: {str(full).splitlines()[0]}"
        assert judge([record], Asked(chosen, [0])).exit_code == 4


def test_a_run_beyond_its_time_limit_can_be_resumed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workloads, "Checkpoint", partial(Checkpoint, share=math.inf))
    chosen = [shortened(SUITE[name], epochs=3) for name in ("colorization", "seg-baseline")]
    short = Plan(chosen, "quick", (0,), data, "cpu", tmp_path, limit_s=1e-9)
    records, _ = run(short)
    assert [record.status for record in records] == ["error"] * 2
    assert records[0].message == "the run exceeded its time limit; set a longer one: LIMIT=MINUTES"
    assert judge(records, Asked(chosen, [0])).exit_code == 1
    records, _ = run(replace(short, limit_s=3600))
    assert [record.status for record in records] == ["completed"] * 2


def test_a_run_that_hangs_is_ended_and_recorded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(runner, "_PATIENCE_S", 0.05)
    monkeypatch.setattr("benchmarks.runs.runner.os._exit", codes.append)
    messages: list[Record] = []

    def hang(todo: Run) -> workloads.Outcome:
        end = time.monotonic() + 20
        while not codes and time.monotonic() < end:
            time.sleep(0.01)
        messages.append(read_record(record_path(tmp_path, "colorization", 0)))
        raise RuntimeError("the real process has ended by now")

    monkeypatch.setattr(runner, "execute", hang)
    run(Plan([shortened(SUITE["colorization"])], "quick", (0,), data, "cpu", tmp_path, limit_s=0.01))
    assert codes == [4]
    assert messages[0].message.startswith("the run hung and was ended after")
    assert messages[0].details.infrastructure
    assert "error: colorization seed 0: the run hung and was ended" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "seeds", "workers", "expected"),
    [
        (["seg-baseline", "colorization"], 3, 2, 2 * 0.2 + 6 * 0.01),
        (["vgg-scratch"], 100, 1, 4.3 + 100 * 0.55),  # the weights of every seed are kept
        (["vgg-scratch", "vgg-frozen"], 4, 8, 4 * (4.3 + 0.55) + 4 * (0.2 + 0.01)),  # the latter trains one layer
    ],
)
def test_the_space_needed_for_all_seeds_and_concurrent_runs(
    names: list[str], seeds: int, workers: int, expected: float, tmp_path: Path
) -> None:
    wanted = Plan([SUITE[name] for name in names], "quick", range(seeds), tmp_path, "cpu", tmp_path, workers=workers)
    assert _needed_gb(wanted) == pytest.approx(expected)


def test_what_a_killed_run_has_written_is_not_needed_again(tmp_path: Path) -> None:
    wanted = Plan([SUITE["seg-baseline"]], "quick", (0, 1), tmp_path, "cpu", tmp_path)
    for name in ("weights/seg-baseline-seed0.safetensors", "weights/seg-baseline-seed7.safetensors"):  # 7: not planned
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(10_000_000))
    whole = 0.2 + 2 * 0.01
    assert _needed_gb(wanted) == pytest.approx(whole - 0.01)
    checkpoints = checkpoints_folder(tmp_path, "seg-baseline", 1)
    checkpoints.mkdir(parents=True)
    with (checkpoints / "training.safetensors").open("wb") as file:
        file.truncate(40_000_000)
    assert _needed_gb(wanted) == pytest.approx(whole - 0.05)


def test_a_full_disk_is_reported_before_training(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"total": 10**12, "free": 100_000_000}))
    with pytest.raises(InfrastructureError, match=r"has 0\.1 GB of free space, but the runs need 0\.2 GB; free up"):
        run(plan(data, tmp_path))


def test_a_full_disk_loses_no_finished_record(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_text

    def full(path: Path, text: str, **more: Any) -> int:
        if path.name == "seg-pretrained-seed0.json":
            raise OSError(28, "No space left on device")  # without a file, as of `write`
        return real(path, text, **more)

    monkeypatch.setattr(Path, "write_text", full)
    # The command line reports it with exit code 4.
    with pytest.raises(OSError, match=r"No space left on device: '.*/records/seg-pretrained-seed0\.json'"):
        run(plan(data, tmp_path))
    assert read_record(record_path(tmp_path, "colorization", 0)).status == "completed"


@pytest.mark.parametrize("damage", ["cut", "flipped", "exchanged", "gone"])
def test_damaged_weights_are_trained_again(damage: str, data: Path, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    path = weights_path(tmp_path, "colorization", 0)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    if damage == "exchanged":
        shutil.copyfile(weights_path(tmp_path, "seg-pretrained", 0), path)
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if damage == "cut" else content)
    _, seen = run(plan(data, tmp_path))
    assert "already done" not in seen
    learned, expected = what_was_learned(tmp_path), what_was_learned(undisturbed)
    assert learned == expected


def test_a_lost_device_is_recorded_and_ends_the_suite(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(todo: Run) -> workloads.Outcome:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore lines")

    monkeypatch.setattr(runner, "execute", lose)
    with pytest.raises(InfrastructureError, match=r"colorization seed 0: the device failed: CUDA error: an illegal"):
        run(plan(data, tmp_path))
    record = read_record(record_path(tmp_path, "colorization", 0))
    assert record.message == "the device failed: CUDA error: an illegal memory access was encountered"
    assert judge([record], Asked([SUITE["colorization"]], [0])).exit_code == 4


def test_full_device_memory_is_infrastructure(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore lines")

    monkeypatch.setattr(runner, "measure_ceiling", full)
    run(plan(data, tmp_path))
    record = read_record(record_path(tmp_path, "colorization", 0))
    assert record.message == "CUDA out of memory. Tried to allocate 2.00 GiB, while measuring the limits of cpu"
    assert judge([record], Asked([SUITE["colorization"]], [0])).exit_code == 4
    monkeypatch.setattr(runner, "choose_precision", full)
    with pytest.raises(InfrastructureError, match=r"cannot use cpu: CUDA out of memory.*; see: make smoke"):
        run(plan(data, tmp_path))
