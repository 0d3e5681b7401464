"""Take the screenshots of docs/segment.md in a real napari window.

Run from the repository: ``python scripts/screenshots_segment.py`` with a display, or
under ``xvfb-run -a -s "-screen 0 1400x900x24"``. Needs the package ``stardist`` for its
image of nuclei (``pip install --no-deps stardist``).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import napari
import numpy as np
from own_home import own_home
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin import samples

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


class Studio:
    """A viewer with a dock, and a camera.

    Parameters
    ----------
    widget : str
        Name of the dock.
    """

    def __init__(self, widget: str) -> None:
        self.viewer = napari.Viewer()
        _, self.dock = self.viewer.window.add_plugin_dock_widget(
            "napari-svpseg", widget
        )
        self.viewer.window.resize(1280, 860)

    def wait(self, until: object = None, seconds: float = 0.4) -> None:
        """Let Qt work until something is true, or the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (until and until()):
            QApplication.processEvents()
            time.sleep(0.01)

    def open(self, layers: list[samples.LayerData]) -> None:
        """Show other layers."""
        self.viewer.layers.clear()
        for data, meta, kind in layers:
            getattr(self.viewer, f"add_{kind}")(data, **meta)
        self.viewer.reset_view()
        self.wait()

    def run(self, button: object) -> None:
        """Press a button and wait for the engine."""
        button.click()
        self.wait(lambda: not self.dock.is_busy, 120)
        self.wait()

    def shoot(self, name: str) -> None:
        """Save a screenshot of the window."""
        self.wait()
        image = self.viewer.screenshot(canvas_only=False, flash=False)
        small = Image.fromarray(image[..., :3]).quantize(256)
        small.save(IMAGES / f"{name}.png", optimize=True)


@own_home()
def main() -> None:
    """Take all screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="svp")
    studio = Studio("Segment from prompts")
    viewer, dock = studio.viewer, studio.dock
    dock.refresh_models(parser.parse_args().model)
    studio.wait(lambda: "Starting" not in dock.device_line.text(), 60)

    layers = samples.nuclei()
    studio.open([layer for layer in layers if layer[2] != "shapes"])
    studio.wait(dock.draw.isChecked, 5)
    studio.shoot("segment-1-draw")
    source = dock.source_of(viewer.layers["nuclei"])
    dock.prompt_panel.tool.stop()
    item = dock.book.place(source, (), Box(262, 66))
    studio.shoot("segment-2-prompt")
    studio.run(dock.preview)
    dock.sections["options"].expand(animate=False)
    studio.run(dock.run)
    studio.shoot("segment-3-result")
    dock.sections["options"].collapse(animate=False)
    viewer.layers.remove("nuclei labels")
    dock.paint.click()
    viewer.layers["nuclei [svpseg]"].visible = False
    labels = layers[1][0]
    inside = labels[item.box.slices]
    for n, label in enumerate([i for i in np.unique(inside) if i], start=1):
        item.mask_layer.data_setitem(np.nonzero(labels == label), n)
    studio.wait(seconds=0.6)
    studio.shoot("segment-4-paint")

    studio.open(samples.stained_tissue())
    studio.run(dock.run)
    studio.shoot("segment-5-tissue")
    results = dock.results_panel
    results.styles["outline"].click()
    results.open_objects.click()
    studio.wait(lambda: "solidity" in results.objects.rows.names, 60)
    results.objects.filter.low.setValue(150)
    studio.wait(seconds=1)
    studio.shoot("segment-7-objects")
    dock.engine.close()
    viewer.close()


if __name__ == "__main__":
    main()
