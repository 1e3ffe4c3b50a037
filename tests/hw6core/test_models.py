"""Both networks: shapes, trainable and frozen layers, loading of weights."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import vgg16 as torchvision_vgg16
from torchvision.models.vgg import VGG

from hw6core import UNet, vgg16
from hw6core.models import FrozenVGG, start_from_frequencies, start_from_shifts
from tests.watching import Layers


def plain_unet(state: Mapping[str, Tensor], images: Tensor, batch_norm: bool, training: bool) -> Tensor:
    """A second implementation of the network; it takes the weights in the order of the state dict."""
    weights = iter(state.values())

    def convolved_twice(x: Tensor) -> Tensor:
        for _ in range(2):
            if batch_norm:
                weight, scale, shift, mean, variance, _ = islice(weights, 6)
                x = F.conv2d(x, weight, padding=1)
                if training:
                    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
                mean, scale, shift = (entry.view(1, -1, 1, 1) for entry in (mean, scale, shift))
                x = (x - mean) / (variance.view(1, -1, 1, 1) + 1e-5).sqrt() * scale + shift
            else:
                weight, bias = islice(weights, 2)
                x = F.conv2d(x, weight, bias, padding=1)
            x = torch.where(x > 0, x, 0.1 * x)
        return x

    def halved(x: Tensor) -> Tensor:
        corners: Tensor = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return corners.amax((3, 5))

    height, width = images.shape[2:]
    rows, columns = ((torch.arange(-(-size // 8) * 8)).clamp(max=size - 1) for size in (height, width))
    first = convolved_twice(images[:, :, rows][..., columns])
    second = convolved_twice(halved(first))
    third = convolved_twice(halved(second))
    x = convolved_twice(halved(third))
    for skipped in (third, second, first):
        weight, bias = islice(weights, 2)
        x = convolved_twice(torch.cat([F.conv_transpose2d(x, weight, bias, stride=2, padding=1), skipped], 1))
    weight, bias = islice(weights, 2)
    logits: Tensor = F.conv2d(x, weight, bias)
    return logits[:, :, :height, :width]


@pytest.mark.parametrize(("batch_norm", "training"), [(True, True), (True, False), (False, False)])
def test_unet_matches_a_second_implementation_with_the_same_weights(batch_norm: bool, training: bool) -> None:
    source = torch.Generator().manual_seed(0)
    model = UNet(num_classes=5, in_channels=2, batch_norm=batch_norm).double().train(training)
    for tensor in model.state_dict().values():  # also of batch norm, so that nothing is 0 or 1
        if tensor.ndim > 1:
            tensor.copy_(torch.randn(tensor.shape, generator=source) * tensor[0].numel() ** -0.5)
        elif tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=source))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.rand(2, 2, 13, 21, generator=source, dtype=torch.float64)

    with torch.no_grad():
        torch.testing.assert_close(model(images), plain_unet(before, images, batch_norm, training))

    if training:  # the running statistics of the first batch norm have momentum 0.1
        weight, _, _, mean, variance, _ = islice(before.values(), 6)
        x = F.conv2d(F.pad(images, (0, 3, 0, 3), mode="replicate"), weight, padding=1)
        moved = list(islice(model.state_dict().values(), 6))
        torch.testing.assert_close(moved[3], 0.9 * mean + 0.1 * x.mean((0, 2, 3)))
        torch.testing.assert_close(moved[4], 0.9 * variance + 0.1 * x.var((0, 2, 3)))


def test_initial_weights_keep_the_variance_of_the_input() -> None:
    """He et al. 2015 for a leak of 0.1: variance 2 / (1.01 n) with n inputs, and no bias."""
    torch.manual_seed(0)
    model = UNet(batch_norm=False)
    for layer in (module for module in model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)):
        assert layer.bias is not None
        assert not layer.bias.any()
        # torch's fan-in is the second axis, also for transposed convolutions.
        expected = (2 / 1.01 / layer.weight[0].numel()) ** 0.5
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.15)


def test_the_head_first_predicts_the_frequency_of_each_class() -> None:
    masks = torch.tensor([[[0, 0, 0, 0, 0], [0, 2, 2, 2, 1]]])  # 6, 1 and 3 of 10, plus one each
    head = UNet(num_classes=3).head
    start_from_frequencies(head, masks)
    with torch.no_grad():
        answer = head(torch.zeros(1, 32, 1, 1)).softmax(1).flatten()
    torch.testing.assert_close(answer, torch.tensor([7, 2, 4]) / 13)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 9), (37, 53), (1, 40), (256, 320)])
def test_unet_logits_have_the_size_of_the_image(size: tuple[int, int]) -> None:
    with torch.inference_mode():
        logits = UNet(num_classes=5).eval()(torch.rand(1, 3, *size))
    assert logits.shape == (1, 5, *size)
    assert bool(logits.isfinite().all())


# VGG16 has 138 million parameters: it is built on the "meta" device if possible, otherwise once per module.


def given_weights() -> dict[str, Tensor]:
    """VGG16 weights in torchvision's format; the rows of each tensor are equal, so that the file is small."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in torchvision_vgg16().state_dict().items()}
    source = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        scale = 0.1 if len(shape) == 1 else (2 / shape[1:].numel()) ** 0.5
        state[name] = (torch.randn(shape[1:] or shape, generator=source) * scale).expand(shape)
    return state


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> VGG:
    """With seven outputs, from a file in torchvision's format with a head of 1000 classes."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(given_weights(), path)
    torch.manual_seed(0)
    return vgg16(7, weights=path, freeze_features=True)


def test_vgg16_has_the_layers_of_torchvision_and_a_last_layer_of_its_own() -> None:
    with torch.device("meta"):
        ours, theirs = vgg16(10), torchvision_vgg16(num_classes=10)
    assert type(ours) is VGG
    assert str(ours) == str(theirs)
    assert all(parameter.requires_grad for parameter in ours.parameters())


@pytest.fixture
def few_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 instead of 4096 units in the two hidden linear layers, which have nine of ten weights."""
    monkeypatch.setattr("torchvision.models.vgg.nn", Layers({4096: 64}))


