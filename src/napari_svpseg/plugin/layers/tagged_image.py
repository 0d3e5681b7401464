"""An image to be tagged: an open layer, or a file of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...core.image import ImageError
from .image_axes import known_axes
from .image_source import ImageSource

if TYPE_CHECKING:
    from napari.layers import Image

STACK = (
    "is a stack: open its planes as images of their own, or clear its tags (Backspace)."
)


@dataclass(frozen=True, eq=False)
class TaggedImage:
    """An image that can be tagged.

    Parameters
    ----------
    key : str
        In the tags file: the file, relative to its folder, or an open image's file or
        name.
    title : str
        In the table.
    path : Path, optional
        Of an image in a folder.
    layer : Image, optional
        An open image.
    """

    key: str
    title: str
    path: Path | None = None
    layer: Image | None = None

    def plane(self) -> np.ndarray:
        """Return an image of one plane, (Y, X, C); a file is read.

        Raises
        ------
        ImageError
            If it is a stack, its axes are not known, or the file cannot be read.
        """
        if self.layer is not None:
            source = ImageSource.of(self.layer, known_axes(self.layer))
            index = (0,) * len(source.axes.stack)
            data, axes, n = source.query(index), source.axes, source.n_planes
        else:
            from ...io.images import read_image

            assert self.path is not None
            file = read_image(self.path)
            data, axes = file.array, file.axes
            n = len(list(axes.plane_indices(data.shape)))
        if n > 1:
            raise ImageError(f"'{self.title}' {STACK}")
        return axes.to_plane(np.asarray(data))

    def for_engine(self) -> str | np.ndarray:
        """Return the image as the engine takes it: its file, or the open data."""
        return str(self.path) if self.path is not None else self.plane()
