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
NAMES = [".gitlab-ci.yml", "README.md"]
NAMES += [
    str(path.relative_to(CHECKOUT))
    for part in (".github", "docker", "cluster")
    for path in CHECKOUT.glob(f"{part}/**/*.*")
]
FILES = {name: (CHECKOUT / name).read_text(encoding="utf-8") for name in [*NAMES, "docker/Dockerfile"]}
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


def test_kubernetes_retries_only_infrastructure_failures() -> None:
    assert exit_code(InfrastructureError()) == 4
    others = {exit_code(error) for error in (HW6Error(), UsageError(), DataError(), UnexpectedError())}
    (listed,) = re.findall(r"values: \[(.*)\]", FILES["cluster/kubernetes.yaml"])
    assert {int(code) for code in listed.split(",")} == others == {1, 2, 3, 70}


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def call(folder: Path, *command: str, **variables: str) -> tuple[int, str]:
    """Run a command in a folder, whose programs in bin/ replace others; the exit code and the output."""
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder / "home"), **variables}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("code", "times", "requeued"),
    [(0, 1, 0), (1, 2, 0), (2, 1, 0), (3, 2, 0), (4, 1, 1), (4, 2, 2), (4, 3, 2), (70, 2, 0), (130, 5, 5)],
)
def test_a_slurm_task_is_requeued_after_an_infrastructure_failure_or_interruption(
    code: int, times: int, requeued: int, tmp_path: Path
) -> None:
    executable(tmp_path / "bin" / "srun", f"exit {code}")
    executable(tmp_path / "bin" / "scontrol", f'echo "$@" >> {tmp_path}/requeued')
    slurm = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}
    asked = {"IMAGE": "image", "DATA": "/course", "RESULTS": str(tmp_path / "results"), "SLURMD_NODENAME": "node1"}
    for _ in range(times):
        assert call(tmp_path, "bash", str(CHECKOUT / "cluster/slurm.sh"), **slurm, **asked)[0] == code
    said = tmp_path / "requeued"
    assert (said.read_text().splitlines() if said.exists() else []) == ["requeue 7_2"] * requeued


@pytest.mark.parametrize(("tasks", "code"), [(0, 5), (1, 5), (4, 5), (137, 5), (130, 130)])
def test_a_fleet_on_slurm_is_judged_with_lost_nodes_but_not_after_an_interruption(
    tasks: int, code: int, tmp_path: Path
) -> None:
    """Without PROFILE=full a node on which neither torch nor the system sees a GPU is treated like a laptop."""
    executable(tmp_path / "bin" / "srun", f'case "$*" in *acceptance*) env; exit {tasks};; esac; echo "$@"; exit 5')
    executable(tmp_path / "bin" / "scontrol", "printf 'node1\\nnode2\\n'")
    results = tmp_path / "results"
    asked = {"IMAGE": "image", "DATA": "/course", "RESULTS": str(results), "SLURM_JOB_NODELIST": "node[1-2]"}
    ended, output = call(tmp_path, "bash", str(CHECKOUT / "cluster/every-gpu-slurm.sh"), **asked)
    assert ended == code
    # The folder may also contain results of nodes of an earlier job.
    assert output.endswith(" fleet /results/node1 /results/node2 --output /results\n") is (code == 5)
    assert {"PROFILE=full", "EVERY_GPU=1", "DATA=/data"} <= {*output.splitlines()}
    for node in ("node1", "node2"):
        assert "did not start" in (results / node / "every-gpu.log").read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with only the files that make reads."""
    (tmp_path / "checkout").mkdir()
    shutil.copy(CHECKOUT / "Makefile", tmp_path / "checkout")
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / "checkout" / name).touch()
    return tmp_path / "checkout"


def python_calls(checkout: Path, made_by: str | None, *arguments: str) -> str:
    """The commands that make runs with an existing environment; ``made_by`` is the content of its marker file."""
    environment = checkout.parent / "elsewhere" / "env"
    python = executable(environment / "bin" / "python", 'echo python "$@"')
    if made_by is not None:
        (environment / ".made-here").write_text(made_by, encoding="utf-8")
    code, output = call(checkout, "make", "-s", f"PYTHON={python}", f"VENV={environment}", *arguments)
    assert code == 0
    return output


@pytest.mark.parametrize("made_by", [None, "", "/another/checkout\n", "{here}\n"])
def test_only_an_environment_that_this_checkout_made_is_updated(made_by: str | None, checkout: Path) -> None:
    *updates, last = python_calls(checkout, made_by and made_by.format(here=checkout), "list").splitlines()
    assert last == "python -m benchmarks list"
    installed = "python -m pip install --quiet --require-hashes -r requirements.lock" in updates
    assert installed == bool(updates) == (made_by == "{here}\n")


def test_a_misspelled_environment_is_not_made_and_judged_instead(checkout: Path) -> None:
    python = executable(checkout.parent / "python3", 'echo python "$@"')
    assert call(checkout, "make", "-s", f"PYTHON={python}", "VENV=/envs/newst", "benchmark") == (2, "")
    assert f"{python} -m venv new" in call(checkout, "make", "-n", f"PYTHON={python}", "VENV=new", "setup")[1]


def test_an_environment_that_could_not_be_made_is_made_by_the_next_call(checkout: Path) -> None:
    """Without Debian's package python3-venv, venv leaves an environment that has a python but no pip."""
    made = 'mkdir -p .venv/bin; cp "$0" .venv/bin/python; test -e package'
    script = f'case "$*" in "-m venv .venv") {made};; "-m pip --version") test -e package;; *) echo python "$@";; esac'
    command = ("make", "-s", f"PYTHON={executable(checkout.parent / 'python3', script)}", "list")
    assert call(checkout, *command)[0] == 2
    (checkout / "package").touch()
    code, calls = call(checkout, *command)
    assert code == 0
    assert "python -m pip install --quiet --require-hashes -r requirements.lock" in calls
    assert calls.endswith("python -m benchmarks list\n")


