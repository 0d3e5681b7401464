"""Take the screenshots of docs/train-from-tags.md in a real napari window.

Run from the repository, with a display or under
``xvfb-run -a -s "-screen 0 1400x900x24"``::

    python scripts/screenshots_tags.py DATA

``DATA`` is a folder of the benchmark's form with tumour marked in H&E tiles. The
screenshots in the docs show *ocdc_he_tumour* (Freire et al., Mendeley Data 2022,
doi:10.17632/9bsc36jyrt.1, CC BY 4.0). Takes a few minutes: a model is trained.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from own_home import own_home
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from screenshots_segment import Studio
from skimage.io import imsave

from napari_svpseg.io.images import read_image

SIDE = 160
"""Side of the windows that are tagged, in pixels."""

SHARE = 0.15
"""A window holds a class that covers at least this much of it."""

BLANK = 225
"""Mean brightness from which there is no tissue."""

CLASSES = ("tumour", "stroma")


def cut(data: Path, folder: Path) -> dict[str, list[int]]:
    """Write windows of all tiles; return the digits of the classes of each."""
    tags = {}
    for path in sorted((data / "images").iterdir()):
        image = np.asarray(read_image(path).array)[..., :3]
        labels = np.asarray(read_image(data / "labels" / f"{path.stem}.tif").array)
        for y in range(0, image.shape[0] - SIDE + 1, SIDE):
            for x in range(0, image.shape[1] - SIDE + 1, SIDE):
                part = image[y : y + SIDE, x : x + SIDE]
                tumour = labels[y : y + SIDE, x : x + SIDE] > 0
                stroma = ~tumour & (part.mean(axis=-1) < BLANK)
                name = f"tile-{len(tags):03d}.png"
                imsave(folder / name, part, check_contrast=False)
                shares = (tumour.mean(), stroma.mean())
                tags[name] = [i for i, s in enumerate(shares, 1) if s >= SHARE]
    return tags


@own_home()
def main() -> None:
    """Take all screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "tiles"
        folder.mkdir()
        take(folder, cut(arguments.data, folder), arguments.epochs)


def take(folder: Path, tags: dict[str, list[int]], epochs: int) -> None:
    """Tag, train, look, and segment with what came out."""
    studio = Studio("Train from tags")
    dock, view = studio.dock, studio.dock.tag_panel.view
    dock.tag_panel.choose_folder(str(folder))
    studio.wait(lambda: dock.tag_panel.folder == folder, 20)
    for name in CLASSES:
        dock.tag_panel.classes.new_class.setText(name)
        QTest.keyClick(dock.tag_panel.classes.new_class, Qt.Key.Key_Return)
    dock.show_selected.setChecked(False)
    for n, digits in enumerate(tags.values()):
        for digit in digits or [0]:
            QTest.keyClick(view, getattr(Qt.Key, f"Key_{digit}"))
        if n == len(tags) // 2:
            dock.show_selected.setChecked(True)
            studio.wait(seconds=1.5)
            studio.shoot("tags-1-tags")
            dock.show_selected.setChecked(False)
        QTest.keyClick(view, Qt.Key.Key_Return)
    dock.options.set_values({"epochs": epochs, "second_epochs": epochs})
    dock.advanced.set_values({"scale": 0.5})
    mixed = next(i for i, d in enumerate(tags.values()) if len(d) == 2)
    dock.show_selected.setChecked(True)
    view.select(mixed)
    dock.train.click()
    studio.wait(lambda: not dock.is_busy, 3600)
    studio.wait(seconds=1)
    print(dock.message.text())
    dock.scroll_area.verticalScrollBar().setValue(dock.curves.y() - 10)
    dock.look.click()
    studio.wait(lambda: dock.controller.map_job is None, 60)
    studio.shoot("tags-2-trained")
    panel = dock.bank.view
    panel.select(0)
    panel.pin.click()
    panel.select(3)
    panel.remove.click()
    panel.select(1)
    dock.scroll_area.ensureWidgetVisible(dock.bank.reuse)
    studio.shoot("tags-3-bank")
    dock.use.click()
    studio.wait(seconds=1)
    from napari_svpseg.plugin.docks.tabs import SEGMENT, open_docks

    segment = open_docks(studio.viewer, SEGMENT)[0]
    segment.run.click()
    studio.wait(lambda: not segment.is_busy, 60)
    for layer in studio.viewer.layers:
        if layer.name.endswith("class map"):
            layer.visible = False
    print(segment.message.text())
    studio.shoot("tags-4-use")
    dock.engine.close()
    studio.viewer.close()


if __name__ == "__main__":
    main()
