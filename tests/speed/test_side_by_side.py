"""Timed implementations take turns, and ratios are between neighbouring times."""

from __future__ import annotations

from benchmarks.speed.side_by_side import Ratio, ratio, time_in_turn, verdict


def test_ways_take_turns_and_each_is_called_once_before() -> None:
    calls: list[str] = []
    ways = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    seconds = time_in_turn(ways, rounds=4)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_a_ratio_is_the_median_over_pairs() -> None:
    # Pairs 2, 2, 10, 4, 3: a machine that slowed down between rounds would spoil a ratio of medians.
    assert ratio([1.0, 10.0, 1.0, 2.0, 1.0], [2.0, 20.0, 10.0, 8.0, 3.0]) == Ratio(3.0, 2.0, 4.0)
    assert ratio([2.0], [3.0]) == Ratio(1.5, 1.5, 1.5)


def test_a_goal_is_reached_where_the_lower_quartile_is() -> None:
    assert verdict(Ratio(2.2, 2.0, 2.5), 2.0) == "reached"
    assert verdict(Ratio(2.2, 1.9, 2.5), 2.0) == "borderline"
    assert verdict(Ratio(1.9, 1.8, 2.0), 2.0) == "borderline"
    assert verdict(Ratio(1.9, 1.8, 1.9), 2.0) == "missed"
