"""One step of the optimizer: eager, captured as a CUDA graph and replayed, or with its gradients accumulated."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from hw6core.device import Precision, autocast

# Takes the kernels that a function launches, without running them; what it returns launches them all at once.
Capture = Callable[[Callable[[], None]], Callable[[], None]]
Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets) -> scalar, mean over the samples of a batch
COMPILER = "inductor"  # torch.compile's own choice
_CAPTURE_ERRORS = range(900, 909)  # cudaErrorStreamCaptureUnsupported and those after it


def capture_cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Capture the kernels that ``work`` launches, without running them; what it returns replays them with one launch.

    Raises:
        RuntimeError: ``work`` cannot be captured, with its first reason; the stream and torch's random generator are
            as they were.
    """
    graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    generator = torch.cuda.default_generators[here.device_index]
    state = generator.get_state()
    first: Exception | None = None
    try:
        with torch.cuda.graph(graph, stream=side_stream(here.device_index)):
            try:
                work()
            except Exception as error:
                first = error  # the end of the capture raises as well, and says less
                raise
    except Exception as error:
        torch.cuda.set_stream(here)
        generator.graphsafe_set_state(generator.clone_state())  # torch 2.11 would take this one for captured still
        generator.set_state(state)
        raise first or error from None
    return graph.replay


def captured_or_eager(on_failure: Callable[[str], None]) -> Capture:
    """A `Capture` that goes on eagerly with a step that cannot be captured, after ``on_failure`` was told why.

    The device's own failures and full memory are raised as ever.
    """

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        try:
            return capture_cuda_graph(work)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if isinstance(error, torch.AcceleratorError) and error.error_code not in _CAPTURE_ERRORS:  # type: ignore[attr-defined]
                raise
            on_failure(str(error).partition("\n")[0])
            return work

    return capture


@cache
def side_stream(device_index: int) -> torch.cuda.Stream:
    """The one stream on which steps are warmed up and captured: the allocator keeps memory for each stream apart."""
    return torch.cuda.Stream(device_index)


@dataclass
class TrainingStep:
    """One step of the optimizer; with ``capture`` the first steps run eagerly, then one is captured and replayed.

    A captured step reads its batch from tensors that stay where they are; every batch is copied there. In float16 the
    loss is scaled for the backward pass; a step whose gradients are not finite is skipped, without a wait for the
    device, and lowers the scale.

    Attributes:
        compiled: the network goes through torch.compile, in the first step; what is scored is the network itself.
        scaler: does nothing in another precision.
        count: steps done so far.
        warmup_steps: how many of the first are no measure of the others: the first one chooses kernels, and torch asks
            for some before a capture, for what is made on first use.
    """

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    precision: Precision = "float32"
    capture: Capture | None = None
    accumulation_steps: int = 1
    compiled: bool = False
    count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._network: Callable[[Tensor], Tensor] = self.model
        if self.compiled:
            torch.compiler.reset()  # after eight networks of one kind it would go on eagerly
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
            self.optimizer.zero_grad(set_to_none=True)  # so that the capture makes its own
            self._replay = self.capture(self._run)
            self._replay()
        return self._loss

    def _run(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        inputs, targets = self._batch
        losses = []
        for part, answers in zip(*(side.chunk(self.accumulation_steps) for side in (inputs, targets)), strict=True):
            with autocast(part.device, self.precision):
                outputs = self._network(part)
            loss = self.loss(outputs, answers)
            if len(part) < len(inputs):  # its share of the batch
                loss = loss * (len(part) / len(inputs))
            self.scaler.scale(loss).backward()
            losses.append(loss.detach())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _run_on_side_stream(self) -> None:
        """As torch asks for before a capture."""
        if not self._batch[0].is_cuda:
            self._run()
            return
        here = torch.cuda.current_stream()
        aside = side_stream(here.device_index)
        aside.wait_stream(here)
        with torch.cuda.stream(aside), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True.*")  # it is captured in a moment
            self._run()
        here.wait_stream(aside)
