"""All checks that need a GPU: `make gpu-check`, within twenty minutes (`MINUTES`); `main` lists them.

Each part is a separate process with a time limit, so that a failure or hang does not affect the others; parts for which
no time is left are reported. The findings are written to `RESULTS`/GPU.md as they come, with the output of each part
beside it.
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
from operator import add
from pathlib import Path
from statistics import mean

from benchmarks.exits import exit_code_of
from benchmarks.fingerprint.record import KEPT
from benchmarks.interruption import exit_process
from benchmarks.machine.devices import open_device
from benchmarks.options import read_option, read_options
from benchmarks.results.formatting import duration, table
from benchmarks.results.gates import judge_run
from benchmarks.results.records import Record, read_records, write_atomically
from benchmarks.runs.plan import Plan
from benchmarks.suite import SUITE, Configuration
from hw6core.errors import HW6Error

_GOAL_S = 60.0  # of the whole suite with one seed, steady
_AT_ONCE = 3
_PATIENCE_S = 10.0  # between SIGTERM and SIGKILL
_SHOWN_LINES = 15  # of the output of a failed part
_STEPS = "30"  # of each deterministic training
_SAME_LOSS = 0.1  # largest relative difference of the first epoch's mean loss: sums are added in another order


class Check:
    """Runs the parts, within ``limit_s`` seconds in total, and collects their findings."""

    def __init__(self, plan: Plan, limit_s: float) -> None:
        self.folder = plan.results
        self.variables = {  # instead of the environment's; all others are passed on
            **{"DEVICE": plan.device, "GPUS": "1", "SEEDS": "0", "WORKERS": "1", "ENGINE": ""},
            **{"CUDA_GRAPHS": "0", "COMPILE": "0", "DETERMINISTIC": "0"},
        }
        self.chosen, self.allow_not_run = plan.configurations, plan.allow_not_run
        self.sections: list[str] = ["# GPU check"]
        self.failed = False
        self._end = time.monotonic() + limit_s

    def part(self, title: str, work: Callable[[], Sequence[str]]) -> None:
        """Add a section with the paragraphs that ``work`` returns, or its error, and write the file so far."""
        try:
            paragraphs = work()
        except (HW6Error, OSError, ValueError) as error:
            self.failed = True
            paragraphs = [f"**not measured**: {error}"]
        self.sections += [f"## {title}", *paragraphs]
        write_atomically(self.folder / "GPU.md", "\n\n".join(self.sections) + "\n")
        print(f"## {title}", *paragraphs, sep="\n\n", flush=True)

    def run(self, name: str, *module: str, **variables: str) -> list[str]:
        """Run ``python -m module`` in its own process; results and output are in the folder ``name``, emptied first.

        Returns:
            Paragraphs about its failure; none if the exit code is 0.
        """
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        left_s = self._end - time.monotonic()
        if left_s <= 0:
            self.failed = True
            return ["**not measured**: no time left; raise the limit, MINUTES"]
        environment = os.environ | self.variables | {"RESULTS": str(folder)} | variables
        command, path = [sys.executable, "-m", *module], folder / "output.txt"
        with path.open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        code = None
        try:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(left_s)
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):  # to the group: the part may have left processes behind
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_PATIENCE_S)
        if code == 0:
            return []
        self.failed = True
        end = "stopped at the time limit" if code is None else f"exit code {code}"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]
        return [f"**{end}**", "```\n" + "\n".join(lines) + "\n```"]

    def suite(self) -> list[str]:
        """All configurations with seed 0: time, gates, and whether the scores are the same in float32."""
        start = time.monotonic()
        lines = self.run("plain", "benchmarks", "run")
        whole = f"{duration(time.monotonic() - start)} with start-up"
        lines += [whole, *self._runs("plain"), "The segmentation weights, scored in both precisions:"]
        lines += self.run("precisions", "benchmarks.speed.precisions", RESULTS=str(self.folder / "plain"))
        return [*lines, _text(self.folder / "precisions" / "output.txt")]

    def graphs(self) -> list[str]:
        """The suite with CUDA graphs: are all steps captured, and are losses and verdicts the same?"""
        lines = self.run("graphs", "benchmarks", "run", CUDA_GRAPHS="1")
        rows, objections = [], []
        for configuration in self.chosen:
            eager, captured = (self._completed(name, configuration) for name in ("plain", "graphs"))
            if not eager or not captured:
                if configuration.id not in self.allow_not_run:
                    objections.append(f"{configuration.id} is missing")
                continue
            pair = eager[0], captured[0]
            losses = [mean(curve[0]["train_loss"] or 0.0 for curve in record.history.values()) for record in pair]
            times = [record.timing.training_s or 0.0 for record in pair]
            gain = f"{times[0] / times[1]:.2f}x" if times[1] else "-"
            rows.append([configuration.id, *(f"{loss:.4g}" for loss in losses), *map(duration, times), gain])
            if reason := pair[1].details.not_recorded:
                objections.append(f"{configuration.id} was not captured ({reason})")
            if not math.isclose(*losses, rel_tol=_SAME_LOSS):
                objections.append(f"{configuration.id} has another loss")
            verdicts = [[found.verdict for found in judge_run(record, configuration, record.seed)] for record in pair]
            if verdicts[0] != verdicts[1]:
                objections.append(f"{configuration.id} has another verdict")
        self.failed |= bool(objections)
        found = "; ".join(objections) or "losses and verdicts agree; Deterministic mode below compares them bit for bit"
        headers = ["configuration", "first loss", "captured", "training", "captured", "speedup"]
        return [*lines, *self._runs("graphs"), table(headers, rows), f"CUDA graphs: {found}."]

    def at_once(self) -> list[str]:
        """Several seeds of one small network at once on the device, compared with one alone."""
        small = self.chosen[0]
        seeds = " ".join(str(seed) for seed in range(_AT_ONCE))
        asked = {"SEEDS": seeds, "ONLY": small.id, "ALLOW_NOT_RUN": "", "WORKERS": str(_AT_ONCE)}
        lines = self.run("workers", "benchmarks", "run", **asked)
        together, alone = self._completed("workers", small), self._completed("plain", small)
        if len(together) < _AT_ONCE or not alone:
            return [*lines, "**not measured**: runs are missing"]
        starts = [datetime.fromisoformat(str(record.environment.machine.started_at)) for record in together]
        lengths = [timedelta(seconds=record.timing.total_s or 0) for record in together]
        all_s = (max(map(add, starts, lengths)) - min(starts)).total_seconds()
        one_s = alone[0].timing.total_s or 0.0
        return [
            *lines,
            f"{_AT_ONCE} seeds of {small.id} at once (WORKERS={_AT_ONCE}): {duration(all_s)}; one alone took "
            f"{duration(one_s)}, so running them in sequence would take {_AT_ONCE * one_s / all_s:.2f}x as long.",
        ]

    def determinism(self) -> list[str]:
        """The same seed three times, and with CUDA graphs: are all bits the same?"""
        lines = self.run("bits", "benchmarks.speed.determinism", STEPS=_STEPS)
        return [*lines, _text(self.folder / "bits" / "DETERMINISM.md")]

    def fingerprint(self) -> list[str]:
        """A fingerprint in each of two processes: are they the same, and the same as those of AGAINST?"""
        lines, parts = [], ("fingerprint", "fingerprint-again")
        for name in parts:
            lines += self.run(name, "benchmarks", "fingerprint")
        files = [str(self.folder / name / KEPT) for name in parts]
        lines += self.run("fingerprints", "benchmarks", "fingerprint", *files, AGAINST="")
        outputs = (self.folder / name / "output.txt" for name in (*parts, "fingerprints"))
        return [*lines, "```\n" + "\n".join(map(_text, outputs)) + "\n```"]

    def waiting(self) -> list[str]:
        """Does an epoch wait for the device?"""
        lines = self.run("waiting", "benchmarks.speed.no_waiting")
        return lines or ["no step waited for the device"]

    def speed(self) -> list[str]:
        """The table of `make speed`."""
        results, options = self.folder / "speed" / "results", ("-q", "-p", "no:cacheprovider")
        lines = self.run("speed", "pytest", "benchmarks/speed/test_speed.py", *options, RESULTS=str(results))
        return [*lines, _text(self.folder / "speed" / "speed" / "SPEED.md")]

    def _records(self, name: str) -> list[Record]:
        return read_records(self.folder / name) if (self.folder / name / "records").is_dir() else []

    def _completed(self, name: str, configuration: Configuration) -> list[Record]:
        found = (record for record in self._records(name) if record.status == "completed")
        return [record for record in found if record.configuration == configuration.id]

    def _runs(self, name: str) -> list[str]:
        """A table of the records in a folder."""
        rows, steady = [], []
        for record in self._records(name):
            timing, gates = record.timing, SUITE[record.configuration].gates
            scores = ", ".join(f"{gate.metric} {record.metrics.get(gate.metric)}" for gate in gates)
            if record.status == "completed":
                steady.append((timing.total_s or 0.0) - (timing.warmup_s or 0.0))
            else:
                scores = f"{record.status}: {record.message}"
            times = map(duration, (timing.total_s, timing.warmup_s, timing.training_s, timing.seconds_to_gate))
            share = timing.share_of_attainable
            rows.append([record.configuration, scores, *times, "-" if share is None else f"{share:.0%}"])
        judged = f"goal {duration(_GOAL_S)}: {'reached' if sum(steady) <= _GOAL_S else 'missed'}"
        whole = judged if len(steady) == len(SUITE) else "not all of the suite"
        headers = ["configuration", "scores", "total", "warm-up", "training", "to gate", "of attainable"]
        completed = f"{len(steady)} of {len(self.chosen)} runs completed"
        return [f"{completed}, {duration(sum(steady))} without warm-up and start-up ({whole})", table(headers, rows)]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else "no table"


def main() -> int:
    """Return 0 if every part ran and agreed, else 1."""
    open_device("cuda")  # fails at once without a GPU, on which every part depends
    check = Check(read_options({"DEVICE": "cuda"}), 60.0 * read_option("MINUTES", {}))
    check.part("The suite, seed 0", check.suite)
    check.part("The suite, seed 0, with CUDA graphs", check.graphs)
    check.part("Waiting inside an epoch", check.waiting)
    check.part("Deterministic mode", check.determinism)
    check.part("Fingerprint", check.fingerprint)
    check.part("Several seeds at once", check.at_once)
    check.part("Speed", check.speed)
    print(f"wrote {check.folder / 'GPU.md'}")
    return 1 if check.failed else 0


if __name__ == "__main__":
    exit_process(exit_code_of(main))
