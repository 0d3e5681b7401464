"""One image segmented by the model before and after fine-tuning, to compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QVBoxLayout, QWidget

from ....core.geometry import Tile
from ....core.labels.ids import count_objects
from ....core.settings import SegmentSettings
from ....workflows.segment_image import segment
from ...callbacks import guarded, reports_errors
from ...layers.images.image_source import MAX_PREVIEW, ImageSource
from ...layers.images.intensities import Intensities
from ...layers.images.visibility import add_behind_boxes, show
from ...layers.metadata import METADATA_KEY, layer_name, metadata_of
from ...messages import count
from ...services.activity import Activity
from ...services.engine_process import Engine, EngineJob
from ..controls import button, note, side_by_side

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from ....core.result import Result

SIDES = ("before", "after")
COMPARE = "Compare on this image"
COMPARING = {
    "before": "Segmenting with the model before… (1 of 2)",
    "after": "Segmenting with the model after… (2 of 2)",
}
"""What is shown from the click on."""


@reports_errors("_show_side")
class Comparison(QWidget):
    """Two layers of labels, of which one is shown.

    Parameters
    ----------
    viewer : ViewerModel
    engine : Engine
    """

    failed = Signal(str)
    changed = Signal()

    def __init__(self, viewer: ViewerModel, engine: Engine) -> None:
        super().__init__()
        self.viewer, self.engine = viewer, engine
        self.is_busy = False
        self._intensities = Intensities()
        self.activity = Activity(COMPARE)
        self._todo: list[tuple[str, str]] = []
        self._layers: dict[str, Labels] = {}
        self._job: EngineJob | None = None
        self.look = button(
            COMPARE,
            "Segment the selected image with the model before and after fine-tuning",
        )
        self.before = button("Before", "Show what the old model finds", checkable=True)
        self.after = button("After", "Show what the new model finds", checkable=True)
        self.line = note()
        group = QButtonGroup(self)
        for one in (self.before, self.after):
            group.addButton(one)
            one.setEnabled(False)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        row = side_by_side(self.look, self.before, self.after, stretch=(2, 1, 1))
        column.addWidget(row)
        column.addWidget(self.line)
        self.line.hide()
        group.buttonToggled.connect(lambda *_: self._show_side())

    def clear(self) -> None:
        """Remove the two layers."""
        for layer in self._layers.values():
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self._layers = {}
        self.line.hide()
        self._show_state()

    def start(
        self, source: ImageSource, plane: tuple[int, ...], old: str, new: str
    ) -> None:
        """Segment the visible part of an image with both models.

        Parameters
        ----------
        source : ImageSource
        plane : tuple of int
        old, new : str
            Models; both get the prompts of the new one.
        """
        self.clear()
        is_large = max(source.plane_shape) > MAX_PREVIEW
        tile = source.visible_tile(self.viewer) if is_large else None
        self._todo = [("before", old), ("after", new)]
        self.is_busy = True
        self._next(source, plane, tile, new)

    def cancel(self) -> None:
        """Stop."""
        self._todo = []
        if self._job is not None:
            self._job.cancel()

    def _next(
        self, source: ImageSource, plane: tuple[int, ...], tile: Tile | None, asked: str
    ) -> None:
        side, model = self._todo.pop(0)
        self._show_doing(COMPARING[side])
        self.activity.begin()
        call = self._call(source, plane, tile, model, asked)
        job = self.engine.submit_prepared(segment, call)
        self._job = job

        def on_progress(done: int, total: int, text: str) -> None:
            self._show_doing(f"{COMPARING[side]} {text}")
            self.activity.show(done, total, text)

        def on_returned(result: Result) -> None:
            self._add(side, source, plane, tile, result.labels)

        def on_finished() -> None:
            self._job = None
            if self._todo:
                self._next(source, plane, tile, asked)
            else:
                self.is_busy = False
                self.activity.end()
                if not self._layers:
                    self.line.hide()
                self._show_state()

        job.progressed.connect(guarded(self, on_progress))
        job.returned.connect(guarded(self, on_returned))
        job.failed.connect(self._on_failed)
        job.finished.connect(guarded(self, on_finished))
        self._show_state()

    def _call(
        self,
        source: ImageSource,
        plane: tuple[int, ...],
        tile: Tile | None,
        model: str,
        asked: str,
    ) -> Callable[[], Any]:
        """Return a function that makes the arguments of a run, away from the GUI."""
        query = source.query(plane, tile)
        promise = self._intensities.request(source, plane)
        kwargs: dict[str, Any] = {
            "model": model,
            "axes": source.query_axes(plane),
            "channels": source.channels,
            "rgb": bool(source.layer.rgb),
            "settings": SegmentSettings(trust=False),
        }

        def prepare() -> Any:
            from ....io.model_store import model_prompts

            kwargs["intensities"] = promise.result()
            return (query, model_prompts(asked)), kwargs

        return prepare

    def _on_failed(self, text: str) -> None:
        self._todo = []
        self.failed.emit(text)

    def _add(
        self,
        side: str,
        source: ImageSource,
        plane: tuple[int, ...],
        tile: Tile | None,
        labels: np.ndarray,
    ) -> None:
        if source.layer not in self.viewer.layers:
            self._todo = []
            return
        values = np.ascontiguousarray(source.companion.expand(labels, plane))
        corner = source.companion.corner(plane, tile)
        self._layers[side] = add_behind_boxes(
            self.viewer,
            lambda: self.viewer.add_labels(
                values,
                name=layer_name(f"{source.name} {side}"),
                opacity=0.5,
                metadata={METADATA_KEY: source.entry("comparison", corner, side=side)},
                **source.placement(corner),
            ),
        )
        if side == "after":
            self.after.setChecked(True)
            self._show_side()

    def _show_doing(self, text: str) -> None:
        self.line.setText(text)
        self.line.show()

    def _show_side(self) -> None:
        """Show one of the two layers, and hide our other results."""
        shown = "before" if self.before.isChecked() else "after"
        for layer in self.viewer.layers:
            metadata = metadata_of(layer, "comparison")
            if metadata is not None:
                show(layer, visible=metadata.get("side") == shown)
            elif metadata_of(layer, "labels") is not None:
                show(layer, visible=False)
        counts = [
            f"{side}: {count(count_objects(np.asarray(layer.data)), 'object')}"
            for side, layer in self._layers.items()
        ]
        self.line.setText(", ".join(counts))
        self.line.setVisible(bool(counts))

    def _show_state(self) -> None:
        for one in (self.before, self.after):
            one.setEnabled(len(self._layers) == len(SIDES))
        self.changed.emit()
