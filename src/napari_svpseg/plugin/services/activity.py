"""Work of a dock in napari's activity dock, which is seen whatever dock is in front."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from qtpy.QtCore import QTimer

from ..callbacks import reports_errors
from .turns import shared_turns

SHORT_MS = 1000
"""Work that takes less has no bar: it would be gone before it was read, and drawing
the first one takes napari a third of a second."""


@dataclass(frozen=True)
class _Shown:
    """What a bar shows."""

    done: int = 0
    total: int = 0
    text: str = ""


@reports_errors()
class Activity:
    """A bar in the activity dock while something runs; the one helper for all docks.

    napari handles all waiting events whenever it draws such a bar: within a click or
    the start of a run these would come too early. So it is drawn from the event loop,
    and what jobs send meanwhile comes afterwards.

    Parameters
    ----------
    title : str
        What runs.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Any = None
        self._wanted: _Shown | None = None
        self._drawn: _Shown | None = None
        self._is_drawing = False
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._on_rest)

    def begin(self) -> None:
        """Show a bar, unless it is there."""
        if self._wanted is None:
            self._want(_Shown())

    def show(self, done: int, total: int, text: str = "") -> None:
        """Show how far it is, and which step it is at.

        Parameters
        ----------
        done, total : int
            A total of 0 is one that is not known.
        text : str
        """
        if self._wanted is not None:
            self._want(_Shown(done, total, text))

    def say(self, text: str) -> None:
        """Show what is done now."""
        if self._wanted is not None:
            self._want(replace(self._wanted, text=text))

    def end(self) -> None:
        """Take the bar away."""
        self._want(None)

    def close(self) -> None:
        """Take the bar away at once, because the dock is being closed."""
        self._timer.stop()
        self._wanted = None
        self._on_rest()

    def _want(self, wanted: _Shown | None) -> None:
        self._wanted = wanted
        if wanted is None or self._bar is not None:
            self._timer.start(0)
        elif not self._timer.isActive():
            self._timer.start(SHORT_MS)

    def _on_rest(self) -> None:
        """Draw what is wanted, until nothing else is wanted."""
        if self._is_drawing:
            return  # among the events that napari handles: the outer call goes on
        self._is_drawing = True
        try:
            while self._drawn is not self._wanted:
                self._drawn = self._wanted
                with shared_turns().held():
                    self._draw(self._drawn)
        finally:
            self._is_drawing = False

    def _draw(self, wanted: _Shown | None) -> None:
        from napari.utils import progress

        if wanted is None:
            bar, self._bar = self._bar, None
            if bar is not None:
                bar.close()
            return
        if self._bar is None:
            self._bar = progress(total=wanted.total, desc=self._title)
        if self._bar.total != wanted.total:
            self._bar.total = wanted.total
        self._bar.update(wanted.done - self._bar.n)
        text = wanted.text
        told = f"{self._title}: {text}" if text and "%" not in text else self._title
        if not str(self._bar.desc).startswith(told):
            self._bar.set_description(told)
