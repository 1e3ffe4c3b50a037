"""Files for machines that run the suite: they call what exists, and agree with the suite's exit codes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import _parser
from hw6core import errors

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
    assert errors.InfrastructureError.exit_code == 4
    assert '[ "$code" -eq 4 ]' in FILES["cluster/slurm.sh"]
    others = {errors.SuiteError.exit_code, errors.UsageError.exit_code, errors.DataError.exit_code}
    (listed,) = re.findall(r"values: \[(.*)\]", FILES["cluster/kubernetes.yaml"])
    assert {int(code) for code in listed.split(",")} == others == {1, 2, 3}


def test_the_parts_of_the_job_agree() -> None:
    text = FILES["cluster/kubernetes.yaml"]
    numbers = re.findall(r"(?:completions|parallelism): (\d+)", text) + re.findall(r"--shard \"\$part/(\d+)\"", text)
    assert numbers == ["4", "4", "4"]


def test_the_scripts_of_the_shell_are_well_formed() -> None:
    for name in ("cluster/slurm.sh", ".ci/run"):
        subprocess.run(["bash", "-n", str(CHECKOUT / name)], check=True)


def test_the_image_takes_its_base_as_an_argument_and_ends_as_nobody_special() -> None:
    lines = FILES["docker/Dockerfile"].splitlines()
    assert next(line for line in lines if line.startswith("ARG")).startswith("ARG BASE_IMAGE=")
    assert [line for line in lines if line.startswith("FROM")] == [
        "FROM ${BASE_IMAGE} AS environment",
        "FROM ${BASE_IMAGE}",
    ]
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000"]
    assert "--require-hashes" in FILES["docker/Dockerfile"]
    ignored = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert not {"!data", "!results", "!.cache"} & set(ignored)
