"""Loading EndoVis: all files of the known editions of the course's data, and damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hw6core.data import load_colorization, load_endovis
from hw6core.data.endovis import read_mapping
from hw6core.errors import DataError
from hw6core.provenance import data_kind
from tests.fetching import as_nobody

# As in the course's file: no commas.
MAPPING = """{
"Background_Tissue": 0
"Bipolar_Forceps": 32
"Prograsp_Forceps": 64
}
"""
HEIGHT, WIDTH = 6, 8


def save(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Save as PNG, which is lossless, whatever the name of the file: the loader detects the format by content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")


def sample(root: Path, number: int, level: int = 0) -> Path:
    """Write a training frame of both tasks with a mask of one grey level; returns the folder of frame and mask."""
    folder, other = (root / split / str(number) for split in ("segmentation/train", "colorization/train_cor"))
    for path in (folder / f"{number}_input.jpg", other / f"{number}_input.jpg"):
        save(path, np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8))
    save(folder / f"{number}_mask.png", np.full((HEIGHT, WIDTH), level, np.uint8))
    save(other / f"{number}_gray.jpg", np.full((HEIGHT, WIDTH), 7, np.uint8))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of EndoVis, with a mapping of three classes and no samples."""
    folder = tmp_path / "endovis"
    folder.mkdir()
    (folder / "mapping.json").write_text(MAPPING)
    return folder


COUNTS = {"train": 120, "validation": 12, "test": 11}  # numerical order differs from alphabetical order
LEVELS = (0, 64, 32)  # not sorted: class 1 has the higher level


def pixels_of(part: int, number: int) -> NDArray[np.uint8]:
    """(2, 3, 3) RGB of a sample; every value differs from that of all other samples of the split."""
    place = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    return (40 * part + 7 * place + np.uint8(number)).astype(np.uint8)


