"""The buttons that write a model as one file and read one."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QWidget

from ...callbacks import reports_errors
from ..controls import button

MODELS = "Models (*.zip)"


@reports_errors("export_model", "import_model")
class SharePanel(QWidget):
    """Asks for the file of a model to be exported or imported.

    Parameters
    ----------
    name : callable
        Returns the name of the model that is exported; empty for none.
    """

    exporting = Signal(str)
    importing = Signal(str)

    def __init__(self, name: Callable[[], str]) -> None:
        super().__init__()
        self._name = name
        self.export_button = button(
            "Export…", "Write the model as one zip, to share it"
        )
        self.import_button = button("Import…", "Add a model from a zip")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        for one in (self.export_button, self.import_button):
            row.addWidget(one, 1)
        self.export_button.clicked.connect(lambda: self.export_model())
        self.import_button.clicked.connect(lambda: self.import_model())

    def export_model(self, path: str = "") -> None:
        """Export the model; asks for the file if none is given."""
        name = self._name()
        if name and not path:
            path, _ = QFileDialog.getSaveFileName(
                self, "Export model", f"{name}.zip", MODELS
            )
        if name and path:
            self.exporting.emit(path)

    def import_model(self, path: str = "") -> None:
        """Import a model; asks for the file if none is given."""
        if not path:
            path, _ = QFileDialog.getOpenFileName(self, "Import model", "", MODELS)
        if path:
            self.importing.emit(path)
