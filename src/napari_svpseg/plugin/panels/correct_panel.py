"""The part of a dock where results are corrected by clicks and answers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from ..callbacks import reports_errors, tell
from ..docks.correct_controller import CorrectController
from ..layers.results.seen_plane import SeenPlane
from ..services.background import Background
from ..tools.correct_tools import CorrectTool, JoinTool, NotThisTool, SplitTool
from ..tools.doubt_guide import DoubtGuide
from ..tools.this_too import ThisTooTool
from .controls import button, side_by_side

if TYPE_CHECKING:
    from napari.layers import Image
    from qtpy.QtWidgets import QPushButton

    from ..docks.segment_controller import SegmentController
    from ..layers.prompts.prompt_book import PromptBook
    from .image_panel import ImagePanel


class Answers(QWidget):
    """Three answers to a question on the result, hidden until one is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.yes = button("Yes (y)", "Correct it, and what is like it in all images")
        self.no = button("No (n)", "Keep it as it is, and go on to the next")
        self.edit = button("Edit (e)", "Correct it by hand")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(side_by_side(self.yes, self.no, self.edit, stretch=(1, 1, 1)))
        self.hide()


@reports_errors("refresh", "leave")
class CorrectPanel(QWidget):
    """Tools that correct a result, and questions on what is doubtful in it.

    Parameters
    ----------
    runs : SegmentController
    book : PromptBook
    images : ImagePanel
    """

    message = Signal(str, bool)
    changed = Signal()
    """What was corrected, or a choice, has changed and is to be saved."""

    def __init__(
        self, runs: SegmentController, book: PromptBook, images: ImagePanel
    ) -> None:
        super().__init__()
        self.images = images
        self._files = Background(partial(tell, self))
        self.controller = CorrectController(self, runs, self._files)
        correct = self.controller
        self.not_this_tool = NotThisTool(book, correct)
        self.this_too_tool = ThisTooTool(book, correct)
        self.split_tool = SplitTool(book, correct)
        self.join_tool = JoinTool(book, correct)
        self.guide = DoubtGuide(
            correct,
            images,
            {
                "wrong": self._edit_object,
                "missed": self._edit_missed,
                "touching": lambda seen, _: self._switch(self.split_tool, seen),
            },
        )
        self._build()
        self._connect()

    def _build(self) -> None:
        self.answers = Answers()
        self.not_this = button(
            "Not this",
            "Click on a wrong object: it goes, and what is like it in all images",
            checkable=True,
        )
        self.this_too = button(
            "This too",
            "Click on a missed object: it is added, and what is like it in all images",
            checkable=True,
        )
        self.split = button(
            "Split here", "Draw a line through objects that are one", checkable=True
        )
        self.join = button(
            "Join", "Click on two objects that should be one", checkable=True
        )
        self.next_place = button(
            "Next doubtful place",
            "Go to the object whose correction changes most in all images",
        )
        self.follow_box = QCheckBox("Follow corrections")
        self.follow_box.setToolTip(
            "Make the results of all images anew after each correction"
        )
        self.follow_box.setChecked(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        tools = (self.not_this, self.this_too, self.split, self.join)
        column.addWidget(side_by_side(*tools, stretch=(1, 1, 1, 1)))
        column.addWidget(side_by_side(self.next_place, self.follow_box, stretch=(1, 0)))

    def _connect(self) -> None:
        for tool, made in self._tools():
            made.clicked.connect(partial(self._on_tool, tool, made))
            tool.switched.connect(made.setChecked)
        self.follow_box.toggled.connect(lambda _: self.changed.emit())
        self.next_place.clicked.connect(lambda: self.guide.next_place())
        self.guide.message.connect(self.message)
        self.guide.asked.connect(self._on_asked)
        self.answers.yes.clicked.connect(lambda: self.guide.yes())
        self.answers.no.clicked.connect(lambda: self.guide.no())
        self.answers.edit.clicked.connect(lambda: self.guide.edit())

    def _on_asked(self, question: str) -> None:
        """Show a question with its answers; an empty one hides them."""
        self.message.emit(question, False)
        self.answers.setVisible(bool(question))

    def _tools(self) -> list[tuple[CorrectTool, QPushButton]]:
        return [
            (self.not_this_tool, self.not_this),
            (self.this_too_tool, self.this_too),
            (self.split_tool, self.split),
            (self.join_tool, self.join),
        ]

    @property
    def follows(self) -> bool:
        """Whether other images follow corrections."""
        return self.follow_box.isChecked()

    def mark(self, image: Image) -> None:
        """Mark an image of the list as changed."""
        self.images.mark(image)

    def touch(self) -> None:
        """Have corrections saved soon."""
        self.changed.emit()

    def followed(self) -> None:
        """Go on after all results have followed."""
        self.guide.go_on()

    def refresh(self, *, busy: bool) -> None:
        """Show the tools where there is a result, and enable them while none runs."""
        seen = self.guide.seen()
        self.setVisible(bool(seen))
        if busy or not seen:
            self.leave()
        for _, made in self._tools():
            made.setEnabled(not busy)
        self.next_place.setEnabled(not busy)

    def leave(self) -> None:
        """End the tools, and take the question away."""
        for tool, _ in self._tools():
            tool.stop()
        self.guide.drop()

    def end_work(self) -> None:
        """Leave the results as they are: a run begins, or the dock is closed."""
        self.leave()
        self.controller.follow.cancel()

    def close_panel(self) -> None:
        """Let go of the viewer."""
        self.guide.close_guide()
        self._files.close()

    def ask_what_is_wrong(self, item_id: str) -> None:
        """Let a click tell which object of a whole unwanted box is wrong."""
        item = self.controller.book.item(item_id)
        if item is not None:
            self.leave()
            self.not_this_tool.replace_box(item)

    def _on_tool(self, tool: CorrectTool, made: QPushButton) -> None:
        layer, was_on = self.images.selected(), tool.is_on
        self.leave()
        if layer is None or was_on or not tool.start(layer):
            made.setChecked(False)

    def _switch(self, tool: CorrectTool, seen: SeenPlane) -> None:
        self.leave()
        tool.start(seen.source.layer)

    def _edit_object(self, seen: SeenPlane, point: tuple[int, int]) -> None:
        """Let the user correct the outline of an object."""
        patch = self.controller.outline_of(seen.source, seen.plane, point)
        self.leave()
        self.this_too_tool.offer(seen.source, seen.plane, [patch], 0)

    def _edit_missed(self, seen: SeenPlane, point: tuple[int, int]) -> None:
        """Let the user correct the outline of a missed object."""
        patches, best = self.controller.propose(seen.source, seen.plane, point)
        self.leave()
        self.this_too_tool.offer(seen.source, seen.plane, patches, best)
