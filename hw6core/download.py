"""Downloading one file over http or https from a server that may be slow, broken, another one or hostile."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast
from urllib.parse import SplitResult, urlsplit

from hw6core.errors import DataError, UsageError
from hw6core.limits import Limits

# Called with the bytes done and, where it is known, the bytes to do.
Progress = Callable[[int, int | None], None]

_CHUNK = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")


def download(
    url: str,
    destination: Path,
    limits: Limits,
    progress: Progress | None = None,
    intact: Callable[[Path], bool] | None = None,
) -> None:
    """Write what the URL holds to a new file, taking up a transfer that broke off where the server allows it.

    Redirections are followed to http and https alone, and never from https to http.

    Args:
        intact: whether a file is what was asked for. One that is not, and came in pieces, is fetched again as a whole.

    Raises:
        UsageError: there can be no such URL.
        DataError: the server refuses, more comes than the limits allow, what came is not intact, or the last attempt
            failed. The file may then be there in part.
        OSError: the file cannot be written.
    """
    partial = _Partial(destination)
    for attempt in range(1, limits.attempts + 1):
        try:
            _receive(url, partial, limits, progress)
            if intact is None or intact(destination):
                return
            if not partial.resumed:
                raise DataError(f"what {shown(url)} sent is not the published file: its checksum is another")
            partial.start_again()
            raise _TransientError("the parts do not make the published file")
        except _TransientError as error:
            reason = str(error)
        if attempt < limits.attempts:
            time.sleep(limits.backoff_s * 2 ** (attempt - 1))
    raise DataError(f"cannot download {shown(url)}: {reason} ({limits.attempts} attempts); check the network")


def split_url(url: str) -> SplitResult:
    """The parts of a URL; UsageError if it is none."""
    try:
        return urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{shown(url)!r} is not a URL: {error}") from error


def shown(source: str) -> str:
    """A URL or path without the user name and password that a URL may carry."""
    return re.sub(r"://[^/\s]*@", "://", source)


class _TransientError(Exception):
    """A failure that may not repeat itself."""


@dataclass
class _Partial:
    """What has arrived of a file, the server's word for its version, and whether it came in pieces."""

    file: Path
    received: int = 0
    version: str = ""
    resumed: bool = False

    def start_again(self) -> None:
        self.received, self.version, self.resumed = 0, "", False


def _receive(url: str, partial: _Partial, limits: Limits, progress: Progress | None) -> None:
    if not partial.version:  # nothing tells two versions apart: their halves could be put together
        partial.start_again()
    with _Watchdog(limits) as watchdog, _open(url, partial, limits, watchdog) as response:
        total = _place(response, partial)
        partial.version = _version(response)
        _require_size(url, total or 0, limits)
        with partial.file.open("ab" if partial.received else "wb") as out:
            while chunk := _read(response, watchdog):
                partial.received += len(chunk)
                _require_size(url, partial.received, limits)
                out.write(chunk)
                if progress is not None:
                    progress(partial.received, total)
    if total is not None and partial.received != total:
        raise _TransientError(f"the connection broke off after {partial.received} of {total} bytes")


def _place(response: http.client.HTTPResponse, partial: _Partial) -> int | None:
    """Where in the file the answer belongs, noted in `partial`; returns the size of the whole, if that is told."""
    if response.status != 206:
        partial.start_again()
        return response.length
    told = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    other = partial.received > 0 and _version(response) not in ("", partial.version)
    if told is None or int(told[1]) != partial.received or other:
        partial.start_again()
        raise _TransientError("the server sent another part than was asked for")
    partial.resumed = partial.received > 0
    if told[2] != "*":
        return int(told[2])
    return None if response.length is None else partial.received + response.length


