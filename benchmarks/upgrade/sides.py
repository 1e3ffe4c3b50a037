"""The two sides: an environment or an image, whose python runs this checkout's suite in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from benchmarks.errors import ExitCode, InfrastructureError, UnexpectedError
from benchmarks.results.formatting import one_line
from hw6core.errors import DataError, UsageError

CHECKOUT = Path(__file__).resolve().parents[2]
ENGINES = ("docker", "podman")
_DONE = (ExitCode.PASSED, ExitCode.FAILED, ExitCode.CANNOT_TELL)  # it trained; what is judged here are the records
_ERRORS = {ExitCode.USAGE: UsageError, ExitCode.DATA: DataError, ExitCode.FAULT: UnexpectedError}
_HANDED_ON = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")  # to a container, beside the suite's own variables


class Package(msgspec.Struct):
    """An installed package; ``own``: in the environment itself, not in one that it builds on."""

    version: str
    requires: list[str]
    own: bool


class Inventory(msgspec.Struct):
    """See `benchmarks.upgrade.inventory`; ``beside``: the folders of packages that an environment builds on."""

    python: str
    packages: dict[str, Package]
    beside: list[str]


@dataclass(frozen=True)
class Side:
    """One of both.

    Attributes:
        name: "old" or "new", also of its results folder.
        place: the environment or the image, as it was named.
        python: the command that starts its python.
        engine: whose image it is; None for an environment.
        digest: of the image.
    """

    name: str
    place: str
    python: str
    engine: str | None = None
    digest: str = ""

    def inventory(self) -> Inventory:
        """What it holds.

        Raises:
            UsageError: it cannot be started, or has no torch.
        """
        command = self._command(["-m", "benchmarks.upgrade.inventory"], {}, None)
        try:
            done = subprocess.run(command, env=_environment({}), capture_output=True, text=True, check=False)
            found = msgspec.json.decode(done.stdout, type=Inventory)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the {self.name} side, {self.place}, cannot be started: {error}") from error
        except msgspec.DecodeError as error:
            said = last_line(done.stderr) or "it is no python"
            raise UsageError(f"the {self.name} side, {self.place}, cannot tell what it holds: {said}") from error
        if "torch" not in found.packages:
            install = f"; install: {self.python} -m pip install torch torchvision" if self.engine is None else ""
            raise UsageError(f"the {self.name} side, {self.place}, has no torch{install}")
        return found

    def train(self, seed: int, results: Path, variables: Mapping[str, str]) -> None:
        """What `run` does with one seed; what is done and still valid is skipped.

        Raises:
            HW6Error: it could not run, with its last line and its own exit code.
        """
        folder, log = results / self.name, results / f"{self.name}.log"
        folder.mkdir(parents=True, exist_ok=True)
        told = {**variables, "SEEDS": str(seed), "RESULTS": str(folder)}
        command = self._command(["-m", "benchmarks", "run"], told, folder)
        with log.open("a", encoding="utf-8") as output:
            code = _exit_code(command, _environment(told), output)
        if code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        if code not in _DONE:
            said = last_line(log.read_text(encoding="utf-8", errors="replace")).removeprefix("error: ")
            error = _ERRORS.get(code, InfrastructureError)  # type: ignore[call-overload]
            raise error(f"the {self.name} side, {self.place}, cannot run (exit code {code}): {said}; more: {log}")

    def _command(self, arguments: Sequence[str], variables: Mapping[str, str], results: Path | None) -> list[str]:
        if self.engine is None:
            return [self.python, *arguments]
        told = {**variables, "BENCHMARK_IMAGE": self.digest}  # a container cannot find it out
        return [*_container(self.engine, told, results), self.place, self.python, *arguments]


def find_side(name: str, text: str) -> Side:
    """The side that a person named: a folder with bin/python, a python, ``docker:IMAGE`` or ``podman:IMAGE``.

    Raises:
        UsageError: it is none of these.
    """
    engine, _, image = text.partition(":")
    if engine in ENGINES and image:
        if shutil.which(engine) is None:
            raise UsageError(f"{name.upper()} is {text!r}, and there is no {engine} on the PATH; install it")
        command = [engine, "image", "inspect", "--format", "{{.Id}}", image]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UsageError(f"{name.upper()} is {text!r}: {last_line(done.stderr)}; get it: {engine} pull {image}")
        return Side(name, image, "python3", engine, done.stdout.strip())
    place = Path(text).expanduser().absolute()  # not resolved: the link of an environment to its python is what counts
    python = place / "bin" / "python" if place.is_dir() else place
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise UsageError(
            f"{name.upper()} is {text!r}, no environment; expected a folder with bin/python, a python, "
            "docker:IMAGE or podman:IMAGE"
        )
    return Side(name, text, str(python))


def last_line(text: str) -> str:
    """The last that says anything; of a command that failed the reason."""
    return next((one_line(line) for line in reversed(text.splitlines()) if line.strip()), "")


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This checkout's code, whatever an environment has installed; the job's page shows the answer alone."""
    environment = {name: value for name, value in os.environ.items() if name != "GITHUB_STEP_SUMMARY"}
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    return environment | dict(variables) | {"PYTHONPATH": path}


def _exit_code(command: Sequence[str], environment: Mapping[str, str], output: IO[str]) -> int:
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
    ) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()  # a training under way saves its state; after Ctrl-C it was told already
            process.wait()
            raise


def _container(engine: str, variables: Mapping[str, str], results: Path | None) -> Iterator[str]:
    """As docker/compose.yaml: no network, a read-only root, a user without rights. Every folder has its own path."""
    here, torch_home = Path.cwd(), Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
    caches = here / ".cache"
    caches.mkdir(exist_ok=True)
    data = Path(variables.get("DATA") or "data").expanduser().absolute()
    read = [CHECKOUT, data, torch_home, Path(variables.get("VGG16_WEIGHTS") or CHECKOUT).expanduser().absolute()]
    told = dict(variables) | {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    told |= {"PYTHONPATH": str(CHECKOUT), "HOME": "/tmp", "XDG_CACHE_HOME": str(caches), "TORCH_HOME": str(torch_home)}
    yield from (engine, "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--shm-size", "1g")
    yield from ("--user", f"{os.getuid()}:{os.getgid()}", "--workdir", str(here))
    if engine == "podman":  # without rights it would map the user to another one, who may not write the results
        yield from ("--userns", "keep-id", "--security-opt", "label=disable")
    if variables.get("DEVICE") != "cpu" and Path("/dev/nvidia0").exists():
        yield from ("--gpus", "all")
    for folder in dict.fromkeys(folder for folder in read if folder.exists()):
        yield from ("--volume", f"{folder}:{folder}:ro")
    for folder in filter(None, (caches, results)):
        yield from ("--volume", f"{folder}:{folder}")
    for name, value in told.items():
        yield from ("--env", f"{name}={value}")
