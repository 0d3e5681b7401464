"""The part of a dock that shows a training set and adds images to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from ....core.jobs.finetune_job import FineTuneSettings
from ....io.training_set import Entry, TrainingSet, as_plane, is_same_image
from ....workflows.finetune_data import check_image, training_problem
from ...callbacks import reports_errors
from ...layers.images.image_source import ImageSource, plain_name
from ...messages import count
from ...services.background import Background
from ..controls import button, note, side_by_side
from ..plain_text import tip_text
from .training_set_table import TrainingSetTable


@reports_errors("open")
class TrainingSetPanel(QWidget):
    """Shows a training set and changes it, away from the GUI's thread.

    Parameters
    ----------
    files : Background
        The thread that reads and writes files.
    settings : callable
        Returns the settings of a training, with which added images are checked.
    """

    changed = Signal()
    failed = Signal(object)
    """An exception, or a line on what is wrong with the folder."""

    def __init__(
        self,
        files: Background,
        settings: Callable[[], FineTuneSettings] = FineTuneSettings,
    ) -> None:
        super().__init__()
        self._files, self._settings = files, settings
        self._set = TrainingSet(training_sets() / "cells")
        self.entries: list[Entry] = []
        self.table = TrainingSetTable()
        self.line = note()
        self.choose = button("Other set…", "Use a training set in another folder")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.table)
        column.addWidget(side_by_side(self.line, self.choose, stretch=(1, 0)))
        self.table.used.connect(self._on_used)
        self.table.validation.connect(self._on_validation)
        self.choose.clicked.connect(lambda: self.open())

    @property
    def folder(self) -> Path:
        """Where the set is."""
        return self._set.folder

    def open(self, folder: str = "") -> None:
        """Use a training set in another folder; asks for it if none is given."""
        if not folder:
            folder = QFileDialog.getExistingDirectory(
                self, "Folder of a training set", str(self.folder.parent)
            )
        if folder:
            self._set = TrainingSet(folder)
            self.read()

    def read(self) -> None:
        """Show the entries that are in the folder now."""
        self._change(lambda: None)

    def add(
        self,
        source: ImageSource,
        plane: tuple[int, ...],
        labels: Callable[[], np.ndarray],
        on_added: Callable[[Entry, str], None],
    ) -> str:
        """Add a plane of an image and its labels; return the name of the entry.

        Parameters
        ----------
        source : ImageSource
        plane : tuple of int
        labels : callable
            Returns the partial labels, (Y, X); called in a thread.
        on_added : callable
            Called with the new entry, and with what a training would still refuse.
        """
        pixels, training_set = source.query(plane), self._set
        settings = self._settings()
        name = entry_name(source, plane)
        axes, rgb, channels = (
            source.query_axes(plane),
            bool(source.layer.rgb),
            source.channels,
        )
        details = {
            "axes": axes,
            "rgb": rgb,
            "channels": channels,
            "source": str(source.layer.source.path or source.name),
        }

        def add() -> tuple[Entry, str]:
            image, marked = np.asarray(pixels), labels()
            flat, _ = as_plane(image, axes)
            check_image(flat, marked, name, settings, rgb=rgb, channels=channels)
            entry = add_to(training_set, name, image, marked, details)
            return entry, training_problem(training_set.folder, settings)

        def told(value: tuple[Entry, str]) -> None:
            on_added(*value)
            self.read()

        self._files.call(add, told, self.failed.emit)
        return name

    def _change(self, work: Callable[[], Any]) -> None:
        training_set = self._set

        def read() -> tuple[list[Entry], list[str]]:
            work()
            return training_set.entries(), list(training_set.problems)

        self._files.call(read, self._on_read, self._on_failed)

    def _on_read(self, value: tuple[list[Entry], list[str]]) -> None:
        self.entries, problems = value
        self.table.show_entries(self.entries)
        self.line.setText(f"{self.folder.name}: {count(len(self.entries), 'image')}")
        self.line.setToolTip(tip_text(str(self.folder)))
        if problems:
            self.failed.emit(problems[0])
        self.changed.emit()

    def _on_failed(self, error: Any) -> None:
        self.failed.emit(error)
        self.table.show_entries(self.entries)  # as it is on the disk

    def _on_used(self, name: str, on: bool) -> None:
        self._change(lambda: self._set.set_used(name, on))

    def _on_validation(self, name: str, validation: bool | None) -> None:
        self._change(lambda: self._set.set_validation(name, validation))


def training_sets() -> Path:
    """Return the folder of the user's training sets."""
    from ....io.model_store import user_folder

    return user_folder().parent / "training-sets"


def entry_name(source: ImageSource, plane: tuple[int, ...]) -> str:
    """Return the name of a plane of an image in a training set."""
    name = plain_name(source.name).strip(" .") or "image"
    if source.n_planes == 1:
        return name
    stack = source.axes.stack
    return name + "".join(f" {a}{i}" for a, i in zip(stack, plane, strict=True))


def add_to(
    training_set: TrainingSet,
    name: str,
    image: np.ndarray,
    labels: np.ndarray,
    details: dict[str, Any],
) -> Entry:
    """Add labels of an image; another image of that name gets a number.

    Parameters
    ----------
    training_set : TrainingSet
    name : str
    image : array
        Its axes are in ``details``.
    labels : (Y, X) int array
        Partial labels.
    details : dict
        Further arguments of `TrainingSet.add`.
    """
    known = {e.name: e for e in training_set.entries()}
    free, n = name, 2
    while free in known and not is_same_image(known[free], image, details["axes"]):
        free, n = f"{name} {n}", n + 1
    old = known.get(free)
    validation = None if old is None else old.validation
    entry = training_set.add(free, image, labels, validation=validation, **details)
    return entry if old is None else training_set.set_used(free, old.used)
