"""Arrays as Qt pictures."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPixmap

RATIO = 2
"""Pixels of a picture per pixel of the layout: sharp on screens of high density."""


def to_pixmap(array: np.ndarray, side: int, *, cut: bool = False) -> QPixmap:
    """Return an array as a square picture.

    Parameters
    ----------
    array : (Y, X, 3) uint8 array
    side : int
        In pixels of the screen.
    cut : bool
        Cut the middle out of an array that is not square, instead of squeezing it.
    """
    mode = Qt.AspectRatioMode
    scaled = _scaled(
        array, side, mode.KeepAspectRatioByExpanding if cut else mode.IgnoreAspectRatio
    )
    left, top = (scaled.width() - side) // 2, (scaled.height() - side) // 2
    return scaled.copy(QRect(left, top, side, side)) if cut else scaled


def to_whole_pixmap(array: np.ndarray, side: int) -> QPixmap:
    """Return an array as a picture that keeps its proportions; empty without pixels.

    Parameters
    ----------
    array : (Y, X, 3) uint8 array
    side : int
        Longest side in pixels of the screen.
    """
    if not array.size:
        return QPixmap()
    return _scaled(array, side, Qt.AspectRatioMode.KeepAspectRatio)


def to_icon(pixmap: QPixmap) -> QIcon:
    """Return a picture as the icon of a row; a selected row does not tint it.

    Parameters
    ----------
    pixmap : QPixmap
        With `RATIO` pixels per pixel of the layout; its ratio is set here.
    """
    pixmap.setDevicePixelRatio(RATIO)
    icon = QIcon()
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):
        icon.addPixmap(pixmap, mode)
    return icon


def _scaled(array: np.ndarray, side: int, mode: Qt.AspectRatioMode) -> QPixmap:
    height, width = array.shape[:2]
    pixels = np.ascontiguousarray(array).tobytes()
    image = QImage(pixels, width, height, 3 * width, QImage.Format.Format_RGB888)
    smooth = Qt.TransformationMode.SmoothTransformation
    return QPixmap.fromImage(image).scaled(QSize(side, side), mode, smooth)
