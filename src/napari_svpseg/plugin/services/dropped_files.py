"""Files that are dropped on a dock or on the image: what is ours opens at once.

napari asks which reader to take where several know the end of a name, and takes every
folder for a folder of images. Labels, models and sessions are known by their content
here; all other files go on to napari.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QMainWindow, QWidget

from ...io.result_files import kind_of_result
from ..callbacks import reports_errors
from ..messages import sentence
from .preferences import PLUGIN

if TYPE_CHECKING:
    from ..docks.base import Dock

QT_VIEWER = "QtViewer"
"""Qt's name of the class of napari's widget with the canvas, which takes drops."""

OVER = (QEvent.Type.DragEnter, QEvent.Type.DragMove)


@reports_errors()
class DroppedFiles(QObject):
    """Opens dropped files while a dock is open.

    Parameters
    ----------
    dock : Dock
        Which shows errors.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)  # goes with the dock, and holds no other reference to it
        dock.setAcceptDrops(True)
        dock.installEventFilter(self)
        timer = QTimer(self)  # the dock is not in its window yet
        timer.setSingleShot(True)
        timer.timeout.connect(self._on_docked)
        timer.start(0)

    @property
    def dock(self) -> Any:
        """The dock."""
        return self.parent()

    def _on_docked(self) -> None:
        """Follow drops on napari's canvas too."""
        window: Any = self.dock.window()
        centre = window.centralWidget() if isinstance(window, QMainWindow) else None
        for widget in [] if centre is None else centre.findChildren(QWidget):
            meta = widget.metaObject()
            if meta is not None and meta.className() == QT_VIEWER:
                widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Take drops that consist of files of ours only."""
        kind = None if event is None else event.type()
        if kind not in (*OVER, QEvent.Type.Drop) or not self.dock.is_open:
            return False
        data = getattr(event, "mimeData", lambda: None)()
        paths = files_in(data)
        if not paths or not all(is_prompts(p) or kind_of_result(p) for p in paths):
            return False
        getattr(event, "acceptProposedAction", lambda: None)()
        if kind == QEvent.Type.Drop:
            for path in paths:
                self._on_dropped(path)
        return True

    def _on_dropped(self, path: str) -> None:
        from ..readers import open_result

        if is_prompts(path):
            self.dock.viewer.open(path, plugin=PLUGIN)
            return
        try:
            open_result(self.dock.viewer, path)
        except (ValueError, OSError) as error:
            self.dock.say(sentence(error), True)


def is_prompts(path: str) -> bool:
    """Return whether a file is a prompt set, by the end of its name."""
    return path.lower().endswith(".svprompt")


def files_in(data: Any) -> list[str]:
    """Return the local files and folders that are dragged."""
    if data is None or not data.hasUrls():
        return []
    return [url.toLocalFile().rstrip("/") for url in data.urls() if url.isLocalFile()]
