"""The part of a dock that saves results and copies the code that repeats them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from ...core.jobs.folder_job import FORMAT_TITLES, FORMATS
from ...core.result import Recipe
from ..callbacks import reports_errors
from ..layers.images.image_source import plain_name
from ..layers.images.visibility import belongs_to
from ..layers.metadata import find_layer, metadata_of
from ..layers.results.kept_objects import REMOVED
from ..layers.results.result_layers import recipe_of
from ..layers.results.stored_edits import KIND as STORED
from ..layers.results.stored_results import StoredResults
from ..messages import count, sentence
from ..writers import format_of, level_of, write_layer
from .controls import button, side_by_side
from .folders import folder_for, note_used, proposed
from .prompt_panel import PromptPanel, with_suffix

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

logger = logging.getLogger(__name__)

TIFF_ENDS = (".ome.tif", ".tif", ".tiff")
SAVE_FILTERS = {
    f"{title} (*{' *'.join(ends)})": ends
    for kind, title in FORMAT_TITLES.items()
    if (ends := TIFF_ENDS if kind == "ome-tiff" else (FORMATS[kind],))
}
"""Filters of the file dialog, and how such files end."""
EVERY_END = tuple(end for ends in SAVE_FILTERS.values() for end in ends)

SAVED = "Saved {name} in {folder}."
AT_LEVEL = (
    " Pixels are those of a smaller level of the image, up to {:.3g} pixels long."
)
AT_FULL_SIZE = (
    " Coordinates are pixels of the image at full size; it was segmented at a "
    "smaller level."
)
SAVED_ALL = "Saved {results} in {folder}."
NOT_REPLACED = " These exist and were not replaced: {names}."
SAVING = "Saving {name}…"
NOTHING_TO_SAVE = "There is no result to save yet: press Run."
NOTHING_TO_COPY = "There is no result to copy yet: press Run."
COPIED = "Copied: paste it where you want to repeat this result."
SAVE_PROMPTS_TOO = " Save the prompt set as cells.svprompt too."
PROMPTS_CHANGED = " The prompts have changed since: press Run and save the set first."
NAME_QUERY = " Put your image's file in place of query.tif."
ALL_PLANES = " The command segments all planes."
REMOVED_COME_BACK = " The objects that you removed are in what it makes."
ONE_FILE = " The command takes one file with all these channels."

SAVABLE = ("labels", STORED)
"""Kinds of our layers that are results."""


@reports_errors("save_labels", "save_every", "_copy")
class SavePanel(QWidget):
    """Saves the selected or latest result, and copies the code that repeats it.

    Parameters
    ----------
    viewer : ViewerModel
    stored : StoredResults
        Saves results that lie on the disk.
    prompts : PromptPanel
        Knows the file of the prompts, if there is one.
    """

    message = Signal(str, bool)

    def __init__(
        self, viewer: ViewerModel, stored: StoredResults, prompts: PromptPanel
    ) -> None:
        super().__init__()
        self.viewer, self.stored, self.prompts = viewer, stored, prompts
        self.save = button(
            "Save labels…",
            "Write the result of the selected image, or the result that is selected: "
            "OME-TIFF, ImageJ ROIs, GeoJSON, CSV, Cellpose, NumPy",
        )
        self.save_all = button(
            "Save all…", "Write the results of all images into a folder, as OME-TIFF"
        )
        self.copy_python = button("Copy as Python", "Code that repeats this result")
        self.copy_command = button(
            "Copy as command", "Command line that repeats this result"
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(side_by_side(self.save, self.save_all, stretch=(1, 1)))
        column.addWidget(
            side_by_side(self.copy_python, self.copy_command, stretch=(1, 1))
        )
        self.save.clicked.connect(lambda: self.save_labels())
        self.save_all.clicked.connect(lambda: self.save_every())
        self.copy_python.clicked.connect(lambda: self._copy(Recipe.to_python))
        self.copy_command.clicked.connect(lambda: self._copy(Recipe.to_command))

    def refresh(self) -> None:
        """Enable what can be done now."""
        has_result = self.result_layer() is not None
        for widget in (self.save, self.copy_python, self.copy_command):
            widget.setEnabled(has_result)
        self.save_all.setEnabled(bool(self._in_memory()))

    def _say(self, text: str, error: bool = False) -> None:
        self.message.emit(text, error)

    def result_layer(self) -> Labels | None:
        """Return the selected result, else that of the selected image, else the latest.

        Of several results of an image, or of several images, those in sight go first.
        """
        layers = self.viewer.layers
        results = [
            layer
            for layer in reversed(layers)
            if (metadata_of(layer) or {}).get("kind") in SAVABLE
        ]
        if layers.selection.active in results:
            return layers.selection.active
        image = self.prompts.images.selected()
        others = [la for la in results if image is None or not belongs_to(la, image)]
        return min(results, key=lambda la: (la in others, not la.visible), default=None)

    def _in_memory(self) -> list[Labels]:
        return [layer for layer in self.viewer.layers if metadata_of(layer, "labels")]

    def save_every(self, folder: str = "") -> None:
        """Write all results into a folder, which is asked for; nothing is replaced."""
        if not folder:
            layer = self.result_layer()
            beside = folder_for("" if layer is None else self._file_of(layer))
            title = "Save all results in"
            folder = QFileDialog.getExistingDirectory(self, title, beside)
        if not folder:
            return
        note_used(str(Path(folder, "all")))
        stems: set[str] = set()
        written, there, level = 0, [], 1.0
        for layer in self._in_memory():
            stem = self._stem(layer)
            if stem in stems:  # a second result of one image
                stem = plain_name(layer.name).strip()
            stems.add(stem)
            path = Path(folder, f"{stem}_labels{TIFF_ENDS[0]}")
            if path.exists():
                there.append(path.name)
                continue
            try:
                write_layer(str(path), layer)
            except (ValueError, OSError) as error:
                self._on_not_saved(error)
                return
            written += 1
            level = max(level, *level_of(metadata_of(layer) or {}))
        text = SAVED_ALL.format(results=count(written, "result"), folder=folder)
        if level > 1:
            text += AT_LEVEL.format(level)
        if there:
            text += NOT_REPLACED.format(names=", ".join(there))
        self._say(text, bool(there) and not written)

    def save_labels(self, path: str = "") -> None:
        """Write a result in the format of the file, which is asked for if not given."""
        layer = self.result_layer()
        if layer is None:
            self._say(NOTHING_TO_SAVE, True)
            return
        if not path:
            path, chosen = QFileDialog.getSaveFileName(
                self,
                "Save labels",
                proposed(f"{self._stem(layer)}_labels.ome.tif", self._file_of(layer)),
                ";;".join(SAVE_FILTERS),
            )
            ends = SAVE_FILTERS.get(chosen, TIFF_ENDS)
            path, problem = with_suffix(path, (*ends, *EVERY_END))
            if problem:
                self._say(problem, True)
        if not path:
            return
        note_used(path)
        if metadata_of(layer, STORED):
            self._say(SAVING.format(name=Path(path).name))
            write = partial(write_layer, path, layer)
            self.stored.save(write, partial(self._on_saved, layer), self._on_not_saved)
            return
        try:
            written = write_layer(path, layer)
        except (ValueError, OSError) as error:
            self._on_not_saved(error)
            return
        self._on_saved(layer, written)

    def _on_saved(self, layer: Labels, written: str) -> None:
        file = Path(written)
        text = SAVED.format(name=file.name, folder=file.parent)
        factors = level_of(metadata_of(layer) or {})
        if factors != (1.0, 1.0):
            is_full = format_of(written) in ("rois", "geojson")
            text += AT_FULL_SIZE if is_full else AT_LEVEL.format(max(factors))
        self._say(text)

    def _on_not_saved(self, error: Exception) -> None:
        logger.info("saving failed: %s", error)
        self._say(sentence(error), True)

    def _copy(self, form: Callable[[Recipe], str]) -> None:
        layer = self.result_layer()
        recipe = recipe_of(layer) if layer is not None else None
        if layer is None or recipe is None:
            self._say(NOTHING_TO_COPY, True)
            return
        used = [p.get("sha256") for p in recipe.prompts]
        is_saved = bool(self.prompts.file) and used == self.prompts.saved
        recipe = replace(
            recipe,
            prompts_file=self.prompts.file if is_saved else "",
            query_file=self._file_of(layer),
        )
        clipboard = QGuiApplication.clipboard()
        assert clipboard is not None
        clipboard.setText(form(recipe))
        text = COPIED
        if not is_saved:
            is_same = used == self.prompts.hashes()
            text += SAVE_PROMPTS_TOO if is_same else PROMPTS_CHANGED
        if not recipe.query_file:
            text += NAME_QUERY
        if recipe.plane and form is Recipe.to_command:
            text += ALL_PLANES
        if recipe.channel_files and form is Recipe.to_command:
            text += ONE_FILE
        if REMOVED in layer.metadata:
            text += REMOVED_COME_BACK
        self._say(text)

    def _stem(self, layer: Labels) -> str:
        """Return a file name for a result, from the image it lies on."""
        metadata = metadata_of(layer) or {}
        image = find_layer(self.viewer.layers, metadata.get("source_id"))
        name = metadata.get("image") if image is None else image.name
        return plain_name(str(name or layer.name)).strip()

    def _file_of(self, layer: Labels) -> str:
        """Return the file that a result's image was opened from, if it was."""
        wanted = (metadata_of(layer) or {}).get("source_id")
        image = find_layer(self.viewer.layers, wanted)
        return str(getattr(getattr(image, "source", None), "path", None) or "")
