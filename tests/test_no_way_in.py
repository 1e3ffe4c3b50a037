"""What no part of the repository may do: give strangers' text to a shell, run code from a file, open a connection."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
SOURCES = sorted([*CHECKOUT.glob("hw6core/**/*.py"), *CHECKOUT.glob("benchmarks/**/*.py")])
WORKFLOWS = sorted(CHECKOUT.glob(".github/workflows/*.yml"))
HOSTILE = "x y\"'; touch ran; $(touch ran) $(shell touch ran) `touch ran` | touch ran & touch ran #"


@cache
def calls() -> list[tuple[str, str, ast.Call]]:
    """Every call in the library and the suite: where, the dotted name, the call."""
    return [
        (f"{path.relative_to(CHECKOUT)}:{node.lineno}", ast.unparse(node.func), node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(entry.value) for entry in call.keywords if entry.arg == name), None)


FORBIDDEN: dict[str, Callable[[str, ast.Call], bool]] = {
    "a shell": lambda name, call: (
        name in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput")
        or keyword(call, "shell") is not None
    ),
    "a command as one string": lambda name, call: (
        name.startswith("subprocess.")
        and name.rpartition(".")[2] in ("run", "Popen", "call", "check_call", "check_output")
        and not isinstance(call.args[0], ast.List | ast.Name)
    ),
    "code from text": lambda name, call: name in ("eval", "exec", "compile", "__import__"),
    "a pickle": lambda name, call: (
        re.fullmatch(r"(c?pickle|dill|joblib|marshal|shelve|cloudpickle)\..*", name) is not None
        or (name == "torch.load" and keyword(call, "weights_only") != "True")
        or (name == "np.load" and keyword(call, "allow_pickle") != "False")
        or name.startswith("torch.hub.load")
        or name.endswith(".get_state_dict")
    ),
    "YAML, XML or TOML with more than data": lambda name, call: (
        name.startswith("yaml.") or name in ("ElementTree.parse", "ElementTree.fromstring")
    ),
    "a picture in any format": lambda name, call: (
        name == "Image.open" and keyword(call, "formats") is None and ast.unparse(call.args[0]) != "buffer"
    ),
    "an archive whose members may lead anywhere": lambda name, call: (
        name.endswith(("extractall", "unpack_archive", "extract_archive")) and keyword(call, "filter") != "'data'"
    ),
    "a download without bounds": lambda name, call: (
        name.rpartition(".")[2] in ("urlopen", "urlretrieve", "download_url", "download_and_extract_archive")
        or keyword(call, "download") is not None
        or keyword(call, "pretrained") is not None
    ),
    "a temporary name that others may take": lambda name, call: name == "tempfile.mktemp",
}
# Each with the reason that it may.
ALLOWED = {
    "a picture in any format": {"benchmarks/speed/baseline.py"},  # the course's own code, timed as it stands
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_calls(what: str) -> None:
    found = [place for place, name, call in calls() if FORBIDDEN[what](name, call)]
    assert {place.partition(":")[0] for place in found} == ALLOWED.get(what, set())


def test_the_search_finds_what_it_looks_for() -> None:
    examples = {
        "a shell": "subprocess.run(x, shell=True)",
        "a command as one string": "subprocess.run('git ' + x)",
        "code from text": "eval(x)",
        "a pickle": "torch.load(x)",
        "YAML, XML or TOML with more than data": "yaml.load(x)",
        "a picture in any format": "Image.open(x)",
        "an archive whose members may lead anywhere": "tar.extractall(x)",
        "a download without bounds": "FashionMNIST(x, download=True)",
        "a temporary name that others may take": "tempfile.mktemp()",
    }
    for what, code in examples.items():
        (call,) = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
        assert FORBIDDEN[what](ast.unparse(call.func), call), what
    assert set(examples) == set(FORBIDDEN)
    assert len(calls()) > 2000


def test_nothing_imports_what_reads_code() -> None:
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not {"pickle", "dill", "joblib", "marshal", "shelve", "yaml", "telnetlib", "ftplib"} & imported


def test_who_opens_connections_and_starts_programs() -> None:
    """Whoever adds a file has to say so here."""
    users: dict[str, set[str]] = {
        name: set() for name in ("socket", "urllib.request", "requests", "pooch", "subprocess")
    }
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for module, names in users.items():
            if re.search(rf"^\s*(import|from) {re.escape(module)}\b", text, re.MULTILINE):
                names.add(str(path.relative_to(CHECKOUT)))
    assert users["socket"] == users["urllib.request"] == set()
    assert users["pooch"] == users["requests"] == {"hw6core/data/fetch.py"}
    assert users["subprocess"] == {
        "benchmarks/notebook.py",  # a browser, to print a page
        "benchmarks/machine/environment.py",  # git rev-parse and git status in this checkout
        "benchmarks/speed/determinism.py",
        "benchmarks/speed/gpu_check.py",  # itself, again
    }


# ----------------------------------------------------------------------------------------------- make, CI, the cluster


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_step_of_a_workflow_pastes_text_into_a_script(path: Path) -> None:
    """`${{ }}` is filled in before the shell reads the line: whatever it holds would be run."""
    lines = path.read_text(encoding="utf-8").splitlines()
    runs = [line for line in lines if re.match(r"\s*(- )?run:", line)]
    assert runs
    assert not [line for line in runs if "${{" in line or line.rstrip().endswith(("|", ">", ">-", "|-"))]
    text = "\n".join(lines)
    assert "pull_request_target" not in text
    assert text.count("persist-credentials: false") == text.count("actions/checkout@")
    assert "permissions:\n  contents: read\n" in text


def test_pull_request_of_a_fork_runs_only_when_somebody_sets_the_label() -> None:
    """The runner is somebody's own machine, and a label stays when more is pushed."""
    text = (CHECKOUT / ".github/workflows/acceptance.yml").read_text(encoding="utf-8")
    assert "(github.event.action == 'labeled' && github.event.label.name == 'gpu')" in text
    assert "&& github.event.pull_request.head.repo.full_name == github.repository)" in text
    assert "ref: ${{ github.event.pull_request.head.sha }}" in text


