"""Makefile, CI, container and cluster files: they call existing commands and handle the exit codes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import _parser
from benchmarks.errors import InfrastructureError, UnexpectedError, exit_code
from benchmarks.options import OPTIONS
from hw6core.errors import DataError, HW6Error, UsageError

CHECKOUT = Path(__file__).parent.parent
FILES = {
    name: (CHECKOUT / name).read_text(encoding="utf-8")
    for name in (
        ".github/workflows/tests.yml",
        ".github/workflows/acceptance.yml",
        ".gitlab-ci.yml",
        "docker/Dockerfile",
        "docker/compose.yaml",
        "cluster/slurm.sh",
        "cluster/kubernetes.yaml",
        "cluster/every-gpu-slurm.sh",
        "cluster/every-gpu-kubernetes.yaml",
        "README.md",
    )
}
MAKEFILE = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("name", FILES)
def test_every_target_that_is_called_exists(name: str) -> None:
    called = re.findall(r"(?:run: |- |\|\| |`|\[\")make[\", ]+([a-z-]+)", FILES[name])
    assert [target for target in called if target not in TARGETS] == []


@pytest.mark.parametrize("name", ["cluster/slurm.sh", "cluster/kubernetes.yaml"])
def test_the_commands_in_cluster_files_are_valid(name: str) -> None:
    joined = re.sub(r"\\\n\s*", " ", FILES[name]).replace("\n              ", " ")
    commands = [
        line.split("python -m benchmarks ", 1)[1] for line in joined.splitlines() if "python -m benchmarks" in line
    ]
    assert len(commands) == 3
    for command in commands:
        words = re.sub(r"\"|'", "", command).replace("0 1 2", "0,1,2").split()
        options = _parser().parse_args([word for word in words if word not in (";",)])
        assert options.command.__name__ in ("_run", "_report", "_judge")


def test_only_infrastructure_failures_are_retried() -> None:
    assert exit_code(InfrastructureError()) == 4
    assert '[ "$code" -eq 4 ]' in FILES["cluster/slurm.sh"]
    others = {exit_code(error) for error in (HW6Error(), UsageError(), DataError(), UnexpectedError())}
    (listed,) = re.findall(r"values: \[(.*)\]", FILES["cluster/kubernetes.yaml"])
    assert {int(code) for code in listed.split(",")} == others == {1, 2, 3, 70}


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def run_slurm(name: str, tmp_path: Path, code: int = 0) -> list[str]:
    """Run a Slurm script with an srun that prints its variables and ends with a code; returns what it printed."""
    executable(tmp_path / "bin" / "srun", f"env; exit {code}")
    executable(tmp_path / "bin" / "scontrol", f'echo "$@" >> {tmp_path}/requeued')
    slurm = {"ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "2", "ARRAY_TASK_COUNT": "4"}
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        **{"IMAGE": "image", "DATA": "/course", "RESULTS": str(tmp_path / "results"), "SLURMD_NODENAME": "node1"},
        **{f"SLURM_{variable}": value for variable, value in slurm.items()},
    }
    command = ["bash", str(CHECKOUT / "cluster" / name)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("code", "times", "requeued"),
    [(0, 1, 0), (1, 2, 0), (2, 1, 0), (3, 2, 0), (4, 1, 1), (4, 2, 2), (4, 3, 2), (70, 2, 0), (130, 5, 5)],
)
def test_a_slurm_task_is_requeued_after_an_infrastructure_failure_or_interruption(
    code: int, times: int, requeued: int, tmp_path: Path
) -> None:
    for _ in range(times):
        run_slurm("slurm.sh", tmp_path, code)
    said = tmp_path / "requeued"
    assert (said.read_text().splitlines() if said.exists() else []) == ["requeue 7_2"] * requeued


def test_a_node_whose_gpus_are_lost_does_not_train_on_its_cpu(tmp_path: Path) -> None:
    """Without PROFILE=full a node on which neither torch nor the system sees a GPU is treated like a laptop."""
    assert {"PROFILE=full", "EVERY_GPU=1", "DATA=/data"} <= {*run_slurm("every-gpu-slurm.sh", tmp_path)}


def test_a_pull_request_of_a_fork_runs_on_the_gpu_only_when_the_label_is_set() -> None:
    """The runner is self-hosted, and a label remains when more commits are pushed."""
    text = FILES[".github/workflows/acceptance.yml"]
    assert "(github.event.action == 'labeled' && github.event.label.name == 'gpu')" in text
    assert "&& github.event.pull_request.head.repo.full_name == github.repository)" in text
    assert "ref: ${{ github.event.pull_request.head.sha }}" in text


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with only the files that make reads."""
    (tmp_path / "checkout").mkdir()
    shutil.copy(CHECKOUT / "Makefile", tmp_path / "checkout")
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / "checkout" / name).touch()
    return tmp_path / "checkout"


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-s", *arguments],
        cwd=checkout,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def python_calls(checkout: Path, made_by: str | None, *arguments: str) -> str:
    """The commands that make runs with an existing environment; ``made_by`` is the content of its marker file."""
    environment = checkout.parent / "elsewhere" / "env"
    python = executable(environment / "bin" / "python", 'echo python "$@"')
    if made_by is not None:
        (environment / ".made-here").write_text(made_by, encoding="utf-8")
    answer = make(checkout, f"PYTHON={python}", f"VENV={environment}", *arguments)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.parametrize("made_by", [None, "", "/another/checkout\n"])
