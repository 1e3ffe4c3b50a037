"""Runs whole commands, each in a process with its own results folder and log; does not import torch."""

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


def run_at_once(command: Sequence[str], variables: Mapping[Path, Mapping[str, str]]) -> None:
    """Run a python command once for each results folder, at the same time, with these environment variables."""
    running: dict[Path, subprocess.Popen[bytes]] = {}
    try:
        for folder, own in variables.items():
            folder.mkdir(parents=True, exist_ok=True)
            environment = os.environ | own | {"RESULTS": str(folder)}
            with (folder / LOG).open("wb") as log:
                running[folder] = subprocess.Popen([sys.executable, *command], env=environment, stdout=log, stderr=log)
        for folder, process in running.items():
            while process.poll() is None:  # `ray.cancel` cannot interrupt `process.wait`
                time.sleep(_POLL_S)
            print(f"{folder}: exit code {process.returncode}", flush=True)
    finally:
        for process in running.values():
            process.terminate()  # after Ctrl-C; a running training saves its state
        for process in running.values():
            process.wait()


def run_on_node(command: Sequence[str], variables: Mapping[str, str]) -> dict[str, bytes]:
    """Run a python command that writes to RESULTS; returns those files by path, without weights and pictures."""
    with tempfile.TemporaryDirectory(prefix="hw6-") as folder:
        run_at_once(command, {Path(folder): variables})
        paths = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
        return {path.as_posix(): Path(folder, path).read_bytes() for path in paths if not _EXCLUDED & {*path.parts}}
