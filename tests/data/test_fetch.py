"""Fetching leaves the whole set or what was there before, from git and from archives, over a network that fails."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import struct
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from torchvision.datasets import FashionMNIST
from torchvision.models import VGG16_Weights

from benchmarks.machine import environment
from hw6core.data import fetch, git_source
from hw6core.data.fetch import Limits, fetch_endovis, fetch_fashion_mnist, fetch_vgg16_weights
from hw6core.errors import DataError, UsageError
from tests.fetching import (
    QUICK,
    SET,
    Answer,
    Server,
    files_in,
    flipped,
    git,
    rest,
    special,
    status,
    tarred,
    under,
    whole,
    write,
    zipped,
)

# ---------------------------------------------------------------------------------------------------------------------
# Git


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """A repository with the set in a subfolder, and the commit of it; HEAD holds another set at the top."""
    folder = tmp_path / "upstream"
    write(folder, under("HW6/data") | {"README": b"read", "HW6/.DS_Store": b"", "HW6/data/Icon\r": b""})
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "the set")
    commit = git(folder, "rev-parse", "HEAD")
    git(folder, "rm", "-rq", "HW6")
    write(folder, SET | {"mapping.json": b"later"})
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "moved")
    git(folder, "checkout", "-q", "-b", "side")
    write(folder, {"mapping.json": b"side"})
    git(folder, "commit", "-qam", "side")
    git(folder, "checkout", "-q", "main")
    return folder, commit


def test_git_commit_that_is_not_head(tmp_path: Path, repository: tuple[Path, str]) -> None:
    folder, commit = repository

    installed = fetch_endovis(tmp_path / "data", str(folder), commit, limits=QUICK)

    assert installed == tmp_path / "data" / "endovis"
    assert files_in(installed) == SET | {"Icon\r": b""}
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["endovis"]


def test_git_abbreviated_commit_takes_a_full_clone(tmp_path: Path, repository: tuple[Path, str]) -> None:
    folder, commit = repository

    installed = fetch_endovis(tmp_path / "data", folder.as_uri(), commit[:7], limits=QUICK)

    assert files_in(installed) == SET | {"Icon\r": b""}


@pytest.mark.parametrize(("revision", "mapping"), [(None, b"later"), ("side", b"side")])
def test_git_default_branch_and_named_branch(
    tmp_path: Path, repository: tuple[Path, str], revision: str | None, mapping: bytes
) -> None:
    installed = fetch_endovis(tmp_path / "data", str(repository[0]), revision, limits=QUICK)

    # The set is at the top of the repository; .git is not installed with it.
    assert files_in(installed) == SET | {"mapping.json": mapping, "README": b"read"}


def test_git_branch_from_a_clone_where_a_single_commit_cannot_be_had(
    tmp_path: Path, repository: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise git_source.GitError("dumb http transport does not support shallow capabilities")

    monkeypatch.setattr(git_source, "_fetch_one_commit", refuse)
    installed = fetch_endovis(tmp_path / "data", str(repository[0]), "side", limits=QUICK)

    assert (installed / "mapping.json").read_bytes() == b"side"


def test_git_relative_path(tmp_path: Path, repository: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert fetch_endovis(Path("data"), "upstream", limits=QUICK) == Path("data/endovis")
    assert (tmp_path / "data/endovis/mapping.json").read_bytes() == b"later"


def test_git_ignores_the_repository_that_called_it(
    tmp_path: Path, repository: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))

    fetch_endovis(tmp_path / "data", str(repository[0]), limits=QUICK)

    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "index").exists()


def test_git_link_becomes_a_plain_file(tmp_path: Path, repository: tuple[Path, str]) -> None:
    folder, _ = repository
    (folder / "segmentation" / "link").symlink_to("/etc")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "link")

    installed = fetch_endovis(tmp_path / "data", str(folder), limits=QUICK)

    assert not (installed / "segmentation" / "link").is_symlink()
    assert (installed / "segmentation" / "link").read_bytes() == b"/etc"


def test_git_unknown_revision(tmp_path: Path, repository: tuple[Path, str]) -> None:
    with pytest.raises(DataError, match=r"^cannot fetch .*upstream at v9: it has no revision v9; check the address"):
        fetch_endovis(tmp_path / "data", str(repository[0]), "v9", limits=QUICK)
    assert list((tmp_path / "data").iterdir()) == []


def test_git_address_without_the_password(tmp_path: Path) -> None:
    source = "http://me:secret@127.0.0.1:9/set.git"
    with pytest.raises(DataError, match=r"^cannot fetch http://127\.0\.0\.1:9/set\.git: ") as caught:
        fetch_endovis(tmp_path / "data", source, limits=QUICK)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_git_missing(tmp_path: Path, repository: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="git is not installed"):
        fetch_endovis(tmp_path / "data", str(repository[0]), limits=QUICK)


def test_git_that_hangs_is_ended_with_its_helpers(
    tmp_path: Path, repository: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The helper keeps the pipes open: killing git alone would wait for it.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\nsleep 60 & sleep 60\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    with pytest.raises(DataError, match=r"git took more than 0\.2 s"):
        fetch_endovis(tmp_path / "data", str(repository[0]), limits=replace(QUICK, git_timeout_s=0.2))


# ---------------------------------------------------------------------------------------------------------------------
# Arguments


@pytest.mark.parametrize(
    ("source", "revision"),
    [
        ("", None),
        ("--upload-pack=touch x", None),
        ("ext::sh -c touch", None),
        ("ext://host/x", None),
        ("ftp://host/x.zip", None),
        ("http://[/x.zip", None),
        ("https://host/x\n.git", None),
        ("https://host/x.git", "--output=x"),
        ("https://host/x.git", "a b"),
        ("https://host/x.git", "+refs/heads/*:refs/heads/*"),
        ("https://host/x.git", "a..b"),
        ("https://host/x.zip", "main"),
    ],
)
def test_sources_and_revisions_that_are_refused(tmp_path: Path, source: str, revision: str | None) -> None:
    expected = DataError if source.startswith("ext::") else UsageError
    with pytest.raises(expected):
        fetch_endovis(tmp_path / "data", source, revision, limits=QUICK)
    assert not (tmp_path / "data" / "endovis").exists()


def test_local_paths_that_are_neither(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="is a folder but not a git repository"):
        fetch_endovis(tmp_path / "data", str(tmp_path))
    with pytest.raises(UsageError, match=r"its name must end in \.zip, \.tar, \.tar\.gz, \.tgz"):
        fetch_endovis(tmp_path / "data", str(tmp_path / "notes.txt"))
    with pytest.raises(DataError, match="no such file or folder"):
        fetch_endovis(tmp_path / "data", str(tmp_path / "none.zip"))


def test_default_is_the_published_commit_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def check_out(source: str, revision: str | None, scratch: Path, limits: Limits) -> Path:
        asked.append((source, revision))
        write(scratch / "tree", SET)
        return scratch / "tree"

    monkeypatch.setattr(fetch, "check_out", check_out)
    with pytest.raises(DataError, match="is not the published data, nothing was installed"):
        fetch_endovis(tmp_path)

    assert asked == [("https://github.com/keshuaixu/HW6_data", "f59ed8c79e85a30dde429ff84d870bf4c8696464")]
    assert list(tmp_path.iterdir()) == []
    assert files_in(fetch_endovis(tmp_path, verify=False)) == SET
    with pytest.raises(DataError, match=rf"differences from the published data.* --root {tmp_path} --force$"):
        fetch_endovis(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Archives


def test_archives_on_disk(tmp_path: Path) -> None:
    plain = gzip.decompress(tarred(under("a/b")))
    write(tmp_path, {"s.zip": zipped(SET), "s.tar.gz": tarred(under("x")), "s.tgz": tarred(SET), "s.tar": plain})
    for number, source in enumerate(["s.zip", "s.tar.gz", "s.tgz", "s.tar"]):
        installed = fetch_endovis(tmp_path / str(number), str(tmp_path / source), limits=QUICK)
        assert files_in(installed) == SET
    assert files_in(fetch_endovis(tmp_path / "url", (tmp_path / "s.zip").as_uri(), limits=QUICK)) == SET


def zip_link() -> bytes:
    buffer = io.BytesIO(zipped(SET))
    with zipfile.ZipFile(buffer, "a") as bundle:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        bundle.writestr(info, "/etc")
    return buffer.getvalue()


def zip_without_a_name() -> bytes:
    buffer = io.BytesIO(zipped(SET))
    with zipfile.ZipFile(buffer, "a") as bundle:
        info = zipfile.ZipInfo("x")
        info.filename = ""
        with bundle.open(info, "w") as member:
            member.write(b"x")
    return buffer.getvalue()


OUTSIDE = "leads out of the folder; nothing was installed"
SPECIAL = "is neither a file nor a folder; nothing was installed"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("up.zip", zipped(SET | {"../../evil": b"x"}), OUTSIDE),
        ("up.tgz", tarred(SET | {"a/../../../evil": b"x"}), OUTSIDE),
        ("back.zip", zipped(SET | {"..\\..\\evil": b"x"}), OUTSIDE),
        ("absolute.zip", zipped(SET | {"/tmp/evil-hw6": b"x"}), OUTSIDE),
        ("absolute.tgz", tarred(SET | {"/tmp/evil-hw6": b"x"}), OUTSIDE),
        ("drive.zip", zipped(SET | {"C:evil": b"x"}), OUTSIDE),
        ("link.zip", zip_link(), SPECIAL),
        ("link.tgz", tarred(SET, special("link", tarfile.SYMTYPE, "/etc")), SPECIAL),
        ("hard.tgz", tarred(SET, special("link", tarfile.LNKTYPE, "mapping.json")), SPECIAL),
        ("pipe.tgz", tarred(SET, special("pipe", tarfile.FIFOTYPE)), SPECIAL),
        ("device.tgz", tarred(SET, special("null", tarfile.CHRTYPE)), SPECIAL),
        ("twice.tgz", tarred(SET | {"./mapping.json": b"x"}), "is there twice"),
        ("over.tgz", tarred(SET | {"mapping.json/x": b"x"}), "is there twice"),
        ("cut.tgz", tarred(SET)[:-60], "is damaged or not an archive"),
        ("cut.zip", zipped(SET)[:-60], "is damaged or not an archive"),
        ("flipped.zip", flipped(zipped(SET | {"big": bytes(range(256)) * 7})), "is damaged or not an archive"),
        ("nameless.zip", zip_without_a_name(), "nameless.zip"),
        ("text.tar", b"text", "is damaged or not an archive"),
        ("bomb.zip", zipped(SET | {"big": bytes(3000)}), "unpacks to more than the 2000 bytes allowed"),
        ("bomb.tgz", tarred(SET | {"big": bytes(3000)}), "unpacks to more than the 2000 bytes allowed"),
        ("many.zip", zipped(SET | {f"{k}/": b"" for k in range(50)}), "has more than the 50 files and folders allowed"),
        ("other.zip", zipped({"a/readme": b"x", "b": b"y"}), "found no mapping.json; at the top: a, b"),
        ("half.zip", zipped({"a/mapping.json": b"x"}), "found mapping.json without the two folders beside it in ./a"),
        ("two.zip", zipped(under("a") | under("b/c")), "found 2: ./a, ./b/c"),
    ],
)
def test_archives_that_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write(tmp_path, {name: content, "data/endovis/mapping.json": b"old"})
    limits = replace(QUICK, unpacked_bytes=2000, members=50)

    with pytest.raises(DataError) as caught:
        fetch_endovis(tmp_path / "data", str(tmp_path / name), force=True, limits=limits)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files_in(tmp_path) == {name: content, "data/endovis/mapping.json": b"old"}
    assert not Path("/tmp/evil-hw6").exists()


def test_zip_that_holds_more_than_it_announces(tmp_path: Path) -> None:
    content = bytearray(zipped(SET | {"big": bytes(100_000)}))
    announced = struct.pack("<I", 100_000)
    content = content.replace(announced, struct.pack("<I", 10))
    (tmp_path / "liar.zip").write_bytes(content)

    with pytest.raises(DataError, match="is damaged or not an archive"):
        fetch_endovis(tmp_path / "data", str(tmp_path / "liar.zip"), limits=QUICK)


def test_existing_set_is_replaced_only_with_force(tmp_path: Path) -> None:
    write(tmp_path, {"new.zip": zipped(SET)})
    old = SET | {"mapping.json": b"old", "mine": b"mine"}
    write(tmp_path / "data/endovis", old)

    assert files_in(fetch_endovis(tmp_path / "data", str(tmp_path / "new.zip"))) == old
    assert files_in(fetch_endovis(tmp_path / "data", str(tmp_path / "new.zip"), force=True)) == SET
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["endovis"]


def test_something_else_in_the_way(tmp_path: Path) -> None:
    write(tmp_path, {"new.zip": zipped(SET), "data/endovis/thesis": b"x"})

    with pytest.raises(DataError, match=r"is in the way: .* found thesis; .* data fetch --root .*/data --force$"):
        fetch_endovis(tmp_path / "data", str(tmp_path / "new.zip"))
    assert files_in(tmp_path / "data") == {"endovis/thesis": b"x"}

    (tmp_path / "data/endovis/thesis").unlink()  # an empty folder is in nobody's way
    assert files_in(fetch_endovis(tmp_path / "data", str(tmp_path / "new.zip"))) == SET


def test_forced_replacement_of_a_link_leaves_its_target(tmp_path: Path) -> None:
    write(tmp_path, {"new.zip": zipped(SET), "elsewhere/mapping.json": b"old"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data/endovis").symlink_to(tmp_path / "elsewhere")

    assert files_in(fetch_endovis(tmp_path / "data", str(tmp_path / "new.zip"), force=True)) == SET
    assert files_in(tmp_path / "elsewhere") == {"mapping.json": b"old"}


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    write(tmp_path, {"new.zip": zipped(SET), "file": b""})
    with pytest.raises(
        DataError, match=r"^cannot write to .*/file/data: .*; free or choose another folder with --root"
    ):
        fetch_endovis(tmp_path / "file" / "data", str(tmp_path / "new.zip"))


# ---------------------------------------------------------------------------------------------------------------------
# Over http


@pytest.mark.parametrize(("name", "content"), [("s.zip?x=1", zipped(under("HW6"))), ("s.tar.gz", tarred(SET))])
def test_http_archive(tmp_path: Path, server: Server, name: str, content: bytes) -> None:
    server.script = [whole(content)]
    seen: list[tuple[int, int | None]] = []

    installed = fetch_endovis(
        tmp_path, f"{server.url}/{name}", progress=lambda done, total: seen.append((done, total)), limits=QUICK
    )

    assert files_in(installed) == SET
    assert seen[-1] == (len(content), len(content))
    assert [entry.name for entry in tmp_path.iterdir()] == ["endovis"]


def test_http_broken_transfer_is_resumed(tmp_path: Path, server: Server) -> None:
    content = zipped(SET)
    server.script = [whole(content, sent=100), rest(content)]

    assert files_in(fetch_endovis(tmp_path, f"{server.url}/s.zip", limits=QUICK)) == SET
    assert [(request.get("range"), request.get("if-range")) for request in server.requests] == [
        (None, None),
        ("bytes=100-", '"v1"'),
    ]


@pytest.mark.parametrize("second", ["whole", "shifted", "416"])
def test_http_server_that_does_not_resume_starts_again(tmp_path: Path, server: Server, second: str) -> None:
    content = zipped(SET)
    answers = {"whole": whole(content), "shifted": rest(content, shift=-5), "416": status(416)}
    server.script = [whole(zipped(under("old")), sent=100), answers[second], whole(content)]

    assert files_in(fetch_endovis(tmp_path, f"{server.url}/s.zip", limits=QUICK)) == SET
    assert len(server.requests) == (2 if second == "whole" else 3)


def test_http_500_is_tried_again(tmp_path: Path, server: Server) -> None:
    server.script = [status(500), status(503), whole(zipped(SET))]

    assert files_in(fetch_endovis(tmp_path, f"{server.url}/s.zip", limits=QUICK)) == SET
    assert len(server.requests) == 3


def test_http_gives_up_after_the_last_attempt(tmp_path: Path, server: Server) -> None:
    server.script = [status(500)]

    with pytest.raises(
        DataError, match=r"/s\.zip: the server answers 500 Internal Server Error \(3 attempts\); check the network$"
    ):
        fetch_endovis(tmp_path, f"{server.url}/s.zip", limits=QUICK)
    assert len(server.requests) == 3
    assert list(tmp_path.iterdir()) == []


def test_http_404_is_not_tried_again(tmp_path: Path, server: Server) -> None:
    server.script = [status(404)]

    with pytest.raises(DataError, match=r"/s\.zip: the server answers 404 Not Found; check the address$"):
        fetch_endovis(tmp_path, f"{server.url}/s.zip", limits=QUICK)
    assert len(server.requests) == 1


def test_http_server_that_is_silent(tmp_path: Path, server: Server) -> None:
    ended = threading.Event()

    def wait(_: http.server.BaseHTTPRequestHandler) -> None:
        ended.wait(10)

    server.script = [wait]

    with pytest.raises(DataError, match=r"timed out \(2 attempts\)"):
        fetch_endovis(tmp_path, f"{server.url}/s.zip", limits=replace(QUICK, timeout_s=0.1, attempts=2))
    ended.set()


def test_http_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/s\.zip: Connection refused \(3 attempts\)"):
        fetch_endovis(tmp_path, "http://127.0.0.1:9/s.zip", limits=QUICK)


@pytest.mark.parametrize("announced", [True, False])
def test_http_size_limit(tmp_path: Path, server: Server, announced: bool) -> None:
    def endless(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(bytes(5000))

    server.script = [whole(bytes(5000)) if announced else endless]

    with pytest.raises(DataError, match="is larger than the 4000 bytes allowed"):
        fetch_endovis(tmp_path, f"{server.url}/s.zip", limits=replace(QUICK, download_bytes=4000))
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------------------
# Fashion-MNIST


@pytest.fixture
def garments(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Four tiny files on a mirror, which torchvision is told to be the real ones; tests may change the mirror's."""
    images = gzip.compress(struct.pack(">IIII", 0x803, 2, 28, 28) + bytes(2 * 28 * 28), mtime=0)
    labels = gzip.compress(struct.pack(">II", 0x801, 2) + b"\x03\x04", mtime=0)
    kinds = {"images-idx3": images, "labels-idx1": labels}
    files = {f"{part}-{kind}-ubyte.gz": data for part in ("train", "t10k") for kind, data in kinds.items()}
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in files.items()]
    monkeypatch.setattr(FashionMNIST, "resources", sums)

    def serve(request: http.server.BaseHTTPRequestHandler) -> None:
        whole(files[request.path.rpartition("/")[2]])(request)

    server.script = [serve]
    return files


