"""``svpseg train-tags``: a model of classes from image-level tags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.annotation.image_tags import TagTrainingSettings
from .console import end_line, plural, progress_line, say, show
from .options import (
    DeviceName,
    Overwrite,
    Resume,
    as_words,
    check_model,
    settings_options,
)


@settings_options(TagTrainingSettings)
def train_tags(
    folder: Annotated[Path, typer.Argument(help="Folder with the images.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Model folder to write.")
    ],
    tags: Annotated[
        Path | None,
        typer.Option(
            help="Table of file, class, ...; by default folders are the classes."
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: DeviceName = "auto",
    start_from: Annotated[
        str, typer.Option(help="Model whose encoder is the start.")
    ] = "svp",
    **settings: Any,
) -> None:
    """Train a model of classes from tags: which image holds which class."""
    from .. import api
    from ..io.tag_files import read_tags, tags_from_folders

    try:
        chosen = TagTrainingSettings.from_dict(
            {**settings, "classes": as_words(settings["classes"]) or None}
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    check_model(start_from)
    given = tags_from_folders(folder) if tags is None else read_tags(tags)
    result = api.train_from_tags(
        folder,
        given,
        settings=chosen,
        output=output,
        device=device,
        start_from=start_from,
        resume=resume,
        overwrite=overwrite,
        on_progress=progress_line("train-tags"),
    )
    end_line()
    for note in result.notes:
        say(note)
    show(
        f"{result.model}: {', '.join(chosen.classes or given.classes)}; "
        f"a bank of {plural(len(result.bank), 'prompt')}, {result.seconds:.0f} s"
    )
