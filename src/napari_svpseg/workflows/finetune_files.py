"""Image and label files to fine-tune on, and how a model does beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.annotation.partial_labels import (
    BACKGROUND,
    PartialLabelError,
    check_partial_labels,
    from_labels,
    label_counts,
    look_ordinary,
    merge_partial_labels,
)
from ..core.geometry import Box
from ..core.image import ImageError
from ..core.labels.ids import as_objects, is_binary
from ..core.labels.metrics import dice, f1
from ..core.settings import SegmentSettings
from ..io.mask_files import read_mask
from ..io.ome_zarr import read_any
from .segment_image import own_prompts, segment

WHITE = 255
"""Value of objects in black and white masks of most programs."""

BLACK_AND_WHITE = (
    "{path}: black and white labels: say whether 0 is background in them (--complete) "
    "or unknown (--partial)."
)
ORDINARY = (
    "{path}: looks like ordinary labels: say whether 0 is background in them "
    "(--complete), or 0 is unknown and 1 is background (--partial)."
)


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """Images with partial labels, read from files.

    Parameters
    ----------
    names : list of str
    images : list of (Y, X, C) array
    labels : list of (Y, X) int array
        Partial labels: 0 = unknown, 1 = background, 2, 3, ... = objects.
    truths : list of (Y, X) int array
        All labels of each image where only those in boxes are given; else empty.
    """

    names: list[str]
    images: list[np.ndarray]
    labels: list[np.ndarray]
    truths: list[np.ndarray]

    @classmethod
    def read(
        cls,
        pairs: Sequence[tuple[str, str]],
        boxes: Sequence[Box] = (),
        *,
        complete: bool | None = None,
        classes: bool = False,
        on_read: Callable[[str], None] = lambda _: None,
    ) -> LabelledFiles:
        """Read pairs of an image and its labels.

        The labels of an image that is named several times are merged.

        Parameters
        ----------
        pairs : sequence of (str, str)
            Paths of image and labels.
        boxes : sequence of Box
            One for each pair: the labels are ordinary ones, and only those inside the
            box are used. By default they are partial labels.
        complete : bool, optional
            True: the labels are ordinary ones, 0 = background. False: they are partial
            ones, 1 = background. By default partial ones, and refused where they look
            like ordinary ones.
        classes : bool
            The labels are classes.
        on_read : callable
            Called with a line on what was understood of each file.

        Raises
        ------
        ImageError, PartialLabelError
            If a file cannot be read, is a stack, or does not fit.
        """
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        truths: dict[str, np.ndarray] = {}
        for n, (image_path, labels_path) in enumerate(pairs):
            plane, labels = _read_plane(image_path), read_mask(labels_path)
            if boxes:
                truths[image_path] = check_partial_labels(
                    labels if classes else as_objects(labels), plane.shape, labels_path
                )
                labels = from_labels(labels, [boxes[n]], classes=classes)
            elif complete:
                labels = from_labels(labels, classes=classes)
            labels = check_partial_labels(labels, plane.shape, labels_path)
            if complete is None and not boxes and not classes:
                _refuse_ordinary(labels, labels_path)
            on_read(f"{labels_path}: {understood(labels, classes=classes)}")
            if image_path in found:
                labels = merge_partial_labels(found[image_path][1], labels, image_path)
            found[image_path] = (plane, labels)
        return cls(
            [Path(path).name for path in found],
            [plane for plane, _ in found.values()],
            [labels for _, labels in found.values()],
            list(truths.values()),
        )


def _refuse_ordinary(labels: np.ndarray, path: str) -> None:
    """Raise `PartialLabelError` for labels that are hardly meant as partial ones."""
    if is_binary(labels) and labels.max() == WHITE:
        raise PartialLabelError(BLACK_AND_WHITE.format(path=path))
    if look_ordinary(labels):
        raise PartialLabelError(ORDINARY.format(path=path))


def understood(partial: np.ndarray, *, classes: bool = False) -> str:
    """Return what partial labels hold, in words.

    Examples
    --------
    >>> understood(np.array([[0, 1, 2, 2]]))
    '1 object; labelled 75 % of the image, 25 % of it as background'
    """
    n = label_counts(partial, semantic=classes)
    what = "class" if classes else "object"
    k = len(n) - 1 if classes else n["n_objects"]
    named = f"{k} {what}" if k == 1 else f"{k} {what}{'es' if classes else 's'}"
    known, background = (partial > 0).mean(), (partial == BACKGROUND).mean()
    return (
        f"{named}; labelled {known:.0%} of the image, {background:.0%} of it as "
        "background"
    ).replace("%", " %")


def _read_plane(path: str) -> np.ndarray:
    image = read_any(path)
    if image.axes.stack:
        raise ImageError(
            f"{path}: one plane is trained on, this file has the axes "
            f"{image.axes.order}: save the plane by itself."
        )
    return image.axes.to_plane(np.asarray(image.array))


def scores_outside_boxes(
    files: LabelledFiles, old: str, new: str, device: str = "auto"
) -> dict[str, dict[str, float]]:
    """Return how two models do where labels are known but were not trained on.

    Parameters
    ----------
    files : LabelledFiles
    old, new : str
        Models; both are asked with the prompts of the new one.
    device : str

    Returns
    -------
    dict
        ``dice`` and ``f1``, means over the images, for ``before`` and ``after``; empty
        where no label lies outside boxes.
    """
    if not files.truths:
        return {}
    prompts, scores = own_prompts(new), {}
    run = SegmentSettings(trust=False)
    for name, model in (("before", old), ("after", new)):
        each = []
        for image, known, truth in zip(
            files.images, files.labels, files.truths, strict=False
        ):
            result = segment(image, prompts, model, device, axes="YXC", settings=run)
            given = known > 0
            each.append(
                (
                    dice(result.labels, truth, given),
                    f1(result.labels, truth, 0.5, given),
                )
            )
        means = np.mean(each, axis=0)
        scores[name] = {"dice": float(means[0]), "f1": float(means[1])}
    return scores
