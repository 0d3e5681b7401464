"""A training set only grows, is written whole, and names what is damaged."""

from __future__ import annotations

import errno
import json
import os
import re

import numpy as np
import pytest

from napari_svpseg.core.annotation.partial_labels import (
    WRONG_SIZE,
    PartialLabelError,
    from_labels,
)
from napari_svpseg.core.image import ImageError
from napari_svpseg.io.atomic import REASONS, WriteError
from napari_svpseg.io.training_set import (
    BAD_NAME,
    CANNOT_CREATE,
    DAMAGED,
    NEWER_VERSION,
    NO_READABLE_LABELS,
    NOT_ONE_PLANE,
    NOTHING_LABELLED,
    OTHER_IMAGE,
    UNREADABLE,
    TrainingSet,
    TrainingSetError,
)


@pytest.fixture
def training(tmp_path):
    return TrainingSet(tmp_path / "set")


@pytest.fixture
def partial(disc_scene):
    return from_labels(disc_scene.labels, [(0, 0, 48, 48)])


def test_what_was_added_comes_back(training, disc_scene, partial):
    assert training.entries() == [] and len(training) == 0
    entry = training.add("a", disc_scene.image, partial, source="a.tif", channels=(0,))
    (found,) = training.entries()
    assert found == entry
    assert np.array_equal(found.image(), disc_scene.image)
    assert np.array_equal(found.labels(), partial)
    assert found.used and found.validation is None and found.channels == (0,)
    assert found.counts["n_objects"] == 2 and found.counts["background"] > 1000


def test_every_version_of_labels_is_kept(training, disc_scene, partial):
    training.add("a", disc_scene.image, partial)
    more = from_labels(disc_scene.labels)
    entry = training.add("a", disc_scene.image, more, validation=True)
    assert (entry.version, entry.n_versions, entry.validation) == (2, 2, True)
    (found,) = training.entries()
    assert np.array_equal(found.labels(), more)
    assert np.array_equal(found.labels(version=1), partial)
    again = training.add("a", disc_scene.image, more)  # the same: no new version
    assert again.n_versions == 2


def test_another_image_under_the_same_name_is_refused(
    training, disc_scene, partial, pattern
):
    training.add("a", disc_scene.image, partial)
    with pytest.raises(TrainingSetError, match=pattern(OTHER_IMAGE, name="a")):
        training.add("a", disc_scene.image + 1, partial)
    assert np.array_equal(training.entry("a").image(), disc_scene.image)


def test_used_and_validation_are_stored(training, disc_scene, partial, pattern):
    training.add("a", disc_scene.image, partial)
    training.set_used("a", False)
    training.set_validation("a", True)
    (found,) = TrainingSet(training.folder).entries()
    assert not found.used and found.validation is True
    assert len(training) == 1  # still there
    with pytest.raises(
        TrainingSetError, match=pattern(DAMAGED, folder=training.folder / "b")
    ):
        training.set_used("b", True)


def test_colours_and_channel_planes(training, disc_scene, partial):
    rgb = np.stack([disc_scene.image] * 3, axis=-1).astype(np.uint8)
    training.add("rgb", rgb, partial, rgb=True)
    training.add("planes", np.moveaxis(rgb, -1, 0), partial, axes="CYX")
    found = {e.name: e for e in training.entries()}
    assert found["rgb"].axes == found["planes"].axes == "YXC" and found["rgb"].rgb
    assert np.array_equal(found["planes"].image(), rgb)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../up", "a\\b"])
def test_odd_names_are_refused(training, disc_scene, partial, name, pattern):
    with pytest.raises(TrainingSetError, match=pattern(BAD_NAME, name=name)):
        training.add(name, disc_scene.image, partial)


def test_labels_that_do_not_fit_are_refused_and_nothing_is_written(
    training, disc_scene, partial, pattern
):
    message = pattern(WRONG_SIZE, name="a", labels="95 x 96", image="96 x 96")
    with pytest.raises(PartialLabelError, match=message):
        training.add("a", disc_scene.image, partial[1:])
    with pytest.raises(TrainingSetError, match=pattern(NOTHING_LABELLED, name="a")):
        training.add("a", disc_scene.image, 0 * partial)
    with pytest.raises(TrainingSetError, match=pattern(NOT_ONE_PLANE, axes="ZYX")):
        training.add("a", disc_scene.image[None], partial, axes="ZYX")
    with pytest.raises(ImageError):
        training.add("a", disc_scene.image, partial, axes="ZYX")
    assert not training.folder.exists()


def with_channels(path, channels):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"channels": channels}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "entry.json").write_text("{"), DAMAGED),
        (lambda f: (f / "entry.json").write_text("[1]"), DAMAGED),
        (lambda f: (f / "entry.json").write_text("[" * 99_999), DAMAGED),
        (lambda f: with_channels(f / "entry.json", "x"), DAMAGED),
        (lambda f: with_channels(f / "entry.json", []), DAMAGED),
        (lambda f: with_channels(f / "entry.json", {}), DAMAGED),
        (lambda f: (f / "entry.json").write_text('{"format": 9}'), NEWER_VERSION),
        (lambda f: (f / "entry.json").write_text('{"format": 1}'), DAMAGED),
        (lambda f: (f / "entry.json").unlink(), DAMAGED),
        (lambda f: (f / "image.tif").write_bytes(b"II*"), UNREADABLE),
        (lambda f: (f / "labels-0001.tif").write_bytes(b""), NO_READABLE_LABELS),
        (lambda f: (f / "labels-0001.tif").unlink(), NO_READABLE_LABELS),
    ],
)
def test_a_damaged_entry_is_named_and_skipped(
    training, disc_scene, partial, spoil, message, pattern
):
    training.add("bad", disc_scene.image, partial)
    training.add("good", disc_scene.image, partial)
    spoil(training.folder / "bad")
    assert [e.name for e in training.entries()] == ["good"]
    (line,) = training.problems
    bad = training.folder / "bad"
    assert re.fullmatch(pattern(message, folder=bad, path=bad / "image.tif"), line)


def test_damaged_labels_fall_back_to_the_previous_version(
    training, disc_scene, partial
):
    training.add("a", disc_scene.image, partial)
    training.add("a", disc_scene.image, from_labels(disc_scene.labels))
    (training.folder / "a" / "labels-0002.tif").write_bytes(b"half a file")
    (found,) = training.entries()
    assert found.version == 1 and np.array_equal(found.labels(), partial)


def test_a_write_that_fails_leaves_what_was_there(
    training, disc_scene, partial, monkeypatch
):
    training.add("a", disc_scene.image, partial)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tifffile.imwrite", full)
    with pytest.raises(WriteError, match=REASONS[errno.ENOSPC]):
        training.add("a", disc_scene.image, from_labels(disc_scene.labels))
    with pytest.raises(WriteError, match=REASONS[errno.ENOSPC]):
        training.add("b", disc_scene.image, partial)
    monkeypatch.undo()
    (found,) = training.entries()
    assert found.name == "a" and np.array_equal(found.labels(), partial)
    assert sorted(os.listdir(training.folder)) == ["a"]


def test_a_place_where_no_folder_can_be_made_is_named(
    tmp_path, disc_scene, partial, pattern
):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(WriteError, match=pattern(CANNOT_CREATE)):
        TrainingSet(tmp_path / "file" / "set").add("a", disc_scene.image, partial)
