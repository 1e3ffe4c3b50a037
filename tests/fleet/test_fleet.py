"""Fleets of made records with planted faults: exactly those are named, with the right word, and no others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.__main__ import main
from benchmarks.fingerprint.record import VERSION, Fingerprint, Network, Place, write_fingerprint
from benchmarks.fleet.devices import Device, Run
from benchmarks.fleet.outliers import ERROR, Quantity, far_below, odd_devices
from benchmarks.fleet.page import write_fleet
from benchmarks.fleet.verdicts import Judged, judge_fleet
from benchmarks.results.gates import judge_run
from benchmarks.results.records import Hardware, Record, write_record
from benchmarks.suite import SUITE, Margin
from tests.fingerprint.test_training import plant, small_network, trained
from tests.own_process import FORKS
from tests.record_factory import make_record

ONE = "seg-baseline"
Change = Callable[[Record], None]


def measured(place: int, draws: np.random.Generator, seed: int = 0, noise: float = 0.02) -> Record:
    """A run on the GPU of that number, four to a node; every device is as good as any other."""
    record = make_record(ONE, seed)
    made_on = record.environment
    made_on.node, made_on.gpu_uuid = f"node{place // 4:04}", f"{place:08x}"
    made_on.machine.hardware = Hardware(
        f"GPU-{place:08x}",
        f"S{place}",
        place % 4,
        [],
        int(draws.poisson(2)),
        0,
        0,
        int(draws.poisson(1)),
        0,
        {"power": 100.0},
    )
    record.timing.samples_per_s = 1000 * float(np.exp(noise * draws.normal()))
    record.timing.share_of_attainable = 0.4
    record.metrics = {name: (value or 0.0) + 0.002 * draws.normal() for name, value in record.metrics.items()}
    return record


def slow(record: Record) -> None:
    record.timing.samples_per_s = 750.0


def wrong(record: Record) -> None:
    record.metrics["present_dice"] = 0.3


def slightly_wrong(record: Record) -> None:
    record.metrics["present_dice"] = 0.75  # the gate is at 0.5, the floor at 0.664


def told(**changes: Any) -> Change:
    def change(record: Record) -> None:
        for name, value in changes.items():
            setattr(record.environment.machine.hardware, name, value)

    return change


def lost(record: Record) -> None:
    record.status, record.message, record.details.infrastructure = "error", "Xid 79 during the run", True
    told(xids=[79])(record)


def fingerprint(digest: str) -> Fingerprint:
    network = Network("0" * 16, [Place("forward", "head", "output")], [1.0], [1.0], [digest, digest], [[1.0] * 6])
    return Fingerprint(VERSION, "2026-11-29T20:00:00+00:00", {"device_name": "Example GPU"}, {"unet": network})


def fleet(size: int, faults: Mapping[int, Change], silent: int = -1, noise: float = 0.02) -> list[Device]:
    """In memory: thousands of files would be a test of the disk."""
    draws = np.random.default_rng(size)
    same, other = fingerprint("0" * 16), fingerprint("0" * 15 + "1")
    devices = []
    for place in range(size):
        record = measured(place, draws, noise=noise)
        faults.get(place, told())(record)
        run = Run("", record, judge_run(record, SUITE[ONE], 0))
        made = {"other": other} if place == silent else {"same": same}
        devices.append(Device(str(record.environment.node), "", str(record.environment.gpu_uuid), [run], made))
    return devices


def named(judged: Judged) -> dict[int, str]:
    return {place: str(judged.reasons[place][0][0]) for place in judged.odd}


@pytest.mark.parametrize(
    ("size", "noise", "faults", "expected"),
    [
        (4, 0.002, {0: slow, 2: wrong}, {0: "watch", 2: "isolate", 3: "isolate"}),
        (64, 0.02, {5: slow, 6: slow, 7: slow, 20: wrong, 21: slightly_wrong, 30: lost, 40: told(ecc_corrected=500)},
         dict.fromkeys((5, 6, 7, 40), "watch") | dict.fromkeys((20, 21, 63), "isolate") | {30: "reboot"}),
        (4096, 0.02,
         {5: slow, 600: slow, 2000: slightly_wrong, 3000: lost, 4000: told(throttled_s={"thermal": 30.0})},
         {5: "watch", 600: "watch", 2000: "isolate", 3000: "reboot", 4000: "watch", 4095: "isolate"}),
    ],
)  # fmt: skip
def test_exactly_the_planted_devices_are_named(
    size: int, noise: float, faults: dict[int, Change], expected: dict[int, str], tmp_path: Path
) -> None:
    judged = judge_fleet(fleet(size, faults, silent=size - 1, noise=noise), SUITE)
    assert named(judged) == expected
    line = write_fleet(tmp_path, judged)
    assert line.startswith(f"{len(expected)} of {size} devices are odd: ")
    page = json.loads((tmp_path / "fleet.json").read_text())
    assert {place: entry["do"] for place, entry in enumerate(page["devices"]) if entry["do"]} == expected
    assert page["exit_code"] == 1


def test_a_fleet_on_disk_is_read_by_node_and_gpu_and_told_in_three_files(tmp_path: Path, capsys: Any) -> None:
    draws = np.random.default_rng(0)
    for phase in ("alone", "together"):
        for place in range(8):
            record = measured(place, draws)
            if place == 5 and phase == "together":
                slow(record)
            write_record(tmp_path / f"node{place // 4}" / phase / f"gpu-{place % 4}", record)
    (tmp_path / "node1" / "together" / "gpu-4").mkdir()
    (tmp_path / "node1" / "together" / "gpu-4" / "every-gpu.log").write_text("error: no CUDA device\n")
    assert main(["fleet", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "2 of 9 devices are odd: " in capsys.readouterr().out
    text = (tmp_path / "out" / "FLEET.md").read_text()
    assert "**FAILED**: 2 of 9 devices are odd: " in text
    rows = {line.split("|")[1].strip(): line for line in text.split("## ")[1].splitlines() if "|" in line}
    assert "isolate" in rows[str(tmp_path / "node1" / "together" / "gpu-4")]
    assert "error: no CUDA device" in rows[str(tmp_path / "node1" / "together" / "gpu-4")]
    assert "training samples/s of seg-baseline, together 750.0/s" in rows["node0001 GPU 1"]
    assert "alone" not in rows["node0001 GPU 1"]
    assert '<p class="verdict failed">' in (tmp_path / "out" / "fleet.html").read_text()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (told(xids=[31]), "watch"),  # a program's own fault
        (told(xids=[95]), "reset"),
        (told(xids=[999]), "reset"),  # unknown: as `benchmarks.results.hardware.failure` tells of a run
        (told(xids=[13, 79]), "reboot"),
        (told(xids=[48, 79]), "isolate"),
        (told(ecc_uncorrected=1), "isolate"),
        (told(remapped_rows=1), "reset"),
    ],
)
def test_what_the_driver_reports_needs_no_other_device_to_be_judged_by(change: Change, word: str) -> None:
    assert named(judge_fleet(fleet(1, {0: change}), SUITE)) == {0: word}


def test_what_all_miss_is_no_devices_fault_and_what_one_lacks_is() -> None:
    judged = judge_fleet(fleet(6, dict.fromkeys(range(6), wrong)), SUITE)
    assert (judged.odd, judged.exit_code) == ([], 1)
    assert judged.problems[0].startswith(
        "seg-baseline: present Dice not passed on 6 of 6 devices: present Dice is 0.3, "
    )
    devices = fleet(6, {})
    for place, device in enumerate(devices):
        record = make_record("seg-augmented")
        device.runs += [Run("", record, judge_run(record, SUITE["seg-augmented"], 0))] if place != 2 else []
    assert named(judge_fleet(devices, SUITE)) == {2: "isolate"}
    assert judge_fleet(devices, SUITE, allowed=["seg-augmented"]).odd == []


def test_two_devices_tell_nothing_and_three_sound_ones_pass() -> None:
    two = fleet(2, {1: slow})
    for device in two:
        device.fingerprints = {}
    assert judge_fleet(two, SUITE).exit_code == 5
    assert judge_fleet(fleet(3, {}), SUITE).exit_code == 0


def test_an_odd_device_is_beyond_the_margin_as_well() -> None:
    speeds = dict(enumerate([100.0] * 9 + [99.5]))
    quantity = Quantity("speed", "samples_per_s", "speed", Margin(0.1, relative=True), speeds)
    assert odd_devices([quantity]) == []
    assert odd_devices([Quantity("", "", "speed", Margin(0.004, relative=True), speeds)])[0][0] == 9


@pytest.mark.parametrize(("size", "repetitions"), [(4, 2000), (7, 1500), (64, 800), (4096, 80)])
def test_false_alarms_of_a_whole_fleet_are_as_rare_as_stated(size: int, repetitions: int) -> None:
    draws = np.random.default_rng(size)
    alarms = sum(bool(far_below(draws.normal(size=size).tolist(), ERROR)) for _ in range(repetitions))
    assert alarms <= binom.ppf(0.9999, repetitions, ERROR)


def test_bad_devices_do_not_hide_each_other() -> None:
    values = np.random.default_rng(0).normal(0, 0.01, 64)
    assert len(far_below([*np.random.default_rng(1).normal(0, 0.02, 900), *[-0.16] * 100], ERROR)) == 100
    values[[3, 17, 20, 33, 40, 41, 50, 60]] -= [0.5, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.1]
    values[5] += 1.0  # nor does one that is too good
    assert set(far_below(values.tolist(), ERROR)) == {3, 17, 20, 33, 40, 41, 50, 60}


@pytest.mark.parametrize(("device", "gpus"), [("cpu", ""), ("cuda", "1")])
def test_each_device_has_a_process_of_its_own_first_alone_then_beside_the_others(
    device: str, gpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that leaves a record, and beside others only once they are there."""
    for place in range(3):
        write_record(tmp_path / "made" / str(place), measured(place, np.random.default_rng(0)))
    python = tmp_path / "python"
    python.write_text(
        'phase=$(basename $(dirname "$RESULTS")); n=${CUDA_VISIBLE_DEVICES:-${RESULTS##*-}}; cd $(dirname $0)\n'
        'echo "$phase $n GPUS=$GPUS WORKERS=$WORKERS EVERY_GPU=$EVERY_GPU ONLY=$ONLY" >> said; touch began-$phase-$n\n'
        "for i in $(seq 600); do [ $phase = alone ] || [ $(ls began-to* | wc -l) = 3 ] && break; sleep 0.1; done\n"
        '[ $i != 600 ] && cp -r made/$n/records "$RESULTS"\n'
    )
    monkeypatch.setattr("benchmarks.every_gpu.sys.executable", "/bin/sh")
    monkeypatch.setattr("benchmarks.every_gpu._SUITE", (str(python),))
    monkeypatch.setattr("benchmarks.engines.engine.open_device", lambda name: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    asked = ["--device", device, "--workers", "3", "--data", str(tmp_path), "--results", str(tmp_path / "out")]
    assert main(["run", "--every-gpu", ONE, "--profile", "quick", *asked]) == 0
    said = (tmp_path / "said").read_text().splitlines()
    assert said[:3] == [f"alone {place} GPUS={gpus} WORKERS=1 EVERY_GPU=0 ONLY=seg-baseline" for place in range(3)]
    assert sorted(said[3:]) == [line.replace("alone", "together") for line in said[:3]]


def _work(folder: Path, flips: bool) -> None:
    model = small_network()
    if flips:
        plant(model, "weight", "4.weight", 2, 12)
    made_on = {"node": "here", "device": "cpu", "device_name": "a processor", "threads": 1}
    write_fingerprint(folder / "fingerprint.json", Fingerprint(VERSION, "2026", made_on, {"unet": trained(model)}))


def test_the_worker_that_computes_a_flipped_bit_is_the_one_that_is_named(tmp_path: Path, capsys: Any) -> None:
    workers = [FORKS.Process(target=_work, args=(tmp_path / f"cpu-{place}", place == 2)) for place in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert main(["fleet", str(tmp_path), "--output", str(tmp_path)]) == 1
    assert "1 of 4 devices is odd: here cpu-2 (isolate)" in capsys.readouterr().out
    assert "unet first differs at step 2, layer 4, forward" in (tmp_path / "FLEET.md").read_text()
