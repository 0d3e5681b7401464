"""Saves what a viewer holds while the user works, and offers it after a crash."""

from __future__ import annotations

import atexit
import logging
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from qtpy.QtCore import QCoreApplication, QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from ...core.prompt import Prompt, PromptSet
from ...io.session import (
    SavedSession,
    Session,
    block_slices,
    block_starts,
    crashed_sessions,
    sessions_folder,
)
from ..layers.image_source import DECLARED, MARK, declared, is_picture, mark_of
from ..layers.partial_label_layers import KIND, color
from ..panels.controls import Offer, count, is_alive, sentence
from .background import Background
from .preferences import preference

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer, Shapes

    from ..layers.prompt_boxes import PromptBook

logger = logging.getLogger(__name__)

WAIT_MS = 1500
"""From an edit to its being saved."""
AT_ONCE = 32
"""Blocks that are copied at a time: 4 MB, a few milliseconds."""
MAX_WHOLE = 64_000_000
"""Pixels up to which a layer that was there before is saved whole once edited."""

PAINTED = ("mask", KIND)
"""Kinds of our layers that the user paints in, and no run writes in."""
ON_DISK = ("stored", "stored edit")
"""Kinds of our layers whose strokes are written to a store at once."""
EDITING = ("paint", "fill", "erase", "polygon")
PLACE = ("scale", "translate", "rotate", "shear", "units", "axis_labels")

