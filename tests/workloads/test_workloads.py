"""Whole runs on a few small samples: inputs, initial weights and scores.

The expected values are computed from the stored samples and the recorded outputs of the networks, with the library's
losses and scores, which have their own tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import VGG

from benchmarks.errors import TimeLimitError
from benchmarks.machine.roofline import step_cost
from benchmarks.runs.timing import timing
from benchmarks.suite import SUITE, Configuration, Work
from benchmarks.workloads import execute
from benchmarks.workloads.datasets import Store
from benchmarks.workloads.floors import nearest_masks
from benchmarks.workloads.run import Outcome, Run
from hw6core.checkpoint import load_weights, save_weights
from hw6core.dice import drop_small_classes
from hw6core.losses import DiceLoss
from hw6core.metrics import accuracy, confusion_matrix, segmentation_scores
from hw6core.models import FrozenVGG, UNet, start_from_shifts, vgg16
from hw6core.tasks import SegmentationTask, instrument_cells
from hw6core.training import Callback
from tests.coded_data import FRAME, NAMES, WORKING, coded_store, every_second, garments, halved, normalised, places
from tests.short_runs import new_run
from tests.watching import Call, Watch, shrink_networks, watching

SEED = 5
RATE = 2e-2
TESTED = 103  # garments
FASHION, IMAGENET = ((0.2860,) * 3, (0.3530,) * 3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(autouse=True)
def small_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink_networks(patch)
        yield


def entry(name: str, work: Work, **changes: Any) -> Configuration:
    """A configuration with other work, without floors, which have their own tests."""
    return replace(SUITE[name], work={"quick": work}, floors=(), **changes)


def watched(run: Run) -> tuple[Watch, Outcome]:
    with watching() as watch:
        outcome = execute(run)
    return watch, outcome


def joined(calls: Sequence[Call], what: str = "inputs") -> Tensor:
    return torch.cat([getattr(call, what) for call in calls])


def among(rows: Sequence[Sequence[int]]) -> set[int]:
    """The set of samples in several batches."""
    return {row for batch in rows for row in batch}


def informative(seed: int, num_classes: int = 1000) -> dict[str, Tensor]:
    """VGG16 weights whose features differ between images, like those of torchvision's file."""
    torch.manual_seed(seed)
    model = vgg16(num_classes)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)
    return dict(model.state_dict())


