"""The shipped model learns from one click on each of two kinds, in three images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin.layers.images.visibility import bring_into_sight
from napari_svpseg.workflows.correct_image import split_by_agreement
from napari_svpseg.workflows.segment_image import segment

WEIGHTS = Path(__file__).parents[3] / "weights" / "svp"
SIDE, STEP = 128, 28
WANTED, OTHER, FAINT = 200, 120, 80
"""Intensities; the unwanted kind lies between the two that are wanted."""
RADIUS = {WANTED: 8, OTHER: 11, FAINT: 8}
NAMES = ("a", "b", "c")


def drawn(seed):
    """Return an image of three kinds of discs, and the spots of each."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.full((SIDE, SIDE), 30.0)
    spots = {kind: [] for kind in RADIUS}
    centres = range(20, SIDE - 18, STEP)
    for n, (row, column) in enumerate((r, c) for r in centres for c in centres):
        in_box = max(row, column) < 64
        kind = WANTED if in_box else (WANTED, OTHER, WANTED, FAINT)[(n + seed) % 4]
        at = tuple(int(c + rng.integers(-2, 3)) for c in (row, column))
        image[np.hypot(y - at[0], x - at[1]) <= RADIUS[kind]] = kind
        spots[kind].append(at)
    return (image + rng.normal(0, 5, image.shape)).astype(np.float32), spots


@pytest.fixture
def shipped(runner):
    """Have the jobs of the dock done by the shipped model."""

    def run(emit, report, *args, **settings):
        return segment(*args, **settings | {"model": WEIGHTS})

    def check(emit, report, before, examples, model, settings):
        return split_by_agreement(before, examples, WEIGHTS, settings)

    runner.pretend |= {"segment": run, "split_by_agreement": check}


def test_one_click_for_each_kind_corrects_three_images(
    dock_without_window, shipped, finish, qtbot
):
    viewer = ViewerModel()
    scenes = {name: drawn(seed) for seed, name in enumerate(NAMES)}
    for name, (image, _) in scenes.items():
        viewer.add_image(image, name=name)
    dock = dock_without_window(viewer)
    bring_into_sight(viewer, viewer.layers["a"])
    dock.image_panel.select(viewer.layers["a"])
    dock.run_settings.set_values({"trust": False})
    source, (image, spots) = dock.source_of(viewer.layers["a"]), scenes["a"]
    box = Box(0, 0, 64)
    dock.book.add_paint_layer(
        dock.book.place(source, (), box),
        (image[box.slices] > (WANTED + OTHER) / 2).astype(int),
    )
    dock.run.click()
    finish(dock)
    correct = dock.correct.controller

    def found():
        """Return the share of each kind that is found, the least and the most."""
        shares = {}
        for kind in RADIUS:
            in_each = [
                np.mean([viewer.layers[f"{name} [svpseg]"].data[at] > 0 for at in seen])
                for name, seen in ((n, spots[kind]) for n, (_, spots) in scenes.items())
            ]
            shares[kind] = min(in_each), max(in_each)
        return shares

    def follow():
        qtbot.waitUntil(lambda: not correct.follow.is_busy)

    everything, nothing = (1, 1), (0, 0)
    assert found() == {WANTED: everything, OTHER: everything, FAINT: nothing}
    correct.not_this(source, (), [spots[OTHER][-1]])
    follow()
    assert found() == {WANTED: everything, OTHER: nothing, FAINT: nothing}
    patches, best = correct.propose(source, (), spots[FAINT][-1])
    correct.this_too(source, (), patches[best].on_plane(image.shape) > 0)
    follow()
    assert found() == {WANTED: everything, OTHER: nothing, FAINT: everything}
