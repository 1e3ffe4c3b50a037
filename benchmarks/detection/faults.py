"""The faults: what each changes, in which training, and how strongly; `FAULTS` has all of them.

An arithmetic fault is a hook of the model; a software fault is a patch of the library or a change of the samples. Slow
machines are simulated in `benchmarks.detection.times`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any
from unittest.mock import patch
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hw6core import losses, schedule, tasks, training
from hw6core.data.augment import augment
from hw6core.training import Split

Patches = AbstractContextManager[object]
_EARLY = 3  # the step of a fault that happens once, early


@dataclass
class Site:
    """A model in training, into which a fault is injected."""

    model: nn.Module
    draws: torch.Generator  # for place and time of faults; the training has its own generators
    steps: int  # of the whole training
    step: int = 0  # the current one, from 1
    layers: list[nn.Module] = field(init=False)  # convolutions and linear layers, in the order of computation

    def __post_init__(self) -> None:
        self.layers = [
            module for module in self.model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        ]
        self.model.register_forward_pre_hook(self._count)

    def _count(self, *_: object) -> None:
        self.step += self.model.training

    def chosen(self, where: str) -> list[nn.Module]:
        """The "first", "middle" or "last" layer; all layers for ""."""
        places = {"first": 0, "middle": len(self.layers) // 2, "last": -1}
        return [self.layers[places[where]]] if where else self.layers

    def is_at(self, when: float | None) -> bool:
        """Whether the training is at this share of its steps; 0 is an early step, None every step."""
        return when is None or self.step == (max(round(when * self.steps), 1) if when else _EARLY)

    def places(self, values: Tensor, rate: float) -> Tensor:
        """Random indices of values, at this rate."""
        count = int(torch.poisson(torch.tensor(rate * values.numel()), generator=self.draws))
        return torch.randint(values.numel(), (count,), generator=self.draws)


@dataclass(frozen=True)
class Fault:
    """One fault at one strength; `sound` is a training without any. Name and strength seed its random numbers."""

    name: str
    strength: str
    training: str
    enter: Callable[[Site], None] = lambda site: None  # adds hooks to the model, which is discarded afterwards
    patches: Callable[[], Patches] = nullcontext  # patches the library
    spoil: Callable[[Split, torch.Generator], Split] = lambda split, draws: split  # changes the training samples
    once: bool = False  # whether it happens only once in a training
    set_up: bool = False  # whether it is in the set-up of this training, which a fingerprint does not use

    def draws(self, seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(crc32(f"{self.name} {self.strength} {seed}".encode()))

    @property
    def key(self) -> tuple[str, str, str]:
        return self.training, self.name, self.strength


def sound(training: str) -> Fault:
    """A training without a fault."""
    return Fault("", "", training)


# ---------------------------------------------------------------------------------------------------------- arithmetic


def bits(values: Tensor) -> Tensor:
    """A view of float32 values as bit patterns, in memory order, for changes in place that autograd does not see."""
    flat = values.data.as_strided((values.numel(),), (1,), values.storage_offset())
    return flat.view(torch.int32)


def flip_one(values: Tensor, site: Site, bit: int) -> None:
    """Flip one bit of one random value."""
    place = int(torch.randint(values.numel(), (), generator=site.draws))
    bits(values)[place] ^= 1 << bit


def flip_many(values: Tensor, site: Site, rate: float) -> None:
    """Flip a random bit of each value with probability ``rate``."""
    places = site.places(values, rate)
    flips = 1 << torch.randint(31, places.shape, generator=site.draws)
    pattern = bits(values)
    pattern[places] ^= flips.int()


def round_to(values: Tensor, _: Site | None, mantissa: int) -> None:
    """Round to the nearest value with so many bits of mantissa."""
    dropped = 23 - mantissa
    bits(values).add_(1 << (dropped - 1)).bitwise_and_(-(1 << dropped))


def stick(values: Tensor, _: Site | None, bit: int) -> None:
    """Set one bit of every value."""
    bits(values).bitwise_or_(1 << bit)


def lose_tile(values: Tensor, site: Site, share: float, factor: float) -> None:
    """Multiply an 8x8 tile (positions by channels) of a product by a factor, in a share of the calls."""
    if float(torch.rand((), generator=site.draws)) < share:
        table = values.data.movedim(1, -1).flatten(1, -2) if values.ndim == 4 else values.data.unsqueeze(0)
        table[0, :8, :8] *= factor


def zero_some(values: Tensor, site: Site, share: float) -> None:
    """Set a share of the values to 0, as a replacement of NaN does."""
    bits(values)[site.places(values, share)] = 0


Change = Callable[[Tensor, Site], object]


def in_outputs(site: Site, change: Change, where: str = "", when: float | None = None) -> None:
    """Change the outputs of one layer or of all, in every call or in one step's forward pass only."""

    def hook(module: nn.Module, _: Any, output: Tensor) -> None:
        if when is None or (module.training and site.is_at(when)):
            change(output, site)

    for layer in site.chosen(where):
        layer.register_forward_hook(hook)


