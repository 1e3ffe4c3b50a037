"""The options of the suite, each declared once: for the command line, the environment, the help, and with its check.

The environment variables are those of the Makefile; an option on the command line wins. Nothing here imports torch
unless the device must be found out.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.errors import InfrastructureError
from benchmarks.machine.devices import DEVICES, PRECISIONS, RECORDING, SIZED_FOR, default_device
from benchmarks.runs.plan import SYNTHETIC_FOLDER, Cluster, Plan
from benchmarks.suite import PROFILES, SEEDS, Configuration, Profile, at_working_size, select, with_requirements
from hw6core.errors import DataError, UsageError
from hw6core.provenance import data_kind, is_synthetic

DEFAULT_DATA = Path("data")
SYNTHETIC = "synthetic"
# Whether steps are recorded on a GPU unless CUDA_GRAPHS says otherwise. True as soon as `make gpu-check` has agreed on
# a GPU: until then a fault of the recording could make this suite call a sound machine broken.
_RECORDED = False


class Option(NamedTuple):
    """What the suite can be told: by a variable, or on the command line by its name in small letters.

    Attributes:
        help: one line; empty for what only the environment tells.
        parse: what somebody typed -> value, or one of the words that are possible.
        expected: ends the sentence about a text that `parse` has a ValueError or KeyError for.
        default: the value if nothing was said.
    """

    help: str
    parse: Callable[[str], Any] | tuple[str, ...]
    expected: str = ""
    default: Any = None


def _number(text: str, least: int = 1, beyond: int = 10_000) -> int:
    if not (text.isascii() and text.isdecimal() and least <= int(text) < beyond):
        raise ValueError
    return int(text)


def _seeds(text: str) -> tuple[int, ...]:
    seeds = tuple(_number(word, 0, 2**32) for word in _words(text))
    if len(set(seeds)) != len(seeds):
        raise UsageError(f"SEEDS is {shortened(text)!r}; a seed used twice is not a second measurement; name it once")
    if not seeds:
        raise ValueError
    return seeds


def _seconds(minutes: str) -> float:
    if not 0 <= float(minutes) < math.inf:
        raise ValueError
    return float(minutes) * 60 or math.inf


def _size(text: str) -> tuple[int, int]:
    height, width = (_number(part, _LEAST_SIZE, 2049) for part in text.lower().split("x"))
    return height, width


def _ids(text: str) -> tuple[str, ...]:
    if not _words(text):
        raise ValueError
    return tuple(configuration.id for configuration in select(_words(text)))


def _results_folder(text: str) -> Path:
    """There or not."""
    folder = folder_named(text)
    around = (folder / "records", folder, *folder.parents)
    if taken := next((path for path in around if path.exists() and not path.is_dir()), None):
        raise UsageError(f"RESULTS is {text!r}, but {taken} is a file; expected a folder; name another")
    return folder


def _weights_file(text: str) -> Path:
    path = folder_named(text)
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise DataError(
            f"no VGG16 weights that can be read at {path}; expected a state dict in torchvision's format; "
            "name one, or leave VGG16_WEIGHTS out"
        )
    return path


def _existing(text: str) -> Path:
    path = folder_named(text)
    if not path.exists():
        raise DataError(f"no file or folder {path}; AGAINST names fingerprints, as `make fingerprint` makes them")
    return path


def folder_named(text: str) -> Path:
    """A folder or file as somebody typed it: ``~`` is the home folder also where no shell saw it, as in ``--data=~/x``.

    Raises:
        UsageError: there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{shortened(text)!r} begins with a home folder that is not known; name it in full") from error


