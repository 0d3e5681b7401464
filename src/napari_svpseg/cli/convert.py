"""``svpseg convert``: labels from one format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import show
from .options import AxesText, Overwrite


def convert(
    source: Annotated[
        Path, typer.Argument(help="Labels: TIFF, PNG, npy, ROIs, GeoJSON, Zarr.")
    ],
    target: Annotated[
        Path, typer.Argument(help="File to write; its end says the format.")
    ],
    like: Annotated[
        Path | None,
        typer.Option("--like", help="Their image: shape, pixel size, intensities."),
    ] = None,
    axes: AxesText = None,
    overwrite: Overwrite = False,
) -> None:
    """Write labels in another format.

    The end of the name says which: .ome.tif, .tif, .png, .npy, _seg.npy (Cellpose),
    .zip (ImageJ ROIs), .geojson (QuPath), .csv (measurements), .zarr. Outlines do not
    say how large their image is: --like names it.
    """
    from ..workflows.convert_labels import convert_labels

    show(convert_labels(source, target, like, axes=axes, overwrite=overwrite))
