"""The epoch loop on a network of a few weights: repeatability, the best epoch, early ends, what must not move."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from hw6core.errors import TrainingDivergedError
from hw6core.train import Schedule, Split, Training, predict, train
from tests.peak_memory import peak_bytes


@dataclass
class Regression:
    """Inputs (N, 2), targets (N, 1); training inputs get noise; ``script`` replaces the score."""

    noise: float = 0.0
    script: list[float] | None = None
    maximise: bool = False
    monitor: str = "error"
    seen: list[Tensor] = field(default_factory=list)
    noises: list[Tensor] = field(default_factory=list)
    loss_types: list[torch.dtype] = field(default_factory=list)

    def training_batch(self, inputs: Tensor, targets: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        self.seen.append(inputs.clone())
        self.noises.append(torch.randn(inputs.shape, generator=draws))
        return inputs + self.noise * self.noises[-1], targets

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


class Witness:
    """Counts the steps and keeps the weights of every epoch."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.steps = 0
        self.weights: list[dict[str, Tensor]] = []
        self.entries: list[Mapping[str, float]] = []

    def resume(self, steps: int, seconds: float) -> None:
        self.steps += steps

    def step(self) -> None:
        self.steps += 1

    def epoch(self, entry: Mapping[str, float]) -> None:
        self.entries.append(entry)
        self.weights.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})


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


def test_a_recorded_step_trains_as_one_that_is_not() -> None:
    """On a CPU nothing can be recorded: the recorder hands the work back, to be done again at every replay."""
    recorded: list[object] = []

    def recorder(work: Callable[[], None]) -> Callable[[], None]:
        recorded.append(work)
        return work

    models = network(), network()
    plain = fit(models[0], Regression(noise=0.1), schedule(epochs=4))
    replayed = fit(models[1], Regression(noise=0.1), schedule(epochs=4), recorder=recorder)
    assert len(recorded) == 1
    for one, other in zip(without_time(plain), without_time(replayed), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(value, models[1].state_dict()[name], rtol=1e-4, atol=1e-6)
    assert replayed.samples == (12 - 4) * 4  # four steps of four samples are the warm-up


def without_time(result: Training) -> list[dict[str, float]]:
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in result.history]


