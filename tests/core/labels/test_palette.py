"""Colours that stand out from an image and from each other."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_svpseg.core.labels.palette import contrasting_colors, main_colors

IMAGES = {
    "fluorescence": [(0.0, 0.0, 0.0), (0.3, 0.3, 0.3)],
    "tissue": [(0.93, 0.88, 0.92), (0.86, 0.62, 0.78), (0.55, 0.35, 0.62)],
    "phase contrast": [(0.55, 0.55, 0.55)],
    "nothing known": [],
}


@pytest.mark.parametrize("name", IMAGES)
def test_colours_stand_out_from_the_image_and_from_each_other(name):
    image = np.array(IMAGES[name]).reshape(-1, 3)
    colors = contrasting_colors(image)
    assert colors.shape == (48, 3) and len(np.unique(colors, axis=0)) > 40
    lab = rgb2lab(colors)
    for one in rgb2lab(image) if len(image) else ():
        assert deltaE_ciede2000(lab, one[None]).min() > 20
    for i in range(8):
        others = np.delete(lab[:8], i, axis=0)
        assert deltaE_ciede2000(others, lab[i][None]).min() > 14
    np.testing.assert_array_equal(colors, contrasting_colors(image))


def test_colours_are_bright_on_dark_images():
    dark = np.array(IMAGES["fluorescence"])
    assert rgb2lab(contrasting_colors(dark))[:8, 0].min() > 45


def test_main_colors_pass_over_rare_ones():
    pixels = np.array([(0.1, 0.1, 0.1)] * 60 + [(0.9, 0.2, 0.9)] * 39 + [(1.0, 1, 0)])
    np.testing.assert_allclose(main_colors(pixels), [[0.1] * 3, [0.9, 0.2, 0.9]])
