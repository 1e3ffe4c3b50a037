"""Installing data from folders, archives and downloads that may fail: completely, or nothing is changed."""

from __future__ import annotations

import gzip
import hashlib
import re
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from torchvision.datasets import FashionMNIST
from torchvision.models import VGG16_Weights

from benchmarks.__main__ import _Bar, main
from hw6core.data import checksums, fetch
from hw6core.data.fetch import fetch_endovis, fetch_fashion_mnist, fetch_vgg16_weights
from hw6core.errors import DataError
from hw6core.provenance import data_kind
from tests.fetching import (
    SET,
    Answer,
    Server,
    as_nobody,
    files_in,
    serving,
    silent,
    status,
    tarred,
    under,
    whole,
    write,
    zipped,
)


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A local server with a script for each test; retries do not wait."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    with serving() as state:
        yield state


def fetch_error(root: Path, source: str | None = None, *, force: bool = False) -> DataError:
    with pytest.raises(DataError) as caught:
        fetch_endovis(root, source, force=force)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def published(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A minimal data set in place of the published one, on the local server."""
    lines = [f"{hashlib.sha256(content).hexdigest()}  endovis/{name}\n" for name, content in SET.items()]
    (tmp_path / "SUMS.gz").write_bytes(gzip.compress("".join(lines).encode()))
    monkeypatch.setattr(checksums, "PUBLISHED", tmp_path / "SUMS.gz")
    monkeypatch.setattr(fetch, "ENDOVIS", f"{server.url}/archive/f59ed8c.tar.gz")
    server.script = [whole(tarred(under("HW6_data-f59ed8c") | {"HW6_data-f59ed8c/.DS_Store": b""}))]
    return server


def test_published_set_is_installed_once(tmp_path: Path, published: Server) -> None:
    root = tmp_path / "data"
    assert fetch_endovis(root) == fetch_endovis(str(root)) == root / "endovis"
    assert files_in(root) == {f"endovis/{name}": content for name, content in (SET | {".DS_Store": b""}).items()}
    assert published.paths == ["/archive/f59ed8c.tar.gz"]
    assert (root / "endovis").stat().st_mode & 0o777 == 0o755


def test_a_published_set_that_differs_is_an_error(tmp_path: Path, published: Server) -> None:
    root = tmp_path / "data"
    published.script = [whole(tarred(SET | {"mapping.json": b"another"}))]
    assert " has 1 difference from the published data: mapping.json: changed: " in str(fetch_error(root))
    assert list(root.iterdir()) == []
    write(root / "endovis", SET | {"mapping.json": b"another"})
    error = fetch_error(root)
    assert "1 difference from the published data" in str(error)
    assert (error.remedy, error.root) == ("replace", root)
    published.script = [whole(tarred(SET))]
    assert files_in(fetch_endovis(root, force=True)) == SET


def test_the_checksum_of_the_weights_fits_their_address() -> None:
    assert VGG16_Weights.IMAGENET1K_V1.url == f"https://download.pytorch.org/models/vgg16-{fetch.VGG16_SHA256[:8]}.pth"


def test_folder(tmp_path: Path) -> None:
    write(tmp_path / "Downloads/HW6", SET | {".git/HEAD": b"ref"})
    assert files_in(fetch_endovis(tmp_path / "data", str(tmp_path / "Downloads"))) == SET
    assert files_in(tmp_path / "Downloads/HW6") == SET | {".git/HEAD": b"ref"}


def test_a_read_only_folder_can_be_copied(tmp_path: Path) -> None:
    """As the folder of a course on a cluster. A folder that is not writable cannot be moved to another one."""
    write(tmp_path / "course", SET)
    (tmp_path / "course").chmod(0o555)
    (tmp_path / "data").mkdir(0o777)
    (tmp_path / "data").chmod(0o777)
    with as_nobody(tmp_path):
        assert files_in(fetch_endovis(tmp_path / "data", str(tmp_path / "course"))) == SET
        (tmp_path / "data/endovis").chmod(0)
        assert str(fetch_error(tmp_path / "data")).startswith(f"no permission to read {tmp_path}/data/endovis/mapping")


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path, new: str) -> None:
    write(tmp_path / "course", SET)
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    (tmp_path / "course/mapping.json").chmod(0)
    (tmp_path / "new.zip").chmod(0)
    denied = f"Permission denied: '{tmp_path}/course/mapping.json'; make its files readable, or free up space"
    with as_nobody(tmp_path):
        error = fetch_error(tmp_path / "data", str(tmp_path / "course"))
        assert str(error) == f"cannot copy {tmp_path}/course: [Errno 13] {denied}"
        error = fetch_error(tmp_path / "data", new)
        assert str(error) == f"no permission to read {new}; its owner can run: chmod -R a+rX"
    assert list((tmp_path / "data").iterdir()) == []


def test_a_failed_installation_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "source", SET)
    write(tmp_path / "data/endovis", {"mine.txt": b"mine"})
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target.name == "endovis" and self.name != "replaced":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    assert "Permission denied" in str(fetch_error(tmp_path / "data", str(tmp_path / "source"), force=True))
    assert files_in(tmp_path / "data") == {"endovis/mine.txt": b"mine"}


def test_two_processes_can_fetch_at_the_same_time(tmp_path: Path, published: Server) -> None:
    def answer_late(request: BaseHTTPRequestHandler) -> None:
        write(tmp_path / "endovis", SET)  # the other process has finished
        whole(tarred(SET))(request)

    published.script = [answer_late]
    assert files_in(fetch_endovis(tmp_path)) == SET


# Parametrized by name, as the content depends on the time and the test ids must be the same in every process.
ARCHIVES = {
    "s.zip": zipped(under("a/b")),
    "S.ZIP": zipped(SET),
    "mac.zip": zipped(under("HW6") | {"__MACOSX/HW6/mapping.json": b"\0\5\x16\7"}),
    "powershell.zip": zipped({name.replace("/", "\\"): content for name, content in under("HW6").items()}),
    "s.tar": tarred(under("x"), "w"),
    "s.tar.gz": tarred(SET),
    "s.tgz": tarred(under("x")),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(tmp_path: Path, server: Server, name: str) -> None:
    content = ARCHIVES[name]
    write(tmp_path, {name: content})
    server.script = [whole(content)]
    for source in (str(tmp_path / name), f"{server.url}/{name}?x=1"):
        assert files_in(fetch_endovis(tmp_path / "data", source, force=True)) == SET
        assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["endovis"]


INVALID = {
    "up.tgz": (tarred(SET | {"a/../../../evil": b"x"}), "is outside the destination"),
    "cut.tgz": (tarred(SET)[:-60], "is damaged or not an archive (.zip, .tar, .tar.gz, .tgz): "),
    "cut.zip": (zipped(SET)[:-60], "is damaged or not an archive"),
    "page.zip": (b"<!DOCTYPE html>", "is damaged or not an archive"),
    "other.zip": (zipped({"a/readme": b"x", "b": b"y"}), "found 0 (top level: a, b); use another source"),
    "half.zip": (zipped({"a/mapping.json": b"x"}), "found 0 (top level: a);"),
    "two.zip": (zipped(under("a") | under("b/c")), "found 2 (a, b/c); use another source"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_archives(tmp_path: Path, name: str) -> None:
    content, message = INVALID[name]
    write(tmp_path, {name: content, "data/endovis/mapping.json": b"old"})
    assert message in str(fetch_error(tmp_path / "data", str(tmp_path / name), force=True))
    assert files_in(tmp_path) == {name: content, "data/endovis/mapping.json": b"old"}


def test_an_own_source_is_installed_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"own.zip": zipped(under("HW6") | {"../../../evil": b"x", "..\\..\\..\\evil": b"x"})})
    command = ["data", "fetch", "--only", "endovis", "--root", str(tmp_path / "data")]
    assert main([*command, "--source", str(tmp_path / "own.zip")]) == 0
    assert re.search(r"/endovis: \d+ differences from the published data: mapp", capsys.readouterr().err)
    assert main([*command, "--source", str(tmp_path / "other.zip")]) == 0
    assert f"{tmp_path}/data/endovis exists and is kept; --force replaces it\n" in capsys.readouterr().err
    assert not list(tmp_path.glob("**/evil"))
    assert main([*command, "--source", str(tmp_path / "none.zip"), "--force"]) == 3


@pytest.mark.parametrize("source", ["none.zip", "git@github.com:keshuaixu/HW6_data.git", "ftp://host/x.zip", "--x"])
def test_invalid_sources(tmp_path: Path, source: str) -> None:
    assert f"no such file or folder: {source}; expected a folder, an archive" in str(fetch_error(tmp_path, source))


@pytest.fixture
def new(tmp_path: Path) -> str:
    """A valid source."""
    write(tmp_path, {"new.zip": zipped(SET)})
    return str(tmp_path / "new.zip")


def test_existing_set_is_replaced_only_with_force(tmp_path: Path, new: str) -> None:
    old = SET | {"mapping.json": b"old", "mine": b"mine"}
    write(tmp_path / "data/endovis", old)
    assert files_in(fetch_endovis(tmp_path / "data", new)) == old
    assert files_in(fetch_endovis(tmp_path / "data", new, force=True)) == SET
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["endovis"]


def test_fetched_data_in_place_of_drawn_data_is_real(tmp_path: Path, new: str, garments: dict[str, bytes]) -> None:
    root, marker = tmp_path / "data", {"SYNTHETIC.json": b"{}"}
    write(root, marker | {f"endovis/{name}": content for name, content in (SET | marker).items()})
    write(root / "fashion_mnist", marker)
    error = fetch_error(root, new)
    assert str(error) == f"{root / 'endovis'} holds drawn data; move it, or replace it"
    assert (error.remedy, error.root) == ("replace", root)
    fetch_endovis(root, new, force=True)
    assert data_kind(root) == "synthetic"  # the garments are still drawn
    fetch_fashion_mnist(root)
    assert data_kind(root) == "real"


def test_another_folder_in_place_of_the_set_is_an_error(tmp_path: Path, new: str) -> None:
    write(tmp_path, {"data/endovis/thesis": b"x"})
    error = fetch_error(tmp_path / "data", new)
    assert str(error).endswith("without mapping.json, segmentation or colorization; move it, or replace it")
    assert (error.remedy, error.root) == ("replace", tmp_path / "data")
    assert files_in(tmp_path / "data") == {"endovis/thesis": b"x"}
    (tmp_path / "data/endovis/thesis").unlink()  # an empty folder is replaced
    assert files_in(fetch_endovis(tmp_path / "data", new)) == SET


def test_a_folder_that_is_not_writable_is_an_error(tmp_path: Path, new: str) -> None:
    assert str(fetch_error(tmp_path / "new.zip" / "data", new)).startswith(
        f"cannot write to {new}/data: [Errno 20] Not a d"
    )


def test_a_full_disk_is_the_machines_failure(
    tmp_path: Path, new: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    assert main(["data", "fetch", "--root", str(tmp_path / "data"), "--source", new, "--only", "endovis"]) == 4
    assert "No space left on device; fix that and run the same command again" in capsys.readouterr().err
    assert files_in(tmp_path / "data") == {}


def test_failed_downloads_are_retried(tmp_path: Path, server: Server) -> None:
    content = zipped(SET)
    server.script = [whole(content, sent=100), status(503), whole(content)]
    assert files_in(fetch_endovis(tmp_path, f"{server.url}/s.zip")) == SET
    assert len(server.paths) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(404), "the server returned 404 Not Found"),
        (whole(bytes(999), sent=100), "IncompleteRead(100 bytes read, 899 more expected)"),
        (silent, "timed out"),
    ],
    ids=["missing", "cut", "silent"],
)
def test_gives_up_after_the_last_attempt(
    tmp_path: Path, published: Server, monkeypatch: pytest.MonkeyPatch, answer: Answer, reason: str
) -> None:
    monkeypatch.setattr(fetch, "_TIMEOUT_S", 0.1 if answer is silent else 30)
    published.script = [answer]
    error = fetch_error(tmp_path / "data")
    assert str(error) == (
        f"no EndoVis data: cannot download {fetch.ENDOVIS}: {reason} (4 attempts); check the network and the URL; "
        "then retry"
    )
    assert (error.remedy, error.root) == ("fetch", tmp_path / "data")
    assert len(published.paths) == 4
    assert list((tmp_path / "data").iterdir()) == []


@pytest.fixture
def garments(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Four tiny files on a mirror, in place of the real ones; tests may change those of the mirror."""
    files = {name: gzip.compress(name.encode()) for name, _ in FashionMNIST.resources}
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in files.items()]
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"{server.url}/"])
    server.script = [lambda request: whole(files[request.path.rpartition("/")[2]])(request)]
    return files


