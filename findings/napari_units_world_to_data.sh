#!/usr/bin/env bash
# napari: layers are drawn by their units, but world_to_data does not convert them.
#
# Expected: two layers that are drawn over each other (0.5 um and 500 nm for a pixel)
# give the same pixel for the same point of the world.
# Seen: napari scales what it draws to common units, and layer.world_to_data takes the
# numbers of the point as they are. One of the two layers answers with another pixel,
# 1000 times as far away, so a click or a brush of a plugin misses. Convert the point to
# the layer's own units first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q napari==0.9.2 numpy==2.4.6
cat > "$folder/show.py" <<'PY'
import napari
import numpy as np
from napari.components import ViewerModel

viewer = ViewerModel()
image = viewer.add_image(np.zeros((9, 9)), scale=(0.5, 0.5), units="um")
labels = viewer.add_labels(np.zeros((9, 9), int), scale=(500, 500), units="nm")
same = np.allclose(
    image.extent.world * 1000, labels.extent.world
)  # they cover the same 4.5 x 4.5 um
units = [str(u) for u in viewer.layers.extent.units]
point = (2000, 2000)
found = [tuple(map(float, la.world_to_data(point))) for la in (image, labels)]
print("napari", napari.__version__, "units of the world:", units)
print("expected: one pixel for both layers; seen:", found)
assert same and found == [(4000.0, 4000.0), (4.0, 4.0)]
PY
"$folder/env/bin/python" "$folder/show.py"
