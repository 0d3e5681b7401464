"""OME-Zarr images and labels in the viewer, read only where they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.jobs.folder_job import image_name
from ..metadata import layer_name
from .channel_names import CHANNEL_NAMES

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


def add_zarr(viewer: ViewerModel, path: str | Path, kind: str = "image") -> Layer:
    """Add a layer that shows an OME-Zarr with all levels and its pixel size.

    Parameters
    ----------
    viewer : ViewerModel
    path : path
    kind : str
        ``image`` or ``labels``.

    Raises
    ------
    ImageError
        If there is no OME-Zarr that can be read.
    """
    from ....io.ome_zarr import open_image

    first = open_image(path)
    levels = [first, *(open_image(path, n) for n in range(1, first.n_levels))]
    order = first.axes.order
    is_rgb = kind == "image" and order.endswith("C")
    names = order[:-1] if is_rgb else order
    more: dict[str, Any] = {"rgb": True} if is_rgb else {}
    arrays = [level.array for level in levels]
    is_group = Path(path).parent.name == "labels"  # of labels in an image's Zarr
    name = Path(path).name if is_group else image_name(str(path))
    return getattr(viewer, f"add_{kind}")(
        arrays if len(arrays) > 1 else arrays[0],
        multiscale=len(arrays) > 1,
        name=layer_name(name),
        scale=[first.scale.get(a, 1.0) for a in names],
        translate=[first.origin.get(a, 0.0) for a in names],
        units=[
            first.unit if a in "ZYX" and a in first.scale else "pixel" for a in names
        ],
        axis_labels=tuple(names.lower()),
        metadata={CHANNEL_NAMES: first.channel_names},
        **more,
    )
