"""Commands of the palette: what the docks do, and saving labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info
from qtpy.QtWidgets import QApplication, QFileDialog

from ..core.jobs.folder_job import FORMAT_TITLES, FORMATS
from .docks.actions import perform
from .docks.tabs import BATCH, FINETUNE, SEGMENT, TRAIN_FROM_TAGS, show_dock
from .layers.images.image_source import plain_name
from .messages import sentence
from .panels.prompt_panel import with_suffix
from .readers import open_result
from .writers import write_layer

if TYPE_CHECKING:
    import napari
    from napari.layers import Labels

    Command = Callable[[napari.viewer.Viewer], None]

SELECT_LABELS = "Select the Labels layer to save in the layer list."
SAVED = "Saved '{layer}' as {file}."


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
preview = _command("preview", SEGMENT)
run = _command("run", SEGMENT)
stop = _command("stop", SEGMENT)
undo = _command("undo", SEGMENT)
next_doubtful_place = _command("next_doubtful_place", SEGMENT)
save_labels = _command("save_labels", SEGMENT)
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


def save_selected(kind: str) -> list[str]:
    """Save the selected Labels layer in a file that is asked for; return what it is.

    Without a selected one it is the topmost that is shown.

    Parameters
    ----------
    kind : str
        A key of `folder_job.FORMATS`.
    """
    layer = _labels_to_save()
    if layer is None:
        show_info(SELECT_LABELS)
        return []
    end = FORMATS[kind]
    path, _ = QFileDialog.getSaveFileName(
        QApplication.activeWindow(),
        f"Save labels '{layer.name}'",
        f"{plain_name(layer.name).strip()}{end}",
        f"{FORMAT_TITLES[kind]} (*{end})",
    )
    path, problem = with_suffix(path, (end,))
    try:
        written = [write_layer(path, layer)] if path else []
    except (ValueError, OSError) as error:
        problem, written = sentence(error), []
    if problem:
        show_error(problem)
    if written:
        show_info(SAVED.format(layer=layer.name, file=Path(written[0]).name))
    return written


def open_prompts() -> None:
    """Open a prompt set, which is asked for, in the dock."""
    show_dock(_viewer(), SEGMENT).prompt_panel.load_prompt_set()


def open_results() -> None:
    """Open labels and models, which are asked for, in the viewer."""
    paths, _ = QFileDialog.getOpenFileNames(
        QApplication.activeWindow(), "Open labels and models"
    )
    for path in paths:
        try:
            open_result(_viewer(), path)
        except (ValueError, OSError) as error:
            show_error(sentence(error))


def _labels_to_save() -> Labels | None:
    from napari.layers import Labels

    viewer = _viewer()
    active = viewer.layers.selection.active
    shown = [la for la in viewer.layers if isinstance(la, Labels) and la.visible]
    return active if isinstance(active, Labels) else next(reversed(shown), None)


def _viewer() -> Any:
    import napari

    return napari.current_viewer()
