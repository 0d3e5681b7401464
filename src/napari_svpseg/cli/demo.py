"""``svpseg demo``: the main job on real data, with or without a window."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from .options import DeviceName, ModelName


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for picture and labels.")
    ] = Path("demo-output"),
    no_gui: Annotated[
        bool, typer.Option("--no-gui", help="Open no window at all.")
    ] = False,
    device: DeviceName = "auto",
    model: ModelName = "svp",
) -> int:
    """Do the main job on real data, end to end, and show it in napari."""
    from ..workflows.demo import run

    tell = functools.partial(print, flush=True)
    return run(output, gui=not no_gui, device=device, model=model, say=tell)
