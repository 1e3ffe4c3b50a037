"""A training resumes bit for bit: from every step, with all random states, and only from its own checkpoint."""

from __future__ import annotations

import math
import os
import random
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import interruption
from benchmarks.interruption import interruptible
from hw6core.checkpoint import Checkpoint, read_tensors
from hw6core.device import Precision
from hw6core.schedule import Schedule
from hw6core.seeding import seed_everything
from hw6core.training import Callback, Split, Task, Training, train

STEPS, EPOCHS = 3, 4  # of four samples each


class Noisy:
    """A task that uses all random number generators: its own, torch's (dropout), NumPy's and Python's."""

    monitor, maximise = "error", False

    def training_batch(self, inputs: Tensor, targets: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(inputs.shape, generator=draws) * 0.1
        return inputs + noise + float(np.random.rand()) * 0.01 + random.random() * 0.01, targets

    def evaluation_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs.float(), targets)

    def summary(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs

    def score(self, summaries: Tensor, targets: Tensor) -> Mapping[str, float]:
        error: Any = (summaries - targets).abs().mean()  # a tensor, as a task of a user may return
        return {"error": error}


class KilledError(Exception):
    """Simulates kill -9: nothing is written after it."""


class Killer(Callback):
    """Kills the training in a step, or after an epoch."""

    def __init__(self, step: int = -1, epoch: int = -1) -> None:
        self.left, self.after = step, epoch
        self.resumed: list[int] = []

    def on_resume(self, steps: int, seconds: float) -> None:
        self.resumed.append(steps)

    def on_step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError

    def on_epoch(self, entry: Mapping[str, float]) -> None:
        if entry["epoch"] == self.after:
            raise KilledError


def network() -> nn.Module:
    """Convolution, batch norm and dropout, in the layout of the real networks."""
    seed_everything(7)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 1)
    )
    return layers.to(memory_format=torch.channels_last)


def samples(count: int, seed: int) -> Split:
    draws = torch.Generator().manual_seed(seed)
    return Split(torch.randn(count, 3, 4, 4, generator=draws), torch.randn(count, 1, generator=draws))


def fit(
    model: nn.Module,
    checkpoint: Checkpoint | None,
    optimizer: Literal["adam", "sgd"] = "adam",
    patience: int | None = None,
    callback: Callback | None = None,
    task: Task | None = None,
    precision: Precision = "float32",
) -> Training:
    schedule = Schedule(EPOCHS, 4, 0.01, optimizer, patience=patience)
    data, options = (samples(4 * STEPS, 0), samples(5, 1)), {"checkpoint": checkpoint, "callback": callback}
    return train(model, task or Noisy(), *data, schedule, seed=3, precision=precision, **options)  # type: ignore[arg-type]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Makes the checkpoint as another process would; it is written at every step."""

    def make(**options: object) -> Checkpoint:
        return Checkpoint(tmp_path / "state.safetensors", **({"identity": "this", "share": math.inf} | options))  # type: ignore[arg-type]

    return make


def without_time(result: Training) -> list[dict[str, float]]:
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in result.history]


def assert_same(model: nn.Module, result: Training, expected_model: nn.Module, expected: Training) -> None:
    assert without_time(result) == without_time(expected)
    assert result.best_epoch == expected.best_epoch
    for name, value in expected_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("step", range(1, STEPS * EPOCHS + 1))
def test_killed_after_any_step_it_ends_with_the_same_bits(
    step: int, optimizer: Literal["adam", "sgd"], checkpoint: Callable[..., Checkpoint]
) -> None:
    whole = network()
    expected = fit(whole, None, optimizer)
    with pytest.raises(KilledError):
        fit(network(), checkpoint(), optimizer, callback=Killer(step))
    resumed, progress = network(), Killer()
    if step > 1:
        seed_everything(99)  # the random states of another process differ
    result = fit(resumed, checkpoint(), optimizer, callback=progress)
    assert_same(resumed, result, whole, expected)
    assert progress.resumed == ([step - 1] if step > 1 else [])  # the last step was not written
    assert result.interruptions == (step > 1)


