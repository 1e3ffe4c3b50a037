"""Unusual environments: file systems, users, repositories and settings of other programs."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.__main__ import main
from benchmarks.errors import InfrastructureError
from benchmarks.machine import devices
from benchmarks.machine import environment as module
from benchmarks.machine import monitor as machine
from benchmarks.machine.devices import PRECISIONS, choose_precision
from benchmarks.machine.environment import environment
from benchmarks.options import read_options
from benchmarks.results.records import record_path, write_record
from benchmarks.runs.plan import Plan
from benchmarks.runs.results_folder import locked
from benchmarks.suite import SUITE
from hw6core import dice
from hw6core.data.cache import cached
from hw6core.data.fetch import cached_imagenet_weights
from hw6core.device import Precision, precisions
from hw6core.errors import UsageError
from tests.record_factory import make_record

CHECKOUT = Path(__file__).parents[2]


def plan(results: Path) -> Plan:
    return Plan([SUITE["seg-baseline"]], "quick", (0,), results / "nowhere", "cpu", results)


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("without_locks")
def test_a_file_system_without_locks_causes_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    for _ in range(2):  # the first lock is removed, so that the second succeeds
        with locked(plan(tmp_path), warnings.append):
            with pytest.raises(UsageError, match=r"is in use by .*; wait until it is done, or use another folder"):
                locked(plan(tmp_path)).__enter__()
            assert record_path(tmp_path, "seg-baseline", 0).parent.parent.is_dir()
    expected = f"warning: the file system of {tmp_path} does not support locks"
    assert [line.startswith(expected) for line in warnings] == [True] * 2


@pytest.mark.usefixtures("without_locks")
def test_a_stale_lock_file_is_reported_with_its_holder_and_ignored_if_that_was_killed_here(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.write_text("4242\nanother-node\n", encoding="utf-8")
    os.utime(lock, (1_700_000_000, 1_700_000_000))  # 14 November 2023
    with pytest.raises(UsageError) as found:
        locked(plan(tmp_path)).__enter__()
    assert "process 4242 on another-node (since 2023-11-1" in str(found.value)
    assert str(found.value).endswith(f"; if it no longer runs: rm {lock}")
    dead = subprocess.Popen(["true"])
    dead.wait()
    lock.write_text(f"{dead.pid}\n{socket.gethostname()}\n", encoding="utf-8")
    with locked(plan(tmp_path)):
        pass


def test_weights_without_read_permission_count_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home folder of another user, as with ``docker run --user 1234 -e HOME=/root``."""

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert cached_imagenet_weights() is None


def test_a_tilde_that_the_shell_did_not_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home" / "data").mkdir(parents=True)
    (tmp_path / "home" / "w.pth").touch()
    given = {"DATA": "~/data", "RESULTS": "~/r", "VGG16_WEIGHTS": "~/w.pth", "DEVICE": "cpu"}
    found = read_options(given)
    home = tmp_path / "home"
    assert (found.data, found.results, found.vgg16_weights) == (home / "data", home / "r", home / "w.pth")
    write_record(home / "r", make_record("seg-baseline"))
    assert main(["compare", "~/r", "~/r"]) == 0
    monkeypatch.setenv("HW6_CACHE", "~/cache")
    (home / "file").touch()
    cached([home / "file"], "kind", lambda: {"one": torch.zeros(1, dtype=torch.uint8)})
    assert len(list((home / "cache").iterdir())) == 1
    assert not (tmp_path / "~").exists()
    with pytest.raises(UsageError, match="unknown home folder"):
        read_options(given | {"RESULTS": "~nobody-of-that-name/r"})


