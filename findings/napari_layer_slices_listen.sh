#!/usr/bin/env bash
# napari: a slice of viewer.layers listens to the layers in it, and never stops.
#
# Expected: viewer.layers[1:] returns some of the layers and changes nothing; what was
# made for it is gone with it.
# Seen: it is a LayerList of its own, which connects to the events of each layer. The
# listeners stay when the slice is gone, so a callback that takes a slice at each event
# makes every later event slower. list(viewer.layers)[1:] adds none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q napari==0.9.2 numpy==2.4.6
cat > "$folder/show.py" <<'PY'
import gc

import napari
import numpy as np
from napari.components import ViewerModel

viewer = ViewerModel()
layer = viewer.add_image(np.zeros((4, 4)))


def listeners():
    gc.collect()
    return sum(len(emitter.callbacks) for emitter in layer.events.emitters.values())


before = listeners()
for _ in range(50):
    list(viewer.layers)[0:]
copied = listeners()
for _ in range(50):
    viewer.layers[0:]
sliced = listeners()
print("napari", napari.__version__)
print("listeners of a layer:", before, "after 50 slices of a list:", copied)
print("expected after 50 slices of viewer.layers:", before, "seen:", sliced)
assert copied == before
assert sliced >= before + 50
PY
"$folder/env/bin/python" "$folder/show.py"
