"""The options of the suite, from the command line or the environment, checked once and shared by all that needs them.

The environment variables are those of the Makefile: PROFILE, DATA, SEEDS, DEVICE, ONLY, RESULTS, VGG16_WEIGHTS,
ALLOW_NOT_RUN, DETERMINISTIC, CUDA_GRAPHS, LIMIT, GPUS, WORKERS, ENGINE, ADDRESS, CPUS. An option on the command line
wins. Nothing here imports torch unless the device must be found out.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.errors import InfrastructureError
from benchmarks.machine.devices import DEVICES, default_device
from benchmarks.runs.plan import SYNTHETIC_FOLDER, Cluster, Plan
from benchmarks.suite import PROFILES, SEEDS, Configuration, select, with_requirements
from hw6core.errors import DataError, UsageError
from hw6core.provenance import data_kind, is_synthetic

DEFAULT_DATA = Path("data")
SYNTHETIC = "synthetic"
# Whether steps are recorded on a GPU unless CUDA_GRAPHS says otherwise. "1" as soon as `make gpu-check` has agreed on a
# GPU: until then a fault of the recording could make this suite call a sound machine broken.
_RECORDED = "0"
_DEFAULT_LIMIT_S = 120 * 60.0  # several times what the slowest run takes on a slow machine
ENGINES = ("local", "ray")


def read_options(given: Mapping[str, str | None], environment: Mapping[str, str] = os.environ) -> Plan:
    """Combine options by their variable names, for instance ``{"PROFILE": "quick"}``, with the environment's.

    Raises:
        UsageError: a value is not one of those possible.
        DataError: the full profile, or a folder that was named, has no data.
    """

    value = _reader(given, environment)
    device = value("DEVICE") or ("cuda" if value("PROFILE") == "full" else default_device())
    if device not in DEVICES:
        raise UsageError(f"unknown device {device!r}; expected {' or '.join(DEVICES)}")
    cuda_graphs = _switch("CUDA_GRAPHS", value("CUDA_GRAPHS") or (_RECORDED if device == "cuda" else "0"))
    if cuda_graphs and device != "cuda":
        raise UsageError("CUDA_GRAPHS=1 needs a GPU; leave it out")
    profile = value("PROFILE") or ("full" if device == "cuda" else "quick")
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}; expected {' or '.join(PROFILES)}")
    data = _data_folder(value("DATA"), profile)
    only, allowed = _configurations(value)
    engine = value("ENGINE") or "local"
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}; expected {' or '.join(ENGINES)}")
    cluster = Cluster(value("ADDRESS") or "auto", parse_count("CPUS", value("CPUS")) or 1)
    gpus = _gpus(parse_count("GPUS", value("GPUS")), device) if engine == "local" else 0
    kind = SYNTHETIC if data == SYNTHETIC_FOLDER else data_kind(data)
    return Plan(
        configurations=with_requirements(only),
        profile=profile,
        seeds=parse_seeds(value("SEEDS")) or SEEDS[profile],
        data=data,
        device=device,
        results=named_results(value("RESULTS") or f"results/{profile}-{kind}"),
        vgg16_weights=_existing_file(value("VGG16_WEIGHTS")),
        deterministic=_switch("DETERMINISTIC", value("DETERMINISTIC")),
        cuda_graphs=cuda_graphs,
        allow_not_run=allowed,
        limit_s=parse_limit_s(value("LIMIT")),
        gpus=gpus,
        workers=parse_count("WORKERS", value("WORKERS")) or max(gpus, 1),
        cluster=cluster if engine == "ray" else None,
        selected=only,
    )


def read_recorded_options(given: Mapping[str, str | None], environment: Mapping[str, str] = os.environ) -> Plan:
    """The same for judging and reporting: where a results folder is named, neither device nor data is looked for.

    The profile, and with it the seeds to expect, is then that of the first record; judging compares the others with it.

    Raises:
        UsageError: as for `read_options`.
        DataError: there is no such folder, or its first record cannot be read.
    """
    value = _reader(given, environment)
    if not value("RESULTS"):
        return read_options(given, environment)
    from benchmarks.results.records import iterate_records

    results = named_results(value("RESULTS"))
    profile = value("PROFILE") or next((record.profile for record in iterate_records(results)), "full")
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}; expected {' or '.join(PROFILES)}")
    only, allowed = _configurations(value)
    seeds = parse_seeds(value("SEEDS")) or SEEDS[profile]
    return Plan(only, profile, seeds, DEFAULT_DATA, "", results, selected=only, allow_not_run=allowed)


def _reader(given: Mapping[str, str | None], environment: Mapping[str, str]) -> Callable[[str], str]:
    return lambda name: (given.get(name) or environment.get(name) or "").strip()


def _configurations(value: Callable[[str], str]) -> tuple[tuple[Configuration, ...], tuple[str, ...]]:
    """Those asked for, and the ids of those that may be "not run"."""
    allowed = parse_ids("ALLOW_NOT_RUN", value("ALLOW_NOT_RUN"))
    tolerated = [configuration.id for configuration in select(allowed)] if allowed else []
    return tuple(select(parse_ids("ONLY", value("ONLY")))), tuple(tolerated)


def parse_ids(name: str, text: str) -> list[str]:
    """What a variable names; nothing if it is empty, which means every configuration where something must be meant.

    Raises:
        UsageError: it is not empty and names nothing.
    """
    words = split_words(text)
    if text and not words:
        raise UsageError(f"{name} is {text!r} and names nothing; expected ids of configurations, or leave it out")
    return words


def parse_seeds(text: str) -> tuple[int, ...]:
    """ "0 1 2" or "0,1,2" -> (0, 1, 2).

    Raises:
        UsageError: something is not a whole number from 0 on, or stands there twice.
    """
    words = split_words(text)
    if (text and not words) or not all(_is_seed(word) for word in words):
        raise UsageError(
            f"SEEDS is {shortened(text)!r}; expected whole numbers from 0 to {2**32 - 1}, for instance '0 1 2'"
        )
    seeds = tuple(int(word) for word in words)
    if len(set(seeds)) != len(seeds):
        raise UsageError(f"SEEDS is {shortened(text)!r}; a seed used twice is not a second measurement; name it once")
    return seeds


def _is_seed(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) <= 10 and int(word) < 2**32


def parse_count(name: str, text: str) -> int | None:
    """A number from 1 on; None for nothing.

    Raises:
        UsageError: it is something else.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 10_000):
        raise UsageError(f"{name} is {text!r}; expected a whole number from 1 on")
    return int(text)


