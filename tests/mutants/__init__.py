"""The guard is guarded: errors put into the judging code on purpose, each of which some test must notice.

`python -m tests.mutants` runs the check; `table.py` lists the errors, `runner.py` carries them out. Tools that change
operators on their own (mutmut, cosmic-ray) cannot be told what an error means, and hold hundreds of equivalent changes
against one; these here have names that people argue about: "not run" is passed, only the first seed is judged.
"""
