"""A training and a scoring loop as everybody writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Batches = Iterable[tuple[Tensor, Tensor]]


def train(
    model: nn.Module,
    batches: Batches,
    loss_function: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> list[float]:
    """One epoch; the loss of every step."""
    model.train()
    losses = []
    for inputs, targets in batches:
        inputs, targets = inputs.to(device), targets.to(device)
        optimizer.zero_grad()
        loss = loss_function(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def score(
    model: nn.Module, batches: Batches, of_batch: Callable[[Tensor, Tensor], float], device: torch.device
) -> float:
    """Mean over the samples of what ``of_batch`` says about outputs and targets."""
    model.eval()
    total = seen = 0.0
    for inputs, targets in batches:
        total += of_batch(model(inputs.to(device)), targets.to(device)) * len(inputs)
        seen += len(inputs)
    return total / seen
