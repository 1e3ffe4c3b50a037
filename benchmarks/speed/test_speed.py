"""Compares the speed of the suite's parts with straightforward code and with other libraries.

`make speed` runs it. All implementations do the same work on the same data in one process, in turn; unless something
is random, they must first agree on the result. Slowness is no failure: the table, which is rewritten after each
comparison, says which goals are reached.
"""

from __future__ import annotations

import copy
import gc
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from benchmarks.machine.devices import open_device
from benchmarks.machine.environment import environment
from benchmarks.machine.failures import first_line
from benchmarks.machine.monitor import Meter
from benchmarks.machine.roofline import measure_ceiling, step_cost
from benchmarks.results.formatting import duration, table
from benchmarks.results.records import write_atomically
from benchmarks.runs.plan import SYNTHETIC_FOLDER, Plan
from benchmarks.speed import baseline
from benchmarks.speed.side_by_side import OURS, ratio, time_in_turn, verdict
from benchmarks.suite import SUITE
from benchmarks.workloads.classification import frozen_features
from benchmarks.workloads.datasets import Store
from hw6core import tasks
from hw6core.data import cache, load_endovis
from hw6core.data.augment import Augmentation, augment
from hw6core.data.synthetic import synthesize
from hw6core.device import default_precision, keep_freed_memory, memory_format, synchronize
from hw6core.dice import mean_dice
from hw6core.losses import DiceLoss
from hw6core.models import FrozenVGG, UNet, vgg16
from hw6core.schedule import Schedule
from hw6core.seeding import make_generator, seed_everything, set_deterministic
from hw6core.steps import Capture, capture_cuda_graph
from hw6core.training import Split, predict, train

CLASSES, SIZE = 8, (256, 320)
FASHION, IMAGENET = (tasks.FASHION_MEAN, tasks.FASHION_STD), (tasks.IMAGENET_MEAN, tasks.IMAGENET_STD)
Ways = Mapping[str, Callable[[], object]]
PerSample = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Bench:
    """The data, the device, and the table that grows with each comparison."""

    def __init__(self, plan: Plan) -> None:
        set_deterministic(False)
        self.device = open_device(plan.device)
        self.cuda = self.device.type == "cuda"
        self.precision = default_precision(self.device)
        self.root = plan.data
        if plan.data == SYNTHETIC_FOLDER:
            synthesize(self.root)
        self.store = Store(self.root, self.device)
        self.path = plan.results.parent / "speed" / "SPEED.md"
        self.meter = Meter(self.device)
        self.rows: list[list[str]] = []

    def compare(
        self,
        benchmark: Any,
        work: str,
        ways: Ways,
        goals: Mapping[str, float],
        rounds: int,
        *,
        samples: int | None = None,
        least_s: float | None = None,
    ) -> None:
        """Time the implementations, add a row for each alternative, and write the table so far.

        Args:
            benchmark: pytest-benchmark's fixture, for the file that it writes; None for a further comparison of a test.
            goals: the ratios to reach.
            samples: number that each implementation processes, to show samples per second.
            least_s: the least time that this device needs for the work, shown as one more row.
        """
        if benchmark is not None:
            benchmark.pedantic(ways[OURS], rounds=1)
        gc.collect()
        seconds = time_in_turn(ways, rounds, wait=lambda: synchronize(self.device))
        if least_s is not None:
            seconds["this device's limit"] = [least_s] * rounds
        ours = seconds.pop(OURS)
        for name, theirs in seconds.items():
            found, goal = ratio(ours, theirs), goals.get(name)
            reached = ["-", "-"] if goal is None else [f"{goal:g}x", verdict(found, goal)]
            spread = f"{found.median:.2f}x ({found.low:.2f} to {found.high:.2f})"
            paces = (_pace(median(each), samples) for each in (ours, theirs))
            self.rows.append([work, name, *paces, spread, *reached])
            if benchmark is not None:
                benchmark.extra_info[name] = found._asdict() | {"goal": goal}
        facts = environment(self.device, self.precision, "fast")
        named = ("device_name", "cpu_cores", "threads", "precision", "torch", "git_commit")
        machine = [[name, str(facts[name])] for name in named] + [["float32", _float32(self.device)]]
        loads = self.meter.read()
        machine.append(["load", " to ".join(str(loads[end]["load_average"]) for end in ("start", "end"))])
        headers = ["work", "against", "ours", "theirs", "times as long (quartiles)", "goal", ""]
        text = [
            "# Speed",
            f"{self.store.kind} data; medians of rounds in which the implementations took turns in one process.",
            table(headers, self.rows),
            table(["what", "value"], machine),
        ]
        write_atomically(self.path, "\n\n".join(text) + "\n")