def classes_of(part: int, number: int) -> NDArray[np.int64]:
    """(2, 3) classes: the digits of the number in base 3, and the split."""
    return np.array([number // 3**digit % 3 for digit in range(5)] + [part % 3]).reshape(2, 3)


def write_all(root: Path) -> None:
    (root / "mapping.json").write_text('{"Tissue": 0, "Scissors": 64, "Forceps": 32}')
    for part, (split, count) in enumerate(COUNTS.items()):
        for number in range(3, 3 + count):  # may start anywhere
            path = root / f"segmentation/{split}/{number}/{number}"
            save(Path(f"{path}_input.jpg"), pixels_of(part, number))
            save(Path(f"{path}_mask.png"), np.array(LEVELS, np.uint8)[classes_of(part, number)])
    for part, (split, count) in enumerate({"train_cor": 105, "validation_cor": 13}.items(), start=3):
        for number in range(1, 1 + count):
            path = root / f"colorization/{split}/{number}/{number}"
            save(Path(f"{path}_input.jpg"), pixels_of(part, number))
            if number % 3:  # a value different from the luma
                save(Path(f"{path}_gray.jpg"), np.full((2, 3), 255 - number, np.uint8))


def test_every_sample_is_loaded_in_numerical_order(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(root)
    monkeypatch.setenv("HW6_CACHE", str(tmp_path / "cache"))
    for _ in range(2):  # the second time from the cache
        for part, (split, count) in enumerate(COUNTS.items()):
            frames, numbers = load_endovis(root, split), range(3, 3 + count)
            pictures = np.stack([pixels_of(part, number) for number in numbers])
            assert np.array_equal(frames.images.permute(0, 2, 3, 1).numpy(), pictures)
            assert np.array_equal(frames.masks.numpy(), np.stack([classes_of(part, number) for number in numbers]))
            assert frames.class_names == ("Tissue", "Scissors", "Forceps")
            names = [f"{number}_{kind}" for kind in ("input.jpg", "mask.png") for number in numbers]
            assert [path.name for path in frames.files] == [*names, "mapping.json"]
        for part, (split, count) in enumerate({"train": 105, "validation": 13}.items(), start=3):
            colours, numbers = load_colorization(root, split), range(1, 1 + count)
            pictures = np.stack([pixels_of(part, number) for number in numbers])
            assert np.array_equal(colours.images.permute(0, 2, 3, 1).numpy(), pictures)
            for number, found, picture in zip(numbers, colours.grays[:, 0].numpy(), pictures, strict=True):
                luma = picture @ np.array([0.299, 0.587, 0.114])
                assert np.abs(found - (luma if number % 3 == 0 else 255.0 - number)).max() <= 0.51, number


def test_stray_files_and_folders_are_ignored(root: Path) -> None:
    folder = sample(root, 1)
    for stray in (folder.parent / ".DS_Store", folder.parent / "Icon", folder / "Icon\r", folder.parent / "7"):
        stray.write_bytes(b"")
    (folder.parent / "notes").mkdir()
    (folder.parent / "2 copy").mkdir()
    assert len(load_endovis(root, "train").images) == 1


def test_a_missing_or_empty_split_is_an_error(root: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*train; expected numbered samples in it; download it again$"):
        load_endovis(root, "train")
    (root / "segmentation" / "train" / "Icon").mkdir(parents=True)
    with pytest.raises(DataError, match="train has no numbered samples"):
        load_endovis(root, "train")


@pytest.mark.parametrize("kind", ["input.jpg", "mask.png"])
def test_a_broken_link_is_an_error(root: Path, kind: str) -> None:
    sample(root, 1)
    folder = sample(root, 2)
    folder.rename(root / "store")
    folder.symlink_to(root / "store")
    assert len(load_endovis(root, "train").images) == 2  # valid links are followed
    (root / "store" / f"2_{kind}").unlink()
    (root / "store" / f"2_{kind}").symlink_to("gone")
    with pytest.raises(DataError, match=f"2_{kind} is a broken link; the sample is incomplete; download it again"):
        load_endovis(root, "train")
    (root / "store").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"no .*train/2/2_input.jpg; the sample is incomplete"):
        load_endovis(root, "train")


def test_a_file_name_in_the_wrong_case_is_an_error(root: Path) -> None:
    mask = sample(root, 2) / "2_mask.png"
    mask.rename(mask.with_name("2_MASK.PNG"))
    with pytest.raises(DataError, match=r"no .*2_mask.png; found 2_MASK.PNG; rename it to 2_mask.png"):
        load_endovis(root, "train")


def test_a_broken_link_to_a_grey_frame_is_an_error(root: Path) -> None:
    sample(root, 2)
    gray = root / "colorization/train_cor/2/2_gray.jpg"
    gray.unlink()
    gray.symlink_to("gone")
    with pytest.raises(DataError, match=r"2_gray.jpg is a broken link"):
        load_colorization(root, "train")


def test_data_one_folder_deeper_is_suggested(root: Path) -> None:
    deeper = root.parent / "data" / "course data-master"
    deeper.mkdir(parents=True)
    root.rename(deeper / "endovis")
    with pytest.raises(DataError, match=r"no EndoVis data in .*one folder deeper: use '.*course data-master' instead"):
        load_endovis(root.parent / "data", "train")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_exif_orientation_is_applied(root: Path, kind: str) -> None:
    upright = Image.new("RGB", (WIDTH * 8, HEIGHT * 8))
    upright.paste((255, 0, 0), (0, 0, WIDTH * 4, HEIGHT * 4))  # one corner red
    folder, exif = sample(root, 1), Image.Exif()
    exif[0x0112] = 6  # rotate clockwise to display (EXIF 2.3)
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "1_input.jpg", format=kind, exif=exif)
    Image.new("L", upright.size, 0).save(folder / "1_mask.png")

    image = load_endovis(root, "train").images[0]
    assert image.shape == (3, HEIGHT * 8, WIDTH * 8)
    assert [int(image[0, y, x]) > 200 for y in (2, -3) for x in (2, -3)] == [True, False, False, False]


@pytest.mark.parametrize("count", [2, 256])
def test_2_to_256_classes_are_read(root: Path, count: int) -> None:
    levels = [0, *reversed(range(256 - count + 1, 256))]
    (root / "mapping.json").write_text(json.dumps({f"class {place}": level for place, level in enumerate(levels)}))
    for number, level in enumerate((0, levels[-1], levels[1])):
        sample(root, number, level)
    frames = load_endovis(root, "train")
    assert len(frames.class_names) == count
    assert frames.masks.flatten(1).unique(dim=1).tolist() == [[0], [count - 1], [1]]


@pytest.mark.parametrize(
    "place", ["", "mapping.json", "segmentation/train", "segmentation/train/1", "segmentation/train/1/1_mask.png"]
)
def test_missing_permission_is_a_data_error(root: Path, place: str) -> None:
    sample(root, 1)
    load_endovis(root, "train")  # imports what the other user may not be able to
    (root / place).chmod(0)
    with as_nobody(root.parent):
        with pytest.raises(DataError, match=r"no permission to read .*|no EndoVis data"):
            load_endovis(root.parent, "train")
        assert data_kind(root.parent) == "real"


def test_masks_of_another_size_than_the_frames_are_an_error(root: Path) -> None:
    save(sample(root, 1) / "1_mask.png", np.zeros((8, 6), np.uint8))
    with pytest.raises(DataError, match="train: images are 8x6, masks 6x8; expected the same size"):
        load_endovis(root, "train")


@pytest.mark.parametrize(
    "text",
    [
        MAPPING,
        '{"Background_Tissue": 0, "Bipolar_Forceps": 32, "Prograsp_Forceps": 64}',
        '{"Background_Tissue": 0,\n"Bipolar_Forceps": 32\n"Prograsp_Forceps": 64,\n}\n',
        '\ufeff{ "Background_Tissue" :0 "Bipolar_Forceps":32\r\n\t"Prograsp_Forceps" : 64 }  \r\n',
    ],
    ids=["the course's", "valid JSON", "commas here and there, one trailing", "byte order mark and odd spaces"],
)
def test_mapping_loads_with_and_without_commas(tmp_path: Path, text: str) -> None:
    (tmp_path / "mapping.json").write_text(text, encoding="utf-8", newline="")
    expected = [("Background_Tissue", 0), ("Bipolar_Forceps", 32), ("Prograsp_Forceps", 64)]
    assert list(read_mapping(tmp_path / "mapping.json").items()) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'is not a mapping; expected {"Background_Tissue": 0, ...}'),
        ("{}", "has the classes []; expected background and at least one instrument, with different names and grey"),
        ('{"Background": 0}', "has the classes [('Background', 0)]; expected background and at least one instrument"),
        ('{"Background": 0 "A": 32 "B": 32}', "('A', 32), ('B', 32)]; expected"),
        ('{"Background": 0 "A": 32 "A": 64}', "('A', 32), ('A', 64)]; expected"),
        ('{"Background": 0 "A": 256}', "('A', 256)]; expected"),
        ('{"Background": 0 "A": -1}', "('A', -1)]; expected"),
        ('{"A": 32 "Background": 0}', "[('A', 32), ('Background', 0)]; expected"),
        ('{"Background": 0 "A": "32"}', """holds '"A": "32"'; expected lines like"""),
        ('{"Background": 0 "A": 32 # the forceps\n}', "holds '# the forceps'"),
    ],
)
def test_an_invalid_mapping_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mapping.json"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read_mapping(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", [300, 66, 149, 138, 49, 8, 22, 95]),
        ("validation", [50, 9, 20, 22, 10, 4, 0, 18]),
        ("test", [50, 9, 32, 21, 2, 0, 0, 27]),
    ],
)
def test_number_of_real_frames_with_each_class(real_data: Path, split: str, expected: list[int]) -> None:
    frames = load_endovis(real_data, split)
    assert frames.images.shape == (expected[0], 3, 256, 320)
    assert frames.masks.shape == (expected[0], 256, 320)
    assert len(frames.class_names) == 8
    assert [int((frames.masks == c).flatten(1).any(1).sum()) for c in range(8)] == expected