VARIABLES = ("DATA", "BASE", "RESULTS", "SEEDS", "ONLY", "PROFILE", "DEVICE", "VGG16_WEIGHTS", "ALLOW_NOT_RUN", "IMAGE")


@pytest.mark.parametrize(
    "target", ["benchmark", "data", "report", "judge", "compare", "smoke", "list", "speed", "gpu-check"]
)
@pytest.mark.parametrize("data", [HOSTILE, "-x", "", "synthetic"])
def test_make_runs_nothing_that_a_variable_of_the_environment_holds(tmp_path: Path, target: str, data: str) -> None:
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> said\n')
    python.chmod(0o755)
    environment = os.environ | dict.fromkeys(VARIABLES, HOSTILE) | {"VENV": "", "PYTHON": str(python), "DATA": data}
    environment.pop("MAKEFLAGS", None)
    subprocess.run(["make", target], cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=60)
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", "python", "said"}
    said = (tmp_path / "said").read_text().splitlines()
    if target == "data":
        folder = "data" if data in ("", "synthetic") else data
        commands = [["-m", "benchmarks", "data", what, f"--root={folder}"] for what in ("fetch", "verify")]
        assert said == [*commands[0], *commands[1]]
    if target == "compare":
        assert said == ["-m", "benchmarks", "compare", "--", HOSTILE]


@pytest.mark.parametrize("target", ["docker-build", "docker-benchmark"])
def test_make_gives_docker_plain_arguments(tmp_path: Path, target: str) -> None:
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" "$DATA" "$IMAGE" >> {tmp_path}/said\n')
    docker.chmod(0o755)
    environment = os.environ | dict.fromkeys(VARIABLES, HOSTILE) | {"PATH": f"{docker.parent}:{os.environ['PATH']}"}
    for name in ("MAKEFLAGS", "VGG16_WEIGHTS", "RESULTS"):  # the latter are refused before docker is called
        environment.pop(name, None)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["commit", "-qm", "x", "--allow-empty"], ["tag", "-am", "x", "v;touch${IFS}ran"]):
        subprocess.run([*git, *command], cwd=tmp_path, env=environment, check=True, capture_output=True)
    subprocess.run(["make", target], cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=60)
    said = (tmp_path / "said").read_text().splitlines()
    assert HOSTILE in said
    assert not list(tmp_path.rglob("ran"))
    if target == "docker-build":
        assert re.fullmatch(r"COMMIT=[0-9a-f]{40}(-dirty)?", said[said.index("--build-arg") + 1])
    else:
        assert f"{tmp_path}/{HOSTILE}" in said


def test_job_of_the_cluster_gives_srun_plain_arguments(tmp_path: Path) -> None:
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/said\n')
    srun.chmod(0o755)
    hostile = HOSTILE.replace(" ", "_")
    results = tmp_path / "results"
    environment = os.environ | {
        "PATH": f"{srun.parent}:{os.environ['PATH']}",
        **dict.fromkeys(("IMAGE", "DATA", "PROFILE", "SEEDS"), hostile),
        **{"RESULTS": str(results), "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"},
    }
    subprocess.run(["bash", str(CHECKOUT / "cluster/slurm.sh")], cwd=tmp_path, env=environment, check=True)
    said = (tmp_path / "said").read_text().splitlines()
    assert f"--container-image={hostile}" in said
    assert said[said.index("--seeds") + 1] == hostile
    assert not list(tmp_path.rglob("ran"))
