"""Comparison of fingerprints: verdicts, the envelope, the odd one out, files and exit codes."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from benchmarks import __main__ as command_line
from benchmarks import acceptance
from benchmarks.detection.faults import round_to
from benchmarks.fingerprint import envelope as making
from benchmarks.fingerprint import training
from benchmarks.fingerprint.comparison import (
    Comparison,
    Envelope,
    Verdict,
    compare,
    deviations,
    judge_several,
    read_envelope,
)
from benchmarks.fingerprint.envelope import learn_envelope
from benchmarks.fingerprint.record import (
    STEPS,
    VERSION,
    Fingerprint,
    Network,
    Place,
    findings_line,
    read_fingerprint,
    write_fingerprint,
)
from benchmarks.fingerprint.training import train_unet
from benchmarks.results.records import write_record
from hw6core.errors import DataError, UsageError
from hw6core.models import UNet
from tests.fingerprint.test_training import plant, small_network, trained
from tests.finished_runs import no_figures
from tests.record_factory import make_record

ONE_THREAD = {"device": "cpu", "device_name": "a processor", "threads": 1, "torch": "2.14.1"}


def fingerprint(network: Network, name: str = "small", **environment: Any) -> Fingerprint:
    return Fingerprint(VERSION, "2026-11-27T20:00:00+00:00", ONE_THREAD | environment, {name: network})


@cache
def networks() -> dict[str, Network]:
    """A training; the same with another order of sums; with a flipped bit in the lowest and in a high place."""
    found = {"sound": trained(small_network())}
    with pytest.MonkeyPatch.context() as patch:  # `mkldnn.flags` would also set TF32, with a warning
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        found["other sums"] = trained(small_network())
    for name, bit in (("lowest bit", 0), ("high bit", 29)):
        model = small_network()
        plant(model, Place("forward", "4", "weight"), 2, bit)
        found[name] = trained(model)
    return found


@cache
def envelope() -> Envelope:
    return learn_envelope([fingerprint(networks()[name]) for name in ("sound", "other sums")])


GPU = {"device": "cuda", "device_name": "a GPU"}


@pytest.mark.parametrize(
    ("name", "environment", "verdict"),
    [
        *(("sound", {}, "identical"), ("sound", {"threads": 2, "torch": "2.11.0"}, "identical")),
        # Rounding is benign only with a known cause.
        *(("other sums", {"threads": 2}, "benign drift"), ("lowest bit", {"torch": "2.11.0"}, "benign drift")),
        *(("other sums", {}, "differs"), ("lowest bit", {}, "differs")),
        *(("high bit", {}, "harm"), ("high bit", {"threads": 2}, "harm")),
        *(("other sums", GPU, "benign drift"), ("high bit", GPU, "cannot tell")),
    ],
)
def test_the_verdict_depends_on_size_and_cause(name: str, environment: dict[str, Any], verdict: str) -> None:
    new = fingerprint(networks()[name], **environment)
    assert compare(fingerprint(networks()["sound"]), new, envelope()).verdict == verdict


def test_the_cpu_beside_a_gpu_is_no_cause() -> None:
    old, new = (fingerprint(networks()[name], **GPU) for name in ("sound", "other sums"))
    new.environment |= {"threads": 2, "cpu_capability": "AVX2", "kernels": {"MKL_CBWR": "COMPATIBLE"}}
    assert compare(old, new, envelope()).verdict == Verdict.DIFFERS
    new.environment |= {"driver": "580.1"}
    assert compare(old, new, envelope()).verdict == Verdict.BENIGN


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"start": "0" * 16}, "small started from different weights or data"),
        ({"loss": [0.0], "gradient_norm": [0.0]}, "small has different layers or steps"),
    ],
)
def test_different_trainings_cannot_be_compared(change: dict[str, Any], reason: str) -> None:
    other = msgspec.structs.replace(networks()["sound"], **change)
    found = compare(fingerprint(networks()["sound"]), fingerprint(other), envelope())
    assert (found.verdict, found.reason) == (Verdict.UNCLEAR, reason)
    assert found.verdict.exit_code == 5


def test_deviations_are_relative_and_infinite_for_values_that_are_not_finite() -> None:
    old = deepcopy(networks()["sound"])
    new = deepcopy(old)
    assert old.loss[1] is not None
    new.loss[1], new.gradient_norm[2] = old.loss[1] * 2, None
    weights = [
        number for number, (phase, _, tensor) in enumerate(old.places) if tensor != "output" and phase == "forward"
    ]
    for number in weights:
        old.norms[number][:2] = new.norms[number][:2] = [3.0, 4.0]
    new.norms[weights[0]][0] = 6.0
    found = deviations(old, new)
    assert (found["loss"], found["gradient norm"][2]) == ([0, 0.5, 0], float("inf"))
    assert found["weights"] == [pytest.approx(len(weights) ** -0.5), 0]
    assert found["outputs"] == found["gradients"] == [0, 0]
    for number in weights:  # a device that computes nothing but zeros
        old.norms[number][0] = 0.0
    assert deviations(old, new)["weights"] == [float("inf"), 0]


@pytest.mark.parametrize(
    ("machines", "code", "expected"),
    [
        ("sso", 0, ["3 of 3 fingerprints agree", "1 (against 0): identical", "2 (against 0): benign drift: "]),
        ("lss", 1, ["2 of 3 fingerprints agree", "odd one out: 0 (against 1): differs: ", "2 (against 1): identical"]),
        # The flipped bit agrees with the machines with two threads, but not with those like itself.
        ("oossl", 1, ["4 of 5", "1 (", "2 (", "3 (", "odd one out: 4 (against 2): differs"]),
        ("sshh", 1, ["no majority among 4 fingerprints", "0 and 2: harm: ", "0 and 3: ", "1 and 2: ", "1 and 3: "]),
    ],
)
def test_the_odd_ones_of_several_are_named(machines: str, code: int, expected: list[str]) -> None:
    """Sound ones (s), with two threads and other sums (o), with a flipped bit, the lowest (l) or a high one (h)."""
    kinds = {"s": "sound", "o": "other sums", "l": "lowest bit", "h": "high bit"}
    found = {
        str(number): fingerprint(networks()[kinds[letter]], threads=2 if letter == "o" else 1)
        for number, letter in enumerate(machines)
    }
    lines, exit_code = judge_several(found, envelope())
    assert exit_code == code
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected


# -------------------------------------------------------------------------------------------------------------- files


def test_a_damaged_fingerprint_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="delete it and make a new one: make fingerprint"):
        read_fingerprint(path)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Fingerprint]:
    """The fingerprint that the next call makes; the results folder is empty."""
    following = {"next": fingerprint(networks()["sound"])}
    monkeypatch.setattr(training, "make_fingerprint", lambda device: following["next"])
    monkeypatch.setattr("benchmarks.fingerprint.comparison.read_envelope", envelope)
    monkeypatch.setenv("RESULTS", str(tmp_path))
    monkeypatch.setenv("DEVICE", "cpu")
    return following


def test_the_first_fingerprint_is_kept_and_later_ones_are_compared_with_it(
    made: dict[str, Fingerprint], tmp_path: Path
) -> None:
    assert command_line.main(["fingerprint"]) == 0
    assert findings_line(tmp_path).endswith("no other one to compare with.")
    assert command_line.main(["fingerprint"]) == 0
    assert findings_line(tmp_path).endswith(": identical.")
    made["next"] = fingerprint(networks()["high bit"])
    for _ in range(2):  # comparing does not replace the first fingerprint
        assert command_line.main(["fingerprint"]) == 1
    assert ": harm: outside the envelope: small, " in findings_line(tmp_path)
    assert read_fingerprint(tmp_path / "fingerprint.json") == fingerprint(networks()["sound"])
    latest = tmp_path / "fingerprint-latest.json"
    assert command_line.main(["fingerprint", "--against", str(latest)]) == 2  # it would compare the new one with itself
    assert read_fingerprint(latest) == fingerprint(networks()["high bit"])


def test_files_are_compared_without_training(
    made: dict[str, Fingerprint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "make_fingerprint", None)
    kinds = {"a": "sound", "b": "other sums", "c": "sound"}
    for name, kind in kinds.items():
        write_fingerprint(tmp_path / "fleet" / f"{name}.json", fingerprint(networks()[kind], threads=len(kind)))
    (tmp_path / "fleet" / "fleet.json").write_text("[]", encoding="utf-8")  # as `fleet` leaves it
    assert command_line.main(["fingerprint", str(tmp_path / "fleet/a.json"), str(tmp_path / "fleet/c.json")]) == 0
    assert capsys.readouterr().out.strip().endswith(": identical")
    assert command_line.main(["fingerprint", "--against", str(tmp_path / "fleet"), str(tmp_path / "fleet/b.json")]) == 0
    assert capsys.readouterr().out.startswith("3 of 3 fingerprints agree")
    for name in "bc":
        (tmp_path / "fleet" / f"{name}.json").unlink()
    for arguments in (["--against", str(tmp_path / "fleet")], []):
        assert command_line.main(["fingerprint", *arguments, str(tmp_path / "fleet/a.json")]) == 5  # of itself, nothing


def test_a_missing_file_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["fingerprint", "--against", "nowhere"]) == 3
    assert capsys.readouterr().err.startswith("error: AGAINST: no file or folder nowhere")
    assert command_line.main(["fingerprint", "nowhere.json"]) == 3
    assert capsys.readouterr().err.startswith("error: no fingerprint at nowhere.json; make one: make fingerprint")


# ----------------------------------------------------------------------------------------------------------- envelope


def test_an_envelope_of_nothing_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(making, "ENVELOPE", tmp_path / "envelope.json")
    with pytest.raises(UsageError, match="at least three fingerprints; found 0 FILEs"):
        making.main([])
    assert not (tmp_path / "envelope.json").exists()


def test_the_envelope_covers_both_networks() -> None:
    found = read_envelope()
    assert (found.version, set(found.deviations)) == (VERSION, {"unet", "vgg16"})
    for network in found.deviations.values():
        assert [len(network[quantity]) for quantity in ("loss", "gradient norm")] == [50, 50]
        assert [len(network[kind]) for kind in ("outputs", "gradients", "weights")] == [len(STEPS)] * 3


def unet(model: UNet | None = None) -> Network:
    """The first steps of the training that is part of every fingerprint."""
    return train_unet(torch.device("cpu"), 2, model)


@cache
def sound_unet() -> Network:
    return unet()


def compared(new: Network, **environment: Any) -> Comparison:
    return compare(fingerprint(sound_unet(), "unet"), fingerprint(new, "unet", **environment), read_envelope())


def test_sums_in_another_order_are_no_harm() -> None:
    """Convolutions without oneDNN sum in another order; the envelope does not include this cause."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        found = unet()
    assert compared(found, kernels={"oneDNN": "off"}).verdict == Verdict.BENIGN


