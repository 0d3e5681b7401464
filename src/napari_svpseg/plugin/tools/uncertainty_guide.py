"""Guides the user to the places and images with the most uncertain result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from ...core.geometry import Box
from ...core.image import Axes
from ...core.labels.uncertainty import (
    MIN_IMAGE_UNCERTAINTY,
    UncertainPlace,
    image_uncertainty,
    uncertain_places,
)
from ...core.result import Maps
from ..callbacks import reports_errors, tell
from ..layers.images.image_source import ImageSource
from ..layers.images.visibility import IMAGE_PIXELS, activate, bring_into_sight, look_at
from ..layers.metadata import METADATA_KEY, metadata_of
from ..layers.prompts.prompt_book import PromptBook
from ..layers.results.result_layers import Kept, Results
from ..layers.world import world_point
from ..messages import count
from ..panels.controls import Choice, button, keep_place, side_by_side
from ..panels.image_panel import ImagePanel
from ..services.background import Background

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes

Plane = tuple[int, ...]

NAME = "SVPSeg uncertain place"
COLOR = "#ffffff"
NO_RESULT = "Press Run first: the uncertainty is in its result."
NO_PLACE = "Go to an uncertain place first."
PLACE = "Uncertain place in {}: {} so far, uncertainty {:.2f}; {}."
LAST = "the last one"
CORRECT_OR_SKIP = (
    "If its labels are not right, make it a prompt and correct them; or go on to the "
    "next place."
)
NO_PLACE_LEFT = "No uncertain place is left in {}."
PRESS_AGAIN = " Press again to see the places once more."
NO_IMAGE_LEFT = "No uncertain image is left among {}."
START_AGAIN = " Press again to start again with the first."
NOW_A_PROMPT = "'{}' is a prompt now. {}"
MASK_FROM = "Its mask is from '{}'. Press Run again."
CORRECT_LABELS = (
    "Correct its labels: paint what is missing, erase what is wrong; then press Run. "
    "If nothing in it is wanted, press – in its row."
)


@dataclass(frozen=True)
class Seen:
    """A plane of an image that has a result."""

    kept: Kept
    plane: Plane

    @property
    def source(self) -> ImageSource:
        """The image."""
        return self.kept.source

    @property
    def key(self) -> tuple[Any, Plane]:
        """Identifies the plane, also in the result of the next run."""
        return self.source.layer.unique_id, self.plane

    @property
    def title(self) -> str:
        """The image's name, with the plane where there are several."""
        if self.source.n_planes == 1:
            return f"'{self.source.name}'"
        axes = [a for a in self.source.companion.axes if a not in "CYX"]
        where = ", ".join(f"{a} {i}" for a, i in zip(axes, self.plane, strict=True))
        return f"'{self.source.name}' ({where})"

    @property
    def corner(self) -> tuple[int, int]:
        """First pixel of the maps in the plane: not 0 for a preview."""
        tile = self.kept.tile
        return (0, 0) if tile is None else (tile.y0, tile.x0)

    @property
    def trust(self) -> float:
        """Trust in the result; for a plane of a stack, that in the whole stack."""
        return self.kept.result.trust

    def maps(self) -> Maps:
        """Return the plane's maps, (Y, X)."""
        query = Axes(self.source.query_axes(self.kept.plane))
        layout = Axes(query.labels)
        index = layout.plane_slices(self.plane if self.kept.plane is None else ())
        return Maps(layout.to_plane(self.kept.maps.foreground[index])[..., 0])

    def labels(self) -> np.ndarray:
        """Return the plane's labels as they are now, (Y, X)."""
        data, source = self.kept.layer.data, self.source
        if self.kept.tile is None:
            data = data[source.companion.index(self.plane)]
        y, x = source.companion.yx
        turned = np.moveaxis(np.asarray(data), (y, x), (-2, -1))
        return turned.reshape(turned.shape[-2:])


