"""Layers as plain values that a session can hold, and layers made of them again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...io.content import content_fingerprint
from ..layers.images.image_axes import DECLARED, declared
from ..layers.images.visibility import OF, camera_of
from ..layers.labels.class_colors import dress
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
from ..layers.results.written_labels import WRITTEN
from .edited_blocks import PAINTED

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer, Shapes

logger = logging.getLogger(__name__)

Entry = dict[str, Any]
"""One layer, as JSON can hold it."""

WRITTEN_KEY = "written_key"
"""Entry of a result: the key of the ids that a run wrote, before the user's edits."""
RESULT = "labels"
"""Kind of our layers that runs write and the user edits."""
WITH_METADATA = (*PAINTED, RESULT)
"""Kinds of our layers whose metadata a session keeps."""
PASSING = ("preview", "comparison", "stored", "stored edit")
"""Kinds that are not saved: those that are made again, and those on the disk."""
MAX_ROWS = 200_000
"""Longest table of features that is saved."""

LOOK = ("visible", "opacity", "contrast_limits", "gamma", "contour")
"""Attributes of a layer that say how it is shown."""


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
        "look": look_of(layer),
    }


def look_of(layer: Layer) -> Entry:
    """Return how a layer is shown."""
    found = {
        name: np.asarray(value).tolist()
        for name in LOOK
        if (value := getattr(layer, name, None)) is not None
    }
    if is_image(layer) and not layer.rgb:
        found["colormap"] = layer.colormap.name
    return found


def show_as(layer: Layer, look: Entry) -> None:
    """Show a layer as it was when a session was saved."""
    for name, value in look.items():
        try:
            setattr(layer, name, value)
        except (ValueError, KeyError, TypeError) as error:  # a colormap that is gone
            logger.info("%s of %s: %s", name, layer.name, error)


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
            known[path] = content_of(path)
        entry["fingerprint"] = known.get(path, "")


def changed_images(state: dict[str, Any]) -> list[str]:
    """Return the names of a session's images whose files have another content now."""
    return [
        entry["name"]
        for entry in state.get("images", [])
        if entry.get("fingerprint")
        and content_of(entry["path"]) not in ("", entry["fingerprint"])
    ]


def content_of(path: str) -> str:
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
    kept = metadata.get("kind") in WITH_METADATA
    return {
        "key": key,
        "id": layer_id(layer),
        "name": layer.name,
        "opacity": layer.opacity,
        "metadata": _saved(metadata) if kept else {},
        "place": _place(layer),
        "look": look_of(layer),
        "features": _columns(layer),
        "of": layer.metadata.get(OF, ""),
    }


def _saved(metadata: dict[str, Any]) -> Entry:
    """Return metadata with checksums of planes as JSON can hold them."""
    if "written" not in metadata:
        return metadata
    prints = [[list(plane), n] for plane, n in metadata["written"].items()]
    return {**metadata, "written": prints}


def _restored(metadata: Entry) -> dict[str, Any]:
    """Return the metadata that `_saved` was given."""
    found = dict(metadata)
    if "written" in found:
        found["written"] = {tuple(plane): n for plane, n in found["written"]}
    if "class_of" in found:  # JSON has keys of text only
        found["class_of"] = {int(i): name for i, name in found["class_of"].items()}
    return found


def _columns(layer: Labels) -> dict[str, list[Any]]:
    """Return the features of a layer; none where they are too many."""
    if len(layer.features) > MAX_ROWS:
        return {}
    return {str(name): list(layer.features[name]) for name in layer.features}


def working_state(
    viewer: ViewerModel, state: Entry
) -> tuple[Entry, dict[str, np.ndarray], list[str]]:
    """Return the state of a session with all labels, as they are now.

    Parameters
    ----------
    viewer : ViewerModel
    state : dict
        Images, boxes and settings, as autosave has them.

    Returns
    -------
    state : dict
    arrays : dict of str to int array
        Copies of the pixels, by the key of their entry.
    left_out : list of str
        Names of layers that are too large, or lie on the disk.
    """
    from napari.layers import Labels

    entries: list[Entry] = []
    arrays: dict[str, np.ndarray] = {}
    left_out: list[str] = []
    for n, layer in enumerate(viewer.layers):
        kind = (metadata_of(layer) or {}).get("kind")
        if not isinstance(layer, Labels) or kind in ("preview", "comparison"):
            continue
        data = layer.data
        if kind in PASSING or layer.multiscale or not isinstance(data, np.ndarray):
            left_out.append(layer.name)
            continue
        entry = labels_entry(layer, f"{n}")
        arrays[entry["key"]] = data.copy()
        if layer.metadata.get(WRITTEN) is not None and kind == RESULT:
            entry[WRITTEN_KEY] = f"{n}w"
            arrays[entry[WRITTEN_KEY]] = layer.metadata[WRITTEN].copy()
        entries.append(entry)
    return {**state, "labels": entries, "view": view_of(viewer)}, arrays, left_out


def view_of(viewer: ViewerModel) -> Entry:
    """Return the plane that is shown, and where the camera is."""
    camera = camera_of(viewer)
    return {
        "point": [float(n) for n in viewer.dims.point],
        "center": [float(n) for n in camera.center],
        "zoom": float(camera.zoom),
    }


