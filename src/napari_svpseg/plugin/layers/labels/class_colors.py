"""Names and colours of classes, in the docks and in Labels layers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.utils.colormaps import DirectLabelColormap, label_colormap

from ....core.annotation.image_tags import COLOURS
from ....core.result import Result
from ..metadata import metadata_of
from .object_colors import PALETTE, colormap_of

if TYPE_CHECKING:
    from napari.layers import Labels

NO_CLASS_COLOR = "#8c8c8c"
"""Colour of ids that the user has added: they are seen, and have no class."""

CLASS = "class"
"""Column of a layer's features; napari shows it for the id under the pointer."""


def class_color(i: int) -> str:
    """Return the colour of the i-th class (from 0), ``#rrggbb``."""
    return COLOURS[i % len(COLOURS)]


def class_entries(result: Result, *, is_part: bool = False) -> dict[str, Any]:
    """Return the entries on classes in a result layer's metadata.

    Parameters
    ----------
    result : Result
    is_part : bool
        The layer has other planes too, whose objects have the same ids.

    Returns
    -------
    dict
        ``classes``: name -> colour. ``class_of``: id -> name. Both are empty for a
        model that knows no classes.
    """
    are_classes = result.recipe.postprocess.get("labels") == "classes"
    if not result.classes or (is_part and not are_classes):
        return {"classes": {}, "class_of": {}}
    return {"classes": dict(result.classes), "class_of": result.class_of}


def with_labels(result: Result, labels: Any, options: dict[str, Any]) -> Result:
    """Return a result with labels that were made with other options."""
    post = {**result.recipe.postprocess, **options}
    return replace(
        result, labels=labels, recipe=replace(result.recipe, postprocess=post)
    )


def plain_colors(layer: Labels) -> Any:
    """Return the colours of a result without classes: its palette, or napari's own."""
    palette = (metadata_of(layer) or {}).get(PALETTE)
    return colormap_of(palette) if palette else label_colormap()


def dress(layer: Labels) -> None:
    """Show the colours and names of classes that are in a result's metadata.

    A layer without classes has the colours of its palette.
    """
    metadata = metadata_of(layer) or {}
    classes, class_of = metadata.get("classes") or {}, metadata.get("class_of") or {}
    if not classes:
        if CLASS in layer.features:
            layer.features = {}
            layer.colormap = plain_colors(layer)
        return
    colors: dict[int | None, str] = {None: NO_CLASS_COLOR, 0: "transparent"}
    colors |= {int(i): classes[name] for i, name in class_of.items()}
    layer.colormap = DirectLabelColormap(color_dict=colors)
    layer.features = {
        "index": [0, *(int(i) for i in class_of)],
        CLASS: ["background", *class_of.values()],
    }
