"""One optimizer step: eager, captured as a CUDA graph and replayed, or with accumulated gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from hw6core.device import Precision, autocast

# Captures the kernels that a function launches, without running them; returns a function that replays them.
Capture = Callable[[Callable[[], None]], Callable[[], None]]
Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets) -> scalar, mean over the samples of a batch
COMPILER = "inductor"  # torch.compile's default
_CAPTURE_ERRORS = range(900, 909)  # cudaErrorStreamCaptureUnsupported and those after it


def capture_cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Capture the kernels that ``work`` launches, without running them; returns a function that replays them.

    Raises:
        RuntimeError: ``work`` cannot be captured; the stream and torch's random generator are restored.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    generator = torch.cuda.default_generators[stream.device_index]
    state = generator.get_state()
    first: Exception | None = None
    try:
        with torch.cuda.graph(graph, stream=side_stream(stream.device_index)):
            try:
                work()
            except Exception as error:
                first = error  # ending the capture raises another error, which is less specific
                raise
    except Exception as error:
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(generator.clone_state())  # torch 2.11 would still treat it as captured
        generator.set_state(state)
        raise first or error from None
    return graph.replay


@cache
def side_stream(device_index: int) -> torch.cuda.Stream:
    """The stream on which steps are warmed up and captured; a single one, as the allocator keeps memory per stream."""
    return torch.cuda.Stream(device_index)


@dataclass
class TrainingStep:
    """One optimizer step; with ``capture`` the first steps run eagerly, then one is captured and replayed.

    A captured step reads its batch from fixed tensors, into which every batch is copied. If the step cannot be
    captured, all steps run eagerly; device failures and out-of-memory errors are raised. In float16 the loss is scaled
    for the backward pass; a step with gradients that are not finite is skipped, without waiting for the device, and the
    scale is reduced.

    Attributes:
        compiled: use torch.compile for training; evaluation uses the network itself.
        scaler: gradient scaler, disabled in any precision but float16.
        count: number of steps so far.
        warmup_steps: number of first steps to exclude from timing: kernels are chosen in the first one, and torch
            requires some eager steps before a capture.
        not_captured: why the step could not be captured, else None.
    """

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    precision: Precision = "float32"
    capture: Capture | None = None
    accumulation_steps: int = 1
    compiled: bool = False
    count: int = field(default=0, init=False)
    not_captured: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._network: Callable[[Tensor], Tensor] = self.model
        if self.compiled:
            torch.compiler.reset()  # or torch falls back to eager after eight networks of the same class
            self._network = torch.compile(self.model, backend=COMPILER)
        device = self.optimizer.param_groups[0]["params"][0].device
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "float16")
        self.warmup_steps = 1 if self.capture is None else 4
        self._replay: Callable[[], None] | None = None
        self._batch: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self._loss = torch.empty(0)

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss, detached; the next call overwrites it."""
        self.count += 1
        if self.capture is None:
            self._batch = inputs, targets
            self._run()
            return self._loss
        if self.count == 1:
            self._batch = inputs.clone(), targets.clone()
        for kept, new in zip(self._batch, (inputs, targets), strict=True):
            kept.copy_(new)
        if self._replay is not None:
            self._replay()
        elif self.count < self.warmup_steps:
            self._run_on_side_stream()
        else:
            self.optimizer.zero_grad(set_to_none=True)  # so that gradients are allocated in the capture
            try:
                self._replay = self.capture(self._run)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                if isinstance(error, torch.AcceleratorError) and error.error_code not in _CAPTURE_ERRORS:  # type: ignore[attr-defined]
                    raise
                self.not_captured = str(error).partition("\n")[0]
                self._replay = self._run
            self._replay()
        return self._loss

    def _run(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        inputs, targets = self._batch
        losses = []
        parts = (tensor.chunk(self.accumulation_steps) for tensor in (inputs, targets))
        for part, part_targets in zip(*parts, strict=True):
            with autocast(part.device, self.precision):
                outputs = self._network(part)
            loss = self.loss(outputs, part_targets)
            if len(part) < len(inputs):  # the part's share of the batch
                loss = loss * (len(part) / len(inputs))
            self.scaler.scale(loss).backward()
            losses.append(loss.detach())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _run_on_side_stream(self) -> None:
        """Warm up on a side stream, as torch requires before a capture."""
        if not self._batch[0].is_cuda:
            self._run()
            return
        current = torch.cuda.current_stream()
        side = side_stream(current.device_index)
        side.wait_stream(current)
        with torch.cuda.stream(side), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True.*")  # about steps that are not captured
            self._run()
        current.wait_stream(side)
