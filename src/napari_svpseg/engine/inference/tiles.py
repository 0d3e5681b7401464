"""The parts of a run over a large image, and who does them: this process, or workers.

Maps are predicted on one fixed grid of tiles, labels are made on one fixed grid of
blocks (`core.labels.blocks`). A task does some of them; which ones, where and in which
order has no influence on the result. What tasks read and write are arrays that they
open themselves, so nothing large goes through a scheduler.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, product
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.labels.blocks import Window
from ...core.progress import Progress, ignore_progress
from ..jobs.allocator import keep_freed_memory
from ..jobs.job import JobError
from ..jobs.processors import physical_cores

if TYPE_CHECKING:  # tiling imports torch
    from .tiling import ScaledQuery, Span

Array = np.ndarray
LOOPBACK = "127.0.0.1"
CONNECT_S = 15.0
LOOK_EVERY_S = 0.2
"""How often a run looks whether it is to stop."""

SUBMITTED_PER_WORKER = 4
"""Tasks that wait at a worker; more would only fill the scheduler."""

WORKER_BYTES = 1_500_000_000
"""Memory a worker of this machine may need."""

UNWATCHED = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1 s",
}
"""Dask's own statistics, at some percent of each core; nobody here looks at them."""

KEPT_FLAT = 8
"""Answers to tiles of a single value that are kept."""

CERTAIN = 255
"""What a probability of 1 is stored as."""


@dataclass(frozen=True, eq=False)
class TileGrid:
    """The fixed grid of tiles on which a plane is predicted.

    Parameters
    ----------
    rows, columns : list of Span
        From `tiling.spans` of the whole plane.
    """

    rows: list[Span]
    columns: list[Span]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of tiles down and across."""
        return len(self.rows), len(self.columns)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Query pixels that are enough for each tile."""
        high, wide = (
            max(len(span.weights) for span in spans)
            for spans in (self.rows, self.columns)
        )
        return high, wide

    def touching(self, window: Window) -> list[tuple[int, int]]:
        """Return the places of the tiles that have pixels in a window, in order."""
        rows, columns = (
            [i for i, s in enumerate(spans) if s.first < w.stop and s.last > w.start]
            for spans, w in zip((self.rows, self.columns), window, strict=True)
        )
        return list(product(rows, columns))

    def blend(self, read: Callable[[tuple[int, int]], Array], window: Window) -> Array:
        """Return the maps (M, H, W) float32 in [0, 1] of a window.

        Tiles are added up in the order of the grid, so that a pixel's value does not
        depend on the window it is read in.

        Parameters
        ----------
        read : callable
            From the place of a tile to its maps (M, rows, columns) uint8.
        window : (slice, slice)
        """
        rows, columns = window
        maps: Array | None = None
        for at in self.touching(window):
            y, x = self.rows[at[0]], self.columns[at[1]]
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


def predict_tiles(
    query: ScaledQuery,
    grid: TileGrid,
    places: Sequence[tuple[int, int]],
    forward: Callable[[Any], Any],
    write: Callable[[tuple[int, int], Array], None],
    batch: int = 1,
    flat: dict[Any, Any] | None = None,
) -> None:
    """Predict some tiles of a plane; the next are read while these are computed.

    Tiles of a single value, such as those beside a tissue, are computed once.

    Parameters
    ----------
    query : ScaledQuery
    grid : TileGrid
    places : sequence of (int, int)
    forward : callable
        From (B, 3, H, W) to probabilities (B, M, H, W).
    write : callable
        Gets the place of a tile and its maps (M, rows, columns) uint8.
    batch : int
        Tiles that are run together.
    flat : dict, optional
        Answers to tiles of a single value, kept from call to call.
    """
    import torch

    from .predict import to_query

    def read(some: Sequence[tuple[int, int]]) -> Any:
        return torch.stack(
            [
                query.read(
                    (grid.rows[i].start, grid.rows[i].stop),
                    (grid.columns[j].start, grid.columns[j].stop),
                )
                for i, j in some
            ]
        )

    known = {} if flat is None else flat

    def answers(pieces: Any) -> list[Any]:
        keys = [_flat_key(piece) for piece in pieces]
        new = [
            i
            for i, key in enumerate(keys)
            if key is None or (key not in known and key not in keys[:i])
        ]
        made = dict(zip(new, forward(pieces[new]), strict=True)) if new else {}
        if any(keys[i] is not None and len(known) >= KEPT_FLAT for i in new):
            known.clear()
        known.update((keys[i], made[i]) for i in new if keys[i] is not None)
        return [made[i] if i in made else known[key] for i, key in enumerate(keys)]

    batches = [places[i : i + batch] for i in range(0, len(places), batch)]
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(read, batches[0]) if batches else None
        for n, some in enumerate(batches, start=1):
            pieces = waiting.result()
            waiting = reader.submit(read, batches[n]) if n < len(batches) else None
            for at, piece in zip(some, answers(pieces), strict=True):
                y, x = grid.rows[at[0]], grid.columns[at[1]]
                maps = to_query(piece, y, x, query.scale)
                write(at, np.round(np.clip(maps, 0, 1) * CERTAIN).astype(np.uint8))