Settings = dict[str, Any]


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
        """Return the one of a viewer, made if need be."""
        bare = getattr(viewer, "__wrapped__", viewer)
        if id(bare) not in cls._of:
            cls._of[id(bare)] = cls(bare)
            weakref.finalize(bare, _close, id(bare))
        return cls._of[id(bare)]

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self._session = Session(sessions_folder())
        self._files = Background(1)
        self._settings: dict[str, weakref.WeakMethod[Callable[[], Settings]]] = {}
        self._last_settings: dict[str, Settings] = {}
        self._restore: dict[str, weakref.WeakMethod[Callable[[Settings], None]]] = {}
        self._book: Callable[[], PromptBook | None] = lambda: None
        self._keys: dict[Any, str] = {}
        self._dirty: dict[Any, deque[tuple[int, ...]]] = {}
        self._touched: dict[Any, set[tuple[int, ...]]] = {}
        self._saved: SavedSession | None = None
        self._adopted: SavedSession | None = None
        self._broken = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.save)
        for layer in viewer.layers:
            self._watch(layer)
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
            A bound method that returns what JSON can hold.
        restore : callable
            A bound method that takes the same.
        book : PromptBook, optional
            Its prompts are saved too.
        """
        self._settings[name] = weakref.WeakMethod(settings)
        self._restore[name] = weakref.WeakMethod(restore)
        if book is not None:
            self._book = weakref.ref(book)
            book.changed.connect(self.touch)
        bar = Offer("Restore last session", "Discard")
        bar.taken.connect(self.restore)
        bar.left.connect(self.discard)
        self.offered.connect(bar.offer)
        self.withdrawn.connect(bar.hide)
        if self._saved is not None:
            bar.offer(summary(self._saved))
        return bar

    def touch(self, event: Any = None) -> None:
        """Save soon."""
        if not self._timer.isActive() and preference("autosave"):
            self._timer.start(WAIT_MS)

    def close(self) -> None:
        """End the session well: nothing of it is offered later."""
        self._timer.stop()
        self._files.close(finish=True)
        self._session.close()
        if self._saved is not None:
            self._saved.release()

    # ------------------------------------------------------------ watching

    def _on_inserted(self, event: Any) -> None:
        self._watch(event.value)
        self.touch()

    def _on_removed(self, event: Any) -> None:
        key = event.value.unique_id
        for known in (self._keys, self._dirty, self._touched):
            known.pop(key, None)
        self.touch()

    def _watch(self, layer: Layer) -> None:
        from napari.layers import Labels, Shapes

        if isinstance(layer, Labels):
            layer.events.paint.connect(self._on_paint)
            layer.events.set_data.connect(self._on_shown)
        elif isinstance(layer, Shapes):
            layer.events.data.connect(self.touch)

    def _on_paint(self, event: Any) -> None:
        layer = event.source
        kind = (mark_of(layer) or {}).get("kind")
        if kind in ON_DISK:
            return
        if kind not in PAINTED and (
            kind in ("preview", "comparison") or str(layer.mode) not in EDITING
        ):
            return  # a run wrote it, and can write it again
        shape = tuple(layer.data.shape)
        if layer.unique_id not in self._keys:
            self._begin(layer)
        for atom in event.value:
            self._mark(layer.unique_id, block_starts(shape, region_of(atom)))

    def _begin(self, layer: Labels) -> None:
        """Save a layer from now on; what was in it before is saved too."""
        key = layer.unique_id
        self._keys[key] = f"{len(self._keys)}-{str(key)[:8]}".replace("-", "")
        self._dirty[key], self._touched[key] = deque(), set()
        shape = tuple(layer.data.shape)
        if int(np.prod(shape, dtype=object)) <= MAX_WHOLE and not layer.multiscale:
            self._mark(key, block_starts(shape))

    def _mark(self, key: Any, starts: Any) -> None:
        waiting = set(self._dirty[key])
        fresh = [s for s in starts if s not in waiting]
        self._dirty[key].extend(fresh)
        self._touched[key].update(fresh)
        self.touch()

    def _on_shown(self, event: Any) -> None:
        """Look again at what was painted: napari's undo only shows itself so."""
        key = event.source.unique_id
        if key in self._keys:
            self._mark(key, self._touched[key])

    # ------------------------------------------------------------ saving

    def save(self) -> None:
        """Copy what has changed, and write it in a thread."""
        viewer = self._viewer()
        if viewer is None or self._broken:
            return
        if self._files.is_busy:
            self._timer.start(100)
            return
        state = self._state(viewer)
        prompts = self._prompts()
        copies, keys = [], []
        left = AT_ONCE
        for layer in viewer.layers:
            key = self._keys.get(layer.unique_id)
            if key is None:
                continue
            keys.append(key)
            blocks = self._copies(layer, left)
            left -= len(blocks)
            if blocks:
                data = layer.data
                copies.append((key, tuple(data.shape), data.dtype.str, blocks))
        session = self._session

        def write() -> None:
            for key, shape, dtype, blocks in copies:
                session.write_blocks(key, shape, dtype, blocks)
            session.drop_labels(keys)
            session.write_prompts(PromptSet(prompts()))
            session.write_state(state)

        self._files.call(write, self._on_written, self._on_not_written)

    def _copies(
        self, layer: Labels, limit: int
    ) -> list[tuple[tuple[int, ...], np.ndarray]]:
        """Return copies of some blocks that changed."""
        waiting = self._dirty[layer.unique_id]
        shape = tuple(layer.data.shape)
        return [
            (start, np.array(layer.data[block_slices(start, shape)]))
            for start in (waiting.popleft() for _ in range(min(limit, len(waiting))))
        ]

    def _on_written(self, _: Any) -> None:
        if any(self._dirty.values()):
            self._timer.start(20)
        elif self._adopted is not None:  # all that was restored is saved anew
            self._adopted.discard()
            self._adopted = None

    def _on_not_written(self, error: Any) -> None:
        self._broken = True
        logger.warning("autosave: %s", error)
        self.message.emit(f"Autosave is off: {sentence(error)}", True)

    def _state(self, viewer: ViewerModel) -> dict[str, Any]:
        """Return all but pixels, as plain values."""
        names = {la.unique_id: la.name for la in viewer.layers}
        for dock, settings in self._settings.items():
            method = called(settings)
            if method is not None:
                self._last_settings[dock] = method()
        return {
            "images": [_image(la) for la in viewer.layers if is_picture(la)],
            "boxes": [_boxes(la) for la in viewer.layers if mark_of(la, "boxes")],
            "labels": [
                _labels(la, self._keys[la.unique_id], names)
                for la in viewer.layers
                if la.unique_id in self._keys
            ],
            "settings": dict(self._last_settings),
        }

    def _prompts(self) -> Callable[[], list[Prompt]]:
        """Return what makes the prompts, away from the GUI's thread."""
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
        """Put the last session away for good."""
        saved, self._saved = self._saved, None
        self.withdrawn.emit()
        if saved is not None:
            saved.discard()

    def restore(self) -> None:
        """Bring back what the last session held."""
        saved, self._saved = self._saved, None
        self.withdrawn.emit()
        if saved is None:
            return
        entries = list(saved.state.get("labels", []))

        def read() -> tuple[SavedSession, list[Any], PromptSet]:
            return saved, [saved.labels(e["key"]) for e in entries], saved.prompts()

        self._files.call(read, self._put_back, self._on_not_restored)

    def _on_not_restored(self, error: Any) -> None:
        self.message.emit(f"The last session cannot be restored: {error}", True)

    def _put_back(self, value: tuple[SavedSession, list[Any], PromptSet]) -> None:
        saved, arrays, prompts = value
        viewer = self._viewer()
        if viewer is None:
            return
        try:
            missing = _open_images(viewer, saved.state)
            entries = zip(saved.state.get("labels", []), arrays, strict=True)
            for entry, array in entries:
                if array is not None:
                    layer = _add_labels(viewer, entry, array)
                    self._begin(layer)
            _add_boxes(viewer, saved.state)
            self._add_lost(prompts, saved.state, missing)
            for dock, values in saved.state.get("settings", {}).items():
                method = called(self._restore.get(dock))
                if method is not None:
                    method(values)
        except Exception as error:
            logger.exception("could not restore %s", saved.folder)
            there = saved.set_aside()
            self.message.emit(
                f"Not all could be restored ({error}). It is kept in {there}.", True
            )
            return
        if saved.problems:
            there = saved.set_aside()
            self.message.emit(f"{saved.problems[0]} The rest is in {there}.", True)
        else:
            self._adopted = saved
            lost = ""
            if missing:
                names = ", ".join(f"'{name}'" for name in missing)
                lost = f" Open {names} by hand."
            self.message.emit(f"The last session is back.{lost}", False)
        self.touch()

    def _add_lost(
        self, prompts: PromptSet, state: dict[str, Any], missing: list[str]
    ) -> None:
        """Add the prompts whose boxes could not be drawn, as from a file."""
        book = self._book()
        if book is None:
            return
        drawn = {i.name for i in book.items}
        book.add_loaded(PromptSet([p for p in prompts if p.name not in drawn]))


