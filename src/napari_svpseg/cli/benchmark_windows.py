"""``svpseg benchmark-windows``: tagged windows to try ``svpseg train-tags`` on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.geometry import MAX_BOX_SIZE, MIN_BOX_SIZE
from ..core.settings import MAX_SEED
from .console import plural, show
from .options import Overwrite


def benchmark_windows(
    data: Annotated[Path, typer.Argument(help="Data folder whose labels are classes.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for windows and tags.csv.")
    ],
    side: Annotated[
        int,
        typer.Option(
            help="Side of a window in pixels.", min=MIN_BOX_SIZE, max=MAX_BOX_SIZE
        ),
    ] = 64,
    number: Annotated[
        int, typer.Option(help="Windows at most.", min=2, max=1_000_000)
    ] = 120,
    seed: Annotated[
        int, typer.Option(help="Seed of the places.", min=0, max=MAX_SEED)
    ] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Cut tagged windows out of images with masks, to try train-tags on."""
    from ..benchmark.tag_windows import write_windows
    from ..io.datasets import read_dataset

    windows = read_dataset(data)
    written = write_windows(windows, output, side, number, seed, overwrite=overwrite)
    show(
        f"{output / 'tags.csv'}: {plural(len(written), 'window')}; "
        + ", ".join(f"{c}: {len(written.images_of(c))}" for c in written.classes)
        + f", none: {sum(not held for held in written.values())}"
    )
