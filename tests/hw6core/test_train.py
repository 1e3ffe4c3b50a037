"""The training loop with a small network: steps, reproducibility, the best epoch, early stopping, divergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hw6core import steps
from hw6core.errors import TrainingDivergedError
from hw6core.schedule import Schedule, make_optimizer
from hw6core.seeding import make_generator
from hw6core.steps import TrainingStep
from hw6core.training import Callback, Split, Training, predict, train
from tests.peak_memory import peak_bytes


@dataclass
class Regression:
    """Inputs (N, 2), targets (N, 1); training inputs get noise; ``script`` gives the scores, if set."""

    noise: float = 0.0
    script: list[float] | None = None
    maximise: bool = False
    monitor: str = "error"
    seen: list[Tensor] = field(default_factory=list)
    loss_types: list[torch.dtype] = field(default_factory=list)

    def training_batch(self, inputs: Tensor, targets: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        self.seen.append(inputs.clone())
        return inputs + self.noise * torch.randn(inputs.shape, generator=draws), targets

    def evaluation_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.loss_types.append(outputs.dtype)
        return F.mse_loss(outputs.float(), targets)

    def summary(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs

    def score(self, summaries: Tensor, targets: Tensor) -> Mapping[str, float]:
        value = self.script.pop(0) if self.script else float((summaries - targets).abs().mean())
        return {self.monitor: value, "other": 0.5}


class Recorder(Callback):
    """Counts the steps and records the weights after every step and every epoch."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.steps = 0
        self.after_step: list[dict[str, Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.entries: list[Mapping[str, float]] = []

    def on_resume(self, steps: int, seconds: float) -> None:
        self.steps += steps

    def on_step(self) -> None:
        self.steps += 1
        self.after_step.append(self.copied())

    def on_epoch(self, entry: Mapping[str, float]) -> None:
        self.entries.append(entry)
        self.weights.append(self.copied())

    def copied(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


def samples(count: int, seed: int = 0) -> Split:
    inputs = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return Split(inputs, inputs @ torch.tensor([[2.0], [-1.0]]) + 0.5)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 1))


def schedule(**changes: object) -> Schedule:
    settings: dict[str, object] = {"epochs": 3, "batch_size": 4, "learning_rate": 0.05} | changes
    return Schedule(**settings)  # type: ignore[arg-type]


def fit(
    model: nn.Module, task: Regression, plan: Schedule, count: int = 12, seed: int = 0, **options: object
) -> Training:
    return train(model, task, samples(count), samples(5, seed=1), plan, seed=seed, **options)  # type: ignore[arg-type]


# Factors of the peak learning rate in two epochs of three steps, half of them warm-up. Up, k of 3:
# 1/25 + 24/25 (1 - cos 60k)/2; down: (1 + cos 60k)/2; cosines of 0, 60 and 120 degrees are 1, 1/2 and -1/2.
FACTORS = (0.04, 0.28, 0.76, 1.0, 0.75, 0.25)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_every_step_and_score_is_that_of_a_plain_loop(optimizer: str, decay: float) -> None:
    """Order and noise are drawn from the same seed; one of 13 samples is dropped in each epoch."""
    model, plain = network(), network()
    data, held_out, recorder = samples(13), samples(5, seed=1), Recorder(model)
    plan = schedule(epochs=2, learning_rate=0.1, warmup=0.5, optimizer=optimizer, weight_decay=decay)
    result = train(model, Regression(noise=0.1), data, held_out, plan, seed=4, callback=recorder)

    steps: torch.optim.Optimizer
    if optimizer == "adam":
        steps = torch.optim.AdamW(plain.parameters(), 1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=decay)
    else:
        steps = torch.optim.SGD(plain.parameters(), 1.0, momentum=0.9, nesterov=True, weight_decay=decay)
    draws = make_generator(4, torch.device("cpu"))
    found, rates = iter(recorder.after_step), iter(FACTORS)
    for entry in result.history:
        plain.train()
        order, losses, first_rate = torch.randperm(13, generator=draws), [], None
        for chosen in (order[:4], order[4:8], order[8:12]):
            inputs = data.inputs[chosen] + 0.1 * torch.randn(4, 2, generator=draws)
            loss = (plain(inputs) - data.targets[chosen]).square().mean()
            steps.param_groups[0]["lr"] = 0.1 * next(rates)
            first_rate = first_rate or steps.param_groups[0]["lr"]
            steps.zero_grad()
            loss.backward()
            steps.step()
            losses.append(float(loss.detach()))
            torch.testing.assert_close(next(found), dict(plain.state_dict()), rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            errors = plain.eval()(held_out.inputs) - held_out.targets
        assert entry["train_loss"] == pytest.approx(sum(losses) / 3, rel=1e-4)
        assert entry["validation_loss"] == pytest.approx(float(errors.square().mean()), rel=1e-4)
        assert entry["error"] == pytest.approx(float(errors.abs().mean()), rel=1e-4)
        assert entry["learning_rate"] == pytest.approx(first_rate)
    assert next(found, None) is None


class Tenfold(Regression):
    """The targets of the loss are ten times the stored ones; a summary is an output and its stored target."""

    sizes: ClassVar[list[int]] = []

    def evaluation_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, 10 * targets

    def summary(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.sizes.append(len(outputs))
        return torch.cat([outputs, targets], 1)


def test_evaluation_keeps_the_order_and_weights_all_samples_equally() -> None:
    """250 samples are three batches, of which the last is smaller."""
    numbers = torch.arange(250.0).unsqueeze(1)
    model = nn.Linear(2, 1, bias=False)
    nn.init.ones_(model.weight)
    summaries, loss = predict(model, Tenfold(), Split(torch.cat([numbers, 0 * numbers], 1), 2 * numbers))
    assert torch.equal(summaries, torch.cat([numbers, 2 * numbers], 1))
    # Output n, target 20 n: 361 n^2, whose mean is 361 * (249 * 250 * 499 / 6) / 250.
    assert loss == pytest.approx(361 * 249 * 499 / 6, rel=1e-5)


def test_a_captured_step_trains_like_an_eager_one() -> None:
    """A CPU cannot capture a step: this capture returns the function itself, to be run at every replay."""
    captured: list[object] = []

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        captured.append(work)
        return work

    models = network(), network()
    plain = fit(models[0], Regression(noise=0.1), schedule(epochs=4))
    replayed = fit(models[1], Regression(noise=0.1), schedule(epochs=4), capture=capture)
    assert len(captured) == 1
    for one, other in zip(without_time(plain), without_time(replayed), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(value, models[1].state_dict()[name], rtol=1e-4, atol=1e-6)
    assert replayed.samples == (12 - 4) * 4  # four steps of four samples are the warm-up


def test_a_step_that_cannot_be_captured_runs_eagerly_and_the_result_has_the_reason() -> None:
    def capture(work: Callable[[], None]) -> Callable[[], None]:
        raise error

    models = network(), network()
    plain = fit(models[0], Regression(noise=0.1), schedule(epochs=4))
    error = RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might ...")
    eager = fit(models[1], Regression(noise=0.1), schedule(epochs=4), capture=capture)
    assert (plain.not_captured, eager.not_captured) == (None, "operation not permitted when stream is capturing")
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(value, models[1].state_dict()[name], rtol=1e-4, atol=1e-6)
    illegal_access = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    illegal_access.error_code = 700  # type: ignore[attr-defined]
    for error in (torch.OutOfMemoryError("CUDA out of memory"), illegal_access):
        with pytest.raises(type(error)):
            fit(network(), Regression(), schedule(), capture=capture)


def test_gradient_accumulation_also_reduces_the_batch_size_of_evaluation() -> None:
    Tenfold.sizes.clear()
    for parts in (1, 4):
        plan = schedule(batch_size=8, accumulation_steps=parts, epochs=1)
        train(network(), Tenfold(script=[0.0]), samples(8), samples(130, seed=1), plan, seed=0)
    assert Tenfold.sizes == [100, 30] + [25] * 5 + [5]
    Tenfold.sizes.clear()  # with more parts than samples are evaluated at once, one at a time
    plan = schedule(batch_size=256, accumulation_steps=128, epochs=1)
    train(network(), Tenfold(script=[0.0]), samples(256), samples(2, seed=1), plan, seed=0)
    assert Tenfold.sizes == [1, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedule(epochs=0), "epochs is 0; expected at least 1"),
        (lambda: schedule(batch_size=0), "batch_size is 0; expected at least 1"),
        (lambda: schedule(accumulation_steps=-1), "accumulation_steps is -1; expected at least 1"),
        (lambda: schedule(warmup=5), "warmup is 5; expected a share of all steps, 0 to 1"),
        (lambda: schedule(optimizer="SGD"), "optimizer='SGD'; expected 'adam' or 'sgd'"),
        (lambda: Split(torch.zeros(3, 2), torch.zeros(2, 1)), "3 inputs and 2 targets; expected equal numbers"),
        (lambda: fit(network(), Regression(), schedule(), count=0), "0 training and 5 validation samples"),
        (lambda: train(network(), Regression(), samples(3), samples(0), schedule(), seed=0), "3 training and 0"),
        (lambda: fit(network(), Regression(), schedule(), precision="bf16"), "precision='bf16'; expected one of"),
        (lambda: fit(network().requires_grad_(False), Regression(), schedule()), "optimizer got an empty parameter"),
    ],
)
def test_impossible_arguments_are_an_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_a_stop_after_the_last_step_keeps_the_finished_training() -> None:
    class Last(Recorder):
        def should_stop(self) -> bool:
            return self.steps == 9

    model = network()
    assert len(fit(model, Regression(), schedule(), callback=Last(model)).history) == 3


def test_the_answers_can_be_changed_in_place() -> None:
    answers, _ = predict(network(), Regression(), samples(5))
    answers[answers > 0] = 0
    assert float(answers.max()) <= 0


def without_time(result: Training) -> list[dict[str, float]]:
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in result.history]


assert_same_state = partial(torch.testing.assert_close, rtol=0, atol=0)


def test_an_incomplete_last_batch_is_dropped_and_a_small_set_is_one_batch() -> None:
    task, small = Regression(), Regression()
    result = fit(network(), task, schedule(epochs=3, batch_size=4), count=11)
    fit(network(), small, schedule(epochs=5, batch_size=100), count=11)
    assert [len(batch) for batch in task.seen] == [4] * 6
    assert result.samples == 20  # the first of six steps is the warm-up
    assert [len(batch) for batch in small.seen] == [11] * 5


def test_the_callback_gets_every_step_and_the_history() -> None:
    model = network()
    recorder = Recorder(model)
    result = fit(model, Regression(), schedule(), callback=recorder)
    assert recorder.steps == 9
    assert recorder.entries == result.history
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3]
    names = {"epoch", "train_loss", "validation_loss", "learning_rate", "seconds", "error", "other"}
    assert all(entry.keys() == names for entry in result.history)
    seconds = [entry["seconds"] for entry in result.history]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert 0 < result.warmup_s + result.training_s + result.evaluation_s <= seconds[-1]


