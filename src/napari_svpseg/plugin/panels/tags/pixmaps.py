"""Arrays as Qt pictures."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QImage, QPixmap


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


def _scaled(array: np.ndarray, side: int, mode: Qt.AspectRatioMode) -> QPixmap:
    height, width = array.shape[:2]
    pixels = np.ascontiguousarray(array).tobytes()
    image = QImage(pixels, width, height, 3 * width, QImage.Format.Format_RGB888)
    smooth = Qt.TransformationMode.SmoothTransformation
    return QPixmap.fromImage(image).scaled(QSize(side, side), mode, smooth)
