#!/usr/bin/env bash
# tifffile: a boolean array is written as white-is-zero, with its values as they are.
#
# Expected: other programs show the true pixels of a mask that tifffile.imwrite wrote as
# white, as tifffile itself does.
# Seen: the file says WhiteIsZero (PhotometricInterpretation 0) and holds 1 for true, so
# a reader that follows the specification, such as Pillow, gives the inverted mask: the
# background becomes the object. tifffile reads it back as it was, as it does not apply
# the interpretation. Pass photometric="minisblack", or write uint8.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q tifffile==2026.3.3 pillow==13.0.0 numpy==2.4.6
cat > "$folder/show.py" <<'PY'
import sys

import numpy as np
import PIL
import tifffile
from PIL import Image

mask = np.zeros((20, 20), bool)
mask[5:9, 5:9] = True
found = {}
for photometric in (None, "minisblack"):
    path = f"{sys.argv[1]}/{photometric}.tif"
    tifffile.imwrite(path, mask, photometric=photometric)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        name, own = page.photometric.name, int(page.asarray().sum())
    found[photometric] = int(np.count_nonzero(np.asarray(Image.open(path))))
    print(f"{name}: {own} white pixels in tifffile, {found[photometric]} in Pillow")
print("tifffile", tifffile.__version__, "Pillow", PIL.__version__)
print("expected 16 in both; seen", found[None], "in Pillow by default")
assert found == {None: 400 - 16, "minisblack": 16}
PY
"$folder/env/bin/python" "$folder/show.py" "$folder"
