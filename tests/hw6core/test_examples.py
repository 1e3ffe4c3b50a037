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


def test_the_reason_for_a_broken_import_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> object:
        raise AttributeError("partially initialized module 'torchvision' has no attribute 'extension'")

    monkeypatch.setattr(hw6core, "import_module", broken)
    with pytest.raises(ImportError, match=r"^cannot import hw6core.models: partially initialized module 'torchvision'"):
        from hw6core import UNet  # noqa: F401
