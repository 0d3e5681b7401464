"""M2's attention, fused and in blocks, against the plain form: numbers and memory.

    python benchmarks/bench_attention.py [--size 512] [--threads 2]

The plain form holds a (size * size) x 4096 matrix, twice: about 9 GB at 512. Exits
with status 1 when a form differs by more than 1e-4 or saves less than 20 times.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

from napari_svpseg.engine.jobs.allocator import PeakMemory
from napari_svpseg.models.svp_attention import (
    chunked_attention,
    fused_attention,
    naive_attention,
)

N_KEYS = 64 * 64
TOLERANCE = 1e-4
SAVING = 20


def inputs(size: int, features: int = 64) -> tuple[torch.Tensor, ...]:
    """Return unit embeddings over a temperature of 0.07, keys, values and bias."""
    generator = torch.Generator().manual_seed(0)

    def unit(n: int) -> torch.Tensor:
        rows = torch.randn(1, n, features, generator=generator)
        return torch.nn.functional.normalize(rows, dim=2)

    foreground = (torch.rand(1, N_KEYS, generator=generator) > 0.7).float()
    values = torch.stack([1 - foreground, foreground], dim=2)
    bias = -torch.where(foreground > 0, 0.3, 0.7).log()
    return unit(size * size) / 0.07, unit(N_KEYS), values, bias


def main() -> None:
    """Run each form once, warm, and compare with the plain one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="side of the query")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tensors, small = inputs(options.size), inputs(32)
    forms = {
        "fused": fused_attention,
        "blocks": chunked_attention,
        "plain": naive_attention,
    }
    answers, peaks = {}, {}
    print(
        f"{options.size} x {options.size} query, {N_KEYS} keys, "
        f"{options.threads} threads"
    )
    with torch.no_grad():
        for name, form in forms.items():
            form(*small)  # warm
            with PeakMemory() as memory:
                start = time.perf_counter()
                answers[name] = form(*tensors)
                seconds = time.perf_counter() - start
            peaks[name] = memory.peak_mb
            print(f"{name:8s} {seconds:8.2f} s   peak {memory.peak_mb or 0:9.1f} MB")
    failed = False
    for name in ("fused", "blocks"):
        difference = float((answers[name] - answers["plain"]).abs().max())
        saved = (peaks["plain"] or 0) / max(peaks[name] or 0, 0.1)
        print(f"{name:8s} differs by {difference:.1e}, {saved:.0f} times less memory")
        failed |= difference > TOLERANCE or (name == "fused" and saved < SAVING)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
