"""Archives that were made to do harm: each is refused in one line, quickly, and leaves nothing behind."""

from __future__ import annotations

import bz2
import gzip
import io
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from hw6core.data.fetch import fetch_endovis
from hw6core.errors import DataError
from tests.fetching import QUICK, SET, files_in, flipped, memory_below, special, tarred, under, write, zipped

MIB = 2**20
SMALL = replace(QUICK, unpacked_bytes=8 * MIB, members=1000)


def refused(tmp_path: Path, name: str, content: bytes) -> str:
    """The message with which an archive is refused; nothing is left of it."""
    write(tmp_path, {name: content})
    with pytest.raises(DataError) as caught:
        fetch_endovis(tmp_path / "data", str(tmp_path / name), limits=SMALL)
    message = str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []
    assert {entry.name for entry in tmp_path.iterdir()} == {name, "data"}
    assert message.isprintable()
    assert len(message) < 600
    return message


def zip_of(names: list[str], content: bytes = b"x", kind: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as bundle:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type, info.external_attr = name, kind, mode << 16
            bundle.writestr(info, content)
    return buffer.getvalue()


def raw_header(name: str, size: bytes, kind: bytes, prefix: bytes = b"") -> bytes:
    """A tar header with whatever stands in its size field, and a right checksum."""
    block = bytearray(name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0"))
    block += b"00000000000\0" + b" " * 8 + kind + bytes(100) + b"ustar\x0000" + bytes(80) + prefix.ljust(155, b"\0")
    block += bytes(512 - len(block))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: dict[str, str], kind: bytes = b"x") -> bytes:
    """An extended header."""
    body = b""
    for key, value in records.items():
        rest = f" {key}={value}\n".encode()
        length = len(rest) + len(str(len(rest)))
        length = len(rest) + len(str(length))
        body += str(length).encode() + rest
    return raw_header("pax", b"%011o" % len(body), kind) + body.ljust(-(-len(body) // 512) * 512, b"\0")


def packed(*blocks: bytes) -> bytes:
    return gzip.compress(b"".join(blocks) + bytes(1024), mtime=0)


# ------------------------------------------------------------------------------------------------------------- bombs


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("one.zip", zipped(SET | {"big": bytes(9 * MIB)})),
        ("many.zip", zipped(SET | {f"big{k}": bytes(MIB) for k in range(9)})),
        ("one.tgz", tarred(SET | {"big": bytes(9 * MIB)})),
        ("many.tar.gz", tarred(SET | {f"big{k}": bytes(MIB) for k in range(9)})),
    ],
)
def test_what_inflates_beyond_the_limit_is_not_written(tmp_path: Path, name: str, content: bytes) -> None:
    with memory_below(40):
        assert "unpacks to more than the 8388608 bytes allowed" in refused(tmp_path, name, content)


@pytest.mark.parametrize("name", ["many.zip", "many.tgz"])
def test_too_many_members(tmp_path: Path, name: str) -> None:
    files = {f"f{k}": b"" for k in range(1001)}
    content = zipped(files) if name.endswith("zip") else tarred(files)
    assert "more than the 1000 files and folders allowed" in refused(tmp_path, name, content)


@pytest.mark.parametrize("name", ["deep.zip", "deep.tgz"])
def test_folders_that_no_member_names_count_too(tmp_path: Path, name: str) -> None:
    """A member of 60 bytes makes twenty folders: each takes a block of the disk."""
    files = {"/".join([f"d{k}"] * 10) + "/f": b"" for k in range(200)}
    content = zipped(files) if name.endswith("zip") else tarred(files)
    assert "more than the 1000 files and folders allowed" in refused(tmp_path, name, content)


def test_central_directory_too_large_for_the_memory(tmp_path: Path) -> None:
    """zipfile reads the whole list before it hands out the first member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for number in range(40_000):
            bundle.writestr(f"f{number}", b"")
    with memory_below(8):
        assert "more than the 1000 files and folders allowed" in refused(tmp_path, "list.zip", buffer.getvalue())


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_python_inflates_without_bound(tmp_path: Path, kind: int) -> None:
    content = zip_of(["mapping.json"], bytes(64 * MIB), kind)
    announced = struct.pack("<I", 64 * MIB)
    assert content.count(announced) == 2
    with memory_below(8):
        message = refused(tmp_path, "b.zip", content.replace(announced, struct.pack("<I", 100)))
    assert "is packed in another way than deflate" in message


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"], ids=["pax", "global pax", "long name", "long link"])
def test_extended_header_that_inflates_into_the_memory(tmp_path: Path, kind: bytes) -> None:
    """tarfile reads such a header whole, whatever its size, before anybody can object."""
    size = 64 * MIB
    with memory_below(16):
        content = packed(raw_header("h", b"%011o" % size, kind), bytes(size))
        tracemalloc.reset_peak()
        assert "is damaged or not an archive" in refused(tmp_path, "h.tgz", content)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"], ids=["pax", "global pax", "long name"])
def test_thousands_of_extended_headers_in_a_row(tmp_path: Path, kind: bytes) -> None:
    """tarfile calls itself for each."""
    header = raw_header("h", b"%011o" % 512, kind) + b"30 comment=aaaaaaaaaaaaaaaaaa\n".ljust(512, b"\0")
    content = packed(*[header] * 5000, raw_header("f", b"0" * 11, b"0"))
    assert "is damaged or not an archive" in refused(tmp_path, "row.tgz", content)


def test_zeros_without_end_behind_the_end(tmp_path: Path) -> None:
    content = gzip.compress(gzip.decompress(tarred(SET)) + bytes(64 * MIB))
    with memory_below(8):
        assert "unpacks to more than" in refused(tmp_path, "tail.tgz", content)


def test_sparse_file_is_refused(tmp_path: Path) -> None:
    """A map of holes is a program for the reader: gigabytes of zeros from a kilobyte, or a loop without end."""
    content = packed(pax({"GNU.sparse.size": str(7 * MIB), "GNU.sparse.map": "0,1"}), raw_header("f", b"1", b"0"))
    assert "is neither a file nor a folder" in refused(tmp_path, "sparse.tgz", content)
    (tmp_path / "sparse.tgz").unlink()
    assert "is neither a file nor a folder" in refused(tmp_path, "old.tgz", packed(raw_header("f", b"0", b"S")))


@pytest.mark.parametrize(
    "size", [b"\xff" * 11 + b"\x00", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"-0000000512", b"9" * 11]
)
def test_size_that_is_negative_or_beyond_all_bounds(tmp_path: Path, size: bytes) -> None:
    """A negative size sends a careless reader back to the same header for ever."""
    for kind in (b"0", b"x", b"Z"):
        message = refused(tmp_path, "size.tgz", packed(raw_header("f", size, kind), raw_header("g", b"0", b"0")))
        assert any(part in message for part in ("damaged or not", "bytes allowed", "neither a file", "mapping.json"))
        (tmp_path / "size.tgz").unlink()
        (tmp_path / "data").rmdir()


def test_archive_within_an_archive_stays_a_file(tmp_path: Path) -> None:
    inner = zipped({"bomb": bytes(7 * MIB)})
    write(tmp_path, {"s.zip": zipped(SET | {"inner.zip": inner, "inner.gz": gzip.compress(bytes(MIB))})})
    installed = fetch_endovis(tmp_path / "data", str(tmp_path / "s.zip"), limits=SMALL)
    assert files_in(installed)["inner.zip"] == inner


def test_members_that_share_the_same_packed_bytes_are_summed(tmp_path: Path) -> None:
    """Overlapping members turn one kernel of zeros into as many files as the list has lines."""
    single = zip_of(["a"], bytes(MIB))
    at = single.index(b"PK\x01\x02")
    end = single.index(b"PK\x05\x06")
    entry, tail = single[at:end], bytearray(single[end:])
    entries = b"".join(entry[:46] + bytes([97 + k]) + entry[47:] for k in range(20))
    tail[8:12], tail[12:16] = struct.pack("<HH", 20, 20), struct.pack("<I", len(entries))
    message = refused(tmp_path, "overlap.zip", single[:at] + entries + bytes(tail))
    assert "is damaged or not an archive" in message or "bytes allowed" in message


# ------------------------------------------------------------------------------------------------------------- names


OUTSIDE = ["../x", "a/../../x", "..", "/x", "//host/x", "\\x", "..\\x", "a\\..\\..\\x", "C:x", "c:\\x", "\\\\?\\C:\\x"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("folder", [False, True])
def test_names_that_lead_out_of_the_folder(tmp_path: Path, name: str, folder: bool) -> None:
    message = refused(tmp_path, "n.zip", zip_of([*SET, name + "/" * folder], b"" if folder else b"x"))
    assert "leads out of the folder" in message
    (tmp_path / "n.zip").unlink()
    members = [special(name, tarfile.DIRTYPE)] if folder else []
    message = refused(tmp_path, "n.tgz", tarred(SET if folder else SET | {name: b"x"}, *members))
    assert "leads out of the folder" in message


def test_name_with_a_nul(tmp_path: Path) -> None:
    content = packed(pax({"path": "a\0b"}), raw_header("f", b"0", b"0"))
    assert "leads out of the folder" in refused(tmp_path, "nul.tgz", content)


@pytest.mark.parametrize(
    "name",
    ["n" * 256, "d" * 300 + "/f", "ä" * 200, "/".join("d" * 2500), "/".join(["d" * 200] * 15), "x" * 60_000],
    ids=["file", "folder", "bytes", "depth", "sum", "enormous"],
)
def test_names_of_enormous_length_or_depth(tmp_path: Path, name: str) -> None:
    assert "has a name that is too long or too deep" in refused(tmp_path, "n.zip", zip_of([*SET, name]))
    (tmp_path / "n.zip").unlink()
    assert "has a name that is too long or too deep" in refused(tmp_path, "n.tgz", tarred(SET | {name: b"x"}))


@pytest.mark.parametrize(
    ("first", "second"), [("a/x", "A/X"), ("a", "A"), ("\u00e9", "e\u0301"), ("straße", "STRASSE"), ("d/f", "D")]
)
def test_names_that_are_one_where_case_does_not_count(tmp_path: Path, first: str, second: str) -> None:
    """The later one would replace the earlier on such a file system, and the check would have seen the other."""
    assert "is there twice" in refused(tmp_path, "c.zip", zip_of([*SET, first, second]))
    (tmp_path / "c.zip").unlink()
    assert "is there twice" in refused(tmp_path, "c.tgz", tarred(SET | {first: b"1", second: b"2"}))


def test_the_same_name_twice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = zip_of([*SET, "mapping.json"])
    assert "is there twice" in refused(tmp_path, "twice.zip", content)


def test_folder_that_is_named_twice_is_one(tmp_path: Path) -> None:
    content = tarred(SET, special("segmentation", tarfile.DIRTYPE), special("segmentation/train", tarfile.DIRTYPE))
    write(tmp_path, {"s.tgz": content})
    assert files_in(fetch_endovis(tmp_path / "data", str(tmp_path / "s.tgz"), limits=SMALL)) == SET


def test_names_are_shown_and_do_not_command_the_terminal(tmp_path: Path) -> None:
    message = refused(tmp_path, "top.tgz", tarred({"\x1b[2J\x1b]0;owned\x07\n<b>": b"x"}))
    assert "found no mapping.json" in message
    (tmp_path / "top.tgz").unlink()
    refused(tmp_path, "set.tgz", tarred(under("\x1b[31ma") | under("\u202eb")))


# --------------------------------------------------------------------------------------------------- what is no file


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"V"],
)
def test_tar_members_that_are_no_files(tmp_path: Path, kind: bytes) -> None:
    message = refused(tmp_path, "s.tgz", tarred(SET, special("it", kind, "mapping.json")))
    assert "'it' is neither a file nor a folder" in message


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_zip_members_that_are_no_files(tmp_path: Path, kind: int) -> None:
    assert "'it' is neither a file nor a folder" in refused(
        tmp_path, "s.zip", zip_of(["it"], b"/etc", mode=kind | 0o777)
    )


def test_link_and_then_a_file_through_it(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    link = special("a", tarfile.SYMTYPE, str(tmp_path / "victim"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("a/x"))
    write(tmp_path, {"l.tgz": buffer.getvalue()})
    with pytest.raises(DataError, match="is neither a file nor a folder"):
        fetch_endovis(tmp_path / "data", str(tmp_path / "l.tgz"), limits=SMALL)
    assert list((tmp_path / "victim").iterdir()) == []


def test_rights_owners_and_times_are_not_taken_over(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in SET.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.mtime = len(content), 0o7777, 12345, 0
            tar.addfile(info, io.BytesIO(content))
    write(tmp_path, {"s.tgz": buffer.getvalue(), "s.zip": zip_of([*SET], mode=stat.S_IFREG | 0o7777)})
    for name in ("s.tgz", "s.zip"):
        installed = fetch_endovis(tmp_path / name.replace(".", "-"), str(tmp_path / name), limits=SMALL)
        for path in (file for file in installed.rglob("*") if file.is_file()):
            assert path.stat().st_mode & 0o7133 == 0
            assert path.stat().st_uid != 12345


# ------------------------------------------------------------------------------------------------------------ damage


def test_flipped_bit_in_a_packed_tar(tmp_path: Path) -> None:
    """The checksum stands at the end of the file, which a reader of members never reaches by itself."""
    stored = gzip.compress(gzip.decompress(tarred(SET | {"noise": bytes(range(256)) * 40})), compresslevel=0)
    assert "is damaged or not an archive" in refused(tmp_path, "f.tgz", flipped(stored))


@pytest.mark.parametrize("name", ["n.zip", "n.tar", "n.tgz", "n.tar.gz"])
@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x05\x06" + b"\xff" * 18, b"\x1f\x8b", bytes(512), b"\xff" * 4096, bz2.compress(b"x")]
)
def test_what_is_no_archive(tmp_path: Path, name: str, content: bytes) -> None:
    message = refused(tmp_path, name, content)
    assert "is damaged or not an archive" in message or "found no mapping.json" in message or "allowed" in message


def test_lie_about_the_number_of_members(tmp_path: Path) -> None:
    content = bytearray(zipped(SET))
    end = content.index(b"PK\x05\x06")
    content[end + 8 : end + 12] = b"\xff\xff\xff\xff"
    write(tmp_path, {"lie.zip": bytes(content)})
    assert files_in(fetch_endovis(tmp_path / "data", str(tmp_path / "lie.zip"), limits=SMALL)) == SET
