"""The hints that lead from an opened image to the first result."""

from __future__ import annotations

from collections.abc import Callable

from ..messages import OPEN_IMAGE, TRY


class FirstSteps:
    """Shows what to do first, until another message is shown.

    Parameters
    ----------
    say : callable
        Shows a message, and calls `said` for every message but these hints.
    begin : str
        Hint while an image is open.
    """

    def __init__(self, say: Callable[[str, bool], None], begin: str) -> None:
        self._say = say
        self._begin = begin
        self._is_shown = True  # nothing else has been said
        self._has_image = False
        self._then = ""

    def said(self) -> None:
        """Forget hint and complaint, because another message is shown."""
        self._is_shown, self._then = False, ""

    def show(self) -> None:
        """Show what to do first."""
        self._say(self._begin if self._has_image else OPEN_IMAGE, False)
        self._is_shown = True

    def follow_images(self, has_image: bool) -> None:
        """Follow whether an image is open."""
        was_closed = self._has_image and not has_image
        self._has_image = has_image
        if was_closed or self._is_shown:
            self.show()

    def complain(self, text: str, error: bool = False, then: str = TRY) -> None:
        """Show what a prompt lacks; ``then`` is shown once no prompt lacks anything."""
        self._say(text, error)
        self._then = then

    def follow_prompts(self, n_prompts: int, are_ready: bool) -> None:
        """Follow the prompts: what one of them lacked may be there now."""
        if self._then and are_ready:
            self._say(self._then, False)
        elif self._then and not n_prompts:
            self.show()