class Steep(Noisy):
    """Has gradients that overflow in float16 until the scale has fallen to 1024, in the third epoch."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 5 * super().loss(outputs, targets)


@pytest.mark.parametrize("step", [2, 9])
def test_in_float16_the_gradient_scale_is_restored(step: int, checkpoint: Callable[..., Checkpoint]) -> None:
    whole, resumed = network(), network()
    expected = fit(whole, None, task=Steep(), precision="float16")
    with pytest.raises(KilledError):
        fit(network(), checkpoint(), callback=Killer(step), task=Steep(), precision="float16")
    assert_same(resumed, fit(resumed, checkpoint(), task=Steep(), precision="float16"), whole, expected)


@pytest.mark.parametrize("epoch", [1, 2, EPOCHS])
def test_killed_between_validation_and_writing(epoch: int, checkpoint: Callable[..., Checkpoint]) -> None:
    whole = network()
    expected = fit(whole, None)
    with pytest.raises(KilledError):
        fit(network(), checkpoint(), callback=Killer(epoch=epoch))
    resumed = network()
    assert_same(resumed, fit(resumed, checkpoint()), whole, expected)


@pytest.mark.parametrize("patience", [None, 1])
def test_a_finished_training_is_not_repeated(patience: int | None, checkpoint: Callable[..., Checkpoint]) -> None:
    whole, again, progress = network(), network(), Killer(step=1)
    expected = fit(whole, checkpoint(), patience=patience)
    after = torch.rand(3)
    result = fit(again, checkpoint(), patience=patience, callback=progress)
    assert_same(again, result, whole, expected)
    assert torch.equal(torch.rand(3), after)  # later random numbers are the same
    tensors, _ = read_tensors(checkpoint().path)
    assert {name.split(".")[0] for name in tensors} == {"best", "random"}  # nothing else is needed


@pytest.mark.parametrize("fault", ["other identity", "cut short", "bit flipped", "other program", "empty"])
def test_an_invalid_checkpoint_is_not_used(fault: str, checkpoint: Callable[..., Checkpoint]) -> None:
    whole = network()
    expected = fit(whole, None)
    with pytest.raises(KilledError):
        fit(network(), checkpoint(identity="another" if fault == "other identity" else "this"), callback=Killer(5))
    path = Path(checkpoint().path)
    content = bytearray(path.read_bytes())
    if fault == "cut short":
        path.write_bytes(content[:-100])
    elif fault == "bit flipped":
        content[-100] ^= 4
        path.write_bytes(content)
    elif fault in ("other program", "empty"):
        path.write_bytes(b"something else" if fault == "other program" else b"")
    fresh, progress = network(), Killer()
    assert_same(fresh, fit(fresh, checkpoint(), callback=progress), whole, expected)
    assert progress.resumed == []


def test_writing_takes_a_small_share_of_time(
    checkpoint: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("hw6core.checkpoint.time.monotonic", lambda: now[0])

    def write(*arguments: object) -> str:
        now[0] += 3.0
        return ""

    monkeypatch.setattr("hw6core.checkpoint.save_weights", write)
    kept = checkpoint(share=0.05)
    now[0] += 19.9
    assert not kept.due(500_000_000)  # assumed to take a second on an unknown disk
    now[0] += 0.1
    assert kept.due(500_000_000)
    kept.write({}, {})
    now[0] += 59.9
    assert not kept.due(500_000_000)  # it took three
    now[0] += 0.1
    assert kept.due(500_000_000)


def test_a_training_survives_a_full_disk(
    checkpoint: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hw6core.checkpoint.save_weights", full)
    whole = network()
    expected = fit(whole, None)
    model = network()
    with pytest.warns(UserWarning, match="cannot write the checkpoint .*No space left on device") as found:
        assert_same(model, fit(model, checkpoint()), whole, expected)
    assert len(found) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, STEPS, STEPS + 2])
def test_after_a_signal_the_step_ends_and_the_state_is_written(
    number: signal.Signals, step: int, checkpoint: Callable[..., Checkpoint]
) -> None:
    class Sender(Killer):
        def on_step(self) -> None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), number)

        def should_stop(self) -> bool:
            return interruption.requested()

    whole = network()
    expected = fit(whole, None)
    with interruptible(), pytest.raises(KeyboardInterrupt), interruption.deferred():
        fit(network(), checkpoint(share=0.0), callback=Sender(step))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    resumed, progress = network(), Killer()
    assert_same(resumed, fit(resumed, checkpoint(), callback=progress), whole, expected)
    assert progress.resumed == [step]


def test_a_second_signal_and_any_outside_a_training_are_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with interruptible():
        with pytest.raises(KeyboardInterrupt), interruption.deferred():  # noqa: PT012  (where it raises is the point)
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption.requested()
            os.kill(os.getpid(), signal.SIGTERM)  # from a parent process, together with the first
            monkeypatch.setattr(interruption, "_TOGETHER_S", 0.0)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("the second signal was deferred")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