def test_tf32_is_harm() -> None:
    """Convolutions of inputs with 10 bits of mantissa, as in TF32."""
    model = UNet(8)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: round_to(inputs[0], None, mantissa=10))
    comparison = compared(unet(model), kernels={"TF32": "on"})
    assert comparison.verdict == Verdict.HARM
    assert (comparison.differences[0].step, comparison.differences[0].place.phase) == (1, "forward")


# --------------------------------------------------------------------------------------------------- in the whole suite


@pytest.mark.parametrize(
    ("gates", "found", "code"),
    [
        *((0, 0, 0), (0, 1, 1), (0, 5, 5), (1, 0, 1), (1, 5, 1), (0, 4, 4), (0, 130, 130)),
        # A failure must not be taken for missing weights or too few seeds, after which the same image is tried again.
        *((3, 1, 1), (5, 1, 1), (3, 5, 3), (4, 1, 4), (70, 1, 70)),
    ],
)
def test_the_suite_begins_with_a_fingerprint_if_requested(
    gates: int, found: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gates' exit code, except for a failure; without a fingerprint the suite ends before any training."""
    done: list[str] = []

    def run(command: list[str], env: dict[str, str], check: bool) -> SimpleNamespace:
        done.append(" ".join([*command[1:], env["RESULTS"]]))
        return SimpleNamespace(returncode=found)

    def main(*_: object, plugins: list[Any]) -> int:
        plugins[0].started = True
        done.append("pytest")
        return gates

    monkeypatch.setattr("benchmarks.acceptance.subprocess.run", run)
    monkeypatch.setattr(pytest, "main", main)
    values = {"RESULTS": str(tmp_path), "DEVICE": "cpu", "PROFILE": "quick", "DATA": "synthetic", "FINGERPRINT": "1"}
    for variable, value in values.items():
        monkeypatch.setenv(variable, value)
    assert acceptance.main() == code
    assert done == [f"-m benchmarks fingerprint {tmp_path}", *(["pytest"] if found in (0, 1, 5) else [])]


def test_the_report_shows_the_fingerprint_in_one_line(
    made: dict[str, Fingerprint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.report.markdown.write_figures", no_figures)
    write_record(tmp_path, make_record("seg-baseline"))
    for expected in (False, True):
        command_line.main(["report"])
        lines = (tmp_path / "RESULTS.md").read_text(encoding="utf-8").splitlines()
        assert any(line.startswith("Fingerprint: ") for line in lines) == expected
        command_line.main(["fingerprint"])
