"""What the docks do, as commands of napari: for the palette, keys and tooltips.

A dock says with `Dock.bind` which of its buttons a command presses. A key does what the
dock in front has for it, so that one key runs, trains or starts whatever is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtWidgets import QAbstractButton

from ..callbacks import guarded
from ..services.preferences import preference
from .tabs import (
    BATCH,
    FINETUNE,
    SEGMENT,
    TRAIN_FROM_TAGS,
    all_open_docks,
    bring_to_front,
    is_in_front,
    show_dock,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from .base import Dock

Target = QAbstractButton | Callable[[], object]
"""What a command does in a dock: it presses a button, or calls a function."""

KEYS = {
    "draw_box": "Shift-D",
    "add_prompt": "Shift-B",
    "paint_mask": "Shift-M",
    "preview": "Shift-P",
    "run": "Shift-R",
    "stop": "Shift-X",
    "undo": "Shift-Z",
    "next_doubtful_place": "Shift-N",
    "save_labels": "Shift-S",
    "not_this": "Shift-W",
    "this_too": "Shift-T",
    "split": "Shift-L",
    "join": "Shift-I",
    "next_style": "Shift-O",
    "next_image": "Shift-J",
    "previous_image": "Shift-K",
    "start_batch": "Shift-R",
    "paint_cell": "Shift-C",
    "paint_background": "Shift-G",
    "accept_cells": "Shift-E",
    "add_image": "Shift-A",
    "start_finetuning": "Shift-R",
    "train": "Shift-R",
    "next_untagged": "Shift-N",
    "show_map": "Shift-M",
    "use_model": "Shift-U",
    "use_mask": "Shift-U",
}
"""Key of each command, in napari's notation."""

LAYER_LIST = "napari/layers/context"
SUBMENU, MENU = "napari-svpseg.submenu", "SVPSeg"
"""Our menu in the manifest."""

OPENED_BY = {SEGMENT: "F6", BATCH: "F7", FINETUNE: "F8", TRAIN_FROM_TAGS: "F9"}
"""Key that opens each dock, once one of them has been opened."""


def key_text(key: str) -> str:
    """Return a key as it is written in tooltips and by Qt.

    Examples
    --------
    >>> key_text("Shift-R")
    'Shift+R'
    """
    return key.replace("-", "+")


def add_to_layer_list() -> None:
    """Add our menu to the context menu of the layer list, which no manifest can do."""
    from app_model.types import SubmenuItem
    from napari._app_model import get_app_model

    menus = get_app_model().menus
    known = menus.get_menu(LAYER_LIST) if LAYER_LIST in menus else []
    if not any(getattr(item, "submenu", "") == SUBMENU for item in known):
        menus.append_menu_items(
            [(LAYER_LIST, SubmenuItem(submenu=SUBMENU, title=MENU))]
        )


def bind_keys(viewer: ViewerModel) -> None:
    """Bind the keys of all docks to a viewer, but for those that others have bound."""
    if not preference("shortcuts"):
        return
    for key in sorted({*KEYS.values(), *OPENED_BY.values()}):
        if coerce_keybinding(key) not in viewer.keymap:
            viewer.bind_key(key, _presses(key))


def _presses(key: str) -> Callable[[Any], None]:
    """Return a function, as napari takes no `partial`, for a key."""

    def press_key(viewer: Any) -> None:
        press(viewer, key)

    return press_key


def release_keys(viewer: ViewerModel) -> None:
    """Unbind the keys of the docks once all are closed, but those that open one."""
    if all_open_docks(viewer):
        return
    for key in set(KEYS.values()):
        bound = viewer.keymap.get(coerce_keybinding(key))
        if getattr(bound, "__module__", "") == __name__:  # no one else's
            viewer.bind_key(key, None)


def press(viewer: ViewerModel, key: str) -> None:
    """Do what a key stands for in the dock in front, else in another that is open."""
    for title, opens in OPENED_BY.items():
        if opens == key:
            show_dock(viewer, title)
            return
    for dock in _front_first(viewer):
        for name in dock.commands:
            if KEYS[name] == key:
                bring_to_front(dock)
                guarded(dock, dock.perform)(name)
                return


def perform(viewer: ViewerModel, name: str, title: str) -> None:
    """Carry a command out in the dock that has it, opened if need be."""
    docks = (dock for dock in _front_first(viewer) if name in dock.commands)
    dock = next(docks, None) or show_dock(viewer, title)
    bring_to_front(dock)
    dock.perform(name)


def _front_first(viewer: Any) -> Iterator[Dock]:
    """Yield the docks that are open, those that are seen first."""
    docks = all_open_docks(viewer)
    yield from sorted(docks, key=lambda dock: not is_in_front(dock))
