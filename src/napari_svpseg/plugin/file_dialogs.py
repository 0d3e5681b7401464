"""Dialogs that ask for the files of commands of the palette."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info
from qtpy.QtWidgets import QApplication, QFileDialog

from ..core.jobs.folder_job import FORMAT_TITLES, FORMATS
from .layers.images.image_source import plain_name
from .messages import sentence
from .panels.prompt_panel import with_suffix

if TYPE_CHECKING:
    from napari.layers import Labels

SELECT_LABELS = "Select the Labels layer to save in the layer list."
SAVED = "Saved '{layer}' as {file}."


def save_selected(kind: str, write: Callable[[str, Labels], str]) -> list[str]:
    """Save the selected Labels layer in a file that is asked for; return what it is.

    Without a selected one it is the topmost that is shown.

    Parameters
    ----------
    kind : str
        A key of `folder_job.FORMATS`.
    write : callable
        Gets the path and the layer, and returns what was written.
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
        written = [write(path, layer)] if path else []
    except (ValueError, OSError) as error:
        problem, written = sentence(error), []
    if problem:
        show_error(problem)
    if written:
        show_info(SAVED.format(layer=layer.name, file=Path(written[0]).name))
    return written


def open_results(open_result: Callable[[Any, str], None]) -> None:
    """Open labels and models, which are asked for, in the viewer.

    Parameters
    ----------
    open_result : callable
        Gets the viewer and a path.
    """
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
