"""Objects of a result that are kept, and those that were filtered away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ....core.labels.ids import count_objects
from ..metadata import METADATA_KEY, metadata_of
from .journal import FILTER, Journal, LabelsWritten
from .written_labels import fingerprints, is_untouched, keep_written, write_ids

if TYPE_CHECKING:
    from napari.layers import Labels

REMOVED = "svpseg_removed"
"""Key in a layer's metadata: the pixels of objects that were filtered away."""

REMADE = "svpseg_remade"
"""Key in a layer's metadata: how often its objects were made anew."""

KEPT = "kept"
"""Column of a layer's features: False for objects that were filtered away.

Files that are saved leave such objects out, whoever wrote the column.
"""

NOTE = "objects removed by hand: "
"""Start of the note in a recipe that objects were filtered away."""

IN_STATUS = (
    "area",
    "eccentricity",
    "solidity",
    "intensity_mean",
    "confidence",
    "class",
)
"""Beginnings of the columns that are features: napari shows them under the pointer."""


@dataclass(eq=False)
class ObjectsFiltered(LabelsWritten):
    """Objects filtered away, or brought back."""

    removed: np.ndarray | None = None
    is_ours: bool = True

    def undo(self) -> str:
        """Put the objects back that the filter removed."""
        text = super().undo()
        remember(self.layer, self.removed)
        return text

    def _note_undone(self, n: int) -> None:
        if self.is_ours:
            super()._note_undone(n)


def full_labels(layer: Labels) -> np.ndarray:
    """Return a copy of the ids of a layer, with the objects that were filtered away."""
    now, removed = np.array(layer.data), layer.metadata.get(REMOVED)
    if removed is None or removed.shape != now.shape:
        return now
    return np.where(now == 0, removed, now)


def remember(layer: Labels, removed: np.ndarray | None) -> None:
    """Remember the pixels of the objects of a layer that are filtered away."""
    if removed is None or not removed.any():
        layer.metadata.pop(REMOVED, None)
    else:
        layer.metadata[REMOVED] = removed


def note_remade(layer: Labels) -> None:
    """Note that a layer has other objects now, by a run or by result options."""
    layer.metadata.pop(REMOVED, None)
    layer.metadata[REMADE] = layer.metadata.get(REMADE, 0) + 1


def filter_objects(
    layer: Labels, full: np.ndarray, keep: np.ndarray, note: str, journal: Journal
) -> bool:
    """Remove objects from a layer, or bring them back, as one edit.

    Only pixels that the user has not painted over meanwhile change. The steps of a
    slider are one edit.

    Parameters
    ----------
    layer : Labels
    full : int array
        Of `full_labels`.
    keep : bool array of the same shape
        Pixels of the objects that are kept, and of the background.
    note : str
        What was removed, for the recipe; empty where all objects are kept.
    journal : Journal

    Returns
    -------
    bool
        Whether anything has changed.
    """
    now, before = np.array(layer.data), layer.metadata.get(REMOVED)
    ours = now == full
    if before is not None and before.shape == now.shape:
        ours |= (now == 0) & (before == full)  # and not erased by the user
    values = np.where(ours, np.where(keep, full, 0), now)
    if np.array_equal(values, now):
        return False
    region = tuple(slice(0, n) for n in now.shape)
    metadata = dict(metadata_of(layer) or {})
    is_ours = is_untouched(layer)
    edit = ObjectsFiltered(
        layer,
        region,
        now,
        values,
        metadata,
        FILTER,
        before,
        is_ours,
    )

    def record(_: int) -> None:
        journal.add_or_extend(edit)
        remember(layer, np.where(ours & ~keep, full, 0))
        if is_ours:
            layer.metadata[METADATA_KEY] = _signed(metadata, values, note)
            keep_written(layer, region)

    write_ids(layer, region, values, record)
    return True


def _signed(metadata: dict[str, Any], ids: np.ndarray, note: str) -> dict[str, Any]:
    """Return the metadata of a result whose objects were filtered."""
    recipe = dict(metadata.get("recipe") or {})
    notes = [n for n in recipe.get("notes", ()) if not n.startswith(NOTE)]
    recipe["notes"] = (*notes, NOTE + note) if note else tuple(notes)
    return {
        **metadata,
        "recipe": recipe,
        "objects": count_objects(ids),
        "written": fingerprints(ids, metadata["axes"]),
    }


def set_features(layer: Labels, table: dict[str, np.ndarray], keep: np.ndarray) -> None:
    """Write measurements into the features of a result, one row for each id.

    Of an object in several planes, the row is that of its largest section.

    Parameters
    ----------
    layer : Labels
    table : dict of arrays
        Of `workflows.object_table`.
    keep : (n,) bool array
        Whether each row is kept.
    """
    ids, area = table["label"], table["area"]
    order = np.lexsort((-area, ids))
    rows = order[np.unique(ids[order], return_index=True)[1]]
    names = [name for name in table if name.startswith(IN_STATUS)]
    names = [n for n in names if n != "area" or not any("area_" in m for m in names)]
    features: dict[str, Any] = {"index": ids[rows], KEPT: keep[rows]}
    features |= {name: _short(table[name][rows]) for name in names}
    class_of = (metadata_of(layer) or {}).get("class_of") or {}
    if class_of:
        known = {int(i): name for i, name in class_of.items()}
        features["class"] = [known.get(int(i), "") for i in ids[rows]]
    layer.features = features


def _short(values: np.ndarray) -> np.ndarray:
    """Return numbers with as many digits as a line of text has room for."""
    if values.dtype.kind != "f":
        return values
    return np.array([float(f"{v:.4g}") for v in values.tolist()])


def dropped_ids(features: Any) -> np.ndarray:
    """Return the ids whose column `KEPT` says that they are not kept.

    Parameters
    ----------
    features : DataFrame, dict or None
        Features of a Labels layer.
    """
    if features is None or KEPT not in features or "index" not in features:
        return np.zeros(0, np.int64)
    kept = np.asarray(features[KEPT])
    wanted = np.array([bool(k) if k == k else True for k in kept.tolist()], bool)
    return np.asarray(features["index"], np.int64)[~wanted]
