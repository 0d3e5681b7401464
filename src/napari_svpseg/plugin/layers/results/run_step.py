"""One step of a run: an image, or a part of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ....core.geometry import Tile
from ....core.labels.ids import present_ids
from ....core.prompt import PromptSet
from ....core.result import Recipe, Result
from ....workflows.segment_image import SMALL_PLANE
from ....workflows.segment_several import Call

if TYPE_CHECKING:
    from ..images.image_source import ImageSource

T = TypeVar("T")

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


class RunQueue(Generic[T]):
    """What is still to be segmented, and what is in work together.

    Parameters
    ----------
    step_of : callable
        Returns the step of an item.
    """

    def __init__(self, step_of: Callable[[T], Step]) -> None:
        self._step_of = step_of
        self.left: list[T] = []
        self.together: dict[int, T] = {}
        """Items in work together, by their number; none where there is one."""
        self._is_careful = False

    def __len__(self) -> int:
        """Return how many are left or in work together."""
        return len(self.left) + len(self.together)

    def fill(self, items: Iterable[T]) -> None:
        """Begin with other items."""
        self.left, self.together, self._is_careful = list(items), {}, False

    def clear(self) -> None:
        """Drop all items."""
        self.left, self.together = [], {}

    def take(self, *, alone: bool = False) -> list[T]:
        """Take the next item, or a few single planes of few pixels together."""
        n = 0
        if not (alone or self._is_careful):
            first = [self._step_of(item) for item in self.left[:MAX_TOGETHER]]
            n = len(list(takewhile(_is_small, first)))
        some, self.left = self.left[: max(n, 1)], self.left[max(n, 1) :]
        self.together = dict(enumerate(some)) if n > 1 else {}
        return some

    def put_back(self) -> bool:
        """Have what is in work together done one by one; return whether there is any.

        For where the engine ended on them: it may be one of them that it cannot do.
        """
        if not self.together:
            return False
        self.left = [*self.together.values(), *self.left]
        self.together, self._is_careful = {}, True
        return True


def all_of(prepared: Sequence[Callable[[], Call]]) -> Callable[[], Any]:
    """Return a function that makes the arguments of `segment_several`."""
    return lambda: (([make() for make in prepared],), {})


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
