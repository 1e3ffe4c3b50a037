"""The training loop of all tasks: (model, task, data, schedule, seed) -> history and best weights.

The data is on the device. The steps of an epoch are issued without waiting for it; losses are read at the end of the
epoch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hw6core.checkpoint import Checkpoint
from hw6core.device import Precision, autocast, synchronize
from hw6core.errors import TrainingDivergedError, TrainingStoppedError
from hw6core.schedule import Schedule, make_optimizer, one_cycle
from hw6core.seeding import make_generator, random_state, restore_random_state
from hw6core.steps import Capture, TrainingStep

EVALUATED_AT_ONCE = 100  # samples; fewer with `Schedule.accumulation_steps`


@dataclass(frozen=True)
class Split:
    """Samples on the device: ``inputs`` and ``targets`` of equal length, in the form that the task expects.

    Raises:
        ValueError: the lengths differ.

    >>> len(Split(torch.zeros(3, 1, 8, 8), torch.zeros(3)))
    3
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"{len(self.inputs)} inputs and {len(self.targets)} targets; expected equal numbers")

    def __len__(self) -> int:
        return len(self.inputs)


class Task(Protocol):
    """What the training loop requires of a task; those of the assignment are in `hw6core.tasks`.

    ``monitor`` is the score that decides the best epoch; ``maximise`` is True if a higher score is better.
    """

    monitor: str
    maximise: bool

    def training_batch(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Stored samples -> the network's input and the loss's target, augmented with ``generator``."""

    def evaluation_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The same without augmentation."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Scalar, mean over the samples of a batch."""

    def summary(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What scoring needs from a batch's outputs and stored targets, one entry per sample."""

    def score(self, summaries: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Scores of a whole split from the summaries of all batches and the stored targets."""


class Callback:
    """Hooks of `train`; these do nothing. They must not use the device.

    >>> class PrintEpochs(Callback):
    ...     def on_epoch(self, entry):
    ...         print(entry["epoch"], entry["train_loss"])
    """

    def on_resume(self, steps: int, seconds: float) -> None:
        """The training resumes after this number of steps and seconds in earlier processes."""

    def on_step(self) -> None:
        """A step was issued. An exception raised here ends the training."""

    def on_epoch(self, entry: Mapping[str, float]) -> None:
        """An epoch has ended; ``entry`` is its entry in the history."""

    def on_end(self) -> None:
        """The training has ended, normally or with an exception."""

    def should_stop(self) -> bool:
        """Return True to write the checkpoint and stop before the next step."""
        return False


@dataclass
class Training:
    """The result of a training.

    Attributes:
        history: one entry per epoch: ``epoch`` (from 1), ``train_loss``, ``validation_loss``, ``learning_rate``,
            ``seconds`` (since the start, with evaluation) and all validation scores.
        best_epoch: the epoch with the best score, from 1.
        best_state: the weights after that epoch.
        warmup_s: seconds of the first steps and the first evaluation, in which kernels are chosen and memory allocated.
        training_s, evaluation_s: seconds of all other steps and evaluations.
        samples: training samples processed in ``training_s``.
        interruptions: number of times the training was resumed.
        not_captured: why no step could be captured although ``capture`` was given, else None.

    >>> Training().history
    []
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)
    warmup_s: float = 0.0
    training_s: float = 0.0
    evaluation_s: float = 0.0
    samples: int = 0
    interruptions: int = 0
    not_captured: str | None = None


def train(
    model: nn.Module,
    task: Task,
    training: Split,
    validation: Split,
    schedule: Schedule,
    *,
    seed: int,
    precision: Precision = "float32",
    callback: Callback | None = None,
    capture: Capture | None = None,
    checkpoint: Checkpoint | None = None,
    compiled: bool = False,
) -> Training:
    """Train a model in place; afterwards it has the weights of the epoch with the best validation score.

    Args:
        model: on the device of the data, in the memory format in which it should compute (see
            `hw6core.device.memory_format`). Parameters without ``requires_grad`` are not changed.
        task: batches, loss and scores.
        training, validation: samples on the same device.
        schedule: epochs, batch size, optimizer.
        seed: decides the order of the samples and the augmentation.
        precision: "bfloat16" and "float16" run the network under autocast; weights, loss and optimizer stay float32.
            "float16" scales the loss (see `hw6core.steps.TrainingStep`), "tf32" needs `hw6core.device.allow_tf32`.
        callback: called after steps and epochs; can stop the training.
        capture: `hw6core.steps.capture_cuda_graph` to replay each step as a CUDA graph; None to launch every kernel
            from Python.
        checkpoint: where the state is saved between steps. The training resumes from the state of an earlier process,
            bit for bit if the device is deterministic.
        compiled: see `hw6core.steps.TrainingStep`.

    Raises:
        ValueError: a split is empty, or no parameter of the model has ``requires_grad``.
        TrainingDivergedError: a loss or a weight was infinite or not a number; raised at the end of the epoch.
        TrainingStoppedError: the callback stopped the training.

    >>> from hw6core.tasks import FeatureTask
    >>> samples = Split(torch.eye(4).repeat(8, 1), torch.arange(4).repeat(8))
    >>> layer = nn.Linear(4, 4)
    >>> result = train(layer, FeatureTask(), samples, samples, Schedule(5, 8, 0.5), seed=0)
    >>> len(result.history), result.history[result.best_epoch - 1]["accuracy"]
    (5, 1.0)
    """
    if not len(training) or not len(validation):
        raise ValueError(f"{len(training)} training and {len(validation)} validation samples; expected at least one")
    optimizer = make_optimizer(model, schedule, captured=capture is not None, scaled=precision == "float16")
    step = TrainingStep(model, task.loss, optimizer, precision, capture, schedule.accumulation_steps, compiled)
    generator = make_generator(seed, training.inputs.device)
    loop = _Loop(model, task, training, validation, schedule, step, generator, callback or Callback(), checkpoint)
    loop.run()
    if not loop.result.best_state:
        raise TrainingDivergedError(f"{task.monitor} was not a number in any of {schedule.epochs} epochs")
    model.load_state_dict(loop.result.best_state)
    return loop.result


@dataclass
class _Loop:
    """The state of a training."""

    model: nn.Module
    task: Task
    training: Split
    validation: Split
    schedule: Schedule
    training_step: TrainingStep
    generator: torch.Generator
    callback: Callback
    checkpoint: Checkpoint | None

    def __post_init__(self) -> None:
        self.device = self.training.inputs.device
        self.batch_size = min(self.schedule.batch_size, len(self.training))
        self.steps = len(self.training) // self.batch_size
        self.result = Training()
        self.epoch, self.step = 1, 0  # current epoch, and the number of steps done in it
        self.order = torch.empty(0, dtype=torch.int64, device=self.device)
        self.losses = torch.zeros(self.steps, device=self.device)
        self.over = False
        # Of a checkpoint, about: the weights, Adam's two moments, the best weights.
        self.size_bytes = 4 * sum(int(value.nbytes) for value in self.model.state_dict().values())

    def run(self) -> None:
        try:
            self._resume()
            while not self.over:
                self._train_epoch()
                self._end_epoch(self._finite_losses())
                self._save_if_due()
        finally:
            self.callback.on_end()

    def _train_epoch(self) -> None:
        """Run the remaining steps of the epoch without waiting for the device in between."""
        self.model.train()
        if self.step == 0:
            self.order = torch.randperm(len(self.training), generator=self.generator, device=self.device)
        batches = self.order[: self.steps * self.batch_size].split(self.batch_size)
        began = time.perf_counter()
        for chosen in batches[self.step :]:
            lr = self._lr((self.epoch - 1) * self.steps + self.step)
            for group in self.training_step.optimizer.param_groups:
                if isinstance(group["lr"], Tensor):  # a captured step reads it from there
                    group["lr"].fill_(lr)
                else:
                    group["lr"] = float(np.float32(lr))  # the same bits as in a captured step
            inputs, targets = self.task.training_batch(
                self.training.inputs[chosen], self.training.targets[chosen], self.generator
            )
            self.losses[self.step] = self.training_step(_formatted(inputs, self.model), targets)
            self.step += 1
            self.callback.on_step()
            self.result.samples += self.batch_size
            if self.training_step.count == self.training_step.warmup_steps:
                synchronize(self.device)
                self.result.warmup_s += time.perf_counter() - began
                self.result.samples -= self.training_step.count * self.batch_size
                began = time.perf_counter()
            if self.step < self.steps and (self.callback.should_stop() or self._due()):
                synchronize(self.device)
                self.result.training_s += time.perf_counter() - began
                self._save_if_due()
                began = time.perf_counter()
        synchronize(self.device)
        self.result.training_s += time.perf_counter() - began

    def _end_epoch(self, losses: Sequence[float]) -> None:
        """Score the epoch and keep its weights if they are the best so far."""
        result, schedule, task = self.result, self.schedule, self.task
        result.not_captured = self.training_step.not_captured or result.not_captured
        began = time.perf_counter()
        at_once = max(EVALUATED_AT_ONCE // schedule.accumulation_steps, 1)
        precision = self.training_step.precision
        summaries, loss = predict(self.model, task, self.validation, precision=precision, batch_size=at_once)
        scores = {name: float(score) for name, score in task.score(summaries, self.validation.targets).items()}
        took_s = time.perf_counter() - began
        if result.history:
            result.evaluation_s += took_s
        else:
            result.warmup_s += took_s
        entry: dict[str, float] = {
            "epoch": self.epoch,
            "train_loss": math.fsum(losses) / self.steps,
            "validation_loss": loss,
            "learning_rate": self._lr((self.epoch - 1) * self.steps),
            "seconds": result.warmup_s + result.training_s + result.evaluation_s,
            **scores,
        }
        result.history.append(entry)
        self.callback.on_epoch(entry)
        if self._is_better(scores[task.monitor]):
            result.best_epoch = self.epoch
            result.best_state = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        elif schedule.patience is not None and self.epoch - result.best_epoch >= schedule.patience:
            self.over = True
        self.over |= self.epoch == schedule.epochs
        self.epoch, self.step = self.epoch + 1, 0

    def _is_better(self, score: float) -> bool:
        """False for a score that is infinite or not a number."""
        if not math.isfinite(score):
            return False
        if not self.result.best_epoch:
            return True
        best = self.result.history[self.result.best_epoch - 1][self.task.monitor]
        return score > best if self.task.maximise else score < best

    def _finite_losses(self) -> Sequence[float]:
        """The losses of the epoch. Also checks the weights, as no loss of the epoch depends on its last step.

        Raises:
            TrainingDivergedError: a loss or a weight is infinite or not a number.
        """
        losses: Sequence[float] = self.losses.tolist()
        for index, loss in enumerate(losses):
            if not math.isfinite(loss):
                before = self.result.history[-1]["train_loss"] if self.result.history else None
                last = losses[index - 1] if index else before
                step = (self.epoch - 1) * self.steps + index
                raise TrainingDivergedError(
                    f"the training loss of step {step + 1} (epoch {self.epoch}) is {loss}; the last finite one was "
                    f"{'none' if last is None else f'{last:.4g}'}, the learning rate {self._lr(step):.2g}"
                )
        weights = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        if not math.isfinite(nn.utils.get_total_norm(weights, math.inf)):
            step = self.epoch * self.steps - 1
            raise TrainingDivergedError(
                f"a weight is infinite or not a number after step {step + 1} (epoch {self.epoch}); "
                f"all losses were finite, the learning rate of the last step was {self._lr(step):.2g}"
            )
        return losses

    def _lr(self, step: int) -> float:
        return self.schedule.learning_rate * one_cycle(step, self.schedule.epochs * self.steps, self.schedule.warmup)

    def _due(self) -> bool:
        return self.checkpoint is not None and self.checkpoint.due(self.size_bytes)

    def _save_if_due(self) -> None:
        """Write the checkpoint if it is due or the training should stop; stop if it should and is not complete."""
        stop = self.callback.should_stop()
        if self.checkpoint is not None and (stop or self._due()):
            self.checkpoint.write(*self._state())
        if stop and not self.over:
            raise TrainingStoppedError(f"stopped in epoch {self.epoch} of {self.schedule.epochs}")

    def _state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and notes of a checkpoint."""
        random_tensors, random_notes = random_state(self.generator)
        tensors = {f"random.{name}": value for name, value in random_tensors.items()}
        if self.over or self.step or self.result.best_epoch != self.epoch - 1:
            tensors |= {f"best.{name}": value for name, value in self.result.best_state.items()}
        if not self.over:  # otherwise the best weights suffice
            tensors |= {f"model.{name}": value for name, value in self.model.state_dict().items()}
            for index, entries in self.training_step.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{index}.{name}": value for name, value in entries.items()}
            tensors |= {"order": self.order, "losses": self.losses}
        result = {name: value for name, value in vars(self.result).items() if name != "best_state"}
        position = {"epoch": self.epoch, "step": self.step, "over": self.over, "result": result}
        position["scaler"] = self.training_step.scaler.state_dict()
        return tensors, {"position": json.dumps(position), "random": random_notes}

    def _resume(self) -> None:
        """Resume from the checkpoint of the same training, if there is one."""
        found = self.checkpoint.read() if self.checkpoint is not None else None
        if found is None:
            return
        tensors, notes = found
        position = json.loads(notes["position"])
        self.epoch, self.step, self.over = position["epoch"], position["step"], position["over"]
        self.result = Training(**position["result"])
        self.result.interruptions += 1
        self.training_step.scaler.load_state_dict(position["scaler"])
        restore_random_state(_below("random", tensors), notes["random"], self.generator)
        if not self.over:
            self.model.load_state_dict(_below("model", tensors))
            self.order, self.losses = (tensors[name].to(self.device, copy=True) for name in ("order", "losses"))
            self._load_optimizer(_below("optimizer", tensors))
        if self.result.best_epoch:
            best = _below("best", tensors) or _below("model", tensors)
            self.result.best_state = {name: value.to(self.device, copy=True) for name, value in best.items()}
        done = (self.epoch - 1) * self.steps + self.step
        self.callback.on_resume(done, self.result.training_s + self.result.evaluation_s)

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        optimizer = self.training_step.optimizer
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, _, key = name.partition(".")
            parameter = parameters[int(index)]
            # In the memory layout of the weight, as the optimizer created it; its kernels require that.
            restored = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
            state.setdefault(int(index), {})[key] = restored.copy_(value)
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors named ``prefix.NAME``, by NAME."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


@torch.inference_mode()
def predict(
    model: nn.Module, task: Task, split: Split, *, precision: Precision = "float32", batch_size: int = EVALUATED_AT_ONCE
) -> tuple[Tensor, float]:
    """Evaluate a network on a split; leaves it in eval mode.

    The outputs are kept for one batch at a time: those of 10,000 frames with eight classes take many gigabytes.

    Returns:
        The task's summaries of all samples, and the mean loss per sample.

    >>> from hw6core.tasks import FeatureTask
    >>> preds, loss = predict(nn.Identity(), FeatureTask(), Split(torch.eye(3), torch.tensor([0, 1, 2])))
    >>> preds.tolist(), round(loss, 4)
    ([0, 1, 2], 0.5514)
    """
    model.eval()
    device = split.inputs.device
    summaries = torch.empty(0, device=device)
    total_loss = torch.zeros((), device=device)
    done = 0
    for inputs, stored in zip(split.inputs.split(batch_size), split.targets.split(batch_size), strict=True):
        outputs, targets = forward(model, task, Split(inputs, stored), precision=precision)
        total_loss += task.loss(outputs, targets) * len(inputs)
        summary = task.summary(outputs, stored)
        if not done:  # allocated once: small tensors between the freed outputs would fragment the memory
            with torch.inference_mode(False):  # or callers could not change the answers in place
                summaries = summary.new_empty(len(split), *summary.shape[1:])
        summaries[done : done + len(inputs)] = summary
        done += len(inputs)
    return summaries, float(total_loss) / len(split)


def forward(model: nn.Module, task: Task, batch: Split, *, precision: Precision = "float32") -> tuple[Tensor, Tensor]:
    """The network's float32 outputs for a batch, and the targets of the loss; no augmentation.

    >>> from hw6core.tasks import FeatureTask
    >>> outputs, targets = forward(nn.Identity(), FeatureTask(), Split(torch.eye(3), torch.tensor([0, 1, 2])))
    >>> tuple(outputs.shape), targets.tolist()
    ((3, 3), [0, 1, 2])
    """
    inputs, targets = task.evaluation_batch(batch.inputs, batch.targets)
    with autocast(inputs.device, precision):
        outputs = model(_formatted(inputs, model)).float()
    return outputs, targets


def _formatted(inputs: Tensor, model: nn.Module) -> Tensor:
    """Images in the memory format of the model's weights; otherwise every convolution would convert one of them."""
    if inputs.ndim != 4:
        return inputs
    weights = (weight for weight in model.parameters() if weight.ndim == 4 and not weight.is_contiguous())
    channels_last = any(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    return inputs.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