def same_but(head: str, state: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> bool:
    """Whether all layers but the head have the weights of the source."""
    body = [name for name in state if not name.startswith(head)]
    assert len(body) > 20
    mine = not torch.equal(state[f"{head}.weight"].flatten()[:8], source[f"{head}.weight"].flatten()[:8])
    return mine and all(torch.equal(state[name], source[name]) for name in body)


def curve_is(history: Sequence[Mapping[str, float]], key: str, expected: Sequence[float]) -> None:
    assert [epoch[key] for epoch in history] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def classes_of(logits: Tensor, minimum: int) -> Tensor:
    """The most likely class of each pixel at full size; classes with too few pixels in a frame become background."""
    found = F.interpolate(logits, size=FRAME, mode="bilinear", align_corners=False).argmax(1)
    return drop_small_classes(found, len(NAMES), minimum)


@pytest.mark.parametrize(
    ("name", "augmentation", "smoothing", "absent"),
    [
        ("seg-baseline", None, {"smoothing": 1.0, "pool": "batch"}, {}),
        ("seg-augmented", {"horizontal_flip": 1.0}, {"smoothing": 40.0, "pool": "frame"}, {"absent": "ignore"}),
    ],
)
def test_a_segmentation_run(
    name: str, augmentation: dict[str, float] | None, smoothing: dict[str, Any], absent: dict[str, Any], tmp_path: Path
) -> None:
    store, minimum = coded_store(tmp_path), 8
    work = Work(8, 4, RATE, WORKING, weight_decay=0.03, settings=absent)
    settings = smoothing | {"minimum_class_pixels": minimum}
    run = new_run(entry(name, work, settings=settings, augmentation=augmentation), store, tmp_path)
    watch, outcome = watched(run)
    trained, evaluated = watch.of(UNet)
    stored = {split: halved(part.images).round() / 255 for split, part in store.segmentation.items()}
    masks = {split: part.masks for split, part in store.segmentation.items()}
    training, loss = run.trainings["training"], DiceLoss(**smoothing, **absent)

    # Training: in each epoch three batches of four of the thirteen training frames, without repetition.
    def flipped(images: Tensor) -> Tensor:
        return images.flip(-1) if augmentation else images

    assert len(trained) == 8 * 3
    losses = []
    for number in range(8):
        batches = trained[3 * number : 3 * number + 3]
        rows = [places(call.inputs, flipped(stored["train"])) for call in batches]
        assert len(among(rows)) == 12
        truth = [flipped(every_second(masks["train"][chosen])).long() for chosen in rows]
        losses.append(mean(float(loss(call.outputs, target)) for call, target in zip(batches, truth, strict=True)))
    curve_is(training.history, "train_loss", losses)

    # Evaluation: validation after each epoch, the test split once at the end.
    shown = [stored["validation"]] * 8 + [stored["test"]]
    assert torch.allclose(joined(evaluated), torch.cat(shown))
    *after, answer = joined(evaluated, "outputs").split([7] * 8 + [TESTED])
    scores = [segmentation_scores(classes_of(outputs, minimum), masks["validation"], 3) for outputs in after]
    selection = [(score.course_dice + score.present_dice) / 2 for score in scores]
    curve_is(training.history, "course_dice", [score.course_dice for score in scores])
    curve_is(training.history, "present_dice", [score.present_dice for score in scores])
    curve_is(training.history, "selection_dice", selection)
    assert training.best_epoch == 1 + np.argmax(selection)
    of_validation = every_second(masks["validation"]).long()
    curve_is(training.history, "validation_loss", [float(loss(outputs, of_validation)) for outputs in after])

    found, unfiltered = (classes_of(answer, pixels) for pixels in (minimum, 0))
    assert not torch.equal(found, unfiltered)  # some small classes were dropped
    assert len(found.unique()) > 1
    sizes = F.one_hot(unfiltered.flatten(1), 3).sum(1)[:, 1:]
    at_least = SegmentationTask(3, loss, None, minimum_class_pixels=int(sizes[sizes > 0].min()))
    assert torch.equal(at_least.summary(answer, masks["test"]).long(), unfiltered)  # the smallest class is kept
    tested, without_rule, nothing = (
        segmentation_scores(classes, masks["test"], 3) for classes in (found, unfiltered, torch.zeros_like(found))
    )
    headline = ("course_dice", "present_dice", "challenge_iou", "pixel_accuracy")
    expected = {key: getattr(tested, key) for key in headline} | {"course_dice_unfiltered": without_rule.course_dice}
    assert outcome.metrics == pytest.approx(expected)
    assert outcome.trivial == pytest.approx({key: getattr(nothing, key) for key in headline})
    for key in ("support_frames", "pooled_dice", "frame_present_dice"):
        assert outcome.details[key] == pytest.approx(getattr(tested, key))
    assert outcome.details["class_names"] == NAMES

    # Saved: the weights used for the test split, and the frames with the look-up's best, median and worst score.
    with torch.inference_mode():
        network = UNet(3).eval()
        network.load_state_dict(load_weights(run.weights_file(name)))
        assert torch.allclose(network(stored["test"][:9]), answer[:9], atol=1e-5)
    known = nearest_masks(run)
    by_look_up = segmentation_scores(known, masks["test"], 3).frame_present_dice
    with np.load(tmp_path / outcome.details["samples"]) as samples:
        picked = samples["frames"].tolist()
        ranks = sorted(by_look_up)
        assert [by_look_up[frame] for frame in picked] == [ranks[-1], ranks[51], ranks[0]]
        saved: dict[str, Any] = {
            "images": store.segmentation["test"].images[picked].permute(0, 2, 3, 1),
            "truth": masks["test"][picked],
            "prediction": found[picked],
            "look_up": known[picked],
            "scores": [tested.frame_present_dice[frame] for frame in picked],
            "look_up_scores": [by_look_up[frame] for frame in picked],
        }
        assert {*saved, "frames"} == {*samples}
        assert all(np.allclose(samples[key], value) for key, value in saved.items())

    # The initial bias predicts the class frequencies of the training masks; the steps follow the configuration.
    assert outcome.weights == "random"
    frequencies = (torch.bincount(masks["train"].flatten(), minlength=3) + 1).double() / (masks["train"].numel() + 3)
    assert torch.allclose(watch.starts[0]["head.bias"].double(), frequencies.log())
    took_steps(watch, 24, "AdamW", weight_decay=0.03, trainable=sum(p.numel() for p in UNet(3).parameters()))
    # All steps but the first, the warm-up.
    cost = step_cost(UNet(3), (3, *WORKING), 4, "float32")
    assert training.samples == 23 * 4
    assert [run.arithmetic_s, run.memory_s] == pytest.approx([23.0 * cost.flops, 23.0 * cost.bytes])


def took_steps(watch: Watch, count: int, kind: str, *, weight_decay: float, trainable: int, rate: float = RATE) -> None:
    """Check number and settings of the optimizer steps, and that the learning rate peaks at ``rate``."""
    assert len(watch.steps) == count
    assert {step["kind"] for step in watch.steps} == {kind}
    assert {step["weight_decay"] for step in watch.steps} == {weight_decay}
    assert {step["trainable"] for step in watch.steps} == {trainable}
    assert max(step["lr"] for step in watch.steps) == pytest.approx(rate, rel=0.02)


def test_segmentation_starts_from_the_weights_of_colorization(tmp_path: Path) -> None:
    torch.manual_seed(77)
    source = UNet(3)
    source(torch.rand(4, 3, 16, 16))  # updates the running statistics of batch norm
    settings = SUITE["seg-pretrained"].settings
    run = new_run(
        entry("seg-pretrained", Work(1, 13, 0.0, WORKING), settings=settings), coded_store(tmp_path), tmp_path
    )
    save_weights(tmp_path / "weights" / f"colorization-seed{SEED}.safetensors", source.state_dict())
    watch, outcome = watched(run)
    assert outcome.weights == "colorization"
    assert same_but("head", watch.starts[0], source.state_dict())
    assert float(watch.starts[0]["head.bias"][0]) > float(watch.starts[0]["head.bias"][1:].max())  # background


def test_a_test_split_without_instruments_has_no_challenge_iou(tmp_path: Path) -> None:
    store = coded_store(tmp_path)
    store.segmentation["test"].masks.zero_()
    configuration = entry("seg-baseline", Work(1, 13, 0.0, WORKING), settings=SUITE["seg-baseline"].settings)
    outcome = execute(new_run(configuration, store, tmp_path))
    # A record with a constant answer's score that is not a number could not be read.
    assert outcome.trivial == {"course_dice": 1.0, "present_dice": 1.0, "pixel_accuracy": 1.0}


def test_a_colorization_run(tmp_path: Path) -> None:
    store = coded_store(tmp_path)
    work = Work(3, 4, RATE, WORKING, weight_decay=0.02)
    run = new_run(entry("colorization", work, augmentation={"horizontal_flip": 1.0}), store, tmp_path)
    watch, outcome = watched(run)
    trained, evaluated = watch.of(UNet)
    grays = {split: part.grays.float() / 255 for split, part in store.colorization.items()}
    colours = {split: part.images.float() / 255 for split, part in store.colorization.items()}
    small = {split: halved(part) for split, part in grays.items()}
    missing = {split: halved(colours[split]) - small[split] for split in grays}
    history = run.trainings["training"].history

    losses = []
    for call in trained:
        rows = places(call.inputs, small["train"].expand(-1, 3, -1, -1).flip(-1))
        losses.append(float((call.outputs - missing["train"][rows].flip(-1)).double().square().mean()))
    assert len(losses) == 3 * 3
    curve_is(history, "train_loss", np.reshape(losses, (3, 3)).mean(1).tolist())
    assert not watch.starts[0]["head.weight"].any()

    # Validation after each epoch, again at the end, and the three saved frames.
    of_validation = small["validation"].expand(-1, 3, -1, -1)
    with np.load(tmp_path / outcome.details["samples"]) as samples:
        kept = dict(samples)
    picked = kept["frames"].tolist()
    assert torch.allclose(joined(evaluated), torch.cat([of_validation] * 4 + [of_validation[picked]]))
    errors, recolored = [], []
    for call in evaluated[:4]:
        full = F.interpolate(call.outputs, size=FRAME, mode="bilinear", align_corners=False)
        recolored.append((grays["validation"] + full).clamp(0, 1))
        errors.append((recolored[-1] - colours["validation"]).double().square().mean((1, 2, 3)))
    curve_is(history, "validation_mse", [float(error.mean()) for error in errors[:3]])
    best = min(range(3), key=lambda epoch: float(errors[epoch].mean()))
    assert torch.allclose(errors[3], errors[best])
    assert outcome.metrics == {"validation_mse": pytest.approx(float(errors[3].mean()))}
    curve_is(
        history, "validation_loss", [float((c.outputs - missing["validation"]).square().mean()) for c in evaluated[:3]]
    )

    ranked = errors[3].argsort().tolist()
    assert picked == [ranked[0], ranked[3], ranked[6]]
    assert kept["errors"] == pytest.approx(errors[3][picked].numpy())
    assert (kept["grays"] == store.colorization["validation"].grays[picked, 0].numpy()).all()
    assert (kept["images"] == store.colorization["validation"].images[picked].permute(0, 2, 3, 1).numpy()).all()
    expected = (recolored[3][picked] * 255).round().permute(0, 2, 3, 1).numpy()
    assert kept["predictions"] == pytest.approx(expected, abs=1)
    cast = (colours["train"] - grays["train"]).mean((0, 2, 3)).view(3, 1, 1)  # the best constant one
    constant = ((grays["validation"] + cast).clamp(0, 1) - colours["validation"]).double().square().mean()
    assert outcome.trivial == {"validation_mse": pytest.approx(float(constant), rel=1e-4)}
    assert outcome.weights == "random"
    network = UNet(3).eval()
    network.load_state_dict(load_weights(run.weights_file("colorization")))
    with torch.inference_mode():
        assert torch.allclose(network(of_validation), evaluated[3].outputs, atol=1e-5)
    took_steps(watch, 9, "AdamW", weight_decay=0.02, trainable=sum(p.numel() for p in UNet(3).parameters()))


def cross_entropies(calls: Sequence[Call], labels: Sequence[Tensor]) -> list[float]:
    return [float(F.cross_entropy(call.outputs, target)) for call, target in zip(calls, labels, strict=True)]


def judged_garments(outcome: Outcome, calls: Sequence[Call], store: Store, trained_on: Tensor, rows: list[int]) -> None:
    """Check the scores of the test garments and of the training garments after them."""
    answers, of_training = joined(calls, "outputs").argmax(1).split([TESTED, len(rows)])
    truth = store.garments["test"].labels
    assert outcome.metrics == {
        "accuracy": accuracy(answers, truth),
        "training_accuracy": accuracy(of_training, store.garments["train"].labels[rows]),
    }
    assert outcome.trivial == {"accuracy": accuracy(trained_on.mode().values.expand_as(truth), truth)}
    matrix = confusion_matrix(answers, truth, 10).tolist()
    assert outcome.details == {"class_names": store.garments["test"].class_names, "confusion_matrix": matrix}


def accuracies(calls: Sequence[Call], labels: Tensor) -> list[float]:
    return [accuracy(call.outputs.argmax(1), labels) for call in calls]


def test_a_run_from_scratch(tmp_path: Path) -> None:
    store = coded_store(tmp_path)
    train, test = store.garments["train"], store.garments["test"]
    work = Work(2, 27, RATE, (32, 32), "sgd", weight_decay=0.04, training_samples=120)
    run = new_run(entry("vgg-scratch", work, augmentation={"horizontal_flip": 1.0}), store, tmp_path)
    watch, outcome = watched(run)
    trained, evaluated = watch.of(VGG)
    seen, history = garments(train.images, *FASHION), run.trainings["training"].history

    rows = [places(call.inputs, seen.flip(-1)) for call in trained]
    validation = places(evaluated[0].inputs, seen)
    trained_on = among(rows[:4])
    assert (len(trained_on), among(rows[4:])) == (108, trained_on)
    assert len(trained_on | {*validation}) == 120
    losses = cross_entropies(trained, [train.labels[chosen] for chosen in rows])
    curve_is(history, "train_loss", np.reshape(losses, (2, 4)).mean(1).tolist())
    shown = [seen[validation]] * 2 + [garments(test.images, *FASHION)]
    inputs = joined(evaluated).split([2 * len(validation) + TESTED, 108])
    assert torch.allclose(inputs[0], torch.cat(shown), atol=1e-6)
    answered = places(inputs[1], seen)
    assert {*answered} == trained_on
    curve_is(history, "accuracy", accuracies(evaluated[:2], train.labels[validation]))
    judged_garments(outcome, evaluated[2:], store, train.labels[sorted(trained_on)], answered)
    assert outcome.weights == "random"
    network = vgg16(10).eval()
    network.load_state_dict(load_weights(run.weights_file("vgg-scratch")))
    with torch.inference_mode():
        assert torch.allclose(network(shown[-1][:9]), evaluated[2].outputs[:9], atol=1e-5)
    took_steps(watch, 8, "SGD", weight_decay=0.04, trainable=sum(p.numel() for p in network.parameters()))


@pytest.mark.parametrize("shifted", [False, True])
def test_the_initial_weights_of_a_run_from_scratch(shifted: bool, tmp_path: Path) -> None:
    run = new_run(
        entry("vgg-scratch", Work(1, 99, RATE, (32, 32), shifted_start=shifted)), coded_store(tmp_path), tmp_path
    )
    watch, _ = watched(run)
    torch.manual_seed(SEED)
    drawn = vgg16(10)
    if shifted:
        start_from_shifts(drawn, watch.of(VGG)[0][0].inputs)  # which decide only the scales
    started, expected = (
        F.normalize(state["features.2.weight"].flatten(1)) for state in (watch.starts[-1], drawn.state_dict())
    )
    assert torch.allclose(started, expected, atol=1e-6)


def test_a_frozen_run_trains_a_new_layer_on_the_features_of_the_given_weights(tmp_path: Path) -> None:
    store = coded_store(tmp_path)
    train, test = store.garments["train"], store.garments["test"]
    base = informative(seed=1)
    torch.save(base, tmp_path / "base.pth")
    run = new_run(entry("vgg-frozen", Work(3, 50, RATE, (32, 32), weight_decay=0.01)), store, tmp_path)
    watch, outcome = watched(run)
    head = run.trainings["training"]
    trained, evaluated = watch.of(type(vgg16(10).classifier[6]))

    # An independent forward pass through the source network without dropout.
    source = vgg16(1000).eval()
    source.load_state_dict(base)

    def features(images: Tensor) -> Tensor:
        with torch.inference_mode():
            pooled = source.avgpool(source.features(garments(images, *IMAGENET))).flatten(1)
            found: Tensor = source.classifier[:-1](pooled)
            return found

    known = features(train.images)
    assert float(known.std(0).max()) > 0.1
    rows = [places(call.inputs, known) for call in trained]
    validation = places(evaluated[0].inputs, known)
    assert len(validation) == 33
    assert not among(rows) & {*validation}
    assert {len(among(rows[start : start + 5])) for start in (0, 5, 10)} == {250}  # of 297, five batches of 50
    losses = cross_entropies(trained, [train.labels[chosen] for chosen in rows])
    curve_is(head.history, "train_loss", np.reshape(losses, (3, 5)).mean(1).tolist())
    curve_is(head.history, "accuracy", accuracies(evaluated[:3], train.labels[validation]))
    inputs = joined(evaluated[3:]).split([TESTED, 297])
    assert torch.allclose(inputs[0], features(test.images), atol=1e-5)
    answered, trained_on = places(inputs[1], known), {*range(330)} - {*validation}
    assert {*answered} == trained_on
    judged_garments(outcome, evaluated[3:], store, train.labels[sorted(trained_on)], answered)
    assert outcome.weights == "stand-in"
    kept = load_weights(run.weights_file("vgg-frozen"))
    assert set(kept) == {"classifier.6.weight", "classifier.6.bias"}
    answer = F.linear(features(test.images[:9]), kept["classifier.6.weight"], kept["classifier.6.bias"])
    assert torch.allclose(answer, evaluated[3].outputs[:9], atol=1e-5)
    took_steps(watch, 15, "AdamW", weight_decay=0.01, trainable=16 * 10 + 10)
    # One forward pass of the network per image, and all steps of the layer but the first.
    network, layer = vgg16(10, freeze_features=True), nn.Linear(16, 10)
    whole = step_cost(network, (3, 32, 32), 433, "float32", training=False).flops
    assert run.arithmetic_s == pytest.approx(whole + 14 * step_cost(layer, (16,), 50, "float32").flops)


def test_a_new_task_run(tmp_path: Path) -> None:
    store = coded_store(tmp_path)
    store.segmentation["train"].masks[:, :, :12] = 1  # more than half of the training crops have instruments
    parts = {split: store.cutouts_split(split, (8, 10), 2) for split in store.segmentation}
    parts["train"] = store.cutouts_split("train", (8, 10), 2, 13)
    shown = {split: instrument_cells(part.targets, (2, 2)) for split, part in parts.items()}
    mirrored = instrument_cells(parts["train"].targets.flip(-1), (2, 2))
    work = Work(2, 6, 3e-5, (32, 40), weight_decay=0.06, training_samples=13)
    settings = {"grid": [2, 2], "cutouts": 2}
    changes: dict[str, Any] = {"settings": settings, "augmentation": {"horizontal_flip": 1.0}}
    run = new_run(entry("vgg-new-task", work, **changes), store, tmp_path)
    sources = {"from_scratch": informative(2, 10), "from_pretrained": informative(3)}
    save_weights(run.weights_file("vgg-scratch"), sources["from_scratch"])
    torch.save(sources["from_pretrained"], tmp_path / "base.pth")
    torch.manual_seed(SEED)
    sources["untrained"] = dict(vgg16(4).state_dict())
    watch, outcome = watched(run)

    trained, evaluated = watch.of(FrozenVGG)
    assert outcome.weights == "vgg-scratch against stand-in"
    orders: list[list[list[int]]] = []
    for number, ((start, source), statistics) in enumerate(
        zip(sources.items(), (FASHION, IMAGENET, IMAGENET), strict=True)
    ):
        images = {
            split: normalised(F.interpolate(part.inputs.float(), size=(32, 40), mode="area") / 255, *statistics)
            for split, part in parts.items()
        }
        assert same_but("classifier.6", watch.starts[number], source)
        tuned, tests = trained[4 * number :][:4], evaluated[5 * number :][:5]
        frequencies = (shown["train"].sum(0) + 1) / 15
        assert torch.allclose(tuned[0].outputs.sigmoid(), frequencies.expand(6, -1), atol=1e-6)

        history = run.trainings[start].history
        rows = [places(call.inputs, images["train"].flip(-1)) for call in tuned]
        losses = [
            float(F.binary_cross_entropy_with_logits(call.outputs, mirrored[chosen].float()))
            for call, chosen in zip(tuned, rows, strict=True)
        ]
        assert len({*rows[0], *rows[1]}) == len({*rows[2], *rows[3]}) == 12
        orders.append(rows)
        curve_is(history, "train_loss", np.reshape(losses, (2, 2)).mean(1).tolist())
        assert torch.allclose(joined(tests), torch.cat([images["validation"]] * 2 + [images["test"]]), atol=1e-5)
        curve_is(history, "accuracy", [accuracy((c.outputs > 0).long(), shown["validation"]) for c in tests[:2]])
        correct = (joined(tests[2:], "outputs") > 0) == shown["test"]
        assert outcome.metrics[f"accuracy_{start}"] == pytest.approx(float(correct.double().mean()))
        assert outcome.metrics[f"frames_all_right_{start}"] == pytest.approx(float(correct.all(1).double().mean()))
        constant = shown["train"].double().mean(0) > 0.5
        assert constant.any()
        trivial = float((constant == shown["test"]).double().mean())
        assert outcome.trivial[f"accuracy_{start}"] == pytest.approx(trivial)
    everything = sum(parameter.numel() for parameter in vgg16(4).parameters())
    assert {(step["weight_decay"], step["trainable"]) for step in watch.steps} == {(0.06, everything)}
    assert max(step["lr"] for step in watch.steps) == pytest.approx(3e-5)
    assert orders[0] == orders[1] == orders[2]
    assert list(run.trainings) == ["from_scratch", "from_pretrained", "untrained"]


def test_the_seed_decides_weights_and_order_but_not_the_validation_split(tmp_path: Path) -> None:
    store = coded_store(tmp_path)
    work = Work(1, 99, RATE, (32, 32))
    runs = [
        watched(new_run(entry("vgg-scratch", work), store, tmp_path / str(number), seed))[0]
        for number, seed in enumerate((5, 5, 6))
    ]
    weights = [watch.starts[0]["classifier.3.weight"] for watch in runs]
    orders = [watch.of(VGG)[0][0].inputs for watch in runs]
    held_out = [watch.of(VGG)[1][0].inputs for watch in runs]
    assert [torch.equal(values[0], values[1]) for values in (weights, orders, held_out)] == [True, True, True]
    assert [torch.equal(values[1], values[2]) for values in (weights, orders, held_out)] == [False, False, True]


def test_a_run_stops_after_its_patience(tmp_path: Path) -> None:
    run = new_run(entry("vgg-scratch", Work(9, 99, 0.0, (32, 32), patience=2)), coded_store(tmp_path), tmp_path)
    execute(run)
    assert len(run.trainings["training"].history) == 3


def test_drawn_data_has_its_own_work(tmp_path: Path) -> None:
    real = entry("vgg-scratch", Work(3, 99, RATE, (32, 32)))
    configuration = replace(real, work={**real.work, "synthetic": Work(1, 99, RATE, (32, 32))})
    run = new_run(configuration, coded_store(tmp_path), tmp_path)
    assert run.schedule().epochs == 3
    (tmp_path / "SYNTHETIC.json").touch()
    assert run.schedule().epochs == 1


def test_a_run_ends_at_its_deadline(tmp_path: Path) -> None:
    run = new_run(entry("vgg-scratch", Work(1, 9, RATE, (32, 32))), coded_store(tmp_path), tmp_path, deadline=-1.0)
    with watching() as watch, pytest.raises(TimeLimitError, match="LIMIT=MINUTES"):
        execute(run)
    assert len(watch.steps) == 1


@pytest.mark.parametrize(
    ("name", "work", "expected", "labels"),
    [
        # Three steps of four frames per epoch; validation is one batch, test two.
        ("seg-baseline", Work(2, 4, RATE, WORKING), [3000, 1 + 10, 5, 10 + 20, 11 + 2], [""]),
        # Features of 297, 33 and 103 garments in four batches, and of 250 for the warm-up; five steps per epoch.
        ("vgg-frozen", Work(2, 50, 0.0, (32, 32)), [1000, 100 + 1 + 10, 400 + 9, 10 + 20 + 30, 400 + 11 + 4],
         ["features", "features", "features", ""]),
        # After the training, a batch of another size: the three saved frames.
        ("colorization", Work(2, 4, RATE, WORKING), [2000, 1 + 10 + 10, 5, 10 + 10, 11 + 2], [""]),
        # For each of three starts two epochs of two steps; evaluation on four crops each of 7 and of 103 frames.
        ("vgg-new-task", Work(2, 6, 0.0, (32, 40), training_samples=13),
         [3000, 3 * 11, 3 * 3, 3 * (10 + 50), 2 * (11 + 1)], ["from scratch", "from pretrained", "untrained"]),
    ],
)  # fmt: skip
def test_every_second_is_attributed_to_the_right_part(
    name: str, work: Work, expected: list[float], labels: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock on which a step takes 1 s, an evaluation 10 s, features 100 s, data 1,000 s."""
    now = [0.0]

    def spend(seconds: float) -> None:
        now[0] += seconds

    def spend_on(call: Call) -> None:
        if isinstance(call.module, UNet | VGG | nn.Linear):
            spend(1 if call.training else 10)
        elif isinstance(call.module, nn.Sequential) and isinstance(call.module[0], nn.Conv2d):
            spend(100)

    def slow(function: Any) -> Any:
        def slowed(*arguments: Any) -> Any:
            spend(1000)
            return function(*arguments)

        return slowed

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    for method in ("segmentation_split", "colorization_split", "garment_splits", "cutouts_split"):
        monkeypatch.setattr(Store, method, slow(getattr(Store, method)))
    run = new_run(entry(name, work), coded_store(tmp_path), tmp_path)
    save_weights(run.weights_file("vgg-scratch"), informative(2, 10))
    torch.save(informative(3), tmp_path / "base.pth")
    parts: list[tuple[str, int, mock.Mock]] = []

    def progress(label: str, steps: int) -> Callback:
        parts.append((label, steps, mock.Mock(Callback)))
        return parts[-1][2]

    run.progress = progress
    with watching(spend_on):
        outcome = execute(run)
    anything = [replace(gate, direction="above", threshold=-1.0) for gate in run.configuration.gates]
    found = timing(run, anything, outcome.trivial)
    keys = ("data_s", "warmup_s", "training_s", "evaluation_s", "seconds_to_gate")
    assert [found[key] for key in keys] == pytest.approx(expected)
    assert [label for label, _, _ in parts] == labels
    assert [steps for _, steps, _ in parts] == [callback.on_step.call_count for _, _, callback in parts]