def shortened(text: str) -> str:
    """What somebody typed, as much of it as fits into a sentence."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


_SWITCH = dict.fromkeys(("0", "no", "off", "false"), False) | dict.fromkeys(("1", "yes", "on", "true"), True)


def _switch(text: str) -> bool:
    return _SWITCH[text.lower()]


_LEAST_SIZE = 16  # the U-Net halves three times
_A_COUNT, _SOME_IDS = "a whole number from 1 on", "ids of configurations, or leave it out"
OPTIONS: Mapping[str, Option] = {
    "ONLY": Option("configurations; default: all", _ids, _SOME_IDS, ()),
    "PROFILE": Option("full (the real task, for a GPU) or quick (the same on less, for a CPU)", PROFILES),
    "DATA": Option("folder with endovis/ and fashion_mnist/, or 'synthetic'; default: data, else synthetic", str),
    "SEEDS": Option(
        "for instance '0 1 2'; default: three in full, one in quick",
        _seeds,
        f"whole numbers from 0 to {2**32 - 1}, for instance '0 1 2'",
    ),
    "DEVICE": Option("cuda (ROCm's as well), xpu, mps or cpu; default: the accelerator that torch sees", DEVICES),
    "RESULTS": Option("folder for records, table and figures; default: results/<profile>-<data>", _results_folder),
    "VGG16_WEIGHTS": Option(
        "ImageNet weights of VGG16 in torchvision's format, instead of its download", _weights_file
    ),
    "WORKING_SIZE": Option(
        "height x width of the U-Nets' frames, for instance 256x320; default: the suite's own",
        _size,
        f"height and width in pixels, {_LEAST_SIZE} at least, for instance 256x320",
    ),
    "DETERMINISTIC": Option(
        "1: the same bits every time, slower; default 0: as fast as can be", _switch, "1 or 0", False
    ),
    "PRECISION": Option(
        f"{', '.join(PRECISIONS)}; default: bfloat16 or float16 where native, else float32", PRECISIONS
    ),
    "CUDA_GRAPHS": Option("1: record each training step once and replay it; needs a GPU; default 0", _switch, "1 or 0"),
    "COMPILE": Option("1: torch.compile each network for its training; default 0", _switch, "1 or 0", False),
    "LIMIT": Option(
        "minutes that one run may take; default 120, 0 for no limit",
        _seconds,
        "the minutes that one run may take, or 0 for no limit",
        120 * 60.0,  # several times what the slowest run takes on a slow machine
    ),
    "GPUS": Option("over how many GPUs the runs are spread; default: all that are visible", _number, _A_COUNT),
    "WORKERS": Option(
        "how many runs are carried out at once; default: one for each GPU, one on the CPU", _number, _A_COUNT
    ),
    "ENGINE": Option("local (default), or ray: a cluster carries out the runs", ("local", "ray"), default="local"),
    "ADDRESS": Option(
        "with --engine ray: its head; default: auto, the cluster that this machine belongs to", str, default="auto"
    ),
    "CPUS": Option("with --engine ray: processors that each run takes; default 1", _number, _A_COUNT, 1),
    "ALLOW_NOT_RUN": Option(
        "ids that may be 'not run' (no weights at hand) without failing the suite", _ids, _SOME_IDS, ()
    ),
    "UNCLEAR": Option(
        "fail or pass, where so few runs cannot tell whether they are worse; default: fail, but pass in quick",
        ("fail", "pass"),
    ),
    "FINGERPRINT": Option("", _switch, "1 or 0", False),  # whether `make benchmark` begins with one
    "EVERY_GPU": Option("", _switch, "1 or 0", False),  # whether each GPU carries out all runs; `run --every-gpu`
    "AGAINST": Option("", _existing),  # the fingerprints that a new one is compared with
    "STEPS": Option("", _number, _A_COUNT, 200),  # of each training of `make determinism`
    "MOST_SEEDS": Option("", partial(_number, least=3), "a whole number from 3 on", 10),  # a side, of `upgrade`
    "MINUTES": Option("", _number, _A_COUNT, 20),  # that `make gpu-check` may take
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command an argument for each option: the ids of ONLY as they stand, all others by name."""
    parser.add_argument("ONLY", nargs="*", metavar="ID", help=OPTIONS["ONLY"].help)
    for variable, option in OPTIONS.items():
        if option.help and variable != "ONLY":
            flag, text = f"--{variable.lower().replace('_', '-')}", f"{option.help} (or the variable {variable})"
            parser.add_argument(flag, dest=variable, metavar=variable, help=text)


