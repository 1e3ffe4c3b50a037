"""The fleet's table for people and machines: FLEET.md, fleet.html, fleet.json."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.errors import ExitCode
from benchmarks.fleet.outliers import ERROR, LEAST_DEVICES, Quantity
from benchmarks.fleet.verdicts import Judged
from benchmarks.report.html import page
from benchmarks.results.formatting import NONE, as_text, few, number, table, words
from benchmarks.results.gates import Verdict, combined
from benchmarks.results.records import write_atomically
from benchmarks.suite import HARDWARE_MARGINS

_SHOWN = 50  # devices that have a row each; of more only the odd ones have
_WORDS = {ExitCode.PASSED: "PASSED", ExitCode.FAILED: "FAILED", ExitCode.CANNOT_TELL: "CANNOT TELL"}
_NAMED = ("device", "uuid", "serial", "do")
_COLUMNS = ("device", "uuid", "serial", "verdict", "quality", "speed", "share_of_limit", "fingerprint", "hardware")
_QUANTILES = {"least": 0, "10%": 0.1, "median": 0.5, "90%": 0.9, "most": 1}


def write_fleet(folder: Path, judged: Judged) -> str:
    """Write all three; returns the verdict as plain text.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    devices = [_device(judged, place) for place in range(len(judged.devices))]
    text = _markdown(judged, devices)
    content = {"verdict": verdict(judged), "exit_code": int(judged.exit_code), "problems": judged.problems}
    write_atomically(folder / "FLEET.md", text)
    write_atomically(folder / "fleet.html", page(text, folder))
    write_atomically(folder / "fleet.json", json.dumps(content | {"devices": devices}, indent=1) + "\n")
    return verdict(judged)


def verdict(judged: Judged) -> str:
    """For instance "2 of 64 devices are odd: node3 GPU 1 (isolate), node7 GPU 0 (watch)"."""
    named = [f"{judged.devices[place]} ({judged.reasons[place][0][0]})" for place in judged.odd]
    odd = f"{len(named)} of {len(judged.devices)} devices {'is' if len(named) == 1 else 'are'} odd: {few(named)}"
    parts = [odd if named else f"none of {len(judged.devices)} devices is odd", *judged.problems[:1]]
    if not judged.told:
        parts.append(f"fewer than {LEAST_DEVICES} have a configuration or a fingerprint in common: nothing can be told")
    return "; ".join(parts)


def _device(judged: Judged, place: int) -> dict[str, Any]:
    """A device with its numbers, and what was found."""
    device, reasons = judged.devices[place], judged.reasons.get(place, ())
    findings = [finding for run in device.runs for finding in run.findings]
    shares = [share for run in device.runs if (share := run.record.timing.share_of_attainable) is not None]
    own = [entry for entry in judged.quantities if place in entry.values]
    scores = sorted((entry for entry in own if entry.of == "score"), key=lambda entry: -entry.shortfall(place))
    return {
        "device": str(device),
        "uuid": device.uuid,
        "serial": next((told.serial for told in device.hardware if told.serial), None),
        "do": str(reasons[0][0]) if reasons else None,
        "reasons": [text for _, text in reasons],
        "verdict": str(combined(findings) if findings else Verdict.NOT_RUN),
        "quality": {entry.title: round(entry.values[place], 6) for entry in scores},
        "speed": next((entry.values[place] for entry in own if entry.of == "speed"), None),
        "share_of_limit": fmean(shares) if shares else None,
        "fingerprint": judged.fingerprints.get(place),
        "xids": sorted({xid for told in device.hardware for xid in told.xids or ()}),
        "errors": {name: device.count(name) for name in ("ecc_uncorrected", "remapped_rows", *HARDWARE_MARGINS)},
    }


def _markdown(judged: Judged, devices: list[dict[str, Any]]) -> str:
    """The verdict, the odd devices with their reasons, then all of them, and how their numbers spread."""
    parts = [f"# Fleet of {len(devices)} devices", f"**{_WORDS[judged.exit_code]}**: {as_text(verdict(judged))}."]
    parts += [f"- {as_text(problem)}" for problem in judged.problems]
    if judged.odd:
        found = [devices[place] for place in judged.odd]
        rows = [[*(entry[name] or NONE for name in _NAMED), "; ".join(entry["reasons"][:3])] for entry in found]
        parts += ["## Odd devices", table((*_NAMED, "why"), [[*map(as_text, row)] for row in rows])]
    shown = devices if len(devices) <= _SHOWN else [devices[place] for place in judged.odd]
    if shown:
        title = "All devices" if shown is devices else "The odd ones' numbers"
        parts += [
            f"## {title}",
            table([words(name) for name in _COLUMNS], [[*map(as_text, _cells(entry))] for entry in shown]),
        ]
    spreads = [[as_text(entry.title), *_spread(entry)] for entry in judged.quantities]
    parts += ["## What was compared", table(("", "devices", *_QUANTILES), spreads)]
    parts.append(
        f"Where no device is odd, any is named in at most {ERROR:.0%} of fleets, by leave-one-out tests of all these "
        "quantities together; and none that is within its margin of the median. Quality: the gate's metric that is "
        "furthest below the median."
    )
    return "\n\n".join(parts) + "\n"


def _cells(device: dict[str, Any]) -> list[str]:
    counts = {name: count for name, count in device["errors"].items() if count is not None}
    errors = [f"Xid {xid}" for xid in device["xids"]] + [
        f"{words(name)} {counts[name]:.3g}" for name in counts if counts[name]
    ]
    shown = {
        "quality": next((f"{title} {score:.4g}" for title, score in device["quality"].items()), NONE),
        "fingerprint": (device["fingerprint"] or NONE).partition(":")[0],
        "hardware": ", ".join(errors) or ("no errors" if counts else NONE),
    }
    shown |= {name: NONE if device[name] is None else f"{device[name]:.1%}" for name in ("speed", "share_of_limit")}
    return [shown.get(name) or device[name] or NONE for name in _COLUMNS]


def _spread(quantity: Quantity) -> list[str]:
    ordered = sorted(quantity.values.values())
    chosen = (ordered[round(part * (len(ordered) - 1))] for part in _QUANTILES.values())
    plain = {"speed": "{:.1%}", "error": "{:.3g}"}.get(quantity.of)
    return [str(len(ordered)), *(plain.format(value) if plain else number(quantity.metric, value) for value in chosen)]
