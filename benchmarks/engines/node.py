"""What a node of a cluster does that is given a whole command. Torch is the command's affair: nothing here loads it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

LOG = "node.log"  # what the command said
_LEFT = {"weights", "samples", "checkpoints", "figures"}  # folders of results that nobody judges a node by
_LOOK_EVERY_S = 0.25


def run_command(command: Sequence[str], variables: Mapping[str, str]) -> dict[str, bytes]:
    """Run a python command that leaves results in RESULTS; their files by their paths, without weights and pictures."""
    with tempfile.TemporaryDirectory(prefix="hw6-") as folder:
        environment = os.environ | dict(variables) | {"RESULTS": folder}
        with (Path(folder) / LOG).open("wb") as said:
            process = subprocess.Popen([sys.executable, *command], env=environment, stdout=said, stderr=said)
            try:
                while process.poll() is None:  # `ray.cancel` is heard between two calls, and ends none that waits
                    time.sleep(_LOOK_EVERY_S)
            finally:
                process.terminate()
                process.wait()
        paths = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
        return {path.as_posix(): Path(folder, path).read_bytes() for path in paths if not _LEFT & {*path.parts}}