def _close(viewer_id: int) -> None:
    """End the session of a viewer that is gone."""
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


def region_of(atom: Any) -> tuple[slice, ...]:
    """Return the bounding box of one step of napari's history of a Labels layer."""
    key = getattr(atom, "slice_key", None)
    if key is not None:
        return tuple(key)
    return tuple(
        slice(int(np.min(i)), int(np.max(i)) + 1) if np.size(i) else slice(0, 0)
        for i in atom[0]
    )


def summary(saved: SavedSession) -> str:
    """Return what a session holds; empty where it is not worth restoring."""
    state = saved.state
    n_boxes = sum(len(b.get("vertices", [])) for b in state.get("boxes", []))
    n_labels = len(state.get("labels", []))
    parts = [
        count(n, what)
        for n, what in ((n_boxes, "box"), (n_labels, "painted layer"))
        if n
    ]
    if not parts:
        return ""
    names = [i.get("name", "") for i in state.get("images", [])]
    on = f" on {', '.join(names[:2])}{' …' if len(names) > 2 else ''}" if names else ""
    told = " and ".join(parts).replace("boxs", "boxes")
    return f"napari ended without saving at {saved.when}: {told}{on}."


# ------------------------------------------------------------ layers as plain values


def _place(layer: Layer) -> dict[str, Any]:
    place: dict[str, Any] = {"affine": np.asarray(layer.affine.affine_matrix).tolist()}
    for name in PLACE:
        value = getattr(layer, name, None)
        if value is None:
            continue
        if name in ("units", "axis_labels"):
            place[name] = [str(v) for v in value]
        elif name != "shear" or np.any(value):
            place[name] = np.asarray(value).tolist()
    return place