@pytest.mark.parametrize(
    ("group", "files", "quota"),
    [
        ("0::/a/b", {"a/b/cpu.max": "150000 100000"}, 1.5),
        ("0::/of/the/host", {"cpu.max": "400000 100000"}, 4.0),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("2:pids:/\n4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, 0.5),
        ("4:cpu:/host", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:cpuset:/", {}, None),
    ],
)
def test_the_cpu_limit_of_a_container_limits_the_threads(
    group: str, files: dict[str, str], quota: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_text(f"{group}\n", encoding="utf-8")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n", encoding="utf-8")
    found = machine.cpu_quota(tmp_path, tmp_path / "own")
    assert found == quota
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda: found)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert machine.available_cpus() == {1.5: 2, 4.0: 4, 0.5: 1, None: 8}[quota]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(8)
        threads = environment(torch.device("cpu"), "float32", "fast")["threads"]
    finally:
        torch.set_num_threads(before)
    assert threads == machine.available_cpus()


@pytest.mark.parametrize("hidden", ["-1", "", "none"])
def test_the_cpu_is_used_if_the_gpu_is_hidden(hidden: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(devices, "SIGNS_OF_A_GPU", (tmp_path,))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices.default_device() == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(InfrastructureError, match="cannot use it with CUDA_VISIBLE_DEVICES='7'"):
        devices.default_device()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(InfrastructureError, match=r"has an NVIDIA GPU .* but torch .* cannot use it; to find out why"):
        devices.default_device()
    monkeypatch.setattr(devices, "SIGNS_OF_A_GPU", (tmp_path / "missing",))
    assert devices.default_device() == "cpu"


def repository(folder: Path) -> str:
    """Make a repository and return its commit."""
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    folder.mkdir(parents=True, exist_ok=True)
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", str(folder)], ["rev-parse", "HEAD"]):
        answer = subprocess.run([*git, *arguments], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


@pytest.fixture
def clean_git(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_") or name == "BENCHMARK_COMMIT"]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("clean_git")
def test_the_commit_is_not_that_of_another_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit: Callable[[], str | None] = module.git_commit
    own, other = repository(tmp_path / "own"), repository(tmp_path / "other")
    (tmp_path / "own" / "unpacked").mkdir()
    monkeypatch.setattr(module, "CHECKOUT", tmp_path / "own")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))  # as git sets it in hooks
    assert commit() == own != other
    if os.getuid() == 0:  # as in a container with a mounted workspace
        subprocess.run(["chown", "-R", "1234", str(tmp_path / "own")], check=True)
        assert commit() == own
    monkeypatch.setattr(module, "CHECKOUT", tmp_path / "own" / "unpacked")  # not a repository, but inside one
    assert commit() is None
    monkeypatch.setenv("BENCHMARK_COMMIT", "abc")
    assert commit() == "abc"


def test_the_digest_covers_the_code_that_decides_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    library, judging = tmp_path / "hw6core" / "dice.py", tmp_path / "benchmarks" / "results" / "gates.py"
    for path in (library, judging):
        path.parent.mkdir(parents=True)
        path.write_text('"""Words."""\n\ndef half(x):\n    """Of it."""\n    return x / 2\n')
    digest = module.source_digest.__wrapped__  # without its cache
    before = digest()
    library.write_text('"""Other words."""\n\n\ndef half(x):\n    return x / 2  # why\n')
    judging.write_text("def half(x):\n    return x / 3\n")
    assert digest() == before
    library.write_text("def half(x):\n    return x / 3\n")
    assert digest() != before


@pytest.mark.parametrize(
    ("capability", "expected"), [((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16")]
)
def test_the_default_precision_is_one_that_the_tensor_cores_support(
    capability: tuple[int, int], expected: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By NVIDIA's table of compute capabilities; torch distinguishes native and emulated bfloat16."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capability >= (8, 0))
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: capability >= (8, 0))
    device = torch.device("cuda")
    assert choose_precision(device, None) == expected
    assert precisions(device) == [name for name in PRECISIONS if name != "tf32" or capability >= (8, 0)]


def test_apples_chips_have_neither_float64_nor_a_gradient_scaler() -> None:
    assert precisions(torch.device("mps")) == ["float32", "bfloat16"]
    with FakeTensorMode():
        counts = dice.overlap_of(torch.zeros(2, 4, 4, dtype=torch.int64, device="mps"))
        assert dice.dice_of_counts(counts).device.type == "cpu"
