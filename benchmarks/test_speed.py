"""How fast the suite's parts are beside the straightforward way and beside the libraries that one would pick instead.

`make speed` runs it. Every way does the same work on the same data in one process, in turn; a check comes first that
they agree on the result. Nothing here fails for being slow: the table says which goals were reached.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterator, Mapping
from itertools import count
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

from benchmarks import tasks
from benchmarks.baseline import loop
from benchmarks.baseline import segmentation as plain
from benchmarks.baseline.garments import accuracy as plain_accuracy
from benchmarks.baseline.suite import StraightforwardSuite
from benchmarks.engine import carry_out_plan
from benchmarks.environment import environment
from benchmarks.machine import Meter
from benchmarks.options import SYNTHETIC_FOLDER, Options
from benchmarks.plan import Plan, open_device
from benchmarks.progress import Display
from benchmarks.records import write_atomically
from benchmarks.side_by_side import OURS, ratio, time_in_turn
from benchmarks.store import Store
from benchmarks.suite import SUITE
from benchmarks.words import duration, table
from hw6core.data import cache, load_endovis
from hw6core.data.augment import Augmentation, augment
from hw6core.data.synthetic import Sizes, synthesize
from hw6core.dice import mean_dice
from hw6core.losses import DiceLoss
from hw6core.memory import keep_freed_memory
from hw6core.models import FrozenVGG, UNet, vgg16
from hw6core.seeding import generator, seed_everything, set_deterministic
from hw6core.train import Schedule, Split, autocast, default_precision, predict, train

CLASSES = 8
SIZE = (256, 320)
Ways = Mapping[str, Callable[[], object]]


class Bench:
    """The data, the device, and the table that grows with each comparison."""

    def __init__(self, options: Options) -> None:
        set_deterministic(False)
        self.device = open_device(options.device)
        self.cuda = self.device.type == "cuda"
        self.precision = default_precision(self.device)
        self.root = options.data or SYNTHETIC_FOLDER
        if options.data is None:
            synthesize(self.root)
        self.store = Store(self.root, self.device)
        self.folder = options.results.parent / "speed"
        self.rows: list[list[str]] = []

    def compare(
        self, work: str, ways: Ways, goals: Mapping[str, float], rounds: int, *, warm: bool = True
    ) -> dict[str, Any]:
        """Time the ways and add a row for each alternative; ``goals`` are the ratios to reach."""
        gc.collect()
        seconds = time_in_turn(ways, rounds, warm=warm)
        told = {}
        for name in ways:
            if name == OURS:
                continue
            found, goal = ratio(seconds[OURS], seconds[name]), goals.get(name)
            verdict = "-" if goal is None else "reached" if found.median >= goal else "missed"
            ours, theirs = (_time(median(seconds[which])) for which in (OURS, name))
            spread = f"{found.median:.1f}x ({found.low:.1f} to {found.high:.1f})"
            self.rows.append([work, name, ours, theirs, spread, "-" if goal is None else f"{goal:g}x", verdict])
            told[name] = {"ratio": found.median, "low": found.low, "high": found.high, "goal": goal}
        return told

    def write(self, meter: Meter) -> Path:
        """The table, with the machine that it was made on."""
        facts = environment(self.device, self.precision, "fast")
        told = {
            name: facts[name] for name in ("device_name", "cpu_cores", "threads", "precision", "torch", "git_commit")
        }
        told |= {"load": " to ".join(str(meter.read()[end]["load_average"]) for end in ("start", "end"))}
        headers = ["work", "against", "ours", "theirs", "times as long (quartiles)", "goal", ""]
        text = [
            "# Speed",
            f"{self.store.kind} data; medians of rounds in which the ways took turns in one process.",
            table(headers, self.rows),
            table(["what", "value"], [[name, str(value)] for name, value in told.items()]),
        ]
        path = self.folder / "SPEED.md"
        write_atomically(path, "\n\n".join(text) + "\n")
        return path


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else f"{1000 * seconds:.2f} ms"


@pytest.fixture(scope="module")
def bench(options: Options, pytestconfig: pytest.Config) -> Iterator[Bench]:
    bench = Bench(options)
    meter = Meter(bench.device)
    yield bench
    path = bench.write(meter)
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{path.read_text(encoding='utf-8')}\nwritten to {path}")


def _measure(benchmark: Any, bench: Bench, work: str, ways: Ways, goals: Mapping[str, float], rounds: int) -> None:
    benchmark.extra_info.update(bench.compare(work, ways, goals, rounds))
    benchmark.pedantic(ways[OURS], rounds=1)  # for the files that pytest-benchmark writes


# --------------------------------------------------------------------------------------------------------- functions


def test_dice_score(bench: Bench, benchmark: Any) -> None:
    """50 frames of 8 classes: the validation split, a tenth of its pixels drawn anew as the answer."""
    truth = bench.store.segmentation["validation"].masks[:50].to(bench.device)
    draws = generator(0, bench.device)
    wrong = torch.rand(truth.shape, generator=draws, device=bench.device) < 0.1
    noise = torch.randint(0, CLASSES, truth.shape, generator=draws, device=bench.device)
    answer = torch.where(wrong, noise, truth.long()).to(torch.uint8)  # as the suite's tasks answer
    ways: dict[str, Callable[[], object]] = {
        OURS: lambda: mean_dice(answer, truth, CLASSES),
        "straightforward loops": lambda: plain.course_dice(answer, truth, CLASSES),
    }
    goals = {"straightforward loops": 10.0, "MONAI": 30.0, "torchmetrics": 30.0}
    assert mean_dice(answer, truth, CLASSES) == pytest.approx(plain.course_dice(answer, truth, CLASSES))
    try:
        from monai.metrics.meandice import DiceMetric
        from torchmetrics.segmentation import DiceScore
    except ImportError:
        pass
    else:

        def one_hot(masks: Tensor) -> Tensor:
            return torch.nn.functional.one_hot(masks.long(), CLASSES).permute(0, 3, 1, 2)

        def monai() -> float:
            metric = DiceMetric(include_background=True, ignore_empty=True)
            metric(one_hot(answer), one_hot(truth))
            return float(metric.aggregate())  # type: ignore[arg-type]

        def torchmetrics() -> float:
            metric = DiceScore(CLASSES, include_background=True, average="macro", input_format="index").to(bench.device)
            metric.update(answer.long(), truth.long())
            return float(metric.compute())

        assert mean_dice(answer, truth, CLASSES, "ignore") == pytest.approx(monai(), abs=0.01)  # means in another order
        ways |= {"MONAI": monai, "torchmetrics": torchmetrics}
    _measure(benchmark, bench, "Dice score, 50 frames x 8 classes", ways, goals, 15)


def test_dice_loss(bench: Bench, benchmark: Any) -> None:
    """Forward and backward on logits of 10 frames."""
    target = bench.store.segmentation["validation"].masks[:10].long().to(bench.device)
    target[:, 0, :CLASSES] = torch.arange(CLASSES, device=bench.device)  # some peers leave out what no frame shows
    values = torch.randn(10, CLASSES, *SIZE, generator=generator(0, bench.device), device=bench.device)
    one_hot = torch.nn.functional.one_hot(target, CLASSES).permute(0, 3, 1, 2).float()
    ours = DiceLoss(1.0, "batch")

    def stepped(loss: Callable[[Tensor], Tensor]) -> Callable[[], float]:
        def run() -> float:
            logits = values.detach().requires_grad_(True)
            value = loss(logits)
            value.backward()
            return float(value.detach())

        return run

    ways = {OURS: stepped(lambda x: ours(x, target)), "straightforward": stepped(lambda x: plain.dice_loss(x, one_hot))}
    goals: dict[str, float] = {}
    for name, loss in _peer_losses(target).items():
        ways[name], goals[name] = stepped(loss), 1.5
    results = {name: way() for name, way in ways.items()}
    assert all(value == pytest.approx(results[OURS], abs=1e-3) for value in results.values()), results
    _measure(benchmark, bench, "Dice loss, forward and backward, 10 frames", ways, goals, 25)


def _peer_losses(target: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    try:
        from monai.losses.dice import DiceLoss as MonaiDiceLoss

        monai = MonaiDiceLoss(to_onehot_y=True, softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
        found["MONAI"] = lambda logits: monai(logits, target.unsqueeze(1))
    except ImportError:
        pass
    try:
        from segmentation_models_pytorch.losses import DiceLoss as ModelsDiceLoss

        models = ModelsDiceLoss("multiclass", smooth=1.0)
        found["segmentation_models.pytorch"] = lambda logits: models(logits, target)
    except ImportError:
        pass
    return found


def test_augmentation(bench: Bench, benchmark: Any) -> None:
    """A batch of 10 frames with masks: flip, rotation, scale, shift, brightness, contrast."""
    frames = bench.store.segmentation_split("train", SIZE)
    images, masks = frames.inputs[:10].float() / 255, frames.targets[:10].long()
    drawn = SUITE["seg-augmented"].augmentation or {}
    settings, draws = Augmentation(**drawn), generator(0, bench.device)

    def per_sample(interpolation: v2.InterpolationMode) -> Callable[[], object]:
        each = plain.per_sample(drawn, interpolation)

        def run() -> tuple[Tensor, Tensor]:
            pairs = [
                each(tv_tensors.Image(image), tv_tensors.Mask(mask)) for image, mask in zip(images, masks, strict=True)
            ]
            return torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs])

        return run

    ways: dict[str, Callable[[], object]] = {OURS: lambda: augment(images, masks, settings, draws)}
    for name, interpolation in (
        ("bilinear as ours", v2.InterpolationMode.BILINEAR),
        ("nearest", v2.InterpolationMode.NEAREST),
    ):
        ways[f"torchvision v2, per sample, {name}"] = per_sample(interpolation)
    goals = dict.fromkeys(ways, 3.0)
    _measure(benchmark, bench, "augmentation of 10 frames with masks", ways, goals, 25)


def test_loading(bench: Bench, benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 300 training frames with masks: decoded, and for the second time."""

    def decode() -> Tensor:
        monkeypatch.setenv(cache.VARIABLE, "off")
        return load_endovis(bench.root, "train").images

    def again() -> Tensor:
        monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
        return load_endovis(bench.root, "train").images

    assert torch.equal(again(), decode())
    assert torch.equal(again(), decode())
    _measure(benchmark, bench, "load the training frames again", {OURS: again, "decode": decode}, {"decode": 20.0}, 15)


