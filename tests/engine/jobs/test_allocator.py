"""Freed memory stays with the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("resource")

FAULTS = """
import sys, resource
import numpy as np
from napari_svpseg.engine.jobs.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = keep_freed_memory() if sys.argv[1] == "kept" else None
np.ones(2_000_000)
before = faults()
for _ in range(20):
    np.ones(2_000_000)
print(kept, faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_blocks_are_used_again_also_under_the_settings_of_dask():
    def run(what: str) -> tuple[str, int]:
        out = subprocess.run(
            [sys.executable, "-c", FAULTS, what],
            check=True,
            text=True,
            capture_output=True,
            env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"},
        ).stdout.split()
        return out[0], int(out[1])

    kept, few = run("kept")
    _, many = run("given back")
    if kept == "False":
        pytest.skip("not glibc: nothing is promised")
    assert few < 20 < 100 < many  # even where pages are huge
