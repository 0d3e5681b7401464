"""Write an OME-Zarr with ngff-zarr, as it does by default; run by the clients' Python.

python write_ngff_zarr.py IMAGE.npy PATH VERSION
"""

from __future__ import annotations

import importlib.util
import sys

import numpy as np


def main(source: str, path: str, version: str) -> int:
    """Write the image; return the exit status, 3 without ngff-zarr."""
    if importlib.util.find_spec("ngff_zarr") is None:
        return 3
    import ngff_zarr

    image = ngff_zarr.to_ngff_image(
        np.load(source),
        dims=("y", "x"),
        scale={"y": 0.5, "x": 0.25},
        translation={"y": 10.0, "x": -4.0},
        axes_units={"y": "micrometer", "x": "micrometer"},
    )
    multiscales = ngff_zarr.to_multiscales(image, scale_factors=[2])
    ngff_zarr.to_ngff_zarr(path, multiscales, version=version)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
