"""``svpseg tags`` and ``svpseg weak``: tagged windows, a model of tags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import api
from ..core.annotation.image_tags import TagTrainingSettings
from ..core.geometry import MIN_BOX_SIZE
from .console import end_line, plural, progress_line, say
from .options import as_words, settings_options


def tags(
    data: Annotated[Path, typer.Argument(help="Data folder whose labels are classes.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for windows and tags.csv.")
    ],
    side: Annotated[
        int, typer.Option(help="Side of a window in pixels.", min=MIN_BOX_SIZE)
    ] = 64,
    number: Annotated[int, typer.Option(help="Windows at most.", min=2)] = 120,
    seed: Annotated[int, typer.Option(help="Of the places.", min=0)] = 0,
) -> None:
    """Cut tagged windows out of pictures with masks, to try `svpseg weak` on them."""
    from ..benchmark.tag_windows import write_windows
    from ..io.datasets import read_dataset

    written = write_windows(read_dataset(data), output, side, number, seed)
    print(
        f"{output / 'tags.csv'}: {plural(len(written), 'window')}; "
        + ", ".join(f"{c}: {len(written.images_of(c))}" for c in written.classes)
        + f", none: {sum(not held for held in written.values())}"
    )


@settings_options(TagTrainingSettings)
def weak(
    folder: Annotated[Path, typer.Argument(help="Folder with the images.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Model folder to write.")
    ],
    tags: Annotated[
        Path | None,
        typer.Option(
            help="Table of file, class, ...; by default the names of the folders tell."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = (
        "auto"
    ),
    start_from: Annotated[
        str, typer.Option(help="Model whose encoder is the start.")
    ] = "svp",
    **settings: Any,
) -> None:
    """Train a model of classes from tags: which image holds what."""
    from ..io.tag_files import read_tags, tags_from_folders

    try:
        chosen = TagTrainingSettings.from_dict(
            {**settings, "classes": as_words(settings["classes"]) or None}
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    given = tags_from_folders(folder) if tags is None else read_tags(tags)
    result = api.train_from_tags(
        folder,
        given,
        settings=chosen,
        output=output,
        device=device,
        start_from=start_from,
        resume=resume,
        on_progress=progress_line("weak"),
    )
    end_line()
    for note in result.notes:
        say(f"svpseg: {note}")
    print(
        f"{result.model}: {', '.join(chosen.classes or given.classes)}; "
        f"a bank of {plural(len(result.bank), 'prompt')}, {result.seconds:.0f} s"
    )