def assert_same_state(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


# --- Learning and repeating ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_it_learns(optimizer: str) -> None:
    result = fit(nn.Linear(2, 1), Regression(), schedule(epochs=40, learning_rate=0.1, optimizer=optimizer), count=32)

    assert result.history[0]["error"] > 0.5
    assert result.history[-1]["error"] < 0.05
    assert result.history[-1]["train_loss"] < 1e-2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_seed_gives_the_same_history_and_weights_bit_for_bit(precision: str) -> None:
    first = fit(network(), Regression(noise=0.1), schedule(), precision=precision)
    torch.rand(3)  # what others draw does not matter
    again = fit(network(), Regression(noise=0.1), schedule(), precision=precision)

    assert without_time(first) == without_time(again)
    assert_same_state(first.best_state, again.best_state)


def test_seed_decides_order_and_augmentation() -> None:
    tasks = [Regression(noise=0.1) for _ in range(3)]
    for task, seed in zip(tasks, (0, 0, 1), strict=True):
        fit(network(), task, schedule(), seed=seed)

    assert all(torch.equal(a, b) for a, b in zip(tasks[0].seen, tasks[1].seen, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(tasks[0].noises, tasks[1].noises, strict=True))
    assert not torch.equal(torch.cat(tasks[0].seen), torch.cat(tasks[2].seen))
    assert not torch.equal(torch.cat(tasks[0].noises), torch.cat(tasks[2].noises))


def test_every_batch_is_augmented_with_draws_of_its_own() -> None:
    task = Regression()

    fit(network(), task, schedule())

    assert len({tuple(noise.flatten().tolist()) for noise in task.noises}) == 9


def test_every_epoch_sees_every_sample_once_in_another_order() -> None:
    task = Regression()

    fit(network(), task, schedule(epochs=3, batch_size=4), count=12)

    epochs = [torch.cat(task.seen[start : start + 3]).tolist() for start in (0, 3, 6)]
    assert all(sorted(epoch) == sorted(samples(12).inputs.tolist()) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_incomplete_last_batch_is_left_out_and_a_small_set_is_one_batch() -> None:
    task, small = Regression(), Regression()

    result = fit(network(), task, schedule(epochs=3, batch_size=4), count=11)
    fit(network(), small, schedule(epochs=5, batch_size=100), count=11)

    assert [len(batch) for batch in task.seen] == [4] * 6
    assert result.samples == 20  # the first of six steps is the warm-up
    assert [len(batch) for batch in small.seen] == [11] * 5


def test_history_and_progress_tell_the_same() -> None:
    model = network()
    witness = Witness(model)

    result = fit(model, Regression(), schedule(), progress=witness)

    assert witness.steps == 9
    assert witness.entries == result.history
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3]
    names = {"epoch", "train_loss", "validation_loss", "learning_rate", "seconds", "error", "other"}
    assert all(entry.keys() == names for entry in result.history)
    seconds = [entry["seconds"] for entry in result.history]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert 0 < result.warmup_s + result.training_s + result.evaluation_s <= seconds[-1]


def test_training_loss_is_the_mean_over_the_steps() -> None:
    task = Regression()
    model = nn.Linear(2, 1).requires_grad_(False)
    model.bias.requires_grad_(True)
    inputs, targets = samples(12).inputs, samples(12).targets
    with torch.inference_mode():
        expected = float(F.mse_loss(model(inputs), targets))

    result = fit(model, task, schedule(epochs=1, learning_rate=1e-12))

    assert result.history[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_every_epoch_trains_in_train_mode() -> None:
    result = fit(network(), Regression(script=[0.1, 0.2, 0.3], maximise=True), schedule(epochs=3, batch_size=4))

    assert int(result.best_state["2.num_batches_tracked"]) == 9  # batch norm noticed all steps and no evaluation


# --- The best epoch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "maximise", "best"),
    [
        ([0.1, 0.7, 0.3, 0.7], True, 2),  # the first of equals
        ([0.4, 0.3, 0.2, 0.1], True, 1),
        ([0.1, 0.2, 0.3, 0.4], True, 4),
        ([0.9, 0.2, 0.4, 0.3], False, 2),
        ([math.nan, 0.2, math.nan, 0.1], True, 2),
        ([-3.0, -2.0, -5.0, -4.0], True, 2),
    ],
)
def test_model_ends_with_the_weights_of_the_best_epoch(script: list[float], maximise: bool, best: int) -> None:
    model = network()
    witness = Witness(model)

    result = fit(model, Regression(script=list(script), maximise=maximise), schedule(epochs=4), progress=witness)

    assert result.best_epoch == best
    assert_same_state(result.best_state, witness.weights[best - 1])
    assert_same_state(model.state_dict(), witness.weights[best - 1])
    assert len(result.history) == 4


def test_kept_weights_are_a_copy() -> None:
    model = network()
    result = fit(model, Regression(), schedule())
    kept = {name: tensor.clone() for name, tensor in result.best_state.items()}

    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()

    assert_same_state(result.best_state, kept)


@pytest.mark.parametrize(
    ("script", "patience", "epochs"),
    [
        ([0.5, 0.4, 0.4, 0.9, 0.9], 2, 3),
        ([0.5, 0.4, 0.6, 0.5, 0.5, 0.9], 2, 5),  # a better score starts the count again
        ([0.5, 0.5, 0.5, 0.5], 1, 2),  # equal is not better
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 1, 6),
        ([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], None, 6),
    ],
)
def test_training_stops_after_its_patience(script: list[float], patience: int | None, epochs: int) -> None:
    task = Regression(script=list(script), maximise=True)

    result = fit(network(), task, schedule(epochs=len(script), patience=patience))

    assert len(result.history) == epochs


# --- Going wrong -----------------------------------------------------------------------------------------------------


def test_loss_that_is_not_a_number_raises() -> None:
    training = samples(8)
    training.inputs[3, 1] = math.nan

    with pytest.raises(TrainingDivergedError, match=r"the training loss of step [12] \(epoch 1\) is nan; the last"):
        train(network(), Regression(), training, samples(4), schedule(), seed=0)


def test_divergence_names_the_step_the_last_finite_loss_and_the_rate() -> None:
    """Two steps an epoch; the fourth loss is infinite, the third was 3."""

    class Scripted(Regression):
        losses = iter([1.0, 2.0, 3.0, math.inf])

        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return outputs.sum() * 0 + (next(self.losses) if outputs.requires_grad else 0.0)

    plan = schedule(epochs=2, learning_rate=0.08, warmup=0.5)
    found = r"of step 4 \(epoch 2\) is inf; the last finite one was 3, the learning rate 0.04"
    with pytest.raises(TrainingDivergedError, match=found):  # falling from the peak: half of it after half the way
        fit(network(), Scripted(), plan, count=8)


def test_absurd_learning_rate_raises() -> None:
    with pytest.raises(TrainingDivergedError, match=r"the training loss of step \d+ \(epoch .\) is (inf|nan)"):
        fit(nn.Linear(2, 1), Regression(), schedule(epochs=4, learning_rate=1e30, optimizer="sgd"))


def test_score_that_is_never_a_number_raises() -> None:
    with pytest.raises(TrainingDivergedError, match="error was not a number in any of 3 epochs"):
        fit(network(), Regression(script=[math.nan] * 3), schedule())


@pytest.mark.parametrize(("training", "validation"), [(0, 3), (3, 0)])
def test_nothing_to_train_on_is_refused(training: int, validation: int) -> None:
    with pytest.raises(ValueError, match=f"{training} training and {validation} validation samples; expected one"):
        train(network(), Regression(), samples(training), samples(validation), schedule(), seed=0)


# --- What must not move ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_frozen_parameters_do_not_move(optimizer: str) -> None:
    model = network()
    model[0].requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}

    fit(model, Regression(), schedule(optimizer=optimizer, weight_decay=0.1))

    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("0."), name


