"""Classes and tags: adding, renaming, removing, and undo."""

from __future__ import annotations

import re

import pytest

from napari_svpseg.plugin.layers.images.tagged_image import TaggedImage
from napari_svpseg.plugin.panels.tags.tag_set import (
    BAD_NAME,
    MAX_CLASSES,
    NO_NAME,
    TAKEN_NAME,
    TOO_MANY_CLASSES,
    TagSet,
)


@pytest.fixture
def tags():
    """Return tags of six images, none of which is tagged yet, with two classes."""
    made = TagSet()
    made.show([TaggedImage(f"{i}.png", f"{i}.png") for i in range(6)], {}, "ab")
    return made


def test_a_renamed_class_keeps_its_tags(tags):
    tags.toggle([0, 1], 0)
    tags.rename_class(0, "gland")
    assert tags.classes == ("gland", "b")
    assert tags.rows() == {"0.png": ("gland",), "1.png": ("gland",)}
    tags.rename_class(0, "Gland")  # only its case
    assert tags.classes == ("Gland", "b")


def test_a_removed_class_comes_back(tags):
    tags.toggle([0, 1], 0)
    tags.toggle([1], 1)
    tags.remove_class(0)
    assert tags.classes == ("b",) and tags.rows() == {"1.png": ("b",)}
    assert tags.undo()
    assert tags.classes == ("a", "b")
    assert tags.rows() == {"0.png": ("a",), "1.png": ("a", "b")}


@pytest.mark.parametrize(
    "name, problem",
    [
        ("", NO_NAME),
        ("  ", NO_NAME),
        ("a", TAKEN_NAME),
        ("A", TAKEN_NAME),
        ("x,y", BAD_NAME),
        ('x"y', BAD_NAME),
        ("#x", BAD_NAME),
    ],
)
def test_names_that_cannot_be(tags, name, problem):
    with pytest.raises(ValueError, match=re.escape(problem.format(name))):
        tags.add_class(name)
    assert tags.classes == ("a", "b")


def test_there_are_as_many_classes_as_digits(tags):
    for i in range(MAX_CLASSES - 2):
        tags.add_class(f"more {i}")
    with pytest.raises(ValueError, match=TOO_MANY_CLASSES):
        tags.add_class("too many")


def test_tags_of_unknown_classes_are_kept(tags):
    tags.show(tags.images, {"0.png": ("a", "odd")}, ("a",))
    assert tags.rows() == {"0.png": ("a", "odd")}