def _flat_key(piece: Any) -> tuple[Any, ...] | None:
    """Return shape and value of each channel of a tile of one value, else None."""
    low = piece.amin((1, 2))
    if not bool((low == piece.amax((1, 2))).all()):
        return None
    return (*piece.shape, *low.tolist())


# ------------------------------------------------------------------ who does it
@contextmanager
def workers_of(
    scheduler: Any = None, workers: int | None = None, folder: str | None = None
) -> Iterator[Any]:
    """Give a `distributed.Client`, or None where this process does everything.

    Parameters
    ----------
    scheduler : str, Client or cluster, optional
        ``tcp://host:port``; a `distributed.Client`, which is left open; or a cluster,
        such as those of dask-jobqueue. By default a cluster on this machine that only
        this machine can reach.
    workers : int, optional
        Processes of a cluster on this machine; 0 for none, by default one for each
        core, as far as the memory goes.
    folder : str, optional
        Where a cluster on this machine keeps its temporary files.

    Raises
    ------
    JobError
        If Dask is not installed or no scheduler answers.
    """
    if scheduler is None and workers == 0:
        yield None
        return
    try:
        import dask
        import distributed
    except ImportError as error:
        raise JobError(
            "Dask is not installed: pip install 'napari-svpseg[cluster]'"
        ) from error
    if isinstance(scheduler, distributed.Client):
        yield scheduler
        return
    cluster = None
    try:
        if scheduler is None:
            # another port will do as well
            with dask.config.set(UNWATCHED), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Port .* already in use")
                scheduler = cluster = distributed.LocalCluster(
                    n_workers=workers or _default_workers(),
                    threads_per_worker=1,
                    processes=True,
                    host=LOOPBACK,
                    dashboard_address=None,
                    local_directory=folder,
                    silence_logs=50,
                )
        client = distributed.Client(
            scheduler, timeout=f"{CONNECT_S} s", set_as_default=False
        )
    except (OSError, ValueError, TypeError) as error:
        if cluster is not None:
            cluster.close()
        raise JobError(f"No Dask scheduler answers at {scheduler}: {error}") from error
    try:
        yield client
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def _default_workers() -> int:
    """Return how many workers, each on one core, this machine has room for."""
    import psutil

    room = psutil.virtual_memory().total // WORKER_BYTES
    return int(max(1, min(physical_cores(), room)))


def run_tasks(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
    client: Any = None,
    on_progress: Progress = ignore_progress,
    message: str = "",
) -> None:
    """Call a function with each task's arguments, on workers where there are some.

    A task whose worker died is given to another. Progress is told after each task;
    when it raises, tasks that have not begun are taken back.

    Parameters
    ----------
    function : callable
        Can be imported on the workers; safe to be repeated; returns nothing.
    tasks : iterable of tuple
    client : distributed.Client, optional
    on_progress : callable
        ``(done, total, message)``; may raise `Cancelled`.
    message : str
    """
    todo = list(tasks)
    total = len(todo)
    on_progress(0, total, message)
    if client is None:
        for n, arguments in enumerate(todo, start=1):
            function(*arguments)
            on_progress(n, total, message)
        return
    _run_on(client, function, todo, on_progress, message)


def _on_worker(function: Callable[..., Any], *arguments: Any) -> Any:
    keep_freed_memory()
    return function(*arguments)


def _run_on(
    client: Any,
    function: Callable[..., Any],
    todo: list[tuple[Any, ...]],
    on_progress: Progress,
    message: str,
) -> None:
    from distributed import wait

    total, done, running = len(todo), 0, set()
    rest = iter(todo)
    try:
        while True:
            room = SUBMITTED_PER_WORKER * max(1, len(client.nthreads())) - len(running)
            for arguments in islice(rest, max(0, room)):
                running.add(client.submit(_on_worker, function, *arguments, pure=False))
            if not running:
                return
            try:
                with client.as_current():
                    ended = wait(
                        running, timeout=LOOK_EVERY_S, return_when="FIRST_COMPLETED"
                    ).done
            except TimeoutError:
                ended = set()
            for future in ended:
                future.result()  # raises what the task raised
            running -= ended
            done += len(ended)
            on_progress(done, total, message)
    finally:
        if running:
            client.cancel(list(running), force=True)
