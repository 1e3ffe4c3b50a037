"""Progress output: lines in a log, a live view of the whole plan on a terminal."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from benchmarks.runs.progress import Display
from hw6core.training import Callback

SEG, VGG, SEG_AGAIN = "seg-baseline seed 0", "vgg-scratch seed 0", "seg-baseline seed 1"
RUNS = {SEG: "seg-baseline", VGG: "vgg-scratch", SEG_AGAIN: "seg-baseline"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A colour terminal of 80x24, independent of the environment."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def plain(text: str) -> str:
    """Remove escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def last_view(terminal: Terminal, rows: int) -> list[str]:
    """The lines of the last view (``rows`` runs and the footer), with single spaces."""
    lines = [re.sub(" +", " ", line).strip() for line in plain(terminal.getvalue()).splitlines()]
    return [line for line in lines if line][-rows - 1 :]


def entry(epoch: int, **scores: float) -> Mapping[str, float]:
    return {"epoch": float(epoch), "learning_rate": 1e-3, "seconds": 6.0, "selection_dice": 0.5} | scores


def train(watch: Callback, steps: int) -> None:
    for _ in range(steps):
        watch.on_step()


def test_without_a_terminal_a_log_gets_plain_lines(clock: Clock) -> None:
    stream = io.StringIO()
    display = Display(stream)
    with display.plan(RUNS, {}):
        display.finish(SEG, "passed", "course Dice 0.9 (> 0.5) (already done)")
        display.begin(VGG, "VGG16 from random weights, Fashion-MNIST")
        watch = display.training(VGG, "", 40)
        clock.now += 20
        watch.on_epoch(entry(1, train_loss=0.9))  # a cluster may lose the messages of its steps
        train(watch, 10)
        watch.on_epoch(entry(1, train_loss=0.5, accuracy=0.25))
        clock.now += 10
        watch.on_epoch(entry(2, train_loss=0.4, accuracy=0.35))  # too soon after the last line
        watch.on_end()
        display.finish(VGG, "failed", "accuracy 0.84 (> 0.85) (30 s)", 30.0)
        display.log("a remark")
        display.begin(SEG_AGAIN, "U-Net, Dice loss, no augmentation")
        display.finish(SEG_AGAIN, "error", "the training loss of epoch 3 is nan (2.0 s)", 2.0)

    assert stream.getvalue().splitlines() == [
        "[1/3] seg-baseline seed 0: passed, course Dice 0.9 (> 0.5) (already done)",
        "[2/3] vgg-scratch seed 0: VGG16 from random weights, Fashion-MNIST",
        "  vgg-scratch seed 0: epoch 1, train loss 0.5000, accuracy 0.2500, about 1 min 00 s left",
        "[2/3] vgg-scratch seed 0: failed, accuracy 0.84 (> 0.85) (30 s)",
        "a remark",
        "[3/3] seg-baseline seed 1: U-Net, Dice loss, no augmentation",
        "[3/3] seg-baseline seed 1: error, the training loss of epoch 3 is nan (2.0 s)",
    ]


def test_a_terminal_shows_every_run_of_the_plan_with_its_state(terminal: Terminal, clock: Clock) -> None:
    display = Display(terminal)
    with display.plan(RUNS, {"seg-baseline": 100.0}):
        display.begin(SEG, "U-Net, Dice loss")
        display.finish(SEG, "passed", "course Dice 0.9 (> 0.5) (1 min 40 s)", 100.0)
        display.begin(VGG, "VGG16 from random weights")
        watch = display.training(VGG, "", 40)
        train(watch, 10)
        clock.now += 20
        watch.on_epoch(entry(3, accuracy=0.5))

    passed, running, waiting, below = last_view(terminal, 3)
    assert passed == "passed seg-baseline seed 0 course Dice 0.9 (> 0.5) (1 min 40 s)"
    assert re.fullmatch(r"running vgg-scratch seed 0 ━[━╸╺ ]+ epoch 3, accuracy 0.5000", running)
    assert waiting == "waiting seg-baseline seed 1"
    # 20 s for 10 of 40 steps leave 60 s; the waiting run takes the 100 s of the one before.
    assert below == "1 of 3 done, 20 s so far, about 2 min 40 s left"


