"""Take the screenshots of docs/large-images.md in a real napari window.

Run from the repository: ``python scripts/screenshots_large.py`` with a display, or
under ``xvfb-run -a -s "-screen 0 1400x900x24"``. The large image is the sample of
nuclei laid side by side, which needs the package ``stardist`` (``pip install --no-deps
stardist``).
"""

from __future__ import annotations

import argparse
import os
import tempfile

import numpy as np
from own_home import own_home
from screenshots_segment import Studio

from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin import samples


def mosaic(tile: np.ndarray, side: int) -> np.ndarray:
    """Return a square image of copies that mirror each other."""
    pair = np.concatenate([tile, tile[:, ::-1]], axis=1)
    block = np.concatenate([pair, pair[::-1]])
    n = -(-side // min(block.shape))
    return np.tile(block, (n, n))[:side, :side]


@own_home()
def main() -> None:
    """Take all screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2560)
    side = parser.parse_args().side
    studio = Studio("Segment from prompts")
    viewer, dock = studio.viewer, studio.dock
    studio.wait(lambda: "Starting" not in dock.device_line.text(), 90)
    (image, *_), (labels, *_) = samples.nuclei()[:2]
    whole = mosaic(image, side)
    levels = [whole[::n, ::n] for n in (1, 2, 4)]
    slide = viewer.add_image(levels, name="slide", scale=(0.5, 0.5), units="um")
    masks = mosaic(labels, side)
    viewer.add_labels(masks, name="nuclei labels", scale=(0.5, 0.5), units="um")
    dock.book.place(dock.source_of(slide), (), Box(262, 66))
    viewer.layers["nuclei labels"].visible = False
    viewer.reset_view()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the screenshots show short paths
        dock.large.limit.setValue(4)
        dock.large.folder.setText("results")
        dock.sections["large"].expand(animate=False)
        studio.wait()
        dock.run.click()
        total = (-(-side // 1024)) ** 2
        studio.wait(lambda: dock.progress.value() >= 0.6 * total, 400)
        studio.shoot("large-1-filling")
        studio.wait(lambda: not dock.is_busy, 400)
        studio.wait(seconds=1)
        scene = viewer.scene
        scene.camera.zoom, scene.camera.center = 4, (0, side / 8, side / 8)
        studio.wait(seconds=1)
        dock.large.edit.click()
        studio.wait(seconds=1)
        part = viewer.layers["slide [svpseg] edit"]
        viewer.layers["slide [svpseg]"].visible = False
        part.mode, part.brush_size = "paint", 20
        studio.shoot("large-2-edit")
        dock.large.edit.click()
        studio.wait()
        dock.engine.close()
        viewer.close()
        os.chdir("/")


if __name__ == "__main__":
    main()
