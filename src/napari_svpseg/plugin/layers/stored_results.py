"""Results too large for memory: Labels layers on a store that fills while it runs.

What napari shows and edits lies on the disk. Planes of ordinary size are edited in
place; larger ones are shown as a pyramid, which napari cannot edit, so the view is
opened as a layer of its own whose strokes are written through.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from ...core.jobs.stored_labels import DONE, FILLING, NAME, Filled, StoredLabels
from ..services.autosave import region_of
from ..services.background import Background
from .edit_window import EditWindow
from .image_source import MARK, ImageSource, mark_of
from .result_layers import Journal, add_behind_boxes

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

logger = logging.getLogger(__name__)

KIND = "stored"
"""Kind of our layers that lie on the disk."""

DIRECT = 2304 * 2304
"""Pixels of a plane up to which it is edited in place (the largest common camera)."""

MAX_WHOLE = 500_000_000
"""Pixels up to which a result is written in formats that need it whole."""

SHOW_EVERY_MS = 300
SYNC_AFTER_MS = 400
STOPPED = "stopped"
CHUNK = 1024


class KeptChannel:
    """An array with one more axis, one long, where its image has the channels.

    Parameters
    ----------
    array : array
        Without that axis.
    position : int
        Of the axis.
    """

    def __init__(self, array: Any, position: int) -> None:
        self.array, self.position = array, position
        self.dtype = array.dtype
        shape = list(array.shape)
        shape.insert(position, 1)
        self.shape = tuple(shape)
        self.ndim = len(shape)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[...], dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        inner, where = self._inner(index)
        found = np.asarray(self.array[inner])
        return found if where is None else np.expand_dims(found, where)

    def __setitem__(self, index: Any, values: Any) -> None:
        inner, where = self._inner(index)
        if where is not None and isinstance(values, np.ndarray) and values.ndim:
            values = np.take(values, 0, axis=where)
        self.array[inner] = values

    def _inner(self, index: Any) -> tuple[tuple[Any, ...], int | None]:
        """Return the index without our axis, and where that stays in the result."""
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in [i for i in index if i is Ellipsis]:
            at = next(n for n, i in enumerate(index) if i is Ellipsis)
            rest = self.ndim - len(index) + 1
            index = (*index[:at], *(slice(None),) * rest, *index[at + 1 :])
        index += (slice(None),) * (self.ndim - len(index))
        own = index[self.position]
        inner = index[: self.position] + index[self.position + 1 :]
        if not isinstance(own, slice):
            return inner, None
        return inner, sum(isinstance(i, slice) for i in index[: self.position])


def open_levels(folder: str | Path, n: int, axes: str) -> list[Any]:
    """Return the arrays of stored labels, with the axes of a companion."""
    from ...io.zarr_labels import open_level

    arrays = [open_level(folder, level) for level in range(n)]
    if "C" in axes:
        return [KeptChannel(array, axes.index("C")) for array in arrays]
    return arrays


@dataclass(eq=False)
class StoredAdded:
    """A result on the disk that was added; undo takes it out of the viewer only."""

    viewer: ViewerModel
    layer: Labels
    text: str = "Run"

    def undo(self) -> str:
        """Remove the layer, unless the user has painted in it."""
        if self.layer not in self.viewer.layers:
            return f"'{self.layer.name}' is gone already."
        mark = mark_of(self.layer) or {}
        if mark.get("edited"):
            return f"'{self.layer.name}' was edited since and is kept."
        self.viewer.layers.remove(self.layer)
        return f"Removed '{self.layer.name}'; it is kept in {mark['store']}."

    def is_possible(self, layers: Container[Layer]) -> bool:
        """Tell whether the layer is there."""
        return self.layer in layers

    @property
    def layers(self) -> list[Layer]:
        """The layer."""
        return [self.layer]


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
        self._files = Background(1)
        self._dirty: dict[Any, set[tuple[tuple[int, ...], int, int]]] = {}
        self._edit: EditWindow | None = None
        self._shown = QTimer(self)
        self._shown.setSingleShot(True)
        self._shown.timeout.connect(self._refresh)
        self._sync = QTimer(self)
        self._sync.setSingleShot(True)
        self._sync.setInterval(SYNC_AFTER_MS)
        self._sync.timeout.connect(self._reduce)
        self._cost_ms = 0.0
        for layer in viewer.layers:
            if mark_of(layer, KIND):
                self._watch(layer)
        viewer.layers.events.removed.connect(self._on_removed)

    def close(self) -> None:
        """Let go of the viewer; what was painted is written first."""
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        if self._edit is not None:
            self._edit.write()
        self._reduce()
        self._files.close(finish=True)

    # ------------------------------------------------------------ a run

    def unfinished(
        self, source: ImageSource, plane: tuple[int, ...] | None
    ) -> Labels | None:
        """Return the layer of a run that was stopped and that nobody has edited."""
        for layer in self.viewer.layers:
            mark = mark_of(layer, KIND) or {}
            if (
                mark.get("source_id") == source.layer.unique_id
                and mark.get("plane") == plane
                and mark.get("state") != DONE
                and not mark.get("edited")
            ):
                return layer
        return None

    def store_for(
        self, source: ImageSource, plane: tuple[int, ...] | None, folder: Path
    ) -> str:
        """Return the store that a run fills: a new one, or one to go on with."""
        layer = self.unfinished(source, plane)
        if layer is not None:
            return str((mark_of(layer) or {})["store"])
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in source.name)
        stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        path, n = folder / f"{stem}.zarr", 1
        while path.exists():
            n += 1
            path = folder / f"{stem}-{n}.zarr"
        return str(path)

    @staticmethod
    def arguments(
        source: ImageSource, plane: tuple[int, ...] | None, store: str
    ) -> tuple[Any, dict[str, Any]]:
        """Return what `stored.segment_stored` is called with for an image."""
        query = source.planes(plane)
        corner = tuple(s.start for s in source.companion_index(plane))
        place = source.placement(corner)
        sizes = dict(zip(source.companion_axes, place["scale"], strict=True))
        about = {
            "image": source.name,
            "axes": source.companion_axes,
            "plane": None if plane is None else list(plane),
            "place": {k: plain(v) for k, v in place.items()},
        }
        return query, {
            "axes": source.query_axes(None),
            "image": image_token(source),
            "scale": {a: float(s) for a, s in sizes.items() if a != "C"},
            "unit": source.pixel_size()[1],
            "about": about,
        }

    def begin(
        self,
        source: ImageSource,
        plane: tuple[int, ...] | None,
        store: str,
        labels: StoredLabels,
    ) -> Labels:
        """Show the labels of a run that has begun."""
        old = self.unfinished(source, plane)
        if old is not None:
            self.viewer.layers.remove(old)
        edited = []
        for other in self.viewer.layers:
            mark = mark_of(other, KIND) or {}
            if mark.get("source_id") == source.layer.unique_id:
                other.visible = False
                edited += [other.name] if mark["edited"] else []
        corner = tuple(s.start for s in source.companion_index(plane))
        layer = self._add(
            labels,
            f"{source.name} [svpseg]",
            source.placement(corner),
            {
                "image": source.name,
                "source_id": source.layer.unique_id,
                "axes": source.companion_axes,
                "plane": plane,
                "store": store,
                "state": FILLING,
            },
        )
        self.journal.add(StoredAdded(self.viewer, layer))
        layer.editable = False
        self.remark = (
            f" You edited '{edited[-1]}', so this is in '{layer.name}'."
            if edited
            else ""
        )
        return layer

    def _add(
        self, labels: StoredLabels, name: str, place: dict[str, Any], mark: Any
    ) -> Labels:
        levels = open_levels(labels.folder, labels.levels, mark["axes"])
        is_large = int(np.prod(levels[0].shape[-2:], dtype=np.int64)) > DIRECT
        layer = add_behind_boxes(
            self.viewer,
            lambda: self.viewer.add_labels(
                levels if is_large else levels[0],
                name=name,
                opacity=0.5,
                multiscale=is_large,
                **place,
            ),
        )
        layer.metadata[MARK] = {
            "kind": KIND,
            "folder": labels.folder,
            "levels": labels.levels,
            "objects": labels.objects,
            "highest": max(labels.objects, 0),
            "recipe": labels.recipe,
            "edited": False,
            **mark,
        }
        self._watch(layer)
        self.layer = layer
        self.changed.emit()
        return layer

    def show(self, part: Filled) -> None:
        """Show a part that was filled, soon."""
        if not self._shown.isActive():
            self._shown.start(int(max(SHOW_EVERY_MS, 4 * self._cost_ms)))

    def _refresh(self) -> None:
        if self.layer is None or self.layer not in self.viewer.layers:
            return
        start = time.perf_counter()
        self.layer.refresh()
        self._cost_ms = 1000 * (time.perf_counter() - start)

    def end(self, labels: StoredLabels) -> Labels | None:
        """Take note that a run is done; return its layer."""
        layer = self._ended(DONE)
        if layer is not None:
            layer.metadata[MARK] |= {
                "objects": labels.objects,
                "highest": labels.objects,
                "recipe": labels.recipe,
                "seconds": labels.seconds,
                "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
            }
        return layer

    def stop(self) -> Labels | None:
        """Take note that a run ended before it was done."""
        return self._ended(STOPPED)

    def _ended(self, state: str) -> Labels | None:
        layer = self.layer
        if layer is None or (mark_of(layer) or {}).get("state") != FILLING:
            return None
        layer.metadata[MARK] |= {"state": state}
        layer.editable = not layer.multiscale
        self._shown.stop()
        if layer in self.viewer.layers:
            layer.refresh()
        self.changed.emit()
        return layer

    # ------------------------------------------------------------ open, save

    def open(self, path: str | Path) -> Labels:
        """Show a result again that was kept on the disk.

        Raises
        ------
        ValueError
            If it is none of ours.
        """
        from ...io.zarr_labels import count_levels, read_labels_metadata

        store = Path(path).absolute()
        if store.name == NAME and store.parent.name == "labels":
            store = store.parent.parent
        stamp = read_labels_metadata(store, NAME)
        about = stamp.get("about")
        if not about:
            raise ValueError(f"{store}: is no result of this dock.")
        folder = store / "labels" / NAME
        image = next(
            (la for la in self.viewer.layers if la.name == about["image"]), None
        )
        plane = about["plane"]
        labels = StoredLabels(
            str(folder),
            count_levels(folder),
            int(stamp.get("objects", -1)),
            recipe=stamp.get("recipe"),
        )
        mark = {
            "image": about["image"],
            "source_id": None if image is None else image.unique_id,
            "axes": about["axes"],
            "plane": None if plane is None else tuple(plane),
            "store": str(store),
            "state": DONE if stamp["state"] == DONE else STOPPED,
            "edited": bool(stamp.get("edited")),
        }
        name = f"{about['image']} [svpseg]"
        return self._add(labels, name, dict(about["place"]), mark)

    def save(
        self,
        path: str,
        layer: Labels,
        done: Callable[[Any], None],
        failed: Callable[[Any], None],
    ) -> None:
        """Write a result in another format and place, in a thread."""
        from ..manifest import write_layer

        self.flush()
        self._files.call(lambda: write_layer(path, layer), done, failed)

    def flush(self) -> None:
        """Write what was painted, into all levels."""
        if self._edit is not None:
            self._edit.write()
        self._reduce()

    # ------------------------------------------------------------ editing

    def _watch(self, layer: Labels) -> None:
        layer.events.paint.connect(self._on_paint)
        layer.bind_key("M", self._on_next_id, overwrite=True)

    def _on_paint(self, event: Any) -> None:
        """Remember what was painted in place, for the other levels."""
        layer = event.source
        regions = [region_of(atom) for atom in event.value]
        self.mark_edited(layer)
        chunks = self._dirty.setdefault(layer.unique_id, set())
        chunks.update(c for region in regions for c in chunks_of(layer, region))
        self._sync.start()

    def mark_edited(self, layer: Labels) -> None:
        """Take note, on the disk too, that the user has changed a result."""
        from ...io.zarr_labels import read_labels_metadata, write_labels_metadata

        mark = mark_of(layer) or {}
        if mark.get("edited"):
            return
        layer.metadata[MARK] |= {"edited": True}
        store, folder = mark["store"], mark["folder"]
        self._files.call(
            lambda: write_labels_metadata(
                folder, {**read_labels_metadata(store, NAME), "edited": True}
            ),
            lambda _: None,
            self._not_written,
        )

    def _reduce(self) -> None:
        """Bring the other levels up to what was painted, in a thread."""
        from ...io.zarr_labels import reduce_window

        for layer in self.viewer.layers:
            chunks = self._dirty.pop(layer.unique_id, None)
            if not chunks:
                continue
            mark = mark_of(layer) or {}
            folder, levels = mark["folder"], mark["levels"]

            def work(
                folder: str = folder, levels: int = levels, chunks: Any = chunks
            ) -> None:
                for place, y, x in chunks:
                    window = (slice(y, y + CHUNK), slice(x, x + CHUNK))
                    reduce_window(folder, levels, place, window)

            self._files.call(work, lambda _: None, self._not_written)

    def _not_written(self, error: Any) -> None:
        self.message.emit(f"Not written to the disk: {error}", True)

    def write(
        self,
        layer: Labels,
        place: tuple[int, ...],
        window: tuple[slice, slice],
        values: np.ndarray,
    ) -> None:
        """Write ids into a part of a plane of a result, into all levels."""
        from ...io.zarr_labels import write_window

        mark = mark_of(layer) or {}
        folder, levels = mark["folder"], mark["levels"]
        place = tuple(p for p, a in zip(place, mark["axes"], strict=False) if a != "C")
        self.mark_edited(layer)
        self._use(layer, int(values.max(initial=0)))
        self._files.call(
            lambda: write_window(folder, levels, place, window, values),
            lambda _: layer.refresh(),
            self._not_written,
        )

    def next_id(self, layer: Labels, used: int) -> int:
        """Return an id that no object of the whole result has."""
        self._use(layer, used)
        return self._use(layer, int((mark_of(layer) or {})["highest"]) + 1)

    @staticmethod
    def _use(layer: Labels, used: int) -> int:
        """Take note of the highest id in use."""
        highest = max(int((mark_of(layer) or {}).get("highest", 0)), used)
        layer.metadata[MARK] |= {"highest": highest}
        return highest

    def _on_next_id(self, layer: Labels) -> None:
        layer.selected_label = self.next_id(layer, int(layer.selected_label))

    def can_edit(self) -> Labels | None:
        """Return the result whose view can be opened to be edited."""
        for layer in (self.viewer.layers.selection.active, self.layer):
            mark = mark_of(layer, KIND) if layer is not None else None
            if mark and layer in self.viewer.layers and layer.multiscale:
                return layer if mark["state"] != FILLING else None
        return None

    @property
    def is_editing(self) -> bool:
        """Whether a part is open to be edited."""
        return self._edit is not None

    def edit_view(self) -> None:
        """Open what is seen of a large result as a layer that can be painted in."""
        layer = self.can_edit()
        if layer is None:
            return
        self.end_edit()
        self._edit = EditWindow(self.viewer, layer, self.write, self.next_id)
        self.changed.emit()

    def end_edit(self) -> None:
        """Close the part that is edited; what was painted is in the result."""
        edit, self._edit = self._edit, None
        if edit is None:
            return
        edit.write()
        edit.close()
        if edit.layer in self.viewer.layers:
            self.viewer.layers.remove(edit.layer)
        self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if self._edit is not None and layer in (self._edit.layer, self._edit.target):
            self.end_edit()
        mark = mark_of(layer, KIND)
        if mark and mark["state"] != FILLING:
            self.message.emit(f"'{layer.name}' is kept in {mark['store']}.", False)
        if layer == self.layer:
            self.layer = None
        self.changed.emit()


def chunks_of(
    layer: Labels, region: tuple[slice, ...]
) -> list[tuple[tuple[int, ...], int, int]]:
    """Return the chunks that a region touches: place along the other axes, and corner.

    A kept channel axis does not count.
    """
    axes = (mark_of(layer) or {})["axes"]
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


def image_token(source: ImageSource) -> str:
    """Return what tells an image from another, also in another session."""
    path = getattr(getattr(source.layer, "source", None), "path", None)
    if path and os.path.exists(path):
        names = "+".join(source.channel_names) or source.name
        return f"{path}?{os.stat(path).st_mtime_ns}&{names}&{source.level}"
    return f"{source.name} {source.shape} {source.channel_names}"


def plain(value: Any) -> Any:
    """Return an array or units as what JSON knows."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value if isinstance(value, (int, float)) else str(value)
