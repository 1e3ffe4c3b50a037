"""Writes the report on a fleet: FLEET.md, fleet.html and fleet.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.fleet.outliers import ERROR, LEAST_DEVICES
from benchmarks.fleet.verdicts import ERRORS, Judged
from benchmarks.report.html import page
from benchmarks.results.formatting import NONE, as_text, few, table, text_of, words
from benchmarks.results.gates import Verdict, combined
from benchmarks.results.records import write_atomically

_SHOWN = 50  # in larger fleets, only the odd devices get a row
_NAMED = ("device", "uuid", "serial", "do", "reasons")
_COLUMNS = ("device", "uuid", "serial", "verdict", "quality", "speed", "share_of_limit", "fingerprint", "errors")
_QUANTILES = {"least": 0, "10%": 0.1, "median": 0.5, "90%": 0.9, "most": 1}
_NOTE = f"""In a fleet without odd devices, the probability that any is reported is at most {ERROR:.0%}, over the
leave-one-out tests of all these quantities together; a device within its margin of the median is never reported.
Quality is the gated metric that is furthest below the median; speed is relative to the median over all runs; the limit
is the device's own."""


def write_fleet(folder: Path, judged: Judged) -> str:
    """Write the three files and return the verdict as plain text.

    Raises:
        OSError: the folder cannot be written.
    """
    named = [f"{judged.devices[index]} ({judged.reasons[index][0][0]})" for index in judged.odd]
    odd = f"{len(named)} of {len(judged.devices)} devices {'is' if len(named) == 1 else 'are'} odd: {few(named)}"
    parts = [odd if named else f"none of {len(judged.devices)} devices is odd", *judged.problems[:1]]
    if alone := [str(judged.devices[index]) for index in judged.uncompared]:
        needed = f"fewer than {LEAST_DEVICES} devices of the same kind have a common configuration or fingerprint"
        parts.append(f"cannot tell for {few(alone)}: {needed}")
    verdict = "; ".join(parts)
    devices = [_device(judged, index) for index in range(len(judged.devices))]
    content = {"verdict": verdict, "exit_code": int(judged.exit_code), "problems": judged.problems, "devices": devices}
    text = _markdown(judged, verdict, devices)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "FLEET.md", text)
    write_atomically(folder / "fleet.html", page(text, folder))
    write_atomically(folder / "fleet.json", json.dumps(content, indent=1) + "\n")
    return verdict


def _device(judged: Judged, index: int) -> dict[str, Any]:
    """The entry of a device in fleet.json."""
    device, reasons = judged.devices[index], judged.reasons.get(index, ())
    findings = [finding for run in device.runs for finding in run.findings]
    shares = [share for run in device.runs if (share := run.record.timing.share_of_attainable) is not None]
    own = [entry for entry in judged.quantities if index in entry.values]
    scores = sorted((entry for entry in own if entry.of == "score"), key=lambda entry: -entry.shortfall(index))
    errors: dict[str, float | None] = {f"xid_{xid}": count for xid, count in sorted(device.xids.items())}
    errors |= {name: device.count(name) for name in ("ecc_uncorrected", "remapped_rows", *ERRORS)}
    return {
        "device": str(device),
        "uuid": device.uuid,
        "serial": next((entry.serial for entry in device.hardware if entry.serial), None),
        "do": str(reasons[0][0]) if reasons else None,
        "reasons": "; ".join(text for _, text in reasons),
        "verdict": str(combined(findings) if findings else Verdict.NOT_RUN),
        "quality": {entry.title: round(entry.values[index], 6) for entry in scores[:1]},
        "speed": next((round(entry.values[index], 4) for entry in own if entry.of == "speed"), None),
        "share_of_limit": round(fmean(shares), 4) if shares else None,
        "fingerprint": judged.fingerprints.get(index, "").partition(":")[0],
        "errors": {name: count for name, count in errors.items() if count},
    }


def _markdown(judged: Judged, verdict: str, devices: Sequence[dict[str, Any]]) -> str:
    """FLEET.md: the verdict, the odd devices with their reasons, all devices, and the spread of each quantity."""
    parts = [
        f"# Fleet of {len(devices)} devices",
        f"**{judged.exit_code.name.replace('_', ' ')}**: {as_text(verdict)}.",
    ]
    parts += [f"- {as_text(problem)}" for problem in judged.problems]
    odd = [devices[index] for index in judged.odd]
    numbers = ("All devices", devices) if len(devices) <= _SHOWN else ("Measurements of the odd devices", odd)
    for (title, rows), columns in ((("Odd devices", odd), _NAMED), (numbers, _COLUMNS)):
        cells = [[text_of(row[name]) if row[name] else NONE for name in columns] for row in rows]
        parts += [f"## {title}", table([words(name) for name in columns], cells)] if rows else []
    spreads = []
    for entry in judged.quantities:
        spread = (entry.text(value) for value in np.quantile([*entry.values.values()], [*_QUANTILES.values()]).tolist())
        spreads.append([as_text(entry.title), str(len(entry.values)), *spread])
    return "\n\n".join([*parts, "## What was compared", table(("", "devices", *_QUANTILES), spreads), _NOTE]) + "\n"
