"""What tests of fetching share: the smallest set, archives and repositories of it, a server that plays a script."""

from __future__ import annotations

import http.server
import io
import os
import subprocess
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hw6core.limits import Limits

QUICK = Limits(timeout_s=5, git_timeout_s=30, attempts=3, backoff_s=0.001)
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


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in special:
            tar.addfile(info)
    return buffer.getvalue()


@contextmanager
def memory_below(mib: int) -> Iterator[None]:
    """Fails if Python's allocations rise by more than this within the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mib * 2**20
    finally:
        tracemalloc.stop()


def under(prefix: str) -> dict[str, bytes]:
    """The set below a folder."""
    return {f"{prefix}/{name}": content for name, content in SET.items()}


def git(folder: Path, *arguments: str) -> str:
    """Run git as nobody in particular."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    run = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return run.stdout.strip()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A tar member that is no file: a link, a device, a pipe."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def flipped(content: bytes) -> bytes:
    """The same with one bit in the middle changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@dataclass
class Server:
    """A server on this machine that plays a script: one answer a request, the last one for all that follow."""

    url: str = ""
    script: list[Answer] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Server]:
    """A server until the end of the block."""
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
            answer = state.script[min(len(state.requests), len(state.script)) - 1]
            answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{listening.server_address[1]}"
        yield state
        listening.shutdown()
        thread.join()


def status(code: int) -> Answer:
    return lambda request: request.send_error(code)


def whole(content: bytes, tag: str = '"v1"', sent: int | None = None) -> Answer:
    """200 with the whole content, of which only `sent` bytes arrive."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.send_header("ETag", tag)
        request.end_headers()
        request.wfile.write(content[:sent])

    return answer


def rest(content: bytes, shift: int = 0) -> Answer:
    """206 with what the Range header asks for, or with another part."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-")) + shift
        request.send_response(206)
        request.send_header("Content-Length", str(len(content) - start))
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        request.wfile.write(content[start:])

    return answer
