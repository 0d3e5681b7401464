"""Guides the user from one doubtful object to the next, and takes her verdict."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from qtpy.QtCore import QObject, Signal

from ...core.geometry import MIN_BOX_SIZE, Box
from ...core.labels.doubts import Answer, Doubt, Question, doubts, questions
from ...core.prompt import UNKNOWN
from ..callbacks import guarded, reports_errors, tell
from ..layers.images.visibility import activate, bring_into_sight, is_in_sight, look_at
from ..layers.metadata import METADATA_KEY, metadata_of
from ..layers.results.corrected import fixed_on
from ..layers.results.seen_plane import SeenPlane, seen_planes
from ..messages import count
from ..services.background import Background

if TYPE_CHECKING:
    from napari.layers import Shapes

    from ..docks.correct_controller import CorrectController
    from ..panels.image_panel import ImagePanel

NAME = "SVPSeg doubtful place"
KIND = "doubt"
COLOR = "#ffffff"
NO_RESULT = "Press Preview or Run first: doubtful places are found in its result."
NO_QUESTION = "Press Next doubtful place first."
NOTHING_LEFT = "No doubtful place is left. Press again to see the ones you kept."
NOTHING = "Nothing is doubtful in these results."
KEPT = "Kept as it is."
QUESTIONS = {
    "wrong": "Is this object wrong?",
    "missed": "Is an object missed here?",
    "touching": "Are these several objects that touch?",
}
ALIKE = " {} like it in {}."
FRAME_PIXELS = 140
"""Least length on screen of the frame: what is around shows whether it is right."""
MARGIN = 1.0
"""Room around an object that is shown, in its own lengths."""


class Answered(NamedTuple):
    """A question that was answered: where, about what, and what the user said.

    Parameters
    ----------
    seen : SeenPlane
    doubt : Doubt
    point : (int, int)
        On the plane.
    kept : bool
        Whether she said *no*.
    """

    seen: SeenPlane
    doubt: Doubt
    point: tuple[int, int]
    kept: bool

    def answer(self) -> Answer | None:
        """Return what it says about others; None if its correction was taken back."""
        if self.kept:
            return Answer(self.doubt, False)
        return Answer(self.doubt, True) if _is_fixed(self.seen, self.point) else None


@reports_errors("next_place", "yes", "no", "edit", "drop")
class DoubtGuide(QObject):
    """Asks about the doubtful objects of all results, one after the other.

    Those come first whose answers are expected to change most in all images.

    Parameters
    ----------
    correct : CorrectController
    images : ImagePanel
    edits : dict of str to callable
        What *edit* does for each kind of doubt, given the result and a point.
    """

    message = Signal(str, bool)
    asked = Signal(str)
    """A question, to be shown with its answers; empty to show none."""

    def __init__(
        self,
        correct: CorrectController,
        images: ImagePanel,
        edits: dict[str, Callable[[SeenPlane, tuple[int, int]], object]],
    ) -> None:
        super().__init__()
        self.correct, self.images, self._edits = correct, images, edits
        self.viewer, self.book = correct.layers.viewer, correct.book
        self._background = Background(partial(tell, self))
        self._answered: list[Answered] = []
        self._now: tuple[SeenPlane, Doubt] | None = None
        self._keys: Shapes | None = None
        self._goes_on = False

    def close_guide(self) -> None:
        """Disconnect from the viewer."""
        self.drop()
        self._background.close()

    def seen(self) -> list[SeenPlane]:
        """Return the planes with a result, the latest of each."""
        kept = self.correct.layers.results.kept.values()
        newest: dict[Any, SeenPlane] = {}
        for seen in seen_planes(kept, self.viewer.layers):
            newest.setdefault(seen.key, seen)
        return list(newest.values())

    # ------------------------------------------------------------ questions

    def next_place(self) -> None:
        """Go to the most doubtful object that is left, in whichever image it is."""
        if self._background.is_busy:
            return
        self.drop()
        every = self.seen()
        if not every:
            self.message.emit(NO_RESULT, False)
            return
        given = [(s.maps(), s.labels(), s.settings) for s in every]
        self._background.call(
            lambda: [doubts(*one) for one in given],
            lambda found: self._ask(every, found),
        )

    def _ask(self, every: list[SeenPlane], found: list[list[Doubt]]) -> None:
        """Show the first of the questions that were not answered."""
        is_open = set(self.viewer.layers)
        left = [
            [doubt for doubt in few if not self._is_answered(seen, doubt)]
            if seen.kept.layer in is_open
            else []
            for seen, few in zip(every, found, strict=True)
        ]
        answers = [answer for one in self._answered if (answer := one.answer())]
        asked = questions(left, answers)
        if not asked:
            self.message.emit(NOTHING_LEFT if self._answered else NOTHING, False)
            self._answered.clear()
            return
        self._show(every[asked[0].image], asked[0])

    def _is_answered(self, seen: SeenPlane, doubt: Doubt) -> bool:
        """Return whether the user has decided on an object, by whichever tool."""
        top, left = seen.corner
        return _is_fixed(seen, (doubt.point[0] + top, doubt.point[1] + left)) or any(
            one.seen.key == seen.key
            and doubt.is_about(
                one.doubt.kind, (one.point[0] - top, one.point[1] - left)
            )
            for one in self._answered
        )

    def _show(self, seen: SeenPlane, question: Question) -> None:
        doubt = question.doubt
        self._now = seen, doubt
        image = seen.source.layer
        if not is_in_sight(self.viewer, image):
            bring_into_sight(self.viewer, image)
        self.images.select(image)
        frame = self._frame(seen, doubt)
        look_at(self.viewer, frame, frame.data[0], FRAME_PIXELS)
        alike = ""
        if question.alike > 1:
            number = (
                "1 more is" if question.alike == 2 else f"{question.alike - 1} more are"
            )
            alike = ALIKE.format(number, count(question.images, "image"))
        self.asked.emit(f"{QUESTIONS[doubt.kind]}{alike}")

    def _frame(self, seen: SeenPlane, doubt: Doubt) -> Shapes:
        """Return a layer with a frame around an object."""
        source = seen.source
        y0, y1, x0, x1 = doubt.window
        side = max(MIN_BOX_SIZE, round((1 + MARGIN) * max(y1 - y0, x1 - x0)))
        middle = (y0 + y1 - 1) / 2 + seen.corner[0], (x0 + x1 - 1) / 2 + seen.corner[1]
        box = Box.centred(middle, side)
        boxes = self.book.boxes.layer_on(source)
        frame = self.viewer.add_shapes(
            [source.companion.corners(seen.plane, box)],
            ndim=len(source.companion.axes),
            shape_type="rectangle",
            name=NAME,
            face_color="transparent",
            edge_color=COLOR,
            edge_width=1,
            opacity=1.0,
            metadata={METADATA_KEY: source.entry(KIND)},
            **source.placement(),
        )
        frame.mouse_pan = True
        activate(self.viewer, boxes)
        self._bind(boxes)
        return frame

    def _bind(self, boxes: Shapes) -> None:
        """Let y, n and e answer, and Escape drop the question."""
        self._keys = boxes
        for key, action in self._actions().items():
            act = guarded(self, lambda _layer, action=action: action())
            boxes.bind_key(key, act, overwrite=True)

    def _actions(self) -> dict[str, Callable[[], None]]:
        return {"Y": self.yes, "N": self.no, "E": self.edit, "Escape": self.drop}

    # ------------------------------------------------------------ answers

    def yes(self) -> None:
        """Correct what was asked about: it is wrong, missed, or several."""
        if self._now is None:
            self.message.emit(NO_QUESTION, False)
            return
        seen, doubt, point = self._answer()
        source, plane = seen.source, seen.plane
        self._goes_on = True
        if doubt.kind == "wrong":
            self.correct.not_this(source, plane, [point])
        elif doubt.kind == "touching":
            self.correct.split_readily(source, plane, point)
        else:
            patches, best = self.correct.propose(source, plane, point)
            outline = patches[best].on_plane(source.plane_shape) > 0
            self.correct.this_too(source, plane, outline)

    def go_on(self) -> None:
        """Ask about the next, after all results have followed an answer."""
        goes_on, self._goes_on = self._goes_on, False
        if goes_on:
            self.next_place()

    def no(self) -> None:
        """Keep the result, which is right here, and ask about the next."""
        if self._now is None:
            self.message.emit(NO_QUESTION, False)
            return
        self._answer(kept=True)
        self.message.emit(KEPT, False)
        self.next_place()

    def edit(self) -> None:
        """Correct it by hand, with the tool for it."""
        if self._now is None:
            self.message.emit(NO_QUESTION, False)
            return
        seen, doubt, point = self._answer()
        self._edits[doubt.kind](seen, point)

    def _answer(
        self, *, kept: bool = False
    ) -> tuple[SeenPlane, Doubt, tuple[int, int]]:
        """Return what was asked about, and ask no more about it."""
        assert self._now is not None
        seen, doubt = self._now
        point = (doubt.point[0] + seen.corner[0], doubt.point[1] + seen.corner[1])
        self._answered.append(Answered(seen, doubt, point, kept))
        self.drop()
        return seen, doubt, point

    def drop(self) -> None:
        """Take the question away."""
        if self._now is not None:
            self.asked.emit("")
        self._now, self._goes_on = None, False
        keys, self._keys = self._keys, None
        if keys is not None:
            for key in self._actions():
                keys.bind_key(key, None)
        for layer in list(self.viewer.layers):
            if metadata_of(layer, KIND):
                self.viewer.layers.remove(layer)


def _is_fixed(seen: SeenPlane, point: tuple[int, int]) -> bool:
    """Return whether the user has decided on a pixel of a plane."""
    fixed = fixed_on(seen.source, seen.plane)
    return fixed is not None and bool(fixed[point] != UNKNOWN)
