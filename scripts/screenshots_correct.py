"""Take the screenshots of docs/correct.md in a real napari window.

Run from the repository: ``python scripts/screenshots_correct.py`` with a display, or
under ``xvfb-run -a -s "-screen 0 1400x900x24"``.
"""

from __future__ import annotations

import numpy as np
from own_home import own_home
from screenshots_segment import Studio

from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin.layers.images.visibility import bring_into_sight

SIDE = 320
WANTED, OTHER, FAINT = 190.0, 120.0, 70.0
"""Intensities of cells, of another kind of cells, and of cells that are missed."""


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of three kinds of discs, and labels of the brightest."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    image, labels = np.full((SIDE, SIDE), 30.0), np.zeros((SIDE, SIDE), int)
    spots: list[np.ndarray] = []
    while len(spots) < 40:
        spot = rng.integers(16, SIDE - 16, 2)
        if all(np.hypot(*(spot - other)) > 30 for other in spots):
            spots.append(spot)
    for n, (row, column) in enumerate(spots, start=1):
        is_other = n % 3 == 0
        disc = np.hypot(y - row, x - column) <= (11 if is_other else 8)
        is_faint = n % 7 == 1 and not is_other
        image[disc] = OTHER if is_other else FAINT if is_faint else WANTED
        if not is_other and not is_faint:
            labels[disc] = n
    return (image + rng.normal(0, 5, image.shape)).astype(np.float32), labels


def best_box(labels: np.ndarray) -> Box:
    """Return the box with the most objects."""
    corners = [(y, x) for y in range(0, SIDE - 64, 8) for x in range(0, SIDE - 64, 8)]
    return Box(*max(corners, key=lambda c: np.unique(labels[Box(*c).slices]).size), 64)


@own_home()
def main() -> None:
    """Take all screenshots."""
    studio = Studio("Segment from prompts")
    viewer, dock = studio.viewer, studio.dock
    studio.wait(lambda: "Starting" not in dock.device_line.text(), 120)
    correct = dock.correct

    def follow() -> None:
        studio.wait(lambda: not correct.controller.follow.is_busy, 240)

    scenes = {name: scene(n) for n, name in enumerate(("day 1", "day 2", "day 3"))}
    for name, (image, _) in reversed(scenes.items()):
        viewer.add_image(image, name=name)
    viewer.add_labels(scenes["day 1"][1], name="painted", visible=False)
    bring_into_sight(viewer, viewer.layers["day 1"])
    dock.image_panel.select(viewer.layers["day 1"])
    source = dock.source_of(viewer.layers["day 1"])
    dock.book.place(source, (), best_box(scenes["day 1"][1]))
    viewer.reset_view()
    studio.run(dock.run)
    dock.scroll_area.verticalScrollBar().setValue(0)

    found = viewer.layers["day 1 [svpseg]"].data.copy()
    image, labels = scenes["day 1"]
    wrong = np.argwhere((labels == 0) & (found > 0) & (np.abs(image - OTHER) < 9))
    missed = np.argwhere((found == 0) & (np.abs(image - FAINT) < 3))
    correct.next_place.click()
    studio.wait(lambda: correct.answers.isVisibleTo(correct), 60)
    studio.shoot("correct-3-doubtful")
    correct.guide.drop()
    bring_into_sight(viewer, viewer.layers["day 1"])  # the question may be in another
    dock.image_panel.select(viewer.layers["day 1"])
    viewer.reset_view()
    correct.not_this.click()
    point = tuple(float(v) for v in wrong[len(wrong) // 2])
    correct.controller.not_this(source, (), [point])
    follow()
    studio.shoot("correct-1-not-this")
    correct.this_too.click()
    spot = tuple(float(v) for v in missed[len(missed) // 2])
    proposed = correct.controller.propose(source, (), spot)
    correct.this_too_tool.offer(source, (), *proposed)
    studio.shoot("correct-2-this-too")
    dock.engine.close()
    viewer.close()


if __name__ == "__main__":
    main()
