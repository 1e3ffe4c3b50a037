"""Every public function and class of the library has an example in its docstring, and all examples pass."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import hw6core

ROOT = Path(hw6core.__file__).parent
MODULES = sorted(
    ".".join(("hw6core", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("[!.]*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = import_module(name)
    outcome = doctest.testmod(module, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert outcome.failed == 0


def test_every_public_name_exists_and_has_an_example() -> None:
    assert set(hw6core.__all__) < set(dir(hw6core))
    public = {name: getattr(hw6core, name) for name in hw6core.__all__ if name != "data"}
    lacking = [name for name, thing in public.items() if ">>>" not in (inspect.getdoc(thing) or "")]
    assert lacking == []