def _gpus(count: int | None, device: str) -> int:
    """How many GPUs to use: so many, or all that torch sees; 0 on the CPU.

    Raises:
        UsageError: GPUs are asked for, and the device is not "cuda".
        InfrastructureError: there are fewer.
    """
    if device != "cuda":
        if count:
            raise UsageError(f"GPUS is {count}, and the device is {device!r}; on the CPU: WORKERS={count}")
        return 0
    import torch

    visible = torch.cuda.device_count()
    if count and count > visible:
        raise InfrastructureError(f"GPUS is {count}, and torch sees {visible}; check nvidia-smi, or ask for fewer")
    return count or visible


def parse_limit_s(text: str) -> float:
    """Minutes -> seconds; infinite for 0, the default for nothing.

    Raises:
        UsageError: it is no number of minutes.
    """
    if not text:
        return _DEFAULT_LIMIT_S
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 <= minutes < math.inf:
        raise UsageError(f"LIMIT is {text!r}; expected the minutes that one run may take, or 0 for no limit")
    return minutes * 60 if minutes else math.inf


def _switch(name: str, text: str) -> bool:
    if text.lower() in ("", "0", "no", "off", "false"):
        return False
    if text.lower() in ("1", "yes", "on", "true"):
        return True
    raise UsageError(f"{name} is {text!r}; expected 1 or 0")


def shortened(text: str) -> str:
    """What somebody typed, as much of it as fits into a sentence."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def split_words(text: str) -> list[str]:
    """Words apart by blanks or commas."""
    return text.replace(",", " ").split()


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
        command = f"python -m benchmarks data fetch --root {shlex.quote(text)}"
        raise DataError(f"no data folder {folder}; get it: {command}")
    if profile == "full":
        raise DataError(
            f"the full profile needs the real data in {folder}/; get it: make data (or name its folder: DATA=...)"
        )
    return SYNTHETIC_FOLDER


def _has_both_sets(folder: Path) -> bool:
    """Whether a folder that nobody named is worth using: a download that broke off leaves one set, or none."""
    # os.path's answer for a folder that may not be entered is no.
    return os.path.isfile(folder / "endovis" / "mapping.json") and os.path.isdir(folder / "fashion_mnist")  # noqa: PTH112, PTH113


def folder_named(text: str) -> Path:
    """A folder or file as somebody typed it: ``~`` is the home folder also where no shell saw it, as in ``--data=~/x``.

    Raises:
        UsageError: there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{shortened(text)!r} begins with a home folder that is not known; name it in full") from error


def named_results(text: str) -> Path:
    """The folder of that name, there or not.

    Raises:
        UsageError: it, its folder of records or one around it is a file.
    """
    folder = folder_named(text)
    taken = next(
        (path for path in (folder / "records", folder, *folder.parents) if path.exists() and not path.is_dir()), None
    )
    if taken is not None:
        raise UsageError(f"RESULTS is {text!r}, but {taken} is a file; expected a folder; name another")
    return folder


def _existing_file(text: str) -> Path | None:
    if not text:
        return None
    path = folder_named(text)
    if not path.is_file():
        raise DataError(
            f"no VGG16 weights at {path}; expected a state dict in torchvision's format; "
            "name one, or leave VGG16_WEIGHTS out"
        )
    return path