def library(name: str) -> Any:
    """A module of another library; None if that is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


def _float32(device: torch.device) -> str:
    """The precision in which torch multiplies float32 tensors without autocast, as the straightforward code does."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return "as it is"
    kinds = {"convolutions": torch.backends.cudnn.allow_tf32, "matrix products": torch.backends.cuda.matmul.allow_tf32}
    return ", ".join(f"{kind} in {'TF32' if allowed else 'float32'}" for kind, allowed in kinds.items())


def _pace(seconds: float, samples: int | None) -> str:
    if samples is not None:
        return f"{samples / seconds:.3g} samples/s"
    return duration(seconds) if seconds >= 1 else f"{1000 * seconds:.2f} ms"


@pytest.fixture(scope="module")
def bench(plan: Plan, pytestconfig: pytest.Config) -> Iterator[Bench]:
    bench = Bench(plan)
    yield bench
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{bench.path.read_text(encoding='utf-8')}\nwrote {bench.path}")


# --------------------------------------------------------------------------------------------------------- functions


def test_dice_score(bench: Bench, benchmark: Any) -> None:
    """50 validation frames; the predictions are the masks with a tenth of the pixels replaced at random."""
    truth = bench.store.segmentation["validation"].masks[:50].to(bench.device)
    generator = make_generator(0, bench.device)
    wrong = torch.rand(truth.shape, generator=generator, device=bench.device) < 0.1
    noise = torch.randint(0, CLASSES, truth.shape, generator=generator, device=bench.device)
    answer = torch.where(wrong, noise, truth.long()).to(torch.uint8)  # the data type of the suite's predictions
    ways: dict[str, Callable[[], object]] = {
        OURS: lambda: mean_dice(answer, truth, CLASSES),
        "straightforward loops": lambda: baseline.course_dice(answer, truth, CLASSES),
    }
    goals = {"straightforward loops": 10.0, "MONAI": 30.0, "torchmetrics": 30.0}
    assert mean_dice(answer, truth, CLASSES) == pytest.approx(baseline.course_dice(answer, truth, CLASSES))
    # Both accept class indices, which is faster for them than one-hot masks. Their rules for classes that are absent
    # from a frame differ.
    if monai := library("monai.metrics"):

        def with_monai() -> float:
            metric = monai.DiceMetric(include_background=True, ignore_empty=True, num_classes=CLASSES)
            metric(answer.unsqueeze(1), truth.unsqueeze(1))
            return float(metric.aggregate())

        assert mean_dice(answer, truth, CLASSES, "ignore") == pytest.approx(with_monai(), abs=1e-4)
        ways["MONAI"] = with_monai
    if torchmetrics := library("torchmetrics.segmentation"):

        def with_torchmetrics() -> float:
            metric = torchmetrics.DiceScore(CLASSES, include_background=True, average="macro", input_format="index")
            metric.to(bench.device).update(answer.long(), truth.long())
            return float(metric.compute())

        assert mean_dice(answer, truth, CLASSES, "zero") == pytest.approx(with_torchmetrics(), abs=1e-4)
        ways["torchmetrics"] = with_torchmetrics
    bench.compare(benchmark, "Dice score, 50 frames x 8 classes", ways, goals, 15)


