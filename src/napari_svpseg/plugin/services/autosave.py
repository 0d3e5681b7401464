"""Saves boxes and painted labels, and offers them after a crash."""

from __future__ import annotations

import atexit
import logging
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtCore import QCoreApplication, QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from ...core.prompt import Prompt
from ...io.session import SavedSession, Session, crashed_sessions, sessions_folder
from ..callbacks import guarded, reports_errors, tell
from ..layers.metadata import is_image, metadata_of
from ..messages import count, sentence
from ..panels.controls import Offer, is_alive
from .background import Background
from .edited_blocks import EditedBlocks
from .preferences import preference
from .restoring import Contents, put_back, put_on_opened, read_contents
from .session_layers import (
    Entry,
    add_contents,
    boxes_entry,
    image_entry,
    labels_entry,
    source_id,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from ..layers.prompts.prompt_book import PromptBook

logger = logging.getLogger(__name__)

WAIT_MS = 1500
"""From an edit until it is saved."""
AT_ONCE = 32
"""Blocks that are copied at a time: 4 MB, a few milliseconds."""

IS_OFF = "Autosave is off:"
RESTORED = "The last session was restored."
OPEN_YOURSELF = " Open {} yourself."
CHANGED = " Other pixels are in the file of {} now: check boxes and labels."
NOT_RESTORED = "The last session cannot be restored:"
PARTLY_RESTORED = "Not everything could be restored ({}). The session is kept in {}."

Settings = dict[str, Any]


@reports_errors("touch", "save", "restore", "discard")
class Autosave(QObject):
    """Saves the boxes, painted labels and settings of one viewer.

    Only copies of small blocks are made in the thread of the GUI; they are packed and
    written in a thread.

    Parameters
    ----------
    viewer : ViewerModel
    """

    offered = Signal(str)
    withdrawn = Signal()
    message = Signal(str, bool)

    _of: ClassVar[dict[int, Autosave]] = {}

    @classmethod
    def of(cls, viewer: ViewerModel) -> Autosave:
        """Return the autosave of a viewer, created on first use."""
        bare = getattr(viewer, "__wrapped__", viewer)
        if id(bare) not in cls._of:
            cls._of[id(bare)] = cls(bare)
            weakref.finalize(bare, _close, id(bare))
        return cls._of[id(bare)]

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self._session = Session(sessions_folder())
        self._files = Background(partial(tell, self))
        self._settings: dict[str, weakref.WeakMethod[Callable[[], Settings]]] = {}
        self._last_settings: dict[str, Settings] = {}
        self._restore: dict[str, weakref.WeakMethod[Callable[[Settings], None]]] = {}
        self._book: Callable[[], PromptBook | None] = lambda: None
        self.blocks = EditedBlocks()
        self.blocks.edited.connect(self.touch)
        self.blocks.message.connect(self.message)
        self._saved: SavedSession | None = None
        self._adopted: SavedSession | None = None
        self._contents: dict[str, str] = {}
        self._pending: dict[str, Settings] = {}
        self._missing: tuple[dict[str, Any], list[Entry]] = ({}, [])
        self._opened = QTimer(self)
        self._opened.setSingleShot(True)
        self._opened.timeout.connect(self._on_opened)
        self._broken = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.save)
        for layer in viewer.layers:
            self.blocks.watch(layer)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        app = QCoreApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.close)
        atexit.register(self._session.close)
        if preference("autosave"):
            folder = sessions_folder()
            self._files.call(lambda: crashed_sessions(folder), self._on_found)

    # ------------------------------------------------------------ docks

    def attach(
        self,
        name: str,
        settings: Callable[[], Settings],
        restore: Callable[[Settings], None],
        book: PromptBook | None = None,
    ) -> Offer:
        """Save a dock's settings, and return the bar that offers the last session.

        Parameters
        ----------
        name : str
        settings : callable
            A bound method that returns plain values for JSON.
        restore : callable
            A bound method that takes what ``settings`` returned.
        book : PromptBook, optional
            Its prompts are saved too.
        """
        self._settings[name] = weakref.WeakMethod(settings)
        self._restore[name] = weakref.WeakMethod(restore)
        if book is not None:
            self._book = weakref.ref(book)
            book.changed.connect(self.touch)
        bar = Offer(
            ("Restore last session", "Bring back boxes, painted labels and settings"),
            ("Discard", "Delete what was saved of the last session"),
        )
        bar.taken.connect(self.restore)
        bar.left.connect(self.discard)
        self.offered.connect(bar.offer)
        self.withdrawn.connect(bar.hide)
        if self._saved is not None:
            bar.offer(summary(self._saved))
        if name in self._pending:
            timer = QTimer(bar)  # the dock is still being built
            timer.setSingleShot(True)
            timer.timeout.connect(guarded(self, partial(self._show_pending, name)))
            timer.start(0)
        return bar

    def touch(self, event: Any = None) -> None:
        """Save soon."""
        if not self._timer.isActive() and preference("autosave"):
            self._timer.start(WAIT_MS)

    def close(self) -> None:
        """End the session properly: it is not offered later."""
        self._timer.stop()
        self._opened.stop()
        self._files.close(finish=True)
        self._session.close()
        if self._saved is not None:
            self._saved.release()

    # ------------------------------------------------------------ watching

    def _on_inserted(self, event: Any) -> None:
        self.blocks.watch(event.value)
        if self._missing[1]:
            self._opened.start(0)  # the layer is still being added
        self.touch()

    def _on_opened(self) -> None:
        """Put what was restored on images that the user has opened since."""
        viewer, (state, missing) = self._viewer(), self._missing
        if viewer is not None:
            left = put_on_opened(viewer, state, missing, self._book())
            self._missing = (state, left)

    def _on_removed(self, event: Any) -> None:
        self.blocks.forget(event.value)
        self.touch()

    # ------------------------------------------------------------ saving

    def save(self) -> None:
        """Copy the changes, and write them in a thread."""
        viewer = self._viewer()
        if viewer is None or self._broken:
            return
        if self._files.is_busy:
            self._timer.start(100)
            return
        state = self.state()
        prompts = self.prompts()
        copies, keys = [], []
        left = AT_ONCE
        for layer in viewer.layers:
            key = self.blocks.keys.get(layer.unique_id)
            if key is None:
                continue
            keys.append(key)
            try:
                blocks = self.blocks.take(layer, left)
            except Exception as error:  # noqa: BLE001  (told; the others are saved)
                tell(self, error)
                continue
            left -= len(blocks)
            if blocks:
                data = layer.data
                copies.append((key, tuple(data.shape), data.dtype.str, blocks))
        session, contents = self._session, self._contents

        def write() -> None:
            add_contents(state["images"], contents)
            for key, shape, dtype, blocks in copies:
                session.write_blocks(key, shape, dtype, blocks)
            session.drop_labels(keys)
            session.write_prompts(prompts())
            session.write_state(state)

        self._files.call(write, self._on_written, self._on_not_written)

    def _on_written(self, _: Any) -> None:
        if self.blocks.is_waiting:
            self._timer.start(20)
        elif self._adopted is not None:  # all that was restored is saved anew
            self._adopted.discard()
            self._adopted = None

    def _on_not_written(self, error: Any) -> None:
        self._broken = True
        logger.warning("autosave: %s", error)
        self.message.emit(f"{IS_OFF} {sentence(error)}", True)

    def state(self) -> dict[str, Any]:
        """Return everything but pixels, as plain values."""
        viewer = self._viewer()
        layers = [] if viewer is None else list(viewer.layers)
        for dock, settings in self._settings.items():
            method = called(settings)
            if method is not None:
                self._last_settings[dock] = method()
        images = [image_entry(la) for la in layers if is_image(la)]
        boxes = [boxes_entry(la) for la in layers if metadata_of(la, "boxes")]
        # what was restored without its image is kept until that is open
        before, missing = self._missing
        ids = {image["id"] for image in missing}
        kept = [b for b in before.get("boxes", []) if source_id(b) in ids]
        return {
            "images": [*images, *missing],
            "boxes": [*boxes, *kept],
            "labels": [
                labels_entry(la, self.blocks.keys[la.unique_id])
                for la in layers
                if la.unique_id in self.blocks.keys
            ],
            "settings": dict(self._last_settings),
        }

    def prompts(self) -> Callable[[], list[Prompt]]:
        """Return a function that makes the prompts, for a thread."""
        book = self._book()
        if book is None:
            return list
        items = [i for i in book.items if i.is_ready]
        make = book.prompt

        def prompts() -> list[Prompt]:
            made = []
            for item in items:
                try:
                    made.append(make(item))
                except (ValueError, AssertionError) as error:
                    logger.info("autosave of %s: %s", item.name, error)
            return made

        return prompts

    # ------------------------------------------------------------ restoring

    def _on_found(self, found: tuple[list[SavedSession], list[str]]) -> None:
        sessions, problems = found
        for problem in problems:
            self.message.emit(problem, True)
        worth = [s for s in sessions if summary(s)]
        for saved in sessions:
            if saved not in worth:
                saved.discard()
        for older in worth[1:]:
            older.release()  # offered at the next start
        if worth:
            self._saved = worth[0]
            self.offered.emit(summary(worth[0]))

    def discard(self) -> None:
        """Delete the last session."""
        saved, self._saved = self._saved, None
        self.withdrawn.emit()
        if saved is not None:
            saved.discard()

    def restore(self) -> None:
        """Restore the last session."""
        saved, self._saved = self._saved, None
        self.withdrawn.emit()
        if saved is None:
            return
        self._files.call(
            lambda: read_contents(saved), self._put_back, self._on_not_restored
        )

    def _on_not_restored(self, error: Any) -> None:
        self.message.emit(f"{NOT_RESTORED} {error}", True)

    def _put_back(self, contents: Contents) -> None:
        saved, changed = contents.saved, contents.changed
        try:
            missing = self.put_back(contents)
        except Exception as error:
            logger.exception("could not restore %s", saved.folder)
            there = saved.set_aside()
            self.message.emit(PARTLY_RESTORED.format(error, there), True)
            return
        if saved.problems:
            there = saved.set_aside()
            self.message.emit(f"{saved.problems[0]} The rest is in {there}.", True)
        else:
            self._adopted = saved
            lost = OPEN_YOURSELF.format(quoted(missing)) if missing else ""
            lost += CHANGED.format(quoted(changed)) if changed else ""
            self.message.emit(f"{RESTORED}{lost}", bool(changed))
        self.touch()

    def put_back(self, contents: Contents) -> list[str]:
        """Put a session into the viewer and its docks; return images that are missing.

        The settings of a dock that is not open are shown once it is.
        """
        viewer = self._viewer()
        if viewer is None:
            return []
        missing = put_back(viewer, contents, self._book(), self.blocks.begin)
        state = contents.saved.state
        lost = [i for i in state.get("images", []) if i["name"] in missing]
        self._missing = (state, lost)
        for dock, values in contents.saved.state.get("settings", {}).items():
            method = called(self._restore.get(dock))
            if method is not None:
                method(values)
            else:
                self._pending[dock] = values
        return missing

    def _show_pending(self, name: str) -> None:
        """Show the settings of a session in a dock that was opened after it."""
        method, values = called(self._restore.get(name)), self._pending.pop(name, None)
        if method is not None and values is not None:
            method(values)


