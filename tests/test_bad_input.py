"""Bad input on the command line: each case has its exit code and one line that says what to do.

In the messages of the table, ``...`` stands for any text. Every case starts in a new folder that contains only
``data``, a small complete data set in the real layout. None of them may train anything.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.__main__ import main
from benchmarks.results.records import checksum, write_record
from hw6core.data import load_colorization, load_endovis
from hw6core.data.synthetic import Sizes, synthesize
from hw6core.models import UNet, vgg16
from hw6core.provenance import MARKER
from hw6core.seeding import set_deterministic
from tests.record_factory import make_record

TRAIN = Path("data/endovis/segmentation/train")
FRAME, MASK = TRAIN / "1/1_input.jpg", TRAIN / "1/1_mask.png"
GRAY = Path("data/endovis/colorization/train_cor/1/1_gray.jpg")
RAW = Path("data/fashion_mnist/FashionMNIST/raw")
IMAGES, LABELS = RAW / "train-images-idx3-ubyte", RAW / "train-labels-idx1-ubyte"
DATA = f"{shlex.quote(sys.executable)} -m benchmarks data"  # the commands are for the Python in use
AGAIN = f"download it again: {DATA} fetch --root data --force"
LEVELS = "[0, 32, 64, 96, 128, 160, 192, 224]"
RUN = "run --data data"
SEG = f"{RUN} seg-baseline"
VGG = f"{RUN} vgg-frozen --vgg16-weights"
JUDGE = "judge --results r"
REPORT = "report --results r"
NAMED = "r/records/vgg-frozen-seed0.json"
Act = Callable[[], object]


class TrainingBeganError(BaseException):
    """The command began to draw data, to download weights or to train."""


@dataclass(frozen=True)
class Case:
    """A command and the expected error.

    Attributes:
        spoil: makes the mistake in the case's folder.
    """

    name: str
    command: str
    exit_code: int
    message: str
    spoil: Act = lambda: None
    environment: Mapping[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------------- mistakes


def put(path: Path, content: bytes | str) -> Act:
    """Replace a file, which may be a hard link to the shared copy."""

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def remove(path: Path) -> Act:
    return lambda: shutil.rmtree(path) if path.is_dir() else path.unlink()


def redrawn(path: Path, change: Callable[[Image.Image], Image.Image], kind: str = "PNG") -> Act:
    """Change an image and save it under the same name."""

    def save() -> None:
        with Image.open(path) as image:
            image.load()
            other = change(image)
        path.unlink()
        other.save(path, format=kind)

    return save


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image)


def see_through(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 128))
    return image


def false_colours(image: Image.Image) -> Image.Image:
    """Class numbers with a palette of colours, as other data sets have."""
    shown = Image.fromarray(pixels(image) // 32).convert("P")
    shown.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0, 0, 255, 255, 255, 0, 255, 9, 9, 9])
    return shown


def idx(magic: int, shape: tuple[int, ...], content: bytes) -> bytes:
    return struct.pack(f">{1 + len(shape)}I", magic, *shape) + content


def weights(state: Callable[[], object]) -> Act:
    return lambda: torch.save(state(), "w.pth")


def fitting_weights() -> dict[str, Tensor]:
    """A state dict of VGG16 that takes no memory: all elements of a tensor share one number."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in vgg16(1000).state_dict().items()}
    return {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}


def record(change: Callable[[dict[str, Any]], object]) -> Act:
    """A valid record with a change, and a checksum that fits it."""

    def as_text(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content | {"checksum": checksum(content)})

    return record_text(as_text)


def record_text(change: Callable[[str], str]) -> Act:
    def edit() -> None:
        path = write_record(Path("r"), make_record("vgg-frozen"))
        path.write_text(change(path.read_text()))

    return edit


def both(*acts: Act) -> Act:
    return lambda: [act() for act in acts]


# --------------------------------------------------------------------------------------------------------- the table