def test_dice_loss(bench: Bench, benchmark: Any) -> None:
    """Forward and backward on logits of 10 frames."""
    target = bench.store.segmentation["validation"].masks[:10].long().to(bench.device)
    target[:, 0, :CLASSES] = torch.arange(CLASSES, device=bench.device)  # some libraries skip absent classes
    values = torch.randn(10, CLASSES, *SIZE, generator=make_generator(0, bench.device), device=bench.device)
    one_hot = torch.nn.functional.one_hot(target, CLASSES).permute(0, 3, 1, 2).float()
    ours = DiceLoss(1.0, "batch")

    def stepped(loss: Callable[[Tensor], Tensor]) -> Callable[[], float]:
        def run() -> float:
            logits = values.detach().requires_grad_(True)
            value = loss(logits)
            value.backward()
            return float(value.detach())

        return run

    ways = {
        OURS: stepped(lambda x: ours(x, target)),
        "straightforward": stepped(lambda x: baseline.dice_loss(x, one_hot)),
    }
    if monai := library("monai.losses"):
        theirs = monai.DiceLoss(to_onehot_y=True, softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
        ways["MONAI"] = stepped(lambda x: theirs(x, target.unsqueeze(1)))
    if models := library("segmentation_models_pytorch.losses"):
        multiclass = models.DiceLoss("multiclass", smooth=1.0)
        ways["segmentation_models.pytorch"] = stepped(lambda x: multiclass(x, target))
    results = {name: way() for name, way in ways.items()}
    assert all(value == pytest.approx(results[OURS], abs=1e-3) for value in results.values()), results
    goals = {"MONAI": 1.5, "segmentation_models.pytorch": 1.5}
    bench.compare(benchmark, "Dice loss, forward and backward, 10 frames", ways, goals, 25)


def test_augmentation(bench: Bench, benchmark: Any) -> None:
    """A batch of 10 frames with masks: flip, rotation, scale, shift, brightness, contrast.

    Each implementation draws its own random numbers; tests/hw6core/test_augment.py tests that ours is correct.
    """
    frames = bench.store.segmentation_split("train", SIZE)
    images, masks = frames.inputs[:10].float() / 255, frames.targets[:10].long()
    drawn = SUITE["seg-augmented"].augmentation or {}
    settings, generator = Augmentation(**drawn), make_generator(0, bench.device)
    ways: dict[str, Callable[[], object]] = {OURS: lambda: augment(images, masks, settings, generator)}
    for name, each in _per_sample(drawn).items():

        def run(each: PerSample = each) -> tuple[Tensor, Tensor]:
            pairs = [each(image, mask) for image, mask in zip(images, masks, strict=True)]
            return torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs])

        ways[f"{name}, per sample"] = run
    shapes = {name: [tuple(part.shape) for part in way()] for name, way in ways.items()}  # type: ignore[attr-defined]
    assert all(found == shapes[OURS] for found in shapes.values()), shapes
    goals = {name: 3.0 for name in ways if name.startswith("torchvision")}
    bench.compare(benchmark, "augmentation of 10 frames with masks", ways, goals, 25)


