"""Formatting of numbers, names and tables in reports."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

from benchmarks.suite import Gate, Margin

NONE = "-"
NO_LEAD = "not above"  # marks a lead of 0 or less; the HTML page colours such a cell
MANY_SEEDS = 10  # with more seeds, tables have no column and figures no line for each seed
Row = Sequence[str]


def table(headers: Row, rows: Iterable[Row]) -> str:
    """A Markdown table; line breaks and "|" in cells are replaced."""
    cells = [[one_line(cell).replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(cells, headers=list(headers), tablefmt="github", disable_numparse=True)


def json_text(content: Any) -> str:
    """JSON with a line for each list of numbers, so that a diff can be read."""
    text = json.dumps(content, indent=1)
    return re.sub(r"\[\n[^][{}]*\]", lambda match: json.dumps(json.loads(match[0])), text) + "\n"


def one_line(text: str) -> str:
    """The text without line breaks and terminal control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def as_text(text: str) -> str:
    """Escape text from elsewhere, such as an error message, so that Markdown and HTML show it as it is."""
    return re.sub(r"([\\`*\[\]~&$]|<(?=[A-Za-z/!?])|_(?![A-Za-z0-9])|(?<![A-Za-z0-9])_)", r"\\\1", one_line(text))


def words(key: str) -> str:
    """A key as readable text: "course Dice", "validation MSE", "peak memory, GiB", "arithmetic, GFLOP/s"."""
    if key in _NAMES:
        return _NAMES[key]
    name, _, unit = key.rpartition("_")
    if name and unit in _UNITS:
        key = f"{name}, {_UNITS[unit]}"
    return re.sub(rf"\b({'|'.join(_CAPITALS)})", lambda match: _CAPITALS[match[0]], key.replace("_", " "))


_CAPITALS = {word.lower(): word for word in ("Dice", "MSE", "IoU", "CPU", "GPU", "ECC", "PCIe", "NVLink", "Xid")}
_UNITS = {"gib": "GiB", "j": "J", "mhz": "MHz", "celsius": "degrees Celsius", "watts": "W"}
# The limits of a device: shown in units of 1e9 per second.
_RATES = {"flops_per_s": "arithmetic, GFLOP/s", "bytes_per_s": "memory, GB/s"}
_NAMES = _RATES | {
    "training_s": "training time",
    "total_s": "total time",
    "seconds_to_gate": "time to gate",
    "samples_per_s": "training samples/s",
    "throttled_s": "time throttled",
}


def number(metric: str, value: float) -> str:
    """A value with five decimals for errors, three for scores, and the unit for times and rates."""
    if metric == "samples_per_s":
        return f"{value:.1f}/s"
    if metric.endswith("_s") or metric == "seconds_to_gate":
        return duration(value)
    return f"{value:.5f}" if "mse" in metric else f"{value:.3f}"


def signed(metric: str, value: float) -> str:
    """A difference with its sign; one that rounds to zero is +0."""
    text = number(metric, abs(value))
    return f"{'-' if value < 0 and any(digit in text for digit in '123456789') else '+'}{text}"


def lead_text(metric: str, lead: float, over: str) -> str:
    """A lead, marked if it is 0 or less: "-0.104 not above floor"."""
    return signed(metric, lead) if lead > 0 else f"{signed(metric, lead)} {NO_LEAD} {over}"


def gate_text(gate: Gate, trivial: Sequence[Mapping[str, float]]) -> str:
    """ "> 0.5", or "< 0.5 x constant = 0.00140" where the bound depends on the data."""
    bounds = [gate.bound(entry) for entry in trivial if gate.metric in entry]
    return str(gate) if gate.threshold is not None or not bounds else f"{gate} = {number(gate.metric, mean(bounds))}"


def spread_text(metric: str, values: Collection[float]) -> str:
    """Mean, sample standard deviation of two values or more, number of values: "0.910 ± 0.010 (n=3)"."""
    if not values:
        return NONE
    deviation = f" ± {number(metric, stdev(values))}" if len(values) > 1 else ""
    return f"{number(metric, mean(values))}{deviation} (n={len(values)})"


def mean_text(metric: str, values: Collection[float]) -> str:
    return number(metric, mean(values)) if values else NONE


def range_text(metric: str, values: Sequence[float]) -> str:
    """ "7 to 12"; "7" if all values are equal."""
    return " to ".join(dict.fromkeys(number(metric, value) for value in (min(values), max(values)))) if values else NONE


def interval_text(metric: str, limits: tuple[float, float] | None) -> str:
    """ "-0.005 to +0.045"; a limit that rounds to zero keeps its sign, which tells whether zero is inside."""
    return " to ".join(f"{'-' if end < 0 else '+'}{number(metric, abs(end))}" for end in limits) if limits else NONE


def visible_text(metric: str, margin: Margin, drop: float | None) -> str:
    """A drop of `benchmarks.results.statistics.Evidence.visible_drop`, in the unit of the margin."""
    if drop is None:
        return NONE
    if not margin.relative:
        return number(metric, drop)
    drop = min(drop, 9.0)  # no overflow
    share = abs(math.expm1(-drop if margin.more_is_better else drop))
    return f"{share:.0%}" if share < 1 else "> 100%"


def seeds_text(seeds: Sequence[int]) -> str:
    """ "seeds 0, 1, 2"; many are counted: "143 seeds (0 to 142)"."""
    if len(seeds) <= MANY_SEEDS:
        return f"seed{'s' if len(seeds) != 1 else ''} {', '.join(map(str, seeds))}"
    return f"{len(seeds)} seeds ({min(seeds)} to {max(seeds)})"


def shown_seeds(seeds: Sequence[int]) -> Sequence[int]:
    """The seeds that get a column each: none if there are many."""
    return seeds if len(seeds) <= MANY_SEEDS else ()


def number_cells(
    metric: str, values: Mapping[int, float], seeds: Sequence[int], missed: Collection[int] = ()
) -> list[str]:
    """One cell for each seed with a column, in bold if it missed its gate, and one for the spread of all seeds."""
    texts = {seed: number(metric, value) for seed, value in values.items()}
    texts |= {seed: f"**{texts[seed]}**" for seed in missed}
    return [*(texts.get(seed, NONE) for seed in shown_seeds(seeds)), spread_text(metric, values.values())]


def seed_headers(seeds: Sequence[int]) -> list[str]:
    return [*(f"seed {seed}" for seed in shown_seeds(seeds)), "mean ± std (n)"]


def values_of(values: Iterable[object]) -> str:
    """The distinct values that are not None, as Markdown; of more than three, the first two and the count."""
    texts = dict.fromkeys(text_of(value) for value in values if value is not None)
    listed = [text for text in texts if text]
    if not listed:
        return NONE
    return " / ".join(listed) if len(listed) <= 3 else f"{' / '.join(listed[:2])} / ... ({len(listed)} values)"


def text_of(value: Any) -> str:
    """A value of a record as Markdown, escaped."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        shown = {key: entry / 1e9 if key in _RATES else entry for key, entry in value.items() if entry is not None}
        return "; ".join(f"{as_text(words(str(key)))}: {text_of(entry)}" for key, entry in shown.items())
    return as_text(str(value))


def few(names: Sequence[str]) -> str:
    """The names, or the first two and the number of the others."""
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def duration(seconds: float | None) -> str:
    """A time to the tenth of a second below ten seconds, else rounded more: "9.1 s", "4 min 05 s", "1 h 12 min"."""
    if seconds is None:
        return NONE
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
