"""Does the deterministic mode give the same bits? `make determinism` trains every configuration briefly, three times.

Twice in one process and once in another one: weights, losses and metrics are compared bit for bit. The findings are
written to `RESULTS`/DETERMINISM.md, with the operations that torch says have no deterministic form.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from benchmarks.options import parse_count, read_options
from benchmarks.plan import Plan, make_plan
from benchmarks.progress import Display
from benchmarks.records import Record, read_record, record_path, write_atomically
from benchmarks.runner import Runner
from benchmarks.store import Store
from benchmarks.suite import Configuration
from benchmarks.words import INTERRUPTED, table
from benchmarks.workloads import READS
from hw6core.errors import InfrastructureError, SuiteError
from hw6core.interruption import INTERRUPTED_CODE, interruptible, leave

_STEPS = 200
_FOLDERS = ("first", "again", "apart")


def brief(configuration: Configuration, profile: str, samples: int, steps: int) -> Configuration:
    """The same configuration with about so many steps, in two epochs at least: the second depends on the first's end.

    Args:
        samples: of the training split.
    """
    work = configuration.work[profile]
    if READS[configuration.kind] == "garments":  # a tenth of which validates
        chosen = min(math.ceil(steps / 2 * work.batch_size / 0.9), samples)
        epochs = max(math.ceil(steps / max((chosen - chosen // 10) // work.batch_size, 1)), 2)
        work = replace(work, epochs=epochs, training_samples=chosen)
    else:
        epochs = max(math.ceil(steps / max(samples // work.batch_size, 1)), 2)
        work = replace(work, epochs=epochs)
    return replace(configuration, work={profile: replace(work, synthetic_epochs=None, patience=None)})


def learned(results: Path, configuration: str, seed: int) -> Mapping[str, str]:
    """Digests of what a run learned: weights of every training, losses of every epoch, final metrics."""
    record = read_record(record_path(results, configuration, seed))
    if record.status != "completed":
        raise InfrastructureError(f"{configuration}: {record.message}")
    history = {
        curve: [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]
        for curve, entries in record.history.items()
    }
    return {
        "weights": _digest(json.dumps(record.details["learned"], sort_keys=True).encode()),
        "losses": _digest(json.dumps(history, sort_keys=True).encode()),
        "metrics": _digest(json.dumps(record.metrics, sort_keys=True).encode()),
    }


def verdict(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """ "the same", or what differs."""
    different = [name for name in one if one[name] != other[name]]
    return "DIFFERENT: " + ", ".join(different) if different else "the same"


def compare(results: Path, runs: Sequence[tuple[Configuration, int]]) -> tuple[str, bool]:
    """The findings on three result folders as a table, and whether everything agreed."""
    rows = []
    for configuration, seed in runs:
        first, again, apart = (learned(results / folder, configuration.id, seed) for folder in _FOLDERS)
        record = read_record(record_path(results / _FOLDERS[0], configuration.id, seed))
        unsafe = ", ".join(record.details.get("nondeterministic_operations") or ()) or "none"
        steps = _steps(record)
        rows.append([configuration.id, steps, first["weights"], verdict(first, again), verdict(first, apart), unsafe])
    headers = ["configuration", "steps", "weights", "in one process", "across processes", "no deterministic form"]
    agreed = not any("DIFFERENT" in cell for row in rows for cell in row)
    return table(headers, rows), agreed


def _steps(record: Record) -> str:
    samples = record.timing.get("samples") or 0.0
    return f"{samples / record.settings['work']['batch_size']:.0f}"


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:16]


def brief_plan(plan: Plan, steps: int, results: Path) -> Plan:
    """The plan with about so many steps for each training, in deterministic mode."""
    store = Store(plan.data, Runner(plan).device)
    samples = {entry.id: store.description(READS[entry.kind])["samples"]["train"] for entry in plan.configurations}  # type: ignore[index]
    chosen = [brief(entry, plan.profile, samples[entry.id], steps) for entry in plan.configurations]
    stand_ins = plan.results / "weights"  # not what is compared here
    return replace(
        plan,
        configurations=chosen,
        seeds=plan.seeds[:1],
        deterministic=True,
        results=results,
        workers=1,
        stand_ins=plan.stand_ins or stand_ins,
    )


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 if all bits agreed, 1 if not; ``arguments``: the folder of a part, for a process of its own."""
    display = Display()
    options = read_options({})
    steps = parse_count("STEPS", os.environ.get("STEPS", "")) or _STEPS
    plan = make_plan(options, display)
    results = options.results / "determinism"
    if arguments:
        Runner(brief_plan(plan, steps, Path(arguments[0])), display).run_all()
        return 0
    shutil.rmtree(results, ignore_errors=True)  # a record of an earlier call would be taken for done
    for folder in _FOLDERS[:2]:
        Runner(brief_plan(plan, steps, results / folder), display).run_all()
    command = [sys.executable, "-m", "benchmarks.determinism", str(results / _FOLDERS[2])]
    if code := subprocess.run(command, check=False).returncode:
        return code
    text, agreed = compare(results, brief_plan(plan, steps, results).runs)
    write_atomically(options.results / "DETERMINISM.md", f"# Deterministic mode, three times\n\n{text}\n")
    print(text)
    return 0 if agreed else 1


if __name__ == "__main__":
    try:
        with interruptible():
            sys.exit(main(sys.argv[1:]))
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        leave(INTERRUPTED_CODE)
