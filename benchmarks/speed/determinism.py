"""Is the deterministic mode reproducible? `make determinism` trains every configuration briefly, three times.

It trains twice in one process and once in another, on a GPU once more with CUDA graphs, and compares weights,
losses and metrics bit for bit. A training in fast mode shows the cost of the deterministic mode. The findings are
written to `RESULTS`/DETERMINISM.md, with the operations that have no deterministic implementation in torch.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from benchmarks.engines.engine import prepare, with_base_weights
from benchmarks.exits import exit_code_of
from benchmarks.interruption import exit_process
from benchmarks.machine.devices import CAPTURING, open_device
from benchmarks.options import read_option, read_options
from benchmarks.results.formatting import table
from benchmarks.results.records import Record, read_record, record_path, write_atomically
from benchmarks.runs.plan import Plan
from benchmarks.runs.progress import Display
from benchmarks.runs.runner import Runner
from benchmarks.suite import STAND_IN, STAND_IN_SEED, Configuration
from benchmarks.workloads.datasets import Store
from benchmarks.workloads.run import READS, weights_path

_FAST, _CAPTURED = "fast", "captured"
_FOLDERS = ("first", "again", "apart", _FAST)
_SAME = "the same"


def brief(configuration: Configuration, profile: str, data_kind: str, samples: int, steps: int) -> Configuration:
    """The configuration with about ``steps`` steps on a training split of ``samples``, in at least two epochs.

    Two, because the second depends on the end of the first.
    """
    work = configuration.work_on(profile, data_kind)
    samples *= configuration.settings.get("cutouts", 1)  # crops of each frame
    chosen = work.training_samples
    if READS[configuration.kind] == "garments":
        chosen = min(math.ceil(steps / 2 * work.batch_size / 0.9), samples)
        samples = chosen - chosen // 10  # a tenth validates
    elif chosen:
        samples = min(chosen, samples)
    epochs = max(math.ceil(steps / max(samples // work.batch_size, 1)), 2)
    work = replace(work, epochs=epochs, training_samples=chosen, patience=None)
    return replace(configuration, work={profile: work})


def learned(record: Record) -> Mapping[str, object]:
    """A run's weights (a digest of every training's), losses (of every epoch) and final metrics."""
    history = {
        curve: [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]
        for curve, entries in record.history.items()
    }
    return {"weights": record.details.learned, "losses": history, "metrics": record.metrics}


def compare(
    results: Path,
    ids: Sequence[str],
    seed: int,
    may_be_missing: Sequence[str] = (),
    folders: Sequence[str] = _FOLDERS,
) -> tuple[str, bool]:
    """A table that compares the results folders, and whether they agree; ``may_be_missing`` ids may be "not run"."""
    rows, agreed = [], True
    for name in ids:
        records = {folder: read_record(record_path(results / folder, name, seed)) for folder in folders}
        missing = next((record for record in records.values() if record.status != "completed"), None)
        if missing is not None:
            agreed &= missing.status == "not run" and name in may_be_missing
            rows.append([name, "-", "-", f"{missing.status}: {missing.message}", *"-" * (len(folders) - 1)])
            continue
        record, first = records["first"], learned(records["first"])
        others = [learned(records[folder]) for folder in folders if folder not in ("first", _FAST)]
        different = [[part for part in first if first[part] != other[part]] for other in others]
        verdicts = [f"DIFFERENT: {', '.join(parts)}" if parts else _SAME for parts in different]
        if _CAPTURED in records and (reason := records[_CAPTURED].details.not_recorded):
            verdicts[-1] = f"not captured: {reason}"
        agreed &= set(verdicts) == {_SAME}
        weights = sha256(json.dumps(first["weights"], sort_keys=True).encode()).hexdigest()[:16]
        steps = (record.timing.samples or 0.0) / record.settings["work"]["batch_size"]
        unsafe = ", ".join(record.details.nondeterministic_operations or ()) or "none"
        slow, fast = (records[folder].timing.samples_per_s for folder in ("apart", _FAST))
        times_as_long = f"{fast / slow:.2f}x" if slow and fast else "-"
        rows.append([name, f"{steps:.0f}", weights, *verdicts, unsafe, times_as_long])
    compared = ["in one process", "across processes", *(["CUDA graphs"] if _CAPTURED in folders else [])]
    headers = ["configuration", "steps", "weights", *compared, "not deterministic in torch", "time relative to fast"]
    return table(headers, rows), agreed


def brief_plan(plan: Plan, steps: int, results: Path) -> Plan:
    """The plan with about ``steps`` steps for each training, in the mode that the results folder stands for."""
    store = Store(plan.data, open_device("cpu"))
    samples = {entry.id: store.description(READS[entry.kind])["samples"]["train"] for entry in plan.configurations}  # type: ignore[index]
    chosen = [brief(entry, plan.profile, store.kind, samples[entry.id], steps) for entry in plan.configurations]
    # All use the first stand-in, if one is made: it is not compared here.
    made = weights_path(results.with_name(_FOLDERS[0]), STAND_IN.id, STAND_IN_SEED)
    return replace(
        plan,
        configurations=chosen,
        seeds=plan.seeds[:1],
        deterministic=results.name != _FAST,
        cuda_graphs=results.name == _CAPTURED,
        results=results,
        workers=1,
        vgg16_weights=made if made.is_file() else plan.vgg16_weights,
    )


def main(arguments: Sequence[str]) -> int:
    """Return 0 if all bits agree, else 1; with ``arguments``, train into these results folders instead of comparing."""
    display = Display()
    plan = read_options({})
    steps = read_option("STEPS", {})
    prepare(plan, display)
    if arguments:
        for folder in arguments:
            todo = with_base_weights(brief_plan(plan, steps, Path(folder)), display)
            Runner(todo, display).run_all()
        return 0
    results = plan.results / "determinism"
    shutil.rmtree(results, ignore_errors=True)  # runs with an earlier record would be skipped
    folders = (*_FOLDERS, _CAPTURED) if plan.device in CAPTURING else _FOLDERS
    for together in (folders[:2], *((folder,) for folder in folders[2:])):  # this process does not use the device
        command = [sys.executable, "-m", "benchmarks.speed.determinism", *(str(results / name) for name in together)]
        if code := subprocess.run(command, check=False).returncode:
            return code
    ids = [entry.id for entry in plan.configurations]
    text, agreed = compare(results, ids, plan.seeds[0], plan.allow_not_run, folders)
    write_atomically(plan.results / "DETERMINISM.md", f"# Deterministic mode, three times\n\n{text}\n")
    print(text)
    return 0 if agreed else 1


if __name__ == "__main__":
    exit_process(exit_code_of(lambda: main(sys.argv[1:])))
