"""The options of the suite, from the command line or the environment, checked once and shared by all that needs them.

The environment variables are those of the Makefile: PROFILE, DATA, SEEDS, DEVICE, ONLY, RESULTS, VGG16_WEIGHTS,
ALLOW_NOT_RUN, DETERMINISTIC, CUDA_GRAPHS. An option on the command line wins. Nothing here imports torch unless the
device must be found out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.records import iterate_records
from benchmarks.suite import PROFILES, SEEDS, Configuration, Profile, select
from hw6core.errors import DataError, InfrastructureError, UsageError

DEFAULT_DATA = Path("data")
SYNTHETIC = "synthetic"
SIGNS_OF_A_GPU = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0"))
SYNTHETIC_FOLDER = Path(".cache") / "synthetic"


@dataclass(frozen=True)
class Options:
    """What a person asked for, with every default filled in.

    Attributes:
        data: a folder; None asks for synthetic data.
        deterministic: bitwise repeatability instead of speed.
        cuda_graphs: record each training step once and replay it.
        only: the configurations named, or all.
        allow_not_run: ids that may be "not run" without failing the suite.
    """

    profile: Profile
    data: Path | None
    seeds: tuple[int, ...]
    device: str
    only: tuple[Configuration, ...]
    results: Path
    vgg16_weights: Path | None
    deterministic: bool
    cuda_graphs: bool
    allow_not_run: tuple[str, ...]


def read_options(given: Mapping[str, str | None], environment: Mapping[str, str] = os.environ) -> Options:
    """Combine options by their variable names, for instance ``{"PROFILE": "quick"}``, with the environment's.

    Raises:
        UsageError: a value is not one of those possible.
        DataError: the full profile, or a folder that was named, has no data.
    """

    value = _reader(given, environment)
    device = value("DEVICE") or ("cuda" if value("PROFILE") == "full" else default_device())
    profile = value("PROFILE") or ("full" if device == "cuda" else "quick")
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}; expected {' or '.join(PROFILES)}")
    data = _data_folder(value("DATA"), profile)
    only, allowed = _configurations(value)
    kind = SYNTHETIC if data is None or _is_drawn(data) else "real"
    return Options(
        profile=profile,
        data=data,
        seeds=parse_seeds(value("SEEDS")) or SEEDS[profile],
        device=device,
        only=only,
        results=Path(value("RESULTS") or Path("results") / f"{profile}-{kind}"),
        vgg16_weights=_existing_file(value("VGG16_WEIGHTS")),
        deterministic=_switch("DETERMINISTIC", value("DETERMINISTIC")),
        cuda_graphs=_switch("CUDA_GRAPHS", value("CUDA_GRAPHS")),
        allow_not_run=allowed,
    )


def read_recorded_options(given: Mapping[str, str | None], environment: Mapping[str, str] = os.environ) -> Options:
    """The same for judging and reporting: where a results folder is named, neither device nor data is looked for.

    The profile, and with it the seeds to expect, is then that of the first record; judging compares the others with it.

    Raises:
        UsageError: as for `read_options`.
        DataError: there is no such folder, or its first record cannot be read.
    """
    value = _reader(given, environment)
    if not value("RESULTS"):
        return read_options(given, environment)
    results = Path(value("RESULTS"))
    profile = value("PROFILE") or next((record.profile for record in iterate_records(results)), "full")
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}; expected {' or '.join(PROFILES)}")
    only, allowed = _configurations(value)
    seeds = parse_seeds(value("SEEDS")) or SEEDS[profile]
    return Options(profile, None, seeds, "", only, results, None, False, False, allowed)


def _reader(given: Mapping[str, str | None], environment: Mapping[str, str]) -> Callable[[str], str]:
    return lambda name: (given.get(name) or environment.get(name) or "").strip()


def _configurations(value: Callable[[str], str]) -> tuple[tuple[Configuration, ...], tuple[str, ...]]:
    """Those asked for, and the ids of those that may be "not run"."""
    allowed = split_words(value("ALLOW_NOT_RUN"))
    tolerated = [configuration.id for configuration in select(allowed)] if allowed else []
    return tuple(select(split_words(value("ONLY")))), tuple(tolerated)


def default_device() -> str:
    """The GPU where torch sees one, the CPU where there is none: "cuda" or "cpu".

    Raises:
        InfrastructureError: the system has an NVIDIA GPU that torch cannot use. Training on the CPU instead would let
            a broken driver or image pass.
    """
    import torch

    if torch.cuda.is_available():
        return "cuda"
    found = next((path for path in SIGNS_OF_A_GPU if path.exists()), None)
    if found is not None:
        raise InfrastructureError(
            f"this machine has an NVIDIA GPU ({found}), but torch {torch.__version__} cannot use it; "
            "check nvidia-smi and the driver's version, or leave the GPU out: DEVICE=cpu"
        )
    return "cpu"


def parse_seeds(text: str) -> tuple[int, ...]:
    """ "0 1 2" or "0,1,2" -> (0, 1, 2).

    Raises:
        UsageError: something is not a whole number from 0 on, or stands there twice.
    """
    words = split_words(text)
    if not all(word.isascii() and word.isdecimal() and int(word) < 2**32 for word in words):
        raise UsageError(f"SEEDS is {text!r}; expected whole numbers from 0 on, for instance '0 1 2'")
    seeds = tuple(int(word) for word in words)
    if len(set(seeds)) != len(seeds):
        raise UsageError(f"SEEDS is {text!r}; a seed used twice is not a second measurement")
    return seeds


def _switch(name: str, text: str) -> bool:
    if text.lower() in ("", "0", "no", "off", "false"):
        return False
    if text.lower() in ("1", "yes", "on", "true"):
        return True
    raise UsageError(f"{name} is {text!r}; expected 1 or 0")


def split_words(text: str) -> list[str]:
    """Words apart by blanks or commas."""
    return text.replace(",", " ").split()


def _data_folder(text: str, profile: str) -> Path | None:
    if text == SYNTHETIC:
        if profile == "full":
            raise UsageError("the full profile is about real data; use PROFILE=quick with DATA=synthetic")
        return None
    folder = Path(text) if text else DEFAULT_DATA
    if folder.is_dir() and (text or _has_both_sets(folder)):
        if profile == "full" and _is_drawn(folder):
            raise UsageError(f"the full profile is about real data, and {folder} is drawn; use PROFILE=quick")
        return folder
    if text:
        raise DataError(f"no data folder {folder}; get it: python -m benchmarks data fetch --root {folder}")
    if profile == "full":
        raise DataError(
            f"the full profile needs the real data in {folder}/; get it: make data (or name its folder: DATA=...)"
        )
    return None


def _is_drawn(folder: Path) -> bool:
    return (folder / "SYNTHETIC.json").is_file()  # hw6core.data.synthetic.MARKER, without loading torch


def _has_both_sets(folder: Path) -> bool:
    """Whether a folder that nobody named is worth using: a download that broke off leaves one set, or none."""
    return (folder / "endovis" / "mapping.json").is_file() and (folder / "fashion_mnist").is_dir()


def _existing_file(text: str) -> Path | None:
    if not text:
        return None
    path = Path(text)
    if not path.is_file():
        raise DataError(f"no VGG16 weights at {path}; expected a state dict in torchvision's format")
    return path
