#!/usr/bin/env bash
# torch.onnx.export (dynamo): a floor division of a negative shape rounds towards zero.
#
# Expected: an expression of a symbolic shape, such as -((1 - n) // 3) with n = 5, has the
# value that it has in Python and in torch.export (2), when ONNX Runtime runs the graph.
# Seen: sizes are divided by ONNX's Div, which cuts off, so that negative quotients that
# are no whole numbers differ by one. Here the output has one element instead of two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 \
  onnxruntime==1.32.0
cat > "$folder/show.py" <<'PY'
import numpy as np
import onnxruntime
import torch


class Count(torch.nn.Module):
    def forward(self, x):
        n = -((1 - x.shape[0]) // 3)
        return torch.arange(n)


x = torch.zeros(5)
shapes = ({0: torch.export.Dim("n", min=3, max=100)},)
program = torch.onnx.export(
    Count(), (x,), dynamo=True, dynamic_shapes=shapes, input_names=["x"], verbose=False
)
session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
(found,) = session.run(None, {"x": np.zeros(5, np.float32)})
print("torch", torch.__version__, "expected:", Count()(x).tolist(), "seen:", found.tolist())
assert len(Count()(x)) == 2 and len(found) == 1
PY
"$folder/env/bin/python" -W ignore "$folder/show.py"
