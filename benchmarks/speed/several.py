"""Several small networks trained on one device, one step each at a time: in turn, on streams, or as one.

A small network leaves a large GPU idle. Three ways of training several seeds at once are compared by `make speed` on a
GPU; separate processes, which `WORKERS` starts, by `make gpu-check`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from hw6core.train import Precision, autocast, wait_for

_RATE = 1e-4


@dataclass(frozen=True)
class Work:
    """What every network learns from.

    Attributes:
        inputs: of the network, on the device of the networks.
        targets: of the loss.
        loss: (outputs, targets) -> scalar.
        precision: of the networks.
        steps: how often each is trained on the same batch.
    """

    inputs: Tensor
    targets: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    precision: Precision
    steps: int

    def answers(self, network: Callable[[Tensor], Tensor]) -> Tensor:
        with autocast(self.inputs.device, self.precision):
            return network(self.inputs)

    def losses(self, last: Sequence[Tensor]) -> list[float]:
        wait_for(self.inputs.device)
        return torch.stack(list(last)).tolist()


def in_turn(models: Sequence[nn.Module], work: Work) -> list[float]:
    """A step of each, then the next; returns the last losses."""
    optimizers = [_optimizer(model.parameters()) for model in models]
    last: list[Tensor] = []
    for _ in range(work.steps):
        last = [_step(model, optimizer, work) for model, optimizer in zip(models, optimizers, strict=True)]
    return work.losses(last)


def on_streams(models: Sequence[nn.Module], work: Work) -> list[float]:
    """The same, each network on a stream of its own: kernels of one may fill what another leaves idle."""
    optimizers = [_optimizer(model.parameters()) for model in models]
    here = torch.cuda.current_stream()
    streams = [torch.cuda.Stream() for _ in models]
    for stream in streams:
        stream.wait_stream(here)
    last: list[Tensor] = []
    for _ in range(work.steps):
        last = []
        for model, optimizer, stream in zip(models, optimizers, streams, strict=True):
            with torch.cuda.stream(stream):
                last.append(_step(model, optimizer, work))
    for stream in streams:
        here.wait_stream(stream)
    return work.losses(last)


def stacked(models: Sequence[nn.Module], work: Work) -> list[float]:
    """All weights of a kind in one tensor: each layer of all networks is one call (`torch.func`)."""
    weights, buffers = stack_module_state(list(models))
    optimizer = _optimizer(weights.values())
    shape = copy.deepcopy(models[0]).to("meta")

    def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
        answer: Tensor = functional_call(shape, (weights, buffers), (inputs,))
        return answer

    together = torch.vmap(one, in_dims=(0, 0, None), randomness="different")
    last: list[Tensor] = []
    for _ in range(work.steps):
        optimizer.zero_grad()
        outputs = work.answers(lambda inputs: together(weights, buffers, inputs))
        losses = [work.loss(output, work.targets) for output in outputs]
        torch.stack(losses).sum().backward()
        optimizer.step()
        last = [loss.detach() for loss in losses]
    return work.losses(last)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, work: Work) -> Tensor:
    optimizer.zero_grad()
    loss = work.loss(work.answers(model), work.targets)
    loss.backward()
    optimizer.step()
    return loss.detach()


def _optimizer(weights: Iterable[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(list(weights), _RATE, fused=True)
