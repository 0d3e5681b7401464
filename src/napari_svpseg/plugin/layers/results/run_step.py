"""One step of a run: an image, or a part of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ....core.geometry import Tile
from ....core.labels.ids import present_ids
from ....core.prompt import PromptSet
from ....core.result import Recipe, Result
from ....workflows.segment_image import SMALL_PLANE

if TYPE_CHECKING:
    from ..images.image_source import ImageSource


CLOSED = "'{name}' was closed, so there is no result for it."


@dataclass(frozen=True, eq=False)
class Step:
    """One image, or a part of it, to be segmented."""

    source: ImageSource
    plane: tuple[int, ...] | None
    tile: Tile | None = None
    store: str = ""


MAX_TOGETHER = 4
"""Images that the engine gets together: it works on as many as it has cores."""


def first_together(steps: Sequence[Step]) -> int:
    """Return how many of the first steps are segmented together: at least one."""
    n = 0
    while n < min(len(steps), MAX_TOGETHER) and _is_small(steps[n]):
        n += 1
    return max(n, 1)


def _is_small(step: Step) -> bool:
    """Return whether a step is a single plane of few pixels."""
    is_plane = step.plane is not None or step.source.n_planes == 1
    n_pixels = math.prod(step.source.plane_shape)
    return is_plane and not step.store and n_pixels <= SMALL_PLANE


def named_channels(
    prompts: PromptSet | None, source: ImageSource
) -> tuple[int, ...] | None:
    """Return where the channels of the prompts are among an image's, by their names.

    None where they are in order, or not all known: then they go by their place.
    """
    wanted = prompts[0].channel_names if prompts is not None and len(prompts) else ()
    names = source.channel_names
    if not wanted or not set(wanted) <= set(names) or wanted == names:
        return None
    return tuple(names.index(name) for name in wanted)


def closed(step: Step) -> str:
    """Return the message on an image that was closed while it was segmented."""
    return CLOSED.format(name=step.source.name)


def recipe_with_plane(recipe: Recipe, step: Step) -> Recipe:
    """Return a recipe that says which plane of a stack was segmented."""
    files = tuple(
        str(getattr(layer.source, "path", None) or f"{layer.name}.tif")
        for layer in (step.source.layer, *step.source.others)
        if step.source.others
    )
    recipe = replace(recipe, level=step.source.level, channel_files=files)
    if step.plane is None or step.source.n_planes == 1:
        return recipe
    return replace(recipe, plane=step.plane, stack_axes=step.source.axes.order)


def found_classes(result: Result) -> list[str]:
    """Return the classes that labels of classes show, in order."""
    names = list(result.classes)
    return [names[i - 1] for i in present_ids(result.labels).tolist()]


def expected_shape(step: Step) -> tuple[int, ...]:
    """Return the shape that the labels of a step must have."""
    if step.tile is not None:
        return step.tile.shape
    source = step.source
    if step.plane is not None:
        return source.plane_shape
    return source.axes.labels_shape(source.shape)
