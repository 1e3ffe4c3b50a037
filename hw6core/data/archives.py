"""Unpacking zip and tar archives that strangers made: plain files and folders, none outside, no more than allowed.

zipfile and tarfile read the lists and headers; what they would read without bound is kept from them.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

from hw6core.data.intake import Intake
from hw6core.errors import DataError
from hw6core.limits import Limits

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_CHUNK = 1 << 18
_HEADERS = 1 << 16  # what stands before one tar member: its header, a long name, pax records
_BLOCKS = 2048  # what a tar may have in headers and padding for each member, on average
_LIST_ENTRY = 128  # the same for the list of a zip
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,  # a name in no known encoding, an offset before the beginning
    OverflowError,  # an offset beyond what the system can count
    RecursionError,  # headers of headers: tarfile calls itself for each
    struct.error,
    IndexError,  # a member without a name
    NotImplementedError,  # zipfile's word for what it does not know
)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive; `open` is None for a folder."""

    name: str
    size: int
    open: Callable[[], AbstractContextManager[_Readable]] | None


def unpack(archive: Path, tree: Path, limits: Limits) -> Path:
    """Unpack a file whose name ends in one of `SUFFIXES` into the new folder `tree`, and return that.

    Archives within it stay files. Rights, owners and times are not taken over.

    Raises:
        DataError: the archive is damaged, larger than the limits or holds anything else than files and folders with
            safe names; `tree` is then incomplete.
        OSError: the disk is full or cannot be written.
    """
    intake = Intake(archive.name, limits)
    tree.mkdir()
    members = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
    try:
        with contextlib.closing(members(archive, intake, limits)) as found:
            for member in found:
                _write(member, tree, intake)
    except (*_DAMAGED, OSError) as error:
        if not isinstance(error, _DAMAGED) and error.errno != errno.EINVAL:  # that is a seek to nowhere
            raise
        raise DataError(f"{archive.name} is damaged or not an archive: {error}; fetch it again") from error
    return tree


def _write(member: _Member, tree: Path, intake: Intake) -> None:
    target = tree.joinpath(*intake.admit(member.name, None if member.open is None else member.size))
    if member.open is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out, member.open() as stream:
        # No more than was announced: the announced size is what was held against the limit.
        written = 0
        while written < member.size and (chunk := stream.read(min(_CHUNK, member.size - written))):
            written += out.write(chunk)
    if written != member.size:
        raise EOFError(f"{member.name[:100]!r} is cut off")


# ---------------------------------------------------------------------------------------------------------------------
# tar


class _Forwards:
    """A stream for tarfile, which reads a header's data whole, whatever size it announces.

    It goes forwards only, hands out no more than `_HEADERS` until `next_member` is called, and ends with a DataError
    beyond what an archive within the limits could take. `read_content` is for the members' own bytes.
    """

    def __init__(self, stream: _Readable, name: str, limits: Limits) -> None:
        self._stream = stream
        self._name = name
        self._limits = limits
        self._most = limits.unpacked_bytes + limits.members * _BLOCKS
        self._at = 0
        self._left = _HEADERS

    def next_member(self) -> None:
        self._left = _HEADERS

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            raise tarfile.ReadError(f"a header of more than {_HEADERS} bytes")
        self._left -= size
        return self.read_content(size)

    def seek(self, offset: int) -> None:
        if offset < self._at:
            raise tarfile.ReadError("a member of a negative size")
        while self._at < offset and self.read_content(min(_CHUNK, offset - self._at)):
            pass

    def read_content(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._at += len(content)
        if self._at > self._most:
            raise DataError(f"{self._name} unpacks to more than the {self._limits.unpacked_bytes} bytes allowed")
        return content


class _Content:
    """The bytes of the member that the stream stands at."""

    def __init__(self, stream: _Forwards) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        return self._stream.read_content(size)


def _tar_members(archive: Path, intake: Intake, limits: Limits) -> Generator[_Member]:
    packed = archive.name.lower().endswith("gz")
    with contextlib.closing(gzip.open(archive) if packed else archive.open("rb")) as file:
        stream = _Forwards(cast(_Readable, file), archive.name, limits)
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as tar:
            while member := tar.next():
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or member.issparse():
                    intake.refuse_special(member.name)
                yield _Member(member.name, member.size, None if member.isdir() else _tar_opener(stream))
                stream.next_member()
        while stream.read_content(_CHUNK):  # gzip's checksum stands at the very end
            pass


def _tar_opener(stream: _Forwards) -> Callable[[], AbstractContextManager[_Readable]]:
    return lambda: contextlib.nullcontext(_Content(stream))  # tarfile stops where the content begins


# ---------------------------------------------------------------------------------------------------------------------
# zip


class _WithoutHugeReads(io.FileIO):
    """A zip file for zipfile, which reads the whole list of members into the memory before it hands out the first."""

    most = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise _ListTooLongError
        return super().read(size)


class _ListTooLongError(Exception):
    pass


def _zip_members(archive: Path, intake: Intake, limits: Limits) -> Generator[_Member]:
    with _WithoutHugeReads(archive) as file:
        file.most = max(limits.members * _LIST_ENTRY, 1 << 20)
        try:
            bundle = zipfile.ZipFile(cast(IO[bytes], file))
        except _ListTooLongError:
            raise intake.too_many() from None
        with bundle:
            for info in bundle.infolist():
                _check_zip(info, archive.name, intake)
                yield _Member(info.filename, info.file_size, None if info.is_dir() else _zip_opener(bundle, info))


def _check_zip(info: zipfile.ZipInfo, archive: str, intake: Intake) -> None:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):  # 0: made where there are none
        intake.refuse_special(info.filename)
    if info.flag_bits & 0x1:
        raise DataError(f"{archive} is encrypted; fetch another copy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile inflates what bzip2 or lzma made of a chunk in one piece: gigabytes from kilobytes.
        raise DataError(f"{archive} is packed in another way than deflate; pack it again, as .zip or .tar.gz")


def _zip_opener(bundle: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], AbstractContextManager[_Readable]]:
    return lambda: bundle.open(info)
