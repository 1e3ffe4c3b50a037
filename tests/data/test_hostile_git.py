"""Repositories, addresses and revisions that were made to run something, to fill the disk or to leave the folder."""

from __future__ import annotations

import http.server
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hw6core.data import git_source
from hw6core.data.fetch import fetch_endovis
from hw6core.errors import DataError, UsageError
from tests.fetching import QUICK, SET, Server, files_in, git, write


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A repository with the set; a test makes it hostile."""
    folder = tmp_path / "upstream"
    write(folder, SET)
    git(folder, "init", "-q")
    commit(folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own settings of git."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").touch()
    return tmp_path / "gitconfig"


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "x")


def fetched(tmp_path: Path, source: str, revision: str | None = None) -> dict[str, bytes]:
    return files_in(fetch_endovis(tmp_path / "data", source, revision, limits=QUICK))


def program(path: Path, mark: Path) -> Path:
    """A program that leaves a mark when it runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    path.chmod(0o755)
    return path


# ----------------------------------------------------------------------------------------------- addresses, revisions


@pytest.mark.parametrize(
    "source",
    [
        "--upload-pack=touch ran;",
        "-u",
        "ext::sh -c 'touch ran'",
        "ext::sh -c 'touch ran' https://x",
        "ext://sh -c 'touch ran'",
        "fd::3",
        "https::ext://x",
        "http::file:///etc",
        "file::///etc",
        " https://host/x.git",
        "transport::address",
        "git://host/x",
        "sftp://host/x",
        "javascript:://x",
        "ssh://-oProxyCommand=touch ran/x",
        "ssh://-oProxyCommand=touch%20ran/x",
        "-oProxyCommand=touch ran:x",
        "me@-oProxyCommand=touch ran:x",
        "https://host/x\n.git",
        "https://host/\x1b[2J.git",
        "$(touch ran)",
        "`touch ran`",
        "x; touch ran",
        "x" * 5000,
        "x/" * 5000 + ".zip",
        "file:///" + "x" * 5000,
        "\ud800",
        "/etc\0.git",
    ],
)
def test_addresses_that_are_refused(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(program(tmp_path / "bin/ssh", tmp_path / "connected")))
    with pytest.raises((UsageError, DataError)) as caught:
        fetch_endovis(tmp_path / "data", source, limits=QUICK)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "connected").exists()
    assert not (tmp_path / "data" / "endovis").exists()


@pytest.mark.parametrize(
    "revision",
    [
        *(
            "--upload-pack=touch ran",
            "-u",
            "--output=ran",
            "-",
            "",
            "a b",
            "a\nb",
            "a\0b",
            "main:x",
            "^main",
            "main^{/x}",
        ),
        *("+refs/heads/*:refs/heads/*", "refs/heads/*", "@{-1}", "a..b", "../x", "main~1", ":/fix", "\x1b[2J", "$(x)"),
    ],
)
def test_revisions_that_are_refused(tmp_path: Path, upstream: Path, revision: str) -> None:
    with pytest.raises(UsageError, match="is not a revision") as caught:
        fetch_endovis(tmp_path / "data", str(upstream), revision, limits=QUICK)
    assert str(caught.value).isprintable()


def test_branch_that_looks_like_an_option_is_never_one(tmp_path: Path, upstream: Path) -> None:
    """Whatever git is given that strangers chose stands after `--` or cannot begin with a dash."""
    git(upstream, "update-ref", "refs/heads/--upload-pack=x", "HEAD")
    assert fetched(tmp_path, str(upstream)) == SET


def test_protocols_are_those_of_the_address() -> None:
    assert git_source._protocols("https://host/x") == "https:ssh"  # not http, where a server could send us
    assert git_source._protocols("HTTP://host/x") == "http:https:ssh"
    assert git_source._protocols("me@host:x") == git_source._protocols("ssh://host/x") == "ssh"
    assert git_source._protocols("/some/where") == git_source._protocols("file:///x") == "file"


def test_settings_of_the_environment_are_not_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "https:ext")
    assert git_source._environment("https:ssh")["GIT_ALLOW_PROTOCOL"] == "https"


def test_user_setting_cannot_turn_an_address_into_a_program(tmp_path: Path, settings: Path) -> None:
    settings.write_text('[url "ext::touch ran "]\n\tinsteadOf = https://host/\n[protocol "ext"]\n\tallow = always\n')
    with pytest.raises(DataError, match="transport 'ext' not allowed"):
        fetch_endovis(tmp_path / "data", "https://host/x.git", limits=QUICK)


