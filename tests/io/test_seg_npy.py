"""NumPy files as labels: arrays, Cellpose's, and pickles that are refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from napari_svpseg.core.image import ImageError
from napari_svpseg.io.images import read_image
from napari_svpseg.io.mask_files import read_mask

IDS = np.arange(20, dtype=np.uint16).reshape(4, 5)


class Harmful:
    """Makes a file when it is unpickled by ordinary means."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_labels_of_cellpose(tmp_path):
    values = {
        "masks": IDS, "outlines": IDS * 0, "filename": "a.tif", "est_diam": 18.0,
        "flows": [np.zeros((3, 4, 5)), [np.float32(1.5), "text", None]],
        "colors": np.zeros((19, 3), np.uint8), "ismanual": np.zeros(19, bool),
        "chan_choose": [0, np.int64(0)], "normalize_params": {"lowhigh": None},
        "zdraw": np.array([None, 1], object),
    }  # fmt: skip
    np.save(tmp_path / "a_seg.npy", values)
    np.testing.assert_array_equal(read_mask(tmp_path / "a_seg.npy"), IDS)
    with pytest.raises(ImageError):  # as an image they are not what is meant
        read_image(tmp_path / "a_seg.npy")


def test_a_plain_array_is_read(tmp_path):
    np.save(tmp_path / "a.npy", IDS)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.npy"), IDS)


@pytest.mark.parametrize("place", ["beside", "masks"])
def test_nothing_of_a_pickle_is_run(tmp_path, place):
    target = tmp_path / "made"
    bad = Harmful(target)
    values = {"masks": IDS, "beside": bad} if place == "beside" else {"masks": bad}
    np.save(tmp_path / "a_seg.npy", values)
    with pytest.raises(ImageError) as caught:
        read_mask(tmp_path / "a_seg.npy")
    assert not target.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [{"a": 1}, {"masks": [1, 2]}, [1, 2], None])
def test_other_pickles_are_refused(tmp_path, values):
    np.save(tmp_path / "a.npy", np.array(values, object), allow_pickle=True)
    with pytest.raises(ImageError):
        read_mask(tmp_path / "a.npy")


def test_labels_of_older_and_edited_sessions(tmp_path):
    """The first versions had -1 as background, and stacks of one plane."""
    masks = np.zeros((1, 9, 8), np.int32)
    masks[0, 2:5, 3:6] = 7
    values = {"masks": masks - 1, "filename": Path("day 1") / "a.tif"}
    np.save(tmp_path / "a_seg.npy", values)
    np.testing.assert_array_equal(read_mask(tmp_path / "a_seg.npy"), masks[0])
