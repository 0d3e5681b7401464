"""Results in memory: what is written is recorded before it is drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_svpseg.core.geometry import Tile
from napari_svpseg.core.result import Maps, Recipe, Result
from napari_svpseg.plugin.layers.images.image_source import ImageSource
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.results.journal import Journal
from napari_svpseg.plugin.layers.results.result_layers import Results, recipe_of
from napari_svpseg.plugin.layers.results.run_layers import RunLayers
from napari_svpseg.plugin.layers.results.run_step import Step
from napari_svpseg.plugin.layers.results.stored_results import StoredResults
from napari_svpseg.plugin.layers.results.written_labels import is_untouched, write_ids


class DrawingFails(Exception):
    """Raised by napari, or by another plugin that listens to it."""


def fail(event=None):
    raise DrawingFails


def outcome(shape, first: int, threshold: float) -> Result:
    """Return a result of two objects whose ids need more than 8 bits."""
    labels = np.zeros(shape, np.uint32)
    labels[..., 2:6, 2:6] = first
    labels[..., 10 : 10 + first % 7, 10:14] = first + 1
    recipe = Recipe("svp", postprocess={"threshold": threshold})
    return Result(labels, Maps(labels.astype(np.float32)), 0.9, recipe, 0.1)


@pytest.fixture
def results(viewer):
    return Results(viewer, Journal())


@pytest.fixture
def layers(viewer, results, qapp):
    stored = StoredResults(viewer, results.journal)
    yield RunLayers(viewer, results, stored)
    stored.close()


def source_on(viewer, shape=(40, 50), **options) -> ImageSource:
    image = viewer.add_image(np.zeros(shape, np.float32), name="cells", **options)
    return ImageSource.of(image, "TYX"[-len(shape) :])


def hide_image(viewer, source, step):
    source.layer.visible = False


def hide_result(viewer, source, step):
    if step:
        layer = viewer.layers["cells [svpseg]"]
        layer.visible = False


def hide_and_move(viewer, source, step):
    hide_result(viewer, source, step)
    viewer.dims.set_point(0, step)


def move(viewer, source, step):
    viewer.dims.set_point(0, 1 + step)


def reorder_and_rename(viewer, source, step):
    if step:
        viewer.layers.move(1, 0)
        viewer.layers[0].name = source.layer.name = "another"


def show_in_3d(viewer, source, step):
    viewer.dims.ndisplay = 3


@pytest.mark.parametrize(
    ("disturb", "shape"),
    [
        (hide_image, (40, 50)),
        (hide_result, (40, 50)),
        (reorder_and_rename, (40, 50)),
        (hide_and_move, (3, 40, 50)),
        (move, (3, 40, 50)),
        (show_in_3d, (3, 40, 50)),
    ],
)
def test_a_second_run_is_written_whole_and_undone(viewer, results, disturb, shape):
    source = source_on(viewer, shape)
    plane = (0,) if len(shape) == 3 else None
    found = [outcome(shape[-2:], 300, 0.5), outcome(shape[-2:], 70_001, 0.7)]
    shown = []
    for step, result in enumerate(found):
        disturb(viewer, source, step)
        labels = result.labels.copy()  # the layer takes this array as its own
        layer, remark = results.show(source, plane, labels, result=result)
        assert remark == "" and is_untouched(layer)
        shown.append(np.array(layer.data))
        now = layer.data[source.companion.index(plane)]
        assert np.array_equal(now.squeeze(), result.labels)
        assert recipe_of(layer).postprocess == result.recipe.postprocess
    assert len(results.journal.edits) == 2
    results.journal.undo()
    assert np.array_equal(layer.data, shown[0]) and is_untouched(layer)
    assert recipe_of(layer).postprocess == {"threshold": 0.5}
    layer.visible = True
    results.journal.undo()
    assert layer not in viewer.layers


def test_a_write_that_cannot_be_drawn_is_recorded(viewer, results):
    source = source_on(viewer)
    first, second = outcome((40, 50), 300, 0.5), outcome((40, 50), 301, 0.7)
    layer, _ = results.show(source, None, first.labels.copy(), result=first)
    layer.events.set_data.connect(fail)
    with pytest.raises(DrawingFails):
        results.show(source, None, second.labels, result=second)
    assert np.array_equal(layer.data, second.labels) and is_untouched(layer)
    assert recipe_of(layer).postprocess == {"threshold": 0.7}
    with pytest.raises(DrawingFails):
        results.journal.undo()
    assert np.array_equal(layer.data, first.labels) and is_untouched(layer)
    assert recipe_of(layer).postprocess == {"threshold": 0.5}
    layer.events.set_data.disconnect(fail)
    results.journal.undo()  # nothing is left to write
    assert np.array_equal(layer.data, first.labels)
    assert len(results.journal.edits) == 1


def test_a_failing_listener_of_napari_takes_no_record(viewer, results):
    source = source_on(viewer)
    first, second = outcome((40, 50), 300, 0.5), outcome((40, 50), 301, 0.7)
    layer, _ = results.show(source, None, first.labels.copy(), result=first)
    layer.events.paint.connect(fail)
    with pytest.raises(DrawingFails):
        results.show(source, None, second.labels, result=second)
    is_old = np.array_equal(layer.data, first.labels)
    threshold = recipe_of(layer).postprocess["threshold"]
    assert is_untouched(layer) and threshold == (0.5 if is_old else 0.7)
    assert len(results.journal.edits) == (1 if is_old else 2)
    layer.events.paint.disconnect(fail)


def test_other_options_are_recorded_before_they_are_drawn(viewer, results):
    source = source_on(viewer)
    first, second = outcome((40, 50), 300, 0.5), outcome((40, 50), 301, 0.7)
    layer, _ = results.show(source, None, first.labels.copy(), result=first)
    results.keep(layer, source, None, first)
    (kept,) = results.planes_of(layer)
    layer.events.set_data.connect(fail)
    with pytest.raises(DrawingFails):
        results.show_again(kept, second.labels, {"threshold": 0.7})
    assert is_untouched(layer)
    assert recipe_of(layer).postprocess == {"threshold": 0.7}
    assert len(results.journal.edits) == 2
    layer.events.set_data.disconnect(fail)


def test_a_new_layer_is_recorded_before_it_is_shown(viewer, results):
    source = source_on(viewer)
    first = outcome((40, 50), 300, 0.5)
    viewer.layers.events.inserted.connect(fail)
    with pytest.raises(DrawingFails):
        results.show(source, None, first.labels.copy(), result=first)
    viewer.layers.events.inserted.disconnect(fail)
    (layer,) = [la for la in viewer.layers if metadata_of(la, "labels")]
    assert is_untouched(layer) and recipe_of(layer) is not None
    results.journal.undo()
    assert layer not in viewer.layers


def test_a_layer_that_never_came_is_forgotten(viewer, results):
    source = source_on(viewer)
    first = outcome((40, 50), 300, 0.5)
    viewer.layers.events.inserting.connect(fail)
    with pytest.raises(DrawingFails):
        results.show(source, None, first.labels.copy(), result=first)
    viewer.layers.events.inserting.disconnect(fail)
    assert results.journal.edits == [] and len(viewer.layers) == 1


def test_a_result_counts_although_its_map_is_not_shown(viewer, layers, monkeypatch):
    source = source_on(viewer)
    monkeypatch.setattr(layers.results, "show_map", lambda *_: fail())
    with pytest.raises(DrawingFails):
        layers.show(Step(source, None), outcome((40, 50), 300, 0.5), ("probability",))
    assert layers.shown_result(source.layer).kept is not None


def test_a_preview_is_recorded_before_it_is_drawn(viewer, results):
    source = source_on(viewer)
    tile = Tile(0, 40, 0, 50)
    first, second = outcome((40, 50), 300, 0.5), outcome((40, 50), 301, 0.7)
    mine = replace(first, labels=first.labels.copy())  # becomes the layer's own
    layer = results.show_preview(source, (), tile, mine)
    layer.visible = False
    assert results.show_preview(source, (), tile, second) == layer
    assert np.array_equal(layer.data, second.labels) and is_untouched(layer)
    layer.visible = True
    layer.events.set_data.connect(fail)
    with pytest.raises(DrawingFails):
        results.show_preview(source, (), tile, first)
    assert np.array_equal(layer.data, first.labels) and is_untouched(layer)
    layer.events.set_data.disconnect(fail)


def test_ids_of_layers_that_never_were_visible_are_not_cut(viewer):
    layer = viewer.add_labels(np.zeros((4, 5), np.uint32), visible=False)
    new = np.full((4, 5), 70_001, np.uint32)
    assert write_ids(layer, (slice(0, 4), slice(0, 5)), new) == 20
    assert np.array_equal(layer.data, new)