def test_data_is_left_alone() -> None:
    training, validation = samples(8), samples(4, seed=1)

    train(network(), Regression(noise=1.0), training, validation, schedule(), seed=0)

    assert torch.equal(training.inputs, samples(8).inputs)
    assert torch.equal(validation.targets, samples(4, seed=1).targets)


# --- Learning rate ---------------------------------------------------------------------------------------------------


@pytest.fixture
def optimizer_settings() -> Iterator[list[tuple[float, float]]]:
    """(learning rate, momentum or first beta) of every step that any optimizer takes."""
    taken: list[tuple[float, float]] = []

    def note(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        group = optimizer.param_groups[0]
        taken.append((float(group["lr"]), group["momentum"] if "momentum" in group else group["betas"][0]))

    handle = register_optimizer_step_post_hook(note)
    yield taken
    handle.remove()


def test_learning_rate_rises_over_the_warmup_then_falls_to_zero(optimizer_settings: list[tuple[float, float]]) -> None:
    result = fit(network(), Regression(), schedule(epochs=10, learning_rate=0.1, warmup=0.3), count=40)

    rates = [rate for rate, _ in optimizer_settings]
    assert len(rates) == 100
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[30] == 0.1
    assert max(rates) == pytest.approx(0.1)
    assert rates[0] < 0.01
    assert rates[-1] < 1e-4
    assert [entry["learning_rate"] for entry in result.history] == rates[::10]


def test_momentum_of_sgd_is_0_9_in_every_step(optimizer_settings: list[tuple[float, float]]) -> None:
    fit(network(), Regression(), schedule(optimizer="sgd"))

    assert {round(momentum, 6) for _, momentum in optimizer_settings} == {0.9}


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
def test_schedules_of_few_steps_train(epochs: int, warmup: float) -> None:
    model = network()
    witness = Witness(model)

    fit(model, Regression(), schedule(epochs=epochs, warmup=warmup, batch_size=12), progress=witness)

    assert witness.steps == epochs


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weight_decay_shrinks_weights_without_a_gradient(optimizer: str) -> None:
    model = nn.Linear(2, 1)
    nn.init.ones_(model.weight)
    nothing = Split(torch.zeros(4, 2), torch.zeros(4, 1))  # the weight never gets a gradient

    train(model, Regression(), nothing, nothing, schedule(optimizer=optimizer, weight_decay=0.5), seed=0)

    assert bool((model.weight < 0.999).all())


# --- Evaluation ------------------------------------------------------------------------------------------------------


def test_evaluation_weighs_every_sample_the_same() -> None:
    split = Split(torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0], [10, 0]]), torch.zeros(5, 1))
    model = nn.Linear(2, 1, bias=False)
    nn.init.ones_(model.weight)

    outputs, loss = predict(model, Regression(), split, batch_size=2)

    assert outputs.tolist() == [[1.0], [2.0], [3.0], [4.0], [10.0]]
    # (1 + 4 + 9 + 16 + 100) / 5; the mean of the batches' means would be (2.5 + 12.5 + 100) / 3
    assert loss == pytest.approx(26)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 7, 100])
