"""The two sides: an environment or an image, whose python runs this checkout's suite in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.errors import ExitCode, InfrastructureError, UnexpectedError
from benchmarks.results.formatting import one_line
from hw6core.errors import DataError, UsageError

CHECKOUT = Path(__file__).resolve().parents[2]
_DONE = (ExitCode.PASSED, ExitCode.FAILED, ExitCode.CANNOT_TELL)  # it trained; what is judged here are the records
_ERRORS: Mapping[int, type[UsageError | DataError | UnexpectedError]] = {
    2: UsageError,
    3: DataError,
    70: UnexpectedError,
}
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
    """One of both: "old" or "new", as it was named; ``engine`` and ``digest`` of an image."""

    name: str
    place: str
    python: str
    engine: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"the {self.name} side, {self.place},"

    def inventory(self) -> Inventory:
        """What it holds; UsageError where it cannot be started or has no torch."""
        command = self._command(["-m", "benchmarks.upgrade.inventory"], {}, [])
        try:
            done = subprocess.run(command, env=_environment({}), capture_output=True, text=True, check=False)
            found = msgspec.json.decode(done.stdout, type=Inventory)
        except OSError as error:
            raise UsageError(f"{self} cannot be started: {error}") from error
        except msgspec.DecodeError as error:
            raise UsageError(f"{self} is no python: {last_line(done.stderr) or 'it says nothing'}") from error
        if "torch" not in found.packages:
            raise UsageError(f"{self} has no torch; install: {self.python} -m pip install torch torchvision")
        return found

    def train(self, seed: int, results: Path, variables: Mapping[str, str]) -> None:
        """`run` with one seed, which skips what is done; where it cannot, an error of its kind with its last line."""
        folder, log = results / self.name, results / f"{self.name}.log"
        folder.mkdir(parents=True, exist_ok=True)
        told = {**variables, "SEEDS": str(seed), "RESULTS": str(folder)}
        command = self._command(["-m", "benchmarks", "run"], told, [folder])
        with (
            log.open("a", encoding="utf-8") as output,
            subprocess.Popen(command, env=_environment(told), stdout=output, stderr=subprocess.STDOUT) as process,
        ):
            try:
                code = process.wait()
            except KeyboardInterrupt:
                process.terminate()  # a training under way saves its state, and no container is left behind
                process.wait()
                raise
        if code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        if code not in _DONE:
            said = last_line(log.read_text(encoding="utf-8", errors="replace")).removeprefix("error: ")
            error = _ERRORS.get(code, InfrastructureError)
            raise error(f"{self} cannot run (exit code {code}): {said}; more: {log}")

    def _command(self, arguments: Sequence[str], variables: Mapping[str, str], written: Sequence[Path]) -> list[str]:
        if not self.engine:
            return [self.python, *arguments]
        told = {**variables, "BENCHMARK_IMAGE": self.digest}  # a container cannot find it out
        return [*_container(self.engine, told, written), self.place, self.python, *arguments]


def find_side(name: str, text: str) -> Side:
    """The side that a person named: a folder with bin/python, a python, ``docker:IMAGE`` or ``podman:IMAGE``."""
    engine, _, image = text.partition(":")
    if engine in ("docker", "podman") and image:
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
        expected = "a folder with bin/python, a python, docker:IMAGE or podman:IMAGE"
        raise UsageError(f"{name.upper()} is {text!r}, no environment; expected {expected}")
    return Side(name, text, str(python))


def last_line(text: str) -> str:
    """The last that says anything; of a command that failed the reason."""
    return next((one_line(line) for line in reversed(text.splitlines()) if line.strip()), "")


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This checkout's code, whatever an environment has installed; the job's page shows the answer alone."""
    environment = {name: value for name, value in os.environ.items() if name != "GITHUB_STEP_SUMMARY"}
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    return {**environment, **variables, "PYTHONPATH": path}


def _container(engine: str, variables: Mapping[str, str], written: Sequence[Path]) -> Iterator[str]:
    """As docker/compose.yaml: no network, a read-only root, a user without rights. Every folder has its own path."""
    here, torch_home = Path.cwd(), Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
    caches = here / ".cache"
    caches.mkdir(exist_ok=True)
    files = [variables.get("DATA") or "data", variables.get("VGG16_WEIGHTS") or CHECKOUT]
    read = [CHECKOUT, torch_home, *(Path(file).expanduser().absolute() for file in files)]
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
    for folder in (caches, *written):
        yield from ("--volume", f"{folder}:{folder}")
    for name, value in told.items():
        yield from ("--env", f"{name}={value}")
