"""Channels chosen by number or name."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_svpseg.core.image import ImageError
from napari_svpseg.io.channel_choice import (
    NO_NAMES,
    NO_SUCH_CHANNEL,
    OTHER_PLACES,
    channel_numbers,
)


def image(path, *names):
    pixels = np.zeros((max(len(names), 2), 9, 8), np.uint8)
    metadata = {"axes": "CYX", "Channel": {"Name": list(names)}} if names else {}
    tifffile.imwrite(path, pixels, metadata=metadata, photometric="minisblack")
    return path


def test_names_and_numbers_of_channels(tmp_path):
    a = image(tmp_path / "a.ome.tif", "DAPI", "GFP", "405")
    b = image(tmp_path / "b.ome.tif", "DAPI", "gfp", "x")
    assert channel_numbers(["gfp", "DAPI"], [a, b]) == (1, 0)
    assert channel_numbers(["GFP", "2"], [a]) == (1, 2)
    assert channel_numbers(["405", "GFP"], [a]) == (2, 1)
    # no file is opened for numbers
    assert channel_numbers(["0", "2"], [tmp_path / "none.tif"]) == (0, 2)


def test_names_that_do_not_fit_are_refused(tmp_path, pattern):
    a = image(tmp_path / "a.ome.tif", "DAPI", "GFP")
    b = image(tmp_path / "b.ome.tif", "GFP", "DAPI")
    for paths, words, message in (
        ([a], ["RFP"], NO_SUCH_CHANNEL),
        ([a, b], ["GFP"], OTHER_PLACES),
        ([image(tmp_path / "c.tif")], ["GFP"], NO_NAMES),
    ):
        with pytest.raises(ImageError, match=pattern(message)):
            channel_numbers(words, paths)
