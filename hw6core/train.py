"""The one epoch loop: (model, task, data, schedule, seed) -> history and the best weights.

Data lives on the device; an epoch issues its steps without waiting for the device, which is asked for a number only
when the epoch is over.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hw6core.errors import TrainingDivergedError
from hw6core.interruption import deferred, wanted
from hw6core.resume import Checkpoint
from hw6core.seeding import generator, random_state, restore_random_state

Precision = Literal["float32", "bfloat16"]
EVALUATED_AT_ONCE = 100  # samples; fewer where a batch did not fit into memory whole


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

    def summary(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What scoring needs of a batch's outputs and stored targets, an entry a sample; kept for a whole split."""

    def score(self, summaries: Tensor, targets: Tensor) -> Mapping[str, float]:
        """Scores of a whole split from the summaries of all its batches and the stored targets."""


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
        parts: each batch goes through the network in so many parts, whose gradients are added up: the same batch in
            less memory, also of the evaluation. What looks at the whole batch (batch norm, a loss pooled over it) then
            sees a part.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["adam", "sgd"] = "adam"
    weight_decay: float = 0.0
    warmup: float = 0.25
    patience: int | None = None
    parts: int = 1


class Progress(Protocol):
    """Told about every step and every epoch, and closed by whoever made it; must not touch the device."""

    def resume(self, steps: int, seconds: float) -> None:
        """So many steps were done before, by another process, in so many seconds."""

    def step(self) -> None: ...

    def epoch(self, entry: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Progress that nobody watches."""

    def resume(self, steps: int, seconds: float) -> None:
        pass

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
            ``seconds`` (spent until then, evaluation included) and every validation score.
        best_epoch: the epoch whose weights are kept, from 1.
        best_state: these weights.
        warmup_s: seconds of the very first step and evaluation, in which kernels are chosen and memory is first taken.
        training_s, evaluation_s: seconds spent in each, without those.
        samples: training samples seen in ``training_s``.
        interruptions: how often another process had to go on.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)
    warmup_s: float = 0.0
    training_s: float = 0.0
    evaluation_s: float = 0.0
    samples: int = 0
    interruptions: int = 0


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
    checkpoint: Checkpoint | None = None,
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
        recorder: `record_cuda_graph` or `recorded_or_eager` replay each step with one launch; None starts every kernel
            from Python.
        checkpoint: where the state is kept between steps. What an earlier process left there is gone on from, with
            the same bits where the device repeats them. An interruption (see `hw6core.interruption`) is then put off
            until the step is done and the state is written.

    Raises:
        ValueError: nothing to train on.
        TrainingDivergedError: a loss or a weight was infinite or not a number; told when its epoch is over.
        KeyboardInterrupt: an interruption was asked for.
    """
    if not len(training) or not len(validation):
        raise ValueError(f"{len(training)} training and {len(validation)} validation samples; expected one at least")
    loop = _Loop(model, task, training, validation, schedule, seed, precision, progress or Silent(), recorder)
    with deferred() if checkpoint is not None else contextlib.nullcontext():
        loop.run(checkpoint)
    if not loop.result.best_state:
        raise TrainingDivergedError(f"{task.monitor} was not a number in any of {schedule.epochs} epochs")
    model.load_state_dict(loop.result.best_state)
    return loop.result


class _Loop:
    """A training between two steps: what `train` was given, and how far it has come."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        training: Split,
        validation: Split,
        schedule: Schedule,
        seed: int,
        precision: Precision,
        progress: Progress,
        recorder: Recorder | None,
    ) -> None:
        self.model, self.task, self.training, self.validation = model, task, training, validation
        self.schedule, self.precision, self.progress = schedule, precision, progress
        self.device = training.inputs.device
        self.batch = min(schedule.batch_size, len(training))
        self.steps = len(training) // self.batch
        self.share_of_peak = one_cycle(schedule.epochs * self.steps, schedule.warmup)
        self.draws = generator(seed, self.device)
        self.optimizer = _optimizer(model, schedule, recorded=recorder is not None)
        self.take_step = _Step(model, task, self.optimizer, precision, recorder, schedule.parts)
        self.result = Training()
        self.epoch, self.step = 1, 0  # the epoch under way, and the steps that are done in it
        self.order = torch.empty(0, dtype=torch.int64, device=self.device)
        self.losses = torch.zeros(self.steps, device=self.device)
        self.over = False

    def run(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None:
            self._go_on_from(checkpoint)
        while not self.over:
            self._train_epoch(checkpoint)
            self._end_epoch()
            self._keep(checkpoint)

    def _train_epoch(self, checkpoint: Checkpoint | None) -> None:
        """The steps of the epoch that are still to be done, without waiting for the device in between."""
        self.model.train()
        if self.step == 0:
            self.order = torch.randperm(len(self.training), generator=self.draws, device=self.device)
        batches = self.order[: self.steps * self.batch].split(self.batch)
        began = time.perf_counter()
        for chosen in batches[self.step :]:
            self._set_rate()
            samples, answers = self.training.inputs[chosen], self.training.targets[chosen]
            inputs, targets = self.task.training_batch(samples, answers, self.draws)
            self.losses[self.step] = self.take_step(_channels_last(inputs), targets)
            self.step += 1
            self.progress.step()
            self.result.samples += self.batch
            if self.take_step.count == self.take_step.warmup_steps:
                wait_for(self.device)
                self.result.warmup_s += time.perf_counter() - began
                self.result.samples -= self.take_step.count * self.batch
                began = time.perf_counter()
            if checkpoint is not None and self.step < self.steps and (wanted() or checkpoint.due(self._size_bytes)):
                wait_for(self.device)
                self.result.training_s += time.perf_counter() - began
                self._keep(checkpoint)
                began = time.perf_counter()
        wait_for(self.device)
        self.result.training_s += time.perf_counter() - began

    def _end_epoch(self) -> None:
        """Score the epoch and keep its weights if they are the best so far."""
        losses = self.losses.tolist()
        self._stop_if_diverged(losses)
        self._stop_if_weights_diverged()
        result, schedule, task = self.result, self.schedule, self.task
        began = time.perf_counter()
        at_once = EVALUATED_AT_ONCE // schedule.parts
        summaries, loss_value = predict(self.model, task, self.validation, precision=self.precision, batch_size=at_once)
        scores = dict(task.score(summaries, self.validation.targets))
        took_s = time.perf_counter() - began
        if result.history:
            result.evaluation_s += took_s
        else:
            result.warmup_s += took_s
        entry: dict[str, float] = {
            "epoch": self.epoch,
            "train_loss": math.fsum(losses) / self.steps,
            "validation_loss": loss_value,
            "learning_rate": self._rate((self.epoch - 1) * self.steps),
            "seconds": result.warmup_s + result.training_s + result.evaluation_s,
            **scores,
        }
        result.history.append(entry)
        self.progress.epoch(entry)
        if self._is_better(scores[task.monitor]):
            result.best_epoch = self.epoch
            result.best_state = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        elif schedule.patience is not None and self.epoch - result.best_epoch >= schedule.patience:
            self.over = True
        self.over |= self.epoch == schedule.epochs
        self.epoch, self.step = self.epoch + 1, 0

    def _is_better(self, score: float) -> bool:
        """Never true of what is infinite or not a number."""
        if not math.isfinite(score):
            return False
        if not self.result.best_epoch:
            return True
        best = self.result.history[self.result.best_epoch - 1][self.task.monitor]
        return score > best if self.task.maximise else score < best

    def _stop_if_diverged(self, losses: Sequence[float]) -> None:
        wrong = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if wrong is None:
            return
        before = self.result.history[-1]["train_loss"] if self.result.history else None
        last = losses[wrong - 1] if wrong else before
        step = (self.epoch - 1) * self.steps + wrong
        raise TrainingDivergedError(
            f"the training loss of step {step + 1} (epoch {self.epoch}) is {losses[wrong]}; the last finite one was "
            f"{'none' if last is None else f'{last:.4g}'}, the learning rate {self._rate(step):.2g}"
        )

    def _stop_if_weights_diverged(self) -> None:
        """A step with a finite loss can leave weights that are not: no loss tells of an epoch's last step."""
        weights = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        if not math.isfinite(nn.utils.get_total_norm(weights, math.inf)):
            step = self.epoch * self.steps - 1
            raise TrainingDivergedError(
                f"a weight is infinite or not a number after step {step + 1} (epoch {self.epoch}); "
                f"all losses were finite, the learning rate of the last step was {self._rate(step):.2g}"
            )

    def _rate(self, step: int) -> float:
        return self.schedule.learning_rate * self.share_of_peak(step)

    def _set_rate(self) -> None:
        rate = self._rate((self.epoch - 1) * self.steps + self.step)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # a recorded step reads it there
                group["lr"].fill_(rate)
            else:
                group["lr"] = float(np.float32(rate))  # as on a device: a recorded step then has the same bits

    @cached_property
    def _size_bytes(self) -> int:
        """About what a checkpoint takes: the weights, Adam's two moments of each, the best weights."""
        return 4 * sum(int(value.nbytes) for value in self.model.state_dict().values())

    def _keep(self, checkpoint: Checkpoint | None) -> None:
        """Write the state if it is time or if an interruption is wanted, which then happens."""
        if checkpoint is None:
            return
        if wanted() or checkpoint.due(self._size_bytes):
            checkpoint.write(self._tensors(), self._notes())
        if wanted():
            raise KeyboardInterrupt

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"random.{name}": value for name, value in random_state(self.draws)[0].items()}
        if self.over or self.step or self.result.best_epoch != self.epoch - 1:
            tensors |= {f"best.{name}": value for name, value in self.result.best_state.items()}
        if self.over:  # nothing else is needed any more
            return tensors
        tensors |= {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, entries in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in entries.items()}
        return tensors | {"order": self.order, "losses": self.losses}

    def _notes(self) -> dict[str, str]:
        result = {entry.name: getattr(self.result, entry.name) for entry in fields(Training)}
        del result["best_state"]
        position = {"epoch": self.epoch, "step": self.step, "over": self.over, "result": result}
        return {"position": json.dumps(position), "random": random_state(self.draws)[1]}

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        """Take up what an earlier process left, if it is of this very training."""
        found = checkpoint.read()
        if found is None:
            return
        tensors, notes = found
        position = json.loads(notes["position"])
        self.epoch, self.step, self.over = position["epoch"], position["step"], position["over"]
        self.result = Training(**position["result"])
        self.result.interruptions += 1
        restore_random_state(_below("random", tensors), notes["random"], self.draws)
        best = _below("best", tensors)
        if not self.over:
            self._restore(tensors)
        if self.result.best_epoch:
            kept = best or _below("model", tensors)
            self.result.best_state = {name: value.to(self.device, copy=True) for name, value in kept.items()}
        done = (self.epoch - 1) * self.steps + self.step
        self.progress.resume(done, self.result.training_s + self.result.evaluation_s)

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(_below("model", tensors))
        self.order, self.losses = (tensors[name].to(self.device, copy=True) for name in ("order", "losses"))
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer", tensors).items():
            index, _, key = name.partition(".")
            parameter = parameters[int(index)]
            # In the layout of the weight, as the optimizer made it: its kernels walk through both side by side.
            same = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
            state.setdefault(int(index), {})[key] = same.copy_(value)
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


