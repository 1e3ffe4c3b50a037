"""The run key: everything that decides what a run computes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

import msgspec

from benchmarks.results.records import Record
from benchmarks.suite import Configuration

# A record is only reused if these parts of its environment are the same.
DECISIVE = (
    "device",
    "device_name",
    "gpu_uuid",
    "driver",
    "precision",
    "mode",
    "system",
    "python",
    "torch",
    "torchvision",
    "cuda",
    "cudnn",
    "packages",
    "source",
    "image",  # a rebuilt one may have the same packages
)


@dataclass(frozen=True)
class RunKey:
    """Two runs with the same key compute the same, as far as the device is deterministic."""

    configuration: str
    seed: int
    profile: str
    settings: Mapping[str, Any]  # the configuration's numbers under the profile, on this kind of data
    data: Mapping[str, Any]  # kind, fingerprint and sizes
    environment: Mapping[str, Any]  # the fields in `DECISIVE`
    started_from: Mapping[str, str]  # a digest of the record of each required run
    base_weights: str | None  # the label of the pre-trained VGG16 weights; None for a run that uses none

    @staticmethod
    def of_record(record: Record, configuration: Configuration) -> RunKey:
        """The key that a record was made under."""
        return RunKey(
            record.configuration,
            record.seed,
            record.profile,
            record.settings,
            msgspec.to_builtins(record.data),
            deciding(msgspec.to_builtins(record.environment)),
            record.details.started_from or {},
            record.weights.rpartition(" against ")[2] if configuration.uses_base_weights else None,
        )

    def on_any_gpu(self) -> RunKey:
        """The key without the GPU's UUID: a scheduler or cluster may provide another GPU of the same kind."""
        return replace(self, environment={**self.environment, "gpu_uuid": None})

    def digest(self) -> str:
        """A digest for the run's checkpoints, from which another GPU of the same kind may resume."""
        return sha256(json.dumps(asdict(self.on_any_gpu()), sort_keys=True, default=str).encode()).hexdigest()


def deciding(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an environment that decide what a run computes."""
    return {name: environment.get(name) for name in DECISIVE}
