"""The one epoch loop: (model, task, data, schedule, seed) -> history and the best weights.

Data lives on the device; an epoch issues its steps without waiting for the device, which is asked for a number only
when the epoch is over.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from hw6core.errors import TrainingDivergedError
from hw6core.seeding import generator

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Split:
    """Samples on the device: ``inputs`` and ``targets`` of one length, in whatever form the task understands."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


class Task(Protocol):
    """What is learned, as the loop sees it.

    ``monitor`` names the score that chooses the best epoch; ``maximise`` says which way is better.
    """

    monitor: str
    maximise: bool

    def training_batch(self, inputs: Tensor, targets: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Stored samples -> the network's input and the loss's target, augmented with ``draws``."""

    def evaluation_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The same, without anything random."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Scalar, mean over the samples of a batch."""

    def score(self, outputs: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Scores of a whole split from the network's outputs and the stored targets."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. The learning rate follows one cycle: up over ``warmup`` of all steps, then down to 0.

    Attributes:
        epochs: the most passes over the training samples.
        batch_size: samples a step; an incomplete last batch is left out, as the order changes every epoch.
        learning_rate: the peak of the cycle.
        optimizer: "adam" (decoupled weight decay) or "sgd" (Nesterov momentum 0.9).
        weight_decay: of every parameter.
        warmup: share of all steps in which the learning rate rises.
        patience: stop after so many epochs without a better score; None trains to the end.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["adam", "sgd"] = "adam"
    weight_decay: float = 0.0
    warmup: float = 0.25
    patience: int | None = None


class Progress(Protocol):
    """Told about every step and every epoch, and closed by whoever made it; must not touch the device."""

    def step(self) -> None: ...

    def epoch(self, entry: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Progress that nobody watches."""

    def step(self) -> None:
        pass

    def epoch(self, entry: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class Training:
    """What a training leaves behind.

    Attributes:
        history: one entry an epoch: ``epoch`` (from 1), ``train_loss``, ``validation_loss``, ``learning_rate``,
            ``seconds`` (since the start, evaluation included) and every validation score.
        best_epoch: the epoch whose weights are kept, from 1.
        best_state: these weights.
        warmup_s: seconds of the very first step, in which kernels are chosen and memory is first taken.
        training_s, evaluation_s: seconds spent in each, without that step.
        samples: training samples seen in ``training_s``.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)
    warmup_s: float = 0.0
    training_s: float = 0.0
    evaluation_s: float = 0.0
    samples: int = 0


def train(
    model: nn.Module,
    task: Task,
    training: Split,
    validation: Split,
    schedule: Schedule,
    *,
    seed: int,
    precision: Precision = "float32",
    progress: Progress | None = None,
    recorder: Recorder | None = None,
) -> Training:
    """Train in place; afterwards the model holds the weights of the best epoch on validation.

    Args:
        model: on the device of the data. Parameters without ``requires_grad`` stay as they are.
        task: batches, loss and scores.
        training, validation: samples on one device.
        schedule: epochs, batch size, optimizer.
        seed: decides the order of the samples and the augmentation.
        precision: "bfloat16" runs the network under autocast; weights, loss and optimizer stay float32.
        progress: told about steps and epochs.
        recorder: `record_cuda_graph` replays each step with one launch; None starts every kernel from Python.

    Raises:
        ValueError: nothing to train on.
        TrainingDivergedError: the loss of an epoch was infinite or not a number.
    """
    if not len(training) or not len(validation):
        raise ValueError(f"{len(training)} training and {len(validation)} validation samples; expected one at least")
    device = training.inputs.device
    progress = progress or Silent()
    draws = generator(seed, device)
    batch = min(schedule.batch_size, len(training))
    steps = len(training) // batch
    optimizer = _optimizer(model, schedule, recorded=recorder is not None)
    take_step = _Step(model, task, optimizer, precision, recorder)
    rates = LambdaLR(optimizer, one_cycle(schedule.epochs * steps, schedule.warmup))
    result = Training()
    best = -math.inf
    start = time.perf_counter()
    for epoch in range(1, schedule.epochs + 1):
        epoch_start = time.perf_counter()
        model.train()
        order = torch.randperm(len(training), generator=draws, device=device)
        total_loss = torch.zeros((), device=device)
        rate = float(rates.get_last_lr()[0])  # of a recorded step a number on the device
        for chosen in order[: steps * batch].split(batch):
            inputs, targets = task.training_batch(training.inputs[chosen], training.targets[chosen], draws)
            total_loss += take_step(_channels_last(inputs), targets)
            rates.step()
            progress.step()
            if take_step.count == take_step.warmup_steps:
                wait_for(device)
                warmup_s = time.perf_counter() - epoch_start
                epoch_start += warmup_s
                result.warmup_s += warmup_s
                result.samples -= take_step.count * batch
        train_loss = float(total_loss) / steps  # the epoch's only wait for the device
        evaluation_start = time.perf_counter()
        result.training_s += evaluation_start - epoch_start
        result.samples += steps * batch
        if not math.isfinite(train_loss):
            raise TrainingDivergedError(
                f"the training loss of epoch {epoch} is {train_loss}; the learning rate was {rate:.2g}"
            )
        outputs, loss_value = predict(model, task, validation, precision=precision)
        scores = dict(task.score(outputs, validation.targets))
        now = time.perf_counter()
        result.evaluation_s += now - evaluation_start
        entry: dict[str, float] = {
            "epoch": epoch,
            "train_loss": train_loss,
            "validation_loss": loss_value,
            "learning_rate": rate,
            "seconds": now - start,
            **scores,
        }
        result.history.append(entry)
        progress.epoch(entry)
        better = scores[task.monitor] if task.maximise else -scores[task.monitor]
        if better > best:  # never true of NaN
            best = better
            result.best_epoch = epoch
            result.best_state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        elif schedule.patience is not None and epoch - result.best_epoch >= schedule.patience:
            break
    if not result.best_state:
        raise TrainingDivergedError(f"{task.monitor} was not a number in any of {schedule.epochs} epochs")
    model.load_state_dict(result.best_state)
    return result


Recorder = Callable[[Callable[[], None]], Callable[[], None]]


def record_cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record the kernels that ``work`` starts, without running them; what it returns runs them all with one launch."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class _Step:
    """One step of the optimizer; with a recorder the first steps run as they are, then one is recorded and replayed.

    A recorded step reads its batch from tensors that stay where they are; every batch is copied there.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        recorder: Recorder | None,
    ) -> None:
        self._model, self._task, self._optimizer, self._precision = model, task, optimizer, precision
        self._recorder = recorder
        self._replay: Callable[[], None] | None = None
        self._batch: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self._loss = torch.empty(0)
        self.count = 0
        # The first step chooses kernels; torch asks for some before a recording, for what is made on first use.
        self.warmup_steps = 1 if recorder is None else 4

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss, detached; the next call overwrites it."""
        self.count += 1
        if self._recorder is None:
            self._batch = inputs, targets
            self._work()
            return self._loss
        if self.count == 1:
            self._batch = inputs.clone(), targets.clone()
        for kept, new in zip(self._batch, (inputs, targets), strict=True):
            kept.copy_(new)
        if self._replay is not None:
            self._replay()
        elif self.count < self.warmup_steps:
            self._work_aside()
        else:
            self._optimizer.zero_grad(set_to_none=True)  # so that the recording makes its own
            self._replay = self._recorder(self._work)
            self._replay()
        return self._loss

    def _work(self) -> None:
        inputs, targets = self._batch
        with autocast(inputs.device, self._precision):
            outputs = self._model(inputs)
        loss = self._task.loss(outputs, targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._loss = loss.detach()

    def _work_aside(self) -> None:
        """On a stream of its own, as torch asks for before a recording."""
        if not self._batch[0].is_cuda:
            self._work()
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._work()
        torch.cuda.current_stream().wait_stream(stream)


@torch.inference_mode()
def predict(
    model: nn.Module, task: Task, split: Split, *, precision: Precision = "float32", batch_size: int = 100
) -> tuple[Tensor, float]:
    """Run a split through the network in eval mode.

    Returns:
        The outputs of all samples, float32, and the loss, each sample weighing the same.
    """
    model.eval()
    device = split.inputs.device
    collected: list[Tensor] = []
    total_loss = torch.zeros((), device=device)
    for inputs, targets in zip(split.inputs.split(batch_size), split.targets.split(batch_size), strict=True):
        inputs, targets = task.evaluation_batch(inputs, targets)
        with autocast(device, precision):
            outputs = model(_channels_last(inputs)).float()
        total_loss += task.loss(outputs, targets) * len(inputs)
        collected.append(outputs)
    return torch.cat(collected), float(total_loss) / len(split)


def wait_for(device: torch.device) -> None:
    """Let queued device work finish, so that the clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Mixed precision for a device, or nothing for float32."""
    # Every weight is used once in a forward pass: there is nothing to cache, and a recorded step must not.
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def default_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware multiplies it natively (there it halves the time of a U-Net step), else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    features = torch.cpu.get_capabilities()
    return "bfloat16" if features.get("avx512_bf16") or features.get("amx_tile") else "float32"


def _channels_last(inputs: Tensor) -> Tensor:
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


def one_cycle(total_steps: int, warmup: float) -> Callable[[int], float]:
    """Share of the peak learning rate at each step, from 0: cosine from 1/25 up to 1, then down to 0 (Smith 2018).

    torch's OneCycleLR also cycles the momentum, and divides by zero where the rise takes a single step.
    """
    rise = round(warmup * total_steps)

    def share(step: int) -> float:
        if step < rise:
            return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * step / rise)) / 2
        return (1 + math.cos(math.pi * (step - rise) / max(total_steps - rise, 1))) / 2

    return share


def _optimizer(model: nn.Module, schedule: Schedule, *, recorded: bool) -> torch.optim.Optimizer:
    """Fused: one pass over weights, gradients and moments instead of one for each operation.

    A recorded step reads the learning rate where the schedule writes it, on the device.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = learning[0].device
    rate = torch.tensor(schedule.learning_rate, device=device) if recorded else schedule.learning_rate
    if schedule.optimizer == "adam":
        capturable = recorded and device.type == "cuda"
        return torch.optim.AdamW(learning, rate, weight_decay=schedule.weight_decay, fused=True, capturable=capturable)
    return torch.optim.SGD(learning, rate, momentum=0.9, nesterov=True, weight_decay=schedule.weight_decay, fused=True)
