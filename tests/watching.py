"""Records the calls of networks and optimizers during a run, with torch's hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torchvision.models.vgg
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook


@dataclass(frozen=True)
class Call:
    """A call of a network, or of a layer on its own."""

    module: nn.Module
    training: bool
    inputs: Tensor
    outputs: Tensor


@dataclass
class Watch:
    """Calls in order; the weights of each network at its first call; for each optimizer step its class, settings and
    the gradient of the last parameter."""

    calls: list[Call] = field(default_factory=list)
    starts: list[dict[str, Tensor]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)

    def of(self, *kinds: type[nn.Module]) -> tuple[list[Call], list[Call]]:
        """Calls of modules of these classes: those in training, and the others."""
        calls = [call for call in self.calls if type(call.module) in kinds]
        return [call for call in calls if call.training], [call for call in calls if not call.training]


@contextmanager
def watching(on_call: Callable[[Call], None] = lambda call: None) -> Iterator[Watch]:
    """Record calls and optimizer steps in the block; layers that are called by their network are not recorded."""
    watch = Watch()
    known: list[nn.Module] = []
    depth = 0

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal depth
        depth += 1
        if depth == 1 and inputs[0].device.type != "meta" and not any(module is other for other in known):
            known.append(module)
            watch.starts.append({name: value.clone() for name, value in module.state_dict().items()})

    def leave(module: nn.Module, inputs: tuple[Any, ...], outputs: Tensor) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0 and inputs[0].device.type != "meta":
            training = module.training and torch.is_grad_enabled()
            watch.calls.append(Call(module, training, inputs[0].detach().clone(), outputs.detach().clone()))
            on_call(watch.calls[-1])

    def step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        (group,) = optimizer.param_groups
        settings = {name: value for name, value in group.items() if name != "params"}
        settings |= {"kind": type(optimizer).__name__, "lr": float(group["lr"])}
        settings |= {"trainable": sum(parameter.numel() for parameter in group["params"])}
        watch.steps.append(settings | {"last_gradient": group["params"][-1].grad.clone()})

    hooks = (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave),
        register_optimizer_step_pre_hook(step),
    )
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()


class Layers:
    """`torch.nn` with other sizes of linear layers."""

    def __init__(self, sizes: Mapping[int, int]) -> None:
        class SmallLinear(nn.Linear):
            def __init__(self, inputs: int, outputs: int) -> None:
                super().__init__(sizes.get(inputs, inputs), sizes.get(outputs, outputs))

        self.Linear = SmallLinear

    def __getattr__(self, name: str) -> Any:
        return getattr(nn, name)


def shrink_networks(patch: pytest.MonkeyPatch, units: int = 16) -> None:
    """Give the U-Net and VGG16 a hundredth of their weights, with the same layers and names."""
    channels = [layer if layer == "M" else 8 if layer == 512 else 4 for layer in torchvision.models.vgg.cfgs["D"]]
    patch.setitem(torchvision.models.vgg.cfgs, "D", channels)
    patch.setattr(torchvision.models.vgg, "nn", Layers({512 * 49: 8 * 49, 4096: units}))
    patch.setattr("hw6core.models.UNET_WIDTHS", (8, 12, 16, 20))
