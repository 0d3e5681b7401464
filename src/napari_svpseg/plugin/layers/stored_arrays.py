"""Arrays of labels on the disk, as the layers that show them need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class KeptChannel:
    """An array with one more axis, one long, where its image has the channels.

    Parameters
    ----------
    array : array
        Without that axis.
    position : int
        Of the axis.
    """

    def __init__(self, array: Any, position: int) -> None:
        self.array, self.position = array, position
        self.dtype = array.dtype
        shape = list(array.shape)
        shape.insert(position, 1)
        self.shape = tuple(shape)
        self.ndim = len(shape)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[...], dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        inner, where = self._inner(index)
        found = np.asarray(self.array[inner])
        return found if where is None else np.expand_dims(found, where)

    def __setitem__(self, index: Any, values: Any) -> None:
        inner, where = self._inner(index)
        if where is not None and isinstance(values, np.ndarray) and values.ndim:
            values = np.take(values, 0, axis=where)
        self.array[inner] = values

    def _inner(self, index: Any) -> tuple[tuple[Any, ...], int | None]:
        """Return the index without our axis, and where that stays in the result."""
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in [i for i in index if i is Ellipsis]:
            at = next(n for n, i in enumerate(index) if i is Ellipsis)
            rest = self.ndim - len(index) + 1
            index = (*index[:at], *(slice(None),) * rest, *index[at + 1 :])
        index += (slice(None),) * (self.ndim - len(index))
        own = index[self.position]
        inner = index[: self.position] + index[self.position + 1 :]
        if not isinstance(own, slice):
            return inner, None
        return inner, sum(isinstance(i, slice) for i in index[: self.position])


def open_levels(folder: str | Path, n: int, axes: str) -> list[Any]:
    """Return the arrays of stored labels, with the axes of a companion."""
    from ...io.ome_zarr import open_level

    arrays = [open_level(folder, level) for level in range(n)]
    if "C" in axes:
        return [KeptChannel(array, axes.index("C")) for array in arrays]
    return arrays