DATA_CASES = [
    Case("data folder missing", "run --data 'my data'", 3,
         f"no data folder my data; download the data: {DATA} fetch --root 'my data'"),
    Case("data is a file", "run --data file", 3,
         "file is a file; expected a folder with endovis/ and fashion_mnist/: DATA=FOLDER", put(Path("file"), "")),
    Case("data folder empty", SEG, 3,
         "no EndoVis data in data: expected endovis/mapping.json or mapping.json there; "
         f"download it: {DATA} fetch --root data", both(remove(Path("data")), Path("data").mkdir)),
    Case("one set missing", f"{RUN} vgg-scratch", 3,
         "no Fashion-MNIST in data: expected fashion_mnist/FashionMNIST/raw or FashionMNIST/raw there; "
         f"download it: {DATA} fetch --root data", remove(Path("data/fashion_mnist"))),
    Case("a set's own folder, and the other set is needed", "run --data data/endovis", 3,
         "no Fashion-MNIST in data/endovis: expected fashion_mnist/FashionMNIST/raw or FashionMNIST/raw there..."),
    Case("mask of JPEG", SEG, 3, f"{MASK} is a JPEG file; expected PNG, which is lossless; save it as PNG",
         redrawn(MASK, lambda image: image, "JPEG")),
    Case("mask of another size than its frame", SEG, 3,
         f"{MASK} is 160x128, {TRAIN}/0/0_mask.png is 320x256; expected the same size; "
         "resize the others (masks without smoothing)", redrawn(MASK, lambda image: image.crop((0, 0, 160, 128)))),
    Case("mask with smooth edges", SEG, 3,
         f"{MASK} has the grey level ... and ... others; expected those of mapping.json: {LEVELS}; save it...",
         redrawn(MASK, lambda image: image.reduce(2).resize(image.size, Image.Resampling.BILINEAR))),
    Case("mask of 16 bits", SEG, 3, f"{MASK} has 16-bit pixels; expected 8-bit grey or RGB; convert it",
         redrawn(MASK, lambda image: Image.fromarray(pixels(image).astype(np.uint16) * 257))),
    Case("mask of class numbers with a palette", SEG, 3,
         f"{MASK} has colours; expected grey: one channel or three equal ones; convert it",
         redrawn(MASK, false_colours)),
    Case("mask with transparent pixels", SEG, 3,
         f"{MASK} has transparent pixels; expected none; save it without an alpha channel", redrawn(MASK, see_through)),
    Case("frame of CMYK", SEG, 3, f"{FRAME} has CMYK pixels; expected 8-bit grey or RGB; convert it",
         redrawn(FRAME, lambda image: image.convert("CMYK"), "JPEG")),
    Case("frame cut short", SEG, 3, f"cannot decode {FRAME} (...); {AGAIN}",
         lambda: put(FRAME, FRAME.read_bytes()[:2000])()),
    Case("drawn data damaged", SEG, 3,
         f"cannot decode {MASK} (...); delete data/endovis and draw it again: {DATA} synthesize --root data",
         both(put(MASK, ""), put(Path("data/endovis") / MARKER, "{}"))),
]  # fmt: skip

GARMENT_CASES = [
    Case("garments missing, before weights are downloaded", f"{RUN} --profile full vgg-frozen", 3,
         f"neither {IMAGES} nor {IMAGES.name}.gz exists; {AGAIN}", remove(IMAGES), {"TORCH_HOME": "torch"}),
    Case("too few garments to validate", RUN, 3,
         f"{IMAGES} has 9 images; expected at least 10, as one in 10 is used for validation; add more",
         both(put(IMAGES, idx(0x803, (9, 28, 28), bytes(9 * 784))), put(LABELS, idx(0x801, (9,), bytes(9))))),
    Case("garments with another checksum", RUN, 3, f"{IMAGES}.gz does not have the checksum of Fashion-MNIST; {AGAIN}",
         both(put(Path(f"{IMAGES}.gz"), gzip.compress(b"others")), remove(IMAGES))),
    Case("verify what was not published", "data verify --root data", 3,
         "data: ... differences from the published data: ...; "
         f"fix it: {DATA} fetch --root data --force"),
    Case("draw over real data", "data synthesize --root data", 3,
         "data/endovis exists and is not synthetic data (no SYNTHETIC.json); choose another folder or remove it"),
    Case("draw into a file", "data synthesize --root file", 3,
         "cannot write synthetic data to file: ...; draw it into another folder, for DATA=FOLDER: "
         f"{DATA} synthesize --root FOLDER", put(Path("file"), "")),
    Case("draw with a seed below zero", "data synthesize --root new --seed -1", 2, "seed is -1; expected 0 or more"),
]  # fmt: skip

WEIGHT_CASES = [
    Case("weights missing", f"{VGG} w.pth", 3,
         "VGG16_WEIGHTS: cannot read w.pth; expected a state dict in torchvision's format; "
         "leave it unset to download the weights"),
    Case("weights of another network", f"{VGG} w.pth", 3,
         "the VGG16 weights w.pth do not fit: 30 tensors missing, ... unknown (first: ...); "
         "expected the same network up to classifier.6", weights(lambda: UNet().state_dict())),
]  # fmt: skip

