#!/usr/bin/env bash
# ome-zarr: levels of labels of odd sizes declare places where their pixels are not.
#
# Expected: a level whose pixels are those at 1, 3, 5 and 7 of the full size declares a
# step of 2 pixels, and a translation of 1.
# Seen: of 9 pixels, write_labels keeps every second one, the odd ones, but declares
# 9 / 4 = 2.25 for a step and a translation of 0.625. The last pixel of the level lies
# 0.375 pixels beside its place, and in larger images, level by level, objects are
# shown up to half a pixel of that level away. Sizes that are powers of 2 agree better.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q ome-zarr==0.18.0 zarr==3.1.6
cat > "$folder/show.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import zarr
from ome_zarr.format import format_from_version
from ome_zarr.writer import write_image, write_labels

fmt = format_from_version("0.5")
root = zarr.open_group(f"{sys.argv[1]}/a.zarr", mode="w", zarr_format=3)
rows = np.repeat(np.arange(9, dtype=np.uint16)[:, None], 9, axis=1)
write_image(rows, root, axes="yx", fmt=fmt)
write_labels(rows, root, name="rows", axes="yx", fmt=fmt)
group = root["labels/rows"]
level = group.attrs["ome"]["multiscales"][0]["datasets"][1]
scale, moved = (c[c["type"]] for c in level["coordinateTransformations"])
kept = group[level["path"]][:, 0]
declared = moved[0] + scale[0] * np.arange(len(kept))
print("ome-zarr", version("ome-zarr"), "zarr", version("zarr"))
print("expected:", kept.tolist(), "seen:", declared.tolist())
assert kept.tolist() == [1, 3, 5, 7]
assert np.allclose(declared, [0.625, 2.875, 5.125, 7.375])
PY
"$folder/env/bin/python" "$folder/show.py" "$folder"
