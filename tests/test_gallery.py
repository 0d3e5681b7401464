"""The gallery of the docs is what its script makes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_svpseg.core.labels.metrics import f1
from napari_svpseg.core.prompt import prompt_hash
from napari_svpseg.io.prompt_files import load_prompts

TOP = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", TOP / "scripts/gallery.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def test_pictures_and_prompts_are_made_by_the_script(gallery):
    page = (TOP / "docs" / "gallery.md").read_text("utf-8")
    assert len(gallery.ENTRIES) == 5
    for entry in gallery.ENTRIES:
        place = gallery.FOLDER / entry.name
        image = entry.picture()
        np.testing.assert_array_equal(np.asarray(Image.open(f"{place}.png")), image)
        (prompt,) = load_prompts(f"{place}.svprompt")
        made = entry.prompt(image)
        np.testing.assert_array_equal(prompt.mask, made.mask)
        np.testing.assert_allclose(prompt.image, made.image, rtol=1e-5)
        assert prompt.n_objects >= 3 and prompt_hash(prompt)
        for end in (".svprompt", ".png", "_labels.png"):
            assert f"(gallery/{entry.name}{end})" in page
    held = {p.name for p in gallery.FOLDER.iterdir()}
    assert len(held) == 15


def test_the_result_of_one_is_the_expected_one(gallery):
    (entry,) = (e for e in gallery.ENTRIES if e.name == "rods")
    expected = np.asarray(Image.open(gallery.FOLDER / "rods_labels.png"))
    _, _, labels = gallery.found(entry)
    assert f1(labels.astype(np.int32), expected.astype(np.int32)) > 0.95
    assert np.mean((labels > 0) != (expected > 0)) < 0.005
