#!/usr/bin/env bash
# napari: ids set in a Labels layer that was never visible are cut to 8 bits.
#
# Expected: Labels.data_setitem writes id 300 into labels of 32-bit integers, whether the
# layer is shown or not.
# Seen: in a viewer, on a layer added with visible=False, the ids are first converted to
# the dtype of the view of the slice, which is still an empty 8-bit array. 44 is written
# (300 modulo 256), and only then an IndexError is raised, so undo does not know of it.
# The same call on a visible layer writes 300. Show or slice the layer before.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q napari==0.9.2 numpy==2.4.6
cat > "$folder/show.py" <<'PY'
import napari
import numpy as np
from napari.components import ViewerModel

where, ids = np.nonzero(np.eye(50)), np.full(50, 300, np.uint32)
found = {}
for visible in (True, False):
    layer = ViewerModel().add_labels(np.zeros((50, 50), np.uint32), visible=visible)
    raised = "no error"
    try:
        layer.data_setitem(where, ids)
    except IndexError as error:
        raised = f"IndexError: {error}"
    found[visible] = int(layer.data.max())
    print(f"visible={visible}: expected 300, seen {found[visible]}; {raised}")
print("napari", napari.__version__, "numpy", np.__version__)
assert found == {True: 300, False: 44}
PY
"$folder/env/bin/python" "$folder/show.py"