def in_weights(site: Site, change: Change, where: str = "", when: float | None = None) -> None:
    """Change weights before every step, or before one."""

    def hook(module: nn.Module, _: Any) -> None:
        if module.training and site.is_at(when):
            for layer in site.chosen(where):
                change(layer.weight, site)  # type: ignore[arg-type]

    site.model.register_forward_pre_hook(hook)


def in_gradients(site: Site, change: Change, where: str = "", when: float | None = None) -> None:
    """Change the gradients of weights in every step, or in one."""

    def hook(parameter: Tensor) -> None:
        if parameter.grad is not None and site.is_at(when):
            change(parameter.grad, site)

    for layer in site.chosen(where):
        layer.weight.register_post_accumulate_grad_hook(hook)  # type: ignore[operator]


_INTO = {"weights": in_weights, "outputs": in_outputs, "gradients": in_gradients}


def arithmetic() -> Iterator[Fault]:
    for tensor, layers in (("weights", "first middle last"), ("outputs", "first last"), ("gradients", "first last")):
        for where in layers.split():
            for bit, when, text in ((22, 0.0, "step 3"), (30, 0.0, "step 3"), (30, 0.9, "nine tenths")):
                name = f"one bit of the {where} layer's {tensor} flips"
                enter = partial(_INTO[tensor], change=partial(flip_one, bit=bit), where=where, when=when)
                yield Fault(name, f"bit {bit}, {text}", "classification", enter, once=True)
    rates = {"outputs": (1e-7, 1e-6, 1e-5), "weights": (1e-6, 1e-5, 1e-4), "gradients": (1e-6, 1e-5, 1e-4)}
    for tensor, those in rates.items():
        for rate in those:
            enter = partial(_INTO[tensor], change=partial(flip_many, rate=rate))
            yield Fault(f"bits of {tensor} flip at a rate", f"{rate:.0e}", "classification", enter)
    for tensor in ("outputs", "gradients"):
        for bit in (10, 18, 22):
            enter = partial(_INTO[tensor], change=partial(stick, bit=bit))
            yield Fault(f"a mantissa bit of {tensor} is stuck", f"bit {bit}", "classification", enter)
        for mantissa in (10, 7, 3):
            enter = partial(_INTO[tensor], change=partial(round_to, mantissa=mantissa))
            yield Fault(f"{tensor} are rounded", f"to {mantissa} bits", "segmentation", enter)
    for factor, what in ((0.0, "zero"), (-8.0, "-8 times what it should be")):
        for share in (0.01, 0.1):
            enter = partial(in_outputs, change=partial(lose_tile, share=share, factor=factor))
            yield Fault(f"a tile of a product is {what}", f"{share:.0%} of calls", "classification", enter)
    for share in (1e-4, 1e-2, 0.1):
        enter = partial(in_outputs, change=partial(zero_some, share=share))
        yield Fault("NaN is replaced by 0", f"{share:g} of outputs", "classification", enter)


# ------------------------------------------------------------------------------------------------------------ software


