"""Everything that only a GPU can tell, in one go: `make gpu-check`, about eight minutes on an H100.

The whole `full` suite with one seed, plainly and with recorded steps; the speed table; every configuration three times
in deterministic mode, compared bit for bit; several runs on one device against one after the other. Each part is a
process of its own with a time limit, so that one that fails or hangs costs itself alone. The findings are written to
`RESULTS`/GPU.md as they come.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.options import Options, read_options
from benchmarks.records import read_records, write_atomically
from benchmarks.suite import SUITE
from benchmarks.words import duration, table
from hw6core.errors import SuiteError

_LIMIT_S = 180
_AT_ONCE = 3


class Check:
    """Runs the parts and keeps their findings."""

    def __init__(self, options: Options) -> None:
        self.folder = options.results
        self.variables = {
            "PROFILE": options.profile,
            "DEVICE": options.device,
            "DATA": str(options.data or "synthetic"),
            "ONLY": " ".join(entry.id for entry in options.only),
            "ALLOW_NOT_RUN": " ".join(options.allow_not_run),
            "GPUS": "1" if options.device == "cuda" else "",
            "WORKERS": "1",
        }
        if options.vgg16_weights:
            self.variables["VGG16_WEIGHTS"] = str(options.vgg16_weights)
        self.small = (os.environ.get("ONLY") or "seg-baseline").split()[0]
        self.sections: list[str] = ["# What the GPU tells"]
        self.failed = False

    def told(self, title: str, *paragraphs: str) -> None:
        """Add a section, and write the file so far."""
        self.sections += [f"## {title}", *paragraphs]
        write_atomically(self.folder / "GPU.md", "\n\n".join(self.sections) + "\n")
        print(f"## {title}", *paragraphs, sep="\n", flush=True)

    def start(self, results: str, **variables: str) -> subprocess.Popen[bytes]:
        """`python -m benchmarks run` in a process of its own, with its output in a file."""
        folder = self.folder / results
        folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | self.variables | {"RESULTS": str(folder)} | variables
        with (folder / "output.txt").open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks", "run"], env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    def finish(self, processes: Sequence[subprocess.Popen[bytes]], limit_s: float) -> list[int | None]:
        """Exit codes; None for what was stopped at the limit."""
        end = time.monotonic() + limit_s
        codes: list[int | None] = []
        for process in processes:
            try:
                codes.append(process.wait(max(end - time.monotonic(), 0.1)))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                codes.append(None)
        self.failed |= any(code != 0 for code in codes)
        return codes

    def suite(self, name: str, limit_s: float, **variables: str) -> None:
        """All configurations with seed 0: is it a minute, and does every gate hold?"""
        start = time.monotonic()
        (code,) = self.finish([self.start(name, SEEDS="0", **variables)], limit_s)
        whole = time.monotonic() - start
        records = read_records(self.folder / name) if (self.folder / name / "records").is_dir() else []
        rows = []
        for record in records:
            scores = ", ".join(
                f"{gate.metric} {record.metrics.get(gate.metric)}" for gate in SUITE[record.configuration].gates
            )
            timing = record.timing
            share = timing.get("share_of_attainable")
            rows.append(
                [
                    record.configuration,
                    record.status if record.status != "completed" else scores,
                    *(duration(timing.get(part)) for part in ("total_s", "warmup_s", "training_s", "seconds_to_gate")),
                    "-" if share is None else f"{share:.0%}",
                ]
            )
        steady = sum((record.timing.get("total_s") or 0) - (record.timing.get("warmup_s") or 0) for record in records)
        headers = ["configuration", "scores", "total", "warm-up", "training", "to gate", "of attainable"]
        self.told(
            f"The suite, seed 0: {name}",
            f"exit code {code}; {duration(whole)} with start-up, {duration(steady)} without warm-up and start-up",
            table(headers, rows),
        )

    def determinism(self) -> None:
        """The same seed three times: are all bits the same?"""
        path = self.folder / "bits" / "DETERMINISM.md"
        text = self.part([sys.executable, "-m", "benchmarks.determinism"], path, RESULTS=str(path.parent))
        self.told("Deterministic mode, three times", *text)

    def at_once(self) -> None:
        """Seeds of one small network side by side on the device, against one after the other."""
        seeds = " ".join(str(seed) for seed in range(_AT_ONCE))
        took = {}
        for workers in (1, _AT_ONCE):
            start = time.monotonic()
            variables = {"SEEDS": seeds, "ONLY": self.small, "WORKERS": str(workers)}
            self.finish([self.start(f"workers-{workers}", **variables)], _LIMIT_S)
            took[workers] = time.monotonic() - start
        times = f"in turn {duration(took[1])}, at once (WORKERS={_AT_ONCE}) {duration(took[_AT_ONCE])}"
        self.told(f"{_AT_ONCE} seeds of {self.small} on one device", f"{times}: {took[1] / took[_AT_ONCE]:.2f}x")

    def speed(self) -> None:
        """The table of `make speed`."""
        command = [sys.executable, "-m", "pytest", "benchmarks/test_speed.py", "-q", "-p", "no:cacheprovider"]
        self.told("Speed", *self.part(command, self.folder / "speed" / "SPEED.md", RESULTS=str(self.folder / "full")))

    def part(self, command: Sequence[str], path: Path, **variables: str) -> tuple[str, str]:
        """Exit code and the text at ``path`` that a command is to write."""
        environment = os.environ | self.variables | variables
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        (code,) = self.finish([process], _LIMIT_S)
        return f"exit code {code}", path.read_text(encoding="utf-8") if path.exists() else "no table"


def main() -> int:
    """Exit code 0 if every part ran and agreed."""
    try:
        check = Check(read_options({}))
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    check.suite("plain", _LIMIT_S)
    if check.variables["DEVICE"] == "cuda":
        check.suite("graphs", _LIMIT_S, CUDA_GRAPHS="1")
    check.determinism()
    check.at_once()
    check.speed()
    print(f"written to {check.folder / 'GPU.md'}")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
