"""Results too large for memory: Labels layers on a store that fills while it runs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from ....core.jobs.stored_labels import DONE, FILLING, NAME, Filled, StoredLabels
from ....io.free_path import free_path
from ...callbacks import reports_errors, tell
from ...services.background import Background
from ..images.image_source import ImageSource
from ..images.visibility import add_behind_boxes, show
from ..labels.class_colors import plain_colors
from ..labels.object_colors import PALETTE, palette_of
from ..metadata import (
    METADATA_KEY,
    find_layer,
    is_image,
    is_of,
    layer_id,
    layer_name,
    metadata_of,
)
from .journal import Journal, LayerAdded
from .result_layers import edited_remark
from .stored_arrays import open_levels
from .stored_edits import KIND, StoredEdits

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

logger = logging.getLogger(__name__)

DIRECT = 2304 * 2304
"""Pixels of a plane up to which it is edited in place: those of a large camera."""

MAX_WHOLE = 500_000_000
"""Pixels up to which a result is written in formats that need it whole."""

NO_RESULT = "is no result of this dock."
SHOW_EVERY_MS = 300
STOPPED = "stopped"


@dataclass(eq=False)
class StoredAdded(LayerAdded):
    """A result on the disk that was added; undo removes it from the viewer only."""

    @property
    def is_edited(self) -> bool:
        """Whether the user has painted in the layer."""
        return bool((metadata_of(self.layer) or {}).get("edited"))

    @property
    def remains(self) -> str:
        """End of the message: where the result is kept."""
        return f"; it is kept in {(metadata_of(self.layer) or {})['store']}"


@reports_errors("_refresh")
class StoredResults(QObject):
    """The results of a viewer that lie on the disk.

    Parameters
    ----------
    viewer : ViewerModel
    journal : Journal
    """

    message = Signal(str, bool)
    changed = Signal()

    def __init__(self, viewer: ViewerModel, journal: Journal) -> None:
        super().__init__()
        self.viewer, self.journal = viewer, journal
        self.layer: Labels | None = None
        self.remark = ""
        self._files = Background(partial(tell, self))
        self.edits = StoredEdits(viewer, self._files)
        self.edits.message.connect(self.message)
        self.edits.changed.connect(self.changed)
        self._shown = QTimer(self)
        self._shown.setSingleShot(True)
        self._shown.timeout.connect(self._refresh)
        self._cost_ms = 0.0
        for layer in viewer.layers:
            if metadata_of(layer, KIND):
                self.edits.watch(layer)
        viewer.layers.events.removed.connect(self._on_removed)

    def close(self) -> None:
        """Disconnect from the viewer; what was painted is written first."""
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.edits.flush()
        self._files.close(finish=True)

    # ------------------------------------------------------------ a run

    def unfinished(
        self, source: ImageSource, plane: tuple[int, ...] | None
    ) -> Labels | None:
        """Return the layer of a run that was stopped and that nobody has edited."""
        for layer in self.viewer.layers:
            metadata = metadata_of(layer, KIND) or {}
            if (
                is_of(layer, source.layer, KIND)
                and metadata.get("plane") == plane
                and metadata.get("state") != DONE
                and not metadata.get("edited")
            ):
                return layer
        return None

    def store_for(
        self, source: ImageSource, plane: tuple[int, ...] | None, folder: Path
    ) -> str:
        """Return the store that a run fills: a new one, or one to go on with."""
        layer = self.unfinished(source, plane)
        if layer is not None:
            return str((metadata_of(layer) or {})["store"])
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in source.name)
        stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        place = folder / f"{stem}.zarr"
        return str(free_path(place, suffix=".zarr", separator="-"))

    def begin(
        self,
        source: ImageSource,
        plane: tuple[int, ...] | None,
        store: str,
        labels: StoredLabels,
    ) -> Labels:
        """Add the layer of a run that has begun, and return it."""
        old = self.unfinished(source, plane)
        if old is not None:
            self.viewer.layers.remove(old)
        edited = []
        for other in self.viewer.layers:
            metadata = metadata_of(other, KIND) or {}
            if metadata and is_of(other, source.layer):
                show(other, visible=False)
                edited += [other.name] if metadata["edited"] else []
        layer = self._add(
            labels,
            layer_name(f"{source.name} [svpseg]"),
            source.placement(source.companion.corner(plane)),
            {
                **source.entry(KIND, source.companion.corner(plane)),
                PALETTE: palette_of(source.layer),
                "axes": source.companion.axes,
                "plane": plane,
                "store": store,
                "state": FILLING,
            },
        )
        self.remark = edited_remark(edited, layer)
        return layer

    def _add(
        self, labels: StoredLabels, name: str, place: dict[str, Any], metadata: Any
    ) -> Labels:
        from napari.layers import Labels

        levels = open_levels(labels.folder, labels.levels, metadata["axes"])
        is_large = int(np.prod(levels[0].shape[-2:], dtype=np.int64)) > DIRECT
        layer = Labels(
            levels if is_large else levels[0],
            name=name,
            opacity=0.5,
            multiscale=is_large,
            metadata={
                METADATA_KEY: {
                    "folder": labels.folder,
                    "levels": labels.levels,
                    "objects": labels.objects,
                    "highest": max(labels.objects, 0),
                    "recipe": labels.recipe,
                    "edited": False,
                    **metadata,
                    "kind": KIND,
                }
            },
            **place,
        )
        layer.colormap = plain_colors(layer)
        self.edits.watch(layer)
        self.layer = layer
        if metadata["state"] == FILLING:
            layer.editable = False
            self.journal.show(StoredAdded(layer, self.viewer))
        else:
            add_behind_boxes(self.viewer, lambda: self.viewer.add_layer(layer))
        self.changed.emit()
        return layer

    def show(self, part: Filled) -> None:
        """Show a part that was filled; several parts are shown together."""
        if not self._shown.isActive():
            self._shown.start(int(max(SHOW_EVERY_MS, 4 * self._cost_ms)))

    def _refresh(self) -> None:
        if self.layer is None or self.layer not in self.viewer.layers:
            return
        start = time.perf_counter()
        self.layer.refresh()
        self._cost_ms = 1000 * (time.perf_counter() - start)

    def end(self, labels: StoredLabels) -> Labels | None:
        """Note that a run is done; return its layer."""
        return self._ended(
            DONE,
            objects=labels.objects,
            highest=labels.objects,
            recipe=labels.recipe,
            seconds=labels.seconds,
            when=time.strftime("%Y-%m-%dT%H:%M:%S"),
        )

    def stop(self) -> Labels | None:
        """Note that a run ended before it was done; return its layer."""
        return self._ended(STOPPED)

    def _ended(self, state: str, **values: Any) -> Labels | None:
        """Note how a run ended, before its layer is drawn; return the layer."""
        layer = self.layer
        if layer is None or (metadata_of(layer) or {}).get("state") != FILLING:
            return None
        layer.metadata[METADATA_KEY] |= {"state": state, **values}
        layer.editable = not layer.multiscale
        self._shown.stop()
        if layer in self.viewer.layers:
            layer.refresh()
        self.changed.emit()
        return layer

    # ------------------------------------------------------------ open, save

    def open(self, path: str | Path) -> Labels:
        """Add the layer of a result that lies on the disk, and return it.

        Raises
        ------
        ValueError
            If the folder is no result of ours.
        """
        from ....io.zarr_labels import (
            count_levels,
            labels_folder,
            read_labels_metadata,
        )

        store = Path(path).absolute()
        if store.name == NAME and store.parent.name == "labels":
            store = store.parent.parent
        stamp = read_labels_metadata(store, NAME)
        about = stamp.get("about")
        if not about:
            raise ValueError(f"{store}: {NO_RESULT}")
        folder = labels_folder(store, NAME)
        image = self._image_of(about)
        plane = about["plane"]
        labels = StoredLabels(
            str(folder),
            count_levels(folder),
            int(stamp.get("objects", -1)),
            recipe=stamp.get("recipe"),
        )
        metadata = {
            "image": about["image"],
            "source_id": about["source_id"] if image is None else layer_id(image),
            "grid": about["grid"],
            "n_channels": about["n_channels"],
            "axes": about["axes"],
            "plane": None if plane is None else tuple(plane),
            "store": str(store),
            "state": DONE if stamp["state"] == DONE else STOPPED,
            "edited": bool(stamp.get("edited")),
        }
        name = layer_name(f"{about['image']} [svpseg]")
        return self._add(labels, name, dict(about["place"]), metadata)

    def _image_of(self, about: dict[str, Any]) -> Layer | None:
        """Return the image of a result on the disk, or None.

        It is known by its id, and in another session by its file.
        """
        layers, file = self.viewer.layers, about.get("file")
        found = find_layer(layers, about["source_id"])
        if found is None and file:
            same = (la for la in layers if is_image(la) and _file_of(la) == file)
            found = next(same, None)
        return found

    def save(
        self,
        write: Callable[[], str],
        done: Callable[[Any], None],
        failed: Callable[[Any], None],
    ) -> None:
        """Write a result in another format and place, in a thread."""
        self.edits.flush()
        self._files.call(write, done, failed)

    # ------------------------------------------------------------ edit

    def can_edit(self) -> Labels | None:
        """Return the result whose view can be opened to be edited."""
        for layer in (self.viewer.layers.selection.active, self.layer):
            metadata = metadata_of(layer, KIND) if layer is not None else None
            if layer is None or not metadata or layer not in self.viewer.layers:
                continue
            if layer.multiscale:
                return layer if metadata["state"] != FILLING else None
        return None

    def edit_view(self) -> None:
        """Open what is seen of a large result as a layer that can be painted in."""
        layer = self.can_edit()
        if layer is not None:
            self.edits.open_view(layer)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        self.edits.follow_removed(layer)
        metadata = metadata_of(layer, KIND)
        if metadata and metadata["state"] != FILLING:
            self.message.emit(f"'{layer.name}' is kept in {metadata['store']}.", False)
        if layer == self.layer:
            self.layer = None
        self.changed.emit()


def stored_arguments(
    source: ImageSource, plane: tuple[int, ...] | None, store: str
) -> tuple[Any, dict[str, Any]]:
    """Return the arguments of `segment_stored` for an image."""
    query = source.planes(plane)
    corner = source.companion.corner(plane)
    place, found = source.placement(corner), source.calibration(corner)
    sizes = {a: -n if a in found.flipped else n for a, n in found.sizes.items()}
    about = {
        **source.entry(KIND, corner),
        "file": _file_of(source.layer),
        "axes": source.companion.axes,
        "plane": None if plane is None else list(plane),
        "place": {k: plain(v) for k, v in place.items()},
    }
    return query, {
        "axes": source.query_axes(None),
        "image": image_token(source),
        "scale": {a: n for a, n in sizes.items() if a != "C"},
        "unit": found.unit,
        "origin": {a: n for a, n in found.origin.items() if a != "C"},
        "about": about,
    }


def _file_of(layer: Layer) -> str:
    """Return the file that a layer was opened from; empty if it was not."""
    path = getattr(getattr(layer, "source", None), "path", None)
    return os.path.abspath(path) if path and os.path.exists(path) else ""


def image_token(source: ImageSource) -> str:
    """Return a text that identifies an image, also in another session."""
    path = _file_of(source.layer)
    if path:
        names = "+".join(source.channel_names) or source.name
        return f"{path}?{os.stat(path).st_mtime_ns}&{names}&{source.level}"
    return f"{source.name} {source.shape} {source.channel_names}"


def plain(value: Any) -> Any:
    """Return an array or units as plain values for JSON."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value if isinstance(value, (int, float)) else str(value)
