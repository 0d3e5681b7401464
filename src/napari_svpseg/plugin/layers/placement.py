"""Where layers lie in the world: pixel sizes, and the layers that lie on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine

from ...core.units import PIXEL, UM, micrometres, ratio

if TYPE_CHECKING:
    from napari.layers import Layer

    from .world import Units

PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
"""Attributes of a layer that say where it lies."""


@dataclass(frozen=True)
class Grid:
    """Pixels of a layer that lies on another one, in pixels of that one.

    Parameters
    ----------
    factors : tuple of float
        Length of a pixel along each axis.
    corner : tuple of int
        Index of the first pixel among those of this length.
    """

    factors: tuple[float, ...]
    corner: tuple[float, ...]

    @property
    def origin(self) -> np.ndarray:
        """The centre of the first pixel, as index into the other layer."""
        # a pixel's centre is its origin, and moves when pixels become larger
        factors = np.array(self.factors, float)
        return factors * np.array(self.corner, float) + (factors - 1) / 2

    def moved_to(self, other: Grid, vertex: np.ndarray) -> np.ndarray:
        """Return an index into this grid as index into another one."""
        whole = np.asarray(vertex, float) * self.factors + self.origin
        return np.asarray((whole - other.origin) / np.array(other.factors))

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain values, for the metadata of a layer."""
        return {
            "factors": [float(n) for n in self.factors],
            "corner": [int(n) for n in self.corner],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[float]]) -> Grid:
        """Return the grid of such values."""
        return cls(tuple(values["factors"]), tuple(values["corner"]))


