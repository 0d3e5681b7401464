#!/usr/bin/env bash
# pint: some symbols that OME-XML has for units of length are other quantities.
#
# Expected: the length symbols of the OME schema (2016-06), such as "pt" (point), "li"
# (line) and "mil" (thousandth of an inch), are lengths for pint, which napari uses for
# units, and "pixel" is one unit, whatever it is called.
# Seen: "pt" is a volume (pint), "mil" an angle, "li" a link (a length of 0.2 m in place
# of 2.1 mm), and "px" is a length, while "pixel" is not. A PhysicalSizeXUnit that is
# passed to pint may be refused, or, for "li" and "px", give wrong micrometres silently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q pint==0.25.3
cat > "$folder/show.py" <<'PY'
import pint

registry = pint.get_application_registry()
found = {
    name: str(registry.parse_units(name).dimensionality)
    for name in ("pt", "mil", "li", "px", "pixel", "thou")
}
line = registry.Quantity(1, "li").to("mm").magnitude
print("pint", pint.__version__)
print("expected: lengths; seen:", found)
print(f"one line, expected 2.117 mm, seen {line:.1f} mm")
assert found["pt"] == "[length] ** 3" and found["li"] == found["px"] == "[length]"
assert found["mil"] == "dimensionless" and found["pixel"] == "[printing_unit]"
assert line > 100
PY
"$folder/env/bin/python" "$folder/show.py"
