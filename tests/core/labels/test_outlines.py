"""Outlines are filled as scikit-image fills polygons."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import polygon

from napari_svpseg.core.labels.outlines import fill, outlines


def fill_by_scikit_image(rings, shape):
    """Return the pixels whose centre lies inside an odd number of rings."""
    inside = np.zeros(shape, bool)
    for ring in rings:
        # pixel centres are whole numbers there, corners of pixels are here
        y, x = np.asarray(ring, float).T - 0.5
        inside[polygon(y, x, shape)] ^= True
    return inside


@pytest.mark.parametrize("seed", range(20))
def test_outlines_with_holes(seed):
    noise = np.random.default_rng(seed).normal(size=(60, 70))
    labels = ndimage.label(ndimage.gaussian_filter(noise, 1.5) > -0.05)[0]
    found = outlines(labels)
    assert max(len(outline.rings) for outline in found) > 3
    for outline in found:
        inside = fill(outline.rings, labels.shape)
        assert np.array_equal(inside, labels == outline.label)
        assert np.array_equal(inside, fill_by_scikit_image(outline.rings, labels.shape))


@pytest.mark.parametrize("seed", range(50))
def test_polygons_of_any_real_corners(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 60, 2))
    rings = [rng.uniform(-10, 70, (rng.integers(3, 12), 2)) for _ in range(3)]
    inside = fill(rings, shape)
    assert np.array_equal(inside, fill_by_scikit_image(rings, shape))
