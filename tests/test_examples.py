"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
import types
from pathlib import Path

import napari.layers
import numpy as np
import pytest

import napari_svpseg

PACKAGE = Path(napari_svpseg.__file__).parent
MODULES = [
    ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]
GIVEN = {"np": np, "Image": napari.layers.Image}
"""What examples need not import."""


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_are_right(name: str) -> None:
    module = importlib.import_module(name.removesuffix(".__init__"))
    result = doctest.testmod(module, extraglobs=GIVEN)
    assert not result.failed


def test_there_are_examples() -> None:
    assert len(MODULES) > 40


def test_a_wrong_example_is_found() -> None:
    module = types.ModuleType("planted", ">>> np.add(1, 1)\n3\n")
    assert doctest.testmod(module, extraglobs=GIVEN, report=False).failed
