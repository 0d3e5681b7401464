"""Correct a result by points: `svpseg.correct`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..core.annotation.corrections import (
    CorrectionError,
    Point,
    fixed_by,
    negative_example,
    object_at,
    overturns,
    positive_example,
    with_fixed,
)
from ..core.annotation.proposals import propose_object
from ..core.planes import Planes
from ..core.progress import Progress
from ..core.prompt import UNKNOWN, Prompt, Prompts, PromptSet, as_prompt_set
from ..core.result import Result
from ..core.settings import PostprocessSettings, SegmentSettings, changed
from .segment_image import Model, prepare, segment

NOT_ONE_PLANE = "correct takes one plane, this result has the shape {shape}"
NOTHING = "Nothing to correct: name a point with not_this or this_too."
ONE_CLASS_LABELS = "Only labels of objects can be corrected, these are classes."
OTHER_IMAGE = "image and result differ in shape: {image} and {result}"
HERE_ONLY = (
    "{names}: used in this image only, as the other examples would come out worse "
    "with it"
)
OVERTURNS = (
    "{names}: the object is added, but not used as an example, as most of this result "
    "would change with it"
)


@dataclass(frozen=True, eq=False)
class Correction:
    """Prompts that have grown by corrections, and the new result of their image.

    Parameters
    ----------
    prompts : PromptSet
        For all images: those from before, and the new examples that agree with them.
    result : Result
        Of this image. What was corrected in it is as it was corrected.
    here_only : PromptSet
        Examples that make others worse, and apply to this image only; with those of
        earlier corrections.
    fixed : (Y, X) int32 array
        What has been corrected in this image: -1 = the model decides, 0 = no object,
        1, 2, ... = objects.
    added : tuple of Prompt
        The new examples, in the order in which they were given.
    notes : tuple of str
        What the caller should know, such as examples that apply here only.
    """

    prompts: PromptSet
    result: Result
    here_only: PromptSet
    fixed: np.ndarray
    added: tuple[Prompt, ...] = ()
    notes: tuple[str, ...] = ()


def correct(
    image: Any,
    prompts: Prompts,
    result: Result,
    *,
    not_this: Sequence[Point] = (),
    this_too: Sequence[Point | ArrayLike] = (),
    here_only: Prompts = (),
    fixed: np.ndarray | None = None,
    model: Model | None = None,
    device: str | None = None,
    source: str = "",
    on_progress: Progress | None = None,
) -> Correction:
    """Teach by correcting: return grown prompts and the new result of the image.

    Each point becomes an ordinary prompt. An example that makes the earlier ones worse
    is used in this image only, and one that overturns most of the result is not used.

    Parameters
    ----------
    image : (Y, X) or (Y, X, C) array
        The image of the result, with all its channels.
    prompts : Prompt, PromptSet or iterable of Prompt
        Those that the result was made with.
    result : Result
        Of `segment`, or of the correction before this one.
    not_this : sequence of (y, x)
        Points on objects of the result that are wrong.
    this_too : sequence of (y, x) or of (Y, X) bool array
        Points on objects that were missed; or their pixels, where the outline is known.
    here_only : iterable of Prompt
        Of the correction before this one.
    fixed : (Y, X) int array, optional
        Of the correction before this one.
    model : str, path or LoadedModel, optional
        By default that of the result.
    device : str, optional
    source : str
        Name of the image, stored with the new prompts.
    on_progress : callable, optional
        As in `segment`.

    Returns
    -------
    Correction

    Raises
    ------
    CorrectionError
        If a point lies outside the image, or there is no object, or already one.
    ImageError, PromptError, ValueError
        As in `segment`.
    """
    from ..engine.inference.cache import keep_query_features

    keep_query_features()  # the next correction is of the same image
    prompts, recipe = as_prompt_set(prompts), result.recipe
    usable = prompts.usable()
    _check(result, not_this, this_too)
    planes = Planes.of(
        image,
        usable,
        axes=recipe.axes,
        channels=recipe.channels,
        rgb=usable[0].rgb or None,
    )
    plane = np.asarray(planes.view(planes.indices[0])[:, :])
    if plane.shape[:2] != result.labels.shape:
        raise CorrectionError(
            OTHER_IMAGE.format(image=plane.shape[:2], result=result.labels.shape)
        )
    examples, wrong, right = _examples(
        plane, usable, result, not_this, this_too, source, len(prompts)
    )
    run = changed(SegmentSettings.from_dict(recipe.segment), device=device)
    here = as_prompt_set(here_only)
    agreeing, others = split_by_agreement(
        usable, PromptSet(examples), recipe.model if model is None else model, run
    )

    def found_with(agreeing: PromptSet, others: PromptSet) -> Result:
        return segment(
            image,
            prompts.added(*agreeing, *here, *others),
            recipe.model if model is None else model,
            axes=recipe.axes,
            channels=recipe.channels,
            intensities=np.asarray(recipe.intensities),
            settings=run,
            postprocess=PostprocessSettings.from_dict(recipe.postprocess),
            on_progress=on_progress,
        )

    new, notes = found_with(agreeing, others), []
    fixed = fixed_by(fixed, new.labels.shape, wrong, right)
    if right and overturns(result.maps, new.maps, fixed != UNKNOWN):
        missed = [p for p in examples if not p.is_negative]
        notes.append(OVERTURNS.format(names=_names(missed)))
        agreeing, others = (
            PromptSet(p for p in found if p.is_negative) for found in (agreeing, others)
        )
        new = found_with(agreeing, others)
    if len(others):
        notes.append(HERE_ONLY.format(names=_names(others)))
    return Correction(
        prompts.added(*agreeing),
        replace(new, labels=with_fixed(new.labels, fixed)),
        here.added(*others),
        fixed,
        tuple(examples),
        tuple(notes),
    )


def _names(prompts: Iterable[Prompt]) -> str:
    return ", ".join(p.name for p in prompts)


def split_by_agreement(
    prompts: PromptSet,
    examples: PromptSet,
    model: Model,
    settings: SegmentSettings | None = None,
) -> tuple[PromptSet, PromptSet]:
    """Return the examples that may be used in all images, and the others.

    Parameters
    ----------
    prompts : PromptSet
        Usable; those before the examples.
    examples : PromptSet
        New ones, in the order in which they were made.
    model : str, path or LoadedModel
    settings : SegmentSettings, optional
    """
    from ..engine.inference.agreement import verdicts

    run = SegmentSettings.of(settings)
    loaded, where = prepare(model, run.device)
    found = verdicts(prompts, examples, loaded.network, where, resize=run.scale_objects)
    agrees = [verdict.agrees for verdict in found]
    return (
        PromptSet(p for p, yes in zip(examples, agrees, strict=True) if yes),
        PromptSet(p for p, yes in zip(examples, agrees, strict=True) if not yes),
    )


def _check(result: Result, not_this: Sequence[Any], this_too: Sequence[Any]) -> None:
    """Raise `CorrectionError` where nothing can be corrected."""
    if not len(not_this) and not len(this_too):
        raise CorrectionError(NOTHING)
    if result.labels.ndim != 2:
        raise CorrectionError(NOT_ONE_PLANE.format(shape=result.labels.shape))
    if result.recipe.postprocess.get("labels") == "classes":
        raise CorrectionError(ONE_CLASS_LABELS)


def _examples(
    plane: np.ndarray,
    prompts: PromptSet,
    result: Result,
    not_this: Sequence[Point],
    this_too: Sequence[Any],
    source: str,
    n: int,
) -> tuple[list[Prompt], list[np.ndarray], list[np.ndarray]]:
    """Return the new prompts, and the pixels of the wrong and the missed objects."""
    intensities = np.asarray(result.recipe.intensities)
    examples: list[Prompt] = []
    wrong, right = [], []
    ids = dict.fromkeys(object_at(result.labels, point) for point in not_this)
    for found in ids:
        wrong.append(result.labels == found)
        examples.append(
            negative_example(
                plane,
                result.labels,
                found,
                prompts,
                intensities=intensities,
                name=f"not this {n + len(examples) + 1}",
                source=source,
            )
        )
    for missed in this_too:
        outline = np.asarray(missed)
        if outline.ndim == 1:
            point = (float(outline[0]), float(outline[1]))
            outline = propose_object(result.maps, result.labels, point, plane).mask
        right.append(outline > 0)
        examples.append(
            positive_example(
                plane,
                result.labels,
                outline,
                prompts,
                intensities=intensities,
                name=f"this too {n + len(examples) + 1}",
                source=source,
            )
        )
    return examples, wrong, right
