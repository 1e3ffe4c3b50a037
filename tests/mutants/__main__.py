"""python -m tests.mutants [WORD ...]: the mutants whose module, place or name holds one of the words; default: all."""

from __future__ import annotations

import argparse
import os
import sys

from tests.mutants.runner import CHECKOUT, Places, accepted, check, report
from tests.mutants.table import MUTANTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="a part of the module, the place or the name")
    jobs = min(2, os.cpu_count() or 1)
    parser.add_argument("--jobs", type=int, default=jobs, help="processes; default: %(default)s")
    arguments = parser.parse_args()
    places = Places(CHECKOUT)
    chosen = [
        mutant
        for mutant in MUTANTS
        if not arguments.words
        or any(word in f"{places.module(mutant)} {mutant.place} {mutant.name}" for word in arguments.words)
    ]
    outcomes = check(chosen, jobs=arguments.jobs, show=lambda line: print(line, file=sys.stderr, flush=True))
    print(report(outcomes))
    return 0 if accepted(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
