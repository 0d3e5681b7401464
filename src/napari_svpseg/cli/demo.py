"""``svpseg demo``: the main job on real data, with or without a window."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from .console import show
from .options import DeviceName, ModelName, Overwrite

NO_NAPARI = (
    'napari is not installed: pip install "napari-svpseg[all]", or use --no-gui.'
)


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for pictures and labels.")
    ] = Path("demo-output"),
    no_gui: Annotated[
        bool, typer.Option("--no-gui", help="Open no window at all.")
    ] = False,
    device: DeviceName = "auto",
    model: ModelName = "svp",
    overwrite: Overwrite = False,
) -> None:
    """Do the main job on real data, end to end, and show it in napari."""
    from ..workflows.demo_run import DemoSettings, run_without_window, write_summary

    chosen = DemoSettings(output, device, model, overwrite, show)
    if no_gui:
        outcomes = run_without_window(chosen)
    else:
        if find_spec("napari") is None:
            raise typer.BadParameter(NO_NAPARI)
        from ..plugin.demo_window import run_in_window

        outcomes = run_in_window(chosen)
    write_summary(outcomes, chosen)
