"""A container needs no network at run time: importing, listing, running, judging, reporting and comparing open nothing.

What happens is told by Python's audit events, which cannot be turned off again: so each test is a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hw6core.data.synthetic import synthesize
from tests.tiny_data import TINY

CHECKOUT = Path(__file__).parent.parent
_WATCH = """
import json, sys
seen = []
started = []

def watch(event, arguments):
    if event.startswith(("socket.connect", "socket.get", "socket.sendto", "socket.sendmsg", "socket.bind", "urllib.",
                         "http.client.", "ftplib.", "smtplib.")):
        seen.append(f"{event} {arguments!r}"[:200])
        if not event.startswith("socket.gethostname"):
            raise PermissionError(f"no network here: {event}")
    if event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec"):
        started.append([str(part) for part in arguments[1]] if event == "subprocess.Popen" else [event])

sys.addaudithook(watch)
"""
_TELL = """
print("\\n" + json.dumps({"seen": seen, "started": started, "codes": globals().get("codes", [])}))
"""


def watched(code: str, folder: Path, **variables: str) -> dict[str, Any]:
    """What a process that does this tried to reach, and which programs it started."""
    names = ("PROFILE", "DATA", "SEEDS", "DEVICE", "ONLY", "RESULTS", "VGG16_WEIGHTS", "ALLOW_NOT_RUN")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"PYTHONPATH": str(CHECKOUT), "TORCH_HOME": str(folder / "torch"), "HW6_CACHE": "off"} | variables
    answer = subprocess.run(
        [sys.executable, "-c", _WATCH + code + _TELL],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    told: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return told


def modules() -> list[str]:
    paths = sorted([*CHECKOUT.glob("hw6core/**/*.py"), *CHECKOUT.glob("benchmarks/**/*.py")])
    names = [path.relative_to(CHECKOUT).with_suffix("").as_posix().replace("/", ".") for path in paths]
    return [
        name.removesuffix(".__init__")
        for name in names
        # Ray is there to open connections; who does not ask for its engine does not load it.
        if not name.endswith(("conftest", "__main__", "ray_cluster")) and ".test_" not in name
    ]


def test_the_watch_sees_connections_and_programs(tmp_path: Path) -> None:
    code = """
import contextlib, socket, subprocess, urllib.request
for attempt in (
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: socket.getaddrinfo("localhost", 80),
    lambda: urllib.request.urlopen("http://127.0.0.1:9/"),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
):
    with contextlib.suppress(OSError):
        attempt()
subprocess.run(["true"])
"""
    told = watched(code, tmp_path)
    assert len(told["seen"]) == 4
    assert told["started"] == [["true"]]


def test_importing_everything_opens_nothing(tmp_path: Path) -> None:
    names = modules()
    assert {"hw6core.data.fetch", "benchmarks.runs.runner", "benchmarks.report.markdown"} <= set(names)
    code = (
        "import importlib\nfor name in "
        + repr([*names, "benchmarks.__main__"])
        + ":\n    importlib.import_module(name)\n"
    )
    told = watched(code, tmp_path)
    assert told["seen"] == []
    assert [command for command in told["started"] if command[0] not in ("ldconfig", "/sbin/ldconfig")] == []


_SHORT = """
from dataclasses import replace
from benchmarks import suite
from benchmarks.workloads import pretrained
from benchmarks.__main__ import main

pretrained._PROXY_IMAGES, pretrained._PROXY_VALIDATION = 96, 32
for name, entry in list(suite.SUITE.items()):
    garments = entry.kind in ("scratch", "frozen")
    work = suite.Work(1, 8, 1e-4, (32, 32) if garments else (32, 40), training_samples=30 if garments else None)
    suite.SUITE[name] = replace(entry, work={"full": work, "quick": work})
"""


def test_the_quick_profile_opens_nothing(tmp_path: Path) -> None:
    """Trainings without ImageNet weights at hand, then everything that reads what they left."""
    synthesize(tmp_path / "data", sizes=TINY)
    code = (
        _SHORT
        + """
results = ["--results", "results", "--profile", "quick"]
codes = [
    main(["list"]),
    main(["run", "seg-pretrained", "vgg-frozen", "--data", "data", "--device", "cpu", *results]),
    main(["run", "seg-pretrained", "vgg-frozen", "--data", "data", "--device", "cpu", *results]),
    main(["judge", *results]),
    main(["report", *results]),
    main(["compare", "results", "results"]),
    main(["smoke"]),
    main(["data", "verify", "--root", "data"]),
]
"""
    )
    told = watched(code, tmp_path)
    assert told["seen"] == []
    # Trained for one epoch no gate is reached; drawn data is not the published data; smoke wants a GPU.
    assert told["codes"][:7] in ([0, 1, 1, 1, 0, 0, 4], [0, 1, 1, 1, 0, 0, 0])
    assert told["codes"][7] == 3
    others = [command for command in told["started"] if "ldconfig" not in command[0]]
    assert all(command[0] == "git" and {"rev-parse", "status"} & set(command) for command in others)
    assert (tmp_path / "results" / "report.html").is_file()
    assert list((tmp_path / "results" / "weights").glob("vgg16-stand-in-*")) or list(tmp_path.rglob("vgg16-stand-in-*"))


def test_weights_that_would_have_to_be_fetched_are_not_run_without_a_network(tmp_path: Path) -> None:
    """The full profile takes real ImageNet weights: without them and a network it says so, and trains the rest."""
    code = """
import time
from hw6core.errors import DataError
from hw6core.models import vgg16
time.sleep = lambda seconds: None
try:
    vgg16(10, weights="imagenet")
except DataError as error:
    codes = [str(error)]
"""
    told = watched(code, tmp_path)
    assert told["codes"][0].startswith(
        "no ImageNet weights: cannot download https://download.pytorch.org/models/vgg16-"
    )
    assert told["seen"]


@pytest.mark.parametrize("name", ["docker/compose.yaml"])
def test_the_container_has_no_network(name: str) -> None:
    assert "network_mode: none" in (CHECKOUT / name).read_text(encoding="utf-8")
