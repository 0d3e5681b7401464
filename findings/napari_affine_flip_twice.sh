#!/usr/bin/env bash
# napari: scale and rotate of an Affine that flips an axis hold the flip both.
#
# Expected: of a transform a without shear, Affine(scale=a.scale, rotate=a.rotate) is
# the same transform, since these are the parts that a is made of.
# Seen: of a matrix that flips an axis, a.scale is negative along it and a.rotate flips
# it once more, so the transform that is made of the parts does not flip. A copy of a
# layer made with the layer's scale and rotate lies mirrored.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q napari==0.9.2 numpy==2.4.6
cat > "$folder/show.py" <<'PY'
import napari
import numpy as np
from napari.utils.transforms import Affine

matrix = np.diag([-0.5, 0.5])
given = Affine(linear_matrix=matrix)
again = Affine(scale=given.scale, rotate=given.rotate)
print("napari", napari.__version__)
print("scale:", given.scale, "rotate:", given.rotate.tolist())
print("expected:", matrix.tolist(), "seen:", again.linear_matrix.tolist())
assert np.allclose(given.linear_matrix, matrix)
assert np.allclose(again.linear_matrix, np.abs(matrix))
PY
"$folder/env/bin/python" "$folder/show.py"
