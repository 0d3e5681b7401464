"""The tasks of a run over a large image, and the folder through which they speak.

A task reads and writes files only, so it can be done by any process on any machine that
sees the folder. Each part that is done leaves a file, and is not done again by a run
that is resumed. In the folder of a run are:

- ``plan.json`` and ``code.npz``: the plan and the encoded prompts
- ``tiles`` and ``tiles.done``: the predicted maps, and notes on each part
- ``blocks``, ``tables`` and ``seams``: the labels of the blocks, what is known of their
  objects, and what neighbouring blocks have in common
- ``relabel.npy``, ``labels`` and ``written``: the final id of each object, the labels
  with these ids, and which blocks of them are written
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.image import ImageError
from ..core.labels.blocks import (
    NOWHERE,
    BlockTable,
    Grid,
    Index,
    Seam,
    describe,
    neighbours_before,
    offsets_of,
    renamed,
    seam,
    stitch,
    within,
)
from ..core.labels.instances import (
    outline_evidence,
    smallest_area,
    window_instances,
)
from ..core.labels.linking import Overlaps, joined_overlaps, linked_ids, overlaps
from ..core.planes import Planes, PlaneView
from ..core.result import Maps
from ..io.atomic import atomic_path
from ..io.locks import claimed, lock_files
from ..io.ome_zarr import LazyImage, open_image
from ..io.ownership import check_work_folder, read_json
from ..io.zarr_labels import (
    LabelsLayout,
    create_scratch,
    open_level,
    open_scratch,
    reduce_chunk,
)
from .large_plan import Code, Plan
from .segment_image import signal_notes

if TYPE_CHECKING:  # they import torch
    from torch import Tensor

    from ..engine.inference.device import Device
    from ..engine.inference.tiles import FlatTile
    from ..engine.inference.tiling import TileGrid
    from ..models.base import PromptCode, PromptSegmenter

PLAN = "plan.json"
WORK_PARTS = (
    PLAN, "code.npz", "tiles", "tiles.done", "blocks", "tables", "seams", "written"
)  # fmt: skip
"""What a run makes before its plan is written."""

KEPT_TILES = 64
"""Tiles that a task keeps in memory, as neighbouring blocks need them too."""

WHOLE_FILES = "[!.]*"
"""Names of files that are whole; of others a worker that was killed may leave some."""

NOTHING = 2
"""Foreground in 255ths that a tile must reach somewhere to be stored at all."""

ANOTHER_RUN = "{work}: another run has begun here; start this one again."
STARTED_ANEW = (
    "started anew: {work} held parts of another image, or of a run with other prompts, "
    "another model, other settings or another version"
)
OTHER_WEIGHTS = "{model}: the weights on a worker are not those of this run"
NOT_FITTED = "fitting to the prompts is not used for images done by parts"
BEYOND_HALO = (
    "{n} pieces of objects reach beyond the halo of {halo} pixels and may be cut: "
    "choose a larger halo"
)

Place = tuple[int, int]
"""Row and column of a tile or of a block."""


# ------------------------------------------------------------- the folder of a run
@contextmanager
def claimed_work(work: Path) -> Iterator[Path]:
    """Lock the folder of a run against all other runs, and yield it.

    Raises
    ------
    InUseError
        If another run works there.
    ReplaceError
        If the folder holds anything but the work of a run.
    """
    with claimed(work):
        if not read_json(work / PLAN).get("key"):
            check_work_folder(work, {*WORK_PARTS, *lock_files()})
        yield work
    with suppress(OSError):  # it is empty at the end of a run
        work.rmdir()


def empty_work(work: Path) -> None:
    """Delete all in the folder of a run but its lock."""
    for path in work.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in lock_files():
            with suppress(OSError):
                path.unlink()


def start_or_resume(work: Path, plan: Plan, code: Code) -> tuple[str, ...]:
    """Make the folder of a run, or leave what the same run has done already.

    Returns
    -------
    tuple of str
        A note where the parts of another run were there.
    """
    stored = work / PLAN
    if stored.exists() and read_json(stored).get("key") == plan.key:
        _store_plan(stored, plan)  # the image may have been moved
        return ()
    notes = (STARTED_ANEW.format(work=work),) if stored.exists() else ()
    work.mkdir(parents=True, exist_ok=True)
    empty_work(work)
    for part in ("tiles.done", "tables", "seams", "written"):
        (work / part).mkdir(parents=True)
    arrays: dict[str, Any] = dict(code)  # savez has a parameter that is no array
    with atomic_path(work / "code.npz", overwrite=True) as path:
        np.savez(path, **arrays)
    tiles = (len(plan.planes), *plan.grid().shape)
    size = (len(plan.maps), *plan.grid().tile_shape)
    create_scratch(work / "tiles", (*tiles, *size), (1, 1, 1, *size), "uint8")
    blocks = (len(plan.planes), *(-(-n // plan.block) for n in plan.shape))
    side = tuple(min(plan.block + 2 * plan.halo, n) for n in plan.shape)
    create_scratch(work / "blocks", (*blocks, *side), (1, 1, 1, *side), "uint32")
    _store_plan(stored, plan)
    return notes


def _store_plan(stored: Path, plan: Plan) -> None:
    """Write a plan for the tasks."""
    with atomic_path(stored, overwrite=True) as path:
        text = json.dumps({"key": plan.key, "plan": asdict(plan)}, default=str)
        path.write_text(text, "utf-8")


@lru_cache(maxsize=2)
def _plan(work: str, key: str) -> Plan:
    """Return the plan that is stored in a run's folder."""
    stored = json.loads((Path(work) / PLAN).read_text("utf-8"))
    if stored["key"] != key:
        raise ImageError(ANOTHER_RUN.format(work=work))
    return Plan.from_dict(stored["plan"])