@pytest.mark.parametrize(
    ("script", "maximise", "best"),
    [
        ([0.1, 0.7, 0.3, 0.7], True, 2),  # the first of equal scores
        ([0.4, 0.3, 0.2, 0.1], True, 1),
        ([0.1, 0.2, 0.3, 0.4], True, 4),
        ([0.9, 0.2, 0.4, 0.3], False, 2),
        ([math.nan, 0.2, math.nan, 0.1], True, 2),
        ([math.inf, 0.5, -math.inf, math.nan], True, 2),
        ([math.inf, 0.5, -math.inf, math.nan], False, 2),
        ([-3.0, -2.0, -5.0, -4.0], True, 2),
    ],
)
def test_model_ends_with_the_weights_of_the_best_epoch(script: list[float], maximise: bool, best: int) -> None:
    model = network()
    recorder = Recorder(model)
    result = fit(model, Regression(script=list(script), maximise=maximise), schedule(epochs=4), callback=recorder)
    assert result.best_epoch == best
    assert_same_state(result.best_state, recorder.weights[best - 1])
    assert_same_state(model.state_dict(), recorder.weights[best - 1])
    assert len(result.history) == 4


@pytest.mark.parametrize(
    ("script", "patience", "epochs"),
    [
        ([0.5, 0.4, 0.4, 0.9, 0.9], 2, 3),
        ([0.5, 0.4, 0.6, 0.5, 0.5, 0.9], 2, 5),  # a better score resets the count
        ([0.5, 0.5, 0.5, 0.5], 1, 2),  # equal is not better
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 1, 6),
        ([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], None, 6),
    ],
)
def test_training_stops_after_its_patience(script: list[float], patience: int | None, epochs: int) -> None:
    task = Regression(script=list(script), maximise=True)
    result = fit(network(), task, schedule(epochs=len(script), patience=patience))
    assert len(result.history) == epochs


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_infinite_weights_after_a_finite_loss_are_a_divergence(optimizer: str, step: int, value: float) -> None:
    """Two steps per epoch, one of which has a gradient that is not finite; only a later loss would show it."""
    model, steps = network(), iter(range(1, 5))

    def spoil(gradient: Tensor) -> Tensor:
        return gradient * value if next(steps) == step else gradient

    next(model.parameters()).register_hook(spoil)
    with pytest.raises(TrainingDivergedError, match=rf"\(epoch {(step + 1) // 2}\)"):
        fit(model, Regression(), schedule(epochs=2, optimizer=optimizer), count=8)


