"""The tile loop: a network run on the tiles of a plane, in memory or for files.

`predict` collects the tiles of a plane in memory. `workflows.segment_large` stores each
tile on the disk as bytes, and reads the tiles of a window back with `blend`. Both run
`run_tiles`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...core.labels.blocks import Window
from ...core.progress import Progress, ignore_progress
from ...core.side_by_side import in_order
from .tiling import Place, ScaledQuery, Span, TileGrid, to_query

Array = np.ndarray
FlatTile = tuple[float, ...]
"""Shape and value of each channel of a tile of a single value."""

KEPT_FLAT = 8
"""Answers to tiles of a single value that are kept."""

CERTAIN = 255
"""Integer that stores a probability of 1."""


def run_tiles(
    query: ScaledQuery,
    grid: TileGrid,
    places: Sequence[Place],
    forward: Callable[[Tensor], Tensor],
    take: Callable[[Place, Array], None],
    *,
    batch: int = 1,
    at_once: int = 1,
    flat: dict[FlatTile, Tensor] | None = None,
    on_progress: Progress = ignore_progress,
) -> None:
    """Run a network on some tiles of a plane, in the order of ``places``.

    The next tiles are read while the network works on these. Tiles of a single value,
    such as the glass beside a tissue, are computed once.

    Parameters
    ----------
    query : ScaledQuery
    grid : TileGrid
    places : sequence of (int, int)
        Which tiles.
    forward : callable
        From (B, 3, H, W) to probabilities (B, M, H, W).
    take : callable
        Gets the place of a tile and its maps, (M, rows, columns) float32 at the pixels
        of the query.
    batch : int
        Tiles that are run together.
    at_once : int
        Batches that are run side by side, each in a thread of its own; with 1, in this
        thread. Nothing else changes: `take` gets the tiles in the same order.
    flat : dict, optional
        Answers to tiles of a single value, kept from call to call.
    on_progress : callable
        ``(done, total, message)``, called after each batch; may raise `Cancelled`.
    """
    known = {} if flat is None else flat
    batches = [places[i : i + batch] for i in range(0, len(places), batch)]
    done, total, message = 0, len(places), "Segmenting"
    on_progress(done, total, message)
    if not batches:
        return
    with ExitStack() as ended:

        def pool(n: int) -> ThreadPoolExecutor:
            made = ThreadPoolExecutor(n)
            # a run that stops does not wait for the tiles that are in work
            ended.callback(made.shutdown, wait=False, cancel_futures=True)
            return made

        answer = partial(_answers, forward=forward, known=known)
        read = in_order(pool(1), partial(_read, query, grid), batches, at_once)
        answers = (
            map(answer, read)
            if at_once == 1
            else in_order(pool(at_once), answer, read, at_once)
        )
        for some, pieces in zip(batches, answers, strict=True):
            for at, piece in zip(some, pieces, strict=True):
                take(at, to_query(piece, *grid.spans_at(at), query.scale))
            done += len(some)
            on_progress(done, total, message)


def _read(query: ScaledQuery, grid: TileGrid, places: Sequence[Place]) -> Tensor:
    spans = [grid.spans_at(at) for at in places]
    return torch.stack(
        [query.read((y.start, y.stop), (x.start, x.stop)) for y, x in spans]
    )


def _answers(
    pieces: Tensor,
    forward: Callable[[Tensor], Tensor],
    known: dict[FlatTile, Tensor],
) -> list[Tensor]:
    """Return the maps of each piece; ``known`` holds those of single values."""
    kept = dict(known)  # other threads may change it meanwhile
    keys = [_flat_key(piece) for piece in pieces]
    new = [
        i
        for i, key in enumerate(keys)
        if key is None or (key not in kept and key not in keys[:i])
    ]
    made = dict(zip(new, forward(pieces[new]), strict=True)) if new else {}
    fresh = {key: made[i] for i in new if (key := keys[i]) is not None}
    if fresh and len(known) >= KEPT_FLAT:
        known.clear()
    known.update(fresh)
    kept |= fresh
    return [
        made[i] if key is None or i in made else kept[key] for i, key in enumerate(keys)
    ]


def _flat_key(piece: Tensor) -> FlatTile | None:
    """Return shape and value of each channel of a tile of one value, else None."""
    low = piece.amin((1, 2))
    if not bool((low == piece.amax((1, 2))).all()):
        return None
    return (*piece.shape, *low.tolist())


# --------------------------------------------------------------- tiles on the disk
def as_bytes(maps: Array) -> Array:
    """Return probabilities in [0, 1] as uint8, as `blend` reads them."""
    return np.round(np.clip(maps, 0, 1) * CERTAIN).astype(np.uint8)


def blend(grid: TileGrid, read: Callable[[Place], Array], window: Window) -> Array:
    """Return the maps (M, H, W) float32 in [0, 1] of a window of a plane.

    Tiles are added up in the order of the grid, so that a pixel's value does not depend
    on the window it is read in.

    Parameters
    ----------
    grid : TileGrid
    read : callable
        From the place of a tile to its maps (M, rows, columns) uint8.
    window : (slice, slice)
    """
    rows, columns = window
    maps: Array | None = None
    for at in grid.touching(window):
        y, x = grid.spans_at(at)
        tile = read(at)
        if maps is None:
            size = rows.stop - rows.start, columns.stop - columns.start
            maps = np.zeros((len(tile), *size), np.float32)
        if not tile.any():
            continue
        (here_y, of_y), (here_x, of_x) = _common(y, rows), _common(x, columns)
        weights = np.outer(y.weights[of_y], x.weights[of_x]) / np.float32(CERTAIN)
        maps[:, here_y, here_x] += tile[:, of_y, of_x] * weights
    assert maps is not None  # every pixel is in a tile
    return maps


def _common(span: Span, window: slice) -> tuple[slice, slice]:
    """Return the pixels of a span in a window, as parts of the window and the span."""
    low, high = max(span.first, window.start), min(span.last, window.stop)
    return (
        slice(low - window.start, high - window.start),
        slice(low - span.first, high - span.first),
    )
