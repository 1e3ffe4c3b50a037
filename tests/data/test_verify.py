"""The checksum list names what is missing, changed or added; its compact form loses none of it."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from hw6core.data.verify import (
    COURSE_CHECKSUMS,
    expected_count,
    fingerprint,
    identify,
    summary,
    verify,
    write_checksums,
)
from hw6core.errors import DataError, UsageError

RAW = "fashion_mnist/FashionMNIST/raw"
FILES = {
    "endovis/mapping.json": b"{}",
    **{f"endovis/segmentation/train/{k}/{k}_{kind}": f"{k}{kind}".encode() for k in (0, 1, 2) for kind in ("i", "m")},
    **{f"endovis/colorization/validation_cor/{k}/{k}_input.jpg": bytes([k]) for k in range(1, 12)},
    f"{RAW}/t10k-labels-idx1-ubyte.gz": gzip.compress(b"labels", mtime=0),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tiny data folder; its list lies beside it as `list.txt`."""
    root = tmp_path / "data"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in FILES.items()]
    (tmp_path / "SUMS").write_text("".join(lines))
    write_checksums(tmp_path / "SUMS", tmp_path / "list.txt")
    return root


def found(root: Path) -> list[tuple[str, str]]:
    return [(problem.path, problem.kind) for problem in verify(root, root.parent / "list.txt")]


def test_list_of_a_tiny_tree(tree: Path) -> None:
    lines = (tree.parent / "list.txt").read_text().splitlines()

    assert [line.split()[:2] + line.split()[3:4] for line in lines if not line.startswith("#")] == [
        ["endovis", "1", "mapping.json"],
        ["endovis/colorization/validation_cor", "11", "1..11/input.jpg"],
        ["endovis/segmentation/train", "6", "0..2/i,m"],
        [RAW, "1", "t10k-labels-idx1-ubyte.gz"],
    ]
    # printf '%s  endovis/mapping.json\n' "$(printf '{}' | sha256sum | cut -c-64)" | sha256sum
    assert lines[2] == (
        "endovis 1 e8a5e69afdb0c8623365114151e1135f2b7120c90b2c737fca1ec9e5ef424e63 mapping.json RBNvo1Wz"
    )


def test_intact_tree_has_no_problems(tree: Path) -> None:
    assert verify(tree, tree.parent / "list.txt") == []
    assert expected_count(tree, tree.parent / "list.txt") == 19


@pytest.mark.parametrize(("name", "count"), [("endovis", 18), ("fashion_mnist", 1)])
def test_own_folder_of_a_set(tree: Path, name: str, count: int) -> None:
    assert verify(tree / name, tree.parent / "list.txt") == []
    assert expected_count(tree / name, tree.parent / "list.txt") == count


def test_changed_byte_is_named(tree: Path) -> None:
    (tree / "endovis/segmentation/train/1/1_m").write_bytes(b"1n")

    problems = verify(tree, tree.parent / "list.txt")

    assert [str(problem) for problem in problems] == [
        "endovis/segmentation/train/1/1_m: changed: its sha256 begins with "
        f"{hashlib.sha256(b'1n').hexdigest()[:12]}, not {hashlib.sha256(b'1m').hexdigest()[:12]}"
    ]


def test_missing_files_and_folders_are_named(tree: Path) -> None:
    (tree / "endovis/colorization/validation_cor/10/10_input.jpg").unlink()
    shutil.rmtree(tree / "endovis/segmentation")

    assert found(tree) == [
        ("endovis/colorization/validation_cor/10/10_input.jpg", "missing"),
        ("endovis/segmentation/train", "missing"),
    ]


def test_paths_are_relative_to_a_sets_own_folder(tree: Path) -> None:
    (tree / "endovis/segmentation/train/2/2_i").unlink()

    problems = verify(tree / "endovis", tree.parent / "list.txt")

    assert [problem.path for problem in problems] == ["segmentation/train/2/2_i"]


