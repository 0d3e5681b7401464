"""Commands of the palette: what the docks do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .docks.actions import perform
from .docks.tabs import BATCH, FINETUNE, SEGMENT, TRAIN_FROM_TAGS, show_dock

if TYPE_CHECKING:
    import napari

    Command = Callable[[napari.viewer.Viewer], None]


def _command(name: str, title: str) -> Command:
    """Return the command that presses a button of a dock, which is opened if need be.

    Parameters
    ----------
    name : str
        A key of `actions.KEYS`.
    title : str
        Of the dock that has it, if no open dock has.
    """

    def command(viewer: napari.viewer.Viewer) -> None:
        perform(viewer, name, title)

    command.__name__ = name
    return command


draw_box = _command("draw_box", SEGMENT)
paint_mask = _command("paint_mask", SEGMENT)
use_mask = _command("use_mask", SEGMENT)
preview = _command("preview", SEGMENT)
run = _command("run", SEGMENT)
stop = _command("stop", SEGMENT)
undo = _command("undo", SEGMENT)
next_doubtful_place = _command("next_doubtful_place", SEGMENT)
save_labels = _command("save_labels", SEGMENT)
not_this = _command("not_this", SEGMENT)
this_too = _command("this_too", SEGMENT)
split = _command("split", SEGMENT)
join = _command("join", SEGMENT)
next_style = _command("next_style", SEGMENT)
next_image = _command("next_image", SEGMENT)
previous_image = _command("previous_image", SEGMENT)
start_batch = _command("start_batch", BATCH)
paint_cell = _command("paint_cell", FINETUNE)
paint_background = _command("paint_background", FINETUNE)
accept_cells = _command("accept_cells", FINETUNE)
add_image = _command("add_image", FINETUNE)
start_finetuning = _command("start_finetuning", FINETUNE)
train = _command("train", TRAIN_FROM_TAGS)
next_untagged = _command("next_untagged", TRAIN_FROM_TAGS)
show_map = _command("show_map", TRAIN_FROM_TAGS)
use_model = _command("use_model", FINETUNE)


def open_prompts() -> None:
    """Open a prompt set, which is asked for, in the dock."""
    import napari

    show_dock(napari.current_viewer(), SEGMENT).prompt_panel.load_prompt_set()
