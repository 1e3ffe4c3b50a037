"""Records from elsewhere say what they like: in no report does it become structure, a picture, a script or an order."""

from __future__ import annotations

import io
import json
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
from hw6core.errors import DataError, SuiteError, visible
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
        "machine": {"start": state, "end": {word: "other", "listed": [word]}, "started_at": word},
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


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.report.markdown.write_figures", lambda results, records: [])


def written(folder: Path, word: str) -> tuple[str, str]:
    """RESULTS.md and report.html."""
    for record in hostile_records(word):
        write_record(folder, record)
    write_report(folder, select([]), [0])
    return tuple((folder / name).read_text(encoding="utf-8") for name in ("RESULTS.md", "report.html"))  # type: ignore[return-value]


@pytest.mark.parametrize("word", HOSTILE)
def test_report_has_the_same_structure_whatever_a_record_says(tmp_path: Path, word: str) -> None:
    text, html = written(tmp_path / "hostile", word)
    calm, calm_html = written(tmp_path / "calm", "word")
    assert shape(text) == shape(calm)
    assert [line for line in text.splitlines() if line.startswith(("#", "**PASSED", "**FAILED"))] == [
        line for line in calm.splitlines() if line.startswith(("#", "**PASSED", "**FAILED"))
    ]
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    seen, expected = Reader(html), Reader(calm_html)
    assert [name for name, _ in seen.elements] == [name for name, _ in expected.elements]
    assert [set(attributes) - {"class"} for _, attributes in seen.elements] == [
        set(attributes) - {"class"} for _, attributes in expected.elements
    ]


@pytest.mark.parametrize("word", HOSTILE)
def test_comparison_has_the_same_structure_whatever_a_record_says(tmp_path: Path, word: str) -> None:
    texts = []
    for name, said in (("calm", "word"), ("hostile", word)):
        folders = tmp_path / name / "old", tmp_path / name / "new"
        for folder in folders:
            for record in hostile_records(said):
                if folder.name == "new" and record.configuration == "vgg-scratch":
                    record.status, record.message = "error", said
                record.environment.git_commit = f"{said} {folder.name}"
                write_record(folder, record)
        texts.append(compare(*folders).markdown())
    assert shape(texts[1]) == shape(texts[0])
    assert all(letter.isprintable() or letter == "\n" for letter in texts[1])


@pytest.mark.parametrize("word", HOSTILE)
def test_terminal_and_machines_read_text(tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, word)
    for command in (["judge"], ["report"], ["compare", str(tmp_path)]):
        code = main([*command, str(tmp_path)] if command[0] == "compare" else [*command, "--results", str(tmp_path)])
        said = capsys.readouterr()
        assert code in (0, 1)
        assert all(letter.isprintable() or letter == "\n" for letter in said.out + said.err)
        assert not [line for line in said.out.splitlines() if line.startswith(("PASSED", "::", "##["))]
    ElementTree.parse(tmp_path / "junit.xml")
    json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    families = {family.name for family in text_string_to_metric_families((tmp_path / "metrics.txt").read_text("utf-8"))}
    assert families == {family for family in families if family.startswith("benchmark_")}


@pytest.mark.parametrize("word", HOSTILE)
def test_errors_are_one_line_that_commands_nothing(word: str) -> None:
    for error in (SuiteError(word), DataError(f"cannot read {word}")):
        assert str(error).isprintable()
    assert visible("a\nb\x1b[0m\u00e9 'x  y'") == "a b\\x1b[0m\u00e9 'x  y'"
    assert str(DataError()) == ""


@pytest.mark.parametrize("word", HOSTILE)
def test_progress_is_a_line_for_each_thing(word: str) -> None:
    stream = io.StringIO()
    display = Display(stream)
    with display.plan({"a": "a"}, {}):
        display.begin("a", "title")
        display.finish("a", "error", word, 1.0)
        display.say(f"  note: {word}")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("  note: ")
    assert all(line.isprintable() for line in lines)


def test_names_of_classes_are_no_formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with_names = [hostile_records(word)[0] for word in ("$\\frac{$", "<b>\x1b[2J", "$x$")]
    for record in with_names:
        assert figures.write_figures(tmp_path, [record])


# ------------------------------------------------------------------------------------------------------------- shards


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 10**12},
        {"count": "2"},
        {"number": -1},
        {"runs": [["../../../etc/x", 0]]},
        {"runs": [["seg-baseline", "0/../../x"]]},
        {"runs": [[["seg-baseline"], 0]]},
        {"runs": 5},
        {"profile": ["full"]},
    ],
)
def test_notes_of_a_shard_that_are_none(tmp_path: Path, changes: dict[str, object]) -> None:
    folder, _ = shards(tmp_path)
    note = json.loads((folder / "shard.json").read_text())
    (folder / "shard.json").write_text(json.dumps(note | changes))
    with pytest.raises(DataError) as caught:
        merge([folder], tmp_path / "merged")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "merged").exists()


def shards(tmp_path: Path) -> tuple[Path, Record]:
    record = make_record("seg-baseline")
    folder = tmp_path / "shard"
    write_record(folder, record)
    note_shard(folder, Shard(1, 1), "full", [(SUITE["seg-baseline"], 0)])
    return folder, record


def test_only_what_a_shard_was_asked_for_is_taken(tmp_path: Path) -> None:
    """A link in the folder would bring a file of this machine among results that are shown around."""
    folder, _ = shards(tmp_path)
    (tmp_path / "secret").write_text("secret")
    (folder / "samples").mkdir()
    (folder / "samples" / "seg-baseline-seed0.npz").symlink_to(tmp_path / "secret")
    (folder / "records" / "notes.txt").write_text("x")
    (folder / "records" / "key").symlink_to(tmp_path / "secret")
    merge([folder], tmp_path / "merged")
    assert [path.name for path in (tmp_path / "merged").rglob("*") if path.is_file()] == ["seg-baseline-seed0.json"]