def test_stray_files_are_ignored_but_added_samples_are_not(tree: Path) -> None:
    (tree / "endovis/.DS_Store").touch()
    (tree / "endovis/segmentation/train/Icon").touch()
    (tree / "endovis/segmentation/train/0/Icon\r").touch()
    assert found(tree) == []

    (tree / "endovis/segmentation/train/3").mkdir()
    assert found(tree) == [("endovis/segmentation/train/3", "unexpected")]


def test_forged_prefix_is_caught_by_the_digest(tree: Path) -> None:
    # Finding a file that shares six bytes of a sum takes too long here: change the list's digest instead.
    listing = tree.parent / "list.txt"
    listing.write_text(listing.read_text().replace("endovis 1 e", "endovis 1 f"))

    assert found(tree) == [("endovis", "changed")]


def test_only_unpacked_garments_say_so(tree: Path) -> None:
    packed = tree / RAW / "t10k-labels-idx1-ubyte.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    assert found(tree) == []

    packed.unlink()
    problems = verify(tree, tree.parent / "list.txt")
    assert [str(problem) for problem in problems] == [
        f"{RAW}/t10k-labels-idx1-ubyte.gz: missing: only the unpacked t10k-labels-idx1-ubyte is there, "
        "the .gz itself is needed"
    ]
    assert summary(problems, tree).endswith(f"to mend: python -m benchmarks data fetch --root {tree}")


def test_unpacked_copy_must_hold_the_same(tree: Path) -> None:
    (tree / RAW / "t10k-labels-idx1-ubyte").write_bytes(b"others")

    assert found(tree) == [(f"{RAW}/t10k-labels-idx1-ubyte", "changed")]
    assert summary(verify(tree, tree.parent / "list.txt"), tree).endswith(" --force")


def test_unreadable_file_is_a_problem(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("hw6core.data.verify._sha256", refuse)  # chmod does not stop a superuser
    problems = verify(tree / "fashion_mnist", tree.parent / "list.txt")

    assert [str(problem) for problem in problems] == [
        "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz: cannot be read: Permission denied"
    ]


def test_folder_without_data_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no data in .*/my data: expected .* --root '.*/my data'$"):
        verify(tmp_path / "my data")


def test_summary_is_one_line_with_the_command(tree: Path) -> None:
    for k in (0, 1, 2):
        (tree / f"endovis/segmentation/train/{k}/{k}_i").unlink()
    (tree / "endovis/mapping.json").unlink()
    problems = verify(tree, tree.parent / "list.txt")

    assert summary(problems, tree, limit=2) == (
        f"{tree}: 4 differences from the published data: endovis/mapping.json: missing; "
        "endovis/segmentation/train/0/0_i: missing; and 2 more; "
        f"to mend: python -m benchmarks data fetch --root {tree} --force"
    )


def test_progress_ends_at_the_total(tree: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    verify(tree, tree.parent / "list.txt", lambda done, total: seen.append((done, total)))

    size = sum(len(content) for content in FILES.values())
    assert len(seen) == 19
    assert seen[-1] == (size, size)


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "no sum\n",
        f"{'0' * 64}  /etc/passwd\n",
        f"{'0' * 64}  a/../b\n",
        f"{'0' * 64}  lonely\n",
        f"{'0' * 64}  a/b,c\n",
        f"{'0' * 64}  a/b\n{'1' * 64}  a/b\n",
    ],
)
def test_sums_that_cannot_be_listed(tmp_path: Path, lines: str) -> None:
    (tmp_path / "SUMS").write_text(lines)
    with pytest.raises(DataError, match="SUMS"):
        write_checksums(tmp_path / "SUMS", tmp_path / "list.txt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["SUMS"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "endovis 1",
        "endovis 2 00 mapping.json AAAAAAAA",
        "endovis 1 00 mapping.json !",
        "e 9 00 0..99999999999/x AA",
    ],
)
def test_broken_list_is_a_data_error(tree: Path, line: str) -> None:
    (tree.parent / "list.txt").write_text(line + "\n")
    with pytest.raises(DataError, match=r"list\.txt.*reinstall the package"):
        verify(tree, tree.parent / "list.txt")