def test_a_line_is_printed_once_above_the_view(terminal: Terminal) -> None:
    display = Display(terminal)
    with display.plan(RUNS, {}):
        display.log("no [bold] weights")
    lines = plain(terminal.getvalue()).splitlines()
    assert [line.strip() for line in lines].count("no [bold] weights") == 1
    assert last_view(terminal, 3)[0] == f"waiting {SEG}"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_block_closes_the_view(error: type[BaseException], terminal: Terminal) -> None:
    display = Display(terminal)

    def fail() -> None:
        with display.plan(RUNS, {}):
            display.begin(SEG, "U-Net")
            raise error

    with pytest.raises(error):
        fail()
    assert last_view(terminal, 3)[0] == f"running {SEG} {'━' * 18} U-Net"
    shown = terminal.getvalue()
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is visible again
    display.log("afterwards")
    assert terminal.getvalue().endswith("afterwards\n")


def test_a_dumb_terminal_gets_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    display = Display(terminal)
    with display.plan(RUNS, {}):
        display.begin(SEG, "U-Net, Dice loss")
        seen = terminal.getvalue()
    assert seen == "[1/3] seg-baseline seed 0: U-Net, Dice loss\n"


def test_the_time_left_follows_earlier_runs_of_a_configuration(clock: Clock) -> None:
    display = Display(io.StringIO())
    with display.plan(RUNS, {"seg-baseline": 100.0, "vgg-scratch": 30.0}):
        assert display.time_left() == "about 3 min 50 s"
        display.begin(SEG, "U-Net")
        clock.now += 40
        assert display.time_left() == "about 3 min 10 s"
        clock.now += 80  # longer than the earlier run; how much longer is unknown
        assert display.time_left() == "about 2 min 10 s"
        display.finish(SEG, "passed", "", 120.0)  # the estimate for its second run as well
        assert display.time_left() == "about 2 min 30 s"


def test_the_time_left_is_a_lower_bound_while_some_runs_are_unknown(clock: Clock) -> None:
    display = Display(io.StringIO())
    with display.plan(RUNS, {}):
        assert display.time_left() == ""
        display.begin(SEG, "U-Net")
        assert display.time_left() == ""
        watch = display.training(SEG, "", 20)
        train(watch, 5)
        clock.now += 10
        assert display.time_left() == "at least 30 s"  # 2 s per step
        display.finish(SEG, "passed", "", 40.0)
        assert display.time_left() == "at least 40 s"  # for the other seed; vgg-scratch is unknown
        display.finish(VGG, "not run", "no weights", 0.0)
        assert display.time_left() == "about 40 s"
        display.finish(SEG_AGAIN, "passed", "")
        assert display.time_left() == "about 0.0 s"


def test_the_first_steps_give_an_estimate_of_the_whole_plan_by_the_costs_of_its_runs(clock: Clock) -> None:
    display = Display(io.StringIO())
    with display.plan(RUNS, {}, costs={"seg-baseline": 2.0, "vgg-scratch": 3.0}):
        assert display.time_left() == ""
        display.begin(SEG, "U-Net")
        clock.now += 10  # reading the data
        watch = display.training(SEG, "", 20)
        train(watch, 5)
        clock.now += 10
        # 2 s per step leave 30 s; 50 s in total, for a cost of 2. The others cost 3 and 2: 75 s and 50 s.
        assert display.time_left() == "about 2 min 35 s"
        display.finish(SEG, "passed", "", 40.0)
        assert display.time_left() == "about 1 min 40 s"  # 20 s per unit of cost: 60 s and 40 s
        display.begin(VGG, "VGG16")
        watch = display.training(VGG, "features", 10)
        train(watch, 5)
        clock.now += 5
        assert display.time_left() == "about 1 min 35 s"  # not by the pace of its first part only


def test_a_log_gets_the_first_estimate_once(clock: Clock) -> None:
    stream = io.StringIO()
    display = Display(stream)
    with display.plan(RUNS, {}, costs={"seg-baseline": 1.0, "vgg-scratch": 2.0}):
        display.begin(SEG, "U-Net")
        watch = display.training(SEG, "", 10)
        for _ in range(10):
            clock.now += 6
            watch.on_step()
    assert [line for line in stream.getvalue().splitlines() if "left" in line] == [
        "  about 3 min 48 s left for all 3 runs (estimate)"  # after two steps: 48 s for this run, 60 s and 120 s
    ]
