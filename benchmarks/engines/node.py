"""Runs a whole command on a node of a cluster; does not import torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

LOG = "every-gpu.log"  # the command's output, in its results folder
_EXCLUDED = {"weights", "samples", "checkpoints", "figures"}  # results folders that judging a node does not need
_POLL_S = 0.25


def run_command(command: Sequence[str], variables: Mapping[str, str]) -> dict[str, bytes]:
    """Run a python command that writes to RESULTS; returns those files by path, without weights and pictures."""
    with tempfile.TemporaryDirectory(prefix="hw6-") as folder:
        environment = os.environ | dict(variables) | {"RESULTS": folder}
        with (Path(folder) / LOG).open("wb") as log:
            process = subprocess.Popen([sys.executable, *command], env=environment, stdout=log, stderr=log)
            try:
                while process.poll() is None:  # `ray.cancel` cannot interrupt `process.wait`
                    time.sleep(_POLL_S)
            finally:
                process.terminate()
                process.wait()
        paths = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
        return {path.as_posix(): Path(folder, path).read_bytes() for path in paths if not _EXCLUDED & {*path.parts}}
