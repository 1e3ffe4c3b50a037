"""From a red answer to the packages at fault: environments of OLD with some of NEW's packages, each judged anew."""

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
Judge = Callable[[Path], Change]  # of an environment, against OLD
_EXACT = re.compile(r"([\w.-]+)\s*(?:\[[^]]*])?\s*\(?==+\s*([^\s;,)]+)\)?\s*(?:;|$)")


def check(session: Session) -> None:
    """UsageError where there is not what a bisection needs."""
    if session.old.engine or session.new.engine:
        raise UsageError("--bisect mixes the packages of two environments; of images it cannot; name environments")
    if shutil.which("uv") is None:
        raise UsageError("--bisect makes environments with uv, which is not on the PATH; install: pip install uv")


def bisect(
    session: Session, inventories: tuple[Inventory, Inventory], judge: Judge, say: Callable[[str], object] = print
) -> str:
    """Which of NEW's packages are at fault: the smallest set that makes OLD worse, or one of several such sets.

    Returns:
        A section of Markdown: the packages with both versions, and the command that shows it again.
    """
    old, new = inventories
    folder, everything = session.results / "bisect", units(old, new)
    judged: dict[frozenset[Unit], tuple[Change, str]] = {}

    def place(chosen: Sequence[Unit]) -> Path:
        """The same for the same packages: what was run there is not run again."""
        text = "\n".join([session.old.python, *pins(old, new, chosen)])
        return folder / hashlib.sha256(text.encode()).hexdigest()[:8] / "environment"

    def is_worse(chosen: Sequence[Unit]) -> bool:
        key = frozenset(chosen)
        if key not in judged:
            try:
                make_environment(place(chosen), session.old.python, pins(old, new, chosen), old.beside)
                judged[key] = (change := judge(place(chosen))), str(change)
            except HW6Error as error:
                judged[key] = Change.CANNOT_TELL, f"{Change.CANNOT_TELL}, {error}"
            names = ", ".join(name for unit in chosen for name in unit) or "nothing"
            say(f"environment {len(judged)}, OLD with {names} of NEW: {judged[key][1]}")
        return judged[key][0] is Change.WORSE

    guilty: Sequence[Unit] = ()
    reason = ""
    if not everything:
        reason = "no package differs"
    elif not is_worse(everything):
        reason = f"OLD with all of NEW's packages is not shown to be worse: {judged[frozenset(everything)][1]}"
    elif is_worse(()):
        reason = "OLD, made anew from its own packages, is worse than OLD"
    else:
        guilty = ddmin(everything, is_worse)
    for environment in folder.glob("*/environment"):
        if not guilty or environment != place(guilty):
            shutil.rmtree(environment)
    unclear = sum(change is Change.CANNOT_TELL for change, _ in judged.values())
    tried = f"Of {len(judged)} environments that were tried, {unclear} could not be judged."
    if not guilty:
        return f"\n## Packages at fault\n\nNone was found: {as_text(reason)}. {tried}\n"
    rows = [[name, *differing(old, new)[name]] for unit in guilty for name in unit]
    told = {**session.variables, "RESULTS": str(place(guilty).parent / "again")}
    again = ["env", *(f"{name}={value}" for name, value in told.items()), "python", "-m", "benchmarks", "upgrade"]
    again += [session.old.place, str(place(guilty)), *([] if session.costs else ["--quality-only"])]
    text = f"OLD with these of NEW is worse than OLD; none of them can be left out. {tried} To see it again:"
    found = f"{table(['package', 'old', 'new'], rows)}\n\n{text}\n\n    {shlex.join(again)}"
    return f"\n## Packages at fault\n\n{found}\n"


def judge_with(session: Session, say: Callable[[str], object]) -> Judge:
    """The judge that compares an environment with OLD just as NEW was."""

    def judge(environment: Path) -> Change:
        side = find_side("new", str(environment))
        _call([side.python, "-c", "import torch, torchvision"])  # before OLD is trained for nothing
        last = replace(session, new=side, results=environment.parent).answer(say)[-1]
        if last.regressions:
            return Change.WORSE
        return Change.CANNOT_TELL if last.exit_code() else Change.NO_WORSE

    return judge


def ddmin(parts: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> Sequence[T]:
    """A smallest part that still fails: without any one of its members it does not.

    Delta debugging; Zeller, Hildebrandt: Simplifying and isolating failure-inducing input, IEEE TSE 28, 2002. What
    cannot be judged does not fail.

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
    """The packages that differ; those that either side's metadata tie to exact versions of each other are one."""
    groups = {name: {name} for name in differing(old, new)}
    for side in (old, new):
        for name in [name for name in groups if name in side.packages]:
            for needed, version in filter(None, map(_exact, side.packages[name].requires)):
                if needed in groups and needed in side.packages and _is(side.packages[needed].version, version):
                    joined = groups[name] | groups[needed]
                    groups |= dict.fromkeys(joined, joined)
    return sorted({tuple(sorted(group)) for group in groups.values()})


def _exact(requirement: str) -> tuple[str, str] | None:
    found = _EXACT.match(requirement.strip())
    return (re.sub(r"[-_.]+", "-", found[1]).lower(), found[2]) if found else None


def _is(version: str, wanted: str) -> bool:
    """Whether ``==`` holds: 13.0.3 is 13.0.3.0 as well, 2.11.0 is 2.11.0+cpu, 13.1.* is all that begin so."""
    bare = [re.sub(r"(\.0)*(\+.*)?$", "", text.removesuffix(".*")) for text in (version, wanted)]
    return bare[0] == bare[1] or (wanted.endswith(".*") and version.startswith(wanted[:-1]))


def pins(old: Inventory, new: Inventory, chosen: Sequence[Unit]) -> list[str]:
    """OLD's own packages, and of those chosen NEW's versions instead."""
    versions = {name: entry.version for name, entry in old.packages.items() if entry.own and name != "hw6core"}
    for name in (name for unit in chosen for name in unit):
        versions.pop(name, None)
        if name in new.packages:
            versions[name] = new.packages[name].version
    return sorted(f"{name}=={version}" for name, version in versions.items())


def make_environment(folder: Path, python: str, requirements: Sequence[str], beside: Sequence[str] = ()) -> None:
    """An environment of exactly these packages, and of what is seen in the folders beside; InfrastructureError."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    listed = folder.parent / "packages.txt"
    listed.write_text("\n".join(requirements), encoding="utf-8")
    uv = ("uv", "--no-config")  # a pyproject.toml around, as this checkout's, has bounds of its own
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
