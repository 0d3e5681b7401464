"""Sessions back into the viewer: those that autosave kept, and saved ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.image import resize_labels
from ...core.prompt import Prompt
from ...io.images import split_series
from ...io.session import SavedSession
from ..layers.metadata import find_layer
from ..layers.prompts.mask_layers import put_mask
from ..layers.results.corrected import from_entries
from .session_layers import (
    WRITTEN_KEY,
    Entry,
    add_boxes,
    add_labels,
    changed_images,
    content_of,
    items_on,
    open_already,
    open_images,
    opened_later,
    put_on,
    show_view,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from ..layers.prompts.prompt_book import PromptBook
    from ..layers.prompts.prompt_item import PromptItem

DAMAGED_CORRECTIONS = "The corrections of {name} are damaged and left out."

RELATIVE = "relative"
"""Entry of an image in a saved session: its path from the folder of the session."""


@dataclass(eq=False)
class Contents:
    """What a session holds, read from its files.

    Parameters
    ----------
    saved : SavedSession
    labels : list of (array or None, array or None)
        Pixels of each layer, and what a run had written into it.
    prompts : list of Prompt
    changed : list of str
        Names of images whose files have another content now.
    """

    saved: SavedSession
    labels: list[tuple[np.ndarray | None, np.ndarray | None]]
    prompts: list[Prompt]
    changed: list[str]


def read_contents(saved: SavedSession) -> Contents:
    """Return what a session holds; slow, so call it in a thread."""
    labels = [
        (
            saved.labels(entry["key"]),
            saved.labels(entry[WRITTEN_KEY]) if entry.get(WRITTEN_KEY) else None,
        )
        for entry in saved.state.get("labels", [])
    ]
    for image in saved.state.get("images", []):
        try:
            from_entries(image.get("corrected") or [])
        except ValueError:
            del image["corrected"]
            saved.problems.append(DAMAGED_CORRECTIONS.format(name=image["name"]))
    return Contents(saved, labels, saved.prompts(), changed_images(saved.state))


def put_back(
    viewer: ViewerModel,
    contents: Contents,
    book: PromptBook | None,
    begin: Callable[[Labels], None],
) -> list[str]:
    """Put the layers of a session into the viewer; return images that are missing.

    What is there already, from the same session, is not added twice.

    Parameters
    ----------
    viewer : ViewerModel
    contents : Contents
    book : PromptBook, optional
        Gets the prompts that have no box.
    begin : callable
        Called with each layer of labels that was added.
    """
    state = contents.saved.state
    missing = open_images(viewer, state)
    for entry, (array, written) in zip(
        state.get("labels", []), contents.labels, strict=True
    ):
        if array is None or _is_there(viewer, entry, array):
            continue
        begin(add_labels(viewer, entry, array, written))
    add_boxes(viewer, state)
    if book is not None:
        boxes = [
            i for image in state.get("images", []) for i in items_on(state, image["id"])
        ]
        give_masks(viewer, book, contents.prompts)
        here_only = {i["name"] for i in boxes if i.get("here_only")}
        book.add_loaded(not_listed(contents.prompts, book.items), here_only)
    show_view(viewer, state.get("view") or {})
    return missing


def not_listed(prompts: Iterable[Prompt], items: Iterable[PromptItem]) -> list[Prompt]:
    """Return the saved prompts that are not in the list yet.

    Names may be there twice, as of a box and of a prompt from a file: each item stands
    for one prompt, that with its box if there is one.
    """
    items = list(items)
    places = {(i.name, i.box) for i in items}
    names = Counter(i.name for i in items)
    found = []
    for prompt in sorted(prompts, key=lambda p: (p.name, p.box) not in places):
        if names[prompt.name]:
            names[prompt.name] -= 1
        else:
            found.append(prompt)
    return found


def put_on_opened(
    viewer: ViewerModel,
    state: dict[str, Any],
    missing: list[Entry],
    book: PromptBook | None,
) -> list[Entry]:
    """Put a session on images that were missing; return those that still are.

    Parameters
    ----------
    viewer : ViewerModel
    state : dict
        Of the session.
    missing : list of dict
        Entries of its images that were not found.
    book : PromptBook, optional
        Prompts that had no box without their image get it back.
    """
    left = []
    for image in missing:
        layer = opened_later(viewer, image)
        if layer is None:
            left.append(image)
            continue
        names = {item["name"] for item in items_on(state, image["id"])}
        loaded: list[Prompt] = []
        if book is not None:
            for item in list(book.items):
                if item.loaded is not None and item.name in names:
                    loaded.append(item.loaded)
                    book.take_back(item)
        put_on(viewer, state, image, layer)
        if book is not None:
            give_masks(viewer, book, loaded)
    return left


def give_masks(viewer: ViewerModel, book: PromptBook, prompts: list[Prompt]) -> None:
    """Paint the saved masks of boxes whose Labels layer did not come back."""
    masks = {(p.name, p.box): p.mask for p in prompts if (p.mask > 0).any()}
    for item in book.items:
        box = item.box
        if box is None or item.source is None or item.mask is not None:
            continue
        mask = masks.get((item.name, box))
        if mask is not None:
            found = resize_labels(np.maximum(mask, 0), (box.size, box.size))
            book.update(item.id, mask_layer=put_mask(viewer, item, found))


def _is_there(viewer: ViewerModel, entry: Entry, array: np.ndarray) -> bool:
    layer = find_layer(viewer.layers, entry["id"])
    data = getattr(layer, "data", None)
    return isinstance(data, np.ndarray) and np.array_equal(data, array)


# ---------------------------------------------------------------- moved files


def note_places(state: dict[str, Any], folder: Path) -> None:
    """Add to each image where its file lies as seen from a folder."""
    for image in state["images"]:
        if image["path"]:
            try:
                image[RELATIVE] = os.path.relpath(image["path"], folder)
            except ValueError:  # on another drive
                image[RELATIVE] = ""


def find_moved(state: dict[str, Any], folders: Iterable[Path]) -> list[Entry]:
    """Correct the paths of images that have moved; return those that are not found.

    A file of the same name counts if it has the same content. Slow, so call it in a
    thread.

    Parameters
    ----------
    state : dict
    folders : iterable of Path
        Where to look: the folder of the session first.
    """
    folders, lost = list(folders), []
    for image in state.get("images", []):
        if not image["path"] or is_file(image["path"]):
            continue
        name = Path(image["path"]).name
        places = [
            folder / part
            for folder in folders
            for part in dict.fromkeys((image.get(RELATIVE) or name, name))
        ]
        same = (
            place
            for place in places
            if is_file(place)
            and image.get("fingerprint") in ("", None, content_of(str(place)))
        )
        found = next(same, None)
        if found is None:
            lost.append(image)
        else:
            image["path"] = str(found)
    return lost


def is_file(path: str | Path) -> bool:
    """Return whether the file of an image is there, or the file it is a series of."""
    return Path(path).exists() or split_series(path)[0].exists()


def not_open(viewer: ViewerModel, lost: Iterable[Entry]) -> list[Entry]:
    """Return the images of a session that are not open in the viewer either."""
    return [image for image in lost if open_already(viewer, image) is None]
