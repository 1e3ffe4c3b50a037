"""The seven configurations, with all numbers of the suite: settings, gates, floors and margins.

Does not import torch, so that records can be judged on a machine without a GPU or the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from hw6core.errors import UsageError

Profile = Literal["full", "quick"]
Kind = Literal["segmentation", "colorization", "scratch", "frozen", "new-task", "stand-in"]
# Baselines without training, scored by `benchmarks.workloads.floors`.
Floor = Literal[
    "nearest training frame's mask",
    "colour for each grey level",
    "5 nearest neighbours",
    "nearest class mean",
    "untrained VGG16's features",
    "nearest training part's labels",
    "an untrained start",
]
# Not a bound for each run, because it is a training with noise of its own: see docs/judging.md.
CONTROL: Floor = "an untrained start"
PROFILES: tuple[Profile, ...] = ("full", "quick")
SEEDS: Mapping[str, tuple[int, ...]] = {"full": (0, 1, 2), "quick": (0,)}


@dataclass(frozen=True)
class Gate:
    """A bound that a metric of a run must clear.

    Attributes:
        metric: a key of the record's ``metrics``; the constant predictor's value has the same key in ``trivial``.
        direction: the value must be strictly "above" or "below" the bound.
        threshold: the bound; None if it depends on the constant predictor.
        share_of_trivial: the bound as a multiple of the constant predictor's value.
    """

    metric: str
    direction: Literal["above", "below"]
    threshold: float | None = None
    share_of_trivial: float | None = None

    def bound(self, trivial: Mapping[str, float]) -> float:
        """The bound as a number."""
        if self.threshold is not None:
            return self.threshold
        assert self.share_of_trivial is not None
        return self.share_of_trivial * trivial[self.metric]

    def passes(self, value: float, trivial: Mapping[str, float]) -> bool:
        """Whether a value clears the bound; NaN never does."""
        return self.better(value, self.bound(trivial))

    def better(self, value: float, other: float) -> bool:
        """Whether a value is strictly better than another one."""
        return value > other if self.direction == "above" else value < other

    def __str__(self) -> str:
        sign = ">" if self.direction == "above" else "<"
        if self.threshold is not None:
            return f"{sign} {self.threshold:g}"
        return f"{sign} constant" if self.share_of_trivial == 1 else f"{sign} {self.share_of_trivial:g} x constant"


@dataclass(frozen=True)
class Margin:
    """How much worse a value may be and still count as no worse; docs/judging.md says how each margin was set.

    Attributes:
        size: the absolute margin or, if ``relative``, a share of the old value.
        more_is_better: True for scores and rates, False for errors and times.
    """

    size: float
    relative: bool = False
    more_is_better: bool = True


# For each metric with a gate: a difference that does not matter in practice.
MARGINS: dict[str, Margin] = {
    "course_dice": Margin(0.02),
    "present_dice": Margin(0.02),
    "validation_mse": Margin(0.10, relative=True, more_is_better=False),
    "accuracy": Margin(0.01),
    "accuracy_from_scratch": Margin(0.01),
    "accuracy_from_pretrained": Margin(0.01),
}
# For the cost of a run. A single epoch is a large part of the time to gate.
COST_MARGINS: dict[str, Margin] = {
    "training_s": Margin(0.10, relative=True, more_is_better=False),
    "samples_per_s": Margin(0.10, relative=True),
    "seconds_to_gate": Margin(0.25, relative=True, more_is_better=False),
    "total_s": Margin(0.10, relative=True, more_is_better=False),
    "peak_memory_gib": Margin(0.10, relative=True, more_is_better=False),
    "peak_device_memory_gib": Margin(0.05, relative=True, more_is_better=False),
    "energy_j": Margin(0.15, relative=True, more_is_better=False),
}
# For the number of corrected errors of a GPU: worse if more than ten times the median of the fleet.
ERROR_MARGIN = Margin(9, relative=True, more_is_better=False)


@dataclass(frozen=True)
class Work:
    """The training settings of a run.

    Attributes:
        epochs, batch_size, learning_rate, optimizer, weight_decay, patience: see `hw6core.schedule.Schedule`.
        working_size: height and width of the network's input; scores are computed at the size of the data.
        training_samples: maximum number of training samples, drawn with a fixed seed; None uses all.
        shifted_start: initialise VGG16 with `hw6core.models.start_from_shifts`.
        settings: added to the configuration's settings.
        cost: relative duration, for the first estimate of the time left; None if unknown. For "quick" and "synthetic"
            about the seconds on two cores without bf16, for "full" proportional to the arithmetic.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    working_size: tuple[int, int]
    optimizer: Literal["adam", "sgd"] = "adam"
    weight_decay: float = 0.0
    patience: int | None = None
    training_samples: int | None = None
    shifted_start: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: float | None = None


