"""Results on the disk: the labels of `large`, seen while they are made, and kept."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest

from napari_svpseg.core.jobs.stored_labels import Filled, StoredLabels, work_folder
from napari_svpseg.core.progress import Cancelled
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.core.result import Recipe
from napari_svpseg.core.settings import PostprocessSettings, SegmentSettings
from napari_svpseg.io.atomic import WriteError
from napari_svpseg.io.ome_zarr import open_image
from napari_svpseg.io.zarr_labels import (
    PLANE_NOT_LAST,
    TIME_NOT_FIRST,
    open_level,
    read_labels_metadata,
)
from napari_svpseg.workflows import segment_live
from napari_svpseg.workflows.large_tasks import NOT_FITTED
from napari_svpseg.workflows.segment_large import segment_zarr
from napari_svpseg.workflows.segment_live import NO_ROOM, segment_stored

SMALL = {
    "settings": SegmentSettings(tile=64, overlap=32, scale_objects=False),
    "postprocess": PostprocessSettings(min_area=5),
}


def field(shape):
    """Return an image of discs, some of which touch, and its labels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for i in range(shape[0] * shape[1] // 500):
        cy, cx, r = *(rng.random(2) * shape), rng.uniform(5, 9)
        labels[((y - cy) ** 2 + (x - cx) ** 2 <= r**2) & (labels == 0)] = i + 1
    image = 20 + 150 * (labels > 0) + rng.normal(0, 4, shape)
    return image.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(autouse=True)
def two_levels(monkeypatch):
    """Let a small image have a pyramid."""
    monkeypatch.setattr("napari_svpseg.io.zarr_labels.SMALLEST_LEVEL", 100)


@pytest.fixture(scope="module")
def scene():
    image, labels = field((110, 180))
    return image, PromptSet([Prompt.from_image(image, labels, (40, 60))])


def run(scene, store, model, query=None, **more):
    image, prompts = scene
    return segment_stored(
        image if query is None else query,
        prompts,
        store,
        str(model),
        **{"axes": "YX", "image": "a", "block": 64} | SMALL | more,
    )


def levels(outcome):
    return [np.asarray(open_level(outcome.folder, n)[:]) for n in range(outcome.levels)]


def test_the_labels_are_those_of_a_run_from_file_to_file(scene, tiny_model, tmp_path):
    import zarr

    image, prompts = scene
    told = []
    done = run(
        scene,
        tmp_path / "a.zarr",
        tiny_model,
        da.from_array(image, chunks=50),
        on_partial=told.append,
        scale={"Y": 0.5, "X": 0.5},
        unit="um",
    )
    zarr.create_array(tmp_path / "i.zarr", data=image)
    same = segment_zarr(
        tmp_path / "i.zarr",
        prompts,
        tmp_path / "b.zarr",
        tiny_model,
        workers=0,
        block=64,
        **SMALL,
    )
    full, half = levels(done)
    assert np.array_equal(full, np.asarray(open_image(same.labels).array[:]))
    assert np.array_equal(half, full[::2, ::2])
    assert done.objects == same.objects == full.max() > 3
    assert isinstance(told[0], StoredLabels) and told[0].folder == done.folder
    parts = np.zeros(image.shape, int)
    for part in told[1:]:
        assert isinstance(part, Filled)
        parts[part.window] += 1
    assert (parts == 1).all()
    kept = open_image(done.folder)
    assert (kept.scale, kept.unit) == ({"Y": 0.5, "X": 0.5}, "um")
    stamp = read_labels_metadata(tmp_path / "a.zarr", "cells")
    assert stamp["state"] == "done" and Recipe(**stamp["recipe"]).model
    assert not work_folder(tmp_path / "a.zarr").exists()


def test_a_stopped_run_shows_what_it_has_and_goes_on(scene, tiny_model, tmp_path):
    whole = levels(run(scene, tmp_path / "a.zarr", tiny_model))[0]
    seen = []

    def stop_after_three(part):
        seen.append(part)
        if len(seen) == 4:
            raise Cancelled

    store = tmp_path / "b.zarr"
    with pytest.raises(Cancelled):
        run(scene, store, tiny_model, on_partial=stop_after_three)
    label = open_level(store)
    for part in seen[1:]:  # objects are there, under ids of their own
        same = (label[part.window] > 0) == (whole[part.window] > 0)
        assert same.mean() > 0.98 and label[part.window].any()  # some are too small
    tables = list(work_folder(store).glob("tables/*"))
    before = {path: path.stat().st_mtime_ns for path in tables}
    assert len(before) == 3
    looked = []

    def look(part):
        looked.append(all(p.stat().st_mtime_ns == t for p, t in before.items()))

    again = run(scene, store, tiny_model, on_partial=look)
    assert np.array_equal(levels(again)[0], whole) and all(looked)


def test_other_settings_begin_anew(scene, tiny_model, tmp_path):
    store = tmp_path / "a.zarr"
    run(scene, store, tiny_model)
    outcome = run(scene, store, tiny_model, postprocess=PostprocessSettings(0.7, 5))
    assert outcome.recipe["postprocess"]["threshold"] == 0.7
    kept = read_labels_metadata(store, "cells")["recipe"]
    assert kept["postprocess"]["threshold"] == 0.7


def test_stacks_with_channels(scene, tiny_model, tmp_path):
    image, _ = scene
    planes = np.stack([image[:60, :70], image[10:70, 5:75]])
    query = np.stack([planes, 255 - planes], axis=1)
    _, labels = field((110, 180))
    both = np.stack([image, 255 - image], axis=2)
    prompts = PromptSet([Prompt.from_image(both, labels, (40, 60), rgb=False)])
    outcome = run(
        (image, prompts),
        tmp_path / "a.zarr",
        tiny_model,
        query,
        axes="ZCYX",
        scale={"Z": 3.0, "Y": 0.5, "X": 0.5},
    )
    found = levels(outcome)[0]
    assert found.shape == (2, 60, 70) and all(plane.any() for plane in found)
    two = [set(np.unique(plane[plane > 0])) for plane in found]
    assert not two[0] & two[1]
    assert open_image(outcome.folder).scale == {"Z": 3.0, "Y": 0.5, "X": 0.5}


def test_colour(tiny_model, tmp_path):
    grey, labels = field((70, 80))
    image = np.stack([grey, 255 - grey, grey // 2], axis=-1)
    prompts = PromptSet([Prompt.from_image(image, labels, (2, 3))])
    outcome = run(
        (image, prompts),
        tmp_path / "a.zarr",
        tiny_model,
        axes="YXC",
        rgb=True,
        settings=replace(SMALL["settings"], refine=5),
    )
    found = levels(outcome)[0]
    assert found.shape == (70, 80) and found.any()
    assert NOT_FITTED in outcome.notes


def test_a_full_disk_is_told_and_costs_nothing(
    scene, tiny_model, tmp_path, monkeypatch, pattern
):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10_000))
        with pytest.raises(WriteError, match=pattern(NO_ROOM, folder=tmp_path)):
            run(scene, tmp_path / "a.zarr", tiny_model)
    assert not (tmp_path / "a.zarr").exists()
    write, calls = segment_live.write_window, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(segment_live, "write_window", full)
        with pytest.raises(WriteError, match=r"a\.zarr: "):
            run(scene, tmp_path / "a.zarr", tiny_model)
    again = run(scene, tmp_path / "a.zarr", tiny_model)
    whole = run(scene, tmp_path / "b.zarr", tiny_model)
    assert np.array_equal(levels(again)[0], levels(whole)[0])


def test_axes_that_cannot_be_shown_are_refused(scene, tiny_model, tmp_path, pattern):
    with pytest.raises(ValueError, match=pattern(PLANE_NOT_LAST, axes="YXZ")):
        run(scene, tmp_path / "a.zarr", tiny_model, axes="YXZ")
    stack = np.stack([np.stack([scene[0]] * 2)] * 2)
    with pytest.raises(ValueError, match=pattern(TIME_NOT_FIRST, axes="ZTYX")):
        run(scene, tmp_path / "a.zarr", tiny_model, stack, axes="ZTYX")


def test_on_a_cpu_one_tile_is_predicted_at_a_time(
    scene, tiny_model, tmp_path, monkeypatch
):
    predict, sizes = segment_live.predict_part, []

    def watched(work, key, p, places):
        sizes.append(len(places))
        predict(work, key, p, places)

    monkeypatch.setattr(segment_live, "predict_part", watched)
    cpu = replace(SMALL["settings"], device="cpu")
    run(scene, tmp_path / "a.zarr", tiny_model, settings=cpu)
    assert len(sizes) > 3 and set(sizes) == {1}
