"""Work of a dock in napari's activity dock, which is seen whatever dock is in front."""

from __future__ import annotations

from typing import Any


class Activity:
    """A bar in the activity dock while something runs; the one helper for all docks.

    Parameters
    ----------
    title : str
        What runs.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Any = None

    def begin(self) -> None:
        """Show a bar, unless it is there."""
        from napari.utils import progress

        if self._bar is None:
            self._bar = progress(total=0, desc=self._title)

    def show(self, done: int, total: int, text: str = "") -> None:
        """Show how far it is, and which step it is at.

        Parameters
        ----------
        done, total : int
            A total of 0 is one that is not known.
        text : str
        """
        if self._bar is None:
            return
        if self._bar.total != total:
            self._bar.total = total
        self._bar.update(done - self._bar.n)
        self.say(text)

    def say(self, text: str) -> None:
        """Show what is done now."""
        told = f"{self._title}: {text}" if text and "%" not in text else self._title
        if self._bar is not None and not str(self._bar.desc).startswith(told):
            self._bar.set_description(told)

    def end(self) -> None:
        """Take the bar away."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()
