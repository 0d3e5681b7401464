"""The list of classes: digit, colour, name and number of images of each."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLineEdit,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ...callbacks import reports_errors
from ...layers.labels.class_colors import class_color
from ...messages import count
from ..plain_text import PlainLabel, tip_text
from .tag_set import MAX_CLASSES, TagSet

GO_ON = "Click on the table, press a digit for each class you see, then Enter."


class ClassRow(QWidget):
    """One class."""

    renamed = Signal(int, str)
    removed = Signal(int)

    def __init__(self, i: int) -> None:
        super().__init__()
        self.i = i
        digit = PlainLabel(str(i + 1) if i < MAX_CLASSES else "")
        digit.setFixedSize(18, 18)
        digit.setAlignment(Qt.AlignmentFlag.AlignCenter)
        digit.setStyleSheet(
            f"background: {class_color(i)}; color: #141414; border-radius: 3px;"
            " font-weight: bold;"
        )
        digit.setToolTip(tip_text(f"Press {i + 1} in the table to toggle this class"))
        self.name = QLineEdit()
        self.name.setFrame(False)
        self.name.setAccessibleName("Name of this class")
        self.name.setToolTip("Name of this class: click to change it")
        self.name.editingFinished.connect(
            lambda: self.renamed.emit(self.i, self.name.text())
        )
        self.count = PlainLabel()
        self.count.setAlignment(
            Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        )
        delete = QToolButton()
        delete.setText("✕")
        delete.setToolTip("Remove this class (Ctrl+Z in the table restores it)")
        delete.setAccessibleName("Remove this class")
        delete.setFixedSize(24, 24)
        delete.clicked.connect(lambda: self.removed.emit(self.i))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(digit)
        row.addWidget(self.name, 1)
        row.addWidget(self.count)
        row.addWidget(delete)

    def show_class(self, name: str, n: int) -> None:
        """Show the present name and count."""
        if not self.name.hasFocus() or self.name.text() != name:
            self.name.setText(name)
            self.name.setCursorPosition(0)
        self.count.setText(count(n, "image"))
        self.count.setEnabled(n > 0)


@reports_errors()
class ClassList(QWidget):
    """The classes, and a line to add one.

    Parameters
    ----------
    tags : TagSet
    """

    message = Signal(str, bool)

    def __init__(self, tags: TagSet) -> None:
        super().__init__()
        self.tags = tags
        self.rows: list[ClassRow] = []
        self.new_class = QLineEdit()
        self.new_class.setPlaceholderText("Add a class: type its name, press Enter")
        self.new_class.setToolTip("Type the name of a class and press Enter")
        self.new_class.setAccessibleName("New class")
        self.new_class.returnPressed.connect(self._on_new_class)
        self._column = QVBoxLayout()
        self._column.setSpacing(2)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(4)
        outer.addLayout(self._column)
        outer.addWidget(self.new_class)

    def refresh(self) -> None:
        """Show the classes that there are now."""
        classes = self.tags.classes
        while len(self.rows) > len(classes):
            row = self.rows.pop()
            self._column.removeWidget(row)
            row.hide()
            row.deleteLater()
        while len(self.rows) < len(classes):
            row = ClassRow(len(self.rows))
            row.renamed.connect(self._on_renamed)
            row.removed.connect(self.tags.remove_class)
            self._column.addWidget(row)
            self.rows.append(row)
        for row, name in zip(self.rows, classes, strict=True):
            row.show_class(name, self.tags.n_of(name))
        self.new_class.setVisible(len(classes) < MAX_CLASSES)

    def _on_new_class(self) -> None:
        try:
            self.tags.add_class(self.new_class.text())
        except ValueError as error:
            self.message.emit(str(error), True)
            return
        self.new_class.clear()
        if len(self.tags.classes) > 1:
            self.message.emit(GO_ON, False)

    def _on_renamed(self, i: int, name: str) -> None:
        try:
            self.tags.rename_class(i, name)
        except ValueError as error:
            self.message.emit(str(error), True)
            self.rows[i].name.clearFocus()
            self.rows[i].name.setText(self.tags.classes[i])
