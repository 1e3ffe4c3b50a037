"""What a run shows to training, to the choice of the epoch and to the final score; what a constant answer scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import workloads
from benchmarks.ceiling import Ceiling, StepCost
from benchmarks.pretrained import BaseWeights
from benchmarks.store import Store
from benchmarks.suite import SUITE
from benchmarks.workloads import Outcome, Run, carry_out
from hw6core.data.synthetic import synthesize
from hw6core.models import FrozenVGG
from hw6core.train import Silent, Split, Task, Training
from tests.tiny_data import TINY

SEED = 5
SIZE = (32, 40)


@dataclass
class Witness:
    """Stands in for training and prediction, and keeps what they were given."""

    trained: list[tuple[Split, Split]] = field(default_factory=list)
    predicted: list[Split] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    first_weights: list[Tensor] = field(default_factory=list)

    def train(
        self, model: nn.Module, task: object, training: Split, validation: Split, schedule: object, **more: Any
    ) -> Training:
        self.order.append("train")
        self.trained.append((training, validation))
        self.seeds.append(more["seed"])
        self.first_weights.append(next(model.parameters()).detach().clone())
        return Training([{"epoch": 1, "accuracy": 0.5}], best_epoch=1)

    def predict(self, model: nn.Module, task: Task, split: Split, **more: Any) -> tuple[Tensor, float]:
        """What the task keeps of zeros: background everywhere, the grey frame, the first garment, no instrument."""
        self.order.append("predict")
        self.predicted.append(split)
        return task.summary(zeros(split.targets), split.targets), 0.0


def zeros(targets: Tensor) -> Tensor:
    """What a network of the kind that these targets call for puts out."""
    if targets.ndim <= 2:
        return torch.zeros(len(targets), 10 if targets.ndim == 1 else targets.shape[1])
    return torch.zeros(len(targets), 8 if targets.ndim == 3 else 3, *SIZE)


def small_vgg(num_classes: int, weights: object = None, freeze_features: bool = False) -> FrozenVGG:
    """The parts of VGG16 with a handful of weights."""
    model = FrozenVGG.__new__(FrozenVGG)
    nn.Module.__init__(model)
    model.features, model.avgpool = nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Sequential(nn.Identity(), nn.Linear(2, num_classes))
    return model


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("drawn") / "data"
    synthesize(root, sizes=TINY)
    return Store(root, torch.device("cpu"))


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> Witness:
    found = Witness()
    monkeypatch.setattr(workloads, "train", found.train)
    monkeypatch.setattr(workloads, "predict", found.predict)
    monkeypatch.setattr(workloads, "vgg16", small_vgg)
    monkeypatch.setattr(workloads, "step_cost", lambda *_, **__: StepCost(1, 1, 1))
    monkeypatch.setattr(workloads, "load_weights", lambda path: {})
    monkeypatch.setattr(workloads, "transfer", lambda *_: None)
    return found


def outcome_of(name: str, store: Store, results: Path, seed: int = SEED) -> Outcome:
    entry = SUITE[name]
    garments = entry.kind in ("scratch", "frozen")
    work = replace(entry.work["quick"], working_size=(32, 32) if garments else SIZE)
    return carry_out(
        Run(
            replace(entry, work={"quick": work}),
            "quick",
            seed,
            store,
            store.device,
            "float32",
            results,
            lambda: BaseWeights(results / "base.pth", "stand-in"),
            lambda label, steps: Silent(),
            Ceiling(1.0, 1.0),
        )
    )


def truth_of(name: str, store: Store) -> Mapping[str, Tensor]:
    """The targets of each split that a run should use."""
    kind = SUITE[name].kind
    if kind in ("scratch", "frozen"):
        splits = store.garment_splits((32, 32), SUITE[name].work["quick"].training_samples)
        return {split: part.targets for split, part in splits.items()}
    if kind == "colorization":
        return {split: store.colorization_split(split).targets for split in ("train", "validation")}
    of = store.instruments_split if kind == "new-task" else store.segmentation_split
    return {split: of(split, SIZE).targets for split in ("train", "validation", "test")}


@pytest.mark.parametrize("name", SUITE)
def test_the_epoch_is_chosen_on_validation_and_test_is_scored_once_after_training(
    name: str, store: Store, witness: Witness, tmp_path: Path
) -> None:
    outcome_of(name, store, tmp_path)
    truth = truth_of(name, store)

    assert witness.order == (["train", "train", "predict"] * 2 if name == "vgg-new-task" else ["train", "predict"])
    for training, validation in witness.trained:
        assert torch.equal(training.targets, truth["train"])
        assert torch.equal(validation.targets, truth["validation"])
    for split in witness.predicted:
        assert torch.equal(split.targets, truth["test" if "test" in truth else "validation"])


@pytest.mark.parametrize("name", SUITE)
def test_the_seed_decides_the_first_weights_and_the_order_of_the_samples(
    name: str, store: Store, witness: Witness, tmp_path: Path
) -> None:
    trainings = 4 if name == "vgg-new-task" else 1
    for seed in (SEED, SEED, SEED + 1):
        outcome_of(name, store, tmp_path, seed)

    assert witness.seeds == [SEED] * (2 * trainings) + [SEED + 1] * trainings
    first, again, other = (witness.first_weights[start * trainings :][:trainings] for start in range(3))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    if name != "vgg-new-task":  # its new layer starts from zero, see `_probe`
        assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", ["seg-baseline", "seg-augmented", "seg-pretrained"])
def test_the_trivial_answer_of_segmentation_is_background_everywhere_on_test(
    name: str, store: Store, witness: Witness, tmp_path: Path
) -> None:
    course, present = [], []
    for mask in store.segmentation["test"].masks:
        background, pixels = int((mask == 0).sum()), mask.numel()
        dice = 2 * background / (background + pixels)
        shown = len(mask.unique())
        course.append((dice + (8 - shown)) / 8)  # absent and not answered: 1; shown and not answered: 0
        present.append(dice / shown)
    outcome = outcome_of(name, store, tmp_path)

    assert outcome.trivial["course_dice"] == pytest.approx(sum(course) / len(course))
    assert outcome.trivial["present_dice"] == pytest.approx(sum(present) / len(present))
    # The network of these tests answers the same, and is scored on the same frames.
    assert outcome.metrics["course_dice"] == outcome.trivial["course_dice"]
    assert outcome.metrics["present_dice"] == outcome.trivial["present_dice"]


def test_the_trivial_answer_of_colorization_is_the_best_constant_cast(
    store: Store, witness: Witness, tmp_path: Path
) -> None:
    train, validation = (store.colorization[split] for split in ("train", "validation"))
    lacking = (train.images.double() - train.grays.double()) / 255
    cast = lacking.mean((0, 2, 3)).view(3, 1, 1)
    assert float(cast.abs().min()) > 0.01
    truth, grays = validation.images.double() / 255, validation.grays.double() / 255

    outcome = outcome_of("colorization", store, tmp_path)
    error = float(((grays + cast).clamp(0, 1) - truth).square().mean())
    assert outcome.trivial == {"validation_mse": pytest.approx(error, rel=1e-4)}
    # The network of these tests adds nothing to the grey frame: more than twice as bad.
    assert outcome.metrics == {"validation_mse": pytest.approx(float((grays - truth).square().mean()), rel=1e-4)}


def test_the_trivial_answer_of_a_classifier_is_the_class_that_training_shows_most() -> None:
    # Training: class 2 most often. Test: class 1 in three of five, class 2 in one of five.
    splits = {
        "train": Split(torch.empty(4), torch.tensor([2, 2, 1, 0])),
        "test": Split(torch.empty(5), torch.tensor([1, 1, 1, 2, 0])),
    }
    outcome = workloads._classified(torch.tensor([1, 1, 0, 2, 0]), splits, ("a", "b", "c"), "random")
    assert outcome.trivial == {"accuracy": 1 / 5}
    assert outcome.metrics == {"accuracy": 4 / 5}
    # Rows are the truth.
    assert outcome.details["confusion_matrix"] == [[1, 0, 0], [1, 2, 0], [0, 0, 1]]


def test_the_trivial_answer_of_the_new_task_is_what_most_training_frames_show(
    store: Store, witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three of four training frames show the first instrument, two the second: the answer is the first alone.
    shown = {
        "train": [[1, 1], [1, 1], [1, 0], [0, 0]],
        "validation": [[0, 0], [0, 0]],
        "test": [[1, 0], [1, 1]],  # of 7 answers all are right in the first frame, 6 in the second
    }

    def literal(split: str, size: tuple[int, int]) -> Split:
        labels = F.pad(torch.tensor(shown[split]), (0, 5))
        return Split(torch.zeros(len(labels), 3, *size, dtype=torch.uint8), labels)

    monkeypatch.setattr(store, "instruments_split", literal)
    outcome = outcome_of("vgg-new-task", store, tmp_path)
    assert outcome.trivial == {"accuracy_from_scratch": 13 / 14, "accuracy_from_pretrained": 13 / 14}
    # The network of these tests answers that no frame shows anything: 6 and 5 of 7 are right.
    assert outcome.metrics["accuracy_from_scratch"] == outcome.metrics["accuracy_from_pretrained"] == 11 / 14
