"""Thumbnails: made of what is seen only, in its colours."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QSize
from qtpy.QtGui import QIcon
from skimage.io import imsave

from napari_svpseg.plugin.layers.images.tagged_image import TaggedImage
from napari_svpseg.plugin.panels.tags import thumbnails
from napari_svpseg.plugin.panels.tags.pixmaps import RATIO, to_icon, to_pixmap
from napari_svpseg.plugin.panels.tags.thumbnails import small_view


def test_thumbnails_are_made_of_what_is_seen(panel, folder, qtbot, monkeypatch, listed):
    asked = []
    small = thumbnails.small_view

    def count(image):
        asked.append(image.key)
        return small(image)

    monkeypatch.setattr(thumbnails, "small_view", count)
    (folder / "b.png").write_bytes(b"damaged")
    names = [f"{i}.png" for i in range(500)]
    listed(folder)
    images = [*panel.tags.images, *(TaggedImage(n, n, folder / n) for n in names)]
    panel.resize(300, 500)
    panel.show()
    panel.tags.refresh(images)
    qtbot.waitUntil(lambda: "a.png" in panel.table._thumbnails._icons)
    qtbot.waitUntil(lambda: "b.png" in panel.table._thumbnails._icons)
    assert panel.table._thumbnails._icons["a.png"] is not None
    assert panel.table._thumbnails._icons["b.png"] is None  # damaged: a grey square
    assert len(set(asked)) < 40


def test_thumbnails_of_colour_images_keep_their_colours(tmp_path):
    pale = np.full((60, 60, 3), (220, 180, 200), np.uint8)
    pale[20:40] = (200, 170, 190)
    imsave(tmp_path / "pale.png", pale, check_contrast=False)
    imsave(tmp_path / "grey.png", pale[..., 0], check_contrast=False)
    names = ("pale.png", "grey.png")
    small = {n: small_view(TaggedImage(n, n, tmp_path / n)) for n in names}
    assert small["pale.png"][0, 0].tolist() == [220, 180, 200]
    assert small["grey.png"].min() == 0 and small["grey.png"].max() == 255


def test_a_selected_row_leaves_its_picture_as_it_is(qtbot):
    pink = np.full((40, 40, 3), (220, 120, 180), np.uint8)
    icon = to_icon(to_pixmap(pink, RATIO * 20))
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):
        color = icon.pixmap(QSize(20, 20), mode).toImage().pixelColor(10, 10)
        assert (color.red(), color.green(), color.blue()) == (220, 120, 180)
