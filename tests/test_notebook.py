"""The notebook of the assignment: it runs, its values are correct, and docs/hw6.py and docs/hw6.ipynb agree."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest

from benchmarks import notebook
from benchmarks.errors import InfrastructureError
from hw6core.errors import HW6Error
from tests.watching import shrink_networks

CHECKOUT = Path(__file__).parent.parent
# The last layer in the notebook has 4096 inputs.
SMALL = "import pytest\nfrom tests.watching import shrink_networks\nshrink_networks(pytest.MonkeyPatch(), units=4096)"
PARTS = ["1(a) course Dice", "1(a) present Dice", "1(b) course Dice", "1(b) present Dice", "1(c) mean squared error"]
PARTS += ["1(d) course Dice", "1(d) present Dice", "2(a) accuracy", "2(b) accuracy"]
PARTS += ["2(c) from 2(a) accuracy", "2(c) from 2(b) accuracy"]


@pytest.fixture(scope="module")
def executed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """Executed on a few drawn samples without pre-trained weights; the last cell but one fails."""
    book = notebook.read_notebook()
    parameters = {"DATA": str(data), "DEVICE": "cpu", "AMOUNT": "tiny", "VGG16_WEIGHTS": "nowhere.pth"}
    notebook.set_parameters(book, parameters)
    book.cells.insert(0, nbformat.v4.new_code_cell(SMALL))
    book.cells += [nbformat.v4.new_code_cell("1 / 0"), nbformat.v4.new_code_cell("print('never')")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(CHECKOUT))
        with pytest.raises(HW6Error, match=r"^a cell of the notebook ended with ZeroDivisionError: division by zero$"):
            notebook.execute(book, tmp_path_factory.mktemp("notebook"))
    return book


def printed(book: nbformat.NotebookNode) -> str:
    outputs = (output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs)
    return "".join(output.text for output in outputs if output.output_type == "stream")


def figures(book: nbformat.NotebookNode) -> list[bytes]:
    outputs = (output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs)
    return [base64.b64decode(output.data["image/jpeg"]) for output in outputs if "image/jpeg" in output.get("data", {})]


def test_dice_by_hand_matches_the_library(executed: nbformat.NotebookNode) -> None:
    """Class 0 has 8 target and 6 predicted pixels, 6 of them common; class 1 has 4, 6 and 4; class 2 none."""
    text = printed(executed)
    assert "class 0: 2 * 6 / 14 0.8571428571428571\nclass 1: 2 * 4 / 10 0.8\nclass 2: absent from both 1.0\n" in text
    assert "the library: [0.8571428571428571, 0.8, 1.0]\ncourse Dice 0.8857\npresent Dice 0.8286\n" in text
    losses = [float(loss) for loss in re.findall(r"Dice loss (0\.\d+)", text)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(1 - 0.8857, abs=2e-4)


def test_every_part_has_a_result_and_figures_and_the_weights_are_named(executed: nbformat.NotebookNode) -> None:
    text, shown = printed(executed), figures(executed)
    assert "No ImageNet weights available (no weights at nowhere.pth)." in text
    assert "synthetic data, tiny training on cpu; pre-trained weights: drawn shapes" in text
    table = text.split("without learning\n")[-1]
    rows = re.findall(r"^(\d\(\w\).*?) +(\d\.\d{4}) +(\d\.\d{4})$", table, re.MULTILINE)
    assert [part for part, _, _ in rows] == PARTS
    assert all(0 < float(without) < 1 and 0 <= float(score) <= 1 for _, score, without in rows)
    assert len(shown) == 13
    assert all(picture.startswith(b"\xff\xd8") and len(picture) > 500 for picture in shown)
    assert len(set(shown)) == len(shown)


def test_it_uses_only_the_library() -> None:
    source = notebook.SOURCE.read_text(encoding="utf-8")
    assert set(re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE)) == {
        *("hw6core", "math", "matplotlib", "pathlib", "torch")
    }


def test_script_and_notebook_have_the_same_cells() -> None:
    """Edit docs/hw6.py, then: make notebook DATA=synthetic && cp results/notebook/hw6.ipynb docs/"""
    made, kept = notebook.read_notebook(), nbformat.read(CHECKOUT / "docs" / "hw6.ipynb", as_version=4)
    for one, other in zip(made.cells, kept.cells, strict=True):
        assert (one.cell_type, one.id, one.source) == (other.cell_type, other.id, other.source)
    assert len(made.cells) > 30


def test_the_committed_notebook_was_run_in_order_on_drawn_data_and_is_small() -> None:
    path = CHECKOUT / "docs" / "hw6.ipynb"
    book = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert printed(book).startswith("synthetic data, quick training on cpu")
    assert len(figures(book)) == 13
    assert path.stat().st_size < 400_000
    assert str(Path.home()) not in path.read_text(encoding="utf-8")


def test_execution_stops_at_a_failing_cell_and_keeps_its_traceback(executed: nbformat.NotebookNode) -> None:
    failed, never = executed.cells[-2:]
    assert [output.output_type for output in failed.outputs] == ["error"]
    assert never.outputs == []


def test_a_killed_kernel_is_a_failure_of_the_machine(tmp_path: Path) -> None:
    killed = nbformat.v4.new_code_cell("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(InfrastructureError, match="the notebook's kernel died"):
        notebook.execute(nbformat.v4.new_notebook(cells=[killed]), tmp_path)


def test_an_interruption_keeps_the_outputs_so_far(tmp_path: Path) -> None:
    slow = '# %% tags=["parameters"]\nprint(6 * 7)\n\n# %%\nopen("began", "w").close()\nwhile True: pass\n'
    (tmp_path / "slow.py").write_text(slow, encoding="utf-8")
    code = (
        "from pathlib import Path\n"
        "from benchmarks import notebook\n"
        "from benchmarks.exits import exit_code_of\n"
        "from benchmarks.interruption import exit_process\n"
        "notebook.SOURCE = Path('slow.py')\n"
        "exit_process(exit_code_of(notebook.main))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "DEVICE": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (tmp_path / "began").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        _, output = process.communicate()
    assert process.returncode == 130
    assert output.splitlines()[-1] == "interrupted; wrote the outputs so far to results/notebook/slow.ipynb"
    assert printed(nbformat.read(tmp_path / "results" / "notebook" / "slow.ipynb", as_version=4)) == "42\n"


def test_the_pdf_is_printed_by_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser, pdf = tmp_path / "chromium", tmp_path / "hw6.pdf"
    browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/said\necho pdf > {pdf}\n', encoding="utf-8")
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(notebook, "_BROWSERS", ("chromium",))
    page = tmp_path / "a page.html"
    notebook.write_html(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A title")]), page)
    assert "A title" in page.read_text(encoding="utf-8")
    assert notebook.print_pdf(page, pdf) is None
    said = (tmp_path / "said").read_text().splitlines()
    assert said[0] == "--headless"
    assert said[-2:] == [f"--print-to-pdf={pdf}", page.as_uri()]


def test_the_reason_for_a_missing_pdf_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "_BROWSERS", ())
    output = notebook.print_pdf(tmp_path / "hw6.html", tmp_path / "hw6.pdf")
    assert output == "found no Chrome, Chromium or Edge to print with"
    monkeypatch.setattr(notebook, "_BROWSERS", ("false",))
    output = notebook.print_pdf(tmp_path / "hw6.html", tmp_path / "hw6.pdf")
    assert output == f"{shutil.which('false')} failed: no error message"


def test_options_become_parameters(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert notebook.read_parameters() == {}
    monkeypatch.setenv("DATA", str(data))
    monkeypatch.setenv("DEVICE", "cpu")
    assert notebook.read_parameters() == {"DATA": str(data), "DEVICE": "cpu", "AMOUNT": "quick"}
    monkeypatch.setenv("DEVICE", "xpu")
    with pytest.raises(InfrastructureError, match=r"no xpu device is visible to torch .* make smoke"):
        notebook.read_parameters()


def test_the_example_of_the_library_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first block of docs/library.md, at most 20 lines, trains and scores."""
    text = (CHECKOUT / "docs" / "library.md").read_text(encoding="utf-8")
    example = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 20
    monkeypatch.chdir(tmp_path)
    shrink_networks(monkeypatch)
    names: dict[str, Any] = {}
    exec(example, names)
    output = re.fullmatch(r"epoch \d of 6: course Dice (0\.\d+), present Dice (0\.\d+)\n", capsys.readouterr().out)
    assert output
    losses = [entry["train_loss"] for entry in names["trained"].history]
    assert losses[-1] < losses[0]
    assert [output[1], output[2]] == [f"{names[name]:.3f}" for name in ("course", "present")]
