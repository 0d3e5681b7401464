"""A model with its prompts, written by the engine as a package for other programs."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ..callbacks import guarded

if TYPE_CHECKING:
    from ...core.prompt import PromptSet
    from ...workflows.share_model import SharedModel

SHARING = "Writing the model, which takes about half a minute…"
SHARED = "'{}' has the model and its prompts, for other programs and for this one."
NO_MODEL = "There is no model to share: train one first."


def share(dock: Any, path: str, model: str, prompts: PromptSet | None = None) -> None:
    """Write a package in the engine; the dock says what became of it.

    Parameters
    ----------
    dock : Dock
    path : str
        The dialog has asked whether to replace it.
    model : str
        Name or folder; empty for none.
    prompts : PromptSet, optional
        By default those in the model's folder.
    """
    from ...workflows.share_model import share_model  # slow: a dock opens without it

    if not model:
        dock.say(NO_MODEL, True)
        return
    dock.say(SHARING)

    def on_shared(shared: SharedModel) -> None:
        text = SHARED.format(PurePath(path).name)
        dock.say(" ".join([text, *(f"{note}." for note in shared.notes)]))

    job = dock.engine.submit(share_model, model, path, prompts, overwrite=True)
    job.returned.connect(guarded(dock, on_shared))
    job.failed.connect(guarded(dock, lambda text: dock.say(text, True)))
