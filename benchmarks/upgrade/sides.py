"""The two sides of an upgrade: environments or images, whose python runs this checkout's suite in its own process."""

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
from hw6core.errors import DataError, HW6Error, UsageError

CHECKOUT = Path(__file__).resolve().parents[2]
_DONE = (ExitCode.PASSED, ExitCode.FAILED, ExitCode.CANNOT_TELL)  # it trained; its records are judged here
_ERRORS: Mapping[int, type[HW6Error]] = {2: UsageError, 3: DataError, 70: UnexpectedError}
_PASSED_ON = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")  # to a container, in addition to the suite's variables


class Package(msgspec.Struct):
    """An installed package; ``own``: installed in the environment itself, not in one that it extends."""

    version: str
    requires: list[str]
    own: bool


class Inventory(msgspec.Struct):
    """See `benchmarks.upgrade.inventory`; ``beside``: the package folders of environments that it extends."""

    python: str
    packages: dict[str, Package]
    beside: list[str]


@dataclass(frozen=True)
class Side:
    """The "old" or "new" side.

    Attributes:
        place: the environment or image as named by the user.
        engine, digest: of an image; empty for an environment.
    """

    name: str
    place: str
    python: str
    engine: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"the {self.name} side, {self.place},"

    def inventory(self) -> Inventory:
        """The side's packages; UsageError if it cannot be started or has no torch."""
        command = self._command(["-m", "benchmarks.upgrade.inventory"], {}, [])
        try:
            done = subprocess.run(command, env=_environment({}), capture_output=True, text=True, check=False)
            # The last line: NVIDIA's images print a banner first.
            found = msgspec.json.decode(done.stdout.strip().rpartition("\n")[2], type=Inventory)
        except OSError as error:
            raise UsageError(f"{self} cannot be started: {error}") from error
        except msgspec.DecodeError as error:
            reason = last_line(done.stderr).removeprefix("error: ") or "it prints nothing"
            raise UsageError(f"{self} cannot run the suite: {reason}") from error
        if "torch" not in found.packages:
            raise UsageError(f"{self} has no torch; install it: {self.python} -m pip install torch torchvision")
        return found

    def train(self, seed: int, results: Path, variables: Mapping[str, str]) -> None:
        """Run the suite with one seed, which skips finished runs.

        Raises:
            UsageError, DataError, InfrastructureError, UnexpectedError: it failed, with its exit code and last line.
        """
        folder, log = results / self.name, results / f"{self.name}.log"
        folder.mkdir(parents=True, exist_ok=True)
        begin = log.stat().st_size if log.exists() else 0
        # On this device only: nodes of a cluster have an environment of their own, other GPUs other results folders.
        variables = {**variables, "SEEDS": str(seed), "RESULTS": str(folder), "ENGINE": "", "EVERY_GPU": ""}
        command = self._command(["-m", "benchmarks", "run"], variables, [folder])
        with (
            log.open("a", encoding="utf-8") as output,
            subprocess.Popen(command, env=_environment(variables), stdout=output, stderr=subprocess.STDOUT) as process,
        ):
            try:
                code = process.wait()
            except KeyboardInterrupt:
                process.terminate()  # a running training saves its state, and the container is removed
                process.wait()
                raise
        if code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        if code not in _DONE:
            reason = last_line(log.read_bytes()[begin:].decode(errors="replace")).removeprefix("error: ")
            error = _ERRORS.get(code, InfrastructureError)
            raise error(f"{self} failed (exit code {code}){reason and f': {reason}'}; see {log}")

    def _command(self, arguments: Sequence[str], variables: Mapping[str, str], written: Sequence[Path]) -> list[str]:
        if not self.engine:
            return [self.python, *arguments]
        variables = {**variables, "BENCHMARK_IMAGE": self.digest}  # a container cannot find it out
        return [*_container(self.engine, variables, written), self.place, self.python, *arguments]


def find_side(name: str, text: str) -> Side:
    """The side that is named by bin/python, a Python interpreter, ``docker:IMAGE`` or ``podman:IMAGE``."""
    engine, _, image = text.partition(":")
    if engine in ("docker", "podman") and image:
        if shutil.which(engine) is None:
            raise UsageError(f"{name.upper()} is {text!r}, but {engine} is not on the PATH; install it")
        command = [engine, "image", "inspect", "--format", "{{.Id}}", image]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UsageError(f"{name.upper()} is {text!r}: {last_line(done.stderr)}; pull it: {engine} pull {image}")
        return Side(name, image, "python3", engine, done.stdout.strip())
    place = Path(text).expanduser().absolute()  # not resolved: python finds its environment by the link's own path
    python = place / "bin" / "python" if place.is_dir() else place
    if not (python.is_file() and os.access(python, os.X_OK)):
        expected = "a folder with bin/python, a Python interpreter, docker:IMAGE or podman:IMAGE"
        raise UsageError(f"{name.upper()} is {text!r}; expected {expected}")
    return Side(name, text, str(python))


def last_line(text: str) -> str:
    """The last line that is not blank: usually the reason that a command failed."""
    return next((one_line(line) for line in reversed(text.splitlines()) if line.strip()), "")


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Environment variables with which a side uses this checkout's code and does not write to CI's step summary."""
    environment = {name: value for name, value in os.environ.items() if name != "GITHUB_STEP_SUMMARY"}
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    return {**environment, **variables, "PYTHONPATH": path}


def _container(engine: str, variables: Mapping[str, str], written: Sequence[Path]) -> Iterator[str]:
    """A command like docker/compose.yaml: no network, read-only root, unprivileged user, the same paths as outside."""
    own = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    torch_home = Path(os.environ.get("TORCH_HOME") or Path(own, "torch"))
    here, caches = Path.cwd(), Path.cwd() / ".cache"
    caches.mkdir(exist_ok=True)
    files = [variables.get("DATA") or "data", variables.get("VGG16_WEIGHTS") or CHECKOUT]
    read = [CHECKOUT, torch_home, *(Path(file).expanduser().absolute() for file in files)]
    environment = dict(variables) | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"PYTHONPATH": str(CHECKOUT), "HOME": "/tmp"}
    environment |= {"XDG_CACHE_HOME": str(caches), "TORCH_HOME": str(torch_home)}
    yield from (engine, "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--shm-size", "1g")
    yield from ("--user", f"{os.getuid()}:{os.getgid()}", "--workdir", str(here))
    if engine == "podman":  # rootless podman would map the user to one who may not write the results
        yield from ("--userns", "keep-id", "--security-opt", "label=disable")
    if variables.get("DEVICE") != "cpu" and Path("/dev/nvidia0").exists():
        yield from ("--gpus", "all")
    for folder in dict.fromkeys(folder for folder in read if folder.exists()):
        yield from ("--volume", f"{folder}:{folder}:ro")
    for folder in (caches, *written):
        yield from ("--volume", f"{folder}:{folder}")
    for name, value in environment.items():
        yield from ("--env", f"{name}={value}")
