"""Fleets of made-up records with planted faults: exactly the faulty devices are reported, with the right action."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.__main__ import main
from benchmarks.fingerprint.record import VERSION, Fingerprint, Network, Place, write_fingerprint
from benchmarks.fleet.devices import Device, Run, read_fleet
from benchmarks.fleet.outliers import ERROR, Quantity, far_below, odd_devices
from benchmarks.fleet.page import write_fleet
from benchmarks.fleet.verdicts import Judged, judge_fleet
from benchmarks.results.gates import judge_run
from benchmarks.results.hardware import Word
from benchmarks.results.records import Hardware, Record, Timing, write_record
from benchmarks.runs.plan import Plan
from benchmarks.suite import SUITE, Margin, at_working_size
from tests.record_factory import make_record

ONE = "seg-baseline"
Change = Callable[[Record], None]


def measured(index: int, draws: np.random.Generator, seed: int = 0, noise: float = 0.02) -> Record:
    """A run on the GPU with this index, four per node; all devices are equally good."""
    record = make_record(ONE, seed)
    environment, ecc, replays = record.environment, int(draws.poisson(2)), int(draws.poisson(1))
    environment.node, environment.gpu_uuid = f"node{index // 4:04}", f"{index:08x}"
    environment.machine.hardware = Hardware(
        f"GPU-{index:08x}", f"S{index}", index % 4, [], ecc, 0, 0, replays, 0, {"power": 100.0}
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


def nvml(**changes: Any) -> Change:
    def change(record: Record) -> None:
        for name, value in changes.items():
            setattr(record.environment.machine.hardware, name, value)

    return change


def lost(record: Record) -> None:
    record.status, record.message, record.details.infrastructure = "error", "Xid 79 during the run", True
    nvml(xids=[79])(record)


def fingerprint(digest: str, driver: str = "570") -> Fingerprint:
    network = Network("0" * 16, [Place("forward", "head", "output")], [1.0], [1.0], [digest, digest], [[1.0] * 6])
    environment = {"device_name": "Example GPU", "driver": driver}
    return Fingerprint(VERSION, "2026-11-29T20:00:00+00:00", environment, {"unet": network})


def fleet(size: int, faults: Mapping[int, Change], silent: int = -1, noise: float = 0.02) -> list[Device]:
    """In memory, without thousands of files; the fingerprint of device ``silent`` differs (silent data corruption)."""
    draws = np.random.default_rng(size)
    same, other = fingerprint("0" * 16), fingerprint("0" * 15 + "1")
    devices = []
    for index in range(size):
        record = measured(index, draws, noise=noise)
        faults.get(index, nvml())(record)
        run = Run("", record, judge_run(record, SUITE[ONE], 0))
        made = {"other": other} if index == silent else {"same": same}
        devices.append(Device(str(record.environment.node), "", str(record.environment.gpu_uuid), [run], made))
    return devices


def actions(judged: Judged) -> dict[int, str]:
    return {index: str(judged.reasons[index][0][0]) for index in judged.odd}


@pytest.mark.parametrize(
    ("size", "noise", "faults", "expected"),
    [
        (4, 0.002, {0: slow, 2: wrong}, {0: "watch", 2: "isolate", 3: "isolate"}),
        (64, 0.02, {5: slow, 6: slow, 7: slow, 20: wrong, 21: slightly_wrong, 30: lost, 40: nvml(ecc_corrected=500)},
         dict.fromkeys((5, 6, 7, 40), "watch") | dict.fromkeys((20, 21, 63), "isolate") | {30: "reboot"}),
        (4096, 0.02, {5: slow, 600: slow, 2000: slightly_wrong, 3000: lost, 4000: nvml(throttled_s={"thermal": 30.0})},
         {5: "watch", 600: "watch", 2000: "isolate", 3000: "reboot", 4000: "watch", 4095: "isolate"}),
    ],
)  # fmt: skip
def test_exactly_the_planted_devices_are_named(
    size: int, noise: float, faults: dict[int, Change], expected: dict[int, str], tmp_path: Path
) -> None:
    judged = judge_fleet(fleet(size, faults, silent=size - 1, noise=noise), SUITE)
    assert actions(judged) == expected
    line = write_fleet(tmp_path, judged)
    assert line.startswith(f"{len(expected)} of {size} devices are odd: ")
    page = json.loads((tmp_path / "fleet.json").read_text())
    assert {index: entry["do"] for index, entry in enumerate(page["devices"]) if entry["do"]} == expected
    assert page["exit_code"] == 1


def test_a_fleet_on_disk_is_read_by_node_and_gpu_and_reported_in_three_files(tmp_path: Path, capsys: Any) -> None:
    draws = np.random.default_rng(0)
    for phase in ("alone", "together"):
        for index in range(8):
            record = measured(index, draws)
            if phase == "together":
                record.environment.node = f"container{index}"  # resumed in a container with another host name
                if index == 5:
                    slow(record)
            write_record(tmp_path / f"node{index // 4}" / phase / f"gpu-{index % 4}", record)
    failed = tmp_path / "node1" / "together" / "gpu-4"
    failed.mkdir()
    (failed / "every-gpu.log").write_text("error: no CUDA device\n")
    assert main(["fleet", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "2 of 9 devices are odd: " in capsys.readouterr().out
    text = (tmp_path / "out" / "FLEET.md").read_text()
    assert "**FAILED**: 2 of 9 devices are odd: " in text
    rows = {line.split("|")[1].strip(): line for line in text.split("## ")[1].splitlines() if "|" in line}
    assert "isolate" in rows[str(failed)]
    assert "error: no CUDA device" in rows[str(failed)]
    assert "training samples/s of seg-baseline, together 750.0/s" in rows["node0001 GPU 1"]
    assert "alone" not in rows["node0001 GPU 1"]
    assert '<p class="verdict failed">' in (tmp_path / "out" / "fleet.html").read_text()


def test_a_folder_without_results_and_an_output_that_is_a_file_are_named(tmp_path: Path, capsys: Any) -> None:
    write_record(tmp_path / "results", make_record(ONE))
    (tmp_path / "file").touch()
    assert main(["fleet", str(tmp_path / "results"), str(tmp_path / "reslts")]) == 3
    assert f"no results in {tmp_path / 'reslts'}; expected" in capsys.readouterr().err
    assert main(["fleet", str(tmp_path / "results"), "--output", str(tmp_path / "file")]) == 2
    assert "is a file; expected a folder" in capsys.readouterr().err


def test_a_gpu_that_fell_off_the_bus_is_one_device_to_reboot(tmp_path: Path, capsys: Any) -> None:
    """Its process ends, so later runs have no record, and its next process does not find it."""
    draws = np.random.default_rng(0)
    for index in range(4):
        for phase in ("alone", "together"):
            folder, record = tmp_path / phase / f"gpu-{index}", measured(index, draws)
            if index == 3:
                folder.mkdir(parents=True)
                (folder / "every-gpu.log").write_text("error: no cuda device is visible\n")
                lost(record)
            if index != 3 or phase == "alone":
                write_record(folder, record)
            if index != 3:
                write_record(folder, make_record("seg-augmented", environment=msgspec.to_builtins(record.environment)))
    # The log of the whole node, as of a batch system, and of one that left nothing else.
    (tmp_path / "every-gpu.log").write_text("alone/gpu-0: exit code 0\n")
    assert main(["fleet", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "1 of 4 devices is odd: node0000 GPU 3 (reboot)" in capsys.readouterr().out
    (tmp_path / "node1").mkdir()
    (tmp_path / "node1" / "every-gpu.log").write_text("the container could not be started\n")
    assert main(["fleet", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert f"2 of 5 devices are odd: {tmp_path}/node1 (isolate), node0000 GPU 3 (reboot)" in capsys.readouterr().out


def test_another_fingerprint_is_odd_and_so_is_one_without_a_record(tmp_path: Path) -> None:
    for index in range(4):
        folder = tmp_path / "alone" / f"cpu-{index}"
        folder.mkdir(parents=True)
        (folder / "every-gpu.log").write_text("Killed\n")
        write_fingerprint(folder / "fingerprint.json", fingerprint("0" * 15 + str(index // 3)))
        if index != 2:
            write_record(folder, make_record(ONE))
    judged = judge_fleet(read_fleet([tmp_path], SUITE), SUITE)
    assert actions(judged) == {2: "isolate", 3: "isolate"}
    assert judged.reasons[2] == [(Word.ISOLATE, "a process left no record: Killed")]
    ((_, reason),) = judged.reasons[3]
    assert reason.startswith("its fingerprint differs from the others': differs: inside the envelope: ")
    assert reason.endswith("; unet first differs at step 1, layer head, forward (output), by 1 units in the last place")


def test_devices_with_another_driver_do_not_hide_an_odd_one() -> None:
    """They agree with it and with the others: the driver may be the cause of either difference."""
    devices = fleet(8, {}, silent=7)
    for device in devices[:4]:
        device.fingerprints = {"updated": fingerprint("0" * 16, driver="580")}
    assert actions(judge_fleet(devices, SUITE)) == {7: "isolate"}


def test_fingerprints_from_before_an_update_of_the_suite_do_not_count(tmp_path: Path) -> None:
    for index in range(4):
        folder = tmp_path / f"node{index}"
        write_fingerprint(folder / "fingerprint-latest.json", fingerprint("0" * 15 + str(index // 3)))
        text = '{"version": 0, "made_at": "", "environment": {"device_name": "Example GPU"}, "networks": 1}'
        (folder / "fingerprint.json").write_text(text)
    judged = judge_fleet(read_fleet([tmp_path], SUITE), SUITE)
    assert (actions(judged), judged.problems) == ({3: "isolate"}, [])


def test_a_device_has_a_name_and_the_counters_of_all_its_runs(tmp_path: Path) -> None:
    write_record(tmp_path / "node7", make_record(ONE, status="error", message="its process was killed by signal 9"))
    (device,) = read_fleet([tmp_path], SUITE)
    assert str(device) == "node7"  # a record of a process that was killed does not name its node
    (device,) = fleet(1, {0: nvml(xids=[31, 31, 13], throttled_s={"thermal": 30.0, "power": 100.0})})
    device.runs[0].record.timing = Timing(total_s=100.0, floors_s=200.0)  # throttling is observed during both
    assert device.count("throttled_share") == 0.1
    write_fleet(tmp_path, judge_fleet([device], SUITE))
    (entry,) = json.loads((tmp_path / "fleet.json").read_text())["devices"]
    assert entry["errors"].items() >= {"xid_13": 1, "xid_31": 2, "throttled_share": 0.1}.items()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (nvml(xids=[31]), "watch"),  # caused by a program
        (nvml(xids=[13, 79]), "reboot"),
        (nvml(xids=[48, 79]), "isolate"),
        (nvml(ecc_uncorrected=1), "isolate"),
        (nvml(remapped_rows=1), "reset"),
    ],
)
def test_hardware_errors_are_judged_without_other_devices(change: Change, word: str) -> None:
    assert actions(judge_fleet(fleet(1, {0: change}), SUITE)) == {0: word}


def test_a_gate_that_all_miss_is_a_problem_of_the_fleet_and_a_run_that_one_lacks_of_the_device() -> None:
    judged = judge_fleet(fleet(6, dict.fromkeys(range(6), wrong)), SUITE)
    assert (judged.odd, judged.exit_code) == ([], 1)
    expected = "seg-baseline: present Dice not passed on 6 of 6 devices: present Dice is 0.3, "
    assert judged.problems[0].startswith(expected)
    devices = fleet(6, {})
    for index, device in enumerate(devices):
        record = make_record("seg-augmented")
        device.runs += [Run("", record, judge_run(record, SUITE["seg-augmented"], 0))] if index != 2 else []
    assert actions(judge_fleet(devices, SUITE)) == {2: "isolate"}
    assert judge_fleet(devices, SUITE, allowed=["seg-augmented"]).odd == []
    for device in devices:  # no device has weights
        record = make_record("vgg-frozen", status="not run", message="no ImageNet weights")
        device.runs += [Run("", record, judge_run(record, SUITE["vgg-frozen"], 0))]
    assert judge_fleet(devices, SUITE, allowed=["seg-augmented", "vgg-frozen"]).exit_code == 0


def test_a_device_is_compared_with_at_least_two_of_its_kind_or_named(tmp_path: Path) -> None:
    assert judge_fleet(fleet(3, {}), SUITE).exit_code == 0
    two = fleet(2, {1: slow})
    for device in two:
        device.fingerprints = {}
    assert judge_fleet(two, SUITE).exit_code == 5
    devices = fleet(4, {3: slow})
    devices[3].runs[0].record.environment.device_name = "Another GPU"
    devices[3].fingerprints = {"its": msgspec.structs.replace(fingerprint("1" * 16), environment={})}
    judged = judge_fleet(devices, SUITE)
    assert (judged.odd, judged.exit_code) == ([], 5)
    text = "cannot tell for node0000 GPU 3: fewer than 3 devices of the same kind have a common configuration"
    assert write_fleet(tmp_path, judged) == f"none of 4 devices is odd; {text} or fingerprint"
    *_, first, alone = json.loads((tmp_path / "fleet.json").read_text())["devices"]
    assert (first["fingerprint"], alone["fingerprint"], alone["speed"]) == ("identical", "", None)
    assert "Another GPU" not in (tmp_path / "FLEET.md").read_text()  # no table compares it with itself


def test_processes_that_fail_on_most_devices_are_a_problem_of_the_fleet() -> None:
    """Such as an option that the devices do not support, or an image that cannot be started."""
    devices = fleet(4, {})
    for device in devices[:2]:
        device.runs, device.fingerprints, device.last_log_line = [], {}, "error: PRECISION is 'tf32'"
    judged = judge_fleet(devices, SUITE)
    assert (judged.odd, judged.exit_code) == ([], 1)
    named = "node0000 00000000, node0000 00000001"
    assert judged.problems == [f"a process left no record on 2 of 4 devices ({named}): error: PRECISION is 'tf32'"]


def test_devices_are_only_compared_with_the_same_profile_and_data() -> None:
    def quick(record: Record) -> None:
        record.profile, record.settings = "quick", SUITE[ONE].fingerprint("quick", "real")
        slow(record)

    devices = fleet(8, {0: quick, 1: slow}, noise=0.002)
    killed = make_record(ONE, 1, status="error", environment={"device_name": None})
    devices[1].runs.insert(0, Run("", killed, []))
    assert actions(judge_fleet(devices, SUITE)) == {1: "watch"}


def test_a_failure_of_one_day_is_not_replaced_by_a_success_of_the_next() -> None:
    devices = fleet(4, {2: wrong})
    for device in devices:  # the same seeds again
        record = make_record(ONE)
        device.runs.append(Run("", record, judge_run(record, SUITE[ONE], 0)))
    assert actions(judge_fleet(devices, SUITE))[2] == "isolate"


def test_a_run_that_was_only_possible_on_the_second_day_counts() -> None:
    devices = fleet(4, {})
    for device in devices:
        lacking = make_record(ONE, status="not run", message="no weights")
        device.runs.insert(0, Run("", lacking, judge_run(lacking, SUITE[ONE], 0)))
    judged = judge_fleet(devices, SUITE)
    assert (judged.problems, judged.odd, judged.exit_code) == ([], [], 0)


def test_errors_are_counted_where_they_happened() -> None:
    devices = fleet(8, {2: nvml(ecc_corrected=500)})
    for device in devices:
        record = deepcopy(device.runs[0].record)
        record.profile = "quick"
        nvml(ecc_corrected=1)(record)
        device.runs.append(Run("", record, judge_run(record, SUITE[ONE], 0)))
    reasons = judge_fleet(devices, SUITE).reasons[2]
    assert [text for _, text in reasons if "ECC" in text and "quick" in text] == []
    assert [text for _, text in reasons if "ECC" in text and "full" in text] != []


def test_runs_of_another_profile_on_the_same_device_are_compared_among_themselves() -> None:
    devices = fleet(5, {}, noise=0.002)
    for index, device in enumerate(devices):
        record = make_record(ONE, 0, profile="quick", timing={"samples_per_s": 1.0 + 0.001 * index})
        device.runs += [Run("", record, judge_run(record, SUITE[ONE], 0))] if index != 3 else []
    speeds = {entry.title: entry for entry in judge_fleet(devices, SUITE).quantities if entry.of == "speed"}
    assert len(speeds) == 2
    assert sorted(len(entry.values) for entry in speeds.values()) == [4, 5]


def test_a_device_within_the_margin_is_not_odd() -> None:
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
    values[5] += 1.0  # nor does an outlier on the good side
    assert set(far_below(values.tolist(), ERROR)) == {3, 17, 20, 33, 40, 41, 50, 60}


@pytest.mark.parametrize(("device", "gpus"), [("cpu", ""), ("cuda", "1")])
def test_each_device_has_its_own_process_first_alone_then_together_with_the_others(
    device: str, gpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is a script that copies a record; in the second phase, it waits for the other processes."""
    settings = at_working_size(SUITE[ONE], (64, 80)).fingerprint("full", "real")
    for index in range(4):
        record = measured(index, np.random.default_rng(0))
        record.settings = settings
        if index == 3:  # of an earlier call with more devices
            wrong(record)
        write_record(tmp_path / (f"made/{index}" if index < 3 else "out/alone/gpu-9"), record)
    python = tmp_path / "python"
    python.write_text(
        'phase=$(basename $(dirname "$RESULTS")); n=${CUDA_VISIBLE_DEVICES:-${RESULTS##*-}}; cd $(dirname $0)\n'
        'echo "$phase $n GPUS=$GPUS WORKERS=$WORKERS EVERY_GPU=$EVERY_GPU ONLY=$ONLY" >> calls; touch began-$phase-$n\n'
        "for i in $(seq 600); do [ $phase = alone ] || [ $(ls began-to* | wc -l) = 3 ] && break; sleep 0.1; done\n"
        '[ $i != 600 ] && cp -r made/$n/records "$RESULTS"\n'
    )
    monkeypatch.setattr("sys.executable", "/bin/sh")
    monkeypatch.setattr("benchmarks.every_gpu._SUITE", (str(python),))
    monkeypatch.setattr("benchmarks.engines.engine.open_device", lambda name: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    asked = ["--device", device, "--workers", "3", "--data", str(tmp_path), "--results", str(tmp_path / "out")]
    assert main(["run", "--every-gpu", ONE, "--profile", "quick", "--working-size", "64x80", *asked]) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[:3] == [f"alone {index} GPUS={gpus} WORKERS=1 EVERY_GPU=0 ONLY=seg-baseline" for index in range(3)]
    assert sorted(calls[3:]) == [line.replace("alone", "together") for line in calls[:3]]


def test_nodes_of_a_ray_cluster_get_absolute_paths_and_only_their_results_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pth").touch()
    results, draws = tmp_path / "out", np.random.default_rng(0)
    wrong_one = measured(12, draws)
    wrong(wrong_one)
    write_record(results / "node3" / "alone" / "gpu-0", wrong_one)  # of a node that has left the cluster

    def run(plan: Plan, command: Sequence[str], variables: Mapping[str, str]) -> Iterator[Path]:
        paths = {"DATA": str(tmp_path), "VGG16_WEIGHTS": str(tmp_path / "weights.pth")}
        assert variables.items() >= ({"EVERY_GPU": "1", "ENGINE": "local", "ONLY": ONE} | paths).items()
        for index in range(3):
            write_record(results / f"node{index}" / "alone" / "gpu-0", measured(4 * index, draws))
            yield results / f"node{index}"

    monkeypatch.setattr("benchmarks.engines.ray_cluster.run_on_every_node", run)
    asked = ["--engine", "ray", "--device", "cpu", "--data", ".", "--vgg16-weights", "weights.pth"]
    assert main(["run", "--every-gpu", ONE, "--results", "out", *asked]) == 0
