"""The suite: which runs there are, what they must reach, and what they reached."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (not what was installed, but a Python on the PATH: imports would fail)
    sys.stderr.write(f"error: {sys.executable} is Python {sys.version.split()[0]}; expected 3.11 or newer\n")
    raise SystemExit(2)
