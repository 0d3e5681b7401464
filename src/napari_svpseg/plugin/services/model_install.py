"""Models that are opened like files: installed, and chosen in the dock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...io.model_archive import import_model
from ...io.model_store import PROMPTS
from ...io.prompt_files import load_prompts
from ..callbacks import guarded
from ..docks.tabs import FINETUNE, SEGMENT, open_docks, show_dock

if TYPE_CHECKING:
    from ...core.model_card import ModelCard

INSTALLING = "Installing the model…"
INSTALLED = "'{}' is installed and chosen."
NO_PROMPT = "It needs no prompt."
IS_THERE = "'{}' is chosen; it was installed already."
NEEDS_WINDOW = "{path}: open it in napari's window."


def open_dock(viewer: Any, path: str) -> Any:
    """Return the dock that segments, opened if need be.

    Raises
    ------
    ValueError
        Without a window; the message names the file that needs it.
    """
    if viewer is None or not hasattr(viewer, "window"):
        raise ValueError(NEEDS_WINDOW.format(path=path))
    return show_dock(viewer, SEGMENT)


def install_model(viewer: Any, path: str) -> None:
    """Install a model folder or zip in the dock that segments, and choose it there.

    The engine loads it once, so that a damaged one is refused.

    Parameters
    ----------
    viewer : Viewer
        The dock is opened in it if need be, and says what became of the model.
    path : str

    Raises
    ------
    ValueError
        Without a window.
    """
    dock = open_dock(viewer, path)
    dock.refresh_models()
    if dock.models.choose(path):
        dock.say(IS_THERE.format(dock.models.card.name))
        return
    dock.say(INSTALLING)

    def on_installed(card: ModelCard) -> None:
        for one in (*open_docks(viewer, SEGMENT), *open_docks(viewer, FINETUNE)):
            one.refresh_models(card.name if one is dock else "")
        own = Path(card.path, PROMPTS)
        if not dock.book.items and own.is_file():  # of a model that was shared
            dock.book.add_loaded(load_prompts(own))
        text = INSTALLED.format(card.name)
        dock.say(text if card.takes_prompts else f"{text} {NO_PROMPT}")

    job = dock.engine.submit(import_model, path)
    job.returned.connect(guarded(dock, on_installed))
    job.failed.connect(guarded(dock, lambda text: dock.say(text, True)))
