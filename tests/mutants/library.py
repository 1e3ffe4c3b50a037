"""Errors on the path of the numbers through the library: data, augmentation, models, losses, training."""

from __future__ import annotations

from tests.mutants.runner import Mutant

LIBRARY: tuple[Mutant, ...] = ()