def test_evaluation_does_not_depend_on_the_batches(batch_size: int) -> None:
    model, split = network(), samples(10)
    outputs, loss = predict(model, Regression(), split, batch_size=10)

    again, same_loss = predict(model, Regression(), split, batch_size=batch_size)

    torch.testing.assert_close(again, outputs)
    assert same_loss == pytest.approx(loss, rel=1e-6)


def test_evaluation_switches_dropout_off_and_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 1)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    first, _ = predict(model, Regression(), samples(10))
    second, _ = predict(model, Regression(), samples(10))

    assert torch.equal(first, second)
    assert_same_state(model.state_dict(), before)


def test_validation_loss_in_the_history_is_that_of_the_kept_weights() -> None:
    model = network()

    result = fit(model, Regression(), schedule())

    _, loss = predict(model, Regression(), samples(5, seed=1))
    assert result.history[result.best_epoch - 1]["validation_loss"] == loss


# --- bfloat16 --------------------------------------------------------------------------------------------------------


def test_bfloat16_runs_the_network_and_leaves_weights_and_outputs_float32() -> None:
    model, task = network(), Regression()

    result = fit(model, task, schedule(epochs=1), precision="bfloat16")
    outputs, loss = predict(model, Regression(), samples(5, seed=1), precision="bfloat16")

    assert task.loss_types == [torch.bfloat16] * 3 + [torch.float32]  # three steps, one evaluation
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in result.best_state.values())
    assert outputs.dtype == torch.float32
    exact, exact_loss = predict(model, Regression(), samples(5, seed=1))
    torch.testing.assert_close(outputs, exact, rtol=0.03, atol=0.03)
    assert loss == pytest.approx(exact_loss, rel=0.1)


def test_a_batch_in_parts_gives_the_gradients_of_the_whole() -> None:
    """Three parts of a batch of eight: 3, 3 and 2 samples; without batch norm the weights end up the same."""
    whole, parts = (nn.Linear(2, 1), nn.Linear(2, 1))
    parts.load_state_dict(whole.state_dict())
    plan = schedule(batch_size=8, learning_rate=0.1, optimizer="sgd")
    one = fit(whole, Regression(), plan, count=16)
    other = fit(parts, Regression(), replace(plan, parts=3), count=16)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict())
    assert [entry["train_loss"] for entry in other.history] == pytest.approx(
        [entry["train_loss"] for entry in one.history]
    )


class Mean(Regression):
    """Scores need one number a sample."""

    def summary(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.mean(1)


def test_outputs_are_kept_for_a_batch_alone(tmp_path: Path) -> None:
    wide = nn.Linear(1, 2**16)
    split = Split(torch.ones(1000, 1), torch.zeros(1000, 1).expand(-1, 2**16))
    # All outputs take 250 MiB, those of a batch 25: they, their errors, and the squares of these.
    assert peak_bytes(lambda: predict(wide, Mean(), split), tmp_path) < 80 * 2**20
    summaries, loss = predict(wide, Mean(), split)
    outputs = wide(split.inputs).detach()
    assert torch.allclose(summaries, outputs.mean(1))
    assert math.isclose(loss, float(outputs.square().mean()), rel_tol=1e-4)
