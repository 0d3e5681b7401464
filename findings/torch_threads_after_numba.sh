#!/usr/bin/env bash
# A function of numba that runs in parallel changes how many threads torch uses.
#
# Expected: torch keeps to OMP_NUM_THREADS, or to torch.set_num_threads, whatever other
# libraries of the process do.
# Seen: numba's OpenMP layer sets the number of threads of the OpenMP library, which
# torch asks each time. After the first parallel function, torch uses as many threads as
# numba (all cores, or NUMBA_NUM_THREADS). napari draws labels with such functions, so
# adding a Labels layer is enough. Set NUMBA_NUM_THREADS as well.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0 numba==0.68.1 numpy
cat > "$folder/show.py" <<'PY'
import numba
import numpy as np
import torch


@numba.njit(parallel=True)
def total(values):
    found = 0.0
    for i in numba.prange(len(values)):
        found += values[i]
    return found


torch.set_num_threads(1)
before = torch.get_num_threads()
total(np.ones(1000))
print("torch", torch.__version__, "numba", numba.__version__, numba.threading_layer())
print("numba's threads:", numba.get_num_threads())
print("torch's threads, expected:", before, "seen:", torch.get_num_threads())
assert before == 1 and torch.get_num_threads() == numba.get_num_threads() == 2
PY
OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 NUMBA_THREADING_LAYER=omp \
  "$folder/env/bin/python" "$folder/show.py"
