"""The fast training loop takes the same steps as a straightforward one."""

from __future__ import annotations

import copy
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.speed import baseline
from hw6core import tasks
from hw6core.device import Precision, memory_format
from hw6core.losses import DiceLoss
from hw6core.models import UNet
from hw6core.schedule import Schedule
from hw6core.seeding import make_generator
from hw6core.training import Split, train

CPU = torch.device("cpu")


def frames(count: int) -> Split:
    draws = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 3, 24, 32), generator=draws, dtype=torch.uint8)
    return Split(images, (images[:, 0] // 64).to(torch.uint8))  # four classes, by the brightness of red


def network() -> nn.Module:
    torch.manual_seed(1)
    return UNet(4)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 2e-2)])
def test_losses_are_those_of_the_straightforward_loop(
    precision: Precision, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uint8, channels last, autocast and the fused optimizer against float32, one-hot masks and torch's Adam.

    In two steps, as the second depends on the first. Adam's first step has the same length for a gradient of 1e-9 as
    for one of 1, so rounding errors are visible.
    """
    monkeypatch.setattr("hw6core.models.UNET_WIDTHS", (8, 12, 16, 20))
    samples, rate = frames(8), 1e-2
    plain = network()
    fast = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    order = torch.randperm(8, generator=make_generator(0, CPU))  # as the suite's loop draws it
    pairs = TensorDataset(
        samples.inputs[order].float() / 255, F.one_hot(samples.targets[order].long(), 4).permute(0, 3, 1, 2).float()
    )
    optimizer = torch.optim.Adam(plain.parameters(), rate)
    expected = baseline.train(plain, DataLoader(pairs, 4), baseline.dice_loss, optimizer, CPU)
    task = tasks.SegmentationTask(4, DiceLoss(1.0, "batch"), None, 0)
    # Without warm-up the first step has the full learning rate.
    schedule = Schedule(epochs=1, batch_size=4, learning_rate=rate, warmup=0.0)
    result = train(fast, task, samples, samples, schedule, seed=0, precision=precision)
    assert len(expected) == 2
    assert expected[1] < expected[0] - 0.01
    assert result.history[0]["train_loss"] == pytest.approx(sum(expected) / 2, rel=tolerance)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_network_computes_in_its_own_memory_format(layout: torch.memory_format) -> None:
    """Training and evaluation; with inputs in the other format every convolution would convert them or its weights."""
    model, formats = network().to(memory_format=layout), []

    def note(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        formats.append(all(tensor.is_contiguous(memory_format=layout) for tensor in (*inputs, output)))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    task, samples = tasks.SegmentationTask(4, DiceLoss(1.0, "batch"), None, 0), frames(4)
    train(model, task, samples, samples, Schedule(epochs=1, batch_size=4, learning_rate=1e-3), seed=0)
    assert len(formats) == 2 * 15
    assert all(formats)


@pytest.mark.parametrize(
    ("device", "features", "size", "expected"),
    [
        ("cpu", {"avx2": True, "avx512_f": False}, (96, 120), torch.channels_last),
        ("cpu", {"avx2": True, "avx512_f": False}, (256, 320), torch.contiguous_format),
        ("cpu", {"avx2": True, "avx512_f": True}, (256, 320), torch.channels_last),
        ("cpu", {}, (256, 320), torch.contiguous_format),  # torch knows no features of some processors
        ("cuda", {"avx2": True, "avx512_f": False}, (256, 320), torch.channels_last),
    ],
)
def test_the_memory_format_is_the_fastest_for_device_and_size(
    device: str,
    features: dict[str, bool],
    size: tuple[int, int],
    expected: torch.memory_format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: features)
    assert memory_format(torch.device(device), size) is expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="keep_freed_memory has no effect without glibc")
def test_more_than_two_gib_of_freed_memory_are_kept_for_the_next_step() -> None:
    """Otherwise the kernel clears the same pages in each step: a fifth of the time of the U-Net at 256x320."""
    program = """
import ctypes
import resource
from hw6core.device import keep_freed_memory

keep_freed_memory()
libc, size = ctypes.CDLL(None), ctypes.c_size_t(2**31 + 2**20)
libc.malloc.restype = ctypes.c_void_p
for step in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(size))
    libc.memset(block, 1, size)
    libc.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    first, second = map(int, printed.split())
    assert first > 100 * second
