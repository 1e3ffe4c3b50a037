"""Everything that only a GPU can tell, in one go: `make gpu-check`, within twenty minutes (`MINUTES`).

In this order: the whole `full` suite with one seed, and its weights scored in both precisions; the suite once more with
recorded steps; whether a step waits for the device; every configuration several times in deterministic mode, compared
bit for bit; several seeds at once on one device; the speed table. Each part is a process of its own with a time limit,
so that one that fails or hangs costs itself alone, and a part for which no time is left is named. The findings are
written to `RESULTS`/GPU.md as they come; what the parts print lies beside it.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import IO

from benchmarks.exits import exit_code_of
from benchmarks.machine.devices import open_device
from benchmarks.options import Options, parse_count, read_options
from benchmarks.results.formatting import duration, table
from benchmarks.results.gates import judge_run
from benchmarks.results.records import Record, read_records, write_atomically
from benchmarks.suite import SUITE, Configuration
from hw6core.errors import SuiteError
from hw6core.interruption import leave

_MINUTES = 20
_GOAL_S = 60.0  # of the whole suite with one seed, steady
_AT_ONCE = 3
_PATIENCE_S = 10.0  # between asking a part to end and ending it
_TOLD_LINES = 15  # of what a part that failed has printed
_STEPS = "30"  # of each deterministic training
_SAME_LOSS = 0.1  # most relative difference of the first epoch's mean loss: sums are added up in another order


class Check:
    """Runs the parts and keeps their findings.

    Args:
        options: what the suite is asked to do.
        limit_s: for all parts together.
    """

    def __init__(self, options: Options, limit_s: float) -> None:
        self.folder = options.results
        self.variables = {
            "PROFILE": options.profile,
            "DEVICE": options.device,
            "DATA": str(options.data or "synthetic"),
            "SEEDS": "0",
            "ONLY": " ".join(entry.id for entry in options.only),
            "ALLOW_NOT_RUN": " ".join(options.allow_not_run),
            "GPUS": "1" if options.device == "cuda" else "",
            "WORKERS": "1",
        } | {"CUDA_GRAPHS": "0", "DETERMINISTIC": "0", "ENGINE": ""}
        if options.vgg16_weights:
            self.variables["VGG16_WEIGHTS"] = str(options.vgg16_weights)
        self.chosen = options.only
        self.sections: list[str] = ["# What the GPU tells"]
        self.failed = False
        self._end = time.monotonic() + limit_s

    def told(self, title: str, *paragraphs: str) -> None:
        """Add a section, and write the file so far."""
        self.sections += [f"## {title}", *paragraphs]
        write_atomically(self.folder / "GPU.md", "\n\n".join(self.sections) + "\n")
        print(f"## {title}", *paragraphs, sep="\n\n", flush=True)

    def part(self, title: str, work: Callable[[], Sequence[str]]) -> None:
        """A section with what ``work`` finds out, or with the reason why it found nothing."""
        try:
            paragraphs = work()
        except (SuiteError, OSError, ValueError) as error:
            self.failed = True
            paragraphs = [f"**not measured**: {error}"]
        self.told(title, *paragraphs)

    def run(self, name: str, *module: str, anew: bool = True, **variables: str) -> list[str]:
        """A part in a process of its own; its results and what it prints are in a folder of that name.

        Args:
            name: of the folder below `RESULTS`.
            module: what `python -m` runs, with its arguments.
            anew: what lies there is of an earlier call and is removed.
            variables: of its environment.

        Returns:
            What to say of its end: nothing if the exit code is 0.
        """
        folder = self.folder / name
        if anew:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        left_s = self._end - time.monotonic()
        if left_s <= 0:
            self.failed = True
            return ["**not measured**: no time was left; more: MINUTES=40"]
        environment = os.environ | self.variables | {"RESULTS": str(folder)} | variables
        command, path = [sys.executable, "-m", *module], folder / "output.txt"
        with path.open("ab") as output:
            code = _finish(command, environment, output, left_s)
        if code == 0:
            return []
        self.failed = True
        end = "stopped, as the time was over" if code is None else f"exit code {code}"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TOLD_LINES:]
        return [f"**{end}**", "```\n" + "\n".join(lines) + "\n```"]

    def suite(self) -> list[str]:
        """All configurations with seed 0: is it a minute, and does every gate hold? Is it the same in float32?"""
        start = time.monotonic()
        told = self.run("plain", "benchmarks", "run")
        whole = f"{duration(time.monotonic() - start)} with start-up"
        told += [whole, *self._runs("plain"), "The weights of the segmentations, scored in both precisions:"]
        told += self.run("precisions", "benchmarks.speed.precisions", RESULTS=str(self.folder / "plain"))
        return [*told, _text(self.folder / "precisions" / "output.txt")]

    def graphs(self) -> list[str]:
        """The same with recorded steps: are they recorded, and do they learn the same?"""
        told = self.run("graphs", "benchmarks", "run", CUDA_GRAPHS="1")
        return [*told, *self._runs("graphs"), *self._recorded()]

    def _recorded(self) -> list[str]:
        """Eager runs and recorded ones side by side, and what speaks against recording."""
        rows, objections = [], []
        for configuration in self.chosen:
            pair = [_completed(self.folder / name, configuration)[:1] for name in ("plain", "graphs")]
            if not all(pair):
                objections.append(f"{configuration.id} is missing")
                continue
            eager, recorded = (found[0] for found in pair)
            losses = [_first_loss(record) for record in (eager, recorded)]
            times = [record.timing.get("training_s") or 0.0 for record in (eager, recorded)]
            rows.append([configuration.id, *(f"{loss:.4g}" for loss in losses), *map(duration, times), _gain(*times)])
            if reason := recorded.details.get("not_recorded"):
                objections.append(f"{configuration.id} was not recorded ({reason})")
            if not math.isclose(*losses, rel_tol=_SAME_LOSS):
                objections.append(f"{configuration.id} learned something else")
            if _verdicts(eager, configuration) != _verdicts(recorded, configuration):
                objections.append(f"{configuration.id} has another verdict")
        self.failed |= bool(objections)
        found = "; ".join(objections) or "they learn the same here; whether bit for bit stands under Deterministic mode"
        headers = ["configuration", "first loss", "recorded", "training", "recorded", "eager takes"]
        return [table(headers, rows), f"Recorded steps: {found}."]

    def at_once(self) -> list[str]:
        """Seeds of one small network side by side on the device, against the one that had it to itself."""
        small = self.chosen[0]
        seeds = " ".join(str(seed) for seed in range(_AT_ONCE))
        told = self.run(
            "workers", "benchmarks", "run", SEEDS=seeds, ONLY=small.id, ALLOW_NOT_RUN="", WORKERS=str(_AT_ONCE)
        )
        together = _completed(self.folder / "workers", small)
        alone = _completed(self.folder / "plain", small)[:1]
        if len(together) < _AT_ONCE or not alone:
            return [*told, "**not measured**: runs are missing"]
        one_s, all_s = _spent_s(alone), _spent_s(together)
        gain = _AT_ONCE * one_s / all_s
        return [
            *told,
            f"{_AT_ONCE} seeds of {small.id} at once (WORKERS={_AT_ONCE}): {duration(all_s)}; one alone took "
            f"{duration(one_s)}, so one after the other would take {gain:.2f}x as long. Streams and `torch.func` stand "
            "under Speed.",
        ]

    def determinism(self) -> list[str]:
        """The same seed three times, and with recorded steps: are all bits the same?"""
        told = self.run("bits", "benchmarks.speed.determinism", STEPS=_STEPS)
        return [*told, _text(self.folder / "bits" / "DETERMINISM.md")]

    def waiting(self) -> list[str]:
        """Does an epoch wait for the device?"""
        told = self.run("waiting", "benchmarks.speed.no_waiting")
        return told or ["no step waited for the device"]

    def speed(self) -> list[str]:
        """The table of `make speed`, but for the quick suite, which takes minutes."""
        results = self.folder / "speed" / "results"
        chosen = ["benchmarks/speed/test_speed.py", "-k", "not quick_suite"]
        told = self.run("speed", "pytest", *chosen, "-q", "-p", "no:cacheprovider", RESULTS=str(results))
        return [*told, _text(self.folder / "speed" / "speed" / "SPEED.md")]

    def _runs(self, name: str) -> list[str]:
        """What the records in a folder tell."""
        found = self.folder / name / "records"
        records = read_records(found.parent) if found.is_dir() else []
        rows = []
        for record in records:
            scores = ", ".join(
                f"{gate.metric} {record.metrics.get(gate.metric)}" for gate in SUITE[record.configuration].gates
            )
            told = scores if record.status == "completed" else f"{record.status}: {record.message}"
            parts = ("total_s", "warmup_s", "training_s", "seconds_to_gate")
            share = record.timing.get("share_of_attainable")
            times = (duration(record.timing.get(part)) for part in parts)
            rows.append([record.configuration, told, *times, "-" if share is None else f"{share:.0%}"])
        headers = ["configuration", "scores", "total", "warm-up", "training", "to gate", "of attainable"]
        completed = [record for record in records if record.status == "completed"]
        steady = sum((record.timing.get("total_s") or 0) - (record.timing.get("warmup_s") or 0) for record in completed)
        judged = "reached" if steady <= _GOAL_S else "missed"
        whole = f"goal {duration(_GOAL_S)}: {judged}" if len(completed) == len(SUITE) else "not all of the suite"
        count = f"{len(completed)} of {len(self.chosen)} runs completed"
        return [f"{count}, {duration(steady)} without warm-up and start-up ({whole})", table(headers, rows)]


def _finish(command: Sequence[str], environment: dict[str, str], output: IO[bytes], limit_s: float) -> int | None:
    """Run a command and all that it starts; the exit code, or None if it was stopped at the limit."""
    process = subprocess.Popen(
        command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):  # also what it started and left behind
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE_S)


def _completed(folder: Path, configuration: Configuration) -> list[Record]:
    records = read_records(folder) if (folder / "records").is_dir() else []
    return [record for record in records if record.configuration == configuration.id and record.status == "completed"]


def _verdicts(record: Record, configuration: Configuration) -> list[str]:
    return [finding.verdict for finding in judge_run(record, configuration, record.seed)]


def _first_loss(record: Record) -> float:
    """Mean over the first epochs of all trainings."""
    return mean(entries[0]["train_loss"] for entries in record.history.values())


def _gain(eager_s: float, recorded_s: float) -> str:
    return f"{eager_s / recorded_s:.2f}x" if recorded_s else "-"


def _spent_s(records: Sequence[Record]) -> float:
    """From the first start to the last end."""
    starts = [datetime.fromisoformat(record.environment["machine"]["started_at"]) for record in records]
    ends = [
        start + timedelta(seconds=record.timing["total_s"] or 0) for start, record in zip(starts, records, strict=True)
    ]
    return (max(ends) - min(starts)).total_seconds()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else "no table"


def main() -> int:
    """Exit code 0 if every part ran and agreed."""
    minutes = parse_count("MINUTES", os.environ.get("MINUTES", "")) or _MINUTES
    open_device("cuda")  # without one, every part would train on the CPU, for minutes
    check = Check(read_options({"DEVICE": "cuda"}), 60.0 * minutes)
    check.part("The suite, seed 0", check.suite)
    check.part("The suite, seed 0, with recorded steps", check.graphs)
    check.part("Waiting inside an epoch", check.waiting)
    check.part("Deterministic mode", check.determinism)
    check.part("Several seeds at once", check.at_once)
    check.part("Speed", check.speed)
    print(f"written to {check.folder / 'GPU.md'}")
    return 1 if check.failed else 0


if __name__ == "__main__":
    leave(exit_code_of(main))
