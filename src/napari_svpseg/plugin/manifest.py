"""What the manifest names: the reader, the writers and the menu commands."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.jobs.folder_job import FORMATS
from .docks.tabs import bring_to_front
from .layers.edit_window import full_labels
from .layers.image_source import MARK
from .layers.stored_results import MAX_WHOLE, KeptChannel

if TYPE_CHECKING:
    import napari
    from napari.layers import Labels

    from ..io.exports import ExportData

logger = logging.getLogger(__name__)

WIDGET = "Segment from prompts"
PLUGIN = "napari-svpseg"


def get_prompt_reader(path: str | list[str]) -> Callable[[Any], list[Any]] | None:
    """Return the reader of prompt sets, or None for other files."""
    paths = [path] if isinstance(path, str) else list(path)
    if not all(str(p).lower().endswith(".svprompt") for p in paths):
        return None
    return read_prompts


def read_prompts(path: str | list[str]) -> list[Any]:
    """Open prompt sets: into the dock if it is open, else as crops and masks.

    Returns
    -------
    list of (data, attributes, layer type)
    """
    from ..io.prompt_files import load_prompts

    paths = [path] if isinstance(path, str) else list(path)
    dock = open_dock()
    if dock is not None:
        for one in paths:
            dock.prompt_panel.load_prompt_set(str(one))
        return [(None,)]
    layers: list[Any] = []
    for one in paths:
        for n, prompt in enumerate(load_prompts(one)):
            # side by side, so that all are seen at once
            place = {"translate": (0, n * (prompt.image.shape[1] + 8))}
            crop = prompt.image if prompt.rgb else prompt.image[..., 0]
            if prompt.rgb:
                crop = np.clip(crop, 0, 255).astype(np.uint8)
            layers.append(
                (crop, {"name": prompt.name, "rgb": prompt.rgb, **place}, "image")
            )
            layers.append(
                (prompt.mask, {"name": f"{prompt.name} mask", **place}, "labels")
            )
    return layers


def write_ome_tiff(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Labels layer as OME-TIFF, with its pixel size and recipe.

    Parameters
    ----------
    path : str
    data : int array
        Object ids.
    meta : dict
        The layer's attributes, as napari gives them.

    Returns
    -------
    list of str
        What was written.
    """
    return [_write("ome-tiff", path, data, meta)]


def write_rois(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Labels layer as a zip of ImageJ ROIs; see `write_ome_tiff`."""
    return [_write("rois", path, data, meta)]


def write_geojson(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Labels layer as GeoJSON for QuPath; see `write_ome_tiff`."""
    return [_write("geojson", path, data, meta)]


def write_ome_zarr(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Labels layer as OME-Zarr labels with a pyramid; see `write_ome_tiff`."""
    return [_write("ome-zarr", path, data, meta)]


def write_csv(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write the measurements of a Labels layer as CSV; see `write_ome_tiff`."""
    return [_write("csv", path, data, meta)]


def write_layer(path: str, layer: Labels) -> str:
    """Write a Labels layer in the format that the path's end says."""
    meta = {
        "scale": layer.scale,
        "units": getattr(layer, "units", None),
        "axis_labels": getattr(layer, "axis_labels", None),
        "metadata": layer.metadata,
    }
    return _write(format_of(path), path, full_labels(layer), meta)


def format_of(path: str) -> str:
    """Return the format that a path's end names; OME-TIFF where it names none.

    Examples
    --------
    >>> format_of("cells.ZIP")
    'rois'
    """
    ends = [kind for kind, end in FORMATS.items() if path.lower().endswith(end)]
    return ends[0] if ends else "ome-tiff"


def _write(kind: str, path: str, data: Any, meta: dict[str, Any]) -> str:
    from ..io.exports import export

    mark = dict((meta.get("metadata") or {}).get(MARK) or {})
    if not hasattr(data, "dtype") or meta.get("multiscale"):
        data = data[0]  # of a pyramid
    if kind != "ome-zarr":
        if data.size > MAX_WHOLE:
            raise ValueError(
                f"{path}: {data.size / 1e6:.0f} megapixels are too many for this "
                "format: save as OME-Zarr."
            )
        data = np.asarray(data)
    return str(export(path, kind, _found(data, mark, meta)))


def _found(ids: Any, mark: dict[str, Any], meta: dict[str, Any]) -> ExportData:
    """Return ids with what their layer knows of them."""
    from ..core.result import Recipe
    from ..io.exports import ExportData

    axes = str(mark.get("axes") or _axes_of(ids, meta))
    scale = np.asarray(meta.get("scale", np.ones(ids.ndim)), float)
    units = meta.get("units")
    if "C" in axes and ids.shape[axes.index("C")] == 1:
        channel = axes.index("C")
        ids = ids.array if isinstance(ids, KeptChannel) else ids.take(0, axis=channel)
        scale = np.delete(scale, channel)
        units = [u for i, u in enumerate(units) if i != channel] if units else None
        axes = axes.replace("C", "")
    values = mark.get("recipe")
    recipe = Recipe.from_json(json.dumps(values, default=str)) if values else None
    return ExportData(
        ids,
        axes,
        pixel_size=(float(scale[axes.index("Y")]), float(scale[axes.index("X")])),
        unit=str(units[axes.index("Y")]) if units is not None else "pixel",
        z_step=float(scale[axes.index("Z")]) if "Z" in axes else None,
        recipe=recipe,
    )


def _axes_of(ids: np.ndarray, meta: dict[str, Any]) -> str:
    """Return a user's own axis labels where they are axes, else TIFF's usual order."""
    named = "".join(str(a).upper() for a in meta.get("axis_labels") or ())
    if len(named) == ids.ndim and set("YX") <= set(named) <= set("TZYX"):
        return named
    return {2: "YX", 3: "ZYX", 4: "TZYX"}.get(ids.ndim, "TZCYX"[-ids.ndim :])


def open_dock() -> Any:
    """Return the dock of the current viewer, or None where it is not open."""
    import napari

    from .docks.segment_dock import SegmentWidget

    viewer = napari.current_viewer()
    if viewer is None:
        return None
    for dock in SegmentWidget.docks():
        if _bare(dock.viewer) is _bare(viewer):
            return dock
    return None


def _bare(viewer: Any) -> Any:
    """Return the viewer itself, not the proxy that plugins are given."""
    return getattr(viewer, "__wrapped__", viewer)


def add_prompt(viewer: napari.viewer.Viewer) -> None:
    """Place a box in the middle of the view, in the dock (opened if need be)."""
    dock = show_dock(viewer)
    dock.prompt_panel.add_prompt_at_centre()


def show_dock(viewer: napari.viewer.Viewer) -> Any:
    """Return the dock, in front of others and opened if need be."""
    dock = open_dock()
    if dock is None:
        _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET, tabify=True)
    bring_to_front(dock)
    return dock
