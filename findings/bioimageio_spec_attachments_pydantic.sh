#!/usr/bin/env bash
# bioimageio.spec 0.5.12 with pydantic 2.14: valid models are refused.
#
# Expected: pip installs versions that work together, and a valid description of a model
# loads, or fails validation with a reason in the description.
# Seen: with pydantic 2.14.4, loading ends in a TypeError of a serializer ("'index_key' is
# expected to be an integer or a string, got 'SerializationInfo(...)'"), reported as an
# invalid format; with pydantic 2.12.5 the same file passes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q bioimageio.spec==0.5.12.0 numpy pillow onnx==1.23.2
cat > "$folder/show.py" <<'PY'
import json
from pathlib import Path

import numpy as np
import pydantic
from bioimageio.spec import InvalidDescr, load_description
from PIL import Image

Path("model.onnx").write_bytes(b"graph")
Path("README.md").write_text("# A\n\n# Validation\n")
Path("notes.txt").write_text("notes")
np.save("x.npy", np.zeros((1, 1, 8, 8), np.float32))
Image.new("RGB", (64, 32)).save("cover.png")
space = [{"type": "space", "id": a, "size": 8} for a in "yx"]
axes = [{"type": "batch", "size": 1}, {"type": "channel", "channel_names": ["a"]}, *space]
tensor = {"axes": axes, "data": {"type": "float32"}, "test_tensor": {"source": "x.npy"}}
about = {
    "format_version": "0.5.4", "type": "model", "name": "a model", "description": "a",
    "authors": [{"name": "A"}], "license": "MIT", "documentation": {"source": "README.md"},
    "cite": [{"text": "a", "doi": "10.1000/182"}], "covers": [{"source": "cover.png"}],
    "inputs": [{"id": "x", **tensor}], "outputs": [{"id": "y", **tensor}],
    "weights": {"onnx": {"source": "model.onnx", "opset_version": 18}},
    "attachments": [{"source": "notes.txt"}],
}
Path("rdf.yaml").write_text(json.dumps(about))
found = load_description(Path("rdf.yaml").absolute(), perform_io_checks=False)
seen = "refused" if isinstance(found, InvalidDescr) else "loaded"
print("pydantic", pydantic.VERSION, "seen:", seen)
if seen == "refused":
    print(str(found.validation_summary.errors[0].msg)[:160])
PY
cd "$folder"
for version in 2.12.5 2.14.4; do
  env/bin/pip install -q "pydantic==$version"
  env/bin/python -W ignore show.py 2>&1 | grep -v WARNING
done
