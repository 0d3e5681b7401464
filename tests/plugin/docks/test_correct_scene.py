"""The shipped model learns from one click on each of two kinds, in three images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin.layers.images.visibility import bring_into_sight
from napari_svpseg.workflows.correct_image import split_by_agreement
from napari_svpseg.workflows.segment_image import segment

WEIGHTS = Path(__file__).parents[3] / "weights" / "svp"
SIDE = 176
WANTED, OTHER, FAINT = 190.0, 120.0, 80.0
RADIUS = {WANTED: 8, OTHER: 11, FAINT: 8}
NAMES = ("a", "b", "c")


def drawn(seed):
    """Return an image of three kinds of discs, and the spots of each.

    The corner where the box is drawn has the wanted kind only.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.full((SIDE, SIDE), 30.0)
    grid = [
        (row, column) for row in range(18, 160, 28) for column in range(18, 160, 28)
    ]
    spots = {kind: [] for kind in RADIUS}
    for n, (row, column) in enumerate(grid):
        mixed = (WANTED, WANTED, OTHER, FAINT)[(n + seed) % 4]
        kind = mixed if max(row, column) > 64 else WANTED
        at = row + rng.integers(-2, 3), column + rng.integers(-2, 3)
        image[np.hypot(y - at[0], x - at[1]) <= RADIUS[kind]] = kind
        spots[kind].append((int(at[0]), int(at[1])))
    return (image + rng.normal(0, 5, image.shape)).astype(np.float32), spots


@pytest.fixture
def scene(viewer, open_dock, runner, finish, qtbot):
    """Return the dock after a run on three images, and functions on its results."""

    def shipped(emit, report, *args, **settings):
        return segment(*args, **settings | {"model": WEIGHTS})

    def check(emit, report, before, examples, model, settings):
        return split_by_agreement(before, examples, WEIGHTS, settings)

    runner.pretend |= {"segment": shipped, "split_by_agreement": check}
    scenes = {name: drawn(seed) for seed, name in enumerate(NAMES)}
    for name, (image, _) in scenes.items():
        viewer.add_image(image, name=name)
    bring_into_sight(viewer, viewer.layers["a"])
    dock = open_dock()
    dock.image_panel.select(viewer.layers["a"])
    dock.run_settings.set_values({"trust": False})
    source = dock.source_of(viewer.layers["a"])
    image, spots = scenes["a"]
    box = Box(0, 0, 64)
    item = dock.book.place(source, (), box)
    dock.book.add_paint_layer(item, (image[box.slices] > 155).astype(int))
    dock.run.click()
    finish(dock)

    def found(kind):
        """Return the share of a kind that is found in each image."""
        return [
            np.mean([viewer.layers[f"{n} [svpseg]"].data[s] > 0 for s in seen[kind]])
            for n, (_, seen) in scenes.items()
        ]

    def follow():
        qtbot.waitUntil(lambda: not dock.correct.controller.follow.is_busy)

    assert found(WANTED) == found(OTHER) == [1, 1, 1]
    assert found(FAINT) == [0, 0, 0]
    return dock.correct.controller, source, spots, found, follow


def test_one_click_on_a_wrong_object_removes_its_kind_from_three_images(scene):
    correct, source, spots, found, follow = scene
    correct.not_this(source, (), [spots[OTHER][-1]])
    follow()
    assert max(found(OTHER)) <= 0.2 and found(WANTED) == [1, 1, 1]


def test_one_click_on_a_missed_object_finds_its_kind_in_three_images(scene):
    correct, source, spots, found, follow = scene
    point = spots[FAINT][-1]
    patches, best = correct.propose(source, (), point)
    correct.this_too(source, (), patches[best].on_plane((SIDE, SIDE)) > 0)
    follow()
    assert min(found(FAINT)) >= 0.8 and found(WANTED) == [1, 1, 1]
