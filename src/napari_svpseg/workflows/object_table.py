"""The measurements of all objects of a result, for the table in the window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..core.labels.measure import SHAPE, Table, add_confidence, measure
from ..core.progress import Progress

FIRST = ("centroid", "bbox", "area")
"""What is measured first: enough to find objects; shapes take several times longer."""


def object_table(
    labels: np.ndarray,
    image: np.ndarray | None = None,
    foreground: np.ndarray | None = None,
    *,
    axes: str = "YX",
    image_axes: str = "",
    pixel_size: tuple[float, float] | None = None,
    unit: str = "pixel",
    corner: Mapping[str, int] | None = None,
    on_progress: Progress | None = None,
    on_partial: Callable[[Any], None] | None = None,
) -> Table:
    """Return a table with one row for each object of each plane.

    Parameters
    ----------
    labels : int array
        Ids; 0 is background.
    image : array, optional
        Whose intensities are measured.
    foreground : float array, optional
        Probabilities in [0, 1], in the shape of the labels.
    axes : str
        Of labels and probabilities.
    image_axes : str
        Of the image.
    pixel_size : (float, float), optional
        Height and width of a pixel in ``unit``.
    unit : str
    corner : dict of str to int, optional
        Index of the first pixel and plane of the labels in the image, by axis.
    on_progress : callable, optional
        Called before each of two steps.
    on_partial : callable, optional
        Called with a first table of areas and positions.

    Returns
    -------
    dict of arrays
        As `core.labels.measure.measure` returns, and with probabilities the columns
        ``probability_mean`` and ``confidence``.

    Examples
    --------
    >>> labels = np.zeros((9, 9), int); labels[2:5, 2:6] = 4
    >>> object_table(labels)["area"].tolist()
    [12]
    """
    how: dict[str, Any] = {
        "axes": axes,
        "image": image,
        "image_axes": image_axes,
        "pixel_size": pixel_size,
        "unit": unit,
        "corner": corner,
    }
    table: Table = {}
    for i, shape in enumerate((FIRST, SHAPE)):
        if on_progress is not None:
            on_progress(i, 2)
        table = measure(labels, shape=shape, **how)
        if foreground is not None:
            add_confidence(table, labels, foreground, axes)
        if i == 0 and on_partial is not None:
            on_partial(table)
    return table
