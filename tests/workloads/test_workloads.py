"""Whole runs on a few small samples: inputs, initial weights and scores.

The expected values are computed here from the stored samples and the recorded outputs of the networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

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
from benchmarks.workloads.floors import nearest
from benchmarks.workloads.run import Outcome, Run
from hw6core.checkpoint import load_weights, save_weights
from hw6core.models import FrozenVGG, UNet, start_from_shifts, vgg16
from hw6core.tasks import resize_images
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


def soft_dice_loss(logits: Tensor, masks: Tensor, smoothing: float, pool: str, absent: str) -> float:
    chances = logits.double().softmax(1)
    truth = F.one_hot(masks.long(), len(NAMES)).movedim(-1, 1).double()
    axes = (0, 2, 3) if pool == "batch" else (2, 3)
    both, all_of_them = (chances * truth).sum(axes), (chances + truth).sum(axes)
    scores = (2 * both + smoothing) / (all_of_them + smoothing)
    counted = truth.sum(axes) > 0 if absent == "ignore" else torch.ones_like(scores)
    return float(1 - ((scores * counted).sum(-1) / counted.sum(-1)).mean())


def classes_of(logits: Tensor, minimum: int) -> Tensor:
    """The most likely class of each pixel at full size; classes with too few pixels in a frame become background."""
    found = F.interpolate(logits, size=FRAME, mode="bilinear", align_corners=False).argmax(1)
    for frame in found:
        for label in range(len(NAMES)):
            if (frame == label).sum() < minimum:
                frame[frame == label] = 0
    return found


def dice(found: Tensor, masks: Tensor) -> tuple[list[float], list[float]]:
    """Course and present Dice of each frame."""
    course, present = [], []
    for answer, truth in zip(found, masks, strict=True):
        scores, shown = [], []
        for label in range(len(NAMES)):
            p, t = (answer == label), (truth == label)
            scores.append(float(2 * (p & t).sum() / (p.sum() + t.sum())) if (p | t).any() else 1.0)
            shown += [scores[-1]] if t.any() else []
        course.append(float(np.mean(scores)))
        present.append(float(np.mean(shown)))
    return course, present


@pytest.mark.parametrize(
    ("name", "augmentation", "smoothing", "pool", "absent"),
    [
        ("seg-baseline", None, 1.0, "batch", "course"),
        ("seg-augmented", {"horizontal_flip": 1.0}, 40.0, "frame", "ignore"),
    ],
)
def test_a_segmentation_run(
    name: str, augmentation: dict[str, float] | None, smoothing: float, pool: str, absent: str, tmp_path: Path
) -> None:
    store = coded_store(tmp_path)
    minimum = 8
    settings = {"smoothing": smoothing, "pool": pool, "minimum_class_pixels": minimum}
    work = Work(8, 4, RATE, WORKING, weight_decay=0.03, settings={} if absent == "course" else {"absent": absent})
    run = new_run(entry(name, work, settings=settings, augmentation=augmentation), store, tmp_path)
    watch, outcome = watched(run)
    trained, evaluated = watch.of(UNet)
    stored = {split: halved(part.images).round() / 255 for split, part in store.segmentation.items()}
    masks = {split: part.masks for split, part in store.segmentation.items()}
    history = run.trainings["training"].history

    # Training: in each epoch three batches of four of the thirteen training frames, without repetition.
    def flipped(images: Tensor) -> Tensor:
        return images.flip(-1) if augmentation else images

    assert len(trained) == 8 * 3
    losses = []
    for number in range(8):
        batches = trained[3 * number : 3 * number + 3]
        rows = [places(call.inputs, flipped(stored["train"])) for call in batches]
        assert len({*rows[0], *rows[1], *rows[2]}) == 12
        truth = [flipped(every_second(masks["train"][chosen])) for chosen in rows]
        pairs = zip(batches, truth, strict=True)
        losses.append(mean(soft_dice_loss(call.outputs, target, smoothing, pool, absent) for call, target in pairs))
    curve_is(history, "train_loss", losses)

    # Evaluation: validation after each epoch, the test split once at the end.
    shown = [stored["validation"]] * 8 + [stored["test"]]
    assert torch.allclose(joined(evaluated), torch.cat(shown))
    after = joined(evaluated, "outputs").split([7] * 8 + [103])
    scores = [dice(classes_of(outputs, minimum), masks["validation"]) for outputs in after[:8]]
    curve_is(history, "course_dice", [mean(course) for course, _ in scores])
    curve_is(history, "present_dice", [mean(present) for _, present in scores])
    curve_is(history, "selection_dice", [(mean(course) + mean(present)) / 2 for course, present in scores])
    assert run.trainings["training"].best_epoch == 1 + np.argmax([np.mean([*c, *p]) for c, p in scores])
    of_validation = every_second(masks["validation"])
    curve_is(history, "validation_loss", [soft_dice_loss(o, of_validation, smoothing, pool, absent) for o in after[:8]])

    found = classes_of(after[8], minimum)
    found_course, found_present = dice(found, masks["test"])
    assert not torch.equal(found, classes_of(after[8], 0))  # some small classes were dropped
    assert len(found.unique()) > 1
    assert outcome.metrics == {
        "course_dice": pytest.approx(np.mean(found_course)),
        "present_dice": pytest.approx(np.mean(found_present)),
        "challenge_iou": pytest.approx(challenge_iou(found, masks["test"])),
        "pixel_accuracy": pytest.approx(float((found == masks["test"]).double().mean())),
        "course_dice_unfiltered": pytest.approx(np.mean(dice(classes_of(after[8], 0), masks["test"])[0])),
    }
    nothing = torch.zeros_like(found)
    course, present = dice(nothing, masks["test"])
    assert outcome.trivial == {
        "course_dice": pytest.approx(np.mean(course)),
        "present_dice": pytest.approx(np.mean(present)),
        "challenge_iou": 0.0,
        "pixel_accuracy": pytest.approx(float((masks["test"] == 0).double().mean())),
    }
    assert outcome.details["class_names"] == NAMES
    labels = range(3)
    assert outcome.details["support_frames"] == tuple(int((masks["test"] == c).any((1, 2)).sum()) for c in labels)
    pooled = [
        2 * ((found == c) & (masks["test"] == c)).sum() / ((found == c).sum() + (masks["test"] == c).sum())
        for c in labels
    ]
    assert outcome.details["pooled_dice"] == pytest.approx([float(value) for value in pooled])
    assert outcome.details["frame_present_dice"] == pytest.approx(found_present)

    # Saved: the weights used for the test split, and the frames with the look-up's best, median and worst score.
    with torch.inference_mode():
        network = UNet(3).eval()
        network.load_state_dict(load_weights(run.weights_file(name)))
        assert torch.allclose(network(stored["test"][:9]), after[8][:9], atol=1e-5)
    frames_32x40 = {split: resize_images(part.images, (32, 40)) for split, part in store.segmentation.items()}
    with np.load(tmp_path / outcome.details["samples"]) as samples:
        picked = samples["frames"].tolist()
        known = masks["train"][nearest(frames_32x40["test"], frames_32x40["train"])[:, 0]]
        by_look_up = dice(known, masks["test"])[1]
        ranks = sorted(by_look_up)
        assert [by_look_up[frame] for frame in picked] == pytest.approx([ranks[-1], ranks[51], ranks[0]])
        assert samples["look_up_scores"].tolist() == pytest.approx([by_look_up[frame] for frame in picked])
        assert (samples["look_up"] == known[picked].numpy()).all()
        assert samples["scores"].tolist() == pytest.approx([found_present[frame] for frame in picked])
        assert (samples["truth"] == masks["test"][picked].numpy()).all()
        assert (samples["prediction"] == found[picked].numpy()).all()
        assert (samples["images"] == store.segmentation["test"].images[picked].permute(0, 2, 3, 1).numpy()).all()

    # The initial bias predicts the class frequencies of the training masks; the steps follow the configuration.
    assert outcome.weights == "random"
    frequencies = (torch.bincount(masks["train"].flatten(), minlength=3) + 1).double() / (masks["train"].numel() + 3)
    assert torch.allclose(watch.starts[0]["head.bias"].double(), frequencies.log())
    took_steps(watch, 24, "AdamW", weight_decay=0.03, trainable=sum(p.numel() for p in UNet(3).parameters()))
    # All steps but the first, the warm-up.
    cost = step_cost(UNet(3), (3, *WORKING), 4, "float32")
    assert run.trainings["training"].samples == 23 * 4
    assert [run.arithmetic_s, run.memory_s] == pytest.approx([23.0 * cost.flops, 23.0 * cost.bytes])


def challenge_iou(found: Tensor, masks: Tensor) -> float:
    frames = []
    for answer, truth in zip(found, masks, strict=True):
        shown = [label for label in (1, 2) if (truth == label).any()]
        values = [((answer == c) & (truth == c)).sum() / ((answer == c) | (truth == c)).sum() for c in shown]
        frames += [float(torch.stack(values).mean())] if values else []
    return float(np.mean(frames))


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
    assert outcome.weights == "random"
    network = UNet(3).eval()
    network.load_state_dict(load_weights(run.weights_file("colorization")))
    with torch.inference_mode():
        assert torch.allclose(network(of_validation), evaluated[3].outputs, atol=1e-5)
    took_steps(watch, 9, "AdamW", weight_decay=0.02, trainable=sum(p.numel() for p in UNet(3).parameters()))


def test_the_constant_predictor_of_colorization_is_the_best_colour_cast(tmp_path: Path) -> None:
    store = coded_store(tmp_path)
    outcome = execute(new_run(entry("colorization", Work(1, 13, 0.0, WORKING)), store, tmp_path))
    train, validation = (store.colorization[split] for split in ("train", "validation"))
    lacking = (train.images.double() - train.grays.double()) / 255
    cast = lacking.mean((0, 2, 3)).view(3, 1, 1)
    assert float(cast.abs().min()) > 0.01
    truth, grays = validation.images.double() / 255, validation.grays.double() / 255
    error = float(((grays + cast).clamp(0, 1) - truth).square().mean())
    assert outcome.trivial == {"validation_mse": pytest.approx(error, rel=1e-4)}
    # The untrained network predicts the grey frame, which is worse.
    assert outcome.metrics == {"validation_mse": pytest.approx(float((grays - truth).square().mean()), rel=1e-4)}


def cross_entropies(calls: Sequence[Call], labels: Sequence[Tensor]) -> list[float]:
    """By definition: minus the logarithm of the probability of the correct class."""
    chances = [call.outputs.double().softmax(1) for call in calls]
    return [float(-p[range(len(p)), target].log().mean()) for p, target in zip(chances, labels, strict=True)]


def judged_garments(outcome: Outcome, calls: Sequence[Call], store: Store, trained_on: Tensor, rows: list[int]) -> None:
    """Check the scores of the test garments and of the training garments after them."""
    logits = joined(calls, "outputs")
    truth, answers = store.garments["test"].labels, logits[:TESTED].argmax(1)
    majority = int(torch.mode(trained_on).values)
    matrix = [[int(((truth == row) & (answers == column)).sum()) for column in range(10)] for row in range(10)]
    correct = store.garments["train"].labels[rows] == logits[TESTED:].argmax(1)
    assert outcome.metrics == {
        "accuracy": pytest.approx(float((truth == answers).double().mean())),
        "training_accuracy": pytest.approx(float(correct.double().mean())),
    }
    assert outcome.trivial == {"accuracy": pytest.approx(float((truth == majority).double().mean()))}
    assert outcome.details == {"class_names": store.garments["test"].class_names, "confusion_matrix": matrix}


def accuracies(calls: Sequence[Call], labels: Tensor) -> list[float]:
    return [float((call.outputs.argmax(1) == labels).double().mean()) for call in calls]


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


def yes_no_loss(call: Call, labels: Tensor) -> float:
    return float(F.softplus(torch.where(labels == 1, -1, 1) * call.outputs.double()).mean())


def quarters(masks: Tensor) -> Tensor:
    """For each quarter of a mask, row by row, whether more than a quarter of its pixels are an instrument."""
    height, width = masks.shape[-2] // 2, masks.shape[-1] // 2
    shares = (masks > 0).double().view(-1, 2, height, 2, width).mean((2, 4))
    return (shares > 0.25).flatten(1).long()


def test_a_new_task_run(tmp_path: Path) -> None:
    store = coded_store(tmp_path)
    store.segmentation["train"].masks[:, :, :12] = 1  # more than half of the training crops have instruments
    parts = {split: store.cutouts_split(split, (8, 10), 2) for split in store.segmentation}
    parts["train"] = store.cutouts_split("train", (8, 10), 2, 13)
    shown = {split: quarters(part.targets) for split, part in parts.items()}
    mirrored = quarters(parts["train"].targets.flip(-1))
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
        losses = [yes_no_loss(call, mirrored[chosen]) for call, chosen in zip(tuned, rows, strict=True)]
        assert len({*rows[0], *rows[1]}) == len({*rows[2], *rows[3]}) == 12
        orders.append(rows)
        curve_is(history, "train_loss", np.reshape(losses, (2, 2)).mean(1).tolist())
        assert torch.allclose(joined(tests), torch.cat([images["validation"]] * 2 + [images["test"]]), atol=1e-5)
        right = [float(((call.outputs > 0) == shown["validation"]).double().mean()) for call in tests[:2]]
        curve_is(history, "accuracy", right)
        correct = (joined(tests[2:], "outputs") > 0) == shown["test"]
        assert outcome.metrics[f"accuracy_{start}"] == pytest.approx(float(correct.double().mean()))
        assert outcome.metrics[f"frames_all_right_{start}"] == pytest.approx(float(correct.all(1).double().mean()))
        assert outcome.details[f"label_accuracy_{start}"] == pytest.approx(correct.double().mean(0).tolist())
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
    lengths: list[int] = []
    for _ in ("real", "synthetic"):
        run = new_run(configuration, coded_store(tmp_path), tmp_path / str(len(lengths)))
        execute(run)
        lengths.append(len(run.trainings["training"].history))
        (tmp_path / "SYNTHETIC.json").touch()
    assert lengths == [3, 1]


def test_a_run_ends_at_its_deadline(tmp_path: Path) -> None:
    run = new_run(entry("vgg-scratch", Work(1, 9, RATE, (32, 32))), coded_store(tmp_path), tmp_path, deadline=-1.0)
    with watching() as watch, pytest.raises(TimeLimitError, match="LIMIT=MINUTES"):
        execute(run)
    assert len(watch.steps) == 1


class StepCounter(Callback):
    def __init__(self, steps: int) -> None:
        self.announced, self.done = steps, 0

    def on_step(self) -> None:
        self.done += 1


TIMES: Mapping[str, tuple[Work, dict[str, float | None], list[str]]] = {
    # Three steps of four frames per epoch; validation is one batch, test two.
    "seg-baseline": (
        Work(2, 4, RATE, WORKING),
        {"data_s": 3000, "warmup_s": 1 + 10, "training_s": 5, "evaluation_s": 10 + 20,
         "samples": 5 * 4, "samples_per_s": 4, "seconds_to_gate": 11 + 2, "epochs": 2, "best_epoch": 1},
        [""],
    ),
    # Features of 297, 33 and 103 garments in four batches, and of 250 for the warm-up; five steps per epoch.
    "vgg-frozen": (
        Work(2, 50, 0.0, (32, 32)),
        {"data_s": 1000, "warmup_s": 100 + 1 + 10, "training_s": 400 + 9,
         "evaluation_s": 10 + 20 + 30, "samples": 450, "samples_per_s": 450 / 409, "seconds_to_gate": 400 + 11 + 4,
         "epochs": 2, "best_epoch": 1},
        ["features", "features", "features", ""],
    ),
    # After the training, a batch of another size: the three saved frames.
    "colorization": (Work(2, 4, RATE, WORKING), {"warmup_s": 1 + 10 + 10}, [""]),
    # For each of three starts two epochs of two steps; evaluation on four crops each of 7 and of 103 frames.
    "vgg-new-task": (
        Work(2, 6, 0.0, (32, 40), training_samples=13),
        {"data_s": 3000, "warmup_s": 3 * 11, "training_s": 3 * 3, "evaluation_s": 3 * (10 + 50), "samples": 3 * 18,
         "samples_per_s": 6, "seconds_to_gate": 2 * (11 + 1), "epochs": 2, "best_epoch": None},
        ["from scratch", "from pretrained", "untrained"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TIMES)
def test_every_second_is_attributed_to_the_right_part(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock on which a step takes 1 s, an evaluation 10 s, features 100 s, data 1,000 s."""
    work, expected, labels = TIMES[name]
    now = [0.0]

    def spend(seconds: float) -> None:
        now[0] += seconds

    def spend_on(call: Call) -> None:
        if isinstance(call.module, UNet | VGG | nn.Linear):
            spend(1 if call.training else 10)
        elif isinstance(call.module, nn.Sequential) and isinstance(call.module[0], nn.Conv2d):
            spend(100)

    def slow(function: Any, seconds: float) -> Any:
        def slowed(*arguments: Any) -> Any:
            spend(seconds)
            return function(*arguments)

        return slowed

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    for method in ("segmentation_split", "garment_splits", "cutouts_split"):
        monkeypatch.setattr(Store, method, slow(getattr(Store, method), 1000))
    run = new_run(entry(name, work), coded_store(tmp_path), tmp_path)
    save_weights(run.weights_file("vgg-scratch"), informative(2, 10))
    torch.save(informative(3), tmp_path / "base.pth")
    parts: list[tuple[str, StepCounter]] = []

    def progress(label: str, steps: int) -> StepCounter:
        parts.append((label, StepCounter(steps)))
        return parts[-1][1]

    run.progress = progress
    with watching(spend_on):
        outcome = execute(run)
    anything = [replace(gate, threshold=-1.0) for gate in run.configuration.gates]
    found = timing(run, anything, outcome.trivial)
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert [label for label, _ in parts] == labels
    assert [progress.announced for _, progress in parts] == [progress.done for _, progress in parts]
