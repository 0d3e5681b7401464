#!/usr/bin/env bash
# bioio-czi: the colours of an RGB image are all the first one where it is read lazily.
#
# Expected: BioImage.dask_data and BioImage.data hold the same pixels.
# Seen: of a CZI of one RGB channel, the array read at once has the three colours of a
# pixel, the lazy one repeats one of them, so every pixel is grey. Read RGB images at
# once, or through pylibCZIrw.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q bioio==3.6.0 bioio-czi==3.0.1 pylibCZIrw==6.1.0
cat > "$folder/show.py" <<'PY'
import os
import sys

import numpy as np
from bioio import BioImage
from importlib.metadata import version
from pylibCZIrw import czi

os.chdir(sys.argv[1])
pixels = np.zeros((40, 50, 3), np.uint8)
pixels[...] = (10, 20, 30)
with czi.create_czi("rgb.czi") as document:
    document.write(data=pixels, plane={"C": 0, "Z": 0, "T": 0})
    document.write_metadata("rgb", scale_x=2e-7, scale_y=2e-7)
at_once = BioImage("rgb.czi").data[0, 0, 0, 0, 0]
lazily = BioImage("rgb.czi").dask_data.compute()[0, 0, 0, 0, 0]
print("bioio", version("bioio"), "bioio-czi", version("bioio-czi"))
print("one pixel, at once:", at_once, "expected the same lazily, seen:", lazily)
assert len(set(at_once.tolist())) == 3 and len(set(lazily.tolist())) == 1
PY
"$folder/env/bin/python" "$folder/show.py" "$folder"