def test_garments_from_a_mirror(tmp_path: Path, server: Server, garments: dict[str, bytes]) -> None:
    assert fetch_fashion_mnist(tmp_path, f"{server.url}/here", limits=QUICK) == tmp_path / "fashion_mnist"

    assert files_in(tmp_path) == {f"fashion_mnist/FashionMNIST/raw/{name}": data for name, data in garments.items()}
    assert {request["path"].rpartition("/")[0] for request in server.requests} == {"/here"}
    # All there: no mirror is asked.
    assert fetch_fashion_mnist(tmp_path, "http://127.0.0.1:9/", limits=QUICK) == tmp_path / "fashion_mnist"


def test_only_damaged_garments_are_fetched_again(tmp_path: Path, server: Server, garments: dict[str, bytes]) -> None:
    raw = tmp_path / "fashion_mnist/FashionMNIST/raw"
    write(raw, garments | {"t10k-labels-idx1-ubyte.gz": b"damaged"})

    fetch_fashion_mnist(tmp_path, server.url, limits=QUICK)

    assert files_in(raw) == garments
    assert {request["path"] for request in server.requests} == {"/t10k-labels-idx1-ubyte.gz"}


def test_unpacked_garments_of_another_origin(tmp_path: Path, server: Server, garments: dict[str, bytes]) -> None:
    raw = tmp_path / "fashion_mnist/FashionMNIST/raw"
    write(raw, {"train-labels-idx1-ubyte": b"drawn"})

    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte is not what .* or remove it: .* --force$"):
        fetch_fashion_mnist(tmp_path, server.url, limits=QUICK)
    assert (raw / "train-labels-idx1-ubyte").read_bytes() == b"drawn"

    fetch_fashion_mnist(tmp_path, server.url, force=True, limits=QUICK)
    assert files_in(raw) == garments


