"""Edits of results on the disk: strokes reach all levels, and views open to paint in.

What napari shows and edits lies on the disk. Planes of ordinary size are edited in
place; larger ones are shown as a pyramid, which napari cannot edit, so the view is
opened as a layer of its own whose strokes are written through.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from ....core.jobs.stored_labels import NAME
from ...callbacks import reports_errors
from ...services.background import Background
from ..labels.edit_window import EditWindow
from ..metadata import METADATA_KEY, metadata_of
from .written_labels import region_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

KIND = "stored"
"""Kind of our layers that lie on the disk."""

SYNC_AFTER_MS = 400
CHUNK = 1024
"""Side of the parts that smaller levels are made anew of, in pixels."""

Chunk = tuple[tuple[int, ...], int, int]
"""Index of the plane, and first row and column."""


@reports_errors("_reduce", "choose_next_id")
class StoredEdits(QObject):
    """Writes what the user paints in results on the disk.

    Parameters
    ----------
    viewer : ViewerModel
    files : Background
        Where files are written.
    """

    message = Signal(str, bool)
    changed = Signal()

    def __init__(self, viewer: ViewerModel, files: Background) -> None:
        super().__init__()
        self.viewer, self._files = viewer, files
        self._dirty: dict[Any, set[Chunk]] = {}
        self._window: EditWindow | None = None
        self._sync = QTimer(self)
        self._sync.setSingleShot(True)
        self._sync.setInterval(SYNC_AFTER_MS)
        self._sync.timeout.connect(self._reduce)

    def watch(self, layer: Labels) -> None:
        """Write through what is painted in a layer from now on."""
        layer.events.paint.connect(self._on_paint)
        layer.bind_key("M", self.choose_next_id, overwrite=True)

    def flush(self) -> None:
        """Write what was painted, into all levels."""
        if self._window is not None:
            self._window.write()
        self._reduce()

    # ------------------------------------------------------------ writing

    def _on_paint(self, event: Any) -> None:
        """Note what was painted in place, for the other levels."""
        layer = event.source
        regions = [region_of(atom) for atom in event.value]
        self._note_edit(layer)
        chunks = self._dirty.setdefault(layer.unique_id, set())
        chunks.update(c for region in regions for c in chunks_of(layer, region))
        self._sync.start()

    def _note_edit(self, layer: Labels) -> None:
        """Note, on the disk too, that the user has changed a result."""
        from ....io.zarr_labels import read_labels_metadata, write_labels_metadata

        metadata = metadata_of(layer) or {}
        if metadata.get("edited"):
            return
        layer.metadata[METADATA_KEY] |= {"edited": True}
        store, folder = metadata["store"], metadata["folder"]
        self._files.call(
            lambda: write_labels_metadata(
                folder, {**read_labels_metadata(store, NAME), "edited": True}
            ),
            lambda _: None,
            self._on_not_written,
        )

    def _reduce(self) -> None:
        """Bring the smaller levels up to what was painted, in a thread."""
        from ....io.zarr_labels import reduce_window

        for layer in self.viewer.layers:
            chunks = self._dirty.pop(layer.unique_id, None)
            if not chunks:
                continue
            metadata = metadata_of(layer) or {}
            folder, levels = metadata["folder"], metadata["levels"]

            def work(
                folder: str = folder, levels: int = levels, chunks: set[Chunk] = chunks
            ) -> None:
                for place, y, x in chunks:
                    window = (slice(y, y + CHUNK), slice(x, x + CHUNK))
                    reduce_window(folder, levels, place, window)

            failed = partial(self._on_not_reduced, layer.unique_id, chunks)
            self._files.call(work, lambda _: None, failed)

    def _on_not_reduced(self, key: Any, chunks: set[Chunk], error: Any) -> None:
        self._dirty.setdefault(key, set()).update(chunks)  # with the next stroke
        self._on_not_written(error)

    def write(
        self,
        layer: Labels,
        place: tuple[int, ...],
        window: tuple[slice, slice],
        values: np.ndarray,
    ) -> None:
        """Write ids into a part of a plane of a result, into all levels."""
        from ....io.zarr_labels import write_window

        metadata = metadata_of(layer) or {}
        folder, levels = metadata["folder"], metadata["levels"]
        place = tuple(
            p for p, a in zip(place, metadata["axes"], strict=False) if a != "C"
        )
        self._note_edit(layer)
        _raise_highest(layer, int(values.max(initial=0)))
        self._files.call(
            lambda: write_window(folder, levels, place, window, values),
            lambda _: layer.refresh(),
            partial(self._on_window_not_written, window),
        )

    def _on_window_not_written(self, window: tuple[slice, slice], error: Any) -> None:
        if self._window is not None:
            self._window.write_again(window)
        self._on_not_written(error)

    def _on_not_written(self, error: Any) -> None:
        self.message.emit(f"Not written to the disk: {error}", True)

    # ------------------------------------------------------------ ids

    def next_id(self, layer: Labels, used: int) -> int:
        """Return an id that no object of the whole result has."""
        _raise_highest(layer, used)
        return _raise_highest(layer, int((metadata_of(layer) or {})["highest"]) + 1)

    def choose_next_id(self, layer: Labels) -> None:
        """Select an id that no object of the whole result has, to paint with it."""
        layer.selected_label = self.next_id(layer, int(layer.selected_label))

    # ------------------------------------------------------------ views to paint in

    @property
    def is_open(self) -> bool:
        """Whether a view is open to be edited."""
        return self._window is not None

    def open_view(self, layer: Labels) -> None:
        """Open what is seen of a large result as a layer that can be painted in."""
        self.close_view()
        self._window = EditWindow(self.viewer, layer, self.write, self.next_id)
        self._window.message.connect(self.message)
        self.changed.emit()

    def close_view(self) -> None:
        """Close the view that is edited; what was painted is in the result."""
        window, self._window = self._window, None
        if window is None:
            return
        window.write()
        window.close()
        if window.layer in self.viewer.layers:
            self.viewer.layers.remove(window.layer)
        self.changed.emit()

    def follow_removed(self, layer: Layer) -> None:
        """Close the view when its layer, or the result, was removed."""
        window = self._window
        if window is not None and layer in (window.layer, window.target):
            self.close_view()


def _raise_highest(layer: Labels, used: int) -> int:
    """Note an id in use; return the highest id in use."""
    highest = max(int((metadata_of(layer) or {}).get("highest", 0)), used)
    layer.metadata[METADATA_KEY] |= {"highest": highest}
    return highest


def chunks_of(
    layer: Labels, region: tuple[slice, ...]
) -> list[tuple[tuple[int, ...], int, int]]:
    """Return the chunks that a region touches: place along the other axes, and corner.

    A kept channel axis does not count.
    """
    axes = (metadata_of(layer) or {})["axes"]
    outer = [
        range(s.start, s.stop)
        for s, a in zip(region[:-2], axes, strict=False)
        if a != "C"
    ]
    rows, columns = (
        range(s.start // CHUNK * CHUNK, s.stop, CHUNK) for s in region[-2:]
    )
    places: list[tuple[int, ...]] = [()]
    for span in outer:
        places = [(*place, i) for place in places for i in span]
    return [(place, y, x) for place in places for y in rows for x in columns]
