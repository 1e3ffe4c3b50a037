"""The same work as the assignment and public solutions do it: what the suite's speed is measured against.

Written as one would without thinking of speed, and no slower: files are decoded whenever a batch asks for them, masks
are one-hot, everything is float32 in the default layout, the loss is read after every step, Dice is summed in loops.
Networks, optimizer, batch and number of steps are those of the suite; tests check that losses and scores agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import functional as TF
from torchvision.transforms import v2

from benchmarks.suite import SUITE, Work
from hw6core.data import load_fashion_mnist
from hw6core.data.endovis import endovis_folder, read_mapping
from hw6core.models import UNET_HEAD, VGG_HEAD, UNet, vgg16
from hw6core.tasks import FASHION_MEAN, FASHION_STD, IMAGENET_MEAN, IMAGENET_STD

CLASSES, GARMENTS = 8, 10
_SPLITS = ("train", "validation", "test")
FASHION, IMAGENET = (FASHION_MEAN, FASHION_STD), (IMAGENET_MEAN, IMAGENET_STD)
Pair = tuple[Tensor, Tensor]
OfBatch = Callable[[Tensor, Tensor], float]
Statistics = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of each channel, of values in [0, 1]


class Samples(Dataset[Pair]):
    """What ``read`` makes of each item, anew whenever a batch asks for it."""

    def __init__(self, items: Sequence[Any], read: Callable[[Any], Pair]) -> None:
        self.items, self.read = items, read

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Pair:
        return self.read(self.items[index])


def frames(
    root: Path,
    split: str,
    size: tuple[int, int] | None = None,
    transform: Callable[[Tensor, Tensor], Pair] | None = None,
) -> Samples:
    """(3, H, W) float32 image in [0, 1] and (C, H, W) float32 one-hot mask.

    Args:
        size: height and width; None for those of the files.
        transform: torchvision's, of an image and its mask.
    """
    levels = read_mapping(endovis_folder(root) / "mapping.json").levels

    def read(folder: Path) -> Pair:
        image = TF.to_tensor(Image.open(folder / f"{folder.name}_input.jpg").convert("RGB"))
        mask = np.array(Image.open(folder / f"{folder.name}_mask.png"))
        one_hot = torch.from_numpy(np.stack([mask == level for level in levels]).astype(np.float32))
        if size is not None:
            image = TF.resize(image, list(size))
            one_hot = TF.resize(one_hot, list(size), TF.InterpolationMode.NEAREST_EXACT)
        if transform is not None:
            return transform(tv_tensors.Image(image), tv_tensors.Mask(one_hot))
        return image, one_hot

    return Samples(_folders(root, "segmentation", split), read)


def gray_frames(root: Path, split: str, size: tuple[int, int], flip: float = 0.0) -> Samples:
    """(3, H, W) float32 grey image, mirrored with probability ``flip``, and what it lacks of the colours."""
    transform = v2.Compose([v2.RandomHorizontalFlip(flip), v2.Resize(size)])

    def read(folder: Path) -> Pair:
        color = TF.to_tensor(Image.open(folder / f"{folder.name}_input.jpg").convert("RGB"))
        gray = TF.to_tensor(Image.open(folder / f"{folder.name}_gray.jpg").convert("L")).expand(3, -1, -1)
        color, gray = transform(tv_tensors.Image(color), tv_tensors.Image(gray))
        return gray, color - gray

    return Samples(_folders(root, "colorization", f"{split}_cor"), read)


def instruments(root: Path, split: str, size: tuple[int, int], statistics: Statistics, flip: float = 0.0) -> Samples:
    """(3, H, W) float32 normalised image and, for each class but background, 1.0 where the frame shows it."""
    whole = frames(root, split)
    transform = v2.Compose([v2.Resize(size), v2.RandomHorizontalFlip(flip), v2.Normalize(*statistics)])

    def read(folder: Path) -> Pair:
        image, one_hot = whole.read(folder)
        return transform(image), one_hot[1:].flatten(1).any(1).float()

    return Samples(whole.items, read)


def garments(
    images: Tensor, labels: Tensor, size: tuple[int, int], statistics: Statistics, flip: float = 0.0
) -> Samples:
    """(3, *size) float32 normalised image and its label, from (N, 1, 28, 28) uint8 and (N,) int64 in memory."""
    in_range = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*statistics)]
    transform = v2.Compose([v2.Grayscale(3), v2.Pad(2), v2.Resize(size), v2.RandomHorizontalFlip(flip), *in_range])

    def read(index: int) -> Pair:
        return transform(Image.fromarray(images[index, 0].numpy())), labels[index]

    return Samples(range(len(images)), read)


def _folders(root: Path, question: str, split: str) -> list[Path]:
    base = endovis_folder(root) / question / split
    return sorted((inner for inner in base.iterdir() if inner.name.isdecimal()), key=lambda inner: int(inner.name))


def per_sample(
    augmentation: Mapping[str, float], interpolation: v2.InterpolationMode = v2.InterpolationMode.BILINEAR
) -> v2.Transform:
    """torchvision's transforms that draw what `hw6core.data.augment.Augmentation` with these arguments draws.

    Bilinear as there; torchvision's own choice for images is the nearest neighbour. Masks always take the nearest.
    """
    shift, scale = augmentation["shift"], augmentation["scale"]
    moves = v2.RandomAffine(
        augmentation["rotation_degrees"], (shift, shift), (1 - scale, 1 + scale), interpolation=interpolation
    )
    flip = v2.RandomHorizontalFlip(augmentation["horizontal_flip"])
    return v2.Compose([flip, moves, v2.ColorJitter(augmentation["brightness"], augmentation["contrast"])])


def dice_loss(logits: Tensor, one_hot: Tensor, smoothing: float = 1.0) -> Tensor:
    """The suite's loss (mean over classes of the batch taken as one frame) in a loop over classes."""
    probabilities = torch.softmax(logits, dim=1)
    total = torch.zeros(())
    classes = logits.shape[1]
    for index in range(classes):
        predicted, target = probabilities[:, index], one_hot[:, index]
        both = (predicted * target).sum()
        total = total + (2 * both + smoothing) / (predicted.sum() + target.sum() + smoothing)
    return 1 - total / classes