@dataclass(frozen=True, eq=False)
class Calibration:
    """Pixel sizes and position of a layer, for files.

    Parameters
    ----------
    sizes : dict of str to float
        Length of a pixel along each axis in ``unit``. Without Z if that is no length.
    unit : str
        ``"um"``, or ``"pixel"`` where Y and X are not both lengths.
    origin : dict of str to float
        Where the centre of the first pixel lies.
    flipped : str
        Axes that run against those of the world.
    """

    sizes: dict[str, float]
    unit: str
    origin: dict[str, float]
    flipped: str = ""

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Height and width of a pixel."""
        return (self.sizes["Y"], self.sizes["X"])


@dataclass(frozen=True, eq=False)
class Place:
    """How a layer maps its pixels to the world.

    Parameters
    ----------
    scale : (D,) array
    linear : (D, D) array
        From pixels to physical coordinates: scale, rotation and shear.
    translate : (D,) array
    affine : (D + 1, D + 1) array
        From physical coordinates to the world.
    units : tuple of units
        Of the axes of the world.
    axis_labels : tuple of str
    """

    scale: np.ndarray
    linear: np.ndarray
    translate: np.ndarray
    affine: np.ndarray
    units: tuple[Any, ...]
    axis_labels: tuple[str, ...]

    @classmethod
    def of(cls, layer: Layer) -> Place:
        """Return the place of a layer."""
        found = {name: getattr(layer, name, None) for name in PLACE}
        return cls.from_attributes(found, layer.ndim)

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any], ndim: int) -> Place:
        """Return the place that attributes of a layer describe; all are optional."""
        given = {k: v for k, v in values.items() if k in PLACE and v is not None}
        scale = np.ones(ndim)
        if "scale" in given:
            scale = np.asarray(given["scale"], float)
        rotate = np.asarray(given.get("rotate", np.eye(ndim)), float)
        shear = np.asarray(given.get("shear", np.zeros(0)), float)
        own = shear if shear.ndim < 2 else shear - np.eye(len(shear))
        linear = np.diag(scale)
        # an Affine of a flipped matrix has the flip in its rotation and in its scale
        if rotate.shape != (ndim, ndim) or np.any(own) or not _is_diagonal(rotate):
            more = {"shear": shear} if np.any(own) else {}
            linear = np.asarray(
                Affine(scale=scale, rotate=rotate, ndim=ndim, **more).linear_matrix
            )
        return cls(
            scale,
            linear,
            np.asarray(given.get("translate", np.zeros(ndim)), float),
            np.asarray(given.get("affine", np.eye(ndim + 1)), float),
            tuple(given.get("units", (PIXEL,) * ndim)),
            tuple(given.get("axis_labels", ())),
        )

    def on(self, grid: Grid) -> Place:
        """Return the place of a layer on this one; it has the last of the axes."""
        n = len(grid.factors)
        keep = slice(len(self.translate) - n, None)
        linear = self.linear[keep, keep]
        affine = np.eye(n + 1)
        affine[:n, :n] = self.affine[:-1, :-1][keep, keep]
        affine[:n, n] = self.affine[:-1, -1][keep]
        return Place(
            self.scale[keep] * grid.factors,
            linear * np.array(grid.factors),
            self.translate[keep] + linear @ grid.origin,
            affine,
            self.units[-n:],
            self.axis_labels[-n:],
        )

    def in_units(self, units: Units) -> Place:
        """Return the same place in other units; None leaves it as it is."""
        n = len(self.units)
        if units is None or len(units) < n:
            return self
        units = units[-n:]
        pairs = zip(self.units, units, strict=True)
        factors = np.array([ratio(own, other) for own, other in pairs])
        affine = self.affine.copy()
        affine[:-1, :-1] *= factors[:, None] / factors
        affine[:-1, -1] *= factors
        return replace(
            self,
            scale=factors * self.scale,
            linear=factors[:, None] * self.linear,
            translate=factors * self.translate,
            affine=affine,
            units=units,
        )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that give a layer this place.

        Rotation and shear are in ``affine``: napari does not take a flipped matrix
        apart so that its parts give it back.
        """
        scale, translate, affine = self.scale, self.translate, self.affine
        if not _is_diagonal(self.linear):
            physical = np.eye(len(affine))
            physical[:-1, :-1], physical[:-1, -1] = self.linear / scale, translate
            translate, affine = np.zeros_like(translate), affine @ physical
        found: dict[str, Any] = {
            "scale": np.array(scale),
            "translate": np.array(translate),
            "affine": affine,
            "units": self.units,
        }
        if self.axis_labels:
            found["axis_labels"] = self.axis_labels
        return found

    def calibration(self, axes: str) -> Calibration:
        """Return pixel sizes and position; a rotation has no part in them.

        Parameters
        ----------
        axes : str
            The letter of each axis.
        """
        units = dict(zip(axes, self.units, strict=True))
        lengths = [micrometres(units[a]) is not None for a in axes]
        are_known = all(micrometres(units.get(a)) is not None for a in "YX")
        unit = UM if are_known else PIXEL
        weights = np.array([micrometres(units[a]) or 1.0 for a in axes])
        if not are_known:
            weights = np.ones(len(axes))
        linear = weights[:, None] * (self.affine[:-1, :-1] @ self.linear)
        start = self.affine[:-1, :-1] @ self.translate + self.affine[:-1, -1]
        sizes = dict(zip(axes, np.linalg.norm(linear, axis=0).tolist(), strict=True))
        origin = dict(zip(axes, (weights * start).tolist(), strict=True))
        if are_known:
            sizes = {
                a: n
                for (a, n), is_length in zip(sizes.items(), lengths, strict=True)
                if is_length or a not in "ZYX"
            }
        flipped = ""
        if _is_diagonal(linear):
            signs = zip(axes, np.diag(linear), strict=True)
            flipped = "".join(a for a, n in signs if n < 0)
        return Calibration(sizes, unit, origin, flipped)


def align(layer: Layer, place: Place) -> bool:
    """Give a layer a place; return whether it was another one."""
    now, values = Place.of(layer), place.arguments()
    before = now.arguments()
    is_rotated = not _is_diagonal(now.linear)
    same = not is_rotated and all(
        np.allclose(before[name], values[name], rtol=1e-9, atol=1e-12)
        for name in ("scale", "translate", "affine")
    )
    if same and [str(u) for u in now.units] == [str(u) for u in place.units]:
        return False
    if is_rotated:  # else a new scale would be rotated
        layer.rotate = np.eye(layer.ndim)
        layer.shear = np.zeros(layer.ndim * (layer.ndim - 1) // 2)
    for name in ("scale", "translate", "affine", "units"):
        setattr(layer, name, values[name])
    return True


def _is_diagonal(matrix: np.ndarray) -> bool:
    off = matrix - np.diag(np.diag(matrix))
    return bool(np.abs(off).max(initial=0) <= 1e-12 * np.abs(matrix).max(initial=1))