@reports_errors("next_place", "next_image", "accept", "drop")
class UncertaintyGuide(QWidget):
    """Two buttons, and a choice to make the place that they lead to a prompt.

    Parameters
    ----------
    viewer : ViewerModel
    results : Results
        Whose maps show where the uncertainty is.
    book : PromptBook
        Gets the places that become prompts.
    images : ImagePanel

    Attributes
    ----------
    offer : Choice
        Shown while a place is; it lies elsewhere in the dock.
    """

    message = Signal(str, bool)

    def __init__(
        self,
        viewer: ViewerModel,
        results: Results,
        book: PromptBook,
        images: ImagePanel,
    ) -> None:
        super().__init__()
        self.viewer, self.results = viewer, results
        self.book, self.images = book, images
        self.place_button = button(
            "Next uncertain place",
            "Go to the most uncertain place of the selected image",
        )
        self.image_button = button(
            "Next uncertain image",
            "Go to the image or plane with the most uncertain result",
        )
        self.offer = Choice(
            (
                "Make it a prompt",
                "Add a box with the labels found here",
            ),
            ("Skip", "Leave this place as it is"),
        )
        keep_place(self.offer)
        self.offer.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(
            side_by_side(self.place_button, self.image_button, stretch=(1, 1))
        )
        self._background = Background(partial(tell, self))
        self._visited: dict[tuple[Any, Plane], list[Box]] = {}
        self._visited_images: set[tuple[Any, Plane]] = set()
        self._shown: tuple[Seen, UncertainPlace] | None = None
        self.place_button.clicked.connect(self.next_place)
        self.image_button.clicked.connect(self.next_image)
        self.offer.taken.connect(self.accept)
        self.offer.left.connect(self.drop)

    def close_guide(self) -> None:
        """Disconnect from the viewer."""
        self.drop()
        self._background.close()

    def refresh(self, *, busy: bool) -> None:
        """Enable what makes sense now."""
        seen = list(self._seen())
        self.place_button.setEnabled(not busy and bool(seen))
        self.image_button.setEnabled(not busy and len({s.key for s in seen}) > 1)

    # ------------------------------------------------------------ places

    def next_place(self) -> None:
        """Go to the most uncertain place of the selected image that is left."""
        layer = self.images.selected()
        if layer is None or self._background.is_busy:
            return
        seen = self._seen_now(layer)
        if seen is None:
            self.message.emit(NO_RESULT, False)
            return
        self.drop()
        maps, labels, size = seen.maps(), seen.labels(), self._box_size()
        taken = [moved(box, seen.corner, -1) for box in self._taken(seen)]
        self._background.call(
            lambda: uncertain_places(maps, labels, size, taken=taken),
            lambda places: self._show(seen, places),
        )

    def accept(self) -> None:
        """Make the place that is shown a prompt with its current labels."""
        if self._shown is None:
            self.message.emit(NO_PLACE, False)
            return
        seen, place = self._shown
        if seen.kept.layer not in self.viewer.layers:
            self.drop()
            self.message.emit(NO_RESULT, False)
            return
        found = seen.labels()[place.box.slices]
        self.drop()
        box = moved(place.box, seen.corner)
        item = self.book.place(seen.source, seen.plane, box)
        if item.is_ready and item.mask_layer is not None:
            text = MASK_FROM.format(item.mask_layer.name)
        else:
            self.book.add_paint_layer(item, found)
            text = CORRECT_LABELS
        self.message.emit(NOW_A_PROMPT.format(item.name, text), False)

    def drop(self) -> None:
        """Remove the place that is shown; it is not shown again."""
        self._shown = None
        self.offer.hide()
        for layer in list(self.viewer.layers):
            if metadata_of(layer, "uncertainty"):
                self.viewer.layers.remove(layer)

    def _show(self, seen: Seen, places: list[UncertainPlace]) -> None:
        """Show the first of the places that are left."""
        if not {seen.kept.layer, seen.source.layer} <= set(self.viewer.layers):
            return
        visited = self._visited.setdefault(seen.key, [])
        if not places:
            again = PRESS_AGAIN if visited else ""
            visited.clear()
            self.message.emit(NO_PLACE_LEFT.format(seen.title) + again, False)
            return
        place, box = places[0], moved(places[0].box, seen.corner)
        visited.append(box)
        self._shown = seen, place
        layer = self._outline(seen, box)
        look_at(self.viewer, layer, layer.data[0])
        left = len(places) - 1
        n = place.n_objects
        self.offer.show()
        text = PLACE.format(
            seen.title,
            count(n, "object") if n else "no object",
            place.uncertainty,
            f"{left} more" if left else LAST,
        )
        self.message.emit(f"{text} {CORRECT_OR_SKIP}", False)

    def _outline(self, seen: Seen, box: Box) -> Shapes:
        """Return a layer that shows a box which is no prompt yet."""
        source = seen.source
        boxes = self.book.boxes.layer_on(source)
        layer = self.viewer.add_shapes(
            [source.companion.corners(seen.plane, box)],
            ndim=len(source.companion.axes),
            shape_type="rectangle",
            name=NAME,
            face_color="transparent",
            edge_color=COLOR,
            edge_width=2,
            opacity=1.0,
            metadata={METADATA_KEY: source.entry("uncertainty")},
            **source.placement(),
        )
        layer.mouse_pan = True
        activate(self.viewer, boxes)  # where the keys are
        return layer

    def _box_size(self) -> int:
        """Return the side of a new prompt: that of those that are there."""
        sizes = [i.box.size for i in self.book.items if i.enabled and i.box]
        return int(np.median(sizes)) if sizes else self.book.size

    def _taken(self, seen: Seen) -> list[Box]:
        """Return the boxes of the prompts on a plane, and of places looked at."""
        prompts = [
            item.box
            for item in self.book.items
            if item.box is not None
            and item.source is not None
            and (item.source.layer.unique_id, item.plane) == seen.key
        ]
        return [*prompts, *self._visited.get(seen.key, [])]

    # ------------------------------------------------------------ images

    def next_image(self) -> None:
        """Go to the most uncertain image or plane that is left."""
        if self._background.is_busy:
            return
        every = list({s.key: s for s in self._seen()}.values())
        if not every:
            self.message.emit(NO_RESULT, False)
            return
        self.drop()
        told = [(s.maps(), s.trust) for s in every]
        self._background.call(
            lambda: [image_uncertainty(maps, trust) for maps, trust in told],
            lambda uncertainties: self._rank(every, uncertainties),
        )

    def _rank(self, every: list[Seen], uncertainties: list[float]) -> None:
        """Go to the most uncertain image that is left."""
        layers = set(self.viewer.layers)
        ranked = sorted(
            (-uncertainty, i)
            for i, uncertainty in enumerate(uncertainties)
            if {every[i].source.layer, every[i].kept.layer} <= layers
        )
        left = [
            (n, i)
            for n, (_, i) in enumerate(ranked, start=1)
            if every[i].key not in self._visited_images
            and uncertainties[i] >= MIN_IMAGE_UNCERTAINTY
        ]
        if not left:
            again = START_AGAIN if self._visited_images else ""
            self._visited_images.clear()
            text = NO_IMAGE_LEFT.format(count(len(ranked), "result"))
            self.message.emit(text + again, False)
            return
        n, i = left[0]
        seen = every[i]
        self._visited_images.add(seen.key)
        self._go_to(seen)
        rank = "The most uncertain" if n == 1 else f"Number {n}"
        told = f" (trust {seen.trust:.2f})" if np.isfinite(seen.trust) else ""
        self.message.emit(
            f"{rank} of {len(ranked)} results: {seen.title}{told}. "
            "Next uncertain place shows where.",
            False,
        )

    def _go_to(self, seen: Seen) -> None:
        """Show an image, and select it in the list."""
        source = seen.source
        bring_into_sight(self.viewer, source.layer)
        self.images.select(source.layer)
        height, width = source.plane_shape
        corners = source.companion.corners(seen.plane, Box(0, 0, max(height, width)))
        corners[:, source.companion.yx] = np.minimum(
            corners[:, source.companion.yx], (height - 0.5, width - 0.5)
        )
        look_at(self.viewer, seen.kept.layer, corners, IMAGE_PIXELS, closer=False)

    # ------------------------------------------------------------ results

    def _seen(self) -> Iterator[Seen]:
        """Yield the planes whose maps are kept, the latest result of each."""
        layers = self.viewer.layers
        for kept in reversed(self.results.kept.values()):
            if kept.layer not in layers or kept.source.layer not in layers:
                continue
            if kept.maps.classes is not None:
                continue  # a model that knows its classes takes no prompts
            source = kept.source
            if kept.plane is not None:
                yield Seen(kept, kept.plane)
            else:
                for plane in source.axes.plane_indices(source.shape):
                    yield Seen(kept, plane)

    def _seen_now(self, layer: Image) -> Seen | None:
        """Return the plane of an image that is in view, if it has a result."""
        for seen in self._seen():
            if seen.source.layer == layer:
                plane = seen.source.plane_at(world_point(self.viewer))
                if seen.plane == plane:
                    return seen
        return None


def moved(box: Box, corner: tuple[int, int], sign: int = 1) -> Box:
    """Return a box moved by a corner, or back by it."""
    return Box(box.y + sign * corner[0], box.x + sign * corner[1], box.size)
