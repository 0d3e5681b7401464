"""Names of others on screen: they are text, and never markup.

Qt shows the text of labels and tooltips as HTML where it looks like that, with links
and images. Names of layers, files and models come from others, so all our labels are
`PlainLabel` and all tooltips that are not constant go through `tip_text`.
"""

from __future__ import annotations

import html

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QLabel, QSizePolicy
from superqt import QElidingLabel

from ...core.escapes import escaped


class PlainLabel(QLabel):
    """A label that shows its text as it is; control characters are seen as escapes."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setText(text)

    def setText(self, text: str | None) -> None:
        """Show a text."""
        super().setText(shown(text or ""))


class ElidedLabel(PlainLabel):
    """A label of a fixed number of lines; a text that is longer ends in an ellipsis.

    Parameters
    ----------
    lines : int
    """

    cut = Signal(bool)
    """Whether the text is cut, each time it is fitted into the room there is."""

    def __init__(self, lines: int) -> None:
        self._lines, self._whole = lines, ""
        self.is_cut = False
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def text(self) -> str:
        """Return the whole text."""
        return self._whole

    def shown_text(self) -> str:
        """Return the text as it fits."""
        return super().text()

    def setText(self, text: str | None) -> None:
        """Show as much of a text as there is room for."""
        self._whole = text or ""
        self.setAccessibleName(self._whole)
        self.fit()

    def fit(self) -> None:
        """Show as much of the text as there is room for."""
        metrics = self.fontMetrics()
        self.setFixedHeight(self._lines * metrics.lineSpacing() + 2 * self.margin() + 2)
        width = max(self.contentsRect().width() - 2 * self.margin(), 1)
        text = shown(self._whole).replace("\n", " ")
        lines = QElidingLabel.wrapText(text, width, self.font())
        self.is_cut = len(lines) > self._lines
        if self.is_cut:
            rest = "".join(lines[self._lines - 1 :])
            last = metrics.elidedText(rest, Qt.TextElideMode.ElideRight, width)
            lines = [*lines[: self._lines - 1], last]
        super().setText("\n".join(line.rstrip() for line in lines))
        self.cut.emit(self.is_cut)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Follow the width."""
        super().resizeEvent(event)
        self.fit()

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow the font, which a style sheet may change."""
        super().changeEvent(event)
        kinds = (QEvent.Type.FontChange, QEvent.Type.StyleChange)
        if event is not None and event.type() in kinds:
            self.fit()


class HtmlLabel(QLabel):
    """A label that shows HTML, in which names were escaped."""

    def __init__(self) -> None:
        super().__init__()
        self.setTextFormat(Qt.TextFormat.RichText)


def shown(text: str) -> str:
    """Return a text in which nothing but ends of lines is a control character."""
    return "\n".join(map(escaped, text.split("\n")))


def tip_text(text: str) -> str:
    """Return a text that is the same in a tooltip, which Qt may take for HTML.

    Examples
    --------
    >>> tip_text("3 cells"), tip_text("<b>3")
    ('3 cells', '<p style="white-space: pre-wrap">&lt;b&gt;3</p>')
    """
    text = shown(text)
    if "<" not in text:
        return text
    return f'<p style="white-space: pre-wrap">{html.escape(text)}</p>'


def button_text(text: str) -> str:
    """Return a text that is the same on a button or in a menu, without a shortcut."""
    return shown(text).replace("&", "&&")
