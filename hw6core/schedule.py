"""Training schedule: epochs, learning rate, optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class Schedule:
    """Epochs, batch size and optimizer. The learning rate rises over ``warmup`` of all steps, then falls to 0.

    Attributes:
        epochs: maximum number of passes over the training samples.
        batch_size: samples per step; an incomplete last batch is dropped, as the order changes every epoch.
        learning_rate: the peak of the cycle.
        optimizer: "adam" (decoupled weight decay) or "sgd" (Nesterov momentum 0.9).
        weight_decay: applied to every parameter.
        warmup: share of all steps in which the learning rate rises.
        patience: stop after this number of epochs without a better score; None trains to the end.
        accumulation_steps: split each batch into this number of parts and accumulate their gradients, to save memory
            in training and evaluation. Batch norm and a loss pooled over the batch then see one part at a time.

    Raises:
        ValueError: a count is less than 1, the warm-up is not a share, or the optimizer is unknown.

    >>> Schedule(epochs=40, batch_size=10, learning_rate=3e-3).optimizer
    'adam'
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["adam", "sgd"] = "adam"
    weight_decay: float = 0.0
    warmup: float = 0.25
    patience: int | None = None
    accumulation_steps: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation_steps"):
            if (count := getattr(self, name)) < 1:
                raise ValueError(f"{name} is {count}; expected at least 1")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is {self.warmup}; expected a share of all steps, 0 to 1")
        if self.optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer={self.optimizer!r}; expected 'adam' or 'sgd'")


def one_cycle(step: int, total_steps: int, warmup: float = 0.25) -> float:
    """Factor of the peak learning rate at a step (from 0): cosine from 1/25 up to 1, then down to 0 (Smith 2018).

    torch's OneCycleLR also cycles the momentum, and divides by zero if the rise is a single step.

    >>> [round(one_cycle(step, total_steps=8), 2) for step in range(9)]
    [0.04, 0.52, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07, 0.0]
    """
    rise = round(warmup * total_steps)
    if step < rise:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * step / rise)) / 2
    return (1 + math.cos(math.pi * (step - rise) / max(total_steps - rise, 1))) / 2


def make_optimizer(
    model: nn.Module, schedule: Schedule, *, captured: bool = False, scaled: bool = False
) -> torch.optim.Optimizer:
    """The optimizer for all parameters with ``requires_grad``, of which torch requires at least one.

    Fused: one pass over weights, gradients and moments instead of one for each operation. With ``captured`` the
    learning rate is a tensor on the device, from which a captured step reads it. With ``scaled``, for a gradient scaler
    that skips steps, SGD is not fused: torch's fused SGD keeps uninitialised momentum if the first step is skipped.

    >>> optimizer = make_optimizer(nn.Linear(2, 1), Schedule(1, 1, 0.1, "sgd", weight_decay=0.5))
    >>> optimizer.defaults["momentum"], optimizer.defaults["nesterov"], optimizer.defaults["weight_decay"]
    (0.9, True, 0.5)
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device, decay = next(model.parameters()).device, schedule.weight_decay
    lr = torch.tensor(schedule.learning_rate, device=device) if captured else schedule.learning_rate
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(trainable, lr, momentum=0.9, nesterov=True, weight_decay=decay, fused=not scaled)
    capturable = captured and device.type == "cuda"
    return torch.optim.AdamW(trainable, lr, weight_decay=decay, fused=True, capturable=capturable)
