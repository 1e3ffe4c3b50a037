"""The assignment as a notebook: `make notebook` executes docs/hw6.py and writes it to results/notebook.

It writes hw6.ipynb with its figures, hw6.html (one file), and hw6.pdf if there is a browser to print it with.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.errors import ExitCode, InfrastructureError
from benchmarks.exits import RUN_PACKAGES, check_installed, exit_code_of
from benchmarks.interruption import exit_process, restored_handlers
from benchmarks.machine.devices import SIZED_FOR, open_device
from benchmarks.options import SYNTHETIC, read_option, read_options
from benchmarks.runs.plan import SYNTHETIC_FOLDER
from hw6core.errors import HW6Error, visible

if TYPE_CHECKING:
    from nbformat import NotebookNode

SOURCE = Path(__file__).parent.parent / "docs" / "hw6.py"
# Import name -> name for pip, as in the extra `notebook` of pyproject.toml.
_PACKAGES = {name: name for name in ("ipykernel", "jupytext", "nbclient", "nbconvert")}
_INLINE = "module://matplotlib_inline.backend_inline"  # overrides an MPLBACKEND that shows no figures
_BROWSERS = (  # based on Chromium; on the PATH, or where macOS has them
    *("google-chrome", "chromium", "chromium-browser", "chrome", "microsoft-edge", "msedge"),
    *(f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ("Google Chrome", "Chromium", "Microsoft Edge")),
)
_PRINTING_S = 120


def read_notebook() -> NotebookNode:
    """Read the script, which is in jupytext's percent format, as a notebook without outputs."""
    import jupytext

    notebook: NotebookNode = jupytext.read(SOURCE)
    notebook.metadata.pop("jupytext", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the default is random, so that every version of the file would differ
    return notebook


def set_parameters(notebook: NotebookNode, parameters: Mapping[str, object]) -> None:
    """Add a cell that sets ``parameters`` after the cell tagged "parameters", as papermill does."""
    from nbformat.v4 import new_code_cell

    tagged = (n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    cell = new_code_cell(source, id="injected-parameters", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(next(tagged) + 1, cell)


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells in ``folder`` and add their outputs to the notebook.

    Raises:
        HW6Error: a cell raised an error; the notebook holds the outputs so far and the traceback.
        InfrastructureError: the kernel was killed.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],  # hides a warning about local ports at each start
    )
    manager = client.create_kernel_manager()
    try:
        with restored_handlers():
            client.execute(env=os.environ | {"MPLBACKEND": _INLINE})
    except CellExecutionError as error:
        raise HW6Error(f"a cell of the notebook ended with {error.ename}: {error.evalue}") from error
    except DeadKernelError as error:
        if manager.shutting_down:  # by nbclient, after Ctrl-C or SIGTERM
            raise KeyboardInterrupt from error
        raise InfrastructureError("the notebook's kernel died; it may have run out of memory") from error
    except AssertionError as error:  # of nbclient, which then has no kernel left to end
        raise KeyboardInterrupt from error
    finally:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # timestamps, which would differ in every version of the file


def write_html(notebook: NotebookNode, path: Path) -> None:
    """Write the notebook as one HTML file that includes its figures."""
    import nbconvert

    text, _ = nbconvert.HTMLExporter(template_name="lab").from_notebook_node(notebook)
    path.write_text(text, encoding="utf-8")


def print_pdf(page: Path, path: Path) -> str | None:
    """Print an HTML file to PDF with a headless browser; returns None, or why that failed."""
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        return "found no Chrome, Chromium or Edge to print with"
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # root cannot use the sandbox
    command = [browser, "--headless", "--disable-gpu", *root, "--no-pdf-header-footer", f"--print-to-pdf={path}"]
    try:
        answer = subprocess.run(
            [*command, page.resolve().as_uri()], capture_output=True, text=True, check=False, timeout=_PRINTING_S
        )
    except subprocess.TimeoutExpired:
        return f"{browser} did not finish within {_PRINTING_S} s"
    if path.is_file():
        return None
    return f"{browser} failed: {visible((answer.stderr.strip().splitlines() or ['no error message'])[-1])}"


def read_parameters() -> dict[str, Any]:
    """The notebook's parameters from DATA, DEVICE and VGG16_WEIGHTS, without those that keep their default.

    Raises:
        UsageError, DataError: as for `benchmarks.options.read_options`.
        InfrastructureError: torch does not see the DEVICE.
    """
    plan = read_options({"PROFILE": "quick"})  # AMOUNT below decides how much the notebook trains
    parameters: dict[str, Any] = {}
    if plan.data != SYNTHETIC_FOLDER:
        parameters["DATA"] = str(plan.data)
    if read_option("DEVICE", {}):
        open_device(plan.device)  # a cell's error would not say what to do
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
    notebook = read_notebook()
    if parameters:
        set_parameters(notebook, parameters)
    print(f"executing {SOURCE.name} on {parameters.get('DATA', SYNTHETIC)} data; this takes minutes", flush=True)
    try:
        execute(notebook, Path.cwd())
    except KeyboardInterrupt:
        print(f"interrupted; wrote the outputs so far to {written}", file=sys.stderr)
        return ExitCode.INTERRUPTED
    finally:
        nbformat.write(notebook, written)
    write_html(notebook, page)
    problem = print_pdf(page, pdf)
    no_pdf = f"; no PDF: {problem}; print {page.name} with another browser"
    print(f"wrote {written}, {page}" + (no_pdf if problem else f", {pdf}"))
    return 0


if __name__ == "__main__":
    exit_process(exit_code_of(main))