SEEDS = "SEEDS is '{}'; expected whole numbers from 0 to 4294967295, for instance '0 1 2'"
OPTION_CASES = [
    Case("no command", "", 2, "the following arguments are required: COMMAND; see python -m benchmarks --help"),
    Case("unknown command", "train", 2,
         "argument COMMAND: invalid choice: 'train' ...; see python -m benchmarks --help"),
    Case("unknown configuration", "run unet", 2,
         "unknown configuration 'unet'; known: seg-baseline, seg-augmented, colorization, seg-pretrained, vgg-scratch, "
         "vgg-frozen, vgg-new-task"),
    Case("seed below zero", "run --seeds=-1", 2, SEEDS.format("-1")),
    Case("seed twice", "run --seeds '3 03'", 2, "SEEDS is '3 03'; expected each seed once"),
    Case("unknown profile", "run --profile fast", 2, "unknown profile 'fast'; expected full or quick"),
    Case("full profile without data", "run --profile full", 3,
         "the full profile requires real data in data/; download it: make data, or set DATA=FOLDER",
         remove(Path("data"))),
    Case("full profile on synthetic data", "run --profile full --data synthetic", 2,
         "the full profile requires real data; use PROFILE=quick with DATA=synthetic"),
    Case("full profile on a drawn folder", "run --profile full --data data", 2,
         "the full profile requires real data, but data is synthetic; use PROFILE=quick",
         put(Path("data") / MARKER, "{}")),
    Case("missing device, before data is drawn", "run --device cuda --profile quick --data synthetic", 4,
         "no cuda device is visible to torch ..., which sees only the CPU; to find out why: make smoke, or DEVICE=cpu"),
    Case("unknown device, before data is drawn", "run --device tpu --data synthetic", 2,
         "unknown device 'tpu'; expected cpu or cuda or xpu or mps"),
    Case("precision that the CPU has not", f"{RUN} --precision tf32", 2,
         "PRECISION is 'tf32'; expected one that cpu supports: float32, bfloat16, float16"),
    Case("DETERMINISTIC", RUN, 2, "DETERMINISTIC is 'maybe'; expected 1 or 0", environment={"DETERMINISTIC": "maybe"}),
    Case("CUDA graphs without a GPU, before data is drawn", "run --data synthetic", 2,
         "CUDA_GRAPHS=1 requires a GPU; set CUDA_GRAPHS=0", environment={"CUDA_GRAPHS": "1"}),
    Case("GPUs of a cluster", f"{RUN} --engine ray --gpus 4", 2,
         "ENGINE=ray starts as many runs as the cluster has room for; unset GPUS and WORKERS"),
    Case("LIMIT", RUN, 2, "LIMIT is '-1'; expected the time limit of each run in minutes, or 0 for no limit",
         environment={"LIMIT": "-1"}),
    Case("ONLY without an id", RUN, 2,
         "ONLY is ','; expected ids of configurations (see: make list)", environment={"ONLY": ","}),
    Case("ALLOW_NOT_RUN", RUN, 2, "unknown configuration 'all'; known: ...", environment={"ALLOW_NOT_RUN": "all"}),
    Case("RESULTS a file", RUN, 2, "RESULTS is 'file', but file is a file; expected a folder",
         put(Path("file"), ""), {"RESULTS": "file"}),
    Case("RESULTS that cannot be made", f"{RUN} --results /proc/r", 4,
         "/proc/r cannot be written (...); free up space or use another folder: RESULTS=FOLDER"),
    *(
        Case(f"shard {text!r}", f"{RUN} --shard={shlex.quote(text)}", 2,
             f"--shard is '{text}'; expected I/N with I from 1 to N, for instance 2/4")
        for text in ("0/2", "a/b")
    ),
]  # fmt: skip

MEND = "delete it and run again"
RECORD_CASES = [
    Case("judge what is not there", "judge --results nowhere", 3,
         "no records in nowhere; expected nowhere/records; make them: python -m benchmarks run"),
    Case("another schema version, before anything is trained", f"{SEG} --results r", 3,
         f"{NAMED} has schema version 0; expected 1; {MEND}", record(lambda content: content.update(schema_version=0))),
    Case("record cut short", JUDGE, 3, f"{NAMED} is not a readable record (...); {MEND}",
         record_text(lambda text: text[:-9])),
    Case("merge without a folder to merge into", "report --merge s1 s2", 2,
         "--merge requires --results FOLDER, the folder to merge into"),
    Case("merge into one of the shards", "report --results s1 --merge s1 s2", 2,
         "s1 is one of the shards; merge into another folder: --results FOLDER"),
    Case("fingerprint files and an output", "fingerprint a.json --output b.json", 2,
         "--output is for a new fingerprint, but with FILEs none is made; leave out one of them"),
    Case("compare with settings of which one lacks a key", "compare r old", 2,
         "vgg-frozen: settings differ, work patience is on the new side only: not comparable",
         both(lambda: write_record(Path("old"), make_record("vgg-frozen")),
              record(lambda content: content["settings"]["work"].pop("patience")))),
]  # fmt: skip

CASES = [*DATA_CASES, *GARMENT_CASES, *WEIGHT_CASES, *OPTION_CASES, *RECORD_CASES]


