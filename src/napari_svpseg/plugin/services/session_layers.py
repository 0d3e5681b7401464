"""Layers as plain values that a session can hold, and layers made of them again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ...io.content import content_fingerprint
from ..layers.images.image_axes import DECLARED, declared
from ..layers.labels.partial_label_layers import KIND as PARTIAL
from ..layers.labels.partial_label_layers import color
from ..layers.metadata import METADATA_KEY, metadata_of
from .edited_blocks import PAINTED

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer, Shapes

logger = logging.getLogger(__name__)

PLACE = ("scale", "translate", "rotate", "shear", "units", "axis_labels")
"""Attributes that say where a layer lies, beside its affine."""

Entry = dict[str, Any]
"""One layer, as JSON can hold it."""


def _place(layer: Layer) -> dict[str, Any]:
    place: dict[str, Any] = {"affine": np.asarray(layer.affine.affine_matrix).tolist()}
    for name in PLACE:
        value = getattr(layer, name, None)
        if value is None:
            continue
        if name in ("units", "axis_labels"):
            place[name] = [str(v) for v in value]
        elif name != "shear" or np.any(value):
            place[name] = np.asarray(value).tolist()
    return place


def image_entry(layer: Layer) -> Entry:
    """Return where an image can be opened from again, and its declared axes."""
    source = layer.source
    axes, channels = declared(layer)
    return {
        "name": layer.name,
        "path": str(source.path or ""),
        "plugin": source.reader_plugin,
        "sample": list(source.sample or ()),
        "axes": axes,
        "channels": channels,
    }


def add_contents(entries: list[Entry], known: dict[str, str]) -> None:
    """Add the fingerprint of its file to each image; slow, so call it in a thread.

    Parameters
    ----------
    entries : list of dict
    known : dict of str to str
        Fingerprint of each path, as it was when the image was first seen; extended.
    """
    for entry in entries:
        path = entry["path"]
        if path and path not in known:
            known[path] = _content_of(path)
        entry["fingerprint"] = known.get(path, "")


def changed_images(state: dict[str, Any]) -> list[str]:
    """Return the names of a session's images whose files have another content now."""
    return [
        entry["name"]
        for entry in state.get("images", [])
        if entry.get("fingerprint")
        and _content_of(entry["path"]) not in ("", entry["fingerprint"])
    ]


def _content_of(path: str) -> str:
    """Return the fingerprint of an image's file; empty where it cannot be read."""
    try:
        return content_fingerprint(path)
    except (OSError, ValueError):
        return ""


def labels_entry(layer: Labels, key: str, names: dict[Any, str]) -> Entry:
    """Return a Labels layer without its pixels.

    Parameters
    ----------
    layer : Labels
    key : str
        Of its pixels in the session.
    names : dict
        Id of a layer -> its name: ids change when a session is opened again.
    """
    metadata = metadata_of(layer) or {}
    kept = metadata if metadata.get("kind") in PAINTED else {}
    return {
        "key": key,
        "name": layer.name,
        "opacity": layer.opacity,
        "metadata": {**kept, "image": names.get(kept.get("image"), "")} if kept else {},
        "place": _place(layer),
    }


def boxes_entry(layer: Shapes) -> Entry:
    """Return a layer of prompt boxes."""
    ids = list(layer.features["id"]) if "id" in layer.features else []
    return {
        "name": layer.name,
        "ndim": layer.ndim,
        "vertices": [np.asarray(v).tolist() for v in layer.data],
        "ids": [str(i) for i in ids],
        "metadata": metadata_of(layer),
        "place": _place(layer),
    }


def open_images(viewer: ViewerModel, state: dict[str, Any]) -> list[str]:
    """Open the images of a session; return the names of those that have no file."""
    missing = []
    for image in state.get("images", []):
        if any(la.name == image["name"] for la in viewer.layers):
            continue
        metadata = {}
        if image["axes"]:
            metadata = {"metadata": {DECLARED: (image["axes"], image["channels"])}}
        try:
            if image["path"]:
                plugin = image["plugin"] or "napari"
                layers = viewer.open(image["path"], plugin=plugin, **metadata)
                if len(layers) == 1:
                    layers[0].name = image["name"]
            elif image["sample"]:
                _open_sample(viewer, image)
            else:
                missing.append(image["name"])
        except Exception:
            logger.exception("could not open %s again", image["path"])
            missing.append(image["name"])
    return missing


def _open_sample(viewer: ViewerModel, image: Entry) -> None:
    """Open a sample again, without the boxes that come with it."""
    plugin, key = image["sample"]
    for layer in viewer.open_sample(plugin, key):
        if metadata_of(layer, "boxes"):
            viewer.layers.remove(layer)


def add_labels(viewer: ViewerModel, entry: Entry, array: np.ndarray) -> Labels:
    """Add a Labels layer of a session with these pixels, and return it."""
    metadata = dict(entry["metadata"])
    image = next((la for la in viewer.layers if la.name == metadata.get("image")), None)
    if image is not None:
        metadata["image"] = image.unique_id
    name = entry["name"]
    if not metadata and any(la.name == name for la in viewer.layers):
        name = f"{name} (restored)"
    layer = viewer.add_labels(
        array,
        name=name,
        opacity=entry["opacity"],
        metadata={METADATA_KEY: metadata} if metadata else {},
        **_placed(entry["place"]),
    )
    if metadata.get("kind") == PARTIAL:
        color(layer)
    return layer


def add_boxes(viewer: ViewerModel, state: dict[str, Any]) -> None:
    """Add the prompt boxes of a session whose images are open."""
    names = {la.name for la in viewer.layers}
    for entry in state.get("boxes", []):
        metadata = entry["metadata"]
        if metadata.get("image") not in names or not entry["vertices"]:
            continue
        viewer.add_shapes(
            [np.asarray(v) for v in entry["vertices"]],
            ndim=entry["ndim"],
            shape_type="rectangle",
            name=entry["name"],
            face_color="transparent",
            edge_width=2,
            opacity=1.0,
            features={
                "id": np.asarray(entry["ids"], object),
                "name": np.asarray([""] * len(entry["ids"]), object),
            },
            metadata={METADATA_KEY: metadata},
            **_placed(entry["place"]),
        )


def _placed(place: dict[str, Any]) -> dict[str, Any]:
    return {
        k: tuple(v) if k in ("units", "axis_labels") else v for k, v in place.items()
    }