def show_view(viewer: ViewerModel, view: Entry) -> None:
    """Show the plane and the place that `view_of` returned."""
    if len(view.get("point", ())) == viewer.dims.ndim:
        viewer.dims.point = view["point"]
    if "zoom" in view:
        camera = camera_of(viewer)
        camera.center, camera.zoom = tuple(view["center"]), view["zoom"]


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
        there = open_already(viewer, image)
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
                        show_as(layer, image.get("look", {}))
            elif image["sample"]:
                _open_sample(viewer, image, state)
            else:
                missing.append(image["name"])
        except Exception:
            logger.exception("could not open %s again", image["path"])
            missing.append(image["name"])
    for image in state.get("images", []):
        there = open_already(viewer, image)
        if there is not None:
            put_corrections(there, image)
    return missing


def put_corrections(layer: Layer, image: Entry) -> None:
    """Put what was corrected in an image of a session on it, unless it has its own."""
    if image.get("corrected") and not corrected_entries(layer):
        layer.metadata[CORRECTED] = from_entries(image["corrected"])


def opened_later(viewer: ViewerModel, image: Entry) -> Layer | None:
    """Return the image that the user has opened in place of a missing one, or None.

    It has its name, or its file has.
    """
    file = Path(image["path"]).name
    for layer in viewer.layers:
        path = layer.source.path
        named = layer.name == image["name"] or (path and Path(str(path)).name == file)
        if is_image(layer) and named:
            return layer
    return None


def put_on(viewer: ViewerModel, state: dict[str, Any], image: Entry, on: Layer) -> None:
    """Put what a session has on an image that was missing on one that is open now."""
    before, now = image["id"], layer_id(on)
    for layer in viewer.layers:
        metadata = metadata_of(layer) or {}
        if metadata.get("source_id") == before:
            layer.metadata[METADATA_KEY] = {**metadata, "source_id": now}
        if layer.metadata.get(OF) == before:
            layer.metadata[OF] = now
    _take_over(state, before, now)
    put_corrections(on, image)
    add_boxes(viewer, state)


def source_id(entry: Entry) -> str:
    """Return the id of the image that a layer of a session lies on; "" for none."""
    return str((entry["metadata"] or {}).get("source_id", ""))


def items_on(state: dict[str, Any], image_id: str) -> list[Entry]:
    """Return the state of the prompts of a session whose boxes are on an image."""
    return [
        item
        for boxes in state.get("boxes", [])
        if source_id(boxes) == image_id
        for item in boxes["metadata"].get("items", {}).values()
    ]


def open_already(viewer: ViewerModel, image: Entry) -> Layer | None:
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
        if entry.get("of") == before:
            entry["of"] = now


def _open_sample(viewer: ViewerModel, image: Entry, state: dict[str, Any]) -> None:
    """Open a sample again, without the boxes that come with it."""
    plugin, key = image["sample"]
    for layer in viewer.open_sample(plugin, key):
        if metadata_of(layer, "boxes"):
            viewer.layers.remove(layer)
        elif is_image(layer) and layer.name == image["name"]:
            _take_over(state, image["id"], layer_id(layer))


def add_labels(
    viewer: ViewerModel,
    entry: Entry,
    array: np.ndarray,
    written: np.ndarray | None = None,
) -> Labels:
    """Add a Labels layer of a session with these pixels, and return it.

    Parameters
    ----------
    viewer : ViewerModel
    entry : dict
        From `labels_entry`.
    array : int array
    written : int array, optional
        Ids that a run had written into it.
    """
    metadata = _restored(entry["metadata"])
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
    if entry.get("of"):
        layer.metadata[OF] = entry["of"]
    if written is not None and written.shape == array.shape:
        layer.metadata[WRITTEN] = written
    if metadata.get("kind") == PARTIAL:
        color(layer)
    elif metadata.get("kind") == RESULT:
        dress(layer)
    if entry.get("features"):
        layer.features = entry["features"]
    show_as(layer, entry.get("look", {}))
    return layer


def add_boxes(viewer: ViewerModel, state: dict[str, Any]) -> None:
    """Add the prompt boxes of a session whose images are open."""
    for entry in state.get("boxes", []):
        metadata = entry["metadata"]
        image = find_layer(viewer.layers, metadata.get("source_id"))
        if image is None or not entry["vertices"] or _has_boxes(viewer, entry):
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


def _has_boxes(viewer: ViewerModel, entry: Entry) -> bool:
    """Return whether the boxes of a session are on their image already."""
    image = entry["metadata"].get("source_id")
    return any(
        all(_is_among(vertices, layer.data) for vertices in entry["vertices"])
        for layer in viewer.layers
        if (metadata_of(layer, "boxes") or {}).get("source_id") == image
    )


def _is_among(vertices: list[list[float]], boxes: list[np.ndarray]) -> bool:
    wanted = np.asarray(vertices)
    return any(b.shape == wanted.shape and np.allclose(b, wanted) for b in boxes)


def _placed(place: dict[str, Any]) -> dict[str, Any]:
    return {
        k: tuple(v) if k in ("units", "axis_labels") else v for k, v in place.items()
    }
