"""Controller that lets results follow a correction, the image in view first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...core.annotation.corrections import overturns
from ...core.annotation.mending import changed_objects
from ...core.prompt import UNKNOWN, PromptSet, prompt_hash
from ...core.settings import PostprocessSettings, split_settings
from ...workflows.correct_image import split_by_agreement
from ...workflows.segment_image import postprocess, segment
from ...workflows.segment_several import Segmented, segment_several
from ..layers.results.corrected import all_planes, fixed_on, keep_strokes
from ..layers.results.run_step import (
    RunQueue,
    Step,
    all_of,
    expected_shape,
    recipe_with_plane,
)
from ..layers.results.seen_plane import SeenPlane, seen_planes
from ..messages import count, sentence

if TYPE_CHECKING:
    from napari.layers import Image

    from ...core.result import Result
    from ..layers.prompts.prompt_item import PromptItem
    from ..layers.results.correction import Correction
    from ..layers.results.result_layers import Kept
    from ..services.engine_process import EngineJob
    from .segment_controller import SegmentController

FOLLOWING = " The other images follow…"
NOTHING_ELSE = "nothing else changed"
HERE_ONLY = (
    " It would make earlier examples worse, so it is used in this image only: see its "
    "row in the list."
)
SWITCHED_OFF = (
    " As an example it would change most of this image, so it is switched off in the "
    "list; the object itself stays."
)
MAX_COUNTED = 4_000_000
"""Pixels of a result up to which its objects are compared; more would take too long."""


class FollowView(Protocol):
    """The part of the dock that this controller sees."""

    @property
    def follows(self) -> bool:
        """Whether other images follow corrections."""

    def mark(self, image: Image) -> None:
        """Mark an image of the list as changed."""

    def touch(self) -> None:
        """Have corrections saved soon."""

    def followed(self) -> None:
        """Go on after all results have followed."""


@dataclass
class Task:
    """What a correction has the results do, and what came of it.

    Parameters
    ----------
    said : str
        What was done, such as "Removed"; empty for nothing to tell.
    correction : Correction, optional
        Gets the changes, to be undone with it. Without one only maps are made.
    items : list of PromptItem
        New prompts, still to be checked against the others.
    split : float, optional
        New split strength: objects are made anew of the maps that are there.
    note : str
        Further sentences, each after a space.
    """

    said: str = ""
    correction: Correction | None = None
    items: list[PromptItem] = field(default_factory=list)
    split: float | None = None
    note: str = ""
    gone: int = 0
    new: int = 0
    images: set[Any] = field(default_factory=set)

    def text(self) -> str:
        """Return what has happened so far."""
        parts = []
        if self.gone:
            like = " like it" if self.split is None else ""
            parts.append(f"{count(self.gone, 'other')}{like} gone")
        if self.new:
            parts.append(f"{self.new} more found")
        what = " and ".join(parts) or NOTHING_ELSE
        where = f" in {count(len(self.images), 'image')}" if parts else ""
        return f"{self.said}; {what}{where}.{self.note}"


class FollowController:
    """Makes results anew after a correction: the one in view, then a few at a time.

    The next correction cancels what is left and begins again.

    Parameters
    ----------
    view : FollowView
    runs : SegmentController
        Whose engine, prompts and layers are used, and whose dock shows messages.
    """

    def __init__(self, view: FollowView, runs: SegmentController) -> None:
        self.view, self.runs = view, runs
        self.layers, self.book = runs.layers, runs.book
        self.job: EngineJob | None = None
        self._queue: RunQueue[Kept] = RunQueue(_step_of)
        self._task = Task()
        self._first: Kept | None = None

    @property
    def is_busy(self) -> bool:
        """Whether results are still to follow."""
        return self.job is not None

    def start(
        self, task: Task, first: Kept, others: Iterable[Kept] | None = None
    ) -> None:
        """Let results follow a correction, beginning with the one that it was made in.

        Without *Follow corrections* it is the only one.

        Parameters
        ----------
        task : Task
        first : Kept
        others : iterable of Kept, optional
            By default all whose maps are in memory.
        """
        unchecked = self._task.items if self.is_busy else []
        self.cancel()
        task.items = [*unchecked, *task.items]
        self._task, self._first = task, first
        every = {id(first): first}
        if self.view.follows:
            kept = self.layers.results.kept.values() if others is None else others
            for seen in seen_planes(kept, self.layers.viewer.layers):
                every.setdefault(id(seen.kept), seen.kept)
        self._queue.fill(every.values())
        self._next()

    def cancel(self) -> None:
        """Leave the results that are left as they are."""
        self._queue.clear()
        job, self.job = self.job, None
        if job is not None:
            job.cancel()
            self.runs.view.show_state()

    # ------------------------------------------------------------ one after the other

    def _next(self) -> None:
        """Begin the next job: the first result, the check of new examples, the others.

        The image in view comes first: there a new example is used in any case.
        """
        open_layers = set(self.layers.viewer.layers)
        queue = self._queue
        queue.left = [k for k in queue.left if {k.layer, k.source.layer} <= open_layers]
        try:
            if not self._is_first_left() and self._check():
                return
            if queue.left:
                self._make_some()
                return
        except ValueError as error:  # a prompt that cannot be used any more
            queue.left = []
            self.runs.view.say(sentence(error), True)
            return
        if self._task.said:
            self.runs.view.say(self._task.text())
        self.view.followed()

    def _is_first_left(self) -> bool:
        return bool(self._queue.left) and self._queue.left[0] is self._first

    def _follow(
        self,
        job: EngineJob,
        take: Callable[[Any], None],
        take_part: Callable[[Any], None] | None = None,
    ) -> None:
        """Take the result of a job, or its parts, unless it is cancelled, and go on."""
        self.job = job

        def receive(then: Callable[..., None]) -> Callable[..., None]:
            def call(*args: Any) -> None:
                if self.job is job:
                    then(*args)

            return self.runs.receive(call)

        if take_part is not None:
            job.partial.connect(receive(take_part))
        job.returned.connect(receive(take))
        job.failed.connect(receive(self._on_failed))
        job.finished.connect(receive(self._on_finished))
        self.runs.view.show_state()

    def _on_failed(self, text: str) -> None:
        if not self._queue.put_back():
            self._task.note += f" {text}"

    def _on_finished(self) -> None:
        self.job = None
        self._next()
        self.runs.view.show_state()

    # ------------------------------------------------------------ jobs

    def _make_some(self) -> None:
        """Begin the job that makes the next result anew, or a few results together."""
        if self._task.split is not None:
            self._split(self._queue.left.pop(0))
            return
        some = self._queue.take(alone=self._is_first_left())
        prepared = [self._prepare(kept) for kept in some]
        engine = self.runs.engine
        if not self._queue.together:
            job = engine.submit_prepared(segment, prepared[0])
            self._follow(job, lambda result: self._show(some[0], result))
            return
        job = engine.submit_prepared(segment_several, all_of(prepared))
        self._follow(job, lambda _: None, self._take)

    def _take(self, done: Segmented) -> None:
        """Show one of several results, or note why it could not be made."""
        kept = self._queue.together.pop(done.index)
        if done.result is None:
            self._task.note += f" {done.error}"
        else:
            self._show(kept, done.result)

    def _prepare(self, kept: Kept) -> Callable[[], Any]:
        """Return a function that makes the arguments for a result to be made anew."""
        self._keep_strokes(kept)
        values = SeenPlane(kept, kept.plane or ()).settings.to_dict()
        prompts = self.book.prompts(kept.source.layer)
        settings = {**self.runs.view.run_choices().settings, **values, "trust": False}
        return self.runs.arguments(_step_of(kept), prompts, settings)

    def _split(self, kept: Kept) -> None:
        """Begin the job that makes the objects of a result anew of its maps."""
        self._keep_strokes(kept)
        values = SeenPlane(kept, kept.plane or ()).settings.to_dict()
        values["split_strength"] = self._task.split
        options = PostprocessSettings.from_dict(values)
        axes = kept.source.query_axes(kept.plane)
        job = self.runs.engine.submit(postprocess, kept.maps, options, axes=axes)
        self._follow(job, lambda labels: self._show_split(kept, labels, values))

    def _keep_strokes(self, kept: Kept) -> None:
        keep_strokes(kept.layer, kept.source, list(all_planes(kept.source)))

    def _check(self) -> bool:
        """Begin the check of new examples; return False where there is none."""
        items = [i for i in self._task.items if i in self.book.items and i.enabled]
        model = self.runs.view.run_choices().model
        self._task.items = []
        if not items or model is None or not self.view.follows:
            return False
        if not model.takes_prompts:  # it learns nothing from them
            return False
        before = PromptSet(
            self.book.prompt(i)
            for i in self.book.items
            if i.enabled and i.is_ready and not i.here_only and i not in items
        )
        examples = [self.book.prompt(i) for i in items]
        owners = dict(zip(map(prompt_hash, examples), items, strict=True))
        settings, _ = split_settings(self.runs.view.run_choices().settings)

        def take(found: tuple[PromptSet, PromptSet]) -> None:
            for prompt in found[1]:
                self.book.update(owners[prompt_hash(prompt)].id, here_only=True)
                self._task.note = HERE_ONLY

        job = self.runs.engine.submit(
            split_by_agreement,
            before,
            PromptSet(examples),
            model.path or model.name,
            settings,
        )
        self._follow(job, take)
        return True

    # ------------------------------------------------------------ results

    def _show(self, kept: Kept, result: Result) -> None:
        """Show an image that was segmented again."""
        step = _step_of(kept)
        if not self._is_open(kept) or result.labels.shape != expected_shape(step):
            return
        if kept is self._first and self._is_overturned(kept, result):
            return
        result = replace(result, recipe=recipe_with_plane(result.recipe, step))
        if self._task.correction is None:  # the labels are there already
            self.layers.results.keep(
                kept.layer, kept.source, kept.plane, result, kept.tile
            )
            return
        before = np.array(kept.layer.data)
        with self.layers.journal.within(self._task.correction):
            layer, _ = self.layers.show(step, result)
        self._count(kept, before, np.asarray(layer.data))

    def _is_overturned(self, kept: Kept, result: Result) -> bool:
        """Return whether new examples overturn an image; they are switched off then."""
        items = [i for i in self._task.items if i.enabled and not i.negative]
        if not items:
            return False
        decided = _decided(kept)
        at = decided if decided.shape == kept.maps.foreground.shape else None
        if not overturns(kept.maps, result.maps, at):
            return False
        for item in items:
            self.book.update(item.id, enabled=False)
        self._task.note = SWITCHED_OFF
        self._queue.left.insert(0, kept)
        return True

    def _show_split(
        self, kept: Kept, labels: np.ndarray, options: dict[str, Any]
    ) -> None:
        """Show an image whose objects were made anew."""
        if not self._is_open(kept):
            return
        before = np.array(kept.layer.data)
        assert self._task.correction is not None
        with self.layers.journal.within(self._task.correction):
            self.layers.show_again(kept, labels, options)
        self._count(kept, before, np.asarray(kept.layer.data))

    def _is_open(self, kept: Kept) -> bool:
        return {kept.layer, kept.source.layer} <= set(self.layers.viewer.layers)

    def _count(self, kept: Kept, before: np.ndarray, after: np.ndarray) -> None:
        """Count what changed in an image, and mark it."""
        task = self._task
        gone = new = 0
        if before.shape == after.shape and before.size <= MAX_COUNTED:
            gone, new = changed_objects(before, after, _decided(kept))
        if gone or new:
            task.gone += gone
            task.new += new
            task.images.add(kept.source.layer.unique_id)
            if kept is not self._first:
                self.view.mark(kept.source.layer)
        if task.said:
            more = FOLLOWING if self._queue else ""
            self.runs.view.say(task.text() + more)


def _step_of(kept: Kept) -> Step:
    """Return what of an image a result shows."""
    return Step(kept.source, kept.plane, kept.tile)


def _decided(kept: Kept) -> np.ndarray:
    """Return where the user has decided on a result, in the shape of its layer."""
    source = kept.source
    decided = np.zeros(kept.layer.data.shape, bool)
    planes = list(all_planes(source)) if kept.plane is None else [kept.plane]
    for plane in planes:
        fixed = fixed_on(source, plane)
        if fixed is not None:
            seen = SeenPlane(kept, plane)
            part = fixed[seen.window] != UNKNOWN
            decided[seen.region] = seen.expanded(part)
    return decided