def test_running_statistics_that_are_not_finite_are_a_divergence() -> None:
    norm = nn.BatchNorm1d(2)
    assert norm.running_mean is not None
    norm.running_mean[0] = math.inf  # does not affect the training loss
    model = nn.Sequential(norm, network())
    with pytest.raises(TrainingDivergedError, match=r"after step 2 \(epoch 1\)"):
        fit(model, Regression(), schedule(epochs=1), count=8)


def test_the_error_has_the_step_the_last_finite_loss_and_the_learning_rate() -> None:
    """Two steps per epoch; the fourth loss is infinite, the third 3."""

    class Scripted(Regression):
        losses = iter([1.0, 2.0, 3.0, math.inf])

        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return outputs.sum() * 0 + (next(self.losses) if outputs.requires_grad else 0.0)

    plan = schedule(epochs=2, learning_rate=0.08, warmup=0.5)
    found = r"of step 4 \(epoch 2\) is inf; the last finite one was 3, the learning rate 0.04"
    with pytest.raises(TrainingDivergedError, match=found):  # half of the peak, halfway down
        fit(network(), Scripted(), plan, count=8)


def test_a_score_that_is_always_nan_is_a_divergence() -> None:
    with pytest.raises(TrainingDivergedError, match="error was not a number in any of 3 epochs"):
        fit(network(), Regression(script=[math.nan] * 3), schedule())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_frozen_parameters_do_not_move(optimizer: str) -> None:
    model = network()
    model[0].requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    fit(model, Regression(), schedule(optimizer=optimizer, weight_decay=0.1))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("0."), name