@lru_cache(maxsize=2)
def _grid(work: str, key: str) -> TileGrid:
    return _plan(work, key).grid()


@lru_cache(maxsize=2)
def _blocks(work: str, key: str) -> Grid:
    return _plan(work, key).blocks()


_given: dict[str, LazyImage] = {}
"""Images that are arrays of this process, by the folder of their run."""


@contextmanager
def given_image(work: Path, image: LazyImage) -> Iterator[None]:
    """Let a run of this process read an array in place of a file."""
    _planes.cache_clear()
    _given[str(work)] = image
    try:
        yield
    finally:
        del _given[str(work)]
        _planes.cache_clear()


@lru_cache(maxsize=2)
def _planes(work: str, key: str) -> Planes:
    plan = _plan(work, key)
    source = _given.get(work) or open_image(plan.image, plan.level, plan.axes)
    return Planes(source.array, source.axes, plan.channels, plan.rgb)


@lru_cache(maxsize=1)
def _network(work: str, key: str) -> tuple[PromptSegmenter, Device, PromptCode]:
    """Return the network on this worker's device, and the code of the prompts."""
    import torch

    from ..engine.inference.device import choose
    from ..io.model_store import load_model

    plan = _plan(work, key)
    loaded = load_model(plan.model)
    if loaded.card.sha256 != plan.recipe["weights_sha256"]:
        raise ValueError(OTHER_WEIGHTS.format(model=plan.model))
    with np.load(Path(work) / "code.npz") as stored:
        code = {k: torch.from_numpy(stored[k]) for k in stored.files}
    return loaded.network, choose(plan.segment.device), code


@lru_cache(maxsize=1)
def _flat(work: str, key: str) -> dict[FlatTile, Tensor]:
    """Return the answers of this worker to tiles of a single value."""
    return {}


# ------------------------------------------------------------------- the tasks
def predict_part(work: str, key: str, p: int, places: list[Place]) -> None:
    """Predict some tiles of plane ``p``."""
    from ..engine.inference.forward import Forward, evaluating
    from ..engine.inference.tiles import as_bytes, run_tiles
    from ..engine.inference.tiling import ScaledQuery

    done = _done_file(Path(work), "tiles.done", p, places[0], ".json")
    if done.exists():
        return
    plan, planes = _plan(work, key), _planes(work, key)
    network, device, code = _network(work, key)
    run = plan.segment
    forward = Forward(
        network,
        device,
        batch=run.batch,
        overlap=run.overlap,
        radius=plan.radius,
        stride=plan.stride,
    )
    query = ScaledQuery(
        PlaneView(planes, plan.planes[p]),
        plan.ranges[p],
        plan.recipe["scale"],
    )
    target, names = open_scratch(Path(work) / "tiles"), plan.maps

    def write(at: Place, probabilities: np.ndarray) -> None:
        maps = as_bytes(probabilities)
        if maps[names.index("foreground")].max() < NOTHING:
            return
        padded = np.zeros(target.shape[3:], np.uint8)
        padded[:, : maps.shape[1], : maps.shape[2]] = maps
        target[p, at[0], at[1]] = padded

    with evaluating(network, device):
        run_tiles(
            query,
            _grid(work, key),
            places,
            lambda pieces: forward(pieces, code),
            write,
            batch=forward.batch,
            flat=_flat(work, key),
        )
    notes = [device.reason] if device.is_fallback else []
    with atomic_path(done, overwrite=True) as path:
        path.write_text(
            json.dumps({"device": str(device), "notes": [*notes, *forward.notes]})
        )