def course_dice(prediction: Tensor, target: Tensor, classes: int) -> float:
    """(N, H, W) classes -> the course's Dice, in loops over frames and classes."""
    scores = []
    for frame in range(len(target)):
        of_frame = []
        for index in range(classes):
            predicted, truth = prediction[frame] == index, target[frame] == index
            answered, shown, both = predicted.sum().item(), truth.sum().item(), (predicted & truth).sum().item()
            if shown == 0:
                of_frame.append(1.0 if answered == 0 else 0.0)
            else:
                of_frame.append(2 * both / (answered + shown))
        scores.append(sum(of_frame) / classes)
    return sum(scores) / len(scores)


def accuracy(outputs: Tensor, labels: Tensor) -> float:
    """Share of right answers in a batch."""
    return (outputs.argmax(1) == labels).float().mean().item()


def train(
    model: nn.Module,
    batches: Iterable[Pair],
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
def score(model: nn.Module, batches: Iterable[Pair], of_batch: OfBatch, device: torch.device) -> float:
    """Mean over the samples of what ``of_batch`` says about outputs and targets."""
    model.eval()
    total = seen = 0.0
    for inputs, targets in batches:
        total += of_batch(model(inputs.to(device)), targets.to(device)) * len(inputs)
        seen += len(inputs)
    return total / seen


def run_quick_suite(root: Path, vgg16_weights: Path, device: torch.device) -> dict[str, float]:
    """Train the quick profile of all seven configurations on the drawn data below ``root``, one after the other.

    Args:
        vgg16_weights: in torchvision's format, in place of ImageNet's.

    Returns:
        The score of each on its test split, of colorization minus the error on validation.
    """
    work = {name: entry.work_on("quick", "synthetic") for name, entry in SUITE.items()}
    flip = {name: (entry.augmentation or {}).get("horizontal_flip", 0.0) for name, entry in SUITE.items()}
    return _train_unets(root, work, flip, device) | _train_vggs(root, work, flip, vgg16_weights, device)


def _train_unets(
    root: Path, work: Mapping[str, Work], flip: Mapping[str, float], device: torch.device
) -> dict[str, float]:
    name, size = "colorization", work["colorization"].working_size
    validation = gray_frames(root, "validation", size)
    samples = {"train": gray_frames(root, "train", size, flip[name]), "validation": validation, "test": validation}
    colors = UNet(3)
    nn.init.zeros_(colors.head.weight)
    scores = {name: _fit(colors, samples, F.mse_loss, lambda x, y: -F.mse_loss(x, y).item(), work[name], device)}
    for name in ("seg-baseline", "seg-augmented", "seg-pretrained"):
        augmentation, size = SUITE[name].augmentation, work[name].working_size
        moved = {} if augmentation is None else {"train": per_sample(augmentation)}
        samples = {split: frames(root, split, size, moved.get(split)) for split in _SPLITS}
        model = UNet(CLASSES)
        if name == "seg-pretrained":
            model.load_state_dict(_without(UNET_HEAD, colors), strict=False)
        scores[name] = _fit(
            model, samples, dice_loss, lambda x, y: course_dice(x.argmax(1), y.argmax(1), CLASSES), work[name], device
        )
    return scores


def _train_vggs(
    root: Path, work: Mapping[str, Work], flip: Mapping[str, float], pretrained: Path, device: torch.device
) -> dict[str, float]:
    scores: dict[str, float] = {}
    models: dict[str, nn.Module] = {}
    train_set, test_set = (load_fashion_mnist(root, which) for which in (True, False))
    for name, weights, statistics in (("vgg-scratch", None, FASHION), ("vgg-frozen", pretrained, IMAGENET)):
        size, count = work[name].working_size, work[name].training_samples
        images, labels = train_set.images[:count], train_set.labels[:count]
        held_out = len(images) // 10
        samples = {
            "train": garments(images[held_out:], labels[held_out:], size, statistics, flip[name]),
            "validation": garments(images[:held_out], labels[:held_out], size, statistics),
            "test": garments(test_set.images, test_set.labels, size, statistics),
        }
        models[name] = vgg16(GARMENTS, weights, freeze_features=weights is not None)
        scores[name] = _fit(models[name], samples, F.cross_entropy, accuracy, work[name], device)

    # From both starts, the new last layer first and then everything.
    name, size = "vgg-new-task", work["vgg-new-task"].working_size
    stages = {"new layer": Work(working_size=size, **SUITE[name].settings["new_layer"]), "everything": work[name]}
    for start, weights, statistics in (("scratch", None, FASHION), ("pretrained", pretrained, IMAGENET)):
        flips = {"train": flip[name]}
        samples = {split: instruments(root, split, size, statistics, flips.get(split, 0.0)) for split in _SPLITS}
        model = vgg16(CLASSES - 1, weights, freeze_features=True)
        if weights is None:
            model.load_state_dict(_without(VGG_HEAD, models["vgg-scratch"]), strict=False)
        for stage, of_stage in stages.items():
            loss, of_batch = F.binary_cross_entropy_with_logits, _right_answers
            scores[f"{name}, {start}, {stage}"] = _fit(model, samples, loss, of_batch, of_stage, device)
            model.requires_grad_(True)
    return scores


def _fit(
    model: nn.Module,
    samples: Mapping[str, Samples],
    loss: Callable[[Tensor, Tensor], Tensor],
    of_batch: OfBatch,
    work: Work,
    device: torch.device,
) -> float:
    """Train, take the best epoch, score the test split."""
    model.to(device)
    learned = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learned, work.learning_rate, weight_decay=work.weight_decay)
    # As the suite does, without an incomplete last batch: the same number of steps.
    whole = len(samples["train"]) >= work.batch_size
    training = DataLoader(samples["train"], work.batch_size, shuffle=True, drop_last=whole)
    validation, test = (DataLoader(samples[split], work.batch_size) for split in ("validation", "test"))
    best, state = float("-inf"), model.state_dict()
    for _ in range(work.epochs):
        train(model, training, loss, optimizer, device)
        found = score(model, validation, of_batch, device)
        if found > best:
            best, state = found, deepcopy(model.state_dict())
    model.load_state_dict(state)
    return score(model, test, of_batch, device)


def _without(head: str, model: nn.Module) -> Mapping[str, Tensor]:
    return {key: value for key, value in model.state_dict().items() if not key.startswith(head)}


def _right_answers(logits: Tensor, shown: Tensor) -> float:
    return ((logits > 0) == (shown > 0)).float().mean().item()
