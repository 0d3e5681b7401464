"""Layers of a session go back on their images, by id and file, not by name."""

from __future__ import annotations

import json

import numpy as np
import tifffile
from napari.components import ViewerModel

from napari_svpseg.plugin.layers.images.image_source import ImageSource
from napari_svpseg.plugin.layers.metadata import METADATA_KEY, is_of, metadata_of
from napari_svpseg.plugin.layers.prompts.mask_layers import mask_layer
from napari_svpseg.plugin.services.session_layers import (
    add_boxes,
    add_labels,
    boxes_entry,
    image_entry,
    labels_entry,
    open_images,
)


def saved(viewer, image, mask, boxes):
    """Return the state of a session, as JSON gives it back."""
    entry = boxes_entry(boxes)
    state = {
        "images": [image_entry(la) for la in viewer.layers if metadata_of(la) is None],
        "labels": [labels_entry(mask, "0")],
        "boxes": [entry],
    }
    return json.loads(json.dumps(state))


def test_layers_go_back_on_the_image_that_they_were_on(tmp_path):
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, np.zeros((40, 50), np.uint8), photometric="minisblack")
    viewer = ViewerModel()
    viewer.add_image(np.ones((40, 50)), name="DAPI")  # made, so it has no file
    (image,) = viewer.open(file, plugin="napari", name="cells")
    image.scale, image.units = (-0.5, 0.5), ("um", "um")
    source = ImageSource.of(image, "YX")
    mask = mask_layer(viewer, source)
    boxes = viewer.add_shapes(
        ndim=2,
        metadata={METADATA_KEY: source.entry("boxes")},
        **source.placement(),
    )
    boxes.add_rectangles([np.array([[3, 3], [3, 20], [20, 20], [20, 3]])])
    viewer.layers[0].name = "other"
    image.name, viewer.layers[0].name = "DAPI", "cells"
    state = saved(viewer, image, mask, boxes)

    restored = ViewerModel()
    other = restored.add_image(np.ones((40, 50)), name="cells")
    assert open_images(restored, state) == []  # the made one is open
    again = restored.layers["DAPI"]
    assert again.source.path == str(file)
    painted = add_labels(restored, state["labels"][0], np.ones((40, 50), np.uint16))
    add_boxes(restored, state)
    for layer in (painted, restored.layers[-1]):
        assert is_of(layer, again) and not is_of(layer, other)
        np.testing.assert_allclose(
            layer.data_to_world((30, 7)), image.data_to_world((30, 7))
        )
        assert [str(u) for u in layer.units] == ["micrometer"] * 2
    assert open_images(restored, state) == []  # nothing twice
    assert len(restored.layers) == 4
