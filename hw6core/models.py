"""The two networks of the suite. Both return logits; softmax and sigmoid are part of the losses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import VGG, cfgs, make_layers

from hw6core.checkpoint import load_weights, transfer
from hw6core.data.fetch import fetch_vgg16_weights

UNET_WIDTHS = (32, 64, 128, 256)
UNET_HEAD = "head"
VGG_HEAD = "classifier.6"
_LEAK = 0.1
_RANDOM_SHARE = 0.25  # factor of torchvision's random weights beside the copied channels of weight 1


class UNet(nn.Module):
    """The course's simplified U-Net (Ronneberger et al. 2015), with the last layer filled in.

    Four stages of two 3x3 convolutions, widths 32-64-128-256, LeakyReLU 0.1, max-pooling on the way down and 4x4
    stride-2 transposed convolutions on the way up, a skip connection at every size, a 1x1 convolution as the head;
    2.44 M parameters, 26 GFLOP for one 256x320 frame. Models for different tasks differ only in ``head``.

    Args:
        num_classes: output channels: the classes of a segmentation, 3 for colours.
        in_channels: channels of the image.
        batch_norm: normalise after every 3x3 convolution.

    Shapes:
        (N, in_channels, H, W) floating -> (N, num_classes, H, W) logits, for any H and W of at least 1: the image is
        padded to a multiple of 8 by replication and the logits are cropped. (In training, batch
        norm needs more than a single frame of at most 8x8.)

    >>> UNet(num_classes=8)(torch.rand(2, 3, 30, 41)).shape
    torch.Size([2, 8, 30, 41])
    """

    def __init__(self, num_classes: int = 8, in_channels: int = 3, batch_norm: bool = True) -> None:
        super().__init__()
        w1, w2, w3, w4 = UNET_WIDTHS
        self.down1 = _double_conv(in_channels, w1, batch_norm)
        self.down2 = _double_conv(w1, w2, batch_norm)
        self.down3 = _double_conv(w2, w3, batch_norm)
        self.bottom = _double_conv(w3, w4, batch_norm)
        self.up3 = nn.ConvTranspose2d(w4, w3, kernel_size=4, stride=2, padding=1)
        self.join3 = _double_conv(2 * w3, w3, batch_norm)
        self.up2 = nn.ConvTranspose2d(w3, w2, kernel_size=4, stride=2, padding=1)
        self.join2 = _double_conv(2 * w2, w2, batch_norm)
        self.up1 = nn.ConvTranspose2d(w2, w1, kernel_size=4, stride=2, padding=1)
        self.join1 = _double_conv(2 * w1, w1, batch_norm)
        self.head = nn.Conv2d(w1, num_classes, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, a=_LEAK, nonlinearity="leaky_relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate") if height % 8 or width % 8 else x
        d1 = self.down1(x)  # (N, 32, H, W)
        d2 = self.down2(F.max_pool2d(d1, 2))  # (N, 64, H/2, W/2)
        d3 = self.down3(F.max_pool2d(d2, 2))  # (N, 128, H/4, W/4)
        x = self.bottom(F.max_pool2d(d3, 2))  # (N, 256, H/8, W/8)
        x = self.join3(torch.cat([self.up3(x), d3], 1))  # (N, 128, H/4, W/4)
        x = self.join2(torch.cat([self.up2(x), d2], 1))  # (N, 64, H/2, W/2)
        x = self.join1(torch.cat([self.up1(x), d1], 1))  # (N, 32, H, W)
        logits: Tensor = self.head(x)  # (N, num_classes, H, W)
        return logits[..., :height, :width]


def start_from_frequencies(head: nn.Conv2d, masks: Tensor) -> None:
    """Set the head's bias so that it first predicts the frequency of each class in ``masks``, (N, H, W) classes.

    (Lin et al. 2017, section 4.1.) Otherwise each of 8 classes starts with an eighth of every frame. The Dice of a
    class absent from a batch is then so low that its gradient vanishes, and a region that such a class once took, for
    instance a dark corner, stays wrong until the end of the training.

    >>> head = nn.Conv2d(4, 2, kernel_size=1)
    >>> start_from_frequencies(head, torch.tensor([[[0, 0, 0, 1]]]))
    >>> head.bias.softmax(0)[0] > 0.5
    tensor(True)
    """
    counts = torch.bincount(masks.flatten(), minlength=head.out_channels) + 1  # + 1: no class is impossible
    assert head.bias is not None
    with torch.no_grad():
        head.bias.copy_((counts / counts.sum()).log())


def _double_conv(in_channels: int, out_channels: int, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers.append(nn.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(out_channels))
        layers.append(nn.LeakyReLU(_LEAK, inplace=True))
    return nn.Sequential(*layers)


class FrozenVGG(VGG):
    """torchvision's VGG with all layers but the last in eval mode, so that there is no dropout on frozen features.

    This also holds when all layers are trained again afterwards (``requires_grad_(True)``): a few epochs at a small
    learning rate on few frames should not lose half of the features that the last layer was trained on.
    """

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.features.eval()
        self.classifier[:-1].eval()
        return self

    def penultimate(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, 4096), the input of the last layer."""
        x = self.avgpool(self.features(images)).flatten(1)  # (N, 25088)
        features: Tensor = self.classifier[:-1](x)  # (N, 4096)
        return features


