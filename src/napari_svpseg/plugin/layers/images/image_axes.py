"""Axes of image layers: known from the layer, or declared by the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....core.image import Axes, ImageError
from .file_axes import file_axes
from .pyramid import full_shape

if TYPE_CHECKING:
    from napari.layers import Image

DECLARED = "svpseg_axes"
"""Key in the metadata of an image: the axes and channels that the user declared."""

LABELLED = "svpseg_axis_labels"
"""Key in the metadata of an image: axis labels that we set, and may change."""

AXIS_WORDS = {
    "time": "T",
    "frame": "T",
    "channel": "C",
    "channels": "C",
    "depth": "Z",
    "slice": "Z",
    "plane": "Z",
    "row": "Y",
    "column": "X",
}


def known_axes(layer: Image) -> str:
    """Return the axes of a layer, or an empty string where the user must declare them.

    They are known from an earlier declaration, from the layer's axis labels (T, Z, C,
    Y, X or their names), when there are two axes, or from the file that the layer was
    opened from. They are never guessed from the shape.
    """
    told = declared(layer)[0]
    if told and is_valid(told, layer):
        return told
    named = "".join(
        AXIS_WORDS.get(str(label).lower(), str(label).upper())
        for label in getattr(layer, "axis_labels", ())
    )
    order = named + "C" if layer.rgb else named
    if len(named) == layer.ndim and is_valid(order, layer):
        return order
    if layer.ndim == 2:
        return "YXC" if layer.rgb else "YX"
    stated = file_axes(layer)
    return stated if stated and is_valid(stated, layer) else ""


def label_axes(layer: Image, order: str) -> None:
    """Name the axes of a stack, which napari shows beside its sliders.

    Names that a reader or the user gave are left as they are.
    """
    default = tuple(str(i) for i in range(-layer.ndim, 0))
    labels = tuple(str(label) for label in getattr(layer, "axis_labels", ()))
    ours = tuple(layer.metadata.get(LABELLED, ()))
    if layer.ndim > 2 and len(order) >= layer.ndim and labels in (default, ours):
        names = tuple(order[: layer.ndim].lower())
        layer.metadata[LABELLED] = names
        layer.axis_labels = names


def sizes_text(layer: Image, order: str) -> str:
    """Return axes with their lengths, for the user.

    Examples
    --------
    >>> sizes_text(Image(np.zeros((5, 40, 30))), "ZYX")
    'Z 5 x Y 40 x X 30'
    """
    pairs = zip(order.upper(), full_shape(layer), strict=False)
    return " x ".join(f"{letter} {length}" for letter, length in pairs)


def declared(layer: Image) -> tuple[str, tuple[int, ...] | None]:
    """Return the axes and channels declared for a layer; "" where none were."""
    order, channels = layer.metadata.get(DECLARED) or ("", None)
    return str(order), None if channels is None else tuple(channels)


def declare(layer: Image, order: str, channels: tuple[int, ...] | None) -> None:
    """Save a layer's axes and channels in its metadata, for a dock opened later."""
    layer.metadata[DECLARED] = (order, channels)


def is_valid(order: str, layer: Image) -> bool:
    """Return whether ``order`` can be the axes of an image layer."""
    try:
        Axes(order).check(full_shape(layer))
    except ImageError:
        return False
    return order.upper().endswith("C") if layer.rgb else True


def axes_choices(layer: Image) -> list[str]:
    """Return the usual axes of a layer with that many dimensions."""
    stacks = {
        2: [""],
        3: ["Z", "T", "C"],
        4: ["TZ", "ZC", "TC", "CZ", "CT"],
        5: ["TZC", "TCZ", "CTZ"],
    }
    end = "YXC" if layer.rgb else "YX"
    return [s + end for s in stacks.get(layer.ndim, []) if is_valid(s + end, layer)]
