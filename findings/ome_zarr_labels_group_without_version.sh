#!/usr/bin/env bash
# ome-zarr: the group of all labels that write_labels makes has no version of OME-Zarr.
#
# Expected: after write_image and write_labels for OME-Zarr 0.5, a validating reader
# takes the image, as each "ome" attribute has its version, which 0.5 demands.
# Seen: the attribute of the group "labels" is {"labels": [...]} without a version, and
# ome-zarr-models refuses the whole image. Add the version to its attributes afterwards.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q ome-zarr==0.18.0 ome-zarr-models==1.7 zarr==3.1.6
cat > "$folder/show.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import zarr
from ome_zarr.format import format_from_version
from ome_zarr.writer import write_image, write_labels
from ome_zarr_models import open_ome_zarr

fmt = format_from_version("0.5")
path = f"{sys.argv[1]}/a.zarr"
root = zarr.open_group(path, mode="w", zarr_format=3)
pixels = np.ones((8, 8), np.uint8)
write_image(pixels, root, axes="yx", fmt=fmt)
write_labels(pixels, root, name="cells", axes="yx", fmt=fmt)
found = {}
for text in ("as written", "with a version"):
    try:
        open_ome_zarr(zarr.open_group(path, mode="r"))
        found[text] = "valid"
    except RuntimeError:
        found[text] = "refused"
    root["labels"].attrs["ome"] = {"version": "0.5", "labels": ["cells"]}
print("ome-zarr", version("ome-zarr"), "models", version("ome-zarr-models"))
print("expected: valid; seen:", found)
assert found == {"as written": "refused", "with a version": "valid"}
PY
"$folder/env/bin/python" "$folder/show.py" "$folder"