def vgg16(num_classes: int, weights: str | Path | None = None, freeze_features: bool = False) -> VGG:
    """torchvision's VGG16 (Simonyan and Zisserman 2015) with a new last layer.

    Args:
        num_classes: outputs of the last layer, which is always initialised randomly.
        weights: None for random values, "imagenet" for torchvision's ImageNet weights (from its cache, or downloaded
            and verified), or the path of a state dict in torchvision's format (.pth or .safetensors), whose last layer
            may have any size.
        freeze_features: train only the last layer; all others are in eval mode, also after ``.train()``.

    Shapes:
        (N, 3, H, W) floating, H and W at least 32, normalised with the statistics of the weights -> (N, num_classes)
        logits.

    Raises:
        DataError: the weights are not available, cannot be read safely, or belong to another network.

    >>> with torch.device("meta"):  # no memory for the weights
    ...     model = vgg16(num_classes=10, freeze_features=True)
    >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    ['classifier.6.weight', 'classifier.6.bias']
    """
    state = None
    if weights is not None:
        state = load_weights(fetch_vgg16_weights() if weights == "imagenet" else Path(weights))
    network = FrozenVGG if freeze_features else VGG
    model = network(make_layers(cfgs["D"]), num_classes=num_classes, init_weights=weights is None)
    nn.init.normal_(model.classifier[6].weight, std=0.01)  # torchvision's default for linear layers
    nn.init.zeros_(model.classifier[6].bias)
    if state is not None:
        transfer(state, model, head=VGG_HEAD, source=f"the VGG16 weights {weights}")
    if freeze_features:
        model.requires_grad_(False)
        model.classifier[6].requires_grad_(True)
        model.train()
    return model


@torch.no_grad()
def start_from_shifts(model: VGG, images: Tensor) -> None:
    """Initialise all layers but the last with random weights whose features differ between images from the start.

    After 15 layers of torchvision's random weights without batch norm the features of all images are nearly the same,
    and VGG16 needs its first hundreds of steps to change that. Here the first layer detects edges of random directions
    and spots; every further convolution copies each channel, shifted by at most a pixel (as Dirac and delta-orthogonal
    initialisation do; Zagoruyko and Komodakis 2017, Xiao et al. 2018), plus a quarter of its random weights. Each layer
    is scaled to unit variance on ``images`` (Mishkin and Matas 2016), the units of the linear layers also to mean 0.

    Args:
        model: VGG16 with random weights.
        images: (N, 3, H, W) normalised, on the device of the model; N of 64 is enough.

    >>> model, images = vgg16(num_classes=10), torch.rand(8, 3, 32, 32)
    >>> start_from_shifts(model, images)
    >>> round(model.features[:3](images).var().item(), 2)
    1.0
    """
    first, *others = [layer for layer in model.features if isinstance(layer, nn.Conv2d)]
    first.weight.copy_(_edges_and_spots(first.out_channels))
    for layer in others:
        outputs, inputs = layer.weight.shape[:2]
        source, (row, column) = torch.randperm(outputs) % inputs, torch.randint(3, (2, outputs))
        layer.weight.mul_(_RANDOM_SHARE)
        layer.weight[torch.arange(outputs), source, row, column] += 1
    training = model.training
    hidden = images
    model.eval()
    for layer in (*model.features, model.avgpool, nn.Flatten(), *model.classifier[:-1]):
        hidden = layer(hidden)
        if isinstance(layer, nn.Linear):
            mean = hidden.mean(0)
            layer.bias.sub_(mean)
            hidden = hidden - mean
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.bias is not None
            std = hidden.std()
            layer.weight.div_(std)
            layer.bias.div_(std)
            hidden = hidden / std
    model.train(training)


def _edges_and_spots(count: int) -> Tensor:
    """(count, 3, 3, 3) kernels: edges of random direction and light or dark spots in turn; one in four has random
    weights per colour, the others are grey."""
    number = torch.arange(count).view(-1, 1, 1)
    position, angle = torch.arange(-1.0, 2.0), 2 * math.pi * torch.rand(count, 1, 1)
    edges = angle.cos() * position + angle.sin() * position.view(-1, 1)
    spots = (1 - 2 * (number // 2 % 2)) * torch.ones(3, 3) / 3
    colours = torch.where(number[:, 0] % 4 < 3, 1.0, torch.randn(count, 3))
    return colours.view(-1, 3, 1, 1) * torch.where(number % 2 == 0, edges, spots).unsqueeze(1)


def check_vgg16_weights(path: Path) -> None:
    """Check in a second, without memory for a network, that `vgg16` accepts a file of weights.

    Raises:
        DataError: it does not.
    """
    state = load_weights(path)
    with torch.device("meta"):
        model = VGG(make_layers(cfgs["D"]), init_weights=False)
    transfer(state, model, head=VGG_HEAD, source=f"the VGG16 weights {path}")


def parameter_count(model: nn.Module) -> int:
    """Number of parameter values, trainable or frozen.

    >>> parameter_count(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in model.parameters())
