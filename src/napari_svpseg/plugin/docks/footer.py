"""The footer of a dock: message, progress and actions, which keep their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QProgressBar, QPushButton, QVBoxLayout, QWidget

from ..messages import STOPPING
from ..panels.controls import side_by_side, theme_color, wrap
from ..panels.plain_text import PlainLabel

MESSAGE_HEIGHT = 36
"""Two lines of text, in pixels: the room that is kept for a message."""


class MessageLine(PlainLabel):
    """Message of a dock; an error stands on the theme's error colour.

    Parameters
    ----------
    theme : callable
        Returns the name of the viewer's theme.
    """

    def __init__(self, theme: Callable[[], str]) -> None:
        super().__init__()
        self._theme = theme
        self.is_error = False
        wrap(self)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.setMinimumHeight(MESSAGE_HEIGHT)

    def say(self, text: str, error: bool = False) -> None:
        """Show a message in place of the last one."""
        self.is_error = error
        self.setStyleSheet(
            f"background: {theme_color(self._theme(), 'error')}; color: white;"
            " padding: 4px; border-radius: 3px;"
            if error
            else ""
        )
        self.setText(text)


class ProgressRow(QWidget):
    """A bar and the buttons that end a run; the row keeps its place while hidden.

    Parameters
    ----------
    *buttons : QPushButton
        *Stop* first.
    """

    def __init__(self, *buttons: QPushButton) -> None:
        super().__init__()
        self.buttons = buttons
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.bar.setRange(0, 100)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(side_by_side(self.bar, *buttons, stretch=(1,)))
        policy = self.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.setSizePolicy(policy)
        self.hide()

    def begin(self) -> None:
        """Show that something runs whose length is not known yet."""
        self.bar.setRange(0, 0)
        self.bar.setFormat("")
        for one in self.buttons:
            one.setEnabled(True)
        self.show()

    def show_progress(self, done: int, total: int, text: str = "") -> None:
        """Show how far it is; the text stays "Stopping…" once it was stopped."""
        self.bar.setRange(0, max(total, 1))
        self.bar.setValue(done)
        if self.buttons[0].isEnabled():
            self.bar.setFormat(text or "%p %")

    def show_stopping(
        self, text: str = STOPPING, buttons: Sequence[QPushButton] | None = None
    ) -> None:
        """Disable the buttons (by default all) and show that the run is ending."""
        for one in self.buttons if buttons is None else buttons:
            one.setEnabled(False)
        self.bar.setFormat(text)

    def end(self) -> None:
        """Hide the row; its place stays empty."""
        self.hide()


class Footer(QWidget):
    """The rows under the scrolling body of a dock.

    From top to bottom: results, message, progress, options of the actions, actions.
    The actions stand on the last row and the row of the progress keeps its place, so
    neither a long message nor a run moves a button.

    Parameters
    ----------
    progress : ProgressRow
    theme : callable
        Returns the name of the viewer's theme.
    """

    def __init__(self, progress: ProgressRow, theme: Callable[[], str]) -> None:
        super().__init__()
        self.message = MessageLine(theme)
        self.progress = progress
        self._results, self._options, self._actions = (_column() for _ in range(3))
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 4, 6, 0)
        column.setSpacing(4)
        column.addLayout(self._results)
        column.addWidget(self.message)
        column.addWidget(self.progress)
        column.addLayout(self._options)
        column.addLayout(self._actions)

    def add_result(self, widget: QWidget) -> None:
        """Add a row that acts on what was found; it may be hidden at times."""
        self._results.addWidget(widget)

    def add_option(self, widget: QWidget) -> None:
        """Add a row that an action depends on, right above the actions."""
        self._options.addWidget(widget)

    def add_actions(self, *buttons: QPushButton, stretch: Sequence[int] = ()) -> None:
        """Add the row of actions, the most important one wide."""
        self._actions.addWidget(side_by_side(*buttons, stretch=stretch))


def _column() -> QVBoxLayout:
    column = QVBoxLayout()
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(4)
    return column
