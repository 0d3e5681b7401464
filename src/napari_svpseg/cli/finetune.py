"""``svpseg finetune``: a model trained further on partial labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from .. import api
from ..core.image import ImageError
from ..core.jobs.finetune_job import FineTuneSettings
from ..core.settings import SegmentSettings
from ..workflows.segment_image import own_prompts
from .console import end_line, plural, progress_line, say
from .options import (
    AsJson,
    ChannelsText,
    Size,
    as_channels,
    as_corner,
    check_model,
    is_default,
    settings_options,
)


@settings_options(FineTuneSettings, but=("preset", "seconds", "prompts"))
def finetune(
    context: typer.Context,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(help="Images and their partial labels.", metavar="IMAGE=LABELS"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Model folder to write.")
    ] = None,
    start_from: Annotated[
        str, typer.Option(help="Model that is trained further: a name or a folder.")
    ] = "svp",
    preset: Annotated[
        str,
        typer.Option(help="quick (under a minute) or thorough: the other defaults."),
    ] = "quick",
    minutes: Annotated[
        float | None, typer.Option(help="Train at most this long.")
    ] = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            help="The labels are ordinary ones, complete inside this box of --size "
            "pixels; one for each image, in order.",
            metavar="Y X",
        ),
    ] = None,
    size: Size = 64,
    complete: Annotated[
        bool,
        typer.Option("--complete", help="Ordinary labels: 0 = background."),
    ] = False,
    training_set: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps all images and labels; used as a whole."),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(help="First learn from the images in this folder, unlabelled."),
    ] = None,
    channels: ChannelsText = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = (
        "auto"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    as_json: AsJson = False,
    **settings: Any,
) -> None:
    """Train a model further on a few partly labelled images, and check it.

    Labels: 0 = unknown, 1 = background, 2, 3, ... = objects.
    """
    if output is None:
        raise typer.BadParameter("Missing option '--output' / '-o'")
    if not pairs and training_set is None:
        raise typer.BadParameter("name images and their labels: IMAGE=LABELS")
    changed = {k: v for k, v in settings.items() if not is_default(context, k)}
    if minutes is not None:
        changed["seconds"] = 60 * minutes
    try:
        chosen = FineTuneSettings.of_preset(preset, **changed)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    check_model(start_from)
    names, images, labels, truths = _partial_labels(pairs or [], boxes, size, complete)
    result = api.finetune(
        images,
        labels,
        start_from=start_from,
        device=device,
        settings=chosen,
        output=output,
        training_set=training_set,
        unlabelled=unlabelled,
        names=names,
        channels=as_channels(channels),
        resume=resume,
        on_progress=progress_line("finetune"),
    )
    end_line()
    for note in result.notes:
        say(f"svpseg: {note}")
    rest = _scores_of_the_rest(images, labels, truths, start_from, result.model, device)
    if as_json:
        print(json.dumps(result.to_dict() | {"rest": rest}, indent=1))
        return
    print(f"before: {result.before}")
    print(f"after:  {result.after}")
    n = result.before.n_pixels
    print(f"on {n} held-back pixels, {plural(result.before.n_objects, 'whole object')}")
    for name, scores in rest.items():
        print(
            f"{name}, outside the boxes: Dice {scores['dice']:.3f}, "
            f"F1@0.5 {scores['f1']:.3f}"
        )
    print(f"kept:   {result.kept}, {result.seconds:.0f} s of training")
    print(result.model)


def _partial_labels(
    pairs: list[str], boxes: list[str] | None, size: int, complete: bool
) -> tuple[list[str], list[Any], list[Any], list[Any]]:
    """Return names, images, partial labels and labels of ``IMAGE=LABELS`` pairs.

    There are labels where boxes were given: they say more than the boxes do.
    """
    from ..core.annotation.partial_labels import checked, from_labels, merged
    from ..core.geometry import Box
    from ..io.images import read_image

    if boxes and len(boxes) != len(pairs):
        raise typer.BadParameter(
            f"got {plural(len(boxes), 'box')} for {plural(len(pairs), 'image')}"
        )
    corners = [as_corner(text) for text in boxes or []]
    found: dict[str, tuple[Any, Any]] = {}
    truths: dict[str, Any] = {}
    for n, pair in enumerate(pairs):
        image_path, sign, labels_path = pair.partition("=")
        if not (image_path and sign and labels_path):
            raise typer.BadParameter(f"give IMAGE=LABELS, got {pair!r}")
        image = read_image(image_path)
        if image.axes.stack:
            raise ImageError(
                f"{image_path}: one plane is trained on, this file has the axes "
                f"{image.axes.order}: save the plane by itself."
            )
        plane = image.axes.to_plane(np.asarray(image.array))
        labels = api.read_mask(labels_path)
        if corners:
            truths[image_path] = checked(labels, plane.shape, labels_path)
            labels = from_labels(labels, [Box(*corners[n], size)])
        elif complete:
            labels = from_labels(labels)
        labels = checked(labels, plane.shape, labels_path)
        if image_path in found:
            labels = merged(found[image_path][1], labels, image_path)
        found[image_path] = (plane, labels)
    return (
        [Path(path).name for path in found],
        [plane for plane, _ in found.values()],
        [labels for _, labels in found.values()],
        list(truths.values()),
    )


def _scores_of_the_rest(
    images: list[Any],
    partial: list[Any],
    truths: list[Any],
    start: str,
    model: str,
    device: str,
) -> dict[str, dict[str, float]]:
    """Return how both models do where labels are known but were not given."""
    from ..core.labels.metrics import dice, f1

    scores = {}
    prompts = own_prompts(model) if truths else None
    for name, asked in (("before", start), ("after", model)):
        each = []
        for image, known, truth in zip(images, partial, truths, strict=False):
            found = api.segment(
                image,
                prompts,
                asked,
                device,
                axes="YXC",
                settings=SegmentSettings(trust=False),
            ).labels
            given = known > 0
            each.append((dice(found, truth, given), f1(found, truth, 0.5, given)))
        if each:
            means = np.mean(each, axis=0)
            scores[name] = {"dice": float(means[0]), "f1": float(means[1])}
    return scores
