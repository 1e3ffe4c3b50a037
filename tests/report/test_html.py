"""report.html is self-contained, and records cannot inject markup into it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.report.html import page
from benchmarks.results.formatting import as_text, table
from benchmarks.results.gates import Asked
from benchmarks.suite import SUITE, select
from tests.drawings import report_lines
from tests.record_factory import make_record

PNG = b"\x89PNG\r\n\x1a\n a figure"
EMBEDDED = "data:image/png;base64," + base64.b64encode(PNG).decode("ascii")


class Reader(HTMLParser):
    """Parses a page into its elements with their attributes, and the text in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, str] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        self.text[inside] = self.text.get(inside, "") + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(markdown: str, folder: Path) -> Reader:
    return Reader(page(markdown, folder))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures/curves.png").write_bytes(PNG)
    return folder


def test_the_page_of_a_report_loads_nothing_from_anywhere(tmp_path: Path) -> None:
    image = {"device_name": "![GPU](https://localhost/gpu.png)"}
    records = [make_record(name, environment=image) for name in SUITE]
    records.append(make_record("vgg-frozen", status="error", message="see <https://localhost/> & retry"))
    report_lines(tmp_path, records, Asked(select([]), [0]))
    seen = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {name for name, _ in seen.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "strong", "em", "code", "ul", "li"),
        *("blockquote", "div", "table", "thead", "tbody", "tr", "th", "td", "img", "a"),
    }
    titles = {attributes["id"] for name, attributes in seen.elements if name in ("h1", "h2", "h3")}
    assert {link["href"] for link in seen.all("a")} <= {f"#{title}" for title in titles}
    assert not [value for _, attributes in seen.elements for value in attributes.values() if "://" in (value or "")]
    assert "url(" not in seen.text["style"]
    assert "@import" not in seen.text["style"]


def test_figures_are_embedded_and_the_policy_forbids_everything_else(results: Path) -> None:
    seen = read('![Loss of "x" & y](figures/curves.png)', results)
    assert seen.all("img") == [{"alt": 'Loss of "x" & y', "src": EMBEDDED}]
    policies = [meta["content"] for meta in seen.all("meta") if "http-equiv" in meta]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


@pytest.mark.parametrize(
    "message",
    [
        *("<class 'KeyError'>", "</body><iframe>", "<!-- away -->", "a &amp; b", "~~x~~ # y"),
        *("[log in](https://localhost/)", "![x](figures/curves.png)"),
    ],
)
def test_markup_in_a_message_is_escaped(message: str, results: Path) -> None:
    plain = [name for name, _ in read("- text", results).elements]
    for text in (as_text(message), *([message] if message.startswith("<") else [])):
        seen = read(f"- {text}", results)
        assert [name for name, _ in seen.elements] == plain
        assert message in seen.text["li"]


def test_tables_scroll_and_verdicts_have_their_class(results: Path) -> None:
    words = ["passed", "failed", "error", "not run", "no worse", "worse", "cannot tell", "same", "0.5 passed", "x" * 61]
    words += ["-0.100 not above floor", "+0.000 not above trivial", "+0.100"]
    seen = read(table(["what"], [[word] for word in words]) + "\n\n" + table(["verdict"], [["passed"]]), results)
    names = [name for name, _ in seen.elements]
    assert seen.all("div") == [{"class": "table"}, {"class": "table gates"}]
    assert names.index("div") + 1 == names.index("table")
    assert [cell.get("class") for cell in seen.all("td")] == [
        *("passed", "failed", "error", "not-run", "passed", "failed", "not-run"),
        *(None, None, "long", "failed", "failed", None, "passed"),
    ]


@pytest.mark.parametrize(
    ("word", "looks"),
    [
        ("PASSED", "passed"),
        ("FAILED", "failed"),
        ("CANNOT TELL", "cannot-tell"),
        ("PASSED, quick profile on real data: not an acceptance result", "trial"),
    ],
)
def test_the_verdict_has_its_class(word: str, looks: str, results: Path) -> None:
    seen = read(f"# Results\n\n**{word}**: 7 of 7.\n\nNot **PASSED** in the middle of a line.\n", results)
    assert seen.all("p") == [{"class": f"verdict {looks}"}, {}]
    assert seen.text["title"] == "Results"
    assert seen.text["strong"].startswith(word)
