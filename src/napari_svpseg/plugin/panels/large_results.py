"""The part of a dock that chooses when and where results go to the disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QFormLayout, QLineEdit, QSpinBox, QWidget

from ...io.model_store import user_folder
from ..callbacks import reports_errors
from ..layers.images.image_source import ImageSource
from ..layers.results.stored_results import StoredResults
from ..services.preferences import preference
from .controls import button, note, side_by_side

MEGAPIXEL = 1_000_000


@reports_errors("_choose", "_edit", "_show_room", "open_result", "show_state")
class LargeResultsPanel(QWidget):
    """Limit and folder of results on the disk; opens and edits them.

    Parameters
    ----------
    results : StoredResults
    """

    def __init__(self, results: StoredResults) -> None:
        super().__init__()
        self.results = results
        self.limit = QSpinBox()
        self.limit.setRange(1, 1_000_000)
        self.limit.setSuffix(" megapixels")
        self.limit.setValue(int(preference("large")))
        self.limit.setToolTip(
            "Larger results are written to the disk while they are made, "
            "and are shown from there"
        )
        self.folder = QLineEdit(str(preference("results") or results_folder()))
        self.folder.setToolTip("Where they are written; they stay there")
        self.choose = button("…", "Choose another folder")
        self.choose.setFixedWidth(36)
        self.room = note()
        self.edit = button(
            "Edit this view",
            "Open what you see of a large result as a layer to paint in; "
            "strokes go into the result",
            checkable=True,
        )
        self.open = button("Open result…", "Show a result that was written earlier")
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Above", self.limit)
        form.addRow("Folder", side_by_side(self.folder, self.choose, stretch=(1, 0)))
        form.addRow(self.room)
        form.addRow(side_by_side(self.edit, self.open, stretch=(1, 1)))
        self.choose.clicked.connect(self._choose)
        self.folder.textChanged.connect(lambda _: self._show_room())
        self.edit.clicked.connect(self._edit)
        self.open.clicked.connect(lambda: self.open_result())
        results.changed.connect(self.show_state)
        self._show_room()
        self.show_state()

    def store_for(self, source: ImageSource, plane: tuple[int, ...] | None) -> str:
        """Return the store for a run's result; empty where memory will do."""
        height, width = source.plane_shape
        n = height * width * (source.n_planes if plane is None else 1)
        if n <= self.limit.value() * MEGAPIXEL:
            return ""
        folder = Path(self.folder.text().strip() or results_folder()).expanduser()
        # absolute, because the engine has another working directory
        return self.results.store_for(source, plane, folder.absolute())

    def open_result(self, path: str = "") -> None:
        """Show a result that was kept; asks for it if none is given."""
        path = path or QFileDialog.getExistingDirectory(
            self, "Result (a folder that ends in .zarr)", self.folder.text()
        )
        if not path:
            return
        try:
            layer = self.results.open(path)
        except (ValueError, OSError, KeyError) as error:
            self.results.message.emit(str(error), True)
            return
        self.results.message.emit(f"Opened '{layer.name}' from {path}.", False)

    def show_state(self) -> None:
        """Enable what can be done now."""
        is_editing = self.results.edits.is_open
        self.edit.setChecked(is_editing)
        self.edit.setText("End editing" if is_editing else "Edit this view")
        self.edit.setEnabled(is_editing or self.results.can_edit() is not None)

    def values(self) -> dict[str, Any]:
        """Return the values of the controls."""
        return {"limit": self.limit.value(), "folder": self.folder.text()}

    def set_values(self, values: dict[str, Any]) -> None:
        """Show the values that `values` returned."""
        self.limit.setValue(values.get("limit", self.limit.value()))
        self.folder.setText(values.get("folder", self.folder.text()))

    def _choose(self) -> None:
        path = QFileDialog.getExistingDirectory(
            self, "Folder for large results", self.folder.text()
        )
        if path:
            self.folder.setText(path)

    def _edit(self) -> None:
        if self.results.edits.is_open:
            self.results.edits.close_view()
        else:
            self.results.edit_view()
        self.show_state()

    def _show_room(self) -> None:
        """Show the free space where the folder is, or would be created."""
        place = Path(self.folder.text().strip() or ".").expanduser()
        while not place.exists() and place != place.parent:
            place = place.parent
        free = shutil.disk_usage(place).free / 1e9
        self.room.setText(f"{free:.0f} GB free. Results stay until you delete them.")


def results_folder() -> Path:
    """Return where large results are written unless the user says otherwise."""
    return user_folder().parent / "results"
