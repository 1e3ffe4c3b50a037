"""Shared fixtures and settings of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.options import OPTIONS
from hw6core.data.synthetic import synthesize
from tests.tiny_data import TINY


def pytest_configure(config: pytest.Config) -> None:
    """Make warnings of this project's code errors (not in the acceptance gates, which judge results).

    Decoded data is not cached, as test folders are temporary. Variables of the suite are removed from the environment,
    so that they do not affect the suites that tests run.
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
        pytest.skip("no real data; set HW6_DATA to the folder with endovis/ and fashion_mnist/")
    return Path(folder)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn data of a few samples in the layout of the real data; read-only."""
    root = tmp_path_factory.mktemp("synthetic") / "data"
    synthesize(root, sizes=TINY)
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow files first, so that parallel processes end at the same time."""
    names = "ray_cluster dry_gpu faults workers runner repetition no_network acceptance_gates readme"
    slow = [f"test_{name}" for name in names.split()]
    items.sort(key=lambda item: slow.index(item.path.stem) if item.path.stem in slow else len(slow))