# ---------------------------------------------------------------------------------------------------------- training
# From here on the process keeps freed memory, as the suite does; above, functions are timed as anybody calls them.


def test_unet_training(bench: Bench, benchmark: Any) -> None:
    """Some steps at 256x320, from frames in memory (ours, Lightning) or from files (straightforward)."""
    keep_freed_memory()
    batch, steps, rounds = (10, 20, 5) if bench.cuda else (4, 3, 3)
    frames = bench.store.segmentation_split("train", SIZE)
    chosen = Split(frames.inputs[: batch * steps], frames.targets[: batch * steps])
    one = Split(frames.inputs[:1], frames.targets[:1])
    task = tasks.SegmentationTask(CLASSES, DiceLoss(1.0, "batch"), None, 300)
    schedule = Schedule(epochs=1, batch_size=batch, learning_rate=1e-4)
    files = torch.utils.data.Subset(plain.FramesOnDisk(bench.root, "train"), range(batch * steps))

    def ours() -> list[float]:
        model = _unet(bench).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        result = train(model, task, chosen, one, schedule, seed=0, precision=bench.precision)
        return [result.history[0]["train_loss"]]

    def straightforward() -> list[float]:
        model = _unet(bench)
        loader = DataLoader(files, batch, shuffle=True)
        optimizer = torch.optim.Adam(model.parameters(), 1e-4)
        return loop.train(model, loader, plain.dice_loss, optimizer, bench.device)

    first, last = ours()[0], straightforward()
    assert first == pytest.approx(sum(last) / len(last), rel=0.05)  # other order of the frames, other precision
    ways: dict[str, Callable[[], object]] = {OURS: ours, "straightforward loop": straightforward}
    goals = {"straightforward loop": 10.0 if bench.cuda else 1.8}
    lightning = _lightning_training(bench, chosen, batch)
    if lightning is not None:
        ways["Lightning + MONAI, bf16-mixed"] = lightning
        goals["Lightning + MONAI, bf16-mixed"] = 1.2
    _measure(benchmark, bench, f"U-Net training, {steps} steps of {batch} at 256x320", ways, goals, rounds)


