"""Layers as plain values that a session can hold, and layers made of them again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ...io.content import content_fingerprint
from ..layers.images.image_axes import DECLARED, declared
from ..layers.labels.partial_label_layers import KIND as PARTIAL
from ..layers.labels.partial_label_layers import color
from ..layers.metadata import (
    ID,
    METADATA_KEY,
    find_layer,
    is_image,
    layer_id,
    layer_name,
    metadata_of,
)
from ..layers.placement import Place
from ..layers.results.corrected import KEY as CORRECTED
from ..layers.results.corrected import corrected_entries, from_entries
from .edited_blocks import PAINTED

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer, Shapes

logger = logging.getLogger(__name__)

Entry = dict[str, Any]
"""One layer, as JSON can hold it."""


def _place(layer: Layer) -> dict[str, Any]:
    return {
        name: [str(v) for v in value]
        if name in ("units", "axis_labels")
        else np.asarray(value).tolist()
        for name, value in Place.of(layer).arguments().items()
    }


def image_entry(layer: Layer) -> Entry:
    """Return where an image can be opened from again, and its declared axes."""
    source = layer.source
    axes, channels = declared(layer)
    return {
        "id": layer_id(layer),
        "name": layer.name,
        "path": str(source.path or ""),
        "plugin": source.reader_plugin,
        "sample": list(source.sample or ()),
        "axes": axes,
        "channels": channels,
        "corrected": corrected_entries(layer),
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


def labels_entry(layer: Labels, key: str) -> Entry:
    """Return a Labels layer without its pixels.

    Parameters
    ----------
    layer : Labels
    key : str
        Of its pixels in the session.
    """
    metadata = metadata_of(layer) or {}
    return {
        "key": key,
        "id": layer_id(layer),
        "name": layer.name,
        "opacity": layer.opacity,
        "metadata": metadata if metadata.get("kind") in PAINTED else {},
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
    """Open the images of a session; return the names of those that have no file.

    Images that are open already, from the same file or, without one, with the same
    name, are taken for those of the session: what lies on them is put on those.
    """
    missing = []
    for image in state.get("images", []):
        there = _open_already(viewer, image)
        if there is not None:
            _take_over(state, image["id"], layer_id(there))
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
                for layer in layers:
                    if layer.name == image["name"]:
                        _take_over(state, image["id"], layer_id(layer))
            elif image["sample"]:
                _open_sample(viewer, image, state)
            else:
                missing.append(image["name"])
        except Exception:
            logger.exception("could not open %s again", image["path"])
            missing.append(image["name"])
    for image in state.get("images", []):
        there = _open_already(viewer, image)
        if there is not None and image.get("corrected"):
            there.metadata.setdefault(CORRECTED, from_entries(image["corrected"]))
    return missing


def _open_already(viewer: ViewerModel, image: Entry) -> Layer | None:
    """Return the open image that is one of a session, or None."""
    images = [layer for layer in viewer.layers if is_image(layer)]
    found = find_layer(images, image["id"])
    if found is not None:
        return found
    same = [la for la in images if str(la.source.path or "") == image["path"]]
    named = [la for la in same if la.name == image["name"]]
    if image["path"] and len(same) == 1:  # one file may hold several images
        named = same
    return named[0] if named else None


def _take_over(state: dict[str, Any], before: str, now: str) -> None:
    """Put the layers of a session that lie on one image on another one."""
    for entry in (*state.get("labels", []), *state.get("boxes", [])):
        if entry["metadata"].get("source_id") == before:
            entry["metadata"] = {**entry["metadata"], "source_id": now}


def _open_sample(viewer: ViewerModel, image: Entry, state: dict[str, Any]) -> None:
    """Open a sample again, without the boxes that come with it."""
    plugin, key = image["sample"]
    for layer in viewer.open_sample(plugin, key):
        if metadata_of(layer, "boxes"):
            viewer.layers.remove(layer)
        elif is_image(layer) and layer.name == image["name"]:
            _take_over(state, image["id"], layer_id(layer))


def add_labels(viewer: ViewerModel, entry: Entry, array: np.ndarray) -> Labels:
    """Add a Labels layer of a session with these pixels, and return it."""
    metadata = dict(entry["metadata"])
    name = entry["name"]
    if not metadata and any(la.name == name for la in viewer.layers):
        name = f"{name} (restored)"
    known = find_layer(viewer.layers, entry["id"]) is not None
    more = {} if known else {ID: entry["id"]}
    layer = viewer.add_labels(
        array,
        name=layer_name(name),
        opacity=entry["opacity"],
        metadata=more | ({METADATA_KEY: metadata} if metadata else {}),
        **_placed(entry["place"]),
    )
    if metadata.get("kind") == PARTIAL:
        color(layer)
    return layer


def add_boxes(viewer: ViewerModel, state: dict[str, Any]) -> None:
    """Add the prompt boxes of a session whose images are open."""
    for entry in state.get("boxes", []):
        metadata = entry["metadata"]
        image = find_layer(viewer.layers, metadata.get("source_id"))
        if image is None or not entry["vertices"]:
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
