"""Units of length, by all the names that files and viewers have for them.

Everywhere else in the package lengths are micrometres: readers convert what a file
says, and writers write micrometres.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any

UM, PIXEL = "um", "pixel"
"""Our names of the units: of lengths, and of sizes that are none."""

OTHER_NAMES = {
    "A": "angstrom",
    "li": "inch / 12",
    "mil": "thou",
    "pt": "inch / 72",
    "px": "pixel",
    "ua": "astronomical_unit",
}
"""Names of OME, ImageJ and napari that pint has for something else."""

ESCAPED = re.compile(r"\\u([0-9A-Fa-f]{4})")
"""A character in the description of an ImageJ TIFF that is not ASCII."""

NAME = re.compile(r"[^\W\d]+")


@lru_cache(maxsize=256)
def _micrometres(name: str) -> float | None:
    import pint

    registry: Any = pint.get_application_registry()  # type: ignore[no-untyped-call]
    name = ESCAPED.sub(lambda m: chr(int(m[1], 16)), name).strip().rstrip(".")
    if not NAME.fullmatch(name):  # an expression, or no unit at all
        return None
    for spelled in (name, name.lower()):  # pint knows Mm and mm, but not Micron
        try:
            one = registry.Quantity(OTHER_NAMES.get(spelled, spelled))
            value = float(one.to("micrometer").magnitude)
        except pint.errors.UndefinedUnitError:
            continue
        except pint.errors.DimensionalityError:
            return None
        return float(f"{value:.12g}")  # 1e-9 m are 0.001 um, not 0.0009999999999999998
    return None


def micrometres(unit: object) -> float | None:
    """Return the micrometres of a unit of length, or None for anything else.

    Parameters
    ----------
    unit : str, pint.Unit or None
        Such as ``"nm"``, ``"microns"``, ``"inch"`` or ``"Å"``.

    Examples
    --------
    >>> micrometres("nm"), micrometres("microns"), micrometres("pixel")
    (0.001, 1.0, None)
    """
    return _micrometres(str(unit or ""))


def in_micrometres(
    sizes: Mapping[str, float], units: Mapping[str, object]
) -> tuple[dict[str, float], str]:
    """Return sizes along axes in micrometres, and their unit.

    Parameters
    ----------
    sizes : dict of str to float
        Size along each of T, Z, Y and X, in its unit. T stays as it is.
    units : dict of str to str
        Unit of each axis; axes may have different ones.

    Returns
    -------
    sizes : dict of str to float
        Without Z where Y and X are lengths and Z is none.
    unit : str
        ``"um"``, or ``"pixel"`` where Y and X are not both lengths: then all sizes are
        as they were.

    Examples
    --------
    >>> in_micrometres({"Y": 0.5, "X": 500.0}, {"Y": "um", "X": "nm"})
    ({'Y': 0.5, 'X': 0.5}, 'um')
    """
    factors = {a: micrometres(units.get(a)) for a in sizes if a in "ZYX"}
    if factors.get("Y") is None or factors.get("X") is None:
        return dict(sizes), PIXEL
    known = {a: factors.get(a, 1.0) for a in sizes}
    return {a: n * f for a, n in sizes.items() if (f := known[a]) is not None}, UM


@lru_cache(maxsize=256)
def _ratio(name: str, other: str) -> float:
    import pint

    registry: Any = pint.get_application_registry()  # type: ignore[no-untyped-call]
    try:
        return float(registry.Quantity(1, name).to(other).magnitude)
    except (pint.errors.UndefinedUnitError, pint.errors.DimensionalityError):
        return 1.0


@lru_cache(maxsize=256)  # the name of a unit takes longer than all else
def ratio(unit: Hashable, other: Hashable) -> float:
    """Return how many of another unit a unit is; 1 where they are of different kinds.

    Parameters
    ----------
    unit, other : str or pint.Unit
        Units as napari's layers have them.

    Examples
    --------
    >>> ratio("mm", "um"), ratio("um", "pixel")
    (1000.0, 1.0)
    """
    first, second = str(unit), str(other)
    return 1.0 if first == second else float(f"{_ratio(first, second):.12g}")
