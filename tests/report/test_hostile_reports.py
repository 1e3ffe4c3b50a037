"""Records from elsewhere say what they like: in no report does it become structure, a picture, a script or an order."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from benchmarks.__main__ import main
from benchmarks.engines.shards import merge, note_shard
from benchmarks.report import figures
from benchmarks.report.markdown import write_report
from benchmarks.results.comparison import compare
from benchmarks.results.records import Record, write_record
from benchmarks.runs.plan import Shard
from benchmarks.runs.progress import Display
from benchmarks.suite import SUITE, select
from hw6core.errors import DataError, visible
from tests.record_factory import make_record
from tests.report.test_html import Reader

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></table><iframe src=//localhost>",
    "<!-- ",
    "]]><x>",
    "x\n\n**PASSED**: 7 of 7 configurations reached every gate.\n\n# Results",
    "**PASSED**",
    "_a_ *b* __c__ ~~d~~ `e",
    "[log in](https://localhost/) ![x](figures/overview.png)",
    "https://localhost <https://localhost> www.localhost.localdomain",
    "a | b | c \\| d \\\\| e",
    "\\",
    "&lt;b&gt; &#60;",
    "\x1b[2J\x1b]0;owned\x07\x9b31m\r\b\x00",
    "\u202egnp.exe\u2028\u2029\ufeff",
    "$\\frac{$ $$x$$ $\\href{x}{y}$",
    "```\n# x",
    "> quote\n- list\n1. one",
    "::warning::x\n##[error]x %0A",
    "{{ 7 * 7 }} ${{ secrets.TOKEN }} $(touch ran)",
    "x" * 20_000,
]


def hostile_records(word: str) -> list[Record]:
    """The suite's records with the word wherever a record may hold a text of its own."""
    names = [f"{word}{number}" for number in range(8)]
    details = {"class_names": names, "nondeterministic_operations": [word], "limited_by": word}
    state = {word: word, "load_average": 1.5}
    environment = {
        "device_name": word,
        "precision": word,
        "mode": word,
        "torch": word,
        "git_commit": word,
        "versions": {word: word},
        "machine": {"start": state, "end": {word: "other"}, "started_at": word},
    }
    records = []
    for name in SUITE:
        given = {key: value for key, value in details.items() if key != "class_names" or name.startswith("seg")}
        changes: dict[str, Any] = {"weights": word, "metrics": {word: 0.5}, "trivial": {word: 0.1}, "details": given}
        records.append(make_record(name, environment=environment, **changes))
    records[0].environment.device_name = f"other {word}"
    records[2].status, records[2].message = "error", word
    records[5].status, records[5].message = "not run", word
    return records


def shape(markdown: str) -> list[str]:
    """What a reader of Markdown makes of a text, without the words."""
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    kinds: list[str] = []

    def walk(tokens: list[Token]) -> None:
        for token in tokens:
            if token.type not in ("text", "text_special", "softbreak"):
                kinds.append(f"{token.type} {token.attrs.get('src', '')}")
            walk(token.children or [])

    walk(parser.parse(markdown))
    return kinds


@dataclass(frozen=True)
class Told:
    """What the records with a word in them become."""

    markdown: str
    html: str
    comparison: str


def told_of(folder: Path, word: str) -> Told:
    """Results in ``folder``/old, and in ``folder``/new others in which a run was lost."""
    for name in ("old", "new"):
        for record in hostile_records(word):
            if name == "new" and record.configuration == "vgg-scratch":
                record.status, record.message = "error", word
            record.environment.git_commit = f"{word} {name}"
            write_record(folder / name, record)
    write_report(folder / "old", select([]), [0])
    markdown, html = ((folder / "old" / name).read_text(encoding="utf-8") for name in ("RESULTS.md", "report.html"))
    return Told(markdown, html, compare(folder / "old", folder / "new").markdown())


@pytest.fixture(scope="module", autouse=True)
def no_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.report.markdown.write_figures", lambda results, records: [])
        yield


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return told_of(tmp_path_factory.mktemp("calm"), "word")


