"""The CUDA code path, rehearsed without a GPU: all calls are valid, in the right order, and none waits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite import SUITE
from tests import dry_gpu
from tests.dry_gpu.rehearsal import DEFECTS

CHECKOUT = Path(__file__).parent.parent
CAPTURED, DETERMINISTIC = {"captured": True}, {"deterministic": True}
BASELINE = {"only": ["seg-baseline"]}
JOBS: list[dict[str, Any]] = [
    {},
    CAPTURED | {"only": ["seg-augmented", "colorization", "vgg-frozen", "vgg-new-task"]},
    DETERMINISTIC | {"only": ["seg-augmented", "colorization", "vgg-scratch"]},
    *(BASELINE | {"defect": defect} for defect in DEFECTS),
    BASELINE | CAPTURED | {"defect": "item"},
    BASELINE | CAPTURED | {"environment": {"DRY_GPU_GIB": "0.9", "DRY_SM": "75"}},
]
Found = Mapping[str, Any]
MISSING = dry_gpu.what_is_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture(scope="module")
def rehearsed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    folder = tmp_path_factory.mktemp("rehearsed")
    result = folder / "result.json"
    options = ["--data", data, "--profile", "quick", "--device", "cuda", "--gpus", "1", "--results", folder / "lost"]
    lost = {"command": ["run", "seg-baseline", *map(str, options)], "environment": {"DRY_FAIL": "700:2000"}}
    command = [sys.executable, "-m", "tests.dry_gpu.rehearsal", str(result), json.dumps([*JOBS, lost])]
    environment = dry_gpu.environment(dry_gpu.build(folder))
    ended = subprocess.run(command, cwd=CHECKOUT, env=environment, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found: list[Found] = json.loads(result.read_text(encoding="utf-8"))
    return found


def test_every_configuration_runs_at_full_size_without_a_wait(rehearsed: list[Found]) -> None:
    assert list(rehearsed[0]) == list(SUITE)
    for job, found in zip(JOBS[:3], rehearsed[:3], strict=True):
        for name, run in found.items():
            assert (run["status"], run["message"]) == ("completed", ""), (job, name)
            assert run["step"]["waits"] == run["step"]["to_device"] == run["step"]["from_device"] == 0, (job, name)


def test_a_captured_step_is_one_launch_and_what_makes_its_batch(rehearsed: list[Found]) -> None:
    eager, captured = rehearsed[0], rehearsed[1]
    for name, run in captured.items():
        assert run["step"]["replays"] == 1
        assert run["step"]["library"] == 0, "the network's kernels are in the CUDA graph"
        assert run["step"]["launches"] < eager[name]["step"]["launches"] / 2
        assert "not_recorded" not in run["details"]
        assert run["peak_gib"] < eager[name]["peak_gib"] + 0.2, "memory of an earlier stream or graph is not freed"


def test_the_deterministic_mode_does_not_double_the_launches(rehearsed: list[Found]) -> None:
    for name, run in rehearsed[2].items():
        assert run["step"]["launches"] < 1.3 * rehearsed[0][name]["step"]["launches"]


def test_measuring_the_limits_frees_its_memory(rehearsed: list[Found]) -> None:
    """It copies between two blocks of 2 GiB; the baseline itself needs a third of one."""
    assert rehearsed[0]["seg-baseline"]["reserved_gib"] < 1


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (3, "called a synchronizing CUDA operation"),
        (4, "Expected all tensors to be on the same device"),
        (5, "called a synchronizing CUDA operation"),
    ],
    ids=list(DEFECTS),
)
def test_a_planted_defect_is_found(job: int, message: str, rehearsed: list[Found]) -> None:
    run = rehearsed[job]["seg-baseline"]
    assert run["status"] == "error"
    assert message in run["message"]


def test_a_step_that_cannot_be_captured_runs_eagerly(rehearsed: list[Found]) -> None:
    """A wait in a later step ends this run, not the failed capture, which is another error."""
    assert "called a synchronizing CUDA operation" in rehearsed[6]["seg-baseline"]["message"]


def test_a_small_old_gpu_trains_in_float16_with_split_batches(rehearsed: list[Found]) -> None:
    """With 0.4 GiB of free memory; the gradient scaler is part of the CUDA graph, and nothing waits for it."""
    run = rehearsed[7]["seg-baseline"]
    assert (run["status"], run["message"]) == ("completed", "")
    assert run["precision"] == "float16"
    assert run["step"]["replays"] == 1
    assert run["step"]["waits"] == run["step"]["to_device"] == run["step"]["from_device"] == 0
    assert run["details"]["gradient_accumulation"] == 4


def test_a_device_that_is_lost_is_an_infrastructure_error(rehearsed: list[Found]) -> None:
    assert rehearsed[8]["code"] == 4
    expected = "error: seg-baseline seed 0: the device failed: CUDA error: an illegal memory access was encountered"
    assert rehearsed[8]["printed"][-1] == expected
