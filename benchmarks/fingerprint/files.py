"""Fingerprint files: where they are kept, which ones are compared, and the findings. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import ExitCode
from benchmarks.fingerprint.comparison import compare, judge_several, read_envelope
from benchmarks.fingerprint.record import read_fingerprint
from benchmarks.results.formatting import as_text
from hw6core.errors import DataError

KEPT, LATEST, FINDINGS = "fingerprint.json", "fingerprint-latest.json", "fingerprint.txt"
_OTHERS = {"benchmark.json", "fleet.json", "shard.json", "speed.json"}  # files of other commands in results folders


def new_path(folder: Path) -> Path:
    """The path for a new fingerprint; the first one is never overwritten, so that all later ones compare with it."""
    return folder / (LATEST if (folder / KEPT).exists() else KEPT)


def fingerprint_files(path: Path) -> list[Path]:
    """The file itself, or the fingerprints in a folder by name.

    Raises:
        DataError: there is none.
    """
    found = path.glob("[!.]*.json") if path.is_dir() else [path] if path.is_file() else []
    files = sorted(file for file in found if file.name not in _OTHERS)
    if not files:
        raise DataError(f"no fingerprint at {path}; make one: make fingerprint")
    return files


def judge_files(paths: Sequence[Path]) -> tuple[list[str], ExitCode]:
    """Compare fingerprints, the newest last: one line with the verdict, then one for each difference.

    Raises:
        DataError: one of them cannot be read.
    """
    unique = {path.resolve(): path for path in paths}.values()
    found = {str(path): read_fingerprint(path) for path in unique}
    if len(found) == 1:
        ((name, only),) = found.items()
        return [f"{name}: made {only.made_at}, no other one to compare with"], ExitCode.PASSED
    envelope = read_envelope()
    if len(found) > 2:
        return judge_several(found, envelope)
    (old_name, old), (name, new) = found.items()
    comparison = compare(old, new, envelope)
    reason = f": {comparison.reason}" if comparison.reason else ""
    line = f"{name} (made {new.made_at}) against {old_name} (made {old.made_at}): {comparison.verdict}{reason}"
    return [line, *map(str, comparison.differences)], comparison.verdict.exit_code


def findings_line(results: Path) -> str:
    """The finding on a results folder's latest fingerprint as a line of Markdown; empty if there is none."""
    try:
        return f"Fingerprint: {as_text((results / FINDINGS).read_text(encoding='utf-8').partition(chr(10))[0])}."
    except (OSError, ValueError):
        return ""