def _open(url: str, partial: _Partial, limits: Limits, watchdog: _Watchdog) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "hw6core", "Accept-Encoding": "identity"})
    if partial.received:
        request.add_header("Range", f"bytes={partial.received}-")
        request.add_header("If-Range", partial.version)
    try:
        return cast(http.client.HTTPResponse, _opener(watchdog).open(request, timeout=limits.timeout_s))
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answers {error.code} {error.reason}"
        if error.code == 416:  # what we have is not the beginning of what it has
            partial.start_again()
        if error.code in (408, 416, 425, 429) or error.code >= 500:
            raise _TransientError(answer) from error
        raise DataError(f"cannot download {shown(url)}: {answer}; check the address") from error
    except (ValueError, http.client.InvalidURL) as error:  # a port that is no number, a host that is no name
        kind = DataError if watchdog.connected else UsageError  # there a server sent us to such an address
        raise kind(f"cannot download {shown(url)}: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DataError(f"cannot download {shown(url)}: {reason}; mend the machine's certificates") from error
        raise watchdog.failure(getattr(reason, "strerror", None) or str(reason)) from error


def _read(response: http.client.HTTPResponse, watchdog: _Watchdog) -> bytes:
    try:
        chunk = response.read1(_CHUNK)  # what is there, without waiting for more
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: a chunk of no size
        raise watchdog.failure(str(error) or type(error).__name__) from error
    watchdog.received += len(chunk)
    if watchdog.late:
        raise watchdog.failure("")
    return chunk


def _version(response: http.client.HTTPResponse) -> str:
    """A tag that changes with the content; a weak ETag may not stand in If-Range."""
    tag = str(response.headers.get("ETag", ""))
    return tag if tag.startswith('"') else str(response.headers.get("Last-Modified", ""))


def _require_size(url: str, size: int, limits: Limits) -> None:
    if size > limits.download_bytes:
        raise DataError(f"{shown(url)} is larger than the {limits.download_bytes} bytes allowed; check the address")


# ---------------------------------------------------------------------------------------------------------------------
# Connections


class _Watchdog:
    """Ends the connections of an attempt on which too few bytes come in: a time-out of sockets starts anew with each.

    Attributes:
        received: bytes of the body so far, kept by whoever reads them.
        late: whether it has ended them.
    """

    def __init__(self, limits: Limits) -> None:
        self.received = 0
        self.late = False
        self._timeout_s = limits.timeout_s
        self._least = limits.least_bytes_per_s * limits.timeout_s
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def watch(self, connected: socket.socket) -> None:
        self._sockets.append(connected)

    @property
    def connected(self) -> bool:
        """Whether there has been a connection at all."""
        return bool(self._sockets)

    def failure(self, reason: str) -> _TransientError:
        return _TransientError(f"fewer than {self._least:g} bytes in {self._timeout_s:g} s" if self.late else reason)

    def _watch(self) -> None:
        before = 0
        while not self._over.wait(self._timeout_s + 0.1):  # a silent server is left to the socket's own time-out
            if self.received - before < self._least:
                self.late = True
                for connected in self._sockets:
                    with suppress(OSError):
                        socket.socket.shutdown(connected, socket.SHUT_RDWR)
                return
            before = self.received


class _Plain(http.client.HTTPConnection):
    def __init__(self, host: str, *, watchdog: _Watchdog, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self._watchdog = watchdog

    def connect(self) -> None:
        super().connect()
        self._watchdog.watch(self.sock)


class _Secure(http.client.HTTPSConnection):
    def __init__(self, host: str, *, watchdog: _Watchdog, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self._watchdog = watchdog

    def connect(self) -> None:
        super().connect()
        self._watchdog.watch(self.sock)


class _PlainHandler(urllib.request.HTTPHandler):
    def __init__(self, watchdog: _Watchdog) -> None:
        super().__init__()
        self._watchdog = watchdog

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(cast(Any, _Plain), request, watchdog=self._watchdog)


class _SecureHandler(urllib.request.HTTPSHandler):
    def __init__(self, watchdog: _Watchdog) -> None:
        super().__init__()
        self._watchdog = watchdog

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(cast(Any, _Secure), request, watchdog=self._watchdog)


class _Redirections(urllib.request.HTTPRedirectHandler):
    """http and https alone, and no step down from the safe one to the plain one."""

    def redirect_request(
        self,
        request: urllib.request.Request,
        answer: IO[bytes],
        code: int,
        reason: str,
        headers: http.client.HTTPMessage,
        target: str,
    ) -> urllib.request.Request | None:
        scheme = urlsplit(target).scheme.lower()
        if scheme not in ("http", "https") or (request.type == "https" and scheme != "https"):
            raise urllib.error.HTTPError(target, code, f"and sends us on to {target[:100]}", headers, answer)
        answer.close()  # or urllib reads all that comes with the answer, into the memory
        return super().redirect_request(request, answer, code, reason, headers, target)


def _opener(watchdog: _Watchdog) -> urllib.request.OpenerDirector:
    """What urllib does by default, but for files, ftp, data and the like."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _PlainHandler(watchdog),
        _SecureHandler(watchdog),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirections(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
