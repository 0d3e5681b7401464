"""Take screenshots of all docks in a small window, with a large font, in both themes.

Run from the repository: ``python scripts/screenshots_docks.py FOLDER`` with a display,
or under ``xvfb-run -a -s "-screen 0 1280x720x24"``; with ``QT_SCALE_FACTOR=2`` in the
environment as on a screen of high density. With ``--docs`` those of the docs are kept.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import napari
from napari.settings import get_settings
from own_home import own_home
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_svpseg.plugin import samples
from napari_svpseg.plugin.docks.tabs import (
    BATCH,
    FINETUNE,
    SEGMENT,
    TRAIN_FROM_TAGS,
    bring_to_front,
    show_dock,
)

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SIZE = (1280, 720)
FONT_SIZE = 14
TITLES = (SEGMENT, BATCH, FINETUNE, TRAIN_FROM_TAGS)
IN_DOCS = {
    ("segment-dark", "1"): "docks-segment-dark",
    ("segment-light", "1"): "docks-segment-light",
    ("segment-dark", "2"): "docks-segment-dense",
}
"""Names in the docs, by dock and theme and ``QT_SCALE_FACTOR``."""
RUN_SECONDS = 120


@own_home()
def main() -> None:
    """Take all screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    appearance = get_settings().appearance
    appearance.font_size = FONT_SIZE
    scale = os.environ.get("QT_SCALE_FACTOR", "1")
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    for data, meta, kind in samples.stained_tissue():
        getattr(viewer, f"add_{kind}")(data, **meta)
    docks = [show_dock(viewer, title) for title in TITLES]
    wait(lambda: "Starting" not in docks[0].device_line.text(), RUN_SECONDS)
    bring_to_front(docks[0])
    docks[0].run.click()
    wait(lambda: not docks[0].is_busy, RUN_SECONDS)
    for theme in ("dark", "light"):
        appearance.theme = theme
        for dock in docks:
            bring_to_front(dock)
            for section in dock.sections.values():
                section.collapse(animate=False)
            dock.scroll_area.verticalScrollBar().setValue(0)
            wait()
            name = f"{dock.title.split()[0].lower()}-{theme}"
            picture = shoot(viewer, options.folder / f"{name}-{scale}.png")
            if options.docs and (name, scale) in IN_DOCS:
                picture.save(IMAGES / f"{IN_DOCS[name, scale]}.png", optimize=True)
            scroll_down(dock)
            wait()
            shoot(viewer, options.folder / f"{name}-{scale}-below.png")
    docks[0].engine.close()
    viewer.close()


def scroll_down(dock: object) -> None:
    """Open all sections of a dock and show the end of its body."""
    for section in dock.sections.values():
        section.expand(animate=False)
    wait()
    bar = dock.scroll_area.verticalScrollBar()
    bar.setValue(bar.maximum())


def shoot(viewer: napari.Viewer, path: Path) -> Image.Image:
    """Save a screenshot of the window, and return it."""
    image = viewer.screenshot(canvas_only=False, flash=False)
    picture = Image.fromarray(image[..., :3]).quantize(256)
    picture.save(path, optimize=True)
    return picture


def wait(until: object = None, seconds: float = 1.0) -> None:
    """Let Qt work until something is true, or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (until and until()):
        QApplication.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    main()
