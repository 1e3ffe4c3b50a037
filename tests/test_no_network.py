"""A container needs no network at run time: listing, running, judging, reporting and comparing do not use it.

The tests use Python's audit hooks, which cannot be removed, so each runs in its own process.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.report import markdown
from benchmarks.runs import runner
from benchmarks.suite import SUITE
from benchmarks.workloads import pretrained
from hw6core.errors import DataError
from hw6core.models import vgg16
from tests.finished_runs import no_figures
from tests.own_process import alone
from tests.short_runs import SOME_CEILING, shortened
from tests.watching import shrink_networks


def watch() -> tuple[list[str], list[list[str]]]:
    """Record this process's attempts to use the network, which fail from now on, and the programs that it starts."""
    seen: list[str] = []
    started: list[list[str]] = []
    network = ("socket.connect", "socket.get", "socket.sendto", "socket.sendmsg", "socket.bind", "urllib.")
    protocols = ("http.client.", "ftplib.", "smtplib.")

    def see(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith((*network, *protocols)):
            seen.append(f"{event} {arguments!r}"[:200])
            if not event.startswith("socket.gethostname"):
                raise PermissionError(f"no network here: {event}")
        if event == "subprocess.Popen":
            started.append([str(part) for part in arguments[1]])  # type: ignore[attr-defined]
        if event in ("os.system", "os.posix_spawn", "os.exec"):
            started.append([event])

    sys.addaudithook(see)
    return seen, started


def test_the_quick_profile_does_not_use_the_network(data: Path, tmp_path: Path) -> None:
    """Trainings without ImageNet weights, then all commands that read their results."""
    codes, seen, started = alone(everything, data, tmp_path)
    assert seen == []
    # After one epoch no gate is reached; synthetic data is not the published data; smoke requires a GPU.
    assert codes[:7] in ([0, 1, 1, 1, 0, 0, 4], [0, 1, 1, 1, 0, 0, 0])
    assert codes[7] == 3
    # torch calls ldconfig for libraries; with the lowest supported versions, lscpu as well.
    others = [command for command in started if "ldconfig" not in command[0] and command[0] != "lscpu"]
    assert all(command[0] == "git" and {"rev-parse", "status"} & set(command) for command in others)
    assert (tmp_path / "results" / "report.html").is_file()
    figures = {path.name for path in (tmp_path / "results" / "figures").iterdir()}
    assert {"overview.png", "recolored.png", "masks.png"} <= figures
    assert list(tmp_path.rglob("vgg16-stand-in-*"))


def everything(data: Path, folder: Path) -> tuple[list[int], list[str], list[list[str]]]:
    """Run each command, with short trainings; figures are drawn only once."""
    seen, started = watch()
    os.chdir(folder)
    os.environ["TORCH_HOME"] = str(folder / "torch")
    codes = [main(["list"])]
    patch = pytest.MonkeyPatch()
    patch.setattr(pretrained, "_PROXY_IMAGES", 24)
    patch.setattr(pretrained, "_PROXY_VALIDATION", 8)
    patch.setattr(runner, "measure_ceiling", lambda *_: SOME_CEILING)
    shrink_networks(patch)
    for name in ("colorization", "seg-pretrained", "vgg-frozen"):
        patch.setitem(SUITE, name, shortened(SUITE[name], epochs=1))
    results = ["--results", "results", "--profile", "quick"]
    run = ["run", "seg-pretrained", "vgg-frozen", "--data", str(data), "--device", "cpu", *results]
    with patch.context() as without:
        without.setattr(markdown, "write_figures", no_figures)
        codes += [main(run), main(run), main(["judge", *results])]
    codes += [main(["report", *results]), main(["compare", "results", "results"]), main(["smoke"])]
    return [*codes, main(["data", "verify", "--root", str(data)])], seen, started


def test_missing_imagenet_weights_are_an_error_without_a_network(tmp_path: Path) -> None:
    message, seen = alone(load_imagenet_weights, tmp_path)
    assert message.startswith("no ImageNet weights: cannot download https://download.pytorch.org/models/vgg16-")
    assert seen


def load_imagenet_weights(folder: Path) -> tuple[str, list[str]]:
    seen, _ = watch()
    os.environ["TORCH_HOME"] = str(folder)
    time.sleep = lambda seconds: None
    with pytest.raises(DataError) as raised:
        vgg16(10, weights="imagenet")
    return str(raised.value), seen
