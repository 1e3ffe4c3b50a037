"""How much is accepted from elsewhere, and how long it is waited for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How long to wait, how often to try again, and how much to accept."""

    timeout_s: float = 30.0  # without a byte, or with fewer than the least
    least_bytes_per_s: int = 1000
    git_timeout_s: float = 1800.0
    attempts: int = 4
    backoff_s: float = 1.0  # doubles with each attempt
    download_bytes: int = 1 << 30
    unpacked_bytes: int = 2 << 30
    members: int = 100_000  # files and folders


DEFAULT_LIMITS = Limits()
