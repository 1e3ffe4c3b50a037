"""Servers that stall, lie, change their minds or send us elsewhere: a file arrives whole and intact, or not at all."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import IO, cast
from urllib.error import HTTPError

import pytest
from torchvision.datasets import FashionMNIST

from hw6core.data.fetch import fetch_endovis, fetch_fashion_mnist
from hw6core.download import _Redirections, download, shown
from hw6core.errors import DataError, UsageError
from tests.fetching import QUICK, SET, Answer, Server, files_in, memory_below, rest, status, whole, zipped

CONTENT = bytes(range(256)) * 8
IMPATIENT = replace(QUICK, timeout_s=0.4, least_bytes_per_s=1000, attempts=2)


def fetched(server: Server, folder: Path, intact: Callable[[Path], bool] | None = None) -> bytes:
    download(f"{server.url}/file", folder / "file", QUICK, intact=intact)
    return (folder / "file").read_bytes()


def headed(code: int, headers: dict[str, str], body: bytes = b"") -> Answer:
    """An answer with just these headers."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def endless(head: bytes, piece: bytes, pause_s: float = 0.0) -> Answer:
    """Raw bytes that never stop, until the other side hangs up."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        try:
            request.wfile.write(head)
            for _ in range(100_000):
                request.wfile.write(piece)
                time.sleep(pause_s)
        except OSError:
            pass

    return answer


# ---------------------------------------------------------------------------------------------------- size and time


@pytest.mark.parametrize("length", ["9" * 5000, "\u00b2", "-5", "1e9", " "])
def test_length_that_is_no_number_is_no_length(tmp_path: Path, server: Server, length: str) -> None:
    server.script = [headed(200, {"Content-Length": length}, CONTENT)]
    assert fetched(server, tmp_path) == CONTENT


def test_length_that_is_too_little(tmp_path: Path, server: Server) -> None:
    server.script = [headed(200, {"Content-Length": "100"}, CONTENT)]
    with pytest.raises(DataError, match="is not the published file"):
        fetched(server, tmp_path, lambda file: file.read_bytes() == CONTENT)


def test_length_that_is_too_much(tmp_path: Path, server: Server) -> None:
    server.script = [headed(200, {"Content-Length": "5000"}, CONTENT)]
    with pytest.raises(DataError, match="broke off after 2048 of 5000 bytes"):
        fetched(server, tmp_path)


def test_body_without_end_stops_at_the_limit(tmp_path: Path, server: Server) -> None:
    server.script = [endless(b"HTTP/1.0 200 OK\r\n\r\n", bytes(65536))]
    with pytest.raises(DataError, match="is larger than the 200000 bytes allowed"):
        download(f"{server.url}/f", tmp_path / "f", replace(QUICK, download_bytes=200_000))
    assert (tmp_path / "f").stat().st_size <= 200_000


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"HTTP/1.0 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.0 200 OK\r\nX-Slow: ", b"y"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"y"),
    ],
    ids=["body", "headers", "one header", "size of a chunk"],
)
def test_trickle_is_as_good_as_silence(tmp_path: Path, server: Server, head: bytes, piece: bytes) -> None:
    """A byte now and then keeps every time-out of a socket from ever ending."""
    server.script = [endless(head, piece, 0.02)]
    start = time.monotonic()
    with pytest.raises(DataError, match=r"fewer than 400 bytes in 0\.4 s \(2 attempts\)"):
        download(f"{server.url}/f", tmp_path / "f", IMPATIENT)
    assert time.monotonic() - start < 5


def test_stalled_body(tmp_path: Path, server: Server) -> None:
    ended = threading.Event()

    def stall(request: http.server.BaseHTTPRequestHandler) -> None:
        headed(200, {"Content-Length": "5000"}, b"x" * 1000)(request)
        ended.wait(10)

    server.script = [stall]
    with pytest.raises(DataError, match=r"(timed out|fewer than 400 bytes in 0\.4 s) \(2 attempts\)"):
        download(f"{server.url}/f", tmp_path / "f", IMPATIENT)
    ended.set()


def test_slow_but_sure_server_is_waited_for(tmp_path: Path, server: Server) -> None:
    def slow(request: http.server.BaseHTTPRequestHandler) -> None:
        headed(200, {"Content-Length": "2000"})(request)
        for _ in range(20):
            request.wfile.write(b"x" * 100)
            request.wfile.flush()
            time.sleep(0.03)

    server.script = [slow]
    download(f"{server.url}/f", tmp_path / "f", replace(IMPATIENT, least_bytes_per_s=500))
    assert (tmp_path / "f").read_bytes() == b"x" * 2000


def test_waiting_grows_between_attempts(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("hw6core.download.time.sleep", waits.append)
    server.script = [status(503)]
    with pytest.raises(DataError, match=r"\(4 attempts\)"):
        download(f"{server.url}/f", tmp_path / "f", replace(QUICK, attempts=4, backoff_s=1))
    assert waits == [1, 2, 4]


# ---------------------------------------------------------------------------------------------------------- resuming


def test_without_a_word_of_the_version_nothing_is_resumed(tmp_path: Path, server: Server) -> None:
    """Two halves of two versions would make a file that never was."""
    other = CONTENT[::-1]
    server.script = [whole(CONTENT, tag="", sent=1000), whole(other, tag="")]
    assert fetched(server, tmp_path) == other
    assert all("range" not in request for request in server.requests)


def test_weak_tag_does_not_join_halves(tmp_path: Path, server: Server) -> None:
    other = CONTENT[::-1]
    server.script = [whole(CONTENT, tag='W/"1"', sent=1000), whole(other, tag='W/"1"')]
    assert fetched(server, tmp_path) == other
    assert "range" not in server.requests[1]


def test_date_of_change_serves_where_there_is_no_tag(tmp_path: Path, server: Server) -> None:
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    first = headed(200, {"Content-Length": str(len(CONTENT)), "Last-Modified": date}, CONTENT[:1000])
    server.script = [first, rest(CONTENT)]
    assert fetched(server, tmp_path) == CONTENT
    assert server.requests[1]["if-range"] == date


def test_part_of_another_version_starts_again(tmp_path: Path, server: Server) -> None:
    other = CONTENT[::-1]

    def wrong(request: http.server.BaseHTTPRequestHandler) -> None:
        size = len(other)
        told = {"Content-Range": f"bytes 1000-{size - 1}/{size}", "ETag": '"v2"', "Content-Length": str(size - 1000)}
        headed(206, told, other[1000:])(request)

    server.script = [whole(CONTENT, sent=1000), wrong, whole(other, tag='"v2"')]
    assert fetched(server, tmp_path) == other
    assert "range" not in server.requests[2]


def test_parts_that_do_not_fit_are_fetched_again_as_a_whole(tmp_path: Path, server: Server) -> None:
    """A server that calls two versions by one tag: the checksum at the end tells, and a whole file is asked for."""
    server.script = [whole(CONTENT[::-1], sent=1000), rest(CONTENT), whole(CONTENT)]
    digest = hashlib.sha256(CONTENT).digest()
    assert fetched(server, tmp_path, lambda file: hashlib.sha256(file.read_bytes()).digest() == digest) == CONTENT
    assert ["range" in request for request in server.requests] == [False, True, False]


@pytest.mark.parametrize(
    "told", ["", "bytes */2048", "bytes 999-2047/2048", "pages 1000-2047/2048", "bytes " + "9" * 5000 + "-1/2"]
)
def test_place_of_a_part_that_is_not_what_was_asked_for(tmp_path: Path, server: Server, told: str) -> None:
    part = headed(206, {"Content-Range": told, "Content-Length": "1048"}, CONTENT[1000:])
    server.script = [whole(CONTENT, sent=1000), part, whole(CONTENT)]
    assert fetched(server, tmp_path) == CONTENT


def test_part_that_nobody_asked_for_is_not_taken_for_the_whole(tmp_path: Path, server: Server) -> None:
    part = {"Content-Range": f"bytes 0-999/{len(CONTENT)}", "Content-Length": "1000", "ETag": '"v1"'}
    server.script = [headed(206, part, CONTENT[:1000]), rest(CONTENT)]
    assert fetched(server, tmp_path) == CONTENT


# -------------------------------------------------------------------------------------------------------- redirections


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "gopher://x/", "javascript:1", "FILE:///etc/passwd"],
)
def test_redirection_to_another_scheme(tmp_path: Path, server: Server, target: str) -> None:
    server.script = [headed(302, {"Location": target})]
    with pytest.raises(DataError, match="the server answers 302"):
        fetched(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["http://[/", "http://127.0.0.1:port/", "//", "http://\x1b[2J/", "http:///"])
def test_redirection_to_nowhere_is_the_servers_fault(tmp_path: Path, server: Server, target: str) -> None:
    server.script = [headed(302, {"Location": target})]
    with pytest.raises(DataError) as caught:
        fetched(server, tmp_path)
    assert str(caught.value).isprintable()


def redirected(old: str, new: str) -> urllib.request.Request | None:
    answer = cast(IO[bytes], open("/dev/null", "rb"))  # noqa: PTH123, SIM115
    headers = cast("http.client.HTTPMessage", Message())
    return _Redirections().redirect_request(urllib.request.Request(old), answer, 302, "Found", headers, new)


def test_redirection_never_leaves_the_safe_connection() -> None:
    with pytest.raises(HTTPError, match="sends us on to http://host/x"):
        redirected("https://host/x", "http://host/x")
    for old, new in (("https://a/", "https://b/"), ("http://a/", "https://a/"), ("http://a/", "http://b/")):
        request = redirected(old, new)
        assert request is not None
        assert request.full_url == new


def test_redirections_in_a_circle(tmp_path: Path, server: Server) -> None:
    server.script = [headed(302, {"Location": "/file"})]
    with pytest.raises(DataError, match="the server answers 302") as caught:
        fetched(server, tmp_path)
    assert str(caught.value).isprintable()
    assert len(server.requests) < 15


def test_body_of_a_redirection_is_not_read(tmp_path: Path, server: Server) -> None:
    """urllib reads it whole, and it need not have an end."""
    head = f"HTTP/1.0 302 Found\r\nLocation: {server.url}/next\r\n\r\n".encode()
    server.script = [endless(head, bytes(2**20)), whole(CONTENT)]
    with memory_below(20):
        assert fetched(server, tmp_path) == CONTENT


# ------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00" * 100,
        b"HTTP/1.1 999999 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nxxxxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nxx",
    ],
)
def test_answer_that_is_not_http(tmp_path: Path, server: Server, raw: bytes) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(raw)
        request.close_connection = True

    server.script = [answer]
    with pytest.raises(DataError, match=r"\(3 attempts\)") as caught:
        fetched(server, tmp_path)
    assert str(caught.value).isprintable()


def test_words_of_a_server_do_not_command_the_terminal(tmp_path: Path, server: Server) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 404 \x1b[2J\x9b31m<b>\r\n\r\n")

    server.script = [answer]
    with pytest.raises(DataError, match="404") as caught:
        fetched(server, tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["a%00b.zip", "%2e%2e%2f%2e%2e%2fevil.zip", "n" * 3000 + ".zip", "%1b[2J.zip", "..zip"]
)
def test_name_in_a_url_is_no_path(tmp_path: Path, server: Server, name: str) -> None:
    server.script = [whole(zipped(SET))]
    assert files_in(fetch_endovis(tmp_path / "data", f"{server.url}/{name}", limits=QUICK)) == SET
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["endovis"]


def test_passwords_are_not_shown() -> None:
    assert shown("https://me:p@ss@host/x") == "https://host/x"
    assert shown("unable to access 'https://me:secret@host/x/'") == "unable to access 'https://host/x/'"
    assert shown("me@host:x") == "me@host:x"


def test_url_that_cannot_be_meant_is_not_asked(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:port/x", "http://127.0.0.1:99999999/x", "http://ho st/x", "http:///x"):
        with pytest.raises((UsageError, DataError), match="cannot download"):
            download(url, tmp_path / "x", QUICK)


# ---------------------------------------------------------------------------------------------------------- whole sets


def test_mirror_of_garments_without_end(tmp_path: Path, server: Server) -> None:
    server.script = [endless(b"HTTP/1.0 200 OK\r\n\r\n", bytes(2**20))]
    with pytest.raises(DataError, match="is larger than the 300000 bytes allowed"):
        fetch_fashion_mnist(tmp_path, server.url, limits=replace(QUICK, download_bytes=300_000))
    assert list(tmp_path.iterdir()) == []


def test_no_garment_may_take_more_than_the_largest_could(tmp_path: Path, server: Server) -> None:
    server.script = [headed(200, {"Content-Length": str(100 << 20)})]
    with pytest.raises(DataError, match=f"is larger than the {64 << 20} bytes allowed"):
        fetch_fashion_mnist(tmp_path, server.url, limits=QUICK)


def test_garments_that_are_bombs_are_not_inflated(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gzip.open", lambda *_: pytest.fail("was inflated"))
    server.script = [whole(b"\x1f\x8b a bomb")]
    with pytest.raises(DataError, match="is not the published file"):
        fetch_fashion_mnist(tmp_path, server.url, limits=QUICK)
    assert FashionMNIST.resources[0][1] == "8d4fb7e6c68d591d4c3dfef9ec88bf0d"


def test_connection_that_is_never_answered(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/f"
        start = time.monotonic()
        with pytest.raises(DataError, match=r"timed out|fewer than"):
            download(url, tmp_path / "f", IMPATIENT)
        assert time.monotonic() - start < 5