def test_samples_with_a_gap_are_spelled_out(tmp_path: Path) -> None:
    sums = f"{'0' * 64}  s/0/0_a\n{'1' * 64}  s/2/2_a\n"
    (tmp_path / "SUMS").write_text(sums)
    write_checksums(tmp_path / "SUMS", tmp_path / "list.txt")

    assert (tmp_path / "list.txt").read_text().splitlines()[-1].split()[3] == "0/0_a,2/2_a"


def test_fingerprint_depends_on_paths_and_content_only(tree: Path) -> None:
    files = [tree / "endovis/mapping.json", tree / "endovis/segmentation/train/0/0_i"]
    before = fingerprint(files, tree)

    # { printf '%s  endovis/mapping.json\n' "$(printf '{}' | sha256sum | cut -c-64)"; the same for 0i; } | sha256sum
    assert before == "04b115a9e39f7580"
    assert fingerprint(reversed(files), tree) == before
    assert fingerprint(files, tree / "endovis") != before
    files[0].write_bytes(b"[]")
    assert fingerprint(files, tree) != before


def others(root: Path, *folders: str) -> list[str]:
    files = [path for folder in folders for path in sorted((root / folder).rglob("*")) if path.is_file()]
    return identify(files, root, root.parent / "list.txt")[1]


def test_what_was_read_and_is_not_as_published_is_named(tree: Path) -> None:
    train = "endovis/segmentation/train"
    assert others(tree, "endovis", "fashion_mnist") == []
    assert others(tree, "endovis/colorization") == []  # of what was not read nothing is said
    (tree / train / "1/1_i").write_bytes(b"another")
    (tree / train / "2/2_m").unlink()
    (tree / train / "7").mkdir()
    (tree / train / "7/7_i").write_bytes(b"more")
    expected = [f"{train}/1/1_i", f"{train}/2/2_m", f"{train}/7/7_i"]
    assert others(tree, train) == expected
    (tree / "endovis").rename(tree.parent / "own")  # a set's own folder has any name
    files = [path for path in (tree.parent / "own/segmentation/train").rglob("*") if path.is_file()]
    assert identify(files, tree.parent / "own", tree.parent / "list.txt")[1] == expected


def test_unpacked_garments_are_compared_with_those_that_were_published(tree: Path) -> None:
    """The list of this test knows other labels; the published ones' unpacked sums stand in the code."""
    packed = tree / RAW / "t10k-labels-idx1-ubyte.gz"
    packed.rename(packed.with_suffix(""))
    assert others(tree, "fashion_mnist") == [f"{RAW}/t10k-labels-idx1-ubyte"]


def test_fingerprint_of_what_is_not_there(tree: Path) -> None:
    with pytest.raises(UsageError, match="nothing to fingerprint"):
        fingerprint([], tree)
    with pytest.raises(UsageError, match="not below"):
        fingerprint([tree.parent / "SUMS"], tree)
    with pytest.raises(DataError, match="cannot read"):
        fingerprint([tree / "none"], tree)


def test_shipped_list_is_that_of_the_published_files() -> None:
    lines = [line.split() for line in COURSE_CHECKSUMS.read_text().splitlines() if not line.startswith("#")]

    assert {line[0]: int(line[1]) for line in lines} == {
        "endovis": 1,
        "endovis/colorization/train_cor": 3168,
        "endovis/colorization/validation_cor": 100,
        "endovis/segmentation/test": 100,
        "endovis/segmentation/train": 600,
        "endovis/segmentation/validation": 100,
        "fashion_mnist/FashionMNIST/raw": 4,
    }


@pytest.mark.skipif("HW6_DATA" not in os.environ, reason="set HW6_DATA to the folder with endovis/ and fashion_mnist/")
def test_published_data(tmp_path: Path) -> None:
    root = Path(os.environ["HW6_DATA"])

    assert verify(root) == []
    assert expected_count(root) == 4073
    files = [path for path in root.rglob("*") if path.suffix in (".jpg", ".png", ".json", ".gz")]
    assert identify(files, root)[1] == []
    raw = tmp_path / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for path in (root / RAW).glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    assert identify(raw.iterdir(), tmp_path)[1] == []