def test_bfloat16_runs_the_network_and_leaves_weights_and_outputs_float32() -> None:
    model, task = network(), Regression()
    result = fit(model, task, schedule(epochs=1), precision="bfloat16")
    outputs, loss = predict(model, Regression(), samples(5, seed=1), precision="bfloat16")
    assert task.loss_types == [torch.bfloat16] * 3 + [torch.float32]  # three steps, one evaluation
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in result.best_state.values())
    assert outputs.dtype == torch.float32
    assert result.history[0]["validation_loss"] == loss
    exact, exact_loss = predict(model, Regression(), samples(5, seed=1))
    assert not torch.equal(outputs, exact)
    torch.testing.assert_close(outputs, exact, rtol=0.03, atol=0.03)
    assert loss == pytest.approx(exact_loss, rel=0.1)


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    """Three parts of a batch of eight: 3, 3 and 2 samples; the weights are the same, as there is no batch norm."""
    whole, parts = (nn.Linear(2, 1), nn.Linear(2, 1))
    parts.load_state_dict(whole.state_dict())
    plan = schedule(batch_size=8, learning_rate=0.1, optimizer="sgd")
    one = fit(whole, Regression(), plan, count=16)
    sizes: list[int] = []
    parts.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    other = fit(parts, Regression(), replace(plan, accumulation_steps=3), count=16)
    assert sizes == [3, 3, 2, 3, 3, 2, 5] * 3  # and the validation samples
    torch.testing.assert_close(parts.state_dict(), whole.state_dict())
    assert [entry["train_loss"] for entry in other.history] == pytest.approx(
        [entry["train_loss"] for entry in one.history]
    )


