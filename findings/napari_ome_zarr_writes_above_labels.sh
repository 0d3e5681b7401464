#!/usr/bin/env bash
# napari-ome-zarr: opening a store with the key image-label writes into a folder above.
#
# Expected: a reader leaves the disk as it is.
# Seen: for a group whose attributes have "image-label", the plugin opens the group two
# folders above, where the image of labels is, in a mode that creates it. Where labels
# are a store of their own, a zarr.json appears in a folder of the user, which other
# programs then take for a Zarr. Leave the key out of labels that are in no image.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q napari-ome-zarr==0.10.0 napari==0.9.2 ome-zarr==0.18.0
cat > "$folder/show.py" <<'PY'
import sys
from importlib.metadata import version
from pathlib import Path

import zarr
from napari_ome_zarr import napari_get_reader

top = Path(sys.argv[1]) / "mine"
path = top / "results" / "labels.zarr"
path.parent.mkdir(parents=True)
scale = {"type": "scale", "scale": [0.5, 0.25]}
group = zarr.open_group(path, mode="w", zarr_format=3)
group.attrs["ome"] = {
    "version": "0.5",
    "image-label": {},
    "multiscales": [
        {
            "axes": [{"name": name, "type": "space"} for name in "yx"],
            "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
        }
    ],
}
array = group.create_array(
    "0", shape=(8, 8), chunks=(8, 8), dtype="u1", dimension_names=["y", "x"]
)
array[...] = 1
before = set(top.rglob("*"))
read = napari_get_reader(str(path))
layers = read(str(path))
new = [p.relative_to(top).as_posix() for p in top.rglob("*") if p not in before]
print("napari-ome-zarr", version("napari-ome-zarr"), "layers:", len(layers))
print("expected new files: none; seen:", new)
assert new == ["zarr.json"]
PY
"$folder/env/bin/python" "$folder/show.py" "$folder"
