"""What is missing before one can train with tags, and what makes them better."""

from __future__ import annotations

import pytest

from napari_svpseg.plugin.layers.images.tagged_image import TaggedImage
from napari_svpseg.plugin.panels.tags import tag_advice as advice
from napari_svpseg.plugin.panels.tags.tag_advice import (
    CAN_TRAIN,
    tag_advice,
    tag_problem,
)
from napari_svpseg.plugin.panels.tags.tag_set import TagSet


@pytest.fixture
def tagged():
    """Return a function that tags three images."""

    def make(classes, tags, n=3):
        made = TagSet()
        images = [TaggedImage(name, name) for name in ("one", "two", "three")[:n]]
        made.show(images, tags, tuple(classes))
        return made

    return make


@pytest.mark.parametrize(
    "classes, tags, problem",
    [
        ("", {}, advice.NO_CLASSES),
        ("ab", {}, advice.NO_TAGS),
        ("a", {"one": "a"}, advice.ONE_TAG),
        ("ab", {"one": "a", "two": ""}, advice.UNUSED_CLASS.format("b")),
        ("ab", {"one": "ab", "two": "ab"}, advice.ALL_ALIKE),
        ("ab", {"one": "b", "two": "a"}, ""),
        ("a", {"one": "a", "two": ""}, ""),
    ],
)
def test_a_problem_says_what_is_missing(tagged, classes, tags, problem):
    assert tag_problem(tagged(classes, tags)) == problem


def test_without_images_there_is_nothing_to_tag(tagged):
    assert tag_problem(tagged("ab", {}, n=0)) == advice.NO_IMAGES


@pytest.mark.parametrize(
    "classes, tags, better",
    [
        ("ab", {"one": "ab", "two": "a"}, advice.COMMON_CLASS.format("a")),
        ("ab", {"one": "ab", "two": ""}, advice.NEVER_ALONE.format("'a' or 'b'")),
        ("ab", {"one": "b", "two": "a"}, advice.UNTAGGED.format(1)),
    ],
)
def test_advice_says_what_makes_tags_better(tagged, classes, tags, better):
    assert tag_advice(tagged(classes, tags)) == better + CAN_TRAIN


def test_good_tags_need_no_advice(tagged):
    assert tag_advice(tagged("ab", {"one": "b", "two": "a", "three": "a"})) == ""
