"""``svpseg finetune``: a model trained further on partial labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.geometry import Box
from ..core.jobs.finetune_job import FineTuneSettings
from ..core.settings import MAX_MINUTES
from .console import end_line, plural, progress_line, say, show, show_json
from .options import (
    AsJson,
    ChannelsText,
    DeviceName,
    Overwrite,
    Resume,
    Size,
    as_channels,
    as_corner,
    check_model,
    is_default,
    settings_options,
)

IMAGE_AND_LABELS = "name images and their labels: IMAGE=LABELS"
SEVERAL_PAIRS = "{pair!r} can be read as {readings}: rename one of the files"


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
        float | None,
        typer.Option(help="Train at most this long.", min=0.01, max=MAX_MINUTES),
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
        bool | None,
        typer.Option(
            "--complete/--partial",
            help="Ordinary labels (0 = background), or partial ones (0 = unknown, 1 = "
            "background). By default partial ones, unless they look ordinary.",
        ),
    ] = None,
    training_set: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps all images and labels; used as a whole."),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(help="First learn from the images in this folder, unlabelled."),
    ] = None,
    channels: ChannelsText = None,
    device: DeviceName = "auto",
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **settings: Any,
) -> None:
    """Train a model further on a few partly labelled images, and check it.

    Labels: 0 = unknown, 1 = background, 2, 3, ... = objects.
    """
    from .. import api
    from ..workflows.finetune_files import LabelledFiles, scores_outside_boxes

    if output is None:
        raise typer.BadParameter("Missing option '--output' / '-o'")
    if not pairs and training_set is None:
        raise typer.BadParameter(IMAGE_AND_LABELS)
    changed = {k: v for k, v in settings.items() if not is_default(context, k)}
    if minutes is not None:
        changed["seconds"] = 60 * minutes
    try:
        chosen = FineTuneSettings.of_preset(preset, **changed)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    check_model(start_from)
    paths, corners = _pairs(pairs or [], boxes, size)
    taken = as_channels(channels, [image for image, _ in paths])
    files = LabelledFiles.read(
        paths,
        corners,
        complete=complete,
        classes=chosen.semantic,
        on_read=say,
    )
    result = api.finetune(
        files.images,
        files.labels,
        start_from=start_from,
        device=device,
        settings=chosen,
        output=output,
        training_set=training_set,
        unlabelled=unlabelled,
        names=files.names,
        channels=taken,
        resume=resume,
        overwrite=overwrite,
        on_progress=progress_line("finetune"),
    )
    end_line()
    for note in result.notes:
        say(note)
    rest = scores_outside_boxes(files, start_from, result.model, device)
    if as_json:
        show_json(result.to_dict() | {"rest": rest})
        return
    show(f"before: {result.before}")
    show(f"after:  {result.after}")
    n = result.before.n_pixels
    objects = plural(result.before.n_objects, "whole object")
    show(f"on {n} validation pixels, {objects}")
    for name, scores in rest.items():
        show(
            f"{name}, outside the boxes: Dice {scores['dice']:.3f}, "
            f"F1@0.5 {scores['f1']:.3f}"
        )
    show(f"kept:   {result.kept}, {result.seconds:.0f} s of training")
    show(result.model)


def _pairs(
    pairs: list[str], boxes: list[str] | None, size: int
) -> tuple[list[tuple[str, str]], list[Box]]:
    """Return the paths of ``IMAGE=LABELS`` pairs, and the boxes in the images."""
    if boxes and len(boxes) != len(pairs):
        raise typer.BadParameter(
            f"got {plural(len(boxes), 'box')} for {plural(len(pairs), 'image')}"
        )
    found = []
    for pair in pairs:
        found.append(_pair(pair))
    return found, [Box(*as_corner(text), size) for text in boxes or []]


def _pair(text: str) -> tuple[str, str]:
    """Return image and labels of ``IMAGE=LABELS``; file names may hold ``=`` too.

    Of several places to divide the text, that one is taken where both files exist.
    """
    from ..io.images import split_series
    from ..io.ome_zarr import is_zarr

    words = text.split("=")
    pairs = [("=".join(words[:i]), "=".join(words[i:])) for i in range(1, len(words))]
    pairs = [pair for pair in pairs if all(pair)]
    if not pairs:
        raise typer.BadParameter(f"{IMAGE_AND_LABELS}, got {text!r}")

    def exist(names: tuple[str, str]) -> int:
        return sum(is_zarr(n) or split_series(n)[0].is_file() for n in names)

    if len(pairs) == 1:
        return pairs[0]
    best = max(exist(pair) for pair in pairs)
    likely = [pair for pair in pairs if exist(pair) == best]
    if best == 2 and len(likely) > 1:
        readings = " or ".join(f"{image} with {labels}" for image, labels in likely)
        raise typer.BadParameter(SEVERAL_PAIRS.format(pair=text, readings=readings))
    return likely[0]
