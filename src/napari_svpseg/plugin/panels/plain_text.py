"""Names of others on screen: they are text, and never markup.

Qt shows the text of labels and tooltips as HTML where it looks like that, with links
and images. Names of layers, files and models come from others, so all our labels are
`PlainLabel` and all tooltips that are not constant go through `tip_text`.
"""

from __future__ import annotations

import html

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

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
