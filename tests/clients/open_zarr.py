"""Open an OME-Zarr with another program; run by the Python that has these programs.

    python open_zarr.py PROGRAM

Writes ``N.npy`` for each image or layer into a folder, and ``layers.json`` with kind,
name, scale, translation and units of each, as far as the program has them; see `serve`.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from serve import serve


def open_in_napari(path: str, plugin: str) -> list[dict[str, Any]]:
    """Return what a reader of napari shows."""
    from napari.components import ViewerModel
    from napari.plugins import _initialize_plugins

    _initialize_plugins()
    return [
        {
            "kind": type(layer).__name__,
            "name": layer.name,
            "data": layer.data[0] if layer.multiscale else layer.data,
            "scale": (layer.scale * layer.affine.scale).tolist(),
            "translate": (layer.translate + layer.affine.translate).tolist(),
            "units": [str(unit) for unit in layer.units],
            "visible": layer.visible,
        }
        for layer in ViewerModel().open(path, plugin=plugin)
    ]


def open_with_napari(path: str) -> list[dict[str, Any]]:
    """Return what napari's own reader shows."""
    return open_in_napari(path, "napari")


def open_with_napari_ome_zarr(path: str) -> list[dict[str, Any]]:
    """Return what the plugin shows."""
    return open_in_napari(path, "napari-ome-zarr")


def open_with_bioio(path: str) -> list[dict[str, Any]]:
    """Return the first scene."""
    import bioio
    import bioio_ome_zarr

    image = bioio.BioImage(path, reader=bioio_ome_zarr.Reader)
    sizes = image.scale
    axes = [a for a in "TZYX" if getattr(image.dims, a) > 1]
    return [
        {
            "name": image.scenes[0],
            "data": image.get_image_data("".join(axes)),
            "scale": [getattr(sizes, a) for a in axes],
        }
    ]


def open_with_ngff_zarr(path: str) -> list[dict[str, Any]]:
    """Return all levels, validated."""
    import ngff_zarr

    found = ngff_zarr.from_ngff_zarr(path, validate=True)
    return [
        {
            "name": found.metadata.name,
            "data": image.data,
            "scale": [image.scale[a] for a in image.dims],
            "translate": [image.translation[a] for a in image.dims],
            "units": [(image.axes_units or {}).get(a) for a in image.dims],
        }
        for image in found.images
    ]


def open_with_ome_zarr_models(path: str) -> list[dict[str, Any]]:
    """Return the image, validated, and then its labels."""
    import zarr
    from ome_zarr_models import open_ome_zarr

    group = zarr.open_group(path, mode="r")
    image = open_ome_zarr(group)
    listed = image.labels
    names = listed.ome_attributes.labels if listed else ()
    places = [f"labels/{name}" for name in names]
    found = []
    for place in ("", *places):
        inside = group[place] if place else group
        about = (open_ome_zarr(inside) if place else image).ome_attributes.multiscales[
            0
        ]
        changes = about.datasets[0].coordinateTransformations
        moved = changes[1].translation if len(changes) > 1 else None
        found.append(
            {
                "name": about.name,
                "data": inside[about.datasets[0].path],
                "scale": changes[0].scale,
                "translate": moved or [0.0] * len(changes[0].scale),
                "units": [axis.unit for axis in about.axes],
            }
        )
    return found


PROGRAMS = {
    "napari": open_with_napari,
    "napari_ome_zarr": open_with_napari_ome_zarr,
    "bioio_ome_zarr": open_with_bioio,
    "ngff_zarr": open_with_ngff_zarr,
    "ome_zarr_models": open_with_ome_zarr_models,
}
"""Function for each program, by the name of its package."""


def write(program: str, path: str, folder: str) -> None:
    """Open an OME-Zarr and write what is in it."""
    layers = PROGRAMS[program](path)
    for n, layer in enumerate(layers):
        np.save(Path(folder) / f"{n}.npy", np.asarray(layer.pop("data")))
    (Path(folder) / "layers.json").write_text(json.dumps(layers), encoding="utf-8")


if __name__ == "__main__":
    serve({name: partial(write, name) for name in PROGRAMS})
