"""``svpseg series``: the images that a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import show, show_json
from .options import AsJson


def list_series(
    files: Annotated[list[Path], typer.Argument(help="Image files or Zarr groups.")],
    as_json: AsJson = False,
) -> None:
    """List the images inside files: series, scenes, positions, fields, datasets."""
    from ..io.image_series import names_of_images

    found = {str(path): names_of_images(path) for path in files}
    if as_json:
        show_json(found)
        return
    for path, names in found.items():
        for name in names:
            show(f"{path}: {name}")
