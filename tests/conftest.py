"""Shared by the tests: where the real data lies, if anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.options import OPTIONS
from hw6core.data.synthetic import synthesize
from tests.tiny_data import TINY


def pytest_configure(config: pytest.Config) -> None:
    """A warning from our own code fails a test. The acceptance gates are about results: there it stays a warning.

    Decoded data is not kept: the tests' folders are gone after them. What the tests themselves were asked to do, by
    variables of the suite's names, is no affair of the suites in them.
    """
    os.environ["HW6_CACHE"] = "off"
    for name in (*OPTIONS, "GITHUB_STEP_SUMMARY"):
        os.environ.pop(name, None)
    for package in ("hw6core", "benchmarks"):
        config.addinivalue_line("filterwarnings", f"error::UserWarning:{package}.*")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with `endovis/` and `fashion_mnist/`, named by the environment variable HW6_DATA."""
    folder = os.environ.get("HW6_DATA")
    if not folder:
        pytest.skip("real data not given; set HW6_DATA to the folder that holds endovis/ and fashion_mnist/")
    return Path(folder)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn data of a few samples in the real layout, to be read only."""
    root = tmp_path_factory.mktemp("synthetic") / "data"
    synthesize(root, sizes=TINY)
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow files first: two processes that share the tests then end together."""
    names = "ray_cluster dry_gpu faults workers runner repetition no_network acceptance_gates readme"
    slow = [f"test_{name}" for name in names.split()]
    items.sort(key=lambda item: slow.index(item.path.stem) if item.path.stem in slow else len(slow))