def _without_decay() -> Patches:
    def make(model: nn.Module, settings: schedule.Schedule, **options: Any) -> torch.optim.Optimizer:
        return schedule.make_optimizer(model, replace(settings, weight_decay=0.0), **options)

    return patch.object(training, "make_optimizer", make)


def _moments_lost(every: int) -> Patches:
    """Clear the optimizer's state each time it has taken this number of steps."""

    def make(*args: Any, **options: Any) -> torch.optim.Optimizer:
        optimizer, done = schedule.make_optimizer(*args, **options), count(1)

        def forget(*_: object) -> None:
            if next(done) % every == 0:
                optimizer.state.clear()

        optimizer.register_step_post_hook(forget)
        return optimizer

    return patch.object(training, "make_optimizer", make)


def _scaled_rate(factor: float) -> Patches:
    return patch.object(training, "one_cycle", lambda *args: factor * schedule.one_cycle(*args))


def _scaled_loss(name: str, factor: float) -> Patches:
    holder, loss = (losses, "cross_entropy") if name == "classification" else (losses.DiceLoss, "forward")
    original = getattr(holder, loss)
    return patch.object(holder, loss, lambda *args: factor * original(*args))


def _augment_apart(images: Tensor, masks: Any, *rest: Any) -> tuple[Tensor, Any]:
    """Augment image and mask with different random numbers."""
    return augment(images, None, *rest)[0], augment(images, masks, *rest)[1]


def _fixed_order() -> Patches:
    drawn: dict[int, Tensor] = {}
    original = torch.randperm
    return patch.object(torch, "randperm", lambda n, **options: drawn.setdefault(n, original(n, **options)))


def _change_in_evaluation(task: Any, change: Callable[[Tensor], Tensor]) -> Patches:
    """Change the inputs in evaluation only."""
    original = task.evaluation_batch

    def evaluation_batch(self: Any, *args: Any) -> tuple[Tensor, Tensor]:
        inputs, targets = original(self, *args)
        # A training batch may be made of it, in the normal mode.
        return (change(inputs) if torch.is_inference_mode_enabled() else inputs), targets

    return patch.object(task, "evaluation_batch", evaluation_batch)


def _moved_masks(split: Split, _: torch.Generator, pixels: int) -> Split:
    return Split(split.inputs, split.targets.roll((pixels, pixels), (-2, -1)))


def _wrong_labels(split: Split, draws: torch.Generator, share: float, classes: int) -> Split:
    """Change a share of the labels, or of the pixels of masks, to another class."""
    chosen = torch.rand(split.targets.shape, generator=draws) < share
    other = (split.targets + torch.randint(1, classes, split.targets.shape, generator=draws)) % classes
    return Split(split.inputs, torch.where(chosen, other, split.targets).to(split.targets.dtype))


def _swapped_classes(split: Split, draws: torch.Generator, share: float) -> Split:
    """Swap classes 1 and 2 in a share of the samples."""
    chosen = torch.rand(len(split), generator=draws) < share
    targets = split.targets.int()
    other = torch.where((targets == 1) | (targets == 2), 3 - targets, targets)
    chosen = chosen.view(-1, *[1] * (targets.ndim - 1))
    return Split(split.inputs, torch.where(chosen, other, targets).to(split.targets.dtype))


def _first_part(split: Split, _: torch.Generator, share: float) -> Split:
    count = round(share * len(split))
    return Split(split.inputs[:count], split.targets[:count])


def _frozen_averages(site: Site) -> None:
    for module in site.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0


def _evaluates_training(site: Site) -> None:
    site.model.eval = site.model.train  # type: ignore[method-assign]


def _dropout(site: Site, always: bool, share: float) -> None:
    for module in site.model.modules():
        if isinstance(module, nn.Dropout):
            module.forward = lambda input: F.dropout(input, share, always)  # type: ignore[method-assign]


def _frozen_layers(site: Site, share: float) -> None:
    for layer in site.layers[: round(share * len(site.layers))]:
        layer.requires_grad_(False)


