"""Layers of a session go back on their images, by id and file, not by name."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers._source import layer_source

from napari_svpseg.core.prompt import UNKNOWN
from napari_svpseg.io.session import Session, crashed_sessions
from napari_svpseg.plugin.layers.images.image_source import ImageSource
from napari_svpseg.plugin.layers.metadata import METADATA_KEY, is_of, metadata_of
from napari_svpseg.plugin.layers.prompts.mask_layers import mask_layer
from napari_svpseg.plugin.layers.results.corrected import (
    KEY,
    NO_CORRECTION,
    corrected_entries,
    from_entries,
)
from napari_svpseg.plugin.services.restoring import (
    DAMAGED_CORRECTIONS,
    put_back,
    read_contents,
)
from napari_svpseg.plugin.services.session_layers import (
    add_boxes,
    add_contents,
    add_labels,
    boxes_entry,
    changed_images,
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


def opened(viewer, file, name):
    """Return an image layer that says that it was opened from a file."""
    with layer_source(path=str(file)):
        return viewer.add_image(np.zeros((40, 50)), name=name)


def test_layers_go_back_on_the_image_that_they_were_on(tmp_path):
    file = tmp_path / "a.tif"
    viewer = ViewerModel()
    viewer.add_image(np.ones((40, 50)), name="DAPI")  # made, so it has no file
    image = opened(viewer, file, "cells")
    image.scale, image.units = (-0.5, 0.5), ("um", "um")
    source = ImageSource.of(image, "YX")
    mask = mask_layer(viewer, source)
    boxes = viewer.add_shapes(
        ndim=2,
        metadata={METADATA_KEY: source.entry("boxes")},
        **source.placement(),
    )
    boxes.add_rectangles([np.array([[3, 3], [3, 20], [20, 20], [20, 3]])])
    boxes.features = {"id": np.array(["one"], object)}
    viewer.layers[0].name = "other"
    image.name, viewer.layers[0].name = "DAPI", "cells"
    state = saved(viewer, image, mask, boxes)

    restored = ViewerModel()
    other = restored.add_image(np.ones((40, 50)), name="cells")
    again = opened(restored, file, "renamed")
    assert open_images(restored, state) == []  # both are open
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


def test_an_image_that_was_replaced_since_is_named(tmp_path):
    paths = [tmp_path / f"{n}.tif" for n in range(3)]
    for path in paths:
        path.write_text("old")
    entries = [{"name": p.name, "path": str(p)} for p in paths]
    entries.append({"name": "drawn", "path": ""})
    known: dict[str, str] = {}
    add_contents(entries, known)
    assert changed_images({"images": entries}) == []
    paths[0].write_text("new")
    paths[1].unlink()  # is told of as one that cannot be opened
    add_contents(entries, known)  # as it was when it was opened
    assert changed_images({"images": entries}) == ["0.tif"]
    earlier = [{"name": "a", "path": str(paths[2])}]  # of an earlier version
    assert changed_images({"images": earlier}) == []


def corrected_image():
    """Return the entries of an image in which an object was added."""
    fixed = np.full((40, 50), UNKNOWN, np.int32)
    fixed[5:9, 5:9] = 1
    layer = ViewerModel().add_image(np.zeros((40, 50)), metadata={KEY: {(): fixed}})
    return json.loads(json.dumps(corrected_entries(layer)))


@pytest.mark.parametrize(
    "damage",
    [{"size": [4, 4]}, {"size": None}, {"y": -1}, {"lengths": [3]}, {"ids": "x"}],
)
def test_damaged_corrections_are_refused(damage):
    (entry,) = corrected_image()
    assert (from_entries([entry])[()] == 1).sum() == 16
    part = entry if damage.keys() <= entry.keys() else entry["patch"]
    part.update(damage)
    with pytest.raises(ValueError, match=re.escape(NO_CORRECTION)):
        from_entries([entry])


def test_damaged_corrections_are_told_and_the_rest_comes_back(tmp_path):
    viewer = ViewerModel()
    viewer.add_image(np.zeros((40, 50)), name="cells")
    state = {"images": [image_entry(viewer.layers[0])], "labels": [], "boxes": []}
    good, bad = state["images"][0], dict(state["images"][0])
    good["corrected"], bad["corrected"] = corrected_image(), [{"plane": "x"}]
    bad["name"] = bad["id"] = "other"
    viewer.add_image(np.zeros((40, 50)), name="other")
    session = Session(tmp_path)
    session.write_state(state | {"images": [bad, good]})
    session._lock.release()  # as the system does for a killed process
    (kept,), _ = crashed_sessions(tmp_path)
    put_back(viewer, read_contents(kept), None, lambda labels: None)
    assert (viewer.layers["cells"].metadata[KEY][()] == 1).sum() == 16
    assert KEY not in viewer.layers["other"].metadata
    assert kept.problems == [DAMAGED_CORRECTIONS.format(name="other")]
