"""The seven configurations: names, gates and dependencies as the assignment and the design state them."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.suite import SUITE, Work, select, with_requirements


def test_the_gates_are_those_of_the_assignment() -> None:
    gates = {name: [f"{gate.metric} {gate}" for gate in entry.gates] for name, entry in SUITE.items()}
    expected = {
        "seg-baseline": ["course_dice > 0.5", "present_dice > 0.5"],
        "seg-augmented": ["course_dice > 0.6", "present_dice > 0.6"],
        "colorization": ["validation_mse < 0.5 x constant"],
        "seg-pretrained": ["course_dice > 0.6", "present_dice > 0.6"],
        "vgg-scratch": ["accuracy > 0.85"],
        "vgg-frozen": ["accuracy > 0.6"],
        "vgg-new-task": ["accuracy_from_scratch > constant", "accuracy_from_pretrained > constant"],
    }
    assert gates.items() >= expected.items()  # further configurations may have been added


def test_augmented_and_pretrained_have_the_settings_of_the_baseline() -> None:
    baseline, augmented, pretrained = (SUITE[f"seg-{name}"] for name in ("baseline", "augmented", "pretrained"))
    assert baseline.work == augmented.work == pretrained.work
    assert baseline.settings == augmented.settings == pretrained.settings
    # The Dice loss as it was chosen: without rare classes on drawn data, with them on the real data (docs/choices.md).
    assert [baseline.fingerprint("quick", kind)["settings"].get("absent") for kind in ("synthetic", "real")] == [
        None,
        "ignore",
    ]
    assert augmented.augmentation == pretrained.augmentation
    assert baseline.augmentation is None


def test_the_fingerprint_has_all_settings_that_decide_the_result() -> None:
    work = {"full": Work(9, 8, 1e-3, (64, 80)), "quick": Work(5, 8, 1e-3, (64, 80))}
    drawn = Work(2, 4, 1e-2, (32, 40), settings={"smoothing": 2.0, "absent": "ignore"}, cost=1.0)
    entry = replace(SUITE["seg-pretrained"], work=work | {"synthetic": drawn})
    assert [entry.fingerprint(*place)["work"]["epochs"] for place in (("full", "real"), ("quick", "real"))] == [9, 5]
    found = entry.fingerprint("quick", "synthetic")
    assert found == {
        "kind": "segmentation",
        "work": {
            "epochs": 2,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "working_size": [32, 40],
            "optimizer": "adam",
            "weight_decay": 0.0,
            "patience": None,
            "training_samples": None,
            "shifted_start": False,
        },
        "augmentation": dict(entry.augmentation or {}),
        "requires": ["colorization"],
        "settings": {"smoothing": 2.0, "pool": "batch", "minimum_class_pixels": 300, "absent": "ignore"},
    }
    assert found["augmentation"]["rotation_degrees"] == 10.0
    entry = replace(entry, work=work)  # no own work for drawn data
    assert entry.fingerprint("quick", "synthetic") == entry.fingerprint("quick", "real")


def test_requirements_are_added_and_come_first() -> None:
    assert [entry.id for entry in with_requirements(select(["seg-pretrained"]))] == ["colorization", "seg-pretrained"]
    assert [entry.id for entry in with_requirements(select([]))] == list(SUITE)
