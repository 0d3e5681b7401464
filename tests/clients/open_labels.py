"""Open labels with another program; run by the Python that has these programs.

    python open_labels.py PROGRAM

Writes what it reads into a folder, as ``pixels.npy`` and ``about.json``; see `serve`.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from serve import serve

Found = tuple[Any, dict[str, Any]]


def open_with_bioio_ome_tiff(path: str) -> Found:
    """Return the first scene."""
    import bioio
    import bioio_ome_tiff

    image = bioio.BioImage(path, reader=bioio_ome_tiff.Reader)
    axes = [a for a in "TZYX" if getattr(image.dims, a) > 1]
    sizes = image.physical_pixel_sizes
    about = {
        "name": image.ome_metadata.images[0].name,
        "axes": "".join(axes),
        "size": [sizes.Z, sizes.Y, sizes.X],
    }
    return image.get_image_data("".join(axes)), about


def open_with_napari(path: str) -> Found:
    """Return what napari's own reader shows."""
    from napari.components import ViewerModel
    from napari.plugins import _initialize_plugins

    _initialize_plugins()
    (layer,) = ViewerModel().open(path, plugin="napari", layer_type="labels")
    return layer.data, {"kind": type(layer).__name__, "name": layer.name}


def open_with_opencv(path: str) -> Found:
    """Return the pages, read by libtiff or libpng."""
    import cv2

    return np.squeeze(np.stack(cv2.imreadmulti(path, flags=-1)[1])), {}


def open_with_pillow(path: str) -> Found:
    """Return the pages."""
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        pages = [np.asarray(page) for page in ImageSequence.Iterator(image)]
    return np.squeeze(np.stack(pages)), {}


def open_with_cellpose(path: str) -> Found:
    """Return the masks that Cellpose pairs with the image of the folder.

    Its reader of files needs no torch, which its package imports all the same.
    """
    names = ("torch", "torch.fft", "torchvision", "torchvision.transforms")
    for name in names:
        sys.modules.setdefault(name, MagicMock(__version__="0"))
    from cellpose import io

    place = Path(path)
    end = next(e for e in ("_cp_masks", "_seg.npy") if e in place.name)
    found = io.load_train_test_data(str(place.parent), mask_filter=end)
    (image,), (masks,), (name,) = found[:3]
    return masks, {"image": Path(name).name, "mean": float(image.mean())}


def open_with_geopandas(path: str) -> Found:
    """Return ids at the pixels whose middles are inside of the features."""
    import geopandas
    import shapely

    table = geopandas.read_file(path)
    values = json.loads(Path(path).read_text())["features"]
    planes = [f["geometry"].get("plane", {"z": 0, "t": 0}) for f in values]
    shape = json.loads((Path(path).parent / "shape.json").read_text())
    pixels = np.zeros(shape, np.int64)  # T, Z, Y, X
    x, y = np.meshgrid(np.arange(shape[3]) + 0.5, np.arange(shape[2]) + 0.5)
    for shape, label, plane in zip(table.geometry, table["label"], planes, strict=True):
        assert shape.is_valid
        inside = shapely.contains_xy(shape, x, y)
        pixels[plane["t"], plane["z"]][inside] = label
    rings = [
        ring.is_ccw
        for shape in table.geometry
        for part in shapely.get_parts(shape)
        for ring in (part.exterior, *(shapely.reverse(r) for r in part.interiors))
    ]
    about = {
        "columns": sorted(map(str, table.columns)),
        "types": sorted(set(table["objectType"])),
        "classes": [v["properties"]["classification"] for v in values],
        "measured": [v["properties"]["measurements"] for v in values],
        "areas": table.geometry.area.tolist(),
        "labels": table["label"].tolist(),
        "is_ccw": all(rings),
    }
    return pixels, about


def open_with_pandas(path: str) -> Found:
    """Return the label and the area of each row."""
    import pandas

    table = pandas.read_csv(path)
    kinds = {name: str(kind) for name, kind in table.dtypes.items()}
    return table[["label", "area"]].to_numpy(), {"kinds": kinds}


def open_with_skimage(path: str) -> Found:
    """Return the pixels."""
    from skimage.io import imread

    return imread(path), {}


def open_with_numpy(path: str) -> Found:
    """Return the array, without pickles."""
    return np.load(path, allow_pickle=False), {}


PROGRAMS = {
    "bioio_ome_tiff": open_with_bioio_ome_tiff,
    "napari": open_with_napari,
    "cv2": open_with_opencv,
    "PIL": open_with_pillow,
    "cellpose": open_with_cellpose,
    "geopandas": open_with_geopandas,
    "pandas": open_with_pandas,
    "skimage": open_with_skimage,
    "numpy": open_with_numpy,
}
"""Function for each program, by the name of its package."""


def write(program: str, path: str, folder: str) -> None:
    """Open a file and write what is in it."""
    pixels, about = PROGRAMS[program](path)
    np.save(Path(folder) / "pixels.npy", np.asarray(pixels))
    (Path(folder) / "about.json").write_text(json.dumps(about), encoding="utf-8")


if __name__ == "__main__":
    serve({name: partial(write, name) for name in PROGRAMS})