def label_part(work: str, key: str, p: int, places: list[Place]) -> None:
    """Find the objects of some blocks of plane ``p``."""
    from ..engine.inference.tiles import blend

    plan, grid, blocks = _plan(work, key), _grid(work, key), _blocks(work, key)
    tiles = open_scratch(Path(work) / "tiles")
    found = open_scratch(Path(work) / "blocks")

    @lru_cache(maxsize=KEPT_TILES)
    def read(at: Place) -> np.ndarray:
        return np.asarray(tiles[p, at[0], at[1]])

    for at in places:
        done = _done_file(Path(work), "tables", p, at)
        if done.exists():
            continue
        block = blocks[at]
        values = blend(grid, read, block.view)
        named = dict(zip(plan.maps, values, strict=True))
        maps = Maps.of(named, plan.object_properties)
        labels = window_instances(maps, plan.post)
        table = describe(labels, block, maps.foreground, outline_evidence(maps))
        if table.n:
            high, wide = labels.shape
            padded = np.zeros(found.shape[3:], np.uint32)
            padded[:high, :wide] = labels
            found[p, at[0], at[1]] = padded
        with atomic_path(done, overwrite=True) as path:
            np.savez(path, **vars(table))


def compare_part(work: str, key: str, p: int, places: list[Place]) -> None:
    """Compare some blocks of plane ``p`` with those before them.

    These are the neighbours in the same plane, and if planes are linked the same block
    in the planes before.
    """
    plan, blocks = _plan(work, key), _blocks(work, key)
    folder = Path(work)
    stored = open_scratch(folder / "blocks")

    @lru_cache(maxsize=KEPT_TILES)
    def empty(q: int, at: Index) -> bool:
        return not table_of(folder, q, at).n

    @lru_cache(maxsize=KEPT_TILES // 4)
    def read(q: int, at: Index) -> np.ndarray:
        high, wide = (s.stop - s.start for s in blocks[at].view)
        if empty(q, at):
            return np.broadcast_to(np.uint32(0), (high, wide))
        return np.asarray(stored[q, at[0], at[1], :high, :wide])

    for at in places:
        done = _done_file(folder, "seams", p, at)
        if done.exists():
            continue
        kept: dict[str, Any] = {}
        for axis, other in neighbours_before(at).items():
            common = (
                Seam.nothing()
                if empty(p, other) or empty(p, at)
                else seam(read(p, other), blocks[other], read(p, at), blocks[at])
            )
            kept[f"pairs{axis}"], kept[f"same{axis}"] = common.pairs, common.same
        for axis, q in _linked(plan, p):
            core = within(blocks[at].core, blocks[at].view)
            pairs, shared = overlaps(read(q, at)[core], read(p, at)[core])
            kept[f"link{axis}"], kept[f"shared{axis}"] = pairs, shared
        with atomic_path(done, overwrite=True) as path:
            np.savez(path, **kept)


def write_part(work: str, key: str, p: int, places: list[Place]) -> None:
    """Write the final labels of some blocks of plane ``p``."""
    plan, blocks, folder = _plan(work, key), _blocks(work, key), Path(work)
    stored = open_scratch(folder / "blocks")
    new = np.load(folder / "relabel.npy", mmap_mode="r")
    offsets = _offsets(work, key)
    target = open_level(folder / "labels")
    for at in places:
        done = _done_file(folder, "written", p, at, "")
        if done.exists():
            continue
        block = blocks[at]
        offset, n = offsets[p, at]
        if n:
            inside = within(block.core, block.view)
            labels = np.asarray(stored[p, at[0], at[1]][inside])
            labels = renamed(labels, new, offset, n)
            target[(*plan.planes[p], *block.core)] = labels.astype(target.dtype)
        done.touch()


@lru_cache(maxsize=1)
def _offsets(work: str, key: str) -> dict[tuple[int, Place], tuple[int, int]]:
    """Return the offset of each block's ids, and their number."""
    plan, last = _plan(work, key), 0
    found = {}
    for p, at in product(range(len(plan.planes)), plan.blocks()):
        n = table_of(Path(work), p, at).n
        found[p, (at[0], at[1])] = last, n
        last += n
    return found


def reduce_part(layout: LabelsLayout, level: int, windows: list[Any]) -> None:
    """Write some chunks of a level of the pyramid."""
    for window in windows:
        reduce_chunk(layout, level, window)


def table_of(work: Path, p: int, at: Index) -> BlockTable:
    """Return the statistics of the objects in a block of plane ``p``."""
    with np.load(_done_file(work, "tables", p, at)) as stored:
        return BlockTable(**{name: stored[name] for name in stored.files})


def _done_file(work: Path, part: str, p: int, at: Index, suffix: str = ".npz") -> Path:
    """Return the file whose presence shows that a part is done."""
    return work / part / f"{p}-{'-'.join(map(str, at))}{suffix}"


# ------------------------------------------------------ what all tasks together give
def final_ids(plan: Plan, work: Path) -> tuple[np.ndarray, int]:
    """Return the final id of each object of each block, and how many may be cut.

    Only tables are read: a few numbers for each object.
    """
    tables: dict[Index, BlockTable] = {}
    seams: list[tuple[Index, Index, Seam]] = []
    links: list[tuple[int, Index, Index, Overlaps]] = []
    size = plan.shape[0] * plan.shape[1]
    for p, at in product(range(len(plan.planes)), plan.blocks()):
        table = table_of(work, p, at)
        # from the position in the plane to that in the flattened stack
        moved = np.where(table.areas > 0, table.first + p * size, table.first)
        tables[p, *at] = replace(table, first=moved)
        with np.load(_done_file(work, "seams", p, at)) as stored:
            for axis, other in neighbours_before(at).items():
                common = Seam(stored[f"pairs{axis}"], stored[f"same{axis}"])
                seams.append(((p, *other), (p, *at), common))
            for axis, q in _linked(plan, p):
                shared = stored[f"link{axis}"], stored[f"shared{axis}"]
                links.append((axis, (q, *at), (p, *at), shared))
    min_area = smallest_area(
        Maps(np.zeros((0, 0)), objects=plan.object_properties), plan.post
    )
    new = stitch(tables, seams, min_area, plan.post.min_confidence, lambda at: at[0])
    if links:
        new = _linked_planes(new, tables, links, plan.post.link_overlap)
    return new, sum(int(t.beyond.sum()) for t in tables.values())


def _linked_planes(
    new: np.ndarray,
    tables: dict[Index, BlockTable],
    links: list[tuple[int, Index, Index, Overlaps]],
    min_overlap: float,
) -> np.ndarray:
    """Return the final ids ``new`` of planes that were stitched one by one, linked.

    Parameters
    ----------
    new : (n + 1,) int array
        From `stitch`.
    tables : dict
    links : list of (int, index, index, Overlaps)
        A stack axis, two blocks that lie one behind the other along it, and what
        their objects share, under the ids that the blocks gave them.
    min_overlap : float
    """
    n, offsets = int(new.max(initial=0)), offsets_of(tables)
    # of each final id, from the tables of its pieces
    areas, first = np.zeros(n + 1, np.int64), np.full(n + 1, NOWHERE)
    np.add.at(areas, new[1:], np.concatenate([t.areas for t in tables.values()]))
    np.minimum.at(first, new[1:], np.concatenate([t.first for t in tables.values()]))
    areas[0] = 0
    along: dict[int, list[Overlaps]] = {}
    for axis, one, two, (pairs, shared) in links:
        ids = np.stack(
            [new[pairs[:, 0] + offsets[one]], new[pairs[:, 1] + offsets[two]]], axis=1
        )
        kept = (ids > 0).all(axis=1)  # objects that were dropped link nothing
        along.setdefault(axis, []).append((ids[kept], shared[kept]))
    z_before_t = [joined_overlaps(along[axis]) for axis in sorted(along, reverse=True)]
    return np.asarray(linked_ids(z_before_t, areas, first, min_overlap)[new])


def _linked(plan: Plan, p: int) -> Iterator[tuple[int, int]]:
    """Yield stack axes and the plane before plane ``p`` along each, if it is linked."""
    if not plan.post.link_planes or plan.post.labels == "classes":
        return
    index = plan.planes[p]
    for axis, i in enumerate(index):
        if i > 0:
            before = (*index[:axis], i - 1, *index[axis + 1 :])
            yield axis, int(np.ravel_multi_index(before, plan.stack))


def run_notes(plan: Plan, work: Path, beyond: int) -> tuple[list[str], str]:
    """Return the notes of a run, and the devices that it ran on."""
    written = sorted((work / "tiles.done").glob(WHOLE_FILES))
    parts = [json.loads(path.read_text()) for path in written]
    notes = list(dict.fromkeys(note for part in parts for note in part["notes"]))
    notes += [*plan.recipe["notes"], *signal_notes(plan.ranges)]
    if plan.segment.refine:
        notes.append(NOT_FITTED)
    if beyond:
        notes.append(BEYOND_HALO.format(n=beyond, halo=plan.halo))
    return notes, ", ".join(sorted({part["device"] for part in parts}))
