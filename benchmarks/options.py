"""The options of the suite, each declared once for the command line, the environment and the help, with its check.

The environment variables are those of the Makefile; an option on the command line takes precedence. Torch is only
imported to detect the device.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.errors import InfrastructureError
from benchmarks.machine.devices import CAPTURING, DEVICES, PRECISIONS, SIZED_FOR, default_device
from benchmarks.runs.plan import SYNTHETIC_FOLDER, Cluster, Plan
from benchmarks.suite import PROFILES, SEEDS, Profile, at_working_size, select, with_requirements
from hw6core.errors import DataError, UsageError
from hw6core.provenance import data_kind, is_synthetic

DEFAULT_DATA = Path("data")
SYNTHETIC = "synthetic"


class Option(NamedTuple):
    """An option, set by an environment variable or by the command line option of the same name in lower case.

    Attributes:
        help: one line; empty for options that are only environment variables.
        parse: converts text to a value, or lists the allowed words.
        expected: what the error message says was expected, where `parse` raises ValueError or KeyError.
        default: the value if the option is not given.
    """

    help: str
    parse: Callable[[str], Any] | tuple[str, ...]
    expected: str = ""
    default: Any = None


def _number(text: str, least: int = 1, most: int = 9_999) -> int:
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise ValueError
    return int(text)


def _seeds(text: str) -> tuple[int, ...]:
    seeds = tuple(_number(word, 0, 2**32 - 1) for word in _words(text))
    if len(set(seeds)) != len(seeds):
        raise UsageError(f"SEEDS is {shortened(text)!r}; expected each seed once")
    if not seeds:
        raise ValueError
    return seeds


def _seconds(minutes: str) -> float:
    if not 0 <= float(minutes) < math.inf:
        raise ValueError
    return float(minutes) * 60 or math.inf


def _size(text: str) -> tuple[int, int]:
    height, width = (_number(part, *_SIZES) for part in text.lower().split("x"))
    return height, width


def _ids(text: str) -> tuple[str, ...]:
    if not _words(text):
        raise ValueError
    return tuple(configuration.id for configuration in select(_words(text)))


def _results_folder(text: str) -> Path:
    """The folder, which need not exist yet."""
    folder = expand_path(text)
    around = (folder / "records", folder, *folder.parents)
    if file := next((path for path in around if path.exists() and not path.is_dir()), None):
        raise UsageError(f"RESULTS is {text!r}, but {file} is a file; expected a folder")
    return folder


def _weights_file(text: str) -> Path:
    path = expand_path(text)
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise DataError(
            f"VGG16_WEIGHTS: cannot read {path}; expected a state dict in torchvision's format; "
            "leave it unset to download the weights"
        )
    return path


def _existing(text: str) -> Path:
    path = expand_path(text)
    if not path.exists():
        raise DataError(f"AGAINST: no file or folder {path}; expected fingerprints; make one: make fingerprint")
    return path


def expand_path(text: str) -> Path:
    """Expand ``~``, which the shell does not do in ``--data=~/x``.

    Raises:
        UsageError: there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"unknown home folder in {shortened(text)!r}; use an absolute path") from error


