"""python -m tests.mutants [WORD ...]: the mutants whose module, place, name or tests hold a word; default: all."""

from __future__ import annotations

import argparse
import os
import sys

from tests.mutants.runner import CHECKOUT, Places, check, report
from tests.mutants.table import MUTANTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="a part of module, place, name or tests")
    jobs = min(2, os.cpu_count() or 1)
    parser.add_argument("--jobs", type=int, default=jobs, help="processes; default: %(default)s")
    arguments = parser.parse_args()
    places = Places(CHECKOUT)
    texts = {mutant: f"{places.module(mutant)} {mutant.place} {mutant.name} {mutant.tests}" for mutant in MUTANTS}
    words = arguments.words or [""]
    chosen = [mutant for mutant, text in texts.items() if any(word in text for word in words)]
    if not chosen:
        parser.error(f"no mutant has any of these words: {' '.join(words)}")
    outcomes = check(chosen, jobs=arguments.jobs, show=lambda line: print(line, file=sys.stderr, flush=True))
    print(report(outcomes))
    return 0 if all(outcome.result == "killed" for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
