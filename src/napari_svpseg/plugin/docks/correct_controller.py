"""Controller of corrections: *not this*, *this too*, split and join."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ...core.annotation.corrections import (
    CorrectionError,
    example_box,
    fixed_by,
    positive_mask,
    without_covered,
)
from ...core.annotation.mending import (
    Lesson,
    crossed_object,
    divided,
    divided_like,
    learned_strength,
)
from ...core.annotation.patches import Patch
from ...core.annotation.proposals import propose_object, reach_of
from ...core.geometry import Box, Tile
from ...core.labels.doubts import readier_objects
from ...core.prompt import UNKNOWN
from ..layers.results.corrected import all_planes, fix, fixed_on, keep_strokes
from ..layers.results.correction import CORRECTION, Correction, Reversal
from ..layers.results.seen_plane import SeenPlane, newest_seen
from .follow_controller import FollowController, FollowView, Task

if TYPE_CHECKING:
    from ..layers.images.image_source import ImageSource
    from ..layers.prompts.prompt_item import PromptItem
    from .controller import Files
    from .segment_controller import SegmentController

NO_RESULT = "Press Preview or Run first: there is no result to correct yet."
OUTSIDE_PREVIEW = "That is outside the preview: press Run for the whole image."
NO_OBJECT = "There is no object of the result here: click on one."
NOT_TWO = "Click on two different objects that are to be one."
NOT_THIS, THIS_TOO, SPLIT_HERE, JOIN = "Not this", "This too", "Split here", "Join"
REMOVED, ADDED, SPLIT, JOINED = "Removed", "Added", "Split", "Joined"
NEW_STRENGTH = " Split strength is now {:g}."
GAP = 2
"""Pixels between two objects that are filled when they are joined."""

Plane = tuple[int, ...]
Point = tuple[float, float]
Points = Sequence[Point]


class CorrectController:
    """Changes the result that a user corrects, and has the others follow.

    Each correction is one step of the journal. What it decides on holds for its image
    from then on; what it teaches (a prompt, the split strength) holds for all.

    Parameters
    ----------
    view : FollowView
    runs : SegmentController
    files : Files
        A thread, for what takes more than a moment.
    """

    def __init__(self, view: FollowView, runs: SegmentController, files: Files) -> None:
        self._view = view
        self.runs, self.layers, self.book = runs, runs.layers, runs.book
        self.follow = FollowController(view, runs)
        self._files = files
        self._lessons: list[Lesson] = []

    def seen(self, source: ImageSource, plane: Plane) -> SeenPlane:
        """Return the result of a plane that is corrected.

        Raises
        ------
        CorrectionError
            If there is none.
        """
        kept = self.layers.results.kept.values()
        seen = newest_seen(kept, self.layers.viewer.layers, source.layer, plane)
        if seen is None:
            raise CorrectionError(NO_RESULT)
        return seen

    # ------------------------------------------------------------ corrections

    def not_this(
        self,
        source: ImageSource,
        plane: Plane,
        points: Points,
        instead: PromptItem | None = None,
    ) -> None:
        """Remove objects, and whatever is like them in all images.

        Parameters
        ----------
        source : ImageSource
        plane : tuple of int
        points : sequence of (y, x)
            On the objects.
        instead : PromptItem, optional
            A box whose whole content counted as not wanted; it is removed.
        """
        seen = self.seen(source, plane)
        labels = seen.labels()
        ids = self._objects(seen, labels, points)
        correction = self._begin(seen, NOT_THIS)
        masks = [labels == i for i in ids]
        self._fix(correction, seen, masks, [])
        self._write(correction, seen, np.where(np.isin(labels, ids), 0, labels))
        items = [
            self._example(correction, seen, box, shown, "not this", negative=True)
            for box, shown in self._grouped(seen, masks)
        ]
        if instead is not None and instead in self.book.items:
            self.book.take_back(instead)
            self._note(correction, lambda: self.book.add(instead))
        self.follow.start(Task(REMOVED, correction, items), seen.kept)

    def this_too(self, source: ImageSource, plane: Plane, outline: np.ndarray) -> None:
        """Add an object, and find whatever is like it in all images.

        Parameters
        ----------
        source : ImageSource
        plane : tuple of int
        outline : (Y, X) bool array
            Its pixels on the plane.
        """
        seen = self.seen(source, plane)
        labels, shown = seen.labels(), outline[seen.window]
        known = _on_plane(seen, positive_mask(labels, shown))
        correction = self._begin(seen, THIS_TOO)
        self._fix(correction, seen, [], [shown])
        left = without_covered(labels, shown)
        new = int(labels.max(initial=0)) + 1
        self._write(correction, seen, np.where(shown, new, left))
        box = example_box(outline, self._sizes())
        item = self._example(correction, seen, box, known, "this too", negative=False)
        self.follow.start(Task(ADDED, correction, [item]), seen.kept)

    def split(self, source: ImageSource, plane: Plane, path: np.ndarray) -> None:
        """Divide an object along a line, and learn how readily others are split.

        Parameters
        ----------
        source : ImageSource
        plane : tuple of int
        path : (N, 2) float array
            Points (y, x) of the line on the plane.
        """
        seen = self.seen(source, plane)
        labels, local = seen.labels(), path - np.array(seen.corner)
        whole = labels == crossed_object(labels, local)
        parts = divided(whole, local)
        self._mend(seen, labels, parts, SPLIT_HERE, SPLIT)

    def split_readily(self, source: ImageSource, plane: Plane, point: Point) -> None:
        """Divide an object where the model sees the most likely border."""
        seen = self.seen(source, plane)
        labels = seen.labels()
        whole = labels == self._objects(seen, labels, [point])[0]
        parts = divided_like(whole, readier_objects(seen.maps(), seen.settings))
        self._mend(seen, labels, parts, SPLIT_HERE, SPLIT)

    def join(self, source: ImageSource, plane: Plane, points: Points) -> None:
        """Make one of two objects, and learn how readily others are split.

        Parameters
        ----------
        source : ImageSource
        plane : tuple of int
        points : sequence of (y, x)
            On the two objects.
        """
        seen = self.seen(source, plane)
        labels = seen.labels()
        ids = self._ids(seen, labels, points)
        if len(ids) != 2:
            raise CorrectionError(NOT_TWO)
        both = np.isin(labels, ids)
        closed = ndimage.binary_closing(both, iterations=GAP)
        whole = both | (closed & (labels == 0))
        self._mend(seen, labels, whole.astype(np.int32), JOIN, JOINED)

    def _mend(
        self,
        seen: SeenPlane,
        labels: np.ndarray,
        parts: np.ndarray,
        what: str,
        said: str,
    ) -> None:
        """Put objects in the place of others, and learn the split strength of it."""
        correction = self._begin(seen, what)
        numbers = range(1, int(parts.max()) + 1)
        self._fix(correction, seen, [], [parts == n for n in numbers])
        new = np.where(parts > 0, parts + labels.max(initial=0), labels)
        self._write(correction, seen, new)
        patch = Patch.of(np.where(parts > 0, parts, UNKNOWN))
        lesson = Lesson.of(seen.maps(), labels, patch)
        self._lessons.append(lesson)
        self._note(correction, lambda: self._lessons.remove(lesson))
        lessons, settings = list(self._lessons), seen.settings

        def learn(strength: float) -> None:
            if correction not in self.layers.journal.edits:
                return  # it was taken back
            task = Task(said, correction, split=strength)
            if strength == settings.split_strength:
                self.runs.view.say(task.text())
                self._view.followed()
                return
            self._show_strength(strength)
            before = settings.split_strength
            self._note(correction, lambda: self._show_strength(before))
            task.note = NEW_STRENGTH.format(strength)
            self.follow.start(task, seen.kept)

        self._files.call(lambda: learned_strength(lessons, settings), learn)

    def _show_strength(self, strength: float) -> None:
        """Show a split strength that the results have, or get from a job."""
        self.runs.view.set_options({"split_strength": strength}, quiet=True)
        self._view.touch()  # quiet options have nobody save them

    def undo_last(self) -> None:
        """Take the last change back; after a correction the maps are made anew."""
        edits = self.layers.journal.edits
        last = edits[-1] if edits else None
        if not isinstance(last, Correction):
            self.runs.undo_last()
            return
        self.follow.cancel()
        first, kept = last.first, list(self.layers.results.kept.values())
        self.runs.undo_last()
        # the maps are those of the prompts that were taken back
        if first is not None and self.layers.holds(first):
            self.follow.start(Task(), first, kept)

    # ------------------------------------------------------------ proposals

    def propose(
        self, source: ImageSource, plane: Plane, point: Point
    ) -> tuple[list[Patch], int]:
        """Return outlines for a missed object at a point, and the likely one's index.

        Parameters
        ----------
        source : ImageSource
        plane : tuple of int
        point : (y, x)
            On the plane.

        Returns
        -------
        list of Patch
            From the smallest to the largest: 1 in the object, unknown elsewhere.
        int
        """
        seen = self.seen(source, plane)
        rows, columns = seen.window
        y, x = (round(float(v)) for v in point)
        if not (rows.start <= y < rows.stop and columns.start <= x < columns.stop):
            raise CorrectionError(OUTSIDE_PREVIEW)
        maps, labels = seen.maps(), seen.labels()
        reach = 2 * reach_of(maps)
        tile = Tile(
            max(rows.start, y - reach),
            min(rows.stop, y + reach + 1),
            max(columns.start, x - reach),
            min(columns.stop, x + reach + 1),
        )
        local = (
            slice(tile.y0 - rows.start, tile.y1 - rows.start),
            slice(tile.x0 - columns.start, tile.x1 - columns.start),
        )
        image = source.axes.to_plane(np.asarray(source.query(plane, tile)))
        at = (y - tile.y0, x - tile.x0)
        found = propose_object(maps.window(local), labels[local], at, image)
        patches = [_outline(tile, mask) for mask in found.masks]
        return patches, found.best

    def outline_of(self, source: ImageSource, plane: Plane, point: Point) -> Patch:
        """Return the object of the result at a point, to be corrected."""
        seen = self.seen(source, plane)
        labels = seen.labels()
        whole = labels == self._objects(seen, labels, [point])[0]
        return Patch.of(_on_plane(seen, np.where(whole, 1, UNKNOWN)))

    # ------------------------------------------------------------ parts of one

    def _begin(self, seen: SeenPlane, what: str) -> Correction:
        """Return a new correction; strokes of before are the user's own already."""
        source = seen.source
        keep_strokes(seen.kept.layer, source, list(all_planes(source)))
        return Correction.begun(what, seen.kept)

    def _note(self, correction: Correction, take_back: Callable[[], object]) -> None:
        with self.layers.journal.within(correction):
            self.layers.journal.add(Reversal(take_back))

    def _fix(
        self,
        correction: Correction,
        seen: SeenPlane,
        wrong: list[np.ndarray],
        right: list[np.ndarray],
    ) -> None:
        """Decide on pixels of an image, whatever the model says from now on."""
        source, plane = seen.source, seen.plane
        before = fixed_on(source, plane)
        shape, window = source.plane_shape, seen.window
        old = np.full(shape, UNKNOWN, np.int32) if before is None else before
        new = old.copy()
        new[window] = fixed_by(old[window], old[window].shape, wrong, right)
        if right:  # ids of other parts of the plane are others
            added = (new != old) & (new > 0)
            new[added] += max(0, int(old.max(initial=0)))
        changed = Patch.of(np.where(new != old, 1, UNKNOWN)).slices
        values = old[changed].copy()

        def take_back() -> None:
            now = fixed_on(source, plane)
            if now is not None:
                now = now.copy()
                now[changed] = values
            fix(source, plane, now)
            self._view.touch()

        fix(source, plane, new)
        self._view.touch()
        self._note(correction, take_back)

    def _write(
        self, correction: Correction, seen: SeenPlane, labels: np.ndarray
    ) -> None:
        """Write the labels of a plane into its result."""
        values = seen.expanded(labels.astype(np.uint32))
        with self.layers.journal.within(correction):
            self.layers.results.mend(seen.kept, seen.region, values, CORRECTION)

    def _example(
        self,
        correction: Correction,
        seen: SeenPlane,
        box: Box,
        known: np.ndarray,
        name: str,
        *,
        negative: bool,
    ) -> PromptItem:
        """Add the prompt that shows what was corrected."""
        item = self.book.add_example(
            seen.source, seen.plane, box, Patch.of(known), name, negative=negative
        )
        self._note(correction, lambda: self.book.take_back(item))
        return item

    def _grouped(
        self, seen: SeenPlane, masks: list[np.ndarray]
    ) -> list[tuple[Box, np.ndarray]]:
        """Return boxes with the pixels of the objects in each, 1, else unknown."""
        left = [_on_plane(seen, np.where(mask, 1, UNKNOWN)) for mask in masks]
        found = []
        while left:
            box = example_box(left[0] > 0, self._sizes())
            inside = [
                i
                for i, one in enumerate(left)
                if i == 0 or (one[box.slices] > 0).sum() == (one > 0).sum()
            ]
            shown = np.max([left[i] for i in inside], axis=0)
            left = [one for i, one in enumerate(left) if i not in inside]
            found.append((box, shown))
        return found

    def _sizes(self) -> list[int]:
        """Return the sides of the boxes that show what is wanted."""
        items = [i for i in self.book.items if i.box is not None and not i.negative]
        drawn = [i for i in items if i.patch is None] or items
        return [i.box.size for i in drawn if i.box is not None] or [self.book.size]

    def _objects(
        self, seen: SeenPlane, labels: np.ndarray, points: Points
    ) -> list[int]:
        """Return the ids of `_ids`, of which there must be one."""
        ids = self._ids(seen, labels, points)
        if not ids:
            raise CorrectionError(NO_OBJECT)
        return ids

    @staticmethod
    def _ids(seen: SeenPlane, labels: np.ndarray, points: Points) -> list[int]:
        """Return the ids of the objects at points of a plane, in order."""
        height, width = labels.shape
        found: dict[int, None] = {}
        for y, x in points:
            row, column = round(y) - seen.corner[0], round(x) - seen.corner[1]
            if 0 <= row < height and 0 <= column < width and labels[row, column] > 0:
                found[int(labels[row, column])] = None
        return list(found)


def _on_plane(seen: SeenPlane, mask: np.ndarray) -> np.ndarray:
    """Return what is known of the window of a result on the whole plane."""
    known = np.full(seen.source.plane_shape, UNKNOWN, np.int32)
    known[seen.window] = mask
    return known


def _outline(tile: Tile, mask: np.ndarray) -> Patch:
    return Patch(tile.y0, tile.x0, np.where(mask, 1, UNKNOWN).astype(np.int32))