@dataclass(frozen=True)
class Configuration:
    """A training and how it is judged.

    Attributes:
        id: its name on the command line and in files.
        question: the question of the assignment.
        title: one line for reports.
        kind: the workload that runs it.
        gates: all must pass.
        work: the training settings of each profile, and of shorter runs on drawn data ("synthetic").
        augmentation: arguments of `hw6core.data.augment.Augmentation`; None for none.
        requires: configurations whose run with the same seed must be complete first.
        settings: further settings of this kind of workload.
        floors: baselines without training, the best of which a run must beat (except `CONTROL`, over which starts are
            tested over seeds). They do not affect the training.
        worked_answer: scores of the assignment's published solution, by the names of the metrics here.
    """

    id: str
    question: str
    title: str
    kind: Kind
    gates: tuple[Gate, ...]
    work: Mapping[str, Work]
    augmentation: Mapping[str, float] | None = None
    requires: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    floors: tuple[Floor, ...] = ()
    worked_answer: Mapping[str, float] = field(default_factory=dict)

    @property
    def uses_base_weights(self) -> bool:
        """Whether runs start from pre-trained VGG16 weights."""
        return self.kind in ("frozen", "new-task")

    def work_on(self, profile: str, data_kind: str) -> Work:
        """The training settings for "real" or "synthetic" data."""
        return self.work.get(data_kind) or self.work[profile]

    def settings_on(self, profile: str, data_kind: str) -> dict[str, Any]:
        """The settings of this kind of workload, for "real" or "synthetic" data."""
        return {**self.settings, **self.work_on(profile, data_kind).settings}

    def fingerprint(self, profile: str, data_kind: str) -> dict[str, Any]:
        """All settings that decide the result of a run; a record with other settings is out of date."""
        work = self.work_on(profile, data_kind)
        return {
            "kind": self.kind,
            "work": {name: value for name, value in asdict(work).items() if name not in ("cost", "settings")}
            | {"working_size": list(work.working_size)},
            "augmentation": None if self.augmentation is None else dict(self.augmentation),
            "requires": list(self.requires),
            "settings": self.settings_on(profile, data_kind),
        }


def dice_gates(threshold: float) -> tuple[Gate, Gate]:
    """The course's condition, and the same for present Dice, which predicting only background fails."""
    return Gate("course_dice", "above", threshold), Gate("present_dice", "above", threshold)


