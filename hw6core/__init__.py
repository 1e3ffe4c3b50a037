"""The library under the suite: data, models, Dice, losses, metrics, tasks and the training loop.

Tensors in, tensors out. The names below are imported when they are first used, so that judging a record does not load
torch.

>>> import torch
>>> from hw6core import DiceLoss, UNet
>>> logits = UNet(num_classes=8)(torch.rand(2, 3, 32, 40))
>>> logits.shape
torch.Size([2, 8, 32, 40])
>>> DiceLoss()(logits, torch.zeros(2, 32, 40, dtype=torch.int64)).shape
torch.Size([])
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hw6core import data
    from hw6core.checkpoint import Checkpoint, load_weights, save_weights, transfer
    from hw6core.data import load_colorization, load_endovis, load_fashion_mnist
    from hw6core.dice import dice_per_class, mean_dice
    from hw6core.losses import DiceLoss
    from hw6core.models import UNet, vgg16
    from hw6core.schedule import Schedule
    from hw6core.tasks import ClassificationTask, ColorizationTask, FeatureTask, MultiLabelTask, SegmentationTask
    from hw6core.training import Callback, Split, Training, predict, train

__all__ = [
    "Callback",
    "Checkpoint",
    "ClassificationTask",
    "ColorizationTask",
    "DiceLoss",
    "FeatureTask",
    "MultiLabelTask",
    "Schedule",
    "SegmentationTask",
    "Split",
    "Training",
    "UNet",
    "data",
    "dice_per_class",
    "load_colorization",
    "load_endovis",
    "load_fashion_mnist",
    "load_weights",
    "mean_dice",
    "predict",
    "save_weights",
    "train",
    "transfer",
    "vgg16",
]

try:
    __version__ = version("hw6core")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "unknown"


def __getattr__(name: str) -> object:
    if name == "data":
        return import_module("hw6core.data")
    if name in __all__:
        for module in ("models", "losses", "dice", "tasks", "training", "schedule", "checkpoint", "data"):
            try:
                place = import_module(f"hw6core.{module}")
            except AttributeError as error:  # a broken torchvision; `from hw6core import` would hide the reason
                raise ImportError(f"cannot import hw6core.{module}: {error}") from error
            if hasattr(place, name):
                return getattr(place, name)
    raise AttributeError(f"module 'hw6core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