def _image(layer: Layer) -> dict[str, Any]:
    source = layer.source
    axes, channels = declared(layer)
    return {
        "name": layer.name,
        "path": str(source.path or ""),
        "plugin": source.reader_plugin,
        "sample": list(source.sample or ()),
        "axes": axes,
        "channels": channels,
    }


def _labels(layer: Labels, key: str, names: dict[Any, str]) -> dict[str, Any]:
    mark = mark_of(layer) or {}
    kept = mark if mark.get("kind") in PAINTED else {}
    return {
        "key": key,
        "name": layer.name,
        "opacity": layer.opacity,
        "mark": {**kept, "image": names.get(kept.get("image"), "")} if kept else {},
        "place": _place(layer),
    }


def _boxes(layer: Shapes) -> dict[str, Any]:
    ids = list(layer.features["id"]) if "id" in layer.features else []
    return {
        "name": layer.name,
        "ndim": layer.ndim,
        "vertices": [np.asarray(v).tolist() for v in layer.data],
        "ids": [str(i) for i in ids],
        "mark": mark_of(layer),
        "place": _place(layer),
    }


def _open_images(viewer: ViewerModel, state: dict[str, Any]) -> list[str]:
    """Open the images of a session; return the names of those that have no file."""
    missing = []
    for image in state.get("images", []):
        if any(la.name == image["name"] for la in viewer.layers):
            continue
        metadata = {}
        if image["axes"]:
            metadata = {"metadata": {DECLARED: (image["axes"], image["channels"])}}
        try:
            if image["path"]:
                plugin = image["plugin"] or "napari"
                layers = viewer.open(image["path"], plugin=plugin, **metadata)
                if len(layers) == 1:
                    layers[0].name = image["name"]
            elif image["sample"]:
                _open_sample(viewer, image)
            else:
                missing.append(image["name"])
        except Exception:
            logger.exception("could not open %s again", image["path"])
            missing.append(image["name"])
    return missing


def _open_sample(viewer: ViewerModel, image: dict[str, Any]) -> None:
    """Open a sample again, without the boxes that come with it."""
    plugin, key = image["sample"]
    for layer in viewer.open_sample(plugin, key):
        if mark_of(layer, "boxes"):
            viewer.layers.remove(layer)


def _add_labels(
    viewer: ViewerModel, entry: dict[str, Any], array: np.ndarray
) -> Labels:
    mark = dict(entry["mark"])
    image = next((la for la in viewer.layers if la.name == mark.get("image")), None)
    if image is not None:
        mark["image"] = image.unique_id
    name = entry["name"]
    if not mark and any(la.name == name for la in viewer.layers):
        name = f"{name} (restored)"
    layer = viewer.add_labels(
        array,
        name=name,
        opacity=entry["opacity"],
        metadata={MARK: mark} if mark else {},
        **_placed(entry["place"]),
    )
    if mark.get("kind") == KIND:
        color(layer)
    return layer


def _add_boxes(viewer: ViewerModel, state: dict[str, Any]) -> None:
    names = {la.name for la in viewer.layers}
    for entry in state.get("boxes", []):
        mark = entry["mark"]
        if mark.get("image") not in names or not entry["vertices"]:
            continue
        viewer.add_shapes(
            [np.asarray(v) for v in entry["vertices"]],
            ndim=entry["ndim"],
            shape_type="rectangle",
            name=entry["name"],
            face_color="transparent",
            edge_width=2,
            opacity=1.0,
            features={
                "id": np.asarray(entry["ids"], object),
                "name": np.asarray([""] * len(entry["ids"]), object),
            },
            metadata={MARK: mark},
            **_placed(entry["place"]),
        )


def _placed(place: dict[str, Any]) -> dict[str, Any]:
    return {
        k: tuple(v) if k in ("units", "axis_labels") else v for k, v in place.items()
    }