Recorder = Callable[[Callable[[], None]], Callable[[], None]]


_CAPTURE_ERRORS = range(900, 909)  # cudaErrorStreamCaptureUnsupported and those after it


def record_cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record the kernels that ``work`` starts, without running them; what it returns runs them all with one launch.

    Raises:
        RuntimeError: ``work`` cannot be recorded, with its first reason; the stream and torch's random generator are
            as they were.
    """
    graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    draws = torch.cuda.default_generators[here.device_index]
    stood = draws.get_state()
    first: Exception | None = None
    try:
        with torch.cuda.graph(graph, stream=side_stream(here.device_index)):
            try:
                work()
            except Exception as error:
                first = error  # the end of the recording raises as well, and says less
                raise
    except Exception as error:
        torch.cuda.set_stream(here)
        draws.graphsafe_set_state(draws.clone_state())  # torch 2.11 would take this one for recorded still
        draws.set_state(stood)
        raise first or error from None
    return graph.replay


def recorded_or_eager(complain: Callable[[str], None]) -> Recorder:
    """A recorder that goes on eagerly with a step that cannot be recorded, after it told why.

    The device's own failures and full memory are raised as ever.
    """

    def recorder(work: Callable[[], None]) -> Callable[[], None]:
        try:
            return record_cuda_graph(work)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if isinstance(error, torch.AcceleratorError) and error.error_code not in _CAPTURE_ERRORS:  # type: ignore[attr-defined]
                raise
            complain(str(error).partition("\n")[0])
            return work

    return recorder


@cache
def side_stream(device_index: int) -> torch.cuda.Stream:
    """The one stream on which steps are warmed up and recorded: the allocator keeps memory for each stream apart."""
    return torch.cuda.Stream(device_index)


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
        parts: int,
    ) -> None:
        self._model, self._task, self._optimizer, self._precision = model, task, optimizer, precision
        self._recorder, self._parts = recorder, parts
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
        self._optimizer.zero_grad(set_to_none=True)
        losses = [
            self._backward(*part) for part in zip(*(side.chunk(self._parts) for side in self._batch), strict=True)
        ]
        self._optimizer.step()
        self._loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Add a part's gradients; returns its loss by its share of the batch."""
        with autocast(inputs.device, self._precision):
            outputs = self._model(inputs)
        loss = self._task.loss(outputs, targets)
        if len(inputs) < len(self._batch[0]):
            loss = loss * (len(inputs) / len(self._batch[0]))
        loss.backward()
        return loss.detach()

    def _work_aside(self) -> None:
        """On a stream of its own, as torch asks for before a recording."""
        if not self._batch[0].is_cuda:
            self._work()
            return
        here = torch.cuda.current_stream()
        aside = side_stream(here.device_index)
        aside.wait_stream(here)
        with torch.cuda.stream(aside), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True.*")  # it is captured in a moment
            self._work()
        here.wait_stream(aside)


@torch.inference_mode()
def predict(
    model: nn.Module,
    task: Task,
    split: Split,
    *,
    precision: Precision = "float32",
    batch_size: int = EVALUATED_AT_ONCE,
) -> tuple[Tensor, float]:
    """Run a split through the network in eval mode.

    Outputs are kept for a batch alone: of 10,000 frames, at eight classes a pixel, they are many gigabytes.

    Returns:
        The task's summaries of all samples, and the loss, each sample weighing the same.
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
        if not done:  # one place for all: kept one by one they would lie between the freed outputs, which then grow
            summaries = summary.new_empty(len(split), *summary.shape[1:])
        summaries[done : done + len(inputs)] = summary
        done += len(inputs)
    return summaries, float(total_loss) / len(split)


def forward(model: nn.Module, task: Task, batch: Split, *, precision: Precision = "float32") -> tuple[Tensor, Tensor]:
    """The network's outputs for one batch, float32, and the loss's targets; nothing random."""
    inputs, targets = task.evaluation_batch(batch.inputs, batch.targets)
    with autocast(inputs.device, precision):
        outputs = model(_channels_last(inputs)).float()
    return outputs, targets


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