def software() -> Iterator[Fault]:
    segmentation, classification = "segmentation", "classification"
    for name, classes, steps in ((segmentation, 4, 6), (classification, 10, 20)):
        for factor in (0.1, 0.3, 3.0):
            yield Fault("learning rate times", f"{factor:g}", name, patches=partial(_scaled_rate, factor))
        yield Fault("weight decay is off", "off", name, patches=_without_decay)
        for every, what in ((steps, "each epoch"), (1, "each step")):
            yield Fault("the optimizer's moments are lost", what, name, patches=partial(_moments_lost, every))
        yield Fault("the same order in every epoch", "on", name, patches=_fixed_order)
        for share in (0.5, 0.75):
            yield Fault(
                "a part of the data is not read", f"{1 - share:.0%}", name, spoil=partial(_first_part, share=share)
            )
        for factor in (0.1, 128.0):
            yield Fault("the loss is scaled", f"{factor:g}", name, patches=partial(_scaled_loss, name, factor))
        for share in (0.3, 1.0):
            yield Fault("two classes are exchanged", f"{share:.0%}", name, spoil=partial(_swapped_classes, share=share))
        last = partial(patch.object, training._Loop, "_is_better", lambda self, score: True)
        yield Fault("the last epoch is kept, not the best", "on", name, patches=last)
        wrong = "labels are wrong" if name == classification else "masks' pixels are wrong"
        for share in (0.02, 0.05, 0.10):
            yield Fault(wrong, f"{share:.0%}", name, spoil=partial(_wrong_labels, share=share, classes=classes))
        for where in ("first", "last"):
            lost = partial(in_gradients, change=lambda values, site: values.zero_(), where=where)
            yield Fault("one layer's gradient is lost", where, name, lost)
        yield Fault("evaluation in training mode", "on", name, _evaluates_training)
    constant = partial(patch.object, training, "one_cycle", lambda *args: 1.0)
    yield Fault("the learning rate stays at its peak", "on", segmentation, patches=constant)
    kept = partial(patch.object, torch.optim.Optimizer, "zero_grad", lambda self, set_to_none=True: None)
    yield Fault("gradients are not cleared", "on", segmentation, patches=kept)
    yield Fault("batch norm's averages are not updated", "on", segmentation, _frozen_averages)
    start = partial(patch, "benchmarks.detection.trainings.transfer", lambda *args: [])
    yield Fault("pre-trained weights are not loaded", "on", classification, patches=start)
    apart = partial(patch.object, tasks, "augment", _augment_apart)
    yield Fault("image and mask are augmented apart", "on", segmentation, patches=apart)
    off = partial(patch.object, tasks, "augment", lambda images, masks, *rest: (images, masks))
    yield Fault("augmentation is off", "on", segmentation, patches=off)
    for pixels in (1, 2, 4):
        yield Fault("masks are moved", f"{pixels} pixels", segmentation, spoil=partial(_moved_masks, pixels=pixels))
    for share in (0.25, 0.5):
        frozen = partial(_frozen_layers, share=share)
        yield Fault("the first layers do not learn", f"{share:.0%}", segmentation, frozen, set_up=True)
    swapped = partial(_change_in_evaluation, tasks.SegmentationTask, lambda inputs: inputs.flip(1))
    yield Fault("evaluation reads BGR for RGB", "on", segmentation, patches=swapped)
    for share in (0.1, 0.3):
        left_on = partial(_dropout, always=True, share=share)
        yield Fault("dropout is left on in evaluation", f"{share:g}", classification, left_on, set_up=True)
    without = partial(_dropout, always=False, share=0.0)
    yield Fault("dropout is off in training", "on", classification, without, set_up=True)
    for shift in (0.1, 0.5):
        read = partial(_change_in_evaluation, tasks.ClassificationTask, partial(torch.sub, other=shift))
        yield Fault("evaluation normalises otherwise", f"mean off by {shift:g}", classification, patches=read)


FAULTS: tuple[Fault, ...] = (*arithmetic(), *software())
