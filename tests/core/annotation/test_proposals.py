"""A click on a missed object proposes its outline."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_svpseg.core.annotation.corrections import OUTSIDE, CorrectionError
from napari_svpseg.core.annotation.proposals import OBJECT_THERE, propose_object
from napari_svpseg.core.labels.metrics import iou
from napari_svpseg.core.result import Maps, ObjectProperties


def faint(scene, height: float) -> Maps:
    """Return maps in which all discs are seen, but far below the threshold."""
    blurred = ndimage.gaussian_filter((scene.labels > 0).astype(np.float32), 1)
    return Maps(height * blurred, objects=ObjectProperties(15.0))


@pytest.mark.parametrize("height", [0.45, 0.2, 0.0])
def test_the_outline_is_that_of_the_object(disc_scene, height):
    maps, nothing = faint(disc_scene, height), np.zeros((96, 96), np.uint32)
    for point, label in (((20, 24), 1), ((66, 22), 3), ((45, 49), 5)):
        found = propose_object(maps, nothing, point, disc_scene.image)
        assert iou(found.mask, disc_scene.labels == label) > 0.7
        assert all(mask[point] for mask in found.masks)
        areas = [int(mask.sum()) for mask in found.masks]
        assert areas == sorted(areas)


def test_without_an_image_or_any_hint_a_disc_is_proposed():
    nothing = np.zeros((96, 96), np.uint32)
    maps = Maps(np.zeros((96, 96), np.float32), objects=ObjectProperties(20.0))
    (mask,) = propose_object(maps, nothing, (5, 90)).masks
    assert mask[5, 90]
    assert 100 < mask.sum() < 320


def test_objects_of_the_result_are_no_part_of_it(disc_scene):
    labels = np.zeros((96, 96), np.uint32)
    labels[:, :24] = 1
    found = propose_object(faint(disc_scene, 0.4), labels, (20, 27), disc_scene.image)
    assert not any((mask & (labels > 0)).any() for mask in found.masks)


def test_a_click_beside_the_image_or_on_an_object_is_refused(disc_scene, pattern):
    maps = faint(disc_scene, 0.4)
    with pytest.raises(CorrectionError, match=pattern(OBJECT_THERE)):
        propose_object(maps, disc_scene.labels, (20, 24))
    with pytest.raises(CorrectionError, match=pattern(OUTSIDE)):
        propose_object(maps, disc_scene.labels, (-3, 24))
