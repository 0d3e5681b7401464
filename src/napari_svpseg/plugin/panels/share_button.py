"""The button that writes a model with its prompts, for other programs."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from ..callbacks import reports_errors
from .controls import button
from .prompt_panel import with_suffix

PACKAGES = "Packages of bioimage.io (*.zip)"


@reports_errors("share_model")
class ShareModel(QWidget):
    """Asks for the file of a package."""

    sharing = Signal(str)
    message = Signal(str, bool)
    """A text, and whether it is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.share = button(
            "Share model…",
            "Write the model with the prompts as one package (bioimage.io) that other "
            "programs run, and that comes back here with Import or by dropping it",
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.share)
        self.share.clicked.connect(lambda: self.share_model())

    def share_model(self, path: str = "") -> None:
        """Write a package; asks for the file if none is given."""
        if not path:
            path, _ = QFileDialog.getSaveFileName(
                self, "Share model", "my-cells.zip", PACKAGES
            )
        path, problem = with_suffix(path, (".zip",))
        if problem:
            self.message.emit(problem, True)
        if path:
            self.sharing.emit(path)
