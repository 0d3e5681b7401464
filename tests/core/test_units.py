"""Units of length, by the names that files and viewers have for them."""

from __future__ import annotations

import pint
import pytest

from napari_svpseg.core.units import in_micrometres, micrometres, ratio


@pytest.mark.parametrize(
    ("names", "length"),
    [
        (("um", "µm", "μm", "micron", "Microns", "micrometer", r"\u00B5m"), 1.0),
        (("nm", "nanometer", "nanometre", "NM"), 1e-3),
        (("mm", "millimeter"), 1e3),
        (("cm", "centimeter"), 1e4),
        (("m", "meter"), 1e6),
        (("inch", "in", "inches"), 25_400.0),
        (("Å", "angstrom", "Angstrom", r"\u00C5", "A"), 1e-4),
        (("pt",), 25_400 / 72),
        (("mil", "thou"), 25.4),
        (("pixel", "pixels", "px", "", "None", None, "reference frame"), None),
        (("s", "mM", "M", "um^2", "0.5 um", "(", "dimensionless"), None),
    ],
)
def test_a_unit_of_length_has_micrometres(names, length):
    for name in names:
        assert micrometres(name) == (pytest.approx(length) if length else None), name


def test_units_of_another_registry_are_known():
    assert micrometres(pint.UnitRegistry().nanometer) == 1e-3
    assert ratio(pint.UnitRegistry().mm, "um") == 1000


def test_sizes_are_converted_axis_by_axis():
    units = {"T": "s", "Z": "nm", "Y": "um", "X": "inch"}
    sizes, unit = in_micrometres({"T": 2, "Z": 500, "Y": 0.5, "X": 1e-5}, units)
    assert unit == "um"
    assert sizes == pytest.approx({"T": 2, "Z": 0.5, "Y": 0.5, "X": 0.254})
    sizes, unit = in_micrometres({"Z": 2, "Y": 0.5, "X": 1}, {"Y": "um", "X": "um"})
    assert (sizes, unit) == ({"Y": 0.5, "X": 1}, "um")  # planes: no length is known
    raw = {"Z": 2.0, "Y": 0.5, "X": 500.0}
    assert in_micrometres(raw, {"Z": "um", "Y": "um"}) == (raw, "pixel")
    assert ratio("um", "pixel") == 1