@pytest.mark.parametrize("word", HOSTILE)
def test_nothing_that_a_record_says_is_obeyed(
    word: str, calm: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = told_of(tmp_path, word)
    for text, other in ((told.markdown, calm.markdown), (told.comparison, calm.comparison)):
        assert shape(text) == shape(other)
        assert headings(text) == headings(other)
        assert all(letter.isprintable() or letter == "\n" for letter in text)
    seen, expected = (
        [(name, set(attributes) - {"class"}) for name, attributes in Reader(html).elements]
        for html in (told.html, calm.html)
    )
    assert seen == expected
    for command in (["judge", "--results", "old"], ["compare", "old", "new"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            assert main(command) == 1
        said = capsys.readouterr()
        assert all(letter.isprintable() or letter == "\n" for letter in said.out + said.err)
        assert not [line for line in said.out.splitlines() if line.startswith(("PASSED", "::", "##["))]
    ElementTree.parse(tmp_path / "old" / "junit.xml")
    json.loads((tmp_path / "old" / "benchmark.json").read_text(encoding="utf-8"))
    metrics = (tmp_path / "old" / "metrics.txt").read_text(encoding="utf-8")
    assert all(family.name.startswith("benchmark_") for family in text_string_to_metric_families(metrics))


def headings(text: str) -> list[str]:
    """All but the title, which names the device."""
    return [line for line in text.splitlines() if line.startswith(("##", "**PASSED", "**FAILED"))]


@pytest.mark.parametrize("word", HOSTILE)
def test_errors_and_progress_are_a_line_that_commands_nothing(word: str) -> None:
    stream = io.StringIO()
    display = Display(stream)
    with display.plan({"a": "a"}, {}):
        display.begin("a", "title")
        display.finish("a", "error", word, 1.0)
        display.say(f"  note: {word}")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("  note: ")
    assert all(line.isprintable() for line in [*lines, str(DataError(f"cannot read {word}"))])


def test_what_is_visible_keeps_its_letters() -> None:
    assert visible("a\nb\x1b[0m\u00e9 'x  y'") == "a b\\x1b[0m\u00e9 'x  y'"


@pytest.mark.parametrize("word", ["$\\frac{$", "<b>\x1b[2J", "$x$"])
def test_names_of_classes_are_no_formulas(word: str, tmp_path: Path) -> None:
    assert figures.write_figures(tmp_path, [hostile_records(word)[0]])


# ------------------------------------------------------------------------------------------------------------- shards


def shard(folder: Path, **changes: object) -> Path:
    """The folder of a shard, its note changed."""
    write_record(folder, make_record("seg-baseline"))
    note_shard(folder, Shard(1, 1), "full", [(SUITE["seg-baseline"], 0)])
    note = json.loads((folder / "shard.json").read_text(encoding="utf-8")) | changes
    (folder / "shard.json").write_text(json.dumps(note), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "changes",
    [{"count": 10**12}, {"number": -1}, {"runs": [["seg-baseline", "0/../../x"]]}, {"runs": 5}, {"profile": ["full"]}],
)
def test_notes_of_a_shard_that_are_none(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(DataError, match="holds no shard"):
        merge([shard(tmp_path / "shard", **changes)], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_only_what_a_shard_was_asked_for_is_taken(tmp_path: Path) -> None:
    """A link in the folder would bring a file of this machine among results that are shown around."""
    folder = shard(tmp_path / "shard")
    (tmp_path / "secret").write_text("secret")
    (folder / "samples").mkdir()
    (folder / "samples" / "seg-baseline-seed0.npz").symlink_to(tmp_path / "secret")
    (folder / "records" / "notes.txt").write_text("x")
    (folder / "records" / "key").symlink_to(tmp_path / "secret")
    merge([folder], tmp_path / "merged")
    assert [path.name for path in (tmp_path / "merged").rglob("*") if path.is_file()] == ["seg-baseline-seed0.json"]
