"""The faults: what each changes, in which training, how strongly. All of them stand in `faults`.

An arithmetic fault is a hook of the model, a fault of software a patch of the library, or of the samples. A slow
machine is a matter of times alone and stands in `benchmarks.detection.times`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
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
_EARLY = 3  # the step at which what happens once happens


@dataclass
class Site:
    """A model about to be trained, and where its training is.

    Attributes:
        draws: where and when faults strike; the training's own random streams do not see it.
        steps: that the training will have.
        step: the one under way, from 1.
        layers: everything that multiplies, in the order of computation.
    """

    model: nn.Module
    draws: torch.Generator
    steps: int
    step: int = 0
    layers: list[nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        self.layers = [
            module for module in self.model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        ]
        self.model.register_forward_pre_hook(self._count)

    def _count(self, *_: object) -> None:
        self.step += self.model.training

    def happens(self, share: float) -> bool:
        return float(torch.rand((), generator=self.draws)) < share


@dataclass(frozen=True)
class Fault:
    """One fault at one strength.

    Attributes:
        family: "arithmetic" or "software".
        strength: in words.
        enter: adds hooks to a model that is thrown away afterwards.
        patches: changes the library for as long as it is entered.
        spoil: changes the samples that are learned from.
        once: it happens once in a training, not whenever the machine computes.
        set_up: it lies in how this training is set up, which nothing else does alike.
    """

    family: str
    name: str
    strength: str
    training: str
    enter: Callable[[Site], None] = lambda site: None
    patches: Callable[[], Patches] = nullcontext
    spoil: Callable[[Split, torch.Generator], Split] = lambda split, draws: split
    once: bool = False
    set_up: bool = False

    def draws(self, seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(crc32(f"{self.name} {self.strength} {seed}".encode()))

    def spoiled(self, split: Split, seed: int) -> Split:
        return self.spoil(split, self.draws(seed))


# ---------------------------------------------------------------------------------------------------------- arithmetic


def bits(values: Tensor) -> Tensor:
    """The bit patterns of float32 values in memory's order, to be changed in place, past autograd."""
    flat = values.data.as_strided((values.numel(),), (1,), values.storage_offset())
    return flat.view(torch.int32)


def flip_one(values: Tensor, bit: int, site: Site) -> None:
    """One bit of one value."""
    place = int(torch.randint(values.numel(), (), generator=site.draws))
    bits(values)[place] ^= 1 << bit


def flip_many(values: Tensor, rate: float, site: Site) -> None:
    """Any bit of any value, each value with this chance."""
    count = int(torch.poisson(torch.tensor(rate * values.numel()), generator=site.draws))
    if count:
        places = torch.randint(values.numel(), (count,), generator=site.draws)
        flips = 1 << torch.randint(31, (count,), generator=site.draws)
        pattern = bits(values)
        pattern[places] ^= flips.int()


def round_to(values: Tensor, mantissa: int) -> None:
    """To so many bits of the mantissa, to the nearest."""
    dropped = 23 - mantissa
    pattern = bits(values)
    pattern.add_(1 << (dropped - 1)).bitwise_and_(-(1 << dropped))


def stuck(values: Tensor, bit: int) -> None:
    bits(values).bitwise_or_(1 << bit)


def lose_tile(values: Tensor, share: float, site: Site, factor: float = 0.0) -> None:
    """A tile of 8x8 of a product (positions by channels) comes out multiplied by a factor, in a share of the calls."""
    if site.happens(share):
        table = values.data.movedim(1, -1).flatten(1, -2) if values.ndim == 4 else values.data.unsqueeze(0)
        table[0, :8, :8] *= factor


def zero_some(values: Tensor, share: float, site: Site) -> None:
    """What was NaN is 0 now: a share of the values."""
    count = int(torch.poisson(torch.tensor(share * values.numel()), generator=site.draws))
    bits(values)[torch.randint(values.numel(), (count,), generator=site.draws)] = 0


def in_outputs(change: Callable[[Tensor, Site], None], site: Site, only: int | None = None, at: float = 0) -> None:
    """Of all layers, or of one; in every call, or in one step's forward pass only."""
    for layer in site.layers if only is None else [_chosen(site, only)]:

        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            if not at or (module.training and site.step == _step(site, at)):
                change(output, site)

        layer.register_forward_hook(hook)