def test_nothing_is_installed_into_an_environment_of_another_checkout(made_by: str | None, checkout: Path) -> None:
    assert python_calls(checkout, made_by, "list") == "python -m benchmarks list\n"


def test_an_environment_of_this_checkout_is_updated_from_the_lock(checkout: Path) -> None:
    calls = python_calls(checkout, f"{checkout}\n", "list")
    assert "python -m pip install --quiet --require-hashes -r requirements.lock" in calls
    assert calls.endswith("python -m benchmarks list\n")


def test_an_environment_that_could_not_be_made_is_made_by_the_next_call(checkout: Path) -> None:
    """Without Debian's package python3-venv, venv leaves an environment that has a python but no pip."""
    made = 'mkdir -p .venv/bin; cp "$0" .venv/bin/python; test -e package'
    script = f'case "$*" in "-m venv .venv") {made};; "-m pip --version") test -e package;; *) echo python "$@";; esac'
    python = executable(checkout.parent / "python3", script)
    assert make(checkout, f"PYTHON={python}", "list").returncode == 2
    (checkout / "package").touch()
    calls = make(checkout, f"PYTHON={python}", "list").stdout
    assert "python -m pip install --quiet --require-hashes -r requirements.lock" in calls
    assert calls.endswith("python -m benchmarks list\n")


@pytest.mark.parametrize(("given", "root"), [("", "data"), ("synthetic", "data"), ("my data", "my data")])
def test_the_data_is_fetched_into_its_folder_and_verified(given: str, root: str, checkout: Path) -> None:
    calls = python_calls(checkout, None, f"DATA={given}", "data")
    assert calls == "".join(f"python -m benchmarks data {what} --root={root}\n" for what in ("fetch", "verify"))


def test_speed_makes_the_folder_of_its_json_file(checkout: Path) -> None:
    """pytest-benchmark opens the file, in older versions before it measures anything, but does not make the folder."""
    assert "--benchmark-json=results/speed.json" in python_calls(checkout, None, "speed")
    assert (checkout / "results").is_dir()


def docker_benchmark(tmp_path: Path, **variables: str) -> tuple[int, str]:
    """Run `make docker-benchmark` with a fake docker that prints the environment for compose."""
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    executable(tmp_path / "bin" / "docker", 'case "$1" in image) echo sha256:abc;; *) env;; esac')
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path / "home"), **variables}
    done = subprocess.run(
        ["make", "-s", "docker-benchmark"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_the_container_gets_data_results_and_weights(tmp_path: Path) -> None:
    code, output = docker_benchmark(tmp_path, LIMIT="30")
    environment = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    assert code == 0
    assert environment["DATA"] == str(tmp_path / "data")
    assert environment["RESULTS"] == str(tmp_path / "results")
    assert environment["TORCH_HOME"] == str(tmp_path / "home" / ".cache" / "torch")
    assert Path(environment["TORCH_HOME"]).is_dir()  # or docker would create it, as root
    assert environment["IMAGE_DIGEST"] == "sha256:abc"
    assert environment["RUN_UID"] == str(os.getuid())
    assert environment["LIMIT"] == "30"
    assert not environment.get("SUITE_DATA")
    for variable in re.findall(r"\$\{(\w+)", FILES["docker/compose.yaml"]):
        assert variable in MAKEFILE, f"compose.yaml reads {variable}, which make does not export"


def test_the_container_can_draw_its_data(tmp_path: Path) -> None:
    code, output = docker_benchmark(tmp_path, DATA="synthetic")
    assert code == 0
    assert "SUITE_DATA=synthetic" in output.splitlines()
    assert f"DATA={tmp_path / 'data'}" in output.splitlines()


REFUSED = ("VGG16_WEIGHTS", "RESULTS", "AGAINST", "ENGINE")


def test_no_option_of_the_benchmark_is_lost_on_the_way_into_the_container() -> None:
    given = set(re.findall(r"^      (\w+): \$\{", FILES["docker/compose.yaml"], re.MULTILINE))
    others = {"ADDRESS", "CPUS", "STEPS", "MINUTES", "MOST_SEEDS"}  # with ENGINE, or of other targets
    assert set(OPTIONS) - given - others == set(REFUSED)


@pytest.mark.parametrize("variable", REFUSED)
def test_variables_that_the_container_does_not_support_are_an_error(variable: str, tmp_path: Path) -> None:
    code, output = docker_benchmark(tmp_path, **{variable: "somewhere"})
    assert code == 2
    assert variable in output
