"""The guard is guarded: errors put into the code on purpose, each of which some test must notice.

`python -m tests.mutants` runs the check: `judging.py`, `library.py` and `suite.py` list the errors by where they are,
`runner.py` carries them out. Tools that change operators on their own (mutmut, cosmic-ray) cannot be told what an error
means, and hold hundreds of equivalent changes against one; these here have names that people argue about: "not run" is
passed, only the first seed is judged.
"""
