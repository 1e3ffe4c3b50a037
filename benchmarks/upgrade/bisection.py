"""Finds the packages at fault: judges environments of OLD with some of NEW's packages."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from benchmarks.errors import InfrastructureError
from benchmarks.results.formatting import as_text, table
from benchmarks.results.statistics import Change
from benchmarks.upgrade.session import Session, differing
from benchmarks.upgrade.sides import Inventory, find_side, last_line
from hw6core.errors import HW6Error, UsageError

T = TypeVar("T")
Unit = tuple[str, ...]  # packages that move together
_EXACT = re.compile(r"([\w.-]+)\s*(?:\[[^]]*])?\s*\(?==+\s*([^\s;,)]+)\)?\s*(?:;|$)")


def check(session: Session) -> None:
    """Raise UsageError if the requirements of a bisection are not met."""
    if session.old.engine or session.new.engine:
        raise UsageError("--bisect requires two environments and does not work with images")
    if shutil.which("uv") is None:
        raise UsageError("--bisect requires uv, which is not on the PATH; install it: pip install uv")


def bisect(session: Session, inventories: tuple[Inventory, Inventory], log: Callable[[str], object]) -> str:
    """Find a smallest set of NEW's packages that makes OLD worse.

    Returns:
        A section of Markdown: the packages with both versions, and the command that reproduces it.
    """
    old, new = inventories
    folder, everything = session.results / "bisect", units(old, new)
    judged: dict[frozenset[Unit], tuple[Change, str]] = {}

    def environment_of(chosen: Sequence[Unit]) -> Path:
        """A folder that is the same for the same packages, so that finished runs are not repeated."""
        text = "\n".join([session.old.python, *pins(old, new, chosen)])
        return folder / hashlib.sha256(text.encode()).hexdigest()[:8] / "environment"

    def is_worse(chosen: Sequence[Unit]) -> bool:
        key = frozenset(chosen)
        if key not in judged:
            environment = environment_of(chosen)
            try:
                make_environment(environment, session.old.python, pins(old, new, chosen), old.beside)
                judged[key] = (change := judge_environment(session, environment, log)), str(change)
            except HW6Error as error:
                judged[key] = Change.CANNOT_TELL, f"{Change.CANNOT_TELL}, {error}"
            names = ", ".join(name for unit in chosen for name in unit) or "no package"
            log(f"environment {len(judged)}, OLD with {names} from NEW: {judged[key][1]}")
        return judged[key][0] is Change.WORSE

    culprits: Sequence[Unit] = ()
    if not everything:
        reason = "no package differs"
    elif not is_worse(everything):
        reason = f"OLD with all of NEW's packages is not shown to be worse: {judged[frozenset(everything)][1]}"
    elif is_worse(()):
        reason = "a copy of OLD, made from its own packages, is worse than OLD"
    else:
        culprits, reason = ddmin(everything, is_worse), ""
    for environment in folder.glob("*/environment"):
        if not culprits or environment != environment_of(culprits):
            shutil.rmtree(environment)
    unclear = sum(change is Change.CANNOT_TELL for change, _ in judged.values())
    tried = f"{unclear} of the {len(judged)} environments that were tried could not be judged."
    if not culprits:
        return f"\n## Packages at fault\n\nNone found: {as_text(reason)}. {tried}\n"
    rows = [[name, *differing(old, new)[name]] for unit in culprits for name in unit]
    variables = {**session.variables, "RESULTS": str(environment_of(culprits).parent / "again")}
    again = ["env", *(f"{name}={value}" for name, value in variables.items()), "python", "-m", "benchmarks", "upgrade"]
    again += [session.old.place, str(environment_of(culprits)), *([] if session.costs else ["--quality-only"])]
    text = "OLD with these versions from NEW is worse than OLD; without any one of them it is not shown to be. "
    text += f"{tried} To reproduce:"
    found = f"{table(['package', 'old', 'new'], rows)}\n\n{text}\n\n    {shlex.join(again)}"
    return f"\n## Packages at fault\n\n{found}\n"


def judge_environment(session: Session, environment: Path, log: Callable[[str], object]) -> Change:
    """Compare an environment with OLD in the same way as NEW."""
    side = find_side("new", str(environment))
    _call([side.python, "-c", "import torch, torchvision"])  # fail before OLD is trained
    last = replace(session, new=side, results=environment.parent).run(log)[-1]
    if last.regressions:
        return Change.WORSE
    return Change.CANNOT_TELL if last.exit_code() else Change.NO_WORSE


def ddmin(parts: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> Sequence[T]:
    """A minimal subset that still fails: without any one of its members it does not.

    Delta debugging; Zeller, Hildebrandt: Simplifying and isolating failure-inducing input, IEEE TSE 28, 2002. A subset
    that cannot be judged counts as not failing.

    >>> ddmin("abcdefgh", lambda part: "b" in part and "g" in part)
    ['b', 'g']
    """
    found, count = list(parts), 2
    while len(found) > 1:
        bounds = [len(found) * place // count for place in range(count + 1)]
        chunks = [found[low:high] for low, high in pairwise(bounds)]
        rests = [[part for part in found if part not in chunk] for chunk in chunks]
        if (smaller := next(filter(fails, chunks), None)) is not None:
            found, count = smaller, 2
        elif (smaller := next(filter(fails, rests), None)) is not None:
            found, count = smaller, max(count - 1, 2)
        elif count < len(found):
            count = min(2 * count, len(found))
        else:
            break
    return found


def units(old: Inventory, new: Inventory) -> list[Unit]:
    """The packages that differ, grouped with those whose exact version they require."""
    groups = {name: {name} for name in differing(old, new)}
    for side in (old, new):
        for name in groups.keys() & side.packages:
            for found in filter(None, (_EXACT.match(text.strip()) for text in side.packages[name].requires)):
                needed, version = re.sub(r"[-_.]+", "-", found[1]).lower(), found[2]
                if needed in groups and needed in side.packages and _equal(side.packages[needed].version, version):
                    joined = groups[name] | groups[needed]
                    groups |= dict.fromkeys(joined, joined)
    return sorted({tuple(sorted(group)) for group in groups.values()})


def _equal(version: str, wanted: str) -> bool:
    """Whether a version satisfies ``==wanted``: 13.0.3 equals 13.0.3.0, 2.11.0+cpu equals 2.11.0, 13.1.2 is 13.1.*."""
    bare = [re.sub(r"(\.0)*(\+.*)?$", "", text.removesuffix(".*")) for text in (version, wanted)]
    return bare[0] == bare[1] or (wanted.endswith(".*") and version.startswith(wanted[:-1]))


def pins(old: Inventory, new: Inventory, chosen: Sequence[Unit]) -> list[str]:
    """Requirements of OLD's own packages, with NEW's versions of the chosen ones."""
    versions = {name: entry.version for name, entry in old.packages.items() if entry.own and name != "hw6core"}
    for name in (name for unit in chosen for name in unit):
        versions.pop(name, None)
        if name in new.packages:
            versions[name] = new.packages[name].version
    return sorted(f"{name}=={version}" for name, version in versions.items())


def make_environment(folder: Path, python: str, requirements: Sequence[str], beside: Sequence[str]) -> None:
    """Make an environment of exactly these packages, which also sees the folders ``beside``.

    Raises:
        InfrastructureError: uv cannot make it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    listed = folder.parent / "packages.txt"
    listed.write_text("\n".join(requirements), encoding="utf-8")
    uv = ("uv", "--no-config")  # ignores constraints in a pyproject.toml of this or a parent folder
    _call([*uv, "venv", "--quiet", "--python", python, str(folder)])
    made = str(folder / "bin" / "python")
    _call([*uv, "pip", "install", "--quiet", "--no-deps", "--python", made, "-r", str(listed)])
    (site,) = folder.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({place!r})" for place in beside]
    (site / "beside.pth").write_text("\n".join(lines), encoding="utf-8")


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InfrastructureError(f"{shlex.join(command[:3])} ...: {last_line(done.stderr)}")
