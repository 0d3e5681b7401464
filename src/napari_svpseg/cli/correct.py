"""``svpseg correct``: grow a prompt file by pointing at mistakes in an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import plural, progress_line, say, show
from .options import (
    AxesText,
    ChannelsText,
    DeviceName,
    ModelName,
    Overwrite,
    as_channels,
    as_corner,
    check_model,
)

NO_POINT = "name a point: --not-this Y X or --this-too Y X"
TWO_NUMBERS = "a point is given by two whole numbers, Y X"

Points = Annotated[
    list[str] | None,
    typer.Option("--not-this", help="Point on a wrong object.", metavar="Y X"),
]

MissedPoints = Annotated[
    list[str] | None,
    typer.Option("--this-too", help="Point on a missed object.", metavar="Y X"),
]


def correct(
    image: Annotated[Path, typer.Argument(help="Image of one plane.")],
    prompts: Annotated[
        Path, typer.Option("--prompts", help="Prompt file to start from.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Prompt file to write.")
    ],
    not_this: Points = None,
    this_too: MissedPoints = None,
    model: ModelName = "svp",
    device: DeviceName = "auto",
    axes: AxesText = None,
    channels: ChannelsText = None,
    overwrite: Overwrite = False,
) -> None:
    """Add prompts by pointing at wrong and missed objects of an image.

    The image is segmented with the prompts; points lie on objects of that result, or
    where it misses one. Examples that make the others worse are written switched off.
    """
    from dataclasses import replace

    from ..core.image import ImageError
    from ..engine.inference.cache import keep_query_features
    from ..io.ome_zarr import read_any
    from ..io.ownership import check_no_inputs, check_replaceable
    from ..io.prompt_files import NOT_ONE_PLANE, load_prompts, save_prompts, with_end
    from ..workflows.correct_image import correct as correct_image
    from ..workflows.segment_image import segment

    wrong, missed = _points(not_this), _points(this_too)
    if not wrong and not missed:
        raise typer.BadParameter(NO_POINT)
    check_model(model)
    target = with_end(output)
    check_no_inputs([target], [image, prompts])
    check_replaceable(target, overwrite)
    given = load_prompts(prompts)
    source = read_any(image, axes)
    if source.axes.stack:
        raise ImageError(NOT_ONE_PLANE.format(path=image, axes=source.axes.order))
    keep_query_features()  # the image is segmented twice, but encoded once
    result = segment(
        source.array,
        given.usable(),
        model,
        device,
        axes=source.axes.order,
        channels=as_channels(channels, [image]),
        rgb=source.rgb or None,
        on_progress=progress_line("segment"),
    )
    done = correct_image(
        source.array,
        given,
        result,
        not_this=wrong,
        this_too=missed,
        source=str(image),
        on_progress=progress_line("correct"),
    )
    off = [replace(prompt, enabled=False) for prompt in done.here_only]
    save_prompts(done.prompts.added(*off), target, overwrite=overwrite)
    for note in done.notes:
        say(note)
    before, after = result.n_objects, done.result.n_objects
    grown = plural(len(done.prompts) + len(off), "prompt")
    show(f"{target}: {grown}; {image.name}: {plural(after, 'object')} (was {before})")


def _points(texts: list[str] | None) -> list[tuple[int, int]]:
    """Return the points (y, x) of texts such as ``16,40``."""
    try:
        return [as_corner(text) for text in texts or []]
    except typer.BadParameter as error:
        raise typer.BadParameter(TWO_NUMBERS) from error