def _per_sample(drawn: Mapping[str, float]) -> dict[str, PerSample]:
    """Other libraries' transforms with the same distributions."""

    degrees, shift, scale = (drawn[name] for name in ("rotation_degrees", "shift", "scale"))

    def torchvision(interpolation: v2.InterpolationMode) -> PerSample:
        moves = v2.RandomAffine(degrees, (shift, shift), (1 - scale, 1 + scale), interpolation=interpolation)
        colours = v2.ColorJitter(drawn["brightness"], drawn["contrast"])
        transform = v2.Compose([v2.RandomHorizontalFlip(drawn["horizontal_flip"]), moves, colours])
        return lambda image, mask: transform(tv_tensors.Image(image), tv_tensors.Mask(mask))

    found = {  # nearest is torchvision's default for images, and always used for masks
        "torchvision v2, bilinear as ours": torchvision(v2.InterpolationMode.BILINEAR),
        "torchvision v2, nearest": torchvision(v2.InterpolationMode.NEAREST),
    }
    monai = library("monai.transforms")
    if monai is None:
        return found
    both, height, width = ["image", "mask"], *SIZE
    transform = monai.Compose(
        [
            monai.RandFlipd(both, prob=drawn["horizontal_flip"], spatial_axis=1),
            monai.RandAffined(
                both,
                prob=1.0,
                rotate_range=math.radians(degrees),
                translate_range=(shift * height, shift * width),
                scale_range=scale,
                mode=("bilinear", "nearest"),
                padding_mode="reflection",
            ),
            monai.RandShiftIntensityd(["image"], offsets=drawn["brightness"], prob=1.0),
            monai.RandScaleIntensityFixedMeand(["image"], factors=drawn["contrast"], prob=1.0),
        ]
    )

    def with_monai(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        moved = transform({"image": image, "mask": mask.unsqueeze(0)})
        return moved["image"].as_tensor(), moved["mask"].as_tensor()[0]

    return found | {"MONAI transforms": with_monai}


def test_loading(bench: Bench, benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 300 training frames with masks: from the cache, and making the cache, compared with decoding them."""

    def load(cache_folder: str) -> Tensor:
        monkeypatch.setenv(cache.VARIABLE, cache_folder)
        return load_endovis(bench.root, "train").images

    def first_time() -> Tensor:
        shutil.rmtree(tmp_path / "first", ignore_errors=True)
        return load(str(tmp_path / "first"))

    ways: dict[str, Callable[[], Tensor]] = {OURS: lambda: load(str(tmp_path / "again")), "decode": lambda: load("off")}
    assert all(torch.equal(way(), load("off")) for way in (ways[OURS], ways[OURS], first_time))
    bench.compare(benchmark, "load the training frames again", ways, {"decode": 20.0}, 15)
    # Last, because its writes to the disk would slow down what is timed next.
    bench.compare(None, "load them for the first time", ways | {OURS: first_time}, {}, 9)


# ---------------------------------------------------------------------------------------------------------- training
# From here on the process keeps freed memory, as the suite does; the functions above are timed without that.


def test_unet_training(bench: Bench, benchmark: Any) -> None:
    """Steps at 256x320, from frames in memory (ours, Lightning) or from files (straightforward)."""
    keep_freed_memory()
    batch, steps, epochs, rounds = (10, 20, 3, 3) if bench.cuda else (4, 6, 1, 5)
    frames = bench.store.segmentation_split("train", SIZE)
    chosen = Split(frames.inputs[: batch * steps], frames.targets[: batch * steps])
    one = Split(frames.inputs[:1], frames.targets[:1])
    task = tasks.SegmentationTask(CLASSES, DiceLoss(1.0, "batch"), None, 300)
    schedule = Schedule(epochs=epochs, batch_size=batch, learning_rate=1e-4, warmup=0.0)
    files = torch.utils.data.Subset(baseline.frames(bench.root, "train"), range(batch * steps))

    def ours(capture: Capture | None = None, *, compiled: bool = False) -> list[float]:
        model = _unet(bench).to(memory_format=memory_format(bench.device, SIZE))
        result = train(
            model, task, chosen, one, schedule, seed=0, precision=bench.precision, capture=capture, compiled=compiled
        )
        assert result.not_captured is None
        return [entry["train_loss"] for entry in result.history]

    def straightforward(**loading: Any) -> list[float]:
        model = _unet(bench)
        loader = DataLoader(files, batch, shuffle=True, **loading)
        optimizer = torch.optim.Adam(model.parameters(), 1e-4)
        losses = [baseline.train(model, loader, baseline.dice_loss, optimizer, bench.device) for _ in range(epochs)]
        return [sum(epoch) / len(epoch) for epoch in losses]

    first, plainly = ours(), straightforward()
    # Order of the frames and precision differ; tests/hw6core/test_fast_path.py compares step by step.
    assert first[0] == pytest.approx(plainly[0], rel=0.1)
    ways: dict[str, Callable[[], object]] = {OURS: ours, "straightforward loop": straightforward}
    goals = {"straightforward loop": 10.0 if bench.cuda else 1.8, "this device's limit": 0.5}
    lightning = _lightning_training(bench, chosen, batch, epochs)
    if lightning is not None:
        ways["Lightning + MONAI, bf16-mixed"] = lightning
        goals["Lightning + MONAI, bf16-mixed"] = 1.2
    if bench.cuda:
        parallel = {"num_workers": 4, "pin_memory": True, "multiprocessing_context": "fork"}
        ways["straightforward loop, 4 loading processes"] = lambda: straightforward(**parallel)
        ways["ours with CUDA graphs"] = lambda: ours(capture_cuda_graph)
        began = time.perf_counter()
        try:
            ours(compiled=True)
        except Exception as error:  # no usable compiler
            bench.rows.append(["U-Net training", "ours with torch.compile", "", first_line(error), "-", "-", "-"])
        else:
            name = f"ours with torch.compile (the first call: {duration(time.perf_counter() - began)})"
            ways[name] = lambda: ours(compiled=True)
    cost = step_cost(_unet(bench), (3, *SIZE), batch, bench.precision)
    ceiling = measure_ceiling(bench.device, bench.precision)
    least_s = steps * epochs * max(cost.arithmetic_s(ceiling), cost.memory_s(ceiling))
    work = f"U-Net training, {steps * epochs} steps of {batch} at 256x320"
    bench.compare(benchmark, work, ways, goals, rounds, samples=batch * steps * epochs, least_s=least_s)


def _unet(bench: Bench) -> UNet:
    seed_everything(0)
    return UNet(CLASSES).to(bench.device)


def _lightning_training(bench: Bench, frames: Split, batch: int, epochs: int) -> Callable[[], object] | None:
    """Idiomatic code with these libraries; None if they are not installed."""
    lightning, monai = library("lightning"), library("monai.losses")
    if lightning is None or monai is None:
        return None

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = _unet(bench)
            self.loss = monai.DiceLoss(to_onehot_y=True, softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)

        def training_step(self, pair: tuple[Tensor, Tensor], _: int) -> Tensor:
            images, masks = pair
            loss: Tensor = self.loss(self.model(images), masks.unsqueeze(1))
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 1e-4)

    images, masks = frames.inputs.float().cpu() / 255, frames.targets.long().cpu()

    def run() -> None:
        trainer = lightning.Trainer(
            accelerator="gpu" if bench.cuda else "cpu",
            devices=1,
            max_epochs=epochs,
            precision="bf16-mixed" if bench.precision == "bfloat16" else "32-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Module(), DataLoader(TensorDataset(images, masks), batch, shuffle=True))

    return run


def test_vgg_frozen(bench: Bench, benchmark: Any) -> None:
    """Five epochs of the last layer and the accuracy on held-out garments, from images in memory."""
    keep_freed_memory()
    splits, images = _garments(bench, 6_000 if bench.cuda else 320, IMAGENET)
    task, epochs = tasks.FeatureTask(*IMAGENET), 5
    seed_everything(0)
    plainly = vgg16(10, freeze_features=True).to(bench.device)
    fast = copy.deepcopy(plainly).to(memory_format=torch.channels_last)
    assert isinstance(plainly, FrozenVGG)
    assert isinstance(fast, FrozenVGG)
    start = copy.deepcopy(plainly.classifier[-1].state_dict())

    def ours() -> float:
        head = fast.classifier[-1]
        head.load_state_dict(start)
        known = {
            name: Split(frozen_features(fast, task, split.inputs, bench.precision), split.targets)
            for name, split in splits.items()
        }
        schedule = Schedule(epochs=epochs, batch_size=64, learning_rate=1e-3)
        train(head, task, known["train"], known["validation"], schedule, seed=0, precision=bench.precision)
        answers, _ = predict(head, task, known["validation"], precision=bench.precision)
        return float((answers == splits["validation"].targets).double().mean())

    def straightforward() -> float:
        plainly.classifier[-1].load_state_dict(start)
        optimizer = torch.optim.Adam(plainly.classifier[-1].parameters(), 1e-3)
        for _ in range(epochs):
            batches = DataLoader(images["train"], 64, shuffle=True, drop_last=True)
            baseline.train(plainly, batches, cross_entropy, optimizer, bench.device)
        return baseline.accuracy(plainly, DataLoader(images["validation"], 64), bench.device)

    held_out = torch.stack([image for image, _ in images["validation"]]).to(bench.device)  # type: ignore[attr-defined]
    with torch.inference_mode():
        expected = plainly.eval().penultimate(held_out)
    found = frozen_features(fast, task, splits["validation"].inputs, bench.precision)
    assert (found - expected).norm() < 0.05 * expected.norm()  # the precision differs
    ways: Ways = {OURS: ours, "the network in every epoch": straightforward}
    work = f"vgg-frozen, {epochs} epochs of {len(splits['train'])} images at 32x32"
    bench.compare(benchmark, work, ways, {"the network in every epoch": 4.0}, 5)


def test_vgg_training(bench: Bench, benchmark: Any) -> None:
    """Steps of VGG16 from scratch with Adam, batch 64 at 32x32."""
    keep_freed_memory()
    steps = 20 if bench.cuda else 2
    splits, images = _garments(bench, 64 * steps * 10 // 9, FASHION)
    garments = splits["train"]
    assert len(garments) == 64 * steps
    task = tasks.ClassificationTask(*FASHION, None)
    schedule = Schedule(epochs=1, batch_size=64, learning_rate=1e-5)
    seed_everything(0)
    plainly = vgg16(10).to(bench.device)
    fast = copy.deepcopy(plainly).to(memory_format=torch.channels_last)
    one = Split(garments.inputs[:1], garments.targets[:1])

    def ours() -> float:
        result = train(fast, task, garments, one, schedule, seed=0, precision=bench.precision)
        return result.history[0]["train_loss"]

    def straightforward() -> float:
        optimizer = torch.optim.Adam(plainly.parameters(), 1e-5)
        losses = baseline.train(
            plainly, DataLoader(images["train"], 64, shuffle=True), cross_entropy, optimizer, bench.device
        )
        return sum(losses) / len(losses)

    assert ours() == pytest.approx(straightforward(), rel=0.05)  # order, dropout and precision differ
    ways: Ways = {OURS: ours, "straightforward loop": straightforward}
    work = f"VGG16 training, {steps} steps of 64 at 32x32"
    bench.compare(benchmark, work, ways, {}, 5, samples=64 * steps)


def _garments(bench: Bench, count: int, statistics: Any) -> tuple[dict[str, Split], dict[str, baseline.Samples]]:
    """The same garments as the suite's splits and as datasets for a loader; a tenth of them for validation."""
    splits = bench.store.garment_splits((32, 32), count)
    del splits["test"]
    images = {
        name: baseline.garments(split.inputs[..., 2:-2, 2:-2].cpu(), split.targets.cpu(), statistics)
        for name, split in splits.items()
    }
    return splits, images
