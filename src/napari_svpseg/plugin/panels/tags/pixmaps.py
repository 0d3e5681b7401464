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
    height, width = array.shape[:2]
    pixels = np.ascontiguousarray(array).tobytes()
    image = QImage(pixels, width, height, 3 * width, QImage.Format.Format_RGB888)
    mode = Qt.AspectRatioMode
    scaled = QPixmap.fromImage(image).scaled(
        QSize(side, side),
        mode.KeepAspectRatioByExpanding if cut else mode.IgnoreAspectRatio,
        Qt.TransformationMode.SmoothTransformation,
    )
    left, top = (scaled.width() - side) // 2, (scaled.height() - side) // 2
    return scaled.copy(QRect(left, top, side, side)) if cut else scaled