def test_nobody_is_asked_for_a_password(tmp_path: Path, server: Server) -> None:
    def ask(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(401)
        request.send_header("WWW-Authenticate", 'Basic realm="x"')
        request.send_header("Content-Length", "0")
        request.end_headers()

    server.script = [ask]
    with pytest.raises(DataError, match=r"could not read Username|terminal prompts disabled|[Aa]uthentication failed"):
        fetch_endovis(tmp_path / "data", f"{server.url}/private.git", limits=QUICK)


# --------------------------------------------------------------------------------------------- what a repository holds


def test_hooks_and_templates_are_not_run(tmp_path: Path, upstream: Path, settings: Path) -> None:
    for name in ("post-checkout", "post-merge", "reference-transaction", "pre-auto-gc"):
        program(upstream / ".git/hooks" / name, tmp_path / "ran")
        program(tmp_path / "template/hooks" / name, tmp_path / "ran")
        program(tmp_path / "hooks" / name, tmp_path / "ran")
    settings.write_text(f"[init]\n\ttemplateDir = {tmp_path}/template\n[core]\n\thooksPath = {tmp_path}/hooks\n")
    assert fetched(tmp_path, str(upstream)) == SET
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("whole", [False, True], ids=["one commit", "clone"])
def test_filters_are_not_run_and_bytes_stay_as_published(
    tmp_path: Path, upstream: Path, settings: Path, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if whole:
        monkeypatch.setattr(git_source, "_fetch_one_commit", refuse)
    run = program(tmp_path / "bin/smudge", tmp_path / "ran")
    write(upstream, {"lines": b"a\nb\n", "id": b"$Id$\n", "wide": b"x\n"})
    commit(upstream)
    attributes = b"*.jpg filter=lfs\nlines text eol=crlf\nid ident\nwide working-tree-encoding=UTF-16\n"
    write(upstream, {".gitattributes": attributes})
    git(upstream, "-c", "core.attributesFile=/dev/null", "add", ".gitattributes")
    git(upstream, "commit", "-qm", "attributes")
    settings.write_text(f'[filter "lfs"]\n\tsmudge = {run}\n\trequired = true\n')
    expected = SET | {"lines": b"a\nb\n", "id": b"$Id$\n", "wide": b"x\n", ".gitattributes": attributes}
    assert fetched(tmp_path, str(upstream)) == expected
    assert not (tmp_path / "ran").exists()


def refuse(*_: object) -> str:
    raise git_source.GitError("dumb http transport does not support shallow capabilities")


def test_files_that_are_kept_in_lfs(tmp_path: Path, upstream: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    write(upstream, {"segmentation/train/0/0_input.jpg": pointer, ".lfsconfig": b"[lfs]\nurl = https://localhost\n"})
    commit(upstream)
    with pytest.raises(DataError, match=r"keeps 0_input\.jpg in Git LFS.* give an archive"):
        fetched(tmp_path, str(upstream))
    assert list((tmp_path / "data").iterdir()) == []


def test_submodules_are_not_fetched(tmp_path: Path, upstream: Path, settings: Path) -> None:
    settings.write_text("[submodule]\n\trecurse = true\n[protocol]\n\tallow = always\n")
    inner = tmp_path / "inner"
    write(inner, {"secret": b"x"})
    git(inner, "init", "-q")
    commit(inner)
    modules = f'[submodule "sub"]\n\tpath = sub\n\turl = {inner}\n\tupdate = !touch ran\n'.encode()
    write(upstream, {".gitmodules": modules})
    git(upstream, "update-index", "--add", "--cacheinfo", f"160000,{git(inner, 'rev-parse', 'HEAD')},sub")
    git(upstream, "add", ".gitmodules")
    git(upstream, "commit", "-qm", "x")
    assert fetched(tmp_path, str(upstream)) == SET | {".gitmodules": modules}


def test_links_do_not_lead_out(tmp_path: Path, upstream: Path, settings: Path) -> None:
    settings.write_text("[core]\n\tsymlinks = true\n")
    (tmp_path / "victim").mkdir()
    (upstream / "a").symlink_to(tmp_path / "victim")
    (upstream / "b").symlink_to("/etc/passwd")
    commit(upstream)
    installed = fetch_endovis(tmp_path / "data", str(upstream), limits=QUICK)
    assert not [path for path in installed.rglob("*") if path.is_symlink()]
    assert (installed / "b").read_bytes() == b"/etc/passwd"


def test_rights_are_plain(tmp_path: Path, upstream: Path) -> None:
    program(upstream / "run", tmp_path / "x")
    commit(upstream)
    installed = fetch_endovis(tmp_path / "data", str(upstream), limits=QUICK)
    assert not [path for path in installed.rglob("*") if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID) != 0]


def made_tree(folder: Path, lines: list[str]) -> str:
    """A tree object made by hand: git itself would not add such names."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"]
    content = b"".join(
        mode.encode() + b" " + os.fsencode(name) + b"\0" + bytes.fromhex(digest)
        for mode, digest, name in (line.split(" ", 2) for line in lines)
    )
    run = subprocess.run(command, cwd=folder, env=environment, input=content, check=True, capture_output=True)
    return run.stdout.decode().strip()


def point_head_at(folder: Path, tree: str) -> None:
    git(folder, "update-ref", "HEAD", git(folder, "commit-tree", tree, "-m", "x"))


@pytest.mark.parametrize("name", ["..", "a\\..\\..\\x", "C:x", "n" * 300, ".git", "\x1b[2J", "MAPPING.json"])
def test_names_that_a_repository_may_not_hold(tmp_path: Path, upstream: Path, name: str) -> None:
    blob = git(upstream, "rev-parse", "HEAD:mapping.json")
    lines = [f"100644 {blob} mapping.json", f"100644 {blob} {name}"]
    if name == "\x1b[2J":  # a name like any other, but not for a terminal
        lines.pop(0)
    point_head_at(upstream, made_tree(upstream, lines))
    with pytest.raises(DataError) as caught:
        fetched(tmp_path, str(upstream))
    assert str(caught.value).isprintable()
    assert list((tmp_path / "data").iterdir()) == []
    assert not (tmp_path / "x").exists()


def test_ten_objects_that_stand_for_billions_of_files(tmp_path: Path, upstream: Path) -> None:
    """Each folder holds the next ten times: git would list and write without end."""
    blob = git(upstream, "rev-parse", "HEAD:mapping.json")
    tree = made_tree(upstream, [f"100644 {blob} f{k}" for k in range(10)])
    for _ in range(9):
        tree = made_tree(upstream, [f"40000 {tree} d{k}" for k in range(10)])
    point_head_at(upstream, tree)
    with pytest.raises(DataError, match=r"more than the (51200 bytes|100 files and folders) allowed"):
        fetch_endovis(tmp_path / "data", str(upstream), limits=replace(QUICK, members=100))
    assert list((tmp_path / "data").iterdir()) == []


def test_folders_of_nothing_count_too(tmp_path: Path, upstream: Path) -> None:
    tree = made_tree(upstream, [])
    for _ in range(9):
        tree = made_tree(upstream, [f"40000 {tree} d{k}" for k in range(10)])
    point_head_at(upstream, tree)
    with pytest.raises(DataError, match=r"more than the (51200 bytes|100 files and folders) allowed"):
        fetch_endovis(tmp_path / "data", str(upstream), limits=replace(QUICK, members=100))


def test_file_that_inflates_beyond_the_limit(tmp_path: Path, upstream: Path) -> None:
    write(upstream, {"zeros": bytes(5_000_000)})
    commit(upstream)
    with pytest.raises(DataError, match="unpacks to more than the 1000000 bytes allowed"):
        fetch_endovis(tmp_path / "data", str(upstream), limits=replace(QUICK, unpacked_bytes=1_000_000))


def test_repository_that_is_larger_than_a_download_may_be(tmp_path: Path, upstream: Path) -> None:
    write(upstream, {"noise": os.urandom(3_000_000)})
    commit(upstream)
    with pytest.raises(DataError, match="git got more than the 1000000 bytes allowed"):
        fetch_endovis(tmp_path / "data", str(upstream), limits=replace(QUICK, download_bytes=1_000_000))
    assert list((tmp_path / "data").iterdir()) == []


def test_server_that_talks_without_end(tmp_path: Path, upstream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\nyes 'remote: hello' >&2\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(DataError, match="git got more than the 1000000 bytes allowed"):
        fetch_endovis(tmp_path / "data", str(upstream), limits=replace(QUICK, download_bytes=1_000_000))


def test_link_among_the_objects_of_a_local_repository(tmp_path: Path, upstream: Path) -> None:
    """A copy of the files would bring what the link points to."""
    write(tmp_path, {"secret": b"x"})
    (upstream / ".git/objects/info").mkdir(exist_ok=True)
    (upstream / ".git/objects/info/leak").symlink_to(tmp_path / "secret")
    assert fetched(tmp_path, str(upstream), git(upstream, "rev-parse", "HEAD")[:8]) == SET


def test_what_git_says_does_not_command_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\nprintf 'fatal: \\033[2J\\033]0;x\\007 me:pw@\\n' >&2\nexit 1\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(DataError) as caught:
        fetch_endovis(tmp_path / "data", "https://host/x.git", limits=QUICK)
    assert str(caught.value).isprintable()