RAW = Path("fashion_mnist/FashionMNIST/raw")


def test_garments(tmp_path: Path, server: Server, garments: dict[str, bytes]) -> None:
    assert fetch_fashion_mnist(tmp_path) == fetch_fashion_mnist(str(tmp_path)) == tmp_path / "fashion_mnist"
    assert files_in(tmp_path) == {f"{RAW}/{name}": data for name, data in garments.items()}
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / RAW).iterdir()} == {0o644}
    write(tmp_path / RAW, {"t10k-labels-idx1-ubyte.gz": b"damaged"})
    fetch_fashion_mnist(tmp_path, f"{server.url}/here")
    assert files_in(tmp_path / RAW) == garments
    assert server.paths[4:] == ["/here/t10k-labels-idx1-ubyte.gz"]


def test_unpacked_garments_with_other_content_are_an_error(tmp_path: Path, garments: dict[str, bytes]) -> None:
    write(tmp_path / RAW, {"train-labels-idx1-ubyte": b"drawn"})
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte differs from .* or remove it$") as caught:
        fetch_fashion_mnist(tmp_path)
    assert (caught.value.remedy, caught.value.root) == ("replace", tmp_path)
    assert files_in(tmp_path) == {f"{RAW}/train-labels-idx1-ubyte": b"drawn"}  # and nothing was downloaded
    fetch_fashion_mnist(tmp_path, force=True)
    assert files_in(tmp_path / RAW) == garments


