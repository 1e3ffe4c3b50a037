"""The assignment as a notebook: `make notebook` executes docs/hw6.py and writes it to results/notebook.

hw6.ipynb with its figures, hw6.html (one file), and hw6.pdf where there is a browser to print it with.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.errors import InfrastructureError
from benchmarks.exits import RUN_PACKAGES, check_installed, exit_code_of
from benchmarks.interruption import INTERRUPTED_CODE, handlers_kept, leave
from benchmarks.machine.devices import SIZED_FOR
from benchmarks.options import SYNTHETIC, read_option, read_options
from benchmarks.runs.plan import SYNTHETIC_FOLDER
from hw6core.errors import HW6Error, visible

if TYPE_CHECKING:
    from nbformat import NotebookNode

SOURCE = Path(__file__).parent.parent / "docs" / "hw6.py"
# The names that packages are imported by, and those that pip installs them by: the extra `notebook` of pyproject.toml.
_PACKAGES = {name: name for name in ("ipykernel", "jupytext", "nbclient", "nbconvert")}
_INLINE = "module://matplotlib_inline.backend_inline"  # also where the environment names one that shows no figures
_BROWSERS = (  # of Chromium's family, on the PATH or where a Mac has them
    *("google-chrome", "chromium", "chromium-browser", "chrome", "microsoft-edge", "msedge"),
    *(f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ("Google Chrome", "Chromium", "Microsoft Edge")),
)
_PRINTING_S = 120


def read_notebook(source: Path = SOURCE) -> NotebookNode:
    """The notebook of a script in jupytext's percent format, without outputs."""
    import jupytext

    notebook: NotebookNode = jupytext.read(source)
    notebook.metadata.pop("jupytext", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # drawn at random otherwise: every version of the file would differ in all
    return notebook


def set_parameters(notebook: NotebookNode, parameters: Mapping[str, object]) -> None:
    """Add a cell that sets these names, after the cell that is tagged "parameters", as papermill does."""
    from nbformat.v4 import new_code_cell

    if not parameters:
        return
    tagged = (n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    cell = new_code_cell(source, id="injected-parameters", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(next(tagged) + 1, cell)


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells in ``folder``; their outputs are then in the notebook.

    Raises:
        HW6Error: a cell raised something; the outputs until then, with the traceback, are in the notebook.
        InfrastructureError: its process was killed.
        KeyboardInterrupt: somebody asked for an end.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],  # a warning at each start is about ports of this machine alone
    )
    try:
        with handlers_kept():
            client.execute(env=os.environ | {"MPLBACKEND": _INLINE})
    except CellExecutionError as error:
        raise HW6Error(f"a cell of the notebook ended with {error.ename}: {error.evalue}") from error
    except DeadKernelError as error:
        raise InfrastructureError("the notebook's kernel died, as it does where memory is full") from error
    except AssertionError as error:  # nbclient took Ctrl-C or SIGTERM, and has no kernel left to end
        raise KeyboardInterrupt from error
    finally:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # when it ran: another time in every version of the file


def write_html(notebook: NotebookNode, path: Path) -> None:
    """The notebook as one file, its figures inside."""
    import nbconvert

    text, _ = nbconvert.HTMLExporter(template_name="lab").from_notebook_node(notebook)
    path.write_text(text, encoding="utf-8")


def print_pdf(page: Path, path: Path) -> str | None:
    """Print an HTML file with a browser, without showing it; why not, if it could not."""
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        return "no Chrome, Chromium or Edge was found to print it with"
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # where its sandbox cannot work
    command = [browser, "--headless", "--disable-gpu", *root, "--no-pdf-header-footer", f"--print-to-pdf={path}"]
    try:
        answer = subprocess.run(
            [*command, page.resolve().as_uri()], capture_output=True, text=True, check=False, timeout=_PRINTING_S
        )
    except subprocess.TimeoutExpired:
        return f"{browser} did not print it within {_PRINTING_S} s"
    if path.is_file():
        return None
    return f"{browser} did not print it: {visible((answer.stderr.strip().splitlines() or ['no reason given'])[-1])}"


def read_parameters() -> dict[str, Any]:
    """What the environment's DATA, DEVICE and VGG16_WEIGHTS say, by the notebook's names; not what is its default.

    Raises:
        UsageError, DataError: as for `benchmarks.options.read_options`.
    """
    plan = read_options({"PROFILE": "quick"})  # of which the notebook takes as much as the device allows
    parameters: dict[str, Any] = {}
    if plan.data != SYNTHETIC_FOLDER:
        parameters["DATA"] = str(plan.data)
    if read_option("DEVICE", {}):
        parameters["DEVICE"] = plan.device
        parameters["AMOUNT"] = "full" if plan.device in SIZED_FOR else "quick"
    if plan.vgg16_weights:
        parameters["VGG16_WEIGHTS"] = str(plan.vgg16_weights)
    return parameters


def main() -> int:
    check_installed(RUN_PACKAGES | _PACKAGES)
    import nbformat

    parameters = read_parameters()
    folder = read_option("RESULTS", {}) or Path("results") / "notebook"
    folder.mkdir(parents=True, exist_ok=True)
    written, page, pdf = (folder / f"{SOURCE.stem}.{kind}" for kind in ("ipynb", "html", "pdf"))
    for path in (written, page, pdf):
        path.unlink(missing_ok=True)
    notebook = read_notebook(SOURCE)
    set_parameters(notebook, parameters)
    print(f"executing {SOURCE.name} on {parameters.get('DATA', SYNTHETIC)} data; minutes without a word", flush=True)
    try:
        execute(notebook, Path.cwd())
    except KeyboardInterrupt:
        print(f"interrupted; what came out until then: {written}", file=sys.stderr)
        return INTERRUPTED_CODE
    finally:
        nbformat.write(notebook, written)
    write_html(notebook, page)
    missing = print_pdf(page, pdf)
    print(f"written: {written}, {page}" + (f"; no PDF: {missing}; print {page.name} in any" if missing else f", {pdf}"))
    return 0


if __name__ == "__main__":
    leave(exit_code_of(main))
