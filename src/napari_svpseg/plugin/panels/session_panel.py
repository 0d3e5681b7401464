"""The buttons that save the whole state of the work as one file, and open one."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QWidget

from ...io.result_files import SESSION_END
from ...io.session import SavedSession
from ...io.session_file import open_session, save_session
from ..callbacks import reports_errors, tell
from ..messages import sentence
from ..services.autosave import Autosave, quoted
from ..services.background import Background
from ..services.restoring import (
    Contents,
    find_moved,
    not_open,
    note_places,
    read_contents,
)
from ..services.session_layers import Entry, add_contents, working_state
from .controls import button, side_by_side

if TYPE_CHECKING:
    from napari.components import ViewerModel

logger = logging.getLogger(__name__)

FILTER = f"Sessions (*{SESSION_END})"
SAVING = "Saving the session…"
OPENING = "Opening the session…"
SAVED = "Saved the session as {name} in {folder}."
NO_FILE = (
    " Not in it, as they have no file yet: {names}. Save them and the session again."
)
TOO_LARGE = " Not in it, as they lie in folders of their own: {names}."
OPENED = "'{name}' is open."
NOT_FOUND = " Not found: {names}. Open them yourself; what lies on them follows."
CHANGED = " Other pixels are in the file of {names} now: check boxes and labels."
DAMAGED = " Damaged: {problem}"
WHERE_IS = "Where is {name} now?"


@reports_errors("save_session", "open_session")
class SessionPanel(QWidget):
    """Saves images by path, prompts, painted labels, results and settings.

    Parameters
    ----------
    viewer : ViewerModel
    """

    message = Signal(str, bool)

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        self.autosave = Autosave.of(viewer)
        self._files = Background(partial(tell, self))
        self.save = button(
            "Save session…",
            "Write all of this as one file: images by their path, prompts, painted "
            "labels, results with your edits, settings",
        )
        self.open = button("Open session…", "Go on with a saved session")
        row = side_by_side(self.save, self.open, stretch=(1, 1))
        self.setLayout(row.layout())
        self.save.clicked.connect(lambda: self.save_session())
        self.open.clicked.connect(lambda: self.open_session())

    def close_files(self) -> None:
        """Finish what is being written."""
        self._files.close(finish=True)

    def _say(self, text: str, error: bool = False) -> None:
        self.message.emit(text, error)

    # ------------------------------------------------------------ saving

    def save_session(self, path: str = "") -> None:
        """Save the session; asks for the file if none is given."""
        from .prompt_panel import with_suffix

        if not path:
            path, _ = QFileDialog.getSaveFileName(
                self, "Save session", f"work{SESSION_END}", FILTER
            )
            path, problem = with_suffix(path, (SESSION_END,))
            if problem:
                self._say(problem, True)
        if not path:
            return
        file = Path(path)
        state, arrays, left_out = working_state(self.viewer, self.autosave.state())
        prompts = self.autosave.prompts()
        no_file = [
            i["name"] for i in state["images"] if not i["path"] and not i["sample"]
        ]
        self._say(SAVING)

        def write() -> Path:
            add_contents(state["images"], {})
            note_places(state, file.parent.absolute())
            # the dialog has asked
            return save_session(file, state, prompts(), arrays, overwrite=True)

        def saved(written: Path) -> None:
            text = SAVED.format(name=written.name, folder=written.parent)
            if no_file:
                text += NO_FILE.format(names=quoted(no_file))
            if left_out:
                text += TOO_LARGE.format(names=quoted(left_out))
            self._say(text, bool(no_file))

        self._files.call(write, saved, self._on_failed)

    def _on_failed(self, error: Any) -> None:
        logger.info("session: %s", error)
        self._say(sentence(error), True)

    # ------------------------------------------------------------ opening

    def open_session(self, path: str = "") -> None:
        """Open a session; asks for the file if none is given."""
        if not path:
            path, _ = QFileDialog.getOpenFileName(self, "Open session", "", FILTER)
        if not path:
            return
        self._say(OPENING)
        folders = [Path(path).parent.absolute()]

        def read() -> tuple[SavedSession, list[Entry]]:
            saved = open_session(path)
            return saved, find_moved(saved.state, folders)

        def found(value: tuple[SavedSession, list[Entry]]) -> None:
            self._find(value[0], Path(path).name, folders, value[1])

        self._files.call(read, found, self._on_failed)

    def _find(
        self, saved: SavedSession, name: str, folders: list[Path], lost: list[Entry]
    ) -> None:
        """Ask where the first lost image is, and look for the others beside it."""
        lost = not_open(self.viewer, lost)
        where = self.ask_where(lost[0]) if lost else ""
        if not where:
            self._files.call(
                lambda: read_contents(saved),
                lambda contents: self._put_back(contents, name),
                self._on_failed,
            )
            return
        lost[0]["path"] = where
        folders.append(Path(where).parent)
        self._files.call(
            lambda: find_moved(saved.state, folders),
            lambda still: self._find(saved, name, folders, still),
            self._on_failed,
        )

    def ask_where(self, image: Entry) -> str:
        """Ask for the file of an image that is not where it was; "" for none."""
        title = WHERE_IS.format(name=Path(image["path"]).name)
        return QFileDialog.getOpenFileName(self, title)[0]

    def _put_back(self, contents: Contents, name: str) -> None:
        saved = contents.saved
        try:
            missing = self.autosave.put_back(contents)
        finally:
            saved.discard()
        text = OPENED.format(name=name)
        if missing:
            text += NOT_FOUND.format(names=quoted(missing))
        if contents.changed:
            text += CHANGED.format(names=quoted(contents.changed))
        if saved.problems:
            text += DAMAGED.format(problem=saved.problems[0])
        self._say(text, bool(missing or contents.changed or saved.problems))
