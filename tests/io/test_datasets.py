"""Folders of the data form."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_svpseg.io.datasets import (
    BAD_CLASSES,
    BAD_KIND,
    BAD_SCALE,
    NO_CLASSES,
    NO_DESCRIPTION,
    NO_LABELLED_IMAGE,
    NOT_TOML,
    DatasetError,
    read_dataset,
)


def folder(tmp_path, toml: str):
    for part in ("images", "labels", "ignore"):
        (tmp_path / part).mkdir()
    for name in "ab":
        tifffile.imwrite(
            tmp_path / "images" / f"{name}.tif", np.full((9, 8), 3, np.uint8)
        )
        tifffile.imwrite(
            tmp_path / "labels" / f"{name}.tif", np.ones((9, 8), np.uint16)
        )
    tifffile.imwrite(tmp_path / "images" / "c.tif", np.zeros((9, 8), np.uint8))
    tifffile.imwrite(tmp_path / "ignore" / "b.tif", np.ones((9, 8), np.uint8))
    (tmp_path / "dataset.toml").write_text(toml)
    return tmp_path


def test_only_labelled_images_count(tmp_path):
    data = read_dataset(folder(tmp_path, 'name = "cells"\nkind = "instance"'))
    assert (data.name, data.kind, data.ids) == ("cells", "instance", ("a", "b"))
    assert data.image("a").mean() == 3
    assert data.labels("b").max() == 1
    assert data.ignore("a") is None
    assert data.ignore("b").all()


@pytest.mark.parametrize(
    ("text", "factor"),
    [
        ("0.25", 0.25),
        ('"reduce by 4"', 0.25),
        ('"enlarge by 2 to 4"', 2.0),
        ('"as is"', 1.0),
        ('"as is or reduce by 2"', 1.0),
    ],
)
def test_the_scale_is_a_factor(tmp_path, text, factor):
    data = read_dataset(folder(tmp_path, f'kind = "instance"\nscale = {text}'))
    assert data.scale == factor


def test_classes_of_a_semantic_set(tmp_path):
    toml = 'kind = "semantic"\n[classes]\n0 = "rest"\n2 = "two"\n1 = "one"'
    assert read_dataset(folder(tmp_path, toml)).classes == {1: "one", 2: "two"}


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("kind = ", NOT_TOML),
        ('kind = "other"', BAD_KIND),
        ('kind = "semantic"', NO_CLASSES),
        ('kind = "semantic"\n[classes]\none = "nuclei"', BAD_CLASSES),
        ("scale = 0", BAD_SCALE),
        ('scale = "reduce by 0"', BAD_SCALE),
    ],
)
def test_a_wrong_description_is_named(tmp_path, toml, message, pattern):
    known = {"folder": tmp_path, "path": tmp_path / "dataset.toml"}
    with pytest.raises(DatasetError, match=pattern(message, **known)):
        read_dataset(folder(tmp_path, toml))


def test_a_folder_that_is_no_data_set_is_named(tmp_path, pattern):
    with pytest.raises(DatasetError, match=pattern(NO_DESCRIPTION, folder=tmp_path)):
        read_dataset(tmp_path)
    (tmp_path / "dataset.toml").write_text('kind = "instance"')
    with pytest.raises(DatasetError, match=pattern(NO_LABELLED_IMAGE, folder=tmp_path)):
        read_dataset(tmp_path)