@pytest.mark.usefixtures("few_units")
def test_every_parameter_of_vgg16_from_scratch_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = vgg16(5)

    logits = model(torch.randn(2, 3, 32, 32))
    F.cross_entropy(logits, torch.tensor([0, 3])).backward()

    assert logits.shape == (2, 5)
    with torch.no_grad():
        assert not torch.equal(model(torch.ones(1, 3, 32, 32)), model(torch.ones(1, 3, 32, 32)))  # dropout
    # torchvision's initial weights: He et al. (fan out) for convolutions, small linear weights, no bias.
    for layer, spread in ((model.features[7], (2 / (9 * 128)) ** 0.5), (model.classifier[3], 0.01)):
        assert float(layer.weight.detach().std()) == pytest.approx(spread, rel=0.05)
        assert not layer.bias.any()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.usefixtures("few_units")
def test_start_from_shifts_gives_features_that_differ_between_images() -> None:
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def similarity(model: VGG) -> float:
        """Mean cosine similarity of the features before the last layer."""
        with torch.no_grad():
            found = F.normalize(model.classifier[:-1](model.avgpool(model.features(images)).flatten(1)), dim=1)
        return float((found @ found.T).mean())

    torch.manual_seed(0)
    model = vgg16(5).eval()
    head = model.classifier[6].weight.clone()
    before = similarity(model)
    start_from_shifts(model, images)

    assert before > 0.99
    assert similarity(model) < 0.7
    assert torch.equal(model.classifier[6].weight, head)
    hidden = images
    with torch.no_grad():
        for layer in (*model.features, model.avgpool, nn.Flatten(), *model.classifier[:-1]):
            hidden = layer(hidden)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert float(hidden.std()) == pytest.approx(1, abs=1e-3)
            if isinstance(layer, nn.Linear):
                assert torch.allclose(hidden.mean(0), torch.zeros(64), atol=1e-3)
    # Each channel of the second block's first convolution has one dominant weight, at a random position; each of its
    # 64 inputs is copied twice.
    kernels = model.features[5].weight.detach().flatten(1)
    largest = kernels.argmax(1)
    assert torch.equal(torch.bincount(largest // 9), torch.full((64,), 2))
    assert len(torch.unique(largest % 9)) == 9
    assert float((kernels.max(1).values / kernels.abs().sort(1).values[:, -2]).min()) > 3


def test_given_weights_are_loaded_in_every_layer_but_the_last(frozen: VGG) -> None:
    given = given_weights()
    for name, tensor in frozen.state_dict().items():
        if not name.startswith("classifier.6."):
            assert torch.equal(tensor, given[name]), name
    assert frozen.classifier[6].weight.shape == (7, 4096)
    assert float(frozen.classifier[6].weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not frozen.classifier[6].bias.any()


def test_frozen_layers_have_no_dropout(frozen: VGG) -> None:
    images = torch.randn(2, 3, 32, 40)
    frozen.train()
    first, second = frozen(images), frozen(images)
    assert torch.equal(first, second)
    assert frozen.training
    assert frozen.classifier[6].training
    assert not any(layer.training for layer in [*frozen.features, *frozen.classifier[:6]])
    assert torch.equal(first, frozen.eval()(images))
    assert first.shape == (2, 7)


def test_penultimate_features_are_the_input_of_the_last_layer(frozen: VGG) -> None:
    assert isinstance(frozen, FrozenVGG)
    images = torch.randn(2, 3, 32, 32)
    features = frozen.penultimate(images)
    assert features.shape == (2, 4096)
    torch.testing.assert_close(frozen.classifier[6](features), frozen(images))


def test_only_the_last_layer_of_a_frozen_vgg16_is_trained(frozen: VGG) -> None:
    given = given_weights()
    before = {name: tensor.clone() for name, tensor in frozen.classifier[6].state_dict().items()}
    optimizer = torch.optim.AdamW(frozen.parameters(), lr=0.01, weight_decay=0.1)

    F.cross_entropy(frozen.train()(torch.randn(2, 3, 32, 32)), torch.tensor([1, 6])).backward()
    optimizer.step()

    learning = [name for name, parameter in frozen.named_parameters() if parameter.requires_grad]
    assert learning == ["classifier.6.weight", "classifier.6.bias"]
    for name, parameter in frozen.named_parameters():
        if name in learning:
            assert parameter.grad is not None
            assert bool(parameter.grad.isfinite().all())
            assert bool(parameter.grad.any())
        else:
            assert parameter.grad is None, name
            assert torch.equal(parameter, given[name]), name
    assert not torch.equal(frozen.classifier[6].weight, before["weight"])
    frozen.classifier[6].load_state_dict(before)  # the other tests share this network
