"""Files for machines that run the suite: they call what exists, and agree with the suite's exit codes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import _parser
from benchmarks.errors import InfrastructureError, UnexpectedError, exit_code
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
def test_the_commands_of_a_cluster_are_understood(name: str) -> None:
    joined = re.sub(r"\\\n\s*", " ", FILES[name]).replace("\n              ", " ")
    commands = [
        line.split("python -m benchmarks ", 1)[1] for line in joined.splitlines() if "python -m benchmarks" in line
    ]
    assert len(commands) == 3
    for command in commands:
        words = re.sub(r"\"|'", "", command).replace("0 1 2", "0,1,2").split()
        options = _parser().parse_args([word for word in words if word not in (";",)])
        assert options.command.__name__ in ("_run", "_report", "_judge")


def test_what_is_tried_again_is_infrastructure_alone() -> None:
    assert exit_code(InfrastructureError()) == 4
    assert '[ "$code" -eq 4 ]' in FILES["cluster/slurm.sh"]
    others = {exit_code(error) for error in (HW6Error(), UsageError(), DataError(), UnexpectedError())}
    (listed,) = re.findall(r"values: \[(.*)\]", FILES["cluster/kubernetes.yaml"])
    assert {int(code) for code in listed.split(",")} == others == {1, 2, 3, 70}


def test_the_scripts_of_the_shell_are_well_formed() -> None:
    for name in ("cluster/slurm.sh", "cluster/every-gpu-slurm.sh", ".ci/run"):
        subprocess.run(["bash", "-n", str(CHECKOUT / name)], check=True)


@pytest.mark.parametrize(
    ("code", "times", "requeued"),
    [(0, 1, 0), (1, 2, 0), (2, 1, 0), (3, 2, 0), (4, 1, 1), (4, 2, 2), (4, 3, 2), (70, 2, 0), (130, 5, 5)],
)
def test_a_task_of_slurm_is_tried_again_for_want_of_a_machine_or_of_time(
    code: int, times: int, requeued: int, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name, does in (("srun", f"exit {code}"), ("scontrol", f'echo "$@" >> {tmp_path}/said')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    slurm = {"ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "2", "ARRAY_TASK_COUNT": "4"}
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        **{"IMAGE": "image", "DATA": "/data", "RESULTS": str(tmp_path / "results"), "SLURMD_NODENAME": "node1"},
        **{f"SLURM_{name}": value for name, value in slurm.items()},
    }
    for _ in range(times):
        done = subprocess.run(["bash", str(CHECKOUT / "cluster/slurm.sh")], env=environment, check=False)
        assert done.returncode == code
    said = (tmp_path / "said").read_text().splitlines() if (tmp_path / "said").exists() else []
    assert said == ["requeue 7_2"] * requeued


def test_a_pull_request_of_a_fork_runs_on_the_gpu_only_when_somebody_sets_the_label() -> None:
    """The runner is somebody's own machine, and a label stays when more is pushed."""
    text = FILES[".github/workflows/acceptance.yml"]
    assert "(github.event.action == 'labeled' && github.event.label.name == 'gpu')" in text
    assert "&& github.event.pull_request.head.repo.full_name == github.repository)" in text
    assert "ref: ${{ github.event.pull_request.head.sha }}" in text


def asked_of_python(tmp_path: Path, made_by: str | None, *arguments: str, target: str = "list") -> str:
    """What make runs with an environment that is there; ``made_by``: the mark of the checkout that made it."""
    python = tmp_path / "elsewhere" / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho python "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    if made_by is not None:
        (python.parent.parent / ".made-here").write_text(made_by, encoding="utf-8")
    (tmp_path / "checkout").mkdir()
    shutil.copy(CHECKOUT / "Makefile", tmp_path / "checkout")
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / "checkout" / name).touch()
    answer = subprocess.run(
        ["make", "-s", target, f"PYTHON={python}", *arguments],
        cwd=tmp_path / "checkout",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout


@pytest.mark.parametrize("made_by", [None, "", "/another/checkout\n"])
def test_an_environment_that_was_made_elsewhere_is_used_as_it_is(made_by: str | None, tmp_path: Path) -> None:
    told = asked_of_python(tmp_path, made_by, f"VENV={tmp_path / 'elsewhere' / 'env'}")
    assert told == "python -m benchmarks list\n"


def test_an_environment_that_this_checkout_made_is_kept_as_the_lock_says(tmp_path: Path) -> None:
    told = asked_of_python(tmp_path, f"{tmp_path / 'checkout'}\n", f"VENV={tmp_path / 'elsewhere' / 'env'}")
    assert "python -m pip install --quiet --require-hashes -r requirements.lock" in told
    assert told.endswith("python -m benchmarks list\n")


@pytest.mark.parametrize(("given", "root"), [("", "data"), ("synthetic", "data"), ("my data", "my data")])
def test_the_data_is_fetched_into_its_folder_and_verified(given: str, root: str, tmp_path: Path) -> None:
    told = asked_of_python(tmp_path, None, f"VENV={tmp_path / 'elsewhere' / 'env'}", f"DATA={given}", target="data")
    assert told == "".join(f"python -m benchmarks data {what} --root={root}\n" for what in ("fetch", "verify"))


def in_the_container(tmp_path: Path, **variables: str) -> tuple[int, str]:
    """`make docker-benchmark` with a docker that only shows the environment which compose would read."""
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    (tmp_path / "bin").mkdir(exist_ok=True)
    docker = tmp_path / "bin" / "docker"
    docker.write_text('#!/bin/sh\ncase "$1" in image) echo sha256:abc;; *) env;; esac\n', encoding="utf-8")
    docker.chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path / "home"), **variables}
    done = subprocess.run(
        ["make", "-s", "docker-benchmark"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_the_container_gets_data_results_and_weights(tmp_path: Path) -> None:
    code, seen = in_the_container(tmp_path, LIMIT="30")
    told = dict(line.split("=", 1) for line in seen.splitlines() if "=" in line)
    assert code == 0
    assert told["DATA"] == str(tmp_path / "data")
    assert told["RESULTS"] == str(tmp_path / "results")
    assert told["TORCH_HOME"] == str(tmp_path / "home" / ".cache" / "torch")
    assert Path(told["TORCH_HOME"]).is_dir()  # or the engine would make it, as root
    assert told["IMAGE_DIGEST"] == "sha256:abc"
    assert told["RUN_UID"] == str(os.getuid())
    assert told["LIMIT"] == "30"
    assert not told.get("SUITE_DATA")
    for variable in re.findall(r"\$\{(\w+)", FILES["docker/compose.yaml"]):
        assert variable in MAKEFILE, f"compose.yaml reads {variable}, which make does not hand on"


def test_the_container_can_be_told_to_draw_its_data(tmp_path: Path) -> None:
    code, seen = in_the_container(tmp_path, DATA="synthetic")
    assert code == 0
    assert "SUITE_DATA=synthetic" in seen.splitlines()
    assert f"DATA={tmp_path / 'data'}" in seen.splitlines()


@pytest.mark.parametrize("variable", ["VGG16_WEIGHTS", "RESULTS"])
def test_what_the_container_cannot_heed_is_told(variable: str, tmp_path: Path) -> None:
    code, seen = in_the_container(tmp_path, **{variable: "somewhere"})
    assert code == 2
    assert variable in seen