def test_garments_that_arrive_damaged_leave_the_others(
    tmp_path: Path, server: Server, garments: dict[str, bytes]
) -> None:
    garments["t10k-labels-idx1-ubyte.gz"] = b"damaged"

    with pytest.raises(
        DataError,
        match=r"^no Fashion-MNIST: .* is not the published file.* repeat: python -m benchmarks data fetch --root",
    ) as caught:
        fetch_fashion_mnist(tmp_path, server.url, limits=QUICK)

    assert "\n" not in str(caught.value)
    assert sorted(files_in(tmp_path / "fashion_mnist/FashionMNIST/raw")) == [
        "t10k-images-idx3-ubyte.gz",
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    ]


@pytest.mark.usefixtures("garments")
def test_garments_without_a_network(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Connection refused"):
        fetch_fashion_mnist(tmp_path, "http://127.0.0.1:9", limits=QUICK)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="the mirror 'somewhere' is not"):
        fetch_fashion_mnist(tmp_path, "somewhere")


# ---------------------------------------------------------------------------------------------------------------------
# Weights

WEIGHTS = b"weights"
NAME = "vgg16-" + hashlib.sha256(WEIGHTS).hexdigest()[:8] + ".pth"


@pytest.fixture
def cache(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's cache, with the weights published on the test's own server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(VGG16_Weights.IMAGENET1K_V1.value, "url", f"{server.url}/models/{NAME}", raising=True)
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_weights_are_downloaded_into_the_cache_once(cache: Path, server: Server) -> None:
    server.script = [whole(WEIGHTS)]

    assert fetch_vgg16_weights(limits=QUICK) == cache / NAME
    assert fetch_vgg16_weights(limits=QUICK) == cache / NAME
    assert files_in(cache) == {NAME: WEIGHTS}
    assert len(server.requests) == 1


def test_weights_are_copied_from_the_cache(tmp_path: Path, cache: Path, server: Server) -> None:
    write(cache, {NAME: WEIGHTS})
    (tmp_path / "folder").mkdir()

    assert fetch_vgg16_weights(tmp_path / "new" / "w.pth", limits=QUICK).read_bytes() == WEIGHTS
    assert fetch_vgg16_weights(tmp_path / "folder", limits=QUICK) == tmp_path / "folder" / NAME
    assert server.requests == []


def test_damaged_cache_is_replaced(cache: Path, server: Server) -> None:
    write(cache, {NAME: b"weig"})
    server.script = [whole(WEIGHTS, sent=3), rest(WEIGHTS)]

    assert fetch_vgg16_weights(limits=QUICK).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (whole(b"a login page"), "is not the published file: its checksum is another"),
        (status(403), "the server answers 403 Forbidden; check the address"),
    ],
)
def test_weights_that_cannot_be_had(cache: Path, server: Server, answer: Answer, message: str) -> None:
    server.script = [answer]

    with pytest.raises(DataError) as caught:
        fetch_vgg16_weights(limits=QUICK)

    assert str(caught.value).startswith("no ImageNet weights: ")
    assert message in str(caught.value)
    assert str(caught.value).endswith(f"; or save that file yourself as {cache / NAME}")
    assert list(cache.iterdir()) == []


def test_what_only_fetches_decides_no_number() -> None:
    assert not [path for path in environment._NOT_TRAINING if not path.is_file()]


def test_published_name_of_the_weights() -> None:
    assert VGG16_Weights.IMAGENET1K_V1.url == "https://download.pytorch.org/models/vgg16-397923af.pth"