def test_a_damaged_download_of_garments_changes_nothing(tmp_path: Path, garments: dict[str, bytes]) -> None:
    garments["t10k-labels-idx1-ubyte.gz"] = b"a login page"
    with pytest.raises(
        DataError, match=r"^no Fashion-MNIST: cannot download .*-ubyte.gz: not the published file: "
    ) as caught:
        fetch_fashion_mnist(tmp_path)
    assert (caught.value.remedy, caught.value.root) == ("fetch", tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match=r"Invalid URL 'somewhere/.*, or use another mirror; then retry$"):
        fetch_fashion_mnist(tmp_path, "somewhere")


WEIGHTS = b"weights"
NAME = "vgg16-397923af.pth"


@pytest.fixture
def cache(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's cache, with the weights on the local server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(VGG16_Weights.IMAGENET1K_V1.value, "url", f"{server.url}/models/{NAME}")
    monkeypatch.setattr(fetch, "VGG16_SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_missing_and_damaged_weights_are_downloaded_into_the_cache(cache: Path, server: Server) -> None:
    server.script = [whole(WEIGHTS)]
    assert fetch_vgg16_weights() == fetch_vgg16_weights() == cache / NAME
    assert len(server.paths) == 1
    write(cache, {NAME: b"weig"})
    assert fetch_vgg16_weights() == cache / NAME
    assert len(server.paths) == 2
    assert files_in(cache) == {NAME: WEIGHTS}


def test_weights_that_cannot_be_downloaded(cache: Path, server: Server) -> None:
    server.script = [whole(b"a login page")]
    with pytest.raises(DataError, match=r"^no ImageNet weights: .* the checksum does not match .*") as caught:
        fetch_vgg16_weights()
    assert str(caught.value).endswith(f"; save the file as {cache / NAME}, or retry")
    assert caught.value.remedy == "weights"
    assert list(cache.iterdir()) == []


def test_progress_is_printed(cache: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    weights = bytes(2_000_000)
    server.script = [whole(weights, sent=1_000_000), whole(weights)]
    with pytest.raises(DataError, match="the checksum does not match"):
        fetch_vgg16_weights(_Bar())
    assert capsys.readouterr().err.endswith("\r2 of 2 MB\r2 of 2 MB\r\n")
