"""Take the screenshots of docs/fine-tune.md in a real napari window.

Run from the repository: ``python scripts/screenshots_finetune.py`` with a display, or
under ``xvfb-run -a -s "-screen 0 1400x900x24"``. Needs the package ``stardist`` for its
image of nuclei (``pip install --no-deps stardist``).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from own_home import own_home
from PIL import Image
from qtpy.QtWidgets import QApplication
from scipy import ndimage

from napari_svpseg.core.jobs.finetune_job import PRESETS
from napari_svpseg.plugin import samples
from napari_svpseg.plugin.docks.finetune_controller import VALIDATION
from napari_svpseg.plugin.docks.finetune_dock import FineTuneWidget
from napari_svpseg.plugin.layers.labels.partial_label_layers import paint_layer

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def wait(until: Callable[[], bool] | None = None, seconds: float = 1.0) -> None:
    """Let Qt work until something is true, or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (until and until()):
        QApplication.processEvents()
        time.sleep(0.01)


def shoot(viewer: napari.Viewer, name: str) -> None:
    """Save a screenshot of the window."""
    wait()
    image = viewer.screenshot(canvas_only=False, flash=False)
    small = Image.fromarray(image[..., :3]).quantize(256)
    small.save(IMAGES / f"fine-tune-{name}.png", optimize=True)


def paint(dock: FineTuneWidget, labels: np.ndarray) -> None:
    """Paint a few nuclei, and what is around them."""
    dock.label_panel.paint_cell.click()
    layer = paint_layer(dock.viewer, dock.label_panel.source())
    chosen = np.unique(labels[labels > 0])[::4][:12]
    for n, label in enumerate(chosen, start=2):
        layer.data_setitem(np.nonzero(labels == label), n)
    far = ndimage.distance_transform_edt(labels == 0)
    near = ndimage.distance_transform_edt(~np.isin(labels, chosen)) < 9
    around = near & (far > 2)
    layer.data_setitem(np.nonzero(around), 1)


@own_home()
def main() -> None:
    """Take all screenshots."""
    PRESETS["quick"]["seconds"] = 900.0  # a busy machine would cut it short
    viewer = napari.Viewer()
    _, dock = viewer.window.add_plugin_dock_widget("napari-svpseg", "Fine-tune")
    viewer.window.resize(1280, 860)
    for data, meta, kind in samples.nuclei():
        if kind != "shapes":
            getattr(viewer, f"add_{kind}")(data, **meta)
    viewer.layers["nuclei labels"].visible = False
    viewer.reset_view()
    paint(dock, np.asarray(viewer.layers["nuclei labels"].data))
    shoot(viewer, "1-paint")
    dock.label_panel.add.click()
    wait(lambda: bool(dock.training_set.entries), 20)
    dock.start_button.click()
    curves = dock.curves.points
    wait(lambda: len(curves.get(VALIDATION, ([], []))[0]) >= 3, 300)
    shoot(viewer, "2-train")
    wait(lambda: not dock.is_busy, 300)
    dock.compare.look.click()
    wait(lambda: not dock.compare.is_busy, 120)
    dock.scroll_area.ensureWidgetVisible(dock.compare)
    shoot(viewer, "3-after")
    dock.engine.close()
    viewer.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_SVPSEG_HOME"] = home
        main()