def read_option(name: str, given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Any:
    """The value of one option: what was given by its variable's name, else the environment's, else the default.

    Raises:
        UsageError: it is not one of those possible.
        DataError: it names a file that is not there.
    """
    said = given.get(name) or environment.get(name) or ""
    text = (said if isinstance(said, str) else " ".join(said)).strip()
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
        empty = "" if _words(text) else " and names nothing"
        raise UsageError(f"{name} is {shortened(text)!r}{empty}; expected {option.expected}") from error


def read_options(given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Plan:
    """Combine options by their variables' names, for instance ``{"PROFILE": "quick"}``, with the environment's.

    Raises:
        UsageError: a value is not one of those possible.
        DataError: the full profile, or a folder that was named, has no data.
        InfrastructureError: the GPUs asked for are not there.
    """
    value: Callable[[str], Any] = partial(read_option, given=given, environment=environment)
    device = value("DEVICE") or ("cuda" if value("PROFILE") == "full" else default_device())
    cuda_graphs = value("CUDA_GRAPHS")
    if cuda_graphs and device not in RECORDING:
        raise UsageError("CUDA_GRAPHS=1 needs a GPU; leave it out")
    profile: Profile = value("PROFILE") or ("full" if device in SIZED_FOR else "quick")
    data = _data_folder(value("DATA"), profile)
    only, size = select(value("ONLY")), value("WORKING_SIZE")
    on_cluster = value("ENGINE") == "ray"
    gpus = 0 if on_cluster else _gpus(value("GPUS"), device)
    kind = SYNTHETIC if data == SYNTHETIC_FOLDER else data_kind(data)
    return Plan(
        configurations=_resized(with_requirements(only), size),
        profile=profile,
        seeds=value("SEEDS") or SEEDS[profile],
        data=data,
        device=device,
        results=value("RESULTS")
        or _results_folder(f"results/{profile}-{kind}" + (f"-{size[0]}x{size[1]}" if size else "")),
        vgg16_weights=value("VGG16_WEIGHTS"),
        deterministic=value("DETERMINISTIC"),
        precision=value("PRECISION"),
        cuda_graphs=_RECORDED and device in RECORDING if cuda_graphs is None else cuda_graphs,
        compiled=value("COMPILE"),
        allow_not_run=value("ALLOW_NOT_RUN"),
        limit_s=value("LIMIT"),
        gpus=gpus,
        workers=value("WORKERS") or max(gpus, 1),
        cluster=Cluster(value("ADDRESS"), value("CPUS")) if on_cluster else None,
        selected=tuple(_resized(only, size)),
        unclear_passes=_unclear_passes(value("UNCLEAR"), profile),
    )


def _resized(configurations: Sequence[Configuration], size: tuple[int, int] | None) -> Sequence[Configuration]:
    return [at_working_size(entry, size) for entry in configurations] if size else configurations


def _unclear_passes(said: str | None, profile: str) -> bool:
    """One seed of a trial can hardly ever tell: that is shown and fails nobody who did not ask for it."""
    return said == "pass" if said else profile == "quick"


def read_recorded_options(given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Plan:
    """The same for judging and reporting: where a results folder is named, neither device nor data is looked for.

    The profile, and with it the seeds to expect, is then that of the first record; judging compares the others with it.

    Raises:
        UsageError: as for `read_options`.
        DataError: there is no such folder, or its first record cannot be read.
    """
    value: Callable[[str], Any] = partial(read_option, given=given, environment=environment)
    results = value("RESULTS")
    if not results:
        return read_options(given, environment)
    from benchmarks.results.records import iterate_records

    profile = value("PROFILE") or next((record.profile for record in iterate_records(results)), PROFILES[0])
    only = tuple(_resized(select(value("ONLY")), value("WORKING_SIZE")))
    seeds = value("SEEDS") or SEEDS[profile]
    return Plan(
        only,
        profile,
        seeds,
        DEFAULT_DATA,
        "",
        results,
        selected=only,
        allow_not_run=value("ALLOW_NOT_RUN"),
        unclear_passes=_unclear_passes(value("UNCLEAR"), profile),
    )


def _data_folder(text: str, profile: str) -> Path:
    if text == SYNTHETIC:
        if profile == "full":
            raise UsageError("the full profile is about real data; use PROFILE=quick with DATA=synthetic")
        return SYNTHETIC_FOLDER
    folder = folder_named(text) if text else DEFAULT_DATA
    if folder.is_dir() and (text or _has_both_sets(folder)):
        if profile == "full" and is_synthetic(folder):
            raise UsageError(f"the full profile is about real data, and {folder} is drawn; use PROFILE=quick")
        return folder
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; expected a folder with endovis/ and fashion_mnist/; name it: DATA=...")
    if text:
        raise DataError(f"no data folder {folder}; get it", "fetch", folder)
    if profile == "full":
        raise DataError(
            f"the full profile needs the real data in {folder}/; get it: make data (or name its folder: DATA=...)"
        )
    return SYNTHETIC_FOLDER


def _has_both_sets(folder: Path) -> bool:
    """Whether a folder that nobody named is worth using: a download that broke off leaves one set, or none."""
    # os.path's answer for a folder that may not be entered is no.
    return os.path.isfile(folder / "endovis" / "mapping.json") and os.path.isdir(folder / "fashion_mnist")  # noqa: PTH112, PTH113


def _gpus(count: int | None, device: str) -> int:
    """Over how many GPUs runs are spread: so many, or all that torch sees; 0 where that is not done."""
    if device != "cuda":  # others know no CUDA_VISIBLE_DEVICES
        if count:
            raise UsageError(f"GPUS is {count}, and the device is {device!r}; several runs at once: WORKERS={count}")
        return 0
    import torch

    visible = torch.cuda.device_count()
    if count and count > visible:
        raise InfrastructureError(f"GPUS is {count}, and torch sees {visible}; check nvidia-smi, or ask for fewer")
    return count or visible
