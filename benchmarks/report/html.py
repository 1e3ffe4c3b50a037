"""RESULTS.md as one self-contained HTML file: embedded figures, no network, no script."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from benchmarks.results.formatting import NO_LEAD

# Records may come from somewhere else, so nothing in the page may load or run anything.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
# CSS class of a table cell, by its text.
_VERDICTS = {word: word.replace(" ", "-") for word in ("passed", "failed", "error", "not run")} | {
    "no worse": "passed",
    "worse": "failed",
    "better than possible": "failed",
    "cannot tell": "not-run",
}
_STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --back: #fff; --line: #d5d8dc; --soft: #f3f5f7; --quiet: #57606a;
  --good: #0a6b4c; --bad: #a83a00; --open: #6b5300; --trial: #0b5394; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e6ea; --back: #14171a; --line: #3a4149; --soft: #1f242a;
  --quiet: #a0a8b2; --good: #4cc79c; --bad: #ff9a5c; --open: #e3c14a;
  --trial: #7db8ec; } }
body { max-width: 80rem; margin: 0 auto; padding: 1rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .75rem; }
h1 { margin-top: .5rem; font-size: clamp(1.25rem, 4vw, 2rem); }
.verdict { font-size: 1.25rem; padding: .75rem 1rem; border-left: .5rem solid var(--bad); background: var(--soft); }
.verdict.passed { border-color: var(--good); }
.verdict.trial { border-color: var(--trial); }
.verdict.cannot-tell { border-color: var(--open); }
blockquote { margin: 1rem 0; padding: .25rem 1rem; border-left: .25rem solid var(--line); color: var(--quiet); }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { background: var(--soft); }
td { white-space: nowrap; }
th:first-child, td:first-child { position: sticky; left: 0; }
td:first-child { background: var(--back); }
.gates td { white-space: normal; }
.gates td:nth-child(3) { white-space: nowrap; font-weight: 600; }
.gates td:nth-child(5) { min-width: 11rem; }
@media (max-width: 40rem) {
  body { padding: .75rem; }
  .verdict { font-size: 1rem; }
  th, td { padding: .3rem .4rem; }
  .gates td:nth-child(2) { min-width: 7rem; }
  .gates td:nth-child(3) { white-space: normal; min-width: 5.5rem; }
  .gates td:nth-child(n+7) { min-width: 8rem; }
}
td.long { white-space: normal; min-width: min(24rem, 60vw); }
td.passed { color: var(--good); }
td.failed, td.error { color: var(--bad); font-weight: 600; }
td.not-run { color: var(--open); font-weight: 600; }
img { max-width: min(100%, 34rem); height: auto; background: #fff; border-radius: .25rem; }
code { background: var(--soft); padding: .1rem .3rem; border-radius: .2rem; }
"""


def page(markdown: str, folder: Path) -> str:
    """A self-contained page.

    Args:
        markdown: the text; HTML in it is escaped.
        folder: what paths of images are relative to. Only PNG files below it are embedded.
    """
    parser = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")
    body = parser.render(markdown, {"folder": folder})
    title = next((line.removeprefix("# ") for line in markdown.splitlines() if line.startswith("# ")), "Results")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def heading_id(title: str) -> str:
    """The anchor of a heading, as on GitHub: "1(a) U-Net" -> "1a-u-net"."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


class _Renderer(RendererHTML):
    """Tables that scroll on a narrow screen, coloured verdicts, embedded images."""

    def paragraph_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        text = tokens[index + 1].content
        for word in ("PASSED", "FAILED", "CANNOT TELL"):
            if text.startswith(f"**{word}") and not tokens[index].hidden:
                shown = word.lower().replace(" ", "-") if text.startswith(f"**{word}**") else "trial"
                return f'<p class="verdict {shown}">'
        return str(self.renderToken(tokens, index, options, env))

    def heading_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        tokens[index].attrSet("id", heading_id(tokens[index + 1].content))
        return str(self.renderToken(tokens, index, options, env))

    def table_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        first = next(token.content for token in tokens[index:] if token.type == "inline")
        kind = "table gates" if first == "verdict" else "table"
        return f'<div class="{kind}">{self.renderToken(tokens, index, options, env)}'

    def table_close(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return f"{self.renderToken(tokens, index, options, env)}</div>\n"

    def td_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        text = tokens[index + 1].content
        if text in _VERDICTS:
            tokens[index].attrSet("class", _VERDICTS[text])
        elif f" {NO_LEAD} " in text:
            tokens[index].attrSet("class", "failed")
        elif len(text) > 60:
            tokens[index].attrSet("class", "long")
        return str(self.renderToken(tokens, index, options, env))

    def image(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        alternative = self.renderInlineAsText(token.children or [], options, env)
        folder = env["folder"].resolve()
        path = (folder / str(token.attrGet("src"))).resolve()
        try:
            if path.suffix != ".png" or not path.is_relative_to(folder):
                raise FileNotFoundError(path)
            content = base64.b64encode(path.read_bytes()).decode("ascii")
        except OSError:
            return f"<em>{escape(alternative)}: figure missing</em>"
        return f'<img alt="{escape(alternative)}" src="data:image/png;base64,{content}">'