def _unet(bench: Bench) -> UNet:
    seed_everything(0)
    return UNet(CLASSES).to(bench.device)


def _lightning_training(bench: Bench, frames: Split, batch: int) -> Callable[[], object] | None:
    """What somebody who knows the libraries would write; None where they are not installed."""
    try:
        import lightning
        from monai.losses.dice import DiceLoss as MonaiDiceLoss
    except ImportError:
        return None

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = _unet(bench)
            self.loss = MonaiDiceLoss(to_onehot_y=True, softmax=True, batch=True)

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
            max_epochs=1,
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
    count, held_out, epochs = (5_000, 1_000, 5) if bench.cuda else (256, 64, 5)
    garments = bench.store.garments["train"]
    padded = torch.nn.functional.pad(garments.images[: count + held_out], (2, 2, 2, 2)).to(bench.device)
    labels = garments.labels[: count + held_out].to(bench.device)
    task = tasks.FeatureTask(tasks.IMAGENET_MEAN, tasks.IMAGENET_STD)
    normalised = task.normalise(tasks.unit_range(padded))

    def model() -> FrozenVGG:
        seed_everything(0)
        network = vgg16(10, freeze_features=True).to(bench.device)
        assert isinstance(network, FrozenVGG)
        return network

    networks = {OURS: model().to(memory_format=torch.channels_last), "plain": model()}
    start = {name: value.clone() for name, value in networks["plain"].classifier[-1].state_dict().items()}

    def ours() -> float:
        network = networks[OURS]
        head = network.classifier[-1]
        head.load_state_dict(start)
        with torch.inference_mode(), autocast(bench.device, bench.precision):
            parts = (part.contiguous(memory_format=torch.channels_last) for part in normalised.split(250))
            features = torch.cat([network.penultimate(part).float() for part in parts])
        schedule = Schedule(epochs=epochs, batch_size=64, learning_rate=1e-3)
        training, validation = Split(features[:count], labels[:count]), Split(features[count:], labels[count:])
        train(head, task, training, validation, schedule, seed=0, precision=bench.precision)
        answers, _ = predict(head, task, validation, precision=bench.precision)
        return float((answers == labels[count:]).double().mean())

    def straightforward() -> float:
        network = networks["plain"]
        network.classifier[-1].load_state_dict(start)
        optimizer = torch.optim.Adam(network.classifier[-1].parameters(), 1e-3)
        pairs = TensorDataset(normalised[:count], labels[:count])
        for _ in range(epochs):
            loop.train(network, DataLoader(pairs, 64, shuffle=True), cross_entropy, optimizer, bench.device)
        held = DataLoader(TensorDataset(normalised[count:], labels[count:]), 64)
        return loop.score(network, held, plain_accuracy, bench.device)

    ways: Ways = {OURS: ours, "the network in every epoch": straightforward}
    work = f"vgg-frozen, {epochs} epochs of {count} images at 32x32"
    _measure(benchmark, bench, work, ways, {"the network in every epoch": 4.0}, 3)


