"""float16 with its gradient scaler, what a device trains in, and networks that go through torch.compile."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from statistics import fmean, stdev
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from benchmarks.machine.devices import PRECISIONS, choose_precision
from hw6core import steps, tasks
from hw6core.checkpoint import Checkpoint
from hw6core.device import Precision, default_precision, precisions
from hw6core.errors import TrainingDivergedError, UsageError
from hw6core.losses import DiceLoss
from hw6core.schedule import Schedule, make_optimizer
from hw6core.steps import TrainingStep
from hw6core.training import train
from tests.hw6core.test_fast_path import frames
from tests.hw6core.test_train import Regression, samples, schedule
from tests.runs import test_resume as resume


def product(outputs: Tensor, targets: Tensor) -> Tensor:
    """Its gradient is the mean of the targets' products with the inputs."""
    return (outputs.float() * targets).mean()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("bad", [0, 2])
def test_a_step_whose_gradient_overflows_is_skipped_and_halves_the_scale(optimizer: str, bad: int) -> None:
    """Afterwards all is as if that step had never been asked for: weights, moments, Adam's count of steps."""
    ones, plan, found = torch.ones(4, 3), Schedule(1, 4, 0.125, optimizer), []  # type: ignore[arg-type]
    for skipped in ((bad,), ()):
        torch.manual_seed(0)
        layer = nn.Linear(3, 1)
        step = TrainingStep(layer, product, make_optimizer(layer, plan, scaled=True), "float16", accumulation_steps=2)
        for number in range(3 + len(skipped)):
            before = layer.weight.detach().clone()
            loss = step(ones, torch.full((4, 1), 3e4 if number in skipped else 0.5))
            assert math.isfinite(loss), "a step that is skipped is no divergence"
            assert torch.equal(before, layer.weight) is (number in skipped)
        assert step.scaler.get_scale() == (32768.0 if skipped else 65536.0)
        found.append([*layer.parameters(), *(v for s in step.optimizer.state.values() for v in s.values())])
    for with_it, without in zip(*found, strict=True):
        torch.testing.assert_close(with_it, without, rtol=1e-6, atol=0)


def test_float16_learns_what_float32_learns_within_the_noise_of_seeds() -> None:
    """Which of four classes a pixel is, by its red: convolutions, batch norm and the Dice loss."""
    task, data = tasks.SegmentationTask(4, DiceLoss(1.0, "batch"), None, 0), frames(8)
    scores: dict[Precision, list[float]] = {"float32": [], "float16": []}
    for precision, reached in scores.items():
        for seed in range(4):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.LeakyReLU(), nn.Conv2d(8, 4, 1))
            result = train(model, task, data, data, Schedule(20, 4, 0.1), seed=seed, precision=precision)
            reached.append(max(entry[task.monitor] for entry in result.history))
    assert min(scores["float16"]) > 0.7
    assert abs(fmean(scores["float16"]) - fmean(scores["float32"])) < 2 * stdev(scores["float32"])


class Steep(resume.Noisy):
    """Its gradients are too large for float16 until the scale has fallen to 1024, in the third epoch."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 5 * super().loss(outputs, targets)


@pytest.mark.parametrize("step", [2, 9])
def test_a_training_in_float16_goes_on_with_the_same_bits_and_the_same_scale(step: int, tmp_path: Path) -> None:
    def fit(model: nn.Module, checkpoint: Checkpoint | None, killer: resume.Killer | None = None) -> resume.Training:
        data, plan = (resume.samples(12, 0), resume.samples(5, 1)), Schedule(4, 4, 0.01)
        return train(model, Steep(), *data, plan, seed=3, precision="float16", checkpoint=checkpoint, callback=killer)

    kept = Checkpoint(tmp_path / "state.safetensors", "this", share=math.inf)
    whole, resumed = resume.network(), resume.network()
    expected = fit(whole, None)
    with pytest.raises(resume.KilledError):
        fit(resume.network(), kept, resume.Killer(step))
    resume.assert_same(resumed, fit(resumed, kept), whole, expected)


def test_gradients_that_no_scale_helps_are_a_divergence_though_every_loss_is_finite() -> None:
    class Root(Regression):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return (0 * outputs.float()).sqrt().mean()  # 0 times infinity, backward

    with pytest.raises(TrainingDivergedError, match=r"until float16's scale had fallen to .* \(epoch 2\)"):
        train(nn.Linear(2, 1), Root(), samples(64), samples(5), schedule(), seed=0, precision="float16")


@pytest.mark.parametrize(
    ("capability", "expected"), [((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16")]
)
def test_a_gpu_trains_in_what_its_tensor_cores_multiply(
    capability: tuple[int, int], expected: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By NVIDIA's table of compute capabilities; torch tells native bfloat16 from the emulated one."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capability >= (8, 0))
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: capability >= (8, 0))
    device = torch.device("cuda")
    assert default_precision(device) == choose_precision(device, None) == expected
    if capability >= (8, 0):
        assert choose_precision(device, "tf32") == "tf32"
    else:
        with pytest.raises(
            UsageError, match="PRECISION is 'tf32', and this cuda device has float32, bfloat16, float16"
        ):
            choose_precision(device, "tf32")


def test_apple_s_chips_have_no_gradient_scaler() -> None:
    assert get_args(Precision) == PRECISIONS
    assert default_precision(torch.device("mps")) == "float32"
    assert "float16" not in precisions(torch.device("mps"))


def test_a_compiled_training_takes_the_steps_of_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no compiler is, by torch's backend that compiles nothing."""
    found = {}
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    if shutil.which("g++") is None:
        monkeypatch.setattr(steps, "COMPILER", "eager")
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        result = train(model, Regression(), samples(12), samples(5), schedule(), seed=0, compiled=compiled)
        found[compiled] = dict(model.state_dict()), [entry["train_loss"] for entry in result.history]
    assert list(tmp_path.rglob("*.so")) or steps.COMPILER == "eager", "nothing was compiled"
    assert found[True][1] == pytest.approx(found[False][1], rel=1e-4)
    torch.testing.assert_close(found[True][0], found[False][0], rtol=1e-3, atol=1e-5)
