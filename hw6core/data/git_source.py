"""The files of one revision of a git repository that strangers may have made, with the git that is installed.

Nothing of the repository runs here: no hook, no filter, no submodule. Before anything is checked out, its list of files
is held against the rules of `Intake`, as an archive's is.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hw6core.data.intake import Intake
from hw6core.download import shown
from hw6core.errors import DataError
from hw6core.limits import Limits

REMOTE_SHELL = re.compile(r"([\w.-]+@)?[\w.-]+:[^:].*")  # git's user@host:path
# Protocols that git may use for an address, also where a server or the user's settings send it elsewhere: never to a
# helper program, never from a safe one to a plain one.
_PROTOCOLS = {"https": "https:ssh", "http": "http:https:ssh", "ssh": "ssh", "file": "file"}
_LOOK_EVERY_S = 0.5
_LISTED = 512  # bytes that the list of files takes for each, at most on average
# The bytes as published, whatever the repository or the user says of line ends, encodings and filters (as of Git LFS).
_ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding\n"
_SETTINGS = (
    "core.symlinks=false",  # a link in the repository must not lead out of the folder
    "core.autocrlf=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    f"core.hooksPath={os.devnull}",
    "core.fsmonitor=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "credential.interactive=false",
    "gc.auto=0",  # a process that goes on in the background would be in the way of tidying up
    "http.lowSpeedLimit=1",
)
# Within a git hook, GIT_DIR and its like would send these commands to the repository around us.
_LOCAL = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE"),
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE"),
)


class GitError(Exception):
    """What git said, in one line."""


def check_out(source: str, revision: str | None, scratch: Path, limits: Limits) -> Path:
    """Fetch one revision into `scratch` and return a folder with its files, without the repository around them.

    Links become plain files, submodules empty folders. `revision` None means the default branch.

    Raises:
        DataError: git is missing, fails, takes too long or too much room, or the files break a rule of `Intake`.
    """
    # git resolves a relative path against the new repository, not against where we are.
    address = source if REMOTE_SHELL.fullmatch(source) or "://" in source else str(Path(source).resolve())
    git = _Git(scratch, _protocols(address), limits)
    tree = scratch / "tree"
    try:
        try:
            commit = _fetch_one_commit(git, address, revision or "HEAD", tree)
        except GitError:
            # Not every server hands out a single commit, and none an abbreviated one.
            shutil.rmtree(tree, ignore_errors=True)
            commit = _clone(git, address, revision or "HEAD", tree)
        _admit_all(git, tree, commit, Intake(shown(source), limits))
        (tree / ".git" / "info").mkdir(exist_ok=True)
        (tree / ".git" / "info" / "attributes").write_text(_ATTRIBUTES, encoding="ascii")
        git("-C", str(tree), "checkout", "--quiet", "--detach", commit, most=2 * limits.unpacked_bytes)
    except GitError as error:
        reason = shown(str(error).replace(address, shown(source)))
        at = f" at {revision}" if revision else ""
        raise DataError(
            f"cannot fetch {shown(source)}{at}: {reason}; check the address and the network, "
            "or give an archive of it with --source"
        ) from error
    shutil.rmtree(tree / ".git")
    return tree


def _protocols(address: str) -> str:
    if REMOTE_SHELL.fullmatch(address) and "://" not in address:
        return "ssh"
    return _PROTOCOLS[address.partition("://")[0].lower() if "://" in address else "file"]


def _fetch_one_commit(git: _Git, address: str, revision: str, tree: Path) -> str:
    git("init", "--quiet", "--template=", "--", str(tree))
    git("-C", str(tree), "fetch", "--quiet", "--depth=1", "--no-tags", "--", address, revision)
    return git("-C", str(tree), "rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}").strip()


def _clone(git: _Git, address: str, revision: str, tree: Path) -> str:
    # Without --no-local the files of a local repository would be linked or copied as they are, its links too.
    git("clone", "--quiet", "--no-checkout", "--no-local", "--template=", "--", address, str(tree))
    for name in (revision, f"origin/{revision}"):  # a clone has every branch but the default one under origin/
        with contextlib.suppress(GitError):
            return git("-C", str(tree), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
    raise GitError(f"it has no revision {revision}")


def _admit_all(git: _Git, tree: Path, commit: str, intake: Intake) -> None:
    """DataError unless the files of the commit may be written: a few objects can stand for any number of them."""
    most = git.limits.members * _LISTED
    listed = git("-C", str(tree), "ls-tree", "-r", "-t", "-z", "--long", "--full-tree", commit, most=most)
    for line in listed.split("\0")[:-1]:
        about, _, name = line.partition("\t")
        size = about.split()[-1]
        intake.admit(name, int(size) if size != "-" else None)


@dataclass(frozen=True)
class _Git:
    """Runs git within a folder, whose growth it watches."""

    scratch: Path
    protocols: str
    limits: Limits

    def __call__(self, *arguments: str, most: int | None = None) -> str:
        """git's output.

        Args:
            most: bytes by which the folder may grow, the output among them; None: those of a download.

        Raises:
            GitError: git fails.
            DataError: git is missing, takes too long or more room than `most`.
        """
        settings = (*_SETTINGS, f"http.lowSpeedTime={max(1, round(self.limits.timeout_s))}")
        command = ["git", *(part for setting in settings for part in ("-c", setting)), *arguments]
        said, complained = self.scratch / "git-said", self.scratch / "git-complained"
        with said.open("wb") as output, complained.open("wb") as errors:
            self._run(command, output, errors, self.limits.download_bytes if most is None else most)
        return said.read_bytes().decode("utf-8", "surrogateescape")

    def _run(self, command: list[str], output: IO[bytes], errors: IO[bytes], most: int) -> None:
        try:
            process = subprocess.Popen(
                command,
                env=_environment(self.protocols),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,  # git's helpers must end with it
            )
        except FileNotFoundError as error:
            raise DataError("git is not installed; install it, or give an archive with --source") from error
        try:
            self._watch(process, most)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if process.returncode != 0:
            raise GitError(_reason(Path(errors.name).read_bytes()[-10_000:].decode("utf-8", "replace")))

    def _watch(self, process: subprocess.Popen[bytes], most: int) -> None:
        end, before = time.monotonic() + self.limits.git_timeout_s, _size(self.scratch)
        while process.poll() is None:
            left = end - time.monotonic()
            if left <= 0:
                raise DataError(f"git took more than {self.limits.git_timeout_s:g} s; give an archive with --source")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(left, _LOOK_EVERY_S))
            if _size(self.scratch) - before > most:
                raise DataError(f"git got more than the {most} bytes allowed; check the address")


def _reason(complaint: str) -> str:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()] or ["git failed"]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
    return fatal[-1].removeprefix("fatal:").removeprefix("error:").strip()


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # git has removed it meanwhile
                total += (Path(parent) / name).lstat().st_size
    return total


def _environment(protocols: str) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in _LOCAL}
    allowed = environment.get("GIT_ALLOW_PROTOCOL")
    chosen = [name for name in protocols.split(":") if allowed is None or name in allowed.split(":")]
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": ":".join(chosen), "LC_ALL": "C"}
    environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    return environment
