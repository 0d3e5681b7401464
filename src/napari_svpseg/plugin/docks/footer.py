"""The footer of a dock: message, progress and actions, which keep their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ..callbacks import reports_errors
from ..messages import STOPPING
from ..panels.controls import (
    button,
    keep_place,
    note,
    set_style,
    side_by_side,
    theme_color,
)
from ..panels.plain_text import ElidedLabel

MESSAGE_LINES = 2
MESSAGE_PADDING = 4
"""Around a message, in pixels."""


@reports_errors("show_whole")
class MessageLine(ElidedLabel):
    """Message of a dock in two lines; an error stands on the theme's error colour.

    Parameters
    ----------
    theme : callable
        Returns the name of the viewer's theme.

    Attributes
    ----------
    more : QPushButton
        Opens the whole text of a message that is cut; else hidden.
    """

    def __init__(self, theme: Callable[[], str]) -> None:
        super().__init__(MESSAGE_LINES)
        self._theme = theme
        self.is_error = False
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.setMargin(MESSAGE_PADDING)
        self.more = button("More", "Show the whole message")
        keep_place(self.more)
        self.more.hide()
        self.more.clicked.connect(self.show_whole)
        self.cut.connect(self.more.setVisible)
        self.whole = Whole(self)

    def say(self, text: str, error: bool = False) -> None:
        """Show a message in place of the last one."""
        self.is_error = error
        set_style(
            self,
            f"background: {theme_color(self._theme(), 'error')}; color: white;"
            " border-radius: 3px;"
            if error
            else "",
        )
        self.setText(text)

    def show_whole(self) -> None:
        """Open the whole text, above the message, until something else is clicked."""
        self.whole.open(self.text())


class Whole(QFrame):
    """The whole text of a message, over the window.

    Parameters
    ----------
    message : QWidget
        What it is shown above.
    """

    def __init__(self, message: QWidget) -> None:
        super().__init__(message, Qt.WindowType.Popup)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._message = message
        self.text = note()
        column = QVBoxLayout(self)
        column.addWidget(self.text)

    def open(self, text: str) -> None:
        """Show a text."""
        self.text.setText(text)
        self.setFixedWidth(max(self._message.width(), 1))
        self.adjustSize()
        top = self._message.mapToGlobal(QPoint(0, 0))
        self.move(top.x(), top.y() - self.height())
        self.show()


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
        keep_place(self)
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

    From top to bottom: results, message, progress or an offer, options of the actions,
    actions. Each row keeps its place while it is hidden, and a message has two lines,
    so nothing that is said, offered or running moves a button.

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
        line = QHBoxLayout()
        line.setSpacing(4)
        line.addWidget(self.message, 1)
        line.addWidget(self.message.more, 0, Qt.AlignmentFlag.AlignBottom)
        self._shared = QGridLayout()
        self._shared.addWidget(progress, 0, 0)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 4, 6, 0)
        column.setSpacing(4)
        column.addLayout(self._results)
        column.addLayout(line)
        column.addLayout(self._shared)
        column.addLayout(self._options)
        column.addLayout(self._actions)

    def add_result(self, widget: QWidget) -> None:
        """Add a row that acts on what was found."""
        self._results.addWidget(widget)

    def add_offer(self, widget: QWidget) -> None:
        """Add a row that is shown at times, but never while something runs.

        It has the place of the progress.
        """
        self._shared.addWidget(widget, 0, 0)

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
