"""The writers of the manifest, and `write_layer`, which the docks save with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.jobs import folder_job
from .layers.images.pyramid import full_data
from .layers.metadata import METADATA_KEY
from .layers.placement import PLACE, Place
from .layers.results.kept_objects import dropped_ids
from .layers.results.stored_arrays import KeptChannel
from .layers.results.stored_results import MAX_WHOLE

if TYPE_CHECKING:
    from napari.layers import Labels

    from ..io.exports import ExportData


def write_ome_tiff(
    path: str = "", data: Any = None, meta: dict[str, Any] | None = None
) -> list[str]:
    """Write a Labels layer as OME-TIFF, with its pixel size and recipe.

    A file called ``NAME_cp_masks.tif`` is one for Cellpose instead.

    A file that is there is replaced: napari's dialog has asked the user. It does not
    ask about folders, so that of those only a run's own OME-Zarr is replaced. What a
    user saves is never replaced by a run.

    Parameters
    ----------
    path : str
        Empty: the file is asked for, and the selected Labels layer is written. So the
        palette of napari calls it.
    data : int array
        Object ids.
    meta : dict
        The layer's attributes, as napari gives them.

    Returns
    -------
    list of str
        What was written.
    """
    is_cellpose = format_of(path) == "cellpose-tif"
    return _saved("cellpose-tif" if is_cellpose else "ome-tiff", path, data, meta)


def write_rois(
    path: str = "", data: Any = None, meta: dict[str, Any] | None = None
) -> list[str]:
    """Write a Labels layer as a zip of ImageJ ROIs; see `write_ome_tiff`."""
    return _saved("rois", path, data, meta)


def write_geojson(
    path: str = "", data: Any = None, meta: dict[str, Any] | None = None
) -> list[str]:
    """Write a Labels layer as GeoJSON for QuPath; see `write_ome_tiff`."""
    return _saved("geojson", path, data, meta)


def write_ome_zarr(
    path: str = "", data: Any = None, meta: dict[str, Any] | None = None
) -> list[str]:
    """Write a Labels layer as OME-Zarr labels with a pyramid; see `write_ome_tiff`."""
    return _saved("ome-zarr", path, data, meta)


def write_masks_png(
    path: str = "", data: Any = None, meta: dict[str, Any] | None = None
) -> list[str]:
    """Write a plane of labels as PNG of 16 bits; see `write_ome_tiff`."""
    return _saved("cellpose-png", path, data, meta)


def write_npy(
    path: str = "", data: Any = None, meta: dict[str, Any] | None = None
) -> list[str]:
    """Write labels as NumPy array, or ``NAME_seg.npy`` for Cellpose's window."""
    is_session = format_of(path) == "cellpose-seg"
    return _saved("cellpose-seg" if is_session else "npy", path, data, meta)


def write_csv(
    path: str = "", data: Any = None, meta: dict[str, Any] | None = None
) -> list[str]:
    """Write the measurements of a Labels layer as CSV; see `write_ome_tiff`."""
    return _saved("csv", path, data, meta)


def write_layer(path: str, layer: Labels) -> str:
    """Write a Labels layer in the format that the path's end says."""
    meta = {name: getattr(layer, name, None) for name in PLACE}
    meta["metadata"], meta["features"] = layer.metadata, layer.features
    return _write(format_of(path), path, full_data(layer), meta)


def format_of(path: str) -> str:
    """Return the format that a path's end names; OME-TIFF where it names none.

    Examples
    --------
    >>> format_of("cells.ZIP")
    'rois'
    """
    return folder_job.format_of(path) or "ome-tiff"


def _saved(kind: str, path: str, data: Any, meta: dict[str, Any] | None) -> list[str]:
    """Return what was written, of the selected layer where no file is given."""
    if path:
        return [_write(kind, path, data, meta or {})]
    from .file_dialogs import save_selected

    return save_selected(kind, write_layer)


def _write(kind: str, path: str, data: Any, meta: dict[str, Any]) -> str:
    from ..io.exports import export

    metadata = dict((meta.get("metadata") or {}).get(METADATA_KEY) or {})
    if not hasattr(data, "dtype") or meta.get("multiscale"):
        data = data[0]  # of a pyramid
    if kind != "ome-zarr":
        if data.size > MAX_WHOLE:
            raise ValueError(
                f"{path}: {data.size / 1e6:.0f} megapixels are too many for this "
                "format: save as OME-Zarr."
            )
        data = np.asarray(data)
    if isinstance(data, np.ndarray):
        data = without(data, dropped_ids(meta.get("features")))
    found = replace(
        _found(data, metadata, meta), overwrite=kind != "ome-zarr", sealed=False
    )
    return str(export(path, kind, found))


def _found(ids: Any, metadata: dict[str, Any], meta: dict[str, Any]) -> ExportData:
    """Return ids with what their layer knows of them."""
    from ..core.result import Recipe
    from ..io.exports import ExportData

    axes = str(metadata.get("axes") or _axes_of(ids, meta))
    found = Place.from_attributes(meta, ids.ndim).calibration(axes)
    if "C" in axes and ids.shape[axes.index("C")] == 1:
        channel = axes.index("C")
        ids = ids.array if isinstance(ids, KeptChannel) else ids.take(0, axis=channel)
        axes = axes.replace("C", "")
    values = metadata.get("recipe")
    recipe = Recipe.from_json(json.dumps(values, default=str)) if values else None
    return ExportData(
        ids,
        axes,
        pixel_size=found.pixel_size,
        unit=found.unit,
        z_step=found.sizes.get("Z"),
        recipe=recipe,
        origin=found.origin,
        factors=level_of(metadata),
        corner=corner_of(metadata),
        flipped=found.flipped,
        n_channels=int(metadata.get("n_channels", 1)),
        classes=metadata.get("classes") or {},
        class_of={int(i): n for i, n in (metadata.get("class_of") or {}).items()},
    )


def without(ids: np.ndarray, dropped: np.ndarray) -> np.ndarray:
    """Return labels without the objects that are not kept.

    Parameters
    ----------
    ids : int array
    dropped : (n,) int array
        Their ids.
    """
    gone = np.isin(ids, dropped) if len(dropped) else np.zeros(0, bool)
    return np.where(gone, ids.dtype.type(0), ids) if gone.any() else ids


def level_of(metadata: dict[str, Any]) -> tuple[float, float]:
    """Return height and width of a pixel of a result in pixels of its image.

    They are larger than 1 for a smaller level of a pyramid.
    """
    axes, grid = metadata.get("axes"), metadata.get("grid")
    if not axes or not grid:
        return (1.0, 1.0)
    factors = dict(zip(axes, grid["factors"], strict=True))
    return (factors["Y"], factors["X"])


def corner_of(metadata: dict[str, Any]) -> dict[str, int]:
    """Return the index of a result's first pixel and plane in its image, by axis."""
    axes, grid = metadata.get("axes"), metadata.get("grid")
    if not axes or not grid:
        return {}
    return {a: int(n) for a, n in zip(axes, grid["corner"], strict=True) if n}


def _axes_of(ids: np.ndarray, meta: dict[str, Any]) -> str:
    """Return a user's own axis labels where they are axes, else TIFF's usual order."""
    named = "".join(str(a).upper() for a in meta.get("axis_labels") or ())
    if len(named) == ids.ndim and set("YX") <= set(named) <= set("TZYX"):
        return named
    return {2: "YX", 3: "ZYX", 4: "TZYX"}.get(ids.ndim, "TZCYX"[-ids.ndim :])