# ---------------------------------------------------------------------------------------------------------- the test


@pytest.fixture(scope="session")
def whole_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both data sets, without the files that mark them as synthetic."""
    root = tmp_path_factory.mktemp("whole") / "data"
    synthesize(root, sizes=Sizes(2, 1, 1, 2, 1, 10, 2))
    for marker in list(root.rglob(MARKER)):
        marker.unlink()
    return root


@pytest.fixture
def folder(whole_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a copy of the data; no GPU or variables; drawing, downloads and training raise an error."""

    def begin(*_: object) -> None:
        raise TrainingBeganError

    shutil.copytree(whole_data, tmp_path / "data", copy_function=os.link)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEVICE", "cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    work = ("runs.runner.execute", "runs.runner.measure_ceiling", "engines.engine.synthesize")
    for name in (*work, "workloads.pretrained.fetch_vgg16_weights"):
        monkeypatch.setattr(f"benchmarks.{name}", begin)
    monkeypatch.setattr("benchmarks.runs.results_folder._needed_gb", lambda _: 0.0)
    for name in ("_packages_digest", "_git"):  # take half of each case's time, and are not tested here
        monkeypatch.setattr(f"benchmarks.machine.environment.{name}", lambda *_: None)
    yield tmp_path
    set_deterministic(False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_gets_one_line_and_its_exit_code(
    case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    case.spoil()
    exit_code = main(shlex.split(case.command))
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    pattern = ".*".join(re.escape(part) for part in case.message.split("..."))
    assert re.fullmatch(f"error: {pattern}", line), line
    assert exit_code == case.exit_code
    assert output.out == ""


# ------------------------------------------------------------------------------------------------------- valid input


def as_palette(image: Image.Image) -> Image.Image:
    """Like PNG optimizers: the levels as a palette, most frequent first."""
    levels, counts = np.unique(pixels(image), return_counts=True)
    palette = levels[np.argsort(-counts)]
    numbers = np.zeros(256, np.uint8)
    numbers[palette] = np.arange(len(palette))
    small = Image.fromarray(numbers[pixels(image)]).convert("P")
    small.putpalette(np.repeat(palette, 3).tobytes())
    return small


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (MASK, lambda image: image.convert("RGB")),
        (MASK, lambda image: image.convert("RGBA")),
        (MASK, lambda image: image.convert("LA")),
        (MASK, as_palette),
        (FRAME, lambda image: image),
        (FRAME, lambda image: image.convert("RGBA")),
        (GRAY, lambda image: image.convert("RGB")),
        (GRAY, lambda image: image),
    ],
    ids=["mask RGB", "mask RGBA", "mask LA", "mask palette", "frame PNG", "frame RGBA", "grey RGB", "grey PNG"],
)
def test_equivalent_images_are_equal(path: Path, change: Callable[[Image.Image], Image.Image], folder: Path) -> None:
    def read() -> list[Tensor]:
        frames, colours = load_endovis("data", "train"), load_colorization("data", "train")
        return [frames.images, frames.masks, colours.images, colours.grays]

    before = read()
    redrawn(path, change)()
    assert all(torch.equal(one, other) for one, other in zip(before, read(), strict=True))


def test_images_of_one_bit_or_one_channel_are_read(folder: Path) -> None:
    redrawn(MASK, lambda image: Image.new("1", image.size))()
    redrawn(FRAME, lambda image: image.convert("L"))()
    frames = load_endovis("data", "train")
    assert frames.masks[1].unique().tolist() == [0]
    assert torch.equal(frames.images[1], frames.images[1, :1].expand(3, -1, -1))


@pytest.mark.parametrize(
    ("command", "spoil", "environment"),
    [
        (RUN, lambda: None, {}),
        (RUN, lambda: None, {"HW6_CACHE": "/dev/null/cache"}),
        (RUN, lambda: None, {"HW6_CACHE": "0"}),
        (RUN, lambda: None, {"DETERMINISTIC": "yes", "SEEDS": "0,1", "ONLY": "vgg-frozen, vgg-frozen"}),
        (f"{RUN} --results r", record_text(lambda text: "half a rec"), {}),
        (f"{VGG} w.pth", weights(fitting_weights), {}),
        ("run --data data/endovis seg-baseline", lambda: None, {}),
        (f"{RUN} --shard 1/1", lambda: None, {}),
    ],
    ids=["nothing wrong", "cache that cannot be made", "no cache", "switches and lists",
         "damaged record that is made again", "weights that fit", "one set, which is enough", "one shard"],
)  # fmt: skip
def test_valid_input_is_trained(
    command: str, spoil: Act, environment: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    spoil()
    with pytest.raises(TrainingBeganError):
        main(shlex.split(command))
    assert not Path("0").exists()