# An average over all classes, as course Dice takes it, loses the rare instruments of the real data for good: see
# docs/choices.md. Drawn data has no rare classes, and there it gives the better course Dice.
_RARE_CLASSES = {"absent": "ignore"}
_SEG_BASELINE = Configuration(
    id="seg-baseline",
    question="1(a)",
    title="U-Net, Dice loss, no augmentation",
    kind="segmentation",
    gates=dice_gates(0.5),
    work={
        "full": Work(120, 10, 3e-3, (96, 120), weight_decay=1e-4, settings=_RARE_CLASSES, cost=400),
        "quick": Work(40, 10, 3e-3, (64, 80), weight_decay=1e-4, settings=_RARE_CLASSES, cost=680),
        # Small frames and many epochs: most errors here are confused instruments, not outlines.
        "synthetic": Work(18, 10, 3e-3, (24, 32), weight_decay=1e-4, cost=60),
    },
    # Smoothing and pooling of the Dice loss. Classes with fewer pixels in a 256x320 frame are dropped: see
    # docs/choices.md.
    settings={"smoothing": 1.0, "pool": "batch", "minimum_class_pixels": 300},
    floors=("nearest training frame's mask",),
    worked_answer={"course_dice": 0.5527},
)
_SEG_AUGMENTED = replace(
    _SEG_BASELINE,
    id="seg-augmented",
    question="1(b)",
    title="U-Net, Dice loss, paired augmentation",
    gates=dice_gates(0.6),
    augmentation={
        "horizontal_flip": 0.5,
        "rotation_degrees": 10.0,
        "scale": 0.1,
        "shift": 0.05,
        "brightness": 0.1,
        "contrast": 0.1,
    },
    worked_answer={"course_dice": 0.4572},
)
_COLORIZATION = Configuration(
    id="colorization",
    question="1(c)",
    title="U-Net, grey to RGB",
    kind="colorization",
    gates=(Gate("validation_mse", "below", share_of_trivial=0.5),),
    work={
        "full": Work(40, 10, 3e-3, (128, 160), weight_decay=1e-4, cost=1200),
        "quick": Work(4, 10, 3e-3, (64, 80), weight_decay=1e-4, cost=310),
        "synthetic": Work(10, 10, 3e-3, (32, 40), weight_decay=1e-4, cost=50),
    },
    augmentation={"horizontal_flip": 0.5},
    floors=("colour for each grey level",),
)
_SEG_PRETRAINED = replace(
    _SEG_AUGMENTED,
    id="seg-pretrained",
    question="1(d)",
    title="seg-augmented, starting from colorization's weights",
    requires=("colorization",),
    worked_answer={"course_dice": 0.4896},
)
_VGG_SCRATCH = Configuration(
    id="vgg-scratch",
    question="2(a)",
    title="VGG16 from random weights, Fashion-MNIST",
    kind="scratch",
    gates=(Gate("accuracy", "above", 0.85),),
    work={
        "full": Work(30, 128, 2e-4, (32, 32), weight_decay=1e-2, cost=4500),
        "quick": Work(4, 64, 2e-4, (32, 32), weight_decay=1e-2, training_samples=20_000, cost=2300),
        "synthetic": Work(
            2, 32, 1e-4, (32, 32), weight_decay=1e-2, training_samples=2_200, shifted_start=True, cost=160
        ),
    },
    augmentation={"horizontal_flip": 0.5},
    floors=("5 nearest neighbours",),
    worked_answer={"accuracy": 0.9156, "training_accuracy": 0.9204},
)
_VGG_FROZEN = Configuration(
    id="vgg-frozen",
    question="2(b)",
    title="VGG16 with ImageNet weights, only the last layer trained",
    kind="frozen",
    gates=(Gate("accuracy", "above", 0.60),),
    work={
        "full": Work(20, 256, 1e-3, (64, 64), cost=250),
        "quick": Work(30, 64, 1e-2, (32, 32), training_samples=6_000, cost=103),
        "synthetic": Work(60, 64, 1e-2, (32, 32), training_samples=3_000, cost=33),
    },
    floors=("nearest class mean", "untrained VGG16's features"),
    worked_answer={"accuracy": 0.8498, "training_accuracy": 0.8191},
)
_VGG_NEW_TASK = Configuration(
    id="vgg-new-task",
    question="2(c)",
    title="both VGG16s fine-tuned: which quarters of a frame crop show instruments?",
    kind="new-task",
    gates=(
        Gate("accuracy_from_scratch", "above", share_of_trivial=1.0),
        Gate("accuracy_from_pretrained", "above", share_of_trivial=1.0),
    ),
    work={
        "full": Work(20, 32, 3e-5, (64, 80), weight_decay=1e-2, cost=1000),
        "quick": Work(4, 32, 5e-5, (32, 40), weight_decay=1e-2, cost=420),
        "synthetic": Work(2, 20, 5e-5, (32, 40), weight_decay=1e-2, training_samples=600, cost=195),
    },
    augmentation={"horizontal_flip": 0.5},
    requires=("vgg-scratch", "vgg-frozen"),
    # Number of crops of each frame; rows and columns of the cells that are labelled in each crop.
    settings={"cutouts": 4, "grid": [2, 2]},
    floors=("nearest training part's labels", CONTROL),
)

SUITE: Mapping[str, Configuration] = {
    configuration.id: configuration
    for configuration in (
        _SEG_BASELINE,
        _SEG_AUGMENTED,
        _COLORIZATION,
        _SEG_PRETRAINED,
        _VGG_SCRATCH,
        _VGG_FROZEN,
        _VGG_NEW_TASK,
    )
}

# Trained first if no ImageNet weights are available and the profile does not download them. One for all seeds, as there
# is one set of ImageNet weights.
STAND_IN = Configuration(
    id="vgg16-stand-in",
    question="",
    title="VGG16 on drawn shapes, a stand-in for ImageNet weights",
    kind="stand-in",
    gates=(),
    work={"quick": Work(1, 16, 2e-5, (32, 32), weight_decay=1e-2, shifted_start=True, cost=87)},
)
STAND_IN_SEED = 0


def at_working_size(configuration: Configuration, size: tuple[int, int] | None) -> Configuration:
    """The configuration with frames of another height and width; unchanged without a size or if it trains no U-Net.

    >>> at_working_size(SUITE["seg-baseline"], (256, 320)).work["quick"].working_size
    (256, 320)
    """
    if size is None or configuration.kind not in ("segmentation", "colorization"):
        return configuration
    resized = {profile: replace(work, working_size=size) for profile, work in configuration.work.items()}
    return replace(configuration, work=resized)


def select(ids: Sequence[str]) -> list[Configuration]:
    """The named configurations in the order of the suite; all if none is named.

    Raises:
        UsageError: a name is unknown.
    """
    unknown = [name for name in ids if name not in SUITE]
    if unknown:
        raise UsageError(f"unknown configuration {unknown[0]!r}; known: {', '.join(SUITE)}")
    return [configuration for configuration in SUITE.values() if not ids or configuration.id in ids]


def with_requirements(chosen: Sequence[Configuration]) -> list[Configuration]:
    """The chosen configurations and those that they require, in the order of the suite: requirements come first."""
    wanted = [configuration.id for configuration in chosen]
    for name in wanted:  # grows while it is iterated
        wanted += SUITE[name].requires
    return [configuration for configuration in SUITE.values() if configuration.id in wanted]
