"""Errors on the path of the numbers through the suite: tasks, workloads, runner, store, report, exports."""

from __future__ import annotations

from tests.mutants.runner import Mutant

SUITE: tuple[Mutant, ...] = ()
