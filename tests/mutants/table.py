"""The errors that are put in, and the tests that must notice each. A name says what then goes wrong."""

from __future__ import annotations

from tests.mutants.judging import JUDGING
from tests.mutants.library import LIBRARY
from tests.mutants.runner import Mutant
from tests.mutants.suite import SUITE

MUTANTS: tuple[Mutant, ...] = (*JUDGING, *LIBRARY, *SUITE)