def in_weights(change: Callable[[Tensor, Site], None], site: Site, only: int | None = None, at: float = 0) -> None:
    """Before each step, or before one."""
    layers = site.layers if only is None else [_chosen(site, only)]

    def hook(module: nn.Module, _: Any) -> None:
        if module.training and (not at or site.step == _step(site, at)):
            for layer in layers:
                change(layer.weight, site)  # type: ignore[arg-type]

    site.model.register_forward_pre_hook(hook)


def in_gradients(change: Callable[[Tensor, Site], None], site: Site, only: int | None = None, at: float = 0) -> None:
    """Of weights."""
    for layer in site.layers if only is None else [_chosen(site, only)]:

        def hook(parameter: Tensor) -> None:
            if parameter.grad is not None and (not at or site.step == _step(site, at)):
                change(parameter.grad, site)

        assert isinstance(layer.weight, Tensor)
        layer.weight.register_post_accumulate_grad_hook(hook)


def _chosen(site: Site, place: int) -> nn.Module:
    """-1 the last layer, 0 the first, 1 one in the middle."""
    return site.layers[len(site.layers) // 2 if place == 1 else place]


def _step(site: Site, at: float) -> int:
    return _EARLY if at < 0 else max(round(at * site.steps), 1)


_WHERE = {"first": 0, "middle": 1, "last": -1}
_INTO = {"weights": in_weights, "outputs": in_outputs, "gradients": in_gradients}


def arithmetic() -> Iterator[Fault]:
    for tensor, layers in (("weights", _WHERE), ("outputs", ("first", "last")), ("gradients", ("first", "last"))):
        for where in layers:
            for bit, at, when in ((22, -1.0, "step 3"), (30, -1.0, "step 3"), (30, 0.9, "nine tenths")):
                change = partial(_with_site(flip_one), bit)
                enter = partial(_INTO[tensor], change, only=_WHERE[where], at=at)
                name = f"one bit of the {where} layer's {tensor} flips"
                yield Fault("arithmetic", name, f"bit {bit}, {when}", "classification", _on(enter), once=True)
    for tensor, rates in (
        ("outputs", (1e-7, 1e-6, 1e-5)),
        ("weights", (1e-6, 1e-5, 1e-4)),
        ("gradients", (1e-6, 1e-5, 1e-4)),
    ):
        for rate in rates:
            enter = partial(_INTO[tensor], partial(_with_site(flip_many), rate))
            yield Fault("arithmetic", f"bits of {tensor} flip at a rate", f"{rate:.0e}", "classification", _on(enter))
    for tensor in ("outputs", "gradients"):
        for bit in (10, 18, 22):
            enter = partial(_INTO[tensor], partial(_plain(stuck), bit))
            yield Fault(
                "arithmetic", f"a mantissa bit of {tensor} is stuck", f"bit {bit}", "classification", _on(enter)
            )
        for mantissa in (10, 7, 3):
            enter = partial(_INTO[tensor], partial(_plain(round_to), mantissa))
            yield Fault("arithmetic", f"{tensor} are rounded", f"to {mantissa} bits", "segmentation", _on(enter))
    for factor, what in ((0.0, "zero"), (-8.0, "-8 times what it should be")):
        for share in (0.01, 0.1):
            enter = partial(in_outputs, partial(_with_site(partial(lose_tile, factor=factor)), share))
            name = f"a tile of a product is {what}"
            yield Fault("arithmetic", name, f"{share:.0%} of calls", "classification", _on(enter))
    for share in (1e-4, 1e-2, 0.1):
        enter = partial(in_outputs, partial(_with_site(zero_some), share))
        yield Fault("arithmetic", "NaN is replaced by 0", f"{share:g} of outputs", "classification", _on(enter))


def _with_site(change: Callable[[Tensor, Any, Site], None]) -> Callable[[Any, Tensor, Site], None]:
    return lambda strength, values, site: change(values, strength, site)


def _plain(change: Callable[[Tensor, Any], None]) -> Callable[[Any, Tensor, Site], None]:
    return lambda strength, values, site: change(values, strength)


def _on(enter: Callable[..., None]) -> Callable[[Site], None]:
    return lambda site: enter(site=site)


# ------------------------------------------------------------------------------------------------------------ software


def optimizer_with(change: Callable[[torch.optim.Optimizer], None]) -> Patches:
    """The loop's optimizer, changed after it was made."""

    def make(*args: Any, **options: Any) -> torch.optim.Optimizer:
        optimizer = schedule.make_optimizer(*args, **options)
        change(optimizer)
        return optimizer

    return patch.object(training, "make_optimizer", make)


def _without_decay(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0


def _forgetful(every: int, optimizer: torch.optim.Optimizer) -> None:
    """Its moments are lost after so many steps."""
    done = [0]

    def forget(*_: object) -> None:
        done[0] += 1
        if done[0] % every == 0:
            optimizer.state.clear()

    optimizer.register_step_post_hook(forget)


def _rate(factor: float) -> Patches:
    original = schedule.one_cycle
    return patch.object(training, "one_cycle", lambda *args: factor * original(*args))


def _scaled_loss(name: str, factor: float) -> Patches:
    if name == "classification":
        original = losses.cross_entropy
        return patch.object(losses, "cross_entropy", lambda *args: factor * original(*args))
    forward = losses.DiceLoss.forward
    return patch.object(losses.DiceLoss, "forward", lambda *args: factor * forward(*args))


def _apart(images: Tensor, masks: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor | None]:
    """Image and mask get draws of their own."""
    return augment(images, None, *rest)[0], augment(images, masks, *rest)[1]


def _same_order() -> Patches:
    drawn: dict[int, Tensor] = {}
    original = torch.randperm

    def order(count: int, **options: Any) -> Tensor:
        return drawn.setdefault(count, original(count, **options))

    return patch.object(torch, "randperm", order)


def _other_reading(task: type, change: Callable[[Tensor], Tensor]) -> Patches:
    """Inputs are read otherwise in evaluation than in training."""
    original: Any = task.evaluation_batch  # type: ignore[attr-defined]
    trained: Any = task.training_batch  # type: ignore[attr-defined]
    learning = [False]

    def training_batch(self: Any, *args: Any) -> tuple[Tensor, Tensor]:
        learning[0] = True
        try:
            found: tuple[Tensor, Tensor] = trained(self, *args)
            return found
        finally:
            learning[0] = False

    def evaluation_batch(self: Any, *args: Any) -> tuple[Tensor, Tensor]:
        inputs, targets = original(self, *args)
        return (inputs if learning[0] else change(inputs)), targets

    return patch.multiple(task, evaluation_batch=evaluation_batch, training_batch=training_batch)


def _minus(shift: float, inputs: Tensor) -> Tensor:
    return inputs - shift


def _moved_masks(pixels: int, split: Split, _: torch.Generator) -> Split:
    return Split(split.inputs, split.targets.roll((pixels, pixels), (-2, -1)))


def _wrong(share: float, classes: int, split: Split, draws: torch.Generator) -> Split:
    """A share of labels, or of a mask's pixels, says another class."""
    chosen = torch.rand(split.targets.shape, generator=draws) < share
    other = torch.randint(1, classes, split.targets.shape, generator=draws)
    return Split(
        split.inputs, torch.where(chosen, (split.targets + other) % classes, split.targets).to(split.targets.dtype)
    )


def _exchanged(share: float, split: Split, draws: torch.Generator) -> Split:
    """Classes 1 and 2, in a share of the samples."""
    chosen = torch.rand(len(split), generator=draws) < share
    chosen = chosen.view(-1, *[1] * (split.targets.ndim - 1))
    other = torch.where((split.targets == 1) | (split.targets == 2), 3 - split.targets.int(), split.targets.int())
    return Split(split.inputs, torch.where(chosen, other, split.targets.int()).to(split.targets.dtype))


def _part(share: float, split: Split, _: torch.Generator) -> Split:
    count = round(share * len(split))
    return Split(split.inputs[:count], split.targets[:count])


def _frozen_averages(site: Site) -> None:
    for module in site.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0


def _evaluates_training(site: Site) -> None:
    site.model.eval = site.model.train  # type: ignore[method-assign]


def _dropout(always: bool, share: float, site: Site) -> None:
    for module in site.model.modules():
        if isinstance(module, nn.Dropout):
            module.forward = lambda input: F.dropout(input, share, always)  # type: ignore[method-assign]


def _frozen_layers(share: float, site: Site) -> None:
    for layer in site.layers[: round(share * len(site.layers))]:
        layer.requires_grad_(False)


def _no_gradient(values: Tensor, _: Site) -> None:
    values.zero_()


def software() -> Iterator[Fault]:
    both = ("segmentation", "classification")
    classes, steps = {"segmentation": 4, "classification": 10}, {"segmentation": 6, "classification": 20}
    makers = {"segmentation": tasks.SegmentationTask, "classification": tasks.ClassificationTask}
    new = partial(Fault, "software")
    for name in both:
        for factor in (0.1, 0.3, 3.0):
            yield new("learning rate times", f"{factor:g}", name, patches=partial(_rate, factor))
        decay = "weight decay is off"
        yield new(decay, "off", name, patches=partial(optimizer_with, _without_decay))
        for every, what in ((steps[name], "each epoch"), (1, "each step")):
            forget = partial(optimizer_with, partial(_forgetful, every))
            yield new("the optimizer's moments are lost", what, name, patches=forget)
        same = partial(_same_order)
        yield new("the same order in every epoch", "on", name, patches=same)
        for share in (0.5, 0.75):
            yield new("a part of the data is not read", f"{1 - share:.0%}", name, spoil=partial(_part, share))
        for factor in (0.1, 128.0):
            yield new("the loss is scaled", f"{factor:g}", name, patches=partial(_scaled_loss, name, factor))
        for share in (0.3, 1.0):
            yield new("two classes are exchanged", f"{share:.0%}", name, spoil=partial(_exchanged, share))
        last = partial(patch.object, training._Loop, "_is_better", lambda self, score: True)
        yield new("the last epoch is kept, not the best", "on", name, patches=last)
        wrong = "labels are wrong" if name == "classification" else "masks' pixels are wrong"
        for share in (0.02, 0.05, 0.10):
            yield new(wrong, f"{share:.0%}", name, spoil=partial(_wrong, share, classes[name]))
        for where in ("first", "last"):
            lost = _on(partial(in_gradients, _no_gradient, only=_WHERE[where]))
            yield new("one layer's gradient is lost", where, name, lost)
        yield new("evaluation in training mode", "on", name, _evaluates_training)
    segmentation, classification = both
    constant = partial(patch.object, training, "one_cycle", lambda *args: 1.0)
    yield new("the learning rate stays at its peak", "on", segmentation, patches=constant)
    kept = partial(patch.object, torch.optim.Optimizer, "zero_grad", lambda self, set_to_none=True: None)
    yield new("gradients are not cleared", "on", segmentation, patches=kept)
    yield new("batch norm's averages are not updated", "on", segmentation, _frozen_averages)
    start = partial(patch, "benchmarks.detection.trainings.transfer", lambda *args: [])
    yield new("pre-trained weights are not loaded", "on", classification, patches=start)
    yield new(
        "image and mask are augmented apart",
        "on",
        segmentation,
        patches=partial(patch.object, tasks, "augment", _apart),
    )
    off = partial(patch.object, tasks, "augment", lambda images, masks, *rest: (images, masks))
    yield new("augmentation is off", "on", segmentation, patches=off)
    for pixels in (1, 2, 4):
        yield new("masks are moved", f"{pixels} pixels", segmentation, spoil=partial(_moved_masks, pixels))
    for share in (0.25, 0.5):
        yield new(
            "the first layers do not learn", f"{share:.0%}", segmentation, partial(_frozen_layers, share), set_up=True
        )
    swap = partial(_other_reading, makers[segmentation], lambda inputs: inputs.flip(1))
    yield new("evaluation reads BGR for RGB", "on", segmentation, patches=swap)
    for share in (0.1, 0.3):
        yield new(
            "dropout is left on in evaluation",
            f"{share:g}",
            classification,
            partial(_dropout, True, share),
            set_up=True,
        )
    yield new("dropout is off in training", "on", classification, partial(_dropout, False, 0.0), set_up=True)
    for shift in (0.1, 0.5):
        read = partial(_other_reading, makers[classification], partial(_minus, shift))
        yield new("evaluation normalises otherwise", f"mean off by {shift:g}", classification, patches=read)


FAULTS: tuple[Fault, ...] = (*arithmetic(), *software())
