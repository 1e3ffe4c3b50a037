"""VGG16 on Fashion-MNIST, straightforwardly: the frozen network sees every image again in every epoch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def train_classifier(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> list[float]:
    """One epoch of cross-entropy; the loss of every step."""
    losses = []
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> float:
    """Share of right answers."""
    model.eval()
    right = seen = 0
    for images, labels in batches:
        answers = model(images.to(device)).argmax(1)
        right += (answers == labels.to(device)).sum().item()
        seen += len(labels)
    return right / seen