def test_outputs_are_kept_for_one_batch_at_a_time(tmp_path: Path) -> None:
    class Mean(Regression):
        def summary(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return outputs.mean(1)

    wide = nn.Linear(1, 2**16)
    split = Split(torch.ones(1000, 1), torch.zeros(1000, 1).expand(-1, 2**16))
    # All outputs take 250 MiB, those of a batch 25 MiB, and the loss makes two more tensors of that size.
    assert peak_bytes(lambda: predict(wide, Mean(), split), tmp_path) < 80 * 2**20


def product(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss whose gradient is the mean product of targets and inputs."""
    return (outputs.float() * targets).mean()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("bad", [0, 2])
def test_a_step_whose_gradient_overflows_is_skipped_and_halves_the_scale(optimizer: str, bad: int) -> None:
    """Weights, moments and Adam's step count are then the same as without that step."""
    ones, plan, found = torch.ones(4, 3), Schedule(1, 4, 0.125, optimizer), []  # type: ignore[arg-type]
    for skipped in ((bad,), ()):
        torch.manual_seed(0)
        layer = nn.Linear(3, 1)
        step = TrainingStep(layer, product, make_optimizer(layer, plan, scaled=True), "float16", accumulation_steps=2)
        for number in range(3 + len(skipped)):
            before = layer.weight.detach().clone()
            loss = step(ones, torch.full((4, 1), 3e4 if number in skipped else 0.5))
            assert math.isfinite(loss), "a skipped step is not a divergence"
            assert torch.equal(before, layer.weight) is (number in skipped)
        assert step.scaler.get_scale() == (32768.0 if skipped else 65536.0)
        found.append([*layer.parameters(), *(v for s in step.optimizer.state.values() for v in s.values())])
    for with_it, without in zip(*found, strict=True):
        torch.testing.assert_close(with_it, without, rtol=1e-6, atol=0)


def test_a_compiled_training_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that returns the graph unchanged, as inductor is tested by torch."""
    found, given = {}, []

    def compiler(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        given.append(graph)
        return graph.forward

    monkeypatch.setattr(steps, "COMPILER", compiler)
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        result = train(model, Regression(), samples(12), samples(5), schedule(), seed=0, compiled=compiled)
        found[compiled] = dict(model.state_dict()), [entry["train_loss"] for entry in result.history]
        assert len(given) == compiled
    assert found[True][1] == pytest.approx(found[False][1], rel=1e-4)
    torch.testing.assert_close(found[True][0], found[False][0], rtol=1e-3, atol=1e-5)