def _close(viewer_id: int) -> None:
    """End the session of a viewer that was deleted."""
    autosave = Autosave._of.pop(viewer_id, None)
    if autosave is not None:
        try:
            autosave.close()
        except RuntimeError:  # Qt has deleted it with the application
            autosave._session.close()


def called(method: weakref.WeakMethod[Any] | None) -> Any:
    """Return a dock's method; None where Qt or Python has deleted the dock."""
    found = None if method is None else method()
    owner = getattr(found, "__self__", None)
    if isinstance(owner, QWidget) and not is_alive(owner):
        return None
    return found


def quoted(names: list[str]) -> str:
    """Return names in quotes, with commas between them."""
    return ", ".join(f"'{name}'" for name in names)


def summary(saved: SavedSession) -> str:
    """Return a sentence on what a session holds; empty where that is nothing."""
    state = saved.state
    n_boxes = sum(len(b.get("vertices", [])) for b in state.get("boxes", []))
    n_labels = len(state.get("labels", []))
    n_corrected = sum(bool(i.get("corrected")) for i in state.get("images", []))
    counts = (
        (n_boxes, "box"),
        (n_labels, "painted layer"),
        (n_corrected, "corrected image"),
    )
    parts = [count(n, what) for n, what in counts if n]
    if not parts:
        return ""
    names = [i.get("name", "") for i in state.get("images", [])]
    on = f" on {', '.join(names[:2])}{' …' if len(names) > 2 else ''}" if names else ""
    *first, last = parts
    told = f"{', '.join(first)} and {last}" if first else last
    told = told.replace("boxs", "boxes")
    return f"napari ended without saving at {saved.when}: {told}{on}."
