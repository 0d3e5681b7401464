"""Controller of the table of objects: measures, filters and finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ...core.image import Axes
from ...core.labels.ids import present_ids
from ...core.labels.measure import Table, summary
from ...workflows.object_table import object_table
from ..callbacks import reports_errors
from ..layers.metadata import metadata_of
from ..layers.placement import Place
from ..layers.results.kept_objects import (
    REMADE,
    filter_objects,
    full_labels,
    set_features,
)
from ..messages import count
from ..writers import corner_of

if TYPE_CHECKING:
    from napari.layers import Labels

    from ..layers.results.run_layers import ShownResult
    from ..services.engine_process import EngineJob
    from .segment_controller import SegmentController

NO_RESULT = "No result yet: press Run."
ON_DISK = "Results on the disk are measured when they are saved as CSV."
MEASURING = "Measuring…"
KEPT_OF = "{kept} of {objects} kept in '{image}'."
HIDDEN = ("bbox-0", "bbox-1", "bbox-2", "bbox-3")
"""Columns that the table does not show."""


class ObjectsView(Protocol):
    """The table of objects, as its controller sees it."""

    def show_table(self, table: Table, keep: np.ndarray, ids: Labels | None) -> None:
        """Show rows, and which of them are kept."""

    def show_kept(self, keep: np.ndarray, limits: Range | None) -> None:
        """Show which rows are kept, and the range that they are in."""

    def show_summary(self, title: str, text: str) -> None:
        """Show whose objects these are, and what they have in common."""

    def measure_soon(self) -> None:
        """Call `ObjectsController.measure` once the layer rests for a moment."""

    def is_wanted(self) -> bool:
        """Return whether the table can be seen."""

    def say(self, text: str, error: bool = False) -> None:
        """Show a message in the dock."""


@dataclass(frozen=True)
class Range:
    """Values of one column that are kept."""

    column: str
    low: float
    high: float

    def holds(self, table: Table) -> np.ndarray:
        """Return which rows are in the range; those without a value are kept."""
        values = np.asarray(table[self.column], float)
        return ~((values < self.low) | (values > self.high))

    def text(self) -> str:
        """Return what is removed."""
        return f"{self.column} outside {self.low:.6g} to {self.high:.6g}"


@dataclass(eq=False)
class Measured:
    """The objects of a layer, and what is kept of them."""

    layer: Labels
    image: str
    axes: str
    labels: np.ndarray
    is_linked: bool
    corner: dict[str, int] = field(default_factory=dict)
    remade: int = 0
    table: Table = field(default_factory=dict)
    unticked: set[tuple[int, ...]] = field(default_factory=set)

    @property
    def keys(self) -> list[tuple[int, ...]]:
        """Plane and id of each row."""
        names = [*self.stack_columns, "label"]
        rows = zip(*(self.table[name].tolist() for name in names), strict=True)
        return [tuple(map(int, row)) for row in rows]

    @property
    def stack_columns(self) -> list[str]:
        """Names of the columns with the plane of an object."""
        return [a.lower() for a in Axes(self.axes).stack]

    def keep_of(self, limits: Range | None) -> np.ndarray:
        """Return which rows are kept; an object in several planes is kept whole."""
        n = len(self.table["label"])
        keep = np.ones(n, bool)
        if limits is not None and limits.column in self.table:
            keep = limits.holds(self.table)
        if self.unticked:
            keep &= np.array([key not in self.unticked for key in self.keys], bool)
        if self.is_linked:
            keep = np.isin(self.table["label"], self.table["label"][keep])
        return keep

    def pixels(self, keep: np.ndarray) -> np.ndarray:
        """Return the pixels of the kept rows and of the background."""
        mask = np.ones(self.labels.shape, bool)
        for part, here in self._by_plane(self.labels.shape):
            gone = self.table["label"][here & ~keep]
            if gone.size:
                mask[part] = ~np.isin(self.labels[part], gone)
        return mask

    def _by_plane(
        self, shape: tuple[int, ...]
    ) -> Iterator[tuple[tuple[slice | int, ...], np.ndarray]]:
        """Yield where each plane is in the layer, and which rows are of it."""
        layout = Axes(self.axes)
        columns = [
            self.table[name] - self.corner.get(name.upper(), 0)
            for name in self.stack_columns
        ]
        for index in layout.plane_indices(shape):
            here = np.ones(len(self.table["label"]), bool)
            for column, at in zip(columns, index, strict=True):
                here &= column == at
            yield layout.plane_slices(index), here

    def present(self) -> np.ndarray:
        """Return which rows are in the layer now."""
        now = np.asarray(self.layer.data)
        found = np.zeros(len(self.table["label"]), bool)
        for part, here in self._by_plane(now.shape):
            found |= here & np.isin(self.table["label"], present_ids(now[part]))
        return found


@reports_errors("follow", "measure", "filter", "tick")
class ObjectsController:
    """Measures the objects of the selected image's result in the engine.

    Parameters
    ----------
    view : ObjectsView
    runs : SegmentController
        Knows the images, the results and the engine.
    """

    def __init__(self, view: ObjectsView, runs: SegmentController) -> None:
        self.view, self.runs = view, runs
        self.measured: Measured | None = None
        self.limits: Range | None = None
        self._job: EngineJob | None = None
        self._unhook: Callable[[], None] = lambda: None
        self._layer: Labels | None = None

    def close(self) -> None:
        """Let go of the layer that is followed."""
        self._unhook()

    @property
    def is_busy(self) -> bool:
        """Whether objects are being measured."""
        return self._job is not None

    def shown(self) -> ShownResult | None:
        """Return the result whose objects are shown."""
        image = self.runs.images.selected()
        return None if image is None else self.runs.layers.shown_result(image)

    # ------------------------------------------------------------ measuring

    def follow(self) -> None:
        """Follow the selected image: its result is measured if it can be seen."""
        shown = self.shown()
        layer = None if shown is None else shown.layer
        if layer != self._layer:
            self._unhook()
            self._layer, self.measured = layer, None
            if layer is not None:
                self._unhook = self._hook(layer)
        self.view.measure_soon()

    def _hook(self, layer: Labels) -> Callable[[], None]:
        emitters = [getattr(layer.events, name) for name in ("set_data", "paint")]
        for emitter in emitters:
            emitter.connect(self._on_drawn)

        def unhook() -> None:
            for emitter in emitters:
                emitter.disconnect(self._on_drawn)

        return unhook

    def _on_drawn(self) -> None:
        if self.view.is_wanted():
            self.view.measure_soon()

    def measure(self) -> None:
        """Measure the objects, unless they are those measured last."""
        if not self.view.is_wanted():
            return
        shown, image = self.shown(), self.runs.images.selected()
        if shown is None or image is None or shown.is_stored:
            self.measured = None
            self.view.show_table({}, np.zeros(0, bool), None)
            title = "" if image is None else image.name
            self.view.show_summary(title, ON_DISK if shown else NO_RESULT)
            return
        if self._job is not None or self.runs.is_busy:
            self.view.measure_soon()
            return
        full = full_labels(shown.layer)
        known = self.measured
        remade = shown.layer.metadata.get(REMADE, 0)
        is_same = known is not None and (known.layer, known.remade) == (
            shown.layer,
            remade,
        )
        if known is not None and is_same and np.array_equal(known.labels, full):
            self._show_kept()
            return
        self._submit(shown, image.name, full)

    def _submit(self, shown: ShownResult, name: str, labels: np.ndarray) -> None:
        layer = shown.layer
        metadata = metadata_of(layer) or {}
        axes = str(metadata.get("axes", "YX"))
        is_linked = bool(shown.options.get("link_planes"))
        corner = corner_of(metadata)
        remade = layer.metadata.get(REMADE, 0)
        found = Measured(layer, name, axes, labels, is_linked, corner, remade)
        place = Place.of(layer).calibration(axes)
        self.view.show_summary(name, MEASURING)
        job = self._job = self.runs.engine.submit_prepared(
            object_table,
            lambda: (
                (labels, *pixels_of(shown, labels.shape)),
                {
                    "axes": axes,
                    "image_axes": image_axes(shown),
                    "pixel_size": place.pixel_size,
                    "unit": place.unit,
                    "corner": corner,
                },
            ),
        )
        receive = self.runs.receive
        for table_made in (job.partial, job.returned):
            table_made.connect(receive(lambda table: self._on_table(found, table)))
        job.failed.connect(receive(lambda text: self.view.say(text, True)))
        job.finished.connect(receive(self._on_finished))

    def _on_table(self, found: Measured, table: Table) -> None:
        if (
            found.layer != self._layer
            or found.layer not in self.runs.layers.viewer.layers
        ):
            return
        was = self.measured
        found.table = table
        if was is not None and (was.layer, was.remade) == (found.layer, found.remade):
            found.unticked = was.unticked & set(found.keys)
        self.measured = found
        if self.limits is not None and self.limits.column not in table:
            self.limits = None
        self.view.show_table(shown_columns(table), found.present(), found.layer)
        if self.limits is not None:
            self._apply()  # the filter holds for a new result too
        self._show_kept()

    def _on_finished(self) -> None:
        self._job = None

    def _show_kept(self) -> None:
        """Show which objects are kept, and what they have in common."""
        found = self.measured
        if found is None or "label" not in found.table:
            return
        keep = found.present()
        if not np.array_equal(keep, found.keep_of(self.limits)):
            self.limits = None  # undone, or painted since: no range tells what is kept
            gone = zip(found.keys, keep.tolist(), strict=True)
            found.unticked = {key for key, is_kept in gone if not is_kept}
        self.view.show_kept(keep, self.limits)
        self.view.show_summary(found.image, describe(found, keep))
        set_features(found.layer, found.table, keep)

    # ------------------------------------------------------------ filtering

    def filter(self, column: str, low: float, high: float) -> None:
        """Keep the objects with values in a range; the others are removed."""
        self.limits = Range(column, low, high)
        self._apply()

    def reset(self) -> None:
        """Bring all objects back that were filtered away."""
        self.limits = None
        if self.measured is not None:
            self.measured.unticked.clear()
        self._apply()

    def tick(self, row: int, keep: bool) -> None:
        """Keep one object, or remove it."""
        found = self.measured
        if found is None:
            return
        key = found.keys[row]
        found.unticked = found.unticked - {key} if keep else found.unticked | {key}
        self._apply()

    def _apply(self) -> None:
        found = self.measured
        if found is None or "label" not in found.table or self.runs.is_busy:
            return
        keep = found.keep_of(self.limits)
        note = "" if keep.all() else self._note(found)
        pixels = found.pixels(keep)
        layers = self.runs.layers
        if filter_objects(found.layer, found.labels, pixels, note, layers.journal):
            objects = count(len(keep), "object")
            kept = KEPT_OF.format(
                kept=int(keep.sum()), objects=objects, image=found.image
            )
            self.view.say(kept)
        self._show_kept()

    def _note(self, found: Measured) -> str:
        parts = [] if self.limits is None else [self.limits.text()]
        if found.unticked:
            parts.append(count(len(found.unticked), "object"))
        return ", ".join(parts)

    # ------------------------------------------------------------ finding

    def kept_table(self) -> Table:
        """Return the rows that are kept, with all columns."""
        found = self.measured
        if found is None:
            return {}
        keep = found.present()
        return {name: column[keep] for name, column in found.table.items()}

    def corners(self, row: int) -> tuple[np.ndarray, int] | None:
        """Return two corners of an object in its layer, and its id."""
        found = self.measured
        if found is None or "bbox-0" not in found.table:
            return None
        table = {name: column[row] for name, column in found.table.items()}
        low = {"Y": table["bbox-0"], "X": table["bbox-1"]}
        high = {"Y": table["bbox-2"], "X": table["bbox-3"]}
        for name in found.stack_columns:
            low[name.upper()] = high[name.upper()] = table[name]
        first = found.corner
        corners = [
            [end.get(a, 0) - first.get(a, 0) for a in found.axes] for end in (low, high)
        ]
        return np.array(corners, float), int(table["label"])


def shown_columns(table: Table) -> Table:
    """Return the columns that the table shows."""
    return {name: column for name, column in table.items() if name not in HIDDEN}


def pixels_of(
    shown: ShownResult, shape: tuple[int, ...]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return image and probabilities of a result, where they cover all its labels."""
    kept = shown.kept
    if kept is None:
        return None, None
    maps = kept.maps.foreground
    image = kept.source.query(kept.plane, kept.tile)
    covers = maps.size == int(np.prod(shape))
    return (image, maps.reshape(shape)) if covers else (None, None)


def image_axes(shown: ShownResult) -> str:
    """Return the axes of the image of `pixels_of`."""
    kept = shown.kept
    return "" if kept is None else str(kept.source.query_axes(kept.plane))


def describe(found: Measured, keep: np.ndarray) -> str:
    """Return number, mean area and covered share of the objects that are kept."""
    table = {name: column[keep] for name, column in found.table.items()}
    facts = summary(table, found.labels.size)
    objects = count(int(facts["objects"]), "object")
    total = len(keep)
    lines = [objects if keep.all() else f"{objects} of {total}"]
    if keep.any():
        area = f"mean area {facts['area_mean']:.0f} px"
        for name, value in facts.items():
            if name.startswith("area_") and name != "area_mean":
                unit = name.removeprefix("area_").removesuffix("2")
                area += f" ({value:.4g} {unit.replace('um', 'µm')}²)"
        lines.append(area)
    lines.append(f"{100 * facts['covered']:.1f} % covered")
    return "\n".join(lines)
