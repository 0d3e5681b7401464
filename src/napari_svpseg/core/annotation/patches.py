"""Patches: what a user decided about some pixels of an image, and their plain form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..geometry import Box, window_of
from ..prompt import UNKNOWN

Array = np.ndarray

NO_PATCH = "damaged, no ids of a part of a plane"


@dataclass(frozen=True, eq=False)
class Patch:
    """Object ids of a part of a plane.

    Parameters
    ----------
    y, x : int
        First row and column of the part in the plane.
    ids : (h, w) int32 array
        Object ids; 0 is background, -1 unknown.
    """

    y: int
    x: int
    ids: Array

    @classmethod
    def of(cls, plane: Array) -> Patch:
        """Return the smallest patch that holds all known pixels of a plane.

        Parameters
        ----------
        plane : (Y, X) int array
            -1 is unknown.
        """
        known = plane != UNKNOWN
        if not known.any():
            return cls(0, 0, np.zeros((0, 0), np.int32))
        window = window_of(known)
        ids = np.array(plane[window], np.int32)
        return cls(window[0].start, window[1].start, ids)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the part in the plane."""
        height, width = self.ids.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    def within(self, box: Box) -> Array:
        """Return the ids in a box; what lies outside the patch is unknown.

        Returns
        -------
        (side, side) int32 array
        """
        found = np.full((box.size, box.size), UNKNOWN, np.int32)
        height, width = self.ids.shape
        y0, y1 = max(self.y, box.y), min(self.y + height, box.y + box.size)
        x0, x1 = max(self.x, box.x), min(self.x + width, box.x + box.size)
        if y0 < y1 and x0 < x1:
            found[y0 - box.y : y1 - box.y, x0 - box.x : x1 - box.x] = self.ids[
                y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x
            ]
        return found

    def on_plane(self, shape: tuple[int, int]) -> Array:
        """Return the ids on a whole plane, (Y, X) int32; unknown elsewhere."""
        plane = np.full(shape, UNKNOWN, np.int32)
        here = plane[self.slices]
        here[...] = self.ids[: here.shape[0], : here.shape[1]]
        return plane

    def to_dict(self) -> dict[str, Any]:
        """Return the patch as plain values: runs of equal ids, row by row."""
        flat: Array = self.ids.ravel()
        starts = np.flatnonzero(flat != np.r_[flat[:1] + 1, flat[:-1]])
        lengths = np.diff(np.r_[starts, flat.size]).astype(int)
        return {
            "y": self.y,
            "x": self.x,
            "shape": list(self.ids.shape),
            "ids": [int(flat[i]) for i in starts],
            "lengths": lengths.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Patch:
        """Return the patch that `to_dict` described.

        Raises
        ------
        ValueError
            If the values are no patch, or the runs do not fill the shape.
        """
        try:
            y, x, shape = values["y"], values["x"], values["shape"]
            flat = np.repeat(np.array(values["ids"], np.int32), values["lengths"])
            ids = flat.reshape(shape)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(NO_PATCH) from error
        lengths = (y, x, *ids.shape)
        if ids.ndim != 2 or not all(type(n) is int and n >= 0 for n in lengths):
            raise ValueError(NO_PATCH)
        return cls(y, x, ids)