def shortened(text: str) -> str:
    """The user's input, cut to a length that fits into an error message."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _switch(text: str) -> bool:
    words = {"0": False, "no": False, "off": False, "false": False, "1": True, "yes": True, "on": True, "true": True}
    return words[text.lower()]


_SIZES = 16, 2048  # the U-Net halves three times
_A_COUNT, _SOME_IDS = "a whole number from 1 to 9999", "ids of configurations (see: make list)"
_SOME_SEEDS = f"whole numbers from 0 to {2**32 - 1}, for instance '0 1 2'"
_PIXELS = f"height and width, each from {_SIZES[0]} to {_SIZES[1]} pixels, for instance 256x320"
_TIME = "the time limit of each run in minutes, or 0 for no limit"
OPTIONS: Mapping[str, Option] = {
    "ONLY": Option("configurations; default: all", _ids, _SOME_IDS, ()),
    "PROFILE": Option("full (the real task, for a GPU) or quick (a smaller version, for a CPU)", PROFILES),
    "DATA": Option("folder with endovis/ and fashion_mnist/, or 'synthetic'; default: data, else synthetic", str),
    "SEEDS": Option("for instance '0 1 2'; default: three in full, one in quick", _seeds, _SOME_SEEDS),
    "DEVICE": Option("cuda (also for ROCm), xpu, mps or cpu; default: the accelerator that torch sees", DEVICES),
    "RESULTS": Option("folder for records, table and figures; default: results/<profile>-<data>", _results_folder),
    "VGG16_WEIGHTS": Option(
        "file with VGG16's ImageNet weights; default: torchvision's; full downloads them", _weights_file
    ),
    "WORKING_SIZE": Option(
        "height x width of the U-Nets' frames in pixels; default: the configuration's", _size, _PIXELS
    ),
    "DETERMINISTIC": Option("1: bit-for-bit reproducible, slower; default 0: fast", _switch, "1 or 0", False),
    "PRECISION": Option(f"{', '.join(PRECISIONS)}; default: bfloat16 or float16 if native, else float32", PRECISIONS),
    # Off until `make gpu-check` has passed on one: a bug in the capture could make the suite call a sound GPU broken.
    "CUDA_GRAPHS": Option("1: capture training steps as CUDA graphs; needs a GPU; default 0", _switch, "1 or 0", False),
    "COMPILE": Option("1: torch.compile each network for training; default 0", _switch, "1 or 0", False),
    # Several times as long as the slowest run takes on a slow machine.
    "LIMIT": Option("time limit of each run in minutes; default 120, 0 for no limit", _seconds, _TIME, 120 * 60.0),
    "GPUS": Option("number of GPUs to use; default: all that are visible", _number, _A_COUNT),
    "WORKERS": Option("number of concurrent runs; default: one per GPU, one on the CPU", _number, _A_COUNT),
    "ENGINE": Option("local (default), or ray: run on a Ray cluster", ("local", "ray"), default="local"),
    "ADDRESS": Option("of the Ray cluster; default: auto, the one that this machine belongs to", str, default="auto"),
    "CPUS": Option("with --engine ray: CPUs per run; default 1", _number, _A_COUNT, 1),
    "ALLOW_NOT_RUN": Option("ids that may be 'not run', for instance without weights", _ids, _SOME_IDS, ()),
    "UNCLEAR": Option(
        "fail or pass if there are too few runs to tell whether they are worse; default: fail, in quick: pass",
        ("fail", "pass"),
    ),
    "FINGERPRINT": Option("", _switch, "1 or 0", False),  # whether `make benchmark` makes one first
    "EVERY_GPU": Option("", _switch, "1 or 0", False),  # all runs on each GPU; `run --every-gpu`
    "AGAINST": Option("", _existing),  # fingerprints to compare a new one with
    "STEPS": Option("", _number, _A_COUNT, 200),  # per training of `make determinism`
    "MOST_SEEDS": Option("", partial(_number, least=3), "a whole number from 3 to 9999", 10),  # per side of `upgrade`
    "MINUTES": Option("", _number, _A_COUNT, 20),  # time limit of `make gpu-check`
}


def add_options(parser: argparse.ArgumentParser, names: Iterable[str] = OPTIONS) -> None:
    """Add options to a command: ONLY as positional arguments, the others by name."""
    parser.add_argument("ONLY", nargs="*", metavar="ID", help=OPTIONS["ONLY"].help)
    for name in names:
        if OPTIONS[name].help and name != "ONLY":
            flag, text = f"--{name.lower().replace('_', '-')}", f"{OPTIONS[name].help} (variable: {name})"
            parser.add_argument(flag, dest=name, metavar=name, help=text)


def read_option(name: str, given: Mapping[str, Any]) -> Any:
    """The value of one option: from ``given``, else from the environment, else the default.

    Raises:
        UsageError: the value is not valid.
        DataError: it names a file that does not exist.
    """
    value = given.get(name) or os.environ.get(name) or ""
    text = (value if isinstance(value, str) else " ".join(value)).strip()
    option = OPTIONS[name]
    if not text:
        return option.default
    if isinstance(option.parse, tuple):
        if text not in option.parse:
            raise UsageError(f"unknown {name.lower()} {text!r}; expected {' or '.join(option.parse)}")
        return text
    try:
        return option.parse(text)
    except (ValueError, KeyError) as error:
        raise UsageError(f"{name} is {shortened(text)!r}; expected {option.expected}") from error


def read_options(given: Mapping[str, Any]) -> Plan:
    """Make a plan from ``given`` options by variable name, for instance ``{"PROFILE": "quick"}``, and the environment.

    Raises:
        UsageError: a value is not valid.
        DataError: the data is missing, for the full profile or in the given folder.
        InfrastructureError: there are fewer GPUs than requested.
    """
    value: Callable[[str], Any] = partial(read_option, given=given)
    device = value("DEVICE") or ("cuda" if value("PROFILE") == "full" else default_device())
    if value("CUDA_GRAPHS") and device not in CAPTURING:
        raise UsageError("CUDA_GRAPHS=1 requires a GPU; set CUDA_GRAPHS=0")
    profile: Profile = value("PROFILE") or ("full" if device in SIZED_FOR else "quick")
    data = _data_folder(value("DATA"), profile)
    size = value("WORKING_SIZE")
    only = [at_working_size(entry, size) for entry in select(value("ONLY"))]
    on_cluster = value("ENGINE") == "ray"
    if on_cluster and (value("GPUS") or value("WORKERS")) and not value("EVERY_GPU"):
        raise UsageError("ENGINE=ray starts as many runs as the cluster has room for; unset GPUS and WORKERS")
    gpus = 0 if on_cluster else _gpus(value("GPUS"), device)
    kind = SYNTHETIC if data == SYNTHETIC_FOLDER else data_kind(data)
    return Plan(
        configurations=[at_working_size(entry, size) for entry in with_requirements(only)],
        profile=profile,
        seeds=value("SEEDS") or SEEDS[profile],
        data=data,
        device=device,
        results=value("RESULTS")
        or _results_folder(f"results/{profile}-{kind}" + (f"-{size[0]}x{size[1]}" if size else "")),
        vgg16_weights=value("VGG16_WEIGHTS"),
        deterministic=value("DETERMINISTIC"),
        precision=value("PRECISION"),
        cuda_graphs=value("CUDA_GRAPHS"),
        compiled=value("COMPILE"),
        allow_not_run=value("ALLOW_NOT_RUN"),
        limit_s=value("LIMIT"),
        gpus=gpus,
        workers=value("WORKERS") or max(gpus, 1),
        cluster=Cluster(value("ADDRESS"), value("CPUS")) if on_cluster else None,
        selected=tuple(only),
        unclear_passes=_unclear_passes(value("UNCLEAR"), profile),
    )


def _unclear_passes(unclear: str | None, profile: str) -> bool:
    """By default "cannot tell" passes in the quick profile, whose single seed can hardly ever tell."""
    return unclear == "pass" if unclear else profile == "quick"


def read_recorded_options(given: Mapping[str, Any]) -> Plan:
    """Like `read_options`, for judging and reporting: given a results folder, neither device nor data is required.

    The profile is then that of the first record; judging checks the others against it. With or without a folder, the
    expected seeds are those of the profile and all that have a record.

    Raises:
        UsageError: as for `read_options`.
        DataError: the folder does not exist, or a record cannot be read.
    """
    value: Callable[[str], Any] = partial(read_option, given=given)
    results, profile = value("RESULTS"), value("PROFILE")
    if not results:
        planned = read_options(given)
        results, profile = planned.results, planned.profile
    from benchmarks.results.records import read_records

    only = tuple(at_working_size(entry, value("WORKING_SIZE")) for entry in select(value("ONLY")))
    runs = [(record.profile, record.configuration, record.seed) for record in read_records(results)]
    profile = profile or next((profile for profile, *_ in runs), PROFILES[0])
    recorded = {seed for _, name, seed in runs if name in {entry.id for entry in only}}
    seeds = value("SEEDS") or tuple(sorted({*SEEDS[profile], *recorded}))
    unclear = _unclear_passes(value("UNCLEAR"), profile)
    judged: dict[str, Any] = {"selected": only, "allow_not_run": value("ALLOW_NOT_RUN"), "unclear_passes": unclear}
    return Plan(only, profile, seeds, DEFAULT_DATA, "", results, **judged)


def _data_folder(text: str, profile: str) -> Path:
    if text == SYNTHETIC:
        if profile == "full":
            raise UsageError("the full profile requires real data; use PROFILE=quick with DATA=synthetic")
        return SYNTHETIC_FOLDER
    folder = expand_path(text) if text else DEFAULT_DATA
    if folder.is_dir() and (text or _has_both_sets(folder)):
        if profile == "full" and is_synthetic(folder):
            raise UsageError(f"the full profile requires real data, but {folder} is synthetic; use PROFILE=quick")
        return folder
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; expected a folder with endovis/ and fashion_mnist/: DATA=FOLDER")
    if text:
        raise DataError(f"no data folder {folder}; download the data", "fetch", folder)
    if profile == "full":
        raise DataError(f"the full profile requires real data in {folder}/; download it: make data, or set DATA=FOLDER")
    return SYNTHETIC_FOLDER


def _has_both_sets(folder: Path) -> bool:
    """Whether the default folder is complete: an interrupted download leaves one set, or none."""
    # Unlike pathlib, os.path returns False for a folder without permission to enter.
    return os.path.isfile(folder / "endovis" / "mapping.json") and os.path.isdir(folder / "fashion_mnist")  # noqa: PTH112, PTH113


def _gpus(count: int | None, device: str) -> int:
    """The number of GPUs to use: ``count``, or all that torch sees; 0 for other devices."""
    if device != "cuda":  # others do not support CUDA_VISIBLE_DEVICES
        if count:
            raise UsageError(f"GPUS is {count}, but the device is {device!r}; for concurrent runs set WORKERS={count}")
        return 0
    import torch

    visible = torch.cuda.device_count()
    if count and count > visible:
        raise InfrastructureError(f"GPUS is {count}, but torch sees only {visible}; check nvidia-smi, or lower GPUS")
    return count or visible
