"""One number decides every draw."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from hw6core.seeding import generator, seed_everything, set_deterministic


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_same_seed_gives_the_same_draws_everywhere(seed: int) -> None:
    seed_everything(seed)
    first = draws()
    seed_everything(seed)

    assert draws() == first


def test_other_seeds_give_other_draws() -> None:
    seed_everything(0)
    first = draws()
    seed_everything(1)

    assert all(a != b for a, b in zip(draws(), first, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed is {seed}; expected 0 to 4294967295"):
        seed_everything(seed)


def test_generator_is_a_stream_of_its_own() -> None:
    first = torch.rand(3, generator=generator(5, torch.device("cpu")))
    torch.manual_seed(0)
    stream = generator(5, torch.device("cpu"))
    torch.rand(7)

    assert torch.equal(torch.rand(3, generator=stream), first)


@pytest.fixture
def fast_again() -> Iterator[None]:
    yield
    set_deterministic(False)


def test_deterministic_mode_can_be_chosen_and_left(fast_again: None) -> None:
    set_deterministic(True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (False, True)
    set_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (True, False)
