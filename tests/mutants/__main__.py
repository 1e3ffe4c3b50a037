"""python -m tests.mutants [WORD ...]: the mutants whose name or file holds one of the words; default: all."""

from __future__ import annotations

import argparse
import os
import sys

from tests.mutants.runner import check, report
from tests.mutants.table import MUTANTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="a part of the name or of the file")
    jobs = min(2, os.cpu_count() or 1)
    parser.add_argument("--jobs", type=int, default=jobs, help="processes; default: %(default)s")
    arguments = parser.parse_args()
    chosen = [
        m for m in MUTANTS if not arguments.words or any(word in f"{m.file} {m.name}" for word in arguments.words)
    ]
    outcomes = check(chosen, jobs=arguments.jobs, show=lambda line: print(line, file=sys.stderr, flush=True))
    print(report(outcomes))
    return 0 if outcomes and all(outcome.result == "killed" for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