def test_make_and_the_package_require_the_same_python() -> None:
    """pip checks it only after the download of all packages; Debian 12 has 3.11.2."""
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    (least,) = re.findall(r'^requires-python = ">=([\d.]+)"', project, re.MULTILINE)
    assert f"sys.version_info >= ({least.replace('.', ', ')})" in MAKEFILE
    assert f"older than Python {least};" in MAKEFILE


@pytest.mark.parametrize(("given", "root"), [("", "data"), ("synthetic", "data"), ("my data", "my data")])
def test_the_data_is_fetched_into_its_folder_and_verified(given: str, root: str, checkout: Path) -> None:
    calls = python_calls(checkout, None, f"DATA={given}", "data")
    assert calls == "".join(f"python -m benchmarks data {what} --root={root}\n" for what in ("fetch", "verify"))


def test_speed_makes_the_folder_of_its_json_file(checkout: Path) -> None:
    """pytest-benchmark opens the file, in older versions before it measures anything, but does not make the folder."""
    assert "--benchmark-json=results/speed.json" in python_calls(checkout, None, "speed")
    assert (checkout / "results").is_dir()


def docker_benchmark(checkout: Path, **variables: str) -> tuple[int, str]:
    """Run `make docker-benchmark` with a fake docker that prints the environment for compose."""
    executable(checkout / "bin" / "docker", 'case "$1" in image) echo sha256:abc;; *) env;; esac')
    return call(checkout, "make", "-s", "docker-benchmark", **variables)


@pytest.mark.parametrize(
    ("given", "mounted", "asked"),
    [("", "data", ""), ("synthetic", "data", "synthetic"), ("my data", "my data", "/data")],
)
def test_the_container_gets_data_results_and_weights(given: str, mounted: str, asked: str, checkout: Path) -> None:
    """Data that was asked for must not be replaced by synthetic data if it is incomplete."""
    (checkout / "my data").mkdir()
    code, output = docker_benchmark(checkout, LIMIT="30", DATA=given)
    assert code == 0
    environment = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    caches = checkout / "home" / ".cache" / "torch"
    expected = {
        **{"DATA": str(checkout / mounted), "RESULTS": str(checkout / "results"), "TORCH_HOME": str(caches)},
        **{"IMAGE_DIGEST": "sha256:abc", "RUN_UID": str(os.getuid()), "LIMIT": "30"},
    }
    assert expected.items() <= environment.items()
    assert environment.get("SUITE_DATA", "") == asked
    assert caches.is_dir()  # or docker would create it, as root
    read = set(re.findall(r"\$\{(\w+)", FILES["docker/compose.yaml"]))
    assert read <= {*environment, "SUITE_DATA"}
    assert docker_benchmark(checkout, DATA="nowhere")[0] == 2


def test_no_option_is_lost_on_the_way_into_the_container(checkout: Path) -> None:
    """Those that it does not support are an error."""
    (listed,) = re.findall(r"environment: \[(.*?)\n    \]", FILES["docker/compose.yaml"], re.DOTALL)
    given = set(re.findall(r"\b([A-Z_]+)[=,]", listed))
    others = {"ADDRESS", "CPUS", "STEPS", "MINUTES", "MOST_SEEDS"}  # with ENGINE, or of other targets
    refused = {"VGG16_WEIGHTS", "RESULTS", "AGAINST", "ENGINE"}
    assert set(OPTIONS) - given - others == refused
    for variable in refused:
        code, output = docker_benchmark(checkout, **{variable: "somewhere"})
        assert code == 2
        assert variable in output
