"""The seed decides every draw."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from hw6core.seeding import make_generator, seed_everything, set_deterministic


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_the_seed_decides_the_draws_of_python_numpy_and_torch(seed: int) -> None:
    seed_everything(seed)
    first = draws()
    seed_everything(seed)
    assert draws() == first
    seed_everything(seed ^ 1)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_an_error(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed is {seed}; expected 0 to 4294967295"):
        seed_everything(seed)


@pytest.mark.parametrize("seed", [0, 1, 5, 2**32 - 1])
def test_the_generator_does_not_repeat_the_numbers_of_torchs_default_generator(seed: int) -> None:
    """That one is used for dropout and initial weights, on which augmentation and order must not depend."""
    drawn = torch.rand(8, generator=make_generator(seed, torch.device("cpu")))
    for other in {seed, 0, 1, 2, 3, 4, 5}:
        seed_everything(other)
        assert not torch.isin(drawn, torch.rand(1000)).any()


@pytest.fixture
def fast_again() -> Iterator[None]:
    yield
    set_deterministic(False)


@pytest.mark.usefixtures("fast_again")
def test_deterministic_mode_can_be_switched_on_and_off() -> None:
    set_deterministic(True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (False, True)
    set_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (True, False)
