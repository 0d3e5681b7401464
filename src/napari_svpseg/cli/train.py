"""``svpseg train``: a method from a config, or from images without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.settings import MAX_MINUTES
from .console import end_line, progress_line, show
from .options import DeviceName, Overwrite, Resume

NEEDS_OUTPUT = "--self-supervised needs --output FOLDER"
ONE_OR_THE_OTHER = "give a config, or --self-supervised FOLDER"


def train(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file, see configs/.")
    ] = None,
    self_supervised: Annotated[
        Path | None,
        typer.Option(
            "--self-supervised",
            metavar="FOLDER",
            help="Learn from unlabelled images instead of a config.",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Method of a self-supervised training.")
    ] = "alpnet",
    data: Annotated[
        Path | None, typer.Option(help="Folder with the data sets of the config.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Model folder to write.")
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Stop after this time; resume later.", min=0.01, max=MAX_MINUTES
        ),
    ] = None,
    device: DeviceName = "auto",
    start_from: Annotated[
        str | None,
        typer.Option(help="Model whose weights are the start; none: untrained."),
    ] = None,
) -> None:
    """Train a method from a config, or on a folder without labels; both resumable."""
    from ..workflows.self_supervised import train_self_supervised
    from ..workflows.training import train_from_config

    if self_supervised is not None and config is None:
        if output is None:
            raise typer.BadParameter(NEEDS_OUTPUT)
        card = train_self_supervised(
            self_supervised,
            output,
            method=method,
            minutes=minutes or 5.0,
            start_from=start_from,
            device=device,
            resume=resume,
            overwrite=overwrite,
            on_progress=progress_line("train"),
        )
    elif config is not None and self_supervised is None:
        card = train_from_config(
            config,
            data=data,
            output=output,
            resume=resume,
            minutes=minutes,
            device=device,
            start_from=None if start_from == "none" else start_from,
            overwrite=overwrite,
            on_progress=progress_line("train"),
        )
    else:
        raise typer.BadParameter(ONE_OR_THE_OTHER)
    end_line()
    show(f"{card.name}: {card.path}")
