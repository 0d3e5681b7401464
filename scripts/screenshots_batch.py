"""Take the screenshots of docs/batch.md in a real napari window.

Run from the repository: ``python scripts/screenshots_batch.py``, with a display or
under ``xvfb-run -a -s "-screen 0 1400x900x24"``. Needs the package ``stardist`` for its
image of nuclei (``pip install --no-deps stardist``).
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import napari
import numpy as np
import tifffile
from own_home import own_home
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.io.prompt_files import save_prompts
from napari_svpseg.plugin import samples

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SIDE, STEP = 220, 73


def cut_images(folder: Path) -> Path:
    """Cut the image of nuclei into a folder of images; return a prompt file."""
    (image, _, _), (labels, _, _) = samples.nuclei()[:2]
    n = 0
    for y in range(0, image.shape[0] - SIDE + 1, STEP):
        for x in range(0, image.shape[1] - SIDE + 1, STEP):
            n += 1
            part = np.asarray(image)[y : y + SIDE, x : x + SIDE]
            tifffile.imwrite(folder / f"well_{n:02}.tif", part)
    (folder / "well_03.tif").write_bytes(b"a copy that was broken off")
    prompt = Prompt.from_image(image, labels, (262, 66), name="nuclei")
    return save_prompts(PromptSet([prompt]), "nuclei.svprompt")


def wait(until: object, seconds: float) -> None:
    """Let Qt work until something is true, or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (until and until()):
        QApplication.processEvents()
        time.sleep(0.01)


def shoot(viewer: napari.Viewer, name: str) -> None:
    """Save a screenshot of the window."""
    wait(None, 0.6)
    image = viewer.screenshot(canvas_only=False, flash=False)
    small = Image.fromarray(image[..., :3]).quantize(256)
    small.save(IMAGES / f"{name}.png", optimize=True)


@own_home()
def main() -> None:
    """Take all screenshots."""
    viewer = napari.Viewer()
    _, dock = viewer.window.add_plugin_dock_widget("napari-svpseg", "Batch")
    viewer.window.resize(1280, 860)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)  # the screenshots show short paths
        folder = Path("plate 1")
        folder.mkdir()
        prompts = cut_images(folder)
        wait(None, 2)
        shoot(viewer, "batch-1-empty")
        dock.set_folder(str(folder))
        dock.load_prompts(str(prompts))
        dock.formats["rois"].setChecked(True)
        dock.formats["csv"].setChecked(True)
        dock.start.click()
        wait(lambda: dock.files.count("done") > 6, 120)
        shoot(viewer, "batch-2-running")
        dock.stop.click()
        wait(lambda: not dock.is_busy, 20)
        shoot(viewer, "batch-3-stopped")
        dock.start.click()
        wait(lambda: not dock.is_busy, 240)
        dock.open_file(4)
        viewer.reset_view()
        dock.table.selectRow(4)
        shoot(viewer, "batch-4-done")
        print(dock.message.text())
        os.chdir(IMAGES)
    dock.engine.close()
    viewer.close()


if __name__ == "__main__":
    main()
