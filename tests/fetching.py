"""Shared by the tests of data: a minimal data set, archives of it, a local server, a user without permissions."""

from __future__ import annotations

import http.server
import io
import os
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SET = {
    "mapping.json": b'{\n"Tissue": 0\n"Forceps": 32\n}',
    "segmentation/train/0/0_input.jpg": b"input",
    "segmentation/train/0/0_mask.png": b"mask",
    "colorization/train_cor/0/0_gray.jpg": b"gray",
}
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def files_in(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Run the block as a user whom permissions bind, if the tests run as the superuser; `folder` stays reachable."""
    user = os.geteuid()
    if user == 0:
        for place in (folder, *folder.parents):
            if Path(tempfile.gettempdir()) in place.parents:  # pytest's own, which are private
                place.chmod(0o755)
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]  # mypy wants a literal
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def under(prefix: str) -> dict[str, bytes]:
    """The data set below a folder."""
    return {f"{prefix}/{name}": content for name, content in SET.items()}


class Server(http.server.ThreadingHTTPServer):
    """Plays a script: one answer per request; the last one is repeated."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.script: list[Answer] = []
        self.paths: list[str] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.server.script[min(len(self.server.paths), len(self.server.script)) - 1](self)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server for the block."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def silent(_: http.server.BaseHTTPRequestHandler) -> None:
    """Send nothing for a while."""
    threading.Event().wait(0.3)


def status(code: int) -> Answer:
    return lambda request: request.send_error(code)


def whole(content: bytes, sent: int | None = None) -> Answer:
    """Status 200 and the content, of which only the first `sent` bytes are sent."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[:sent])

    return answer