def test_vgg_training(bench: Bench, benchmark: Any) -> None:
    """Steps of VGG16 from scratch with Adam, batch 64 at 32x32."""
    steps = 20 if bench.cuda else 2
    garments = bench.store.garments["train"]
    padded = torch.nn.functional.pad(garments.images[: 64 * steps], (2, 2, 2, 2)).to(bench.device)
    labels = garments.labels[: 64 * steps].to(bench.device)
    task = tasks.ClassificationTask(tasks.FASHION_MEAN, tasks.FASHION_STD, None)
    normalised = task.normalise(tasks.unit_range(padded))
    schedule = Schedule(epochs=1, batch_size=64, learning_rate=1e-5)
    seed_everything(0)
    networks = [vgg16(10).to(bench.device) for _ in range(2)]
    networks[0] = networks[0].to(memory_format=torch.channels_last)
    split, one = Split(padded, labels), Split(padded[:1], labels[:1])

    def ours() -> None:
        train(networks[0], task, split, one, schedule, seed=0, precision=bench.precision)

    def straightforward() -> None:
        optimizer = torch.optim.Adam(networks[1].parameters(), 1e-5)
        loader = DataLoader(TensorDataset(normalised, labels), 64, shuffle=True)
        loop.train(networks[1], loader, cross_entropy, optimizer, bench.device)

    ways: Ways = {OURS: ours, "straightforward loop": straightforward}
    _measure(benchmark, bench, f"VGG16 training, {steps} steps of 64 at 32x32", ways, {}, 3)


def test_quick_suite(bench: Bench, benchmark: Any, tmp_path: Path) -> None:
    """The `quick` profile from start to scores, all seven configurations, on a tenth of the drawn data.

    A tenth, because the straightforward way takes most of an hour on all of it.
    """
    data, weights, number = tmp_path / "data", tmp_path / "vgg16.pth", count()
    synthesize(data, sizes=_TENTH)
    seed_everything(0)
    torch.save(vgg16(1000).state_dict(), weights)
    scored: dict[str, set[str]] = {}

    def ours() -> None:
        plan = Plan(list(SUITE.values()), "quick", (0,), data, bench.device.type, tmp_path / str(next(number)), weights)
        records = carry_out_plan(plan, Display(io.StringIO()))
        scored[OURS] = {record.configuration for record in records if record.status == "completed"}

    def straightforward() -> None:
        seed_everything(0)
        suite = StraightforwardSuite(data, "quick", "synthetic", weights, bench.device)
        suite.run()
        scored["straightforward"] = {name.split(",")[0] for name in suite.scores}

    ways: Ways = {OURS: ours, "straightforward": straightforward}
    told = bench.compare("the quick suite on a tenth of the data", ways, {}, rounds=3, warm=False)
    assert all(names == set(SUITE) for names in scored.values()), scored
    benchmark.extra_info.update(told)
    benchmark.pedantic(ours, rounds=1)


_TENTH = Sizes(30, 4, 5, 33, 3, 450, 100)
