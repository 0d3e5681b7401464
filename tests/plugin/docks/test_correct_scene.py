"""The shipped model learns from one click on each of two kinds, in three images."""

from __future__ import annotations

import numpy as np

from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin.layers.images.visibility import bring_into_sight
from napari_svpseg.workflows.correct_image import split_by_agreement
from napari_svpseg.workflows.segment_image import segment

SIDE = 176
WANTED, OTHER, FAINT = 190.0, 120.0, 70.0
RADIUS = {WANTED: 8, OTHER: 11, FAINT: 8}
NAMES = ("a", "b", "c")


def drawn(seed):
    """Return an image of three kinds of discs, and the spots of each."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.full((SIDE, SIDE), 30.0)
    grid = [
        (row, column) for row in range(18, 160, 28) for column in range(18, 160, 28)
    ]
    spots = {kind: [] for kind in RADIUS}
    for n, (row, column) in enumerate(grid):
        kind = (WANTED, WANTED, OTHER, FAINT)[(n + seed) % 4]
        at = row + rng.integers(-2, 3), column + rng.integers(-2, 3)
        image[np.hypot(y - at[0], x - at[1]) <= RADIUS[kind]] = kind
        spots[kind].append((int(at[0]), int(at[1])))
    return (image + rng.normal(0, 5, image.shape)).astype(np.float32), spots


def test_one_click_for_each_kind_corrects_three_images(
    viewer, open_dock, runner, finish, qtbot
):
    runner.pretend["segment"] = lambda emit, report, *a, **k: segment(*a, **k)
    runner.pretend["split_by_agreement"] = lambda emit, report, *a: split_by_agreement(
        *a
    )
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
    correct = dock.correct.controller

    def share(kind):
        """Return the least share of a kind that is found in an image."""
        return [
            np.mean([viewer.layers[f"{n} [svpseg]"].data[s] > 0 for s in seen[kind]])
            for n, (_, seen) in scenes.items()
        ]

    def follow():
        qtbot.waitUntil(lambda: not correct.follow.is_busy)

    assert min(share(WANTED)) == 1 and min(share(OTHER)) > 0.8
    correct.not_this(source, (), [spots[OTHER][-1]])
    follow()
    assert max(share(OTHER)) <= 0.2 and min(share(WANTED)) == 1
    assert max(share(FAINT)) <= 0.2
    patches, best = correct.propose(source, (), spots[FAINT][-1])
    outline = patches[best].on_plane(image.shape) > 0
    correct.this_too(source, (), outline)
    follow()
    assert min(share(FAINT)) >= 0.8 and min(share(WANTED)) == 1
    assert max(share(OTHER)) <= 0.2
