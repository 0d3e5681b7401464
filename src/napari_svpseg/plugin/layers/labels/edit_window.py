"""The visible part of a large result, as a layer of its own to paint in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from ....core.geometry import Tile
from ...callbacks import reports_errors
from ..images.pyramid import full_data
from ..metadata import METADATA_KEY, layer_name, metadata_of
from ..placement import Grid, Place
from ..world import to_data, visible_corners, world_point

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

KIND = "stored edit"
"""Kind of our layers that show a part of a result on the disk."""

MAX_SIDE = 2048
"""Longest side of a part, in pixels."""

WRITE_AFTER_MS = 400

Write = Callable[[Any, tuple[int, ...], tuple[slice, slice], np.ndarray], None]


@reports_errors("write")
class EditWindow(QObject):
    """The visible part of a large result; strokes are written into the result.

    Parameters
    ----------
    viewer : ViewerModel
    target : Labels
        The result, a pyramid on the disk.
    write : callable
        Writes ids, given the result, the index of the plane, the window in it, and ids.
    next_id : callable
        Returns an unused id, given the result and an id in use.
    """

    message = Signal(str, bool)

    def __init__(
        self,
        viewer: ViewerModel,
        target: Labels,
        write: Write,
        next_id: Callable[[Any, int], int],
    ) -> None:
        super().__init__()
        self.target, self._write, self._next = target, write, next_id
        data = full_data(target)
        point = to_data(target, world_point(viewer))
        self._place = tuple(
            int(np.clip(round(float(p)), 0, n - 1))
            for p, n in zip(point[:-2], data.shape[:-2], strict=True)
        )
        self._tile = visible_part(viewer, target, data.shape[-2:])
        self._written = np.asarray(data[(*self._place, *self._tile.slices)]).copy()
        inside = (1,) * len(self._place) + self._written.shape
        corner = (*self._place, self._tile.y0, self._tile.x0)
        self.layer = viewer.add_labels(
            self._written.reshape(inside).copy(),
            name=layer_name(f"{target.name} edit"),
            opacity=target.opacity,
            metadata={METADATA_KEY: _entry(target, corner)},
            **Place.of(target).on(Grid((1.0,) * target.ndim, corner)).arguments(),
        )
        self._fresh: set[int] = set()
        self.layer.selected_label = self._allot(0)
        self.layer.bind_key("M", self._on_next_id, overwrite=True)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(WRITE_AFTER_MS)
        self._timer.timeout.connect(self.write)
        self.layer.events.selected_label.connect(self._on_selected)
        self.layer.events.paint.connect(self._on_change)
        self.layer.events.set_data.connect(self._on_change)  # all that an undo reports

    def close(self) -> None:
        """Stop following the layer."""
        self._timer.stop()
        self.layer.events.selected_label.disconnect(self._on_selected)
        self.layer.events.paint.disconnect(self._on_change)
        self.layer.events.set_data.disconnect(self._on_change)

    def _on_next_id(self, layer: Labels) -> None:
        layer.selected_label = self._allot(int(layer.selected_label))

    def _allot(self, used: int) -> int:
        """Return an id for a new object."""
        fresh = self._next(self.target, used)
        self._fresh.add(fresh)
        return fresh

    def _on_selected(self, event: Any) -> None:
        """Replace the id of an object that is not in view by an unused one.

        napari's button *new* takes the highest id that it sees, plus one: in the whole
        result an object out of view may have that id.
        """
        chosen = int(self.layer.selected_label)
        highest = int((metadata_of(self.target) or {}).get("highest", 0))
        if chosen in self._fresh or not 0 < chosen <= highest:
            return
        if not (self.layer.data == chosen).any():
            self.layer.selected_label = self._allot(0)

    def _on_change(self, event: Any = None) -> None:
        self._timer.start()

    def write(self) -> None:
        """Write the pixels that changed since the last time."""
        now = self.layer.data.reshape(self._written.shape)
        rows, columns = np.nonzero(now != self._written)
        if not rows.size:
            return
        y0, y1 = int(rows.min()), int(rows.max()) + 1
        x0, x1 = int(columns.min()), int(columns.max()) + 1
        values = now[y0:y1, x0:x1].copy()
        y, x = self._tile.y0, self._tile.x0
        window = slice(y + y0, y + y1), slice(x + x0, x + x1)
        self._write(self.target, self._place, window, values)
        self._written[y0:y1, x0:x1] = values

    def write_again(self, window: tuple[slice, slice]) -> None:
        """Write a window of the plane once more, with the next stroke or at the end."""
        corner = (self._tile.y0, self._tile.x0)
        part = tuple(
            slice(max(w.start - at, 0), max(w.stop - at, 0))
            for w, at in zip(window, corner, strict=True)
        )
        now = self.layer.data.reshape(self._written.shape)
        self._written[part] = now[part] + 1  # differs everywhere


def visible_part(viewer: ViewerModel, layer: Labels, shape: tuple[int, int]) -> Tile:
    """Return the visible part of a pyramid, at full size, at most `MAX_SIDE` long."""
    corners = visible_corners(viewer, layer)
    bounds: list[int] = []
    for (low, high), n in zip(corners[:, -2:].T, shape, strict=True):
        start, stop = int(max(low, 0)), int(min(np.ceil(high) + 1, n))
        if stop - start > MAX_SIDE:
            start = (start + stop - MAX_SIDE) // 2
            stop = start + MAX_SIDE
        bounds += [start, max(stop, start + 1)]
    return Tile(*bounds)


def _entry(target: Labels, corner: tuple[int, ...]) -> dict[str, Any]:
    """Return our entry in the metadata of a part of a result."""
    entry = {**(metadata_of(target) or {}), "kind": KIND}
    if "grid" in entry:
        whole = Grid.from_dict(entry["grid"])
        first = tuple(a + b for a, b in zip(whole.corner, corner, strict=True))
        entry["grid"] = Grid(whole.factors, first).to_dict()
    return entry
