"""Images of any size, from file to file: OME-Zarr (or TIFF) in, OME-Zarr labels out.

The work is cut into tasks that read and write files only, in four stages: maps are
predicted on a fixed grid of tiles; objects are found on a fixed grid of blocks with a
halo; the objects of neighbouring blocks are compared; final ids are written. Between
the stages only small tables come together. Each part that is done leaves a mark, so a
run that was stopped or killed goes on where it was, on any number of workers.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.fingerprint import fingerprint
from ..core.image import ImageError
from ..core.labels.blocks import (
    NOWHERE,
    Block,
    BlockTable,
    Index,
    Seam,
    block_grid,
    describe,
    neighbours_before,
    offsets_of,
    renamed,
    seam,
    stitch,
    within,
)
from ..core.labels.instances import halo_width, smallest_area, window_instances
from ..core.labels.linking import Overlaps, joined_overlaps, linked_ids, overlaps
from ..core.planes import Planes, PlaneView
from ..core.progress import Progress, ignore_progress
from ..core.prompt import Prompt, prompt_hash
from ..core.result import Maps, ObjectProperties, Recipe, versions
from ..core.settings import (
    LabelKind,
    PostprocessSettings,
    SegmentSettings,
    changed,
)
from ..engine.jobs.workers import run_tasks, workers_of
from ..io.atomic import atomic_path
from ..io.ome_zarr import LazyImage, open_image
from ..io.zarr_labels import (
    LabelsLayout,
    chunk_windows,
    create_labels,
    create_scratch,
    open_level,
    open_scratch,
    publish_labels,
    read_labels_metadata,
    reduce_chunk,
)
from .segment_image import (
    Prompts,
    as_prompt_set,
    model_reference,
    own_prompts,
    signal_notes,
)

if TYPE_CHECKING:  # it imports torch
    from ..engine.inference.tiling import TileGrid

BLOCK = 1024
"""Pixels along the blocks in which objects are found, and along chunks of labels."""

TASK = 2048
"""Pixels along the part of a plane that one task does."""

TILES_PER_TASK = 4
"""Tiles along the part of a plane that one task predicts."""

KEPT_TILES = 64
"""Tiles that a task keeps in memory, as neighbouring blocks need them too."""

WHOLE_FILES = "[!.]*"
"""Names of files that are written; a worker that was killed may leave others."""

NOTHING = 2
"""Foreground in 255ths that a tile must reach somewhere to be stored at all."""

Place = tuple[int, int]


@dataclass(frozen=True)
class LargeOutcome:
    """What became of a run over a large image.

    Parameters
    ----------
    source, labels : str
        The image that was read and the group of labels that was written.
    objects : int
    seconds : float
    megapixels : float
        Pixels of all planes, in millions.
    notes : tuple of str
        What was done differently from what was asked, or may need a look.
    skipped : bool
        The same labels were there already.
    """

    source: str
    labels: str
    objects: int = -1
    seconds: float = 0.0
    megapixels: float = 0.0
    notes: tuple[str, ...] = ()
    skipped: bool = False


@dataclass(frozen=True)
class Plan:
    """All that a task must know; stored as ``plan.json`` beside what the tasks write.

    Parameters
    ----------
    image, level, axes, channels, rgb
        Which pixels are read.
    stack, shape : tuple of int
        Number of planes along each stack axis, and (Y, X).
    model : str
        Name or folder of the model.
    recipe : dict
        Of the run; its settings, intensities and scale are those of every task.
    look : dict
        What the prompts' objects look like.
    maps : tuple of str
        What the model says of each pixel.
    block, halo : int
        Pixels of the grid on which objects are found.
    radius, stride : int
        Of the network.
    layout : dict
        Of the labels, without data type and folder.
    """

    image: str
    level: int
    axes: str
    channels: tuple[int, ...] | None
    rgb: bool
    stack: tuple[int, ...]
    shape: Place
    model: str
    recipe: dict[str, Any]
    look: dict[str, Any]
    maps: tuple[str, ...]
    block: int
    halo: int
    radius: int
    stride: int
    layout: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Fingerprint of all that decides on the labels."""
        values = asdict(self)
        values["recipe"] = {
            k: v for k, v in values["recipe"].items() if k not in ("notes", "device")
        }
        return fingerprint(values)

    @property
    def planes(self) -> list[tuple[int, ...]]:
        """Index of each plane into the stack axes."""
        return list(np.ndindex(*self.stack))

    @property
    def segment(self) -> SegmentSettings:
        """How the model is run."""
        return SegmentSettings.from_dict(self.recipe["segment"])

    @property
    def post(self) -> PostprocessSettings:
        """How objects are made."""
        return PostprocessSettings.from_dict(self.recipe["postprocess"])

    def grid(self) -> TileGrid:
        """Return the tiles of a plane."""
        from ..engine.inference.tiling import TileGrid

        run = self.segment
        return TileGrid.of(
            self.shape,
            self.recipe["scale"],
            tile=run.tile,
            overlap=run.overlap,
            radius=self.radius,
            stride=self.stride,
        )

    def blocks(self) -> dict[tuple[int, ...], Block]:
        """Return the blocks of a plane."""
        return block_grid(self.shape, self.block, self.halo)


def segment_zarr(
    image: str | Path,
    prompts: Prompts | str | Path | None,
    store: str | Path | None = None,
    model: str | Path = "svp",
    device: str | None = None,
    labels: LabelKind | None = None,
    *,
    name: str = "cells",
    level: int = 0,
    axes: str | None = None,
    channels: tuple[int, ...] | None = None,
    threshold: float | None = None,
    min_area: int | None = None,
    split: bool | None = None,
    link_planes: bool | None = None,
    settings: SegmentSettings | None = None,
    postprocess: PostprocessSettings | None = None,
    scheduler: Any = None,
    workers: int | None = None,
    skip_done: bool = False,
    task: int = TASK,
    block: int = BLOCK,
    halo: int | None = None,
    version: str | None = None,
    on_progress: Progress | None = None,
) -> LargeOutcome:
    """Segment an OME-Zarr image or a large TIFF into OME-Zarr labels.

    Labels do not depend on ``task``, nor on the workers, their number or their luck.
    A run that was stopped goes on where it was when it is called again.

    Parameters
    ----------
    image : path
        OME-Zarr 0.4 or 0.5, a Zarr array, or a TIFF file. All workers must see it.
    prompts : PromptSet, prompts, path of a prompt file, or None
        By default those in the model's folder.
    store : path, optional
        OME-Zarr to which ``labels/NAME`` is added, made if it is not there; by default
        the image itself.
    model : str or path
        All workers must have it.
    name : str
        Of the labels; those of the same name are replaced.
    level : int
        Level of the image's pyramid that is segmented.
    device, labels, axes, channels : optional
        As in `segment`.
    threshold, min_area, split, link_planes, settings, postprocess : optional
        As in `segment`.
    scheduler : str, Client or cluster, optional
        Address of a Dask scheduler, a client of one, or a cluster such as those of
        dask-jobqueue; by default a cluster of this machine only.
    workers : int, optional
        Processes on this machine; 0 does everything in this one.
    skip_done : bool
        Do nothing where the same run has written its labels already.
    task : int
        Pixels along what one task labels; brought to a multiple of ``block``.
    block : int
        Pixels along the grid on which objects are found.
    halo : int, optional
        Pixels around a block that decide on the objects in it; by default twice the
        diameter of the prompts' objects.
    version : str, optional
        Of OME-Zarr, 0.4 or 0.5; by default that of the image.
    on_progress : callable, optional
        ``(done, total, message)``; may raise `Cancelled`.

    Returns
    -------
    LargeOutcome

    Raises
    ------
    ImageError, PromptError, ValueError
        If the image, the prompts or the settings cannot be used.
    JobError
        If no scheduler answers.
    """
    start = time.perf_counter()
    report = on_progress or ignore_progress
    where = Path(image if store is None else store).absolute()
    source = open_image(image, level, axes)
    plan, code = make_plan(
        source,
        own_prompts(model) if prompts is None else prompts,
        model,
        level=level,
        axes=axes,
        channels=channels,
        block=block,
        halo=halo,
        version=version,
        run=changed(settings or SegmentSettings(), device=device),
        post=changed(
            postprocess or PostprocessSettings(),
            labels=labels,
            threshold=threshold,
            min_area=min_area,
            split=split,
            link_planes=link_planes,
        ),
    )
    _check_name(name)
    target = where / "labels" / name
    if skip_done and read_labels_metadata(where, name).get("run") == plan.key:
        return LargeOutcome(str(image), str(target), skipped=True)
    work = where.with_name(f"{where.name}.{name}.work")
    start_or_resume(work, plan, code)
    with workers_of(scheduler, workers, str(work)) as client:
        objects, notes = _run(plan, work, where, name, client, task, report)
    shutil.rmtree(work, ignore_errors=True)
    return LargeOutcome(
        str(image),
        str(target),
        objects,
        time.perf_counter() - start,
        int(np.prod((*plan.stack, *plan.shape))) / 1e6,
        tuple(notes),
    )


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or set(name) & set("/\\:"):
        raise ValueError(f"labels need a plain name, such as cells; got {name!r}")


def make_plan(
    image: str | Path | LazyImage,
    prompts: Any,
    model: str | Path,
    *,
    level: int = 0,
    axes: str | None = None,
    channels: tuple[int, ...] | None = None,
    block: int = BLOCK,
    halo: int | None = None,
    version: str | None = None,
    run: SegmentSettings,
    post: PostprocessSettings,
    rgb: bool | None = None,
    intensities: np.ndarray | None = None,
) -> tuple[Plan, dict[str, np.ndarray]]:
    """Return the plan of a run and the code of its prompts, made once for all tasks.

    Of the image only a sample is read, for its intensities, where they are not given.
    """
    from ..engine.inference.device import choose
    from ..engine.inference.forward import Forward, evaluating
    from ..engine.inference.prompt_features import (
        network_scale,
        prompt_object_properties,
        prompt_tensors,
    )
    from ..io.model_store import load_model

    run, post = (
        replace(run, trust=False),
        replace(post, labels=post.labels or "objects"),
    )
    if block < 16:
        raise ValueError(f"block must be at least 16 pixels, got {block}")
    prompts_file = ""
    if isinstance(prompts, str | Path):
        from ..io.prompt_files import load_prompts

        prompts_file, prompts = str(prompts), load_prompts(prompts)
    chosen = as_prompt_set(prompts).usable()
    loaded = load_model(model)
    network = loaded.network
    if not network.needs_prompt:
        raise ValueError(
            f"the model {loaded.card.name} takes no prompts: use it on image files "
            "that fit into memory"
        )
    source = image if isinstance(image, LazyImage) else open_image(image, level, axes)
    image = source.path
    planes = Planes.of(
        source.array, chosen, axes=source.axes.order, channels=channels, rgb=rgb
    )
    where = choose(run.device)
    scale = network_scale(chosen, network, resize=run.scale_objects)
    forward = Forward(network, where)
    with evaluating(network, where):
        images, masks = prompt_tensors(chosen, scale)
        code = forward.encode(images, masks)
        look = prompt_object_properties(chosen, images, forward, code, scale)
        forward(images[0, :1], code)  # to know what it answers
    sizes = dict(zip(planes.axes.order, planes.shape, strict=True))
    stack = tuple(sizes[a] for a in planes.axes.stack)
    intensities = planes.intensities() if intensities is None else intensities
    recipe = Recipe(
        model=model_reference(loaded.card),
        weights_sha256=loaded.card.sha256,
        prompts=tuple(_record(p) for p in chosen),
        segment=run.to_dict(),
        postprocess=post.to_dict(),
        device=str(where),
        axes=planes.axes.order,
        channels=planes.channels,
        scale=float(scale),
        versions=versions(),
        intensities=tuple((float(a), float(b)) for a, b in intensities),
        prompts_file=prompts_file,
        query_file=str(image),
        level=source.level,
        by_parts=True,
    )
    letters = planes.axes.stack + "YX"
    plan = Plan(
        image=str(Path(image).absolute()),
        level=level,
        axes=planes.axes.order,
        channels=planes.channels,
        rgb=planes.rgb,
        stack=stack,
        shape=(sizes["Y"], sizes["X"]),
        model=loaded.card.path or str(model),
        recipe=json.loads(recipe.to_json()),
        look=asdict(look),
        maps=forward.names,
        block=block,
        halo=halo_width(look) if halo is None else halo,
        radius=network.overlap,
        stride=network.stride,
        layout={
            "shape": (*stack, sizes["Y"], sizes["X"]),
            "chunks": (*(1,) * len(stack), block, block),
            "axes": letters,
            "scale": [source.scale.get(a, 1.0) for a in letters],
            "unit": source.unit,
            "version": version or source.version or "0.5",
        },
    )
    LabelsLayout(folder="", dtype="uint32", **plan.layout)
    return plan, {k: v.float().cpu().numpy() for k, v in code.items()}


def _record(prompt: Prompt) -> dict[str, Any]:
    return {
        "name": prompt.name,
        "source": prompt.source,
        "box": asdict(prompt.box),
        "negative": prompt.is_negative,
        "sha256": prompt_hash(prompt),
    }


# ------------------------------------------------------------- the run as a whole
def start_or_resume(work: Path, plan: Plan, code: dict[str, np.ndarray]) -> None:
    """Make the folder of a run, or leave what the same run has done already."""
    stored = work / "plan.json"
    if stored.exists() and json.loads(stored.read_text("utf-8")).get("key") == plan.key:
        return
    shutil.rmtree(work, ignore_errors=True)
    for part in ("tiles.done", "tables", "seams", "written"):
        (work / part).mkdir(parents=True)
    arrays: dict[str, Any] = dict(code)  # savez has a parameter that is no array
    with atomic_path(work / "code.npz") as path:
        np.savez(path, **arrays)
    tiles = (len(plan.planes), *plan.grid().shape)
    size = (len(plan.maps), *plan.grid().tile_shape)
    create_scratch(work / "tiles", (*tiles, *size), (1, 1, 1, *size), "uint8")
    blocks = (len(plan.planes), *(-(-n // plan.block) for n in plan.shape))
    side = tuple(min(plan.block + 2 * plan.halo, n) for n in plan.shape)
    create_scratch(work / "blocks", (*blocks, *side), (1, 1, 1, *side), "uint32")
    with atomic_path(stored) as path:
        text = json.dumps({"key": plan.key, "plan": asdict(plan)}, default=str)
        path.write_text(text, "utf-8")


def _run(
    plan: Plan,
    work: Path,
    store: Path,
    name: str,
    client: Any,
    task: int,
    report: Progress,
) -> tuple[int, list[str]]:
    """Do what is left of a run; return the number of objects and notes."""
    where = str(work)
    n_planes, blocks = len(plan.planes), plan.blocks()
    tiles = list(_groups(plan.grid().shape, TILES_PER_TASK))
    parts = list(_groups(next(reversed(blocks)), max(1, task // plan.block), more=1))

    def stage(function: Any, groups: Any, message: str) -> None:
        tasks = [(where, plan.key, p, g) for p in range(n_planes) for g in groups]
        run_tasks(function, tasks, client, report, message)

    stage(predict_part, tiles, "Predicting")
    stage(label_part, parts, "Finding objects")
    stage(compare_part, parts, "Comparing neighbours")
    new, beyond = final_ids(plan, work)
    objects = int(new.max(initial=0))
    if plan.post.labels == "classes":
        new = np.minimum(new, 1)
    layout = LabelsLayout(
        folder=str(work / "labels"),
        dtype="uint32" if objects < 2**32 else "uint64",
        **plan.layout,
    )
    if not ((work / "relabel.npy").exists() and (work / "labels").exists()):
        create_labels(layout)
        for mark in (work / "written").iterdir():  # of labels that are gone
            mark.unlink()
        with atomic_path(work / "relabel.npy") as path:
            np.save(path, new)
    stage(write_part, parts, "Writing labels")
    for level in range(1, len(layout.level_shapes)):
        tasks = [(layout, level, some) for some in _in_parts(layout, level)]
        run_tasks(reduce_part, tasks, client, report, f"Writing level {level}")
    notes, device = run_notes(plan, work, beyond)
    recipe = replace(
        Recipe.from_json(json.dumps(plan.recipe)), notes=tuple(notes), device=device
    )
    extra = {
        "run": plan.key,
        "objects": objects,
        "block": plan.block,
        "halo": plan.halo,
        "level": plan.level,
    }
    publish_labels(layout, store, name, recipe, extra)
    return objects, notes


def run_notes(plan: Plan, work: Path, beyond: int) -> tuple[list[str], str]:
    """Return what is to be told of a run, and the devices it ran on."""
    written = sorted((work / "tiles.done").glob(WHOLE_FILES))
    marks = [json.loads(path.read_text()) for path in written]
    notes = list(dict.fromkeys(note for mark in marks for note in mark["notes"]))
    notes += signal_notes([np.asarray(plan.recipe["intensities"])])
    if plan.segment.refine:
        notes.append("fitting to the prompts is not used for images done by parts")
    if beyond:
        notes.append(
            f"{beyond} pieces of objects reach beyond the halo of {plan.halo} pixels "
            "and may be cut: choose a larger halo"
        )
    return notes, ", ".join(sorted({mark["device"] for mark in marks}))


def _groups(shape: tuple[int, ...], side: int, more: int = 0) -> Iterator[list[Place]]:
    """Yield the places of a grid in square groups; ``more`` is added to its shape."""
    rows, columns = (n + more for n in shape)
    for i, j in product(range(0, rows, side), range(0, columns, side)):
        yield [
            (y, x)
            for y in range(i, min(i + side, rows))
            for x in range(j, min(j + side, columns))
        ]


def _in_parts(layout: LabelsLayout, level: int, size: int = 16) -> Iterator[Any]:
    windows = list(chunk_windows(layout, level))
    for i in range(0, len(windows), size):
        yield windows[i : i + size]


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
        with np.load(_mark(work, "seams", p, at)) as stored:
            for axis, other in enumerate(_before(at)):
                if other is not None:
                    common = Seam(stored[f"pairs{axis}"], stored[f"same{axis}"])
                    seams.append(((p, *other), (p, *at), common))
            for axis, q in _linked(plan, p):
                shared = stored[f"link{axis}"], stored[f"shared{axis}"]
                links.append((axis, (q, *at), (p, *at), shared))
    min_area = smallest_area(
        Maps(np.zeros((0, 0)), objects=ObjectProperties(**plan.look)), plan.post
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
    areas, first = np.zeros(n + 1, np.int64), np.full(n + 1, NOWHERE)
    np.add.at(areas, new[1:], np.concatenate([t.areas for t in tables.values()]))
    np.minimum.at(first, new[1:], np.concatenate([t.first for t in tables.values()]))
    areas[0] = 0
    along: dict[int, list[Overlaps]] = {}
    for axis, one, two, (pairs, shared) in links:
        ids = np.stack(
            [new[pairs[:, 0] + offsets[one]], new[pairs[:, 1] + offsets[two]]], axis=1
        )
        kept = (ids > 0).all(axis=1)
        along.setdefault(axis, []).append((ids[kept], shared[kept]))
    z_before_t = [joined_overlaps(along[axis]) for axis in sorted(along, reverse=True)]
    return np.asarray(linked_ids(z_before_t, areas, first, min_overlap)[new])


def _before(at: tuple[int, ...]) -> list[tuple[int, ...] | None]:
    """Return the neighbour before a block along each axis, or None at the border."""
    found = {
        next(k for k in range(len(at)) if n[k] != at[k]): n
        for n in neighbours_before(at)
    }
    return [found.get(axis) for axis in range(len(at))]


def _linked(plan: Plan, p: int) -> Iterator[tuple[int, int]]:
    """Yield stack axes and the plane before plane ``p`` along each, if it is linked."""
    if not plan.post.link_planes or plan.post.labels == "classes":
        return
    index = plan.planes[p]
    for axis, i in enumerate(index):
        if i > 0:
            before = (*index[:axis], i - 1, *index[axis + 1 :])
            yield axis, int(np.ravel_multi_index(before, plan.stack))


# ------------------------------------------------------------------------- tasks
@lru_cache(maxsize=2)
def _plan(work: str, key: str) -> Plan:
    """Return the plan that is stored in a run's folder."""
    stored = json.loads((Path(work) / "plan.json").read_text("utf-8"))
    if stored["key"] != key:
        raise ImageError(f"{work}: another run has begun here; start this one again.")
    values = stored["plan"]
    for name in ("stack", "shape", "maps"):
        values[name] = tuple(values[name])
    if values["channels"] is not None:
        values["channels"] = tuple(values["channels"])
    return Plan(**values)


@lru_cache(maxsize=2)
def _grid(work: str, key: str) -> TileGrid:
    return _plan(work, key).grid()


@lru_cache(maxsize=2)
def _blocks(work: str, key: str) -> dict[tuple[int, ...], Block]:
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
def _network(work: str, key: str) -> tuple[Any, Any, dict[str, Any]]:
    """Return the network on this worker's device, and the code of the prompts."""
    import torch

    from ..engine.inference.device import choose
    from ..io.model_store import load_model

    plan = _plan(work, key)
    loaded = load_model(plan.model)
    if loaded.card.sha256 != plan.recipe["weights_sha256"]:
        raise ValueError(
            f"{plan.model}: the weights on a worker are not those of this run"
        )
    with np.load(Path(work) / "code.npz") as stored:
        code = {k: torch.from_numpy(stored[k]) for k in stored.files}
    return loaded.network, choose(plan.segment.device), code


@lru_cache(maxsize=1)
def _flat(work: str, key: str) -> dict[Any, Any]:
    """Return the answers of this worker to tiles of a single value."""
    return {}


def predict_part(work: str, key: str, p: int, places: list[Place]) -> None:
    """Predict some tiles of plane ``p``."""
    from ..engine.inference.forward import Forward, evaluating
    from ..engine.inference.tiles import as_bytes, run_tiles
    from ..engine.inference.tiling import ScaledQuery

    mark = _mark(Path(work), "tiles.done", p, places[0], ".json")
    if mark.exists():
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
        np.asarray(plan.recipe["intensities"], np.float64),
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
    with atomic_path(mark) as path:
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
        mark = _mark(Path(work), "tables", p, at)
        if mark.exists():
            continue
        block = blocks[at]
        values = blend(grid, read, block.view)
        named = dict(zip(plan.maps, values, strict=True))
        maps = Maps(
            named["foreground"],
            named.get("distance"),
            named.get("boundary"),
            ObjectProperties(**plan.look),
        )
        labels = window_instances(maps, plan.post)
        table = describe(labels, block, maps.foreground)
        if table.n:
            high, wide = labels.shape
            padded = np.zeros(found.shape[3:], np.uint32)
            padded[:high, :wide] = labels
            found[p, at[0], at[1]] = padded
        with atomic_path(mark) as path:
            np.savez(path, **vars(table))


def compare_part(work: str, key: str, p: int, places: list[Place]) -> None:
    """Compare some blocks of plane ``p`` with their neighbours before them."""
    plan, blocks = _plan(work, key), _blocks(work, key)
    folder = Path(work)
    stored = open_scratch(folder / "blocks")

    @lru_cache(maxsize=KEPT_TILES)
    def empty(q: int, at: Place) -> bool:
        return not table_of(folder, q, at).n

    @lru_cache(maxsize=KEPT_TILES // 4)
    def read(q: int, at: Place) -> np.ndarray:
        high, wide = (s.stop - s.start for s in blocks[at].view)
        if empty(q, at):
            return np.broadcast_to(np.uint32(0), (high, wide))
        return np.asarray(stored[q, at[0], at[1], :high, :wide])

    for at in places:
        mark = _mark(folder, "seams", p, at)
        if mark.exists():
            continue
        kept: dict[str, Any] = {}
        for axis, other in enumerate(_before(at)):
            common = (
                Seam(np.zeros((0, 2), np.int64), np.zeros(0, bool))
                if other is None or empty(p, other) or empty(p, at)
                else seam(read(p, other), blocks[other], read(p, at), blocks[at])
            )
            kept[f"pairs{axis}"], kept[f"same{axis}"] = common.pairs, common.same
        for axis, q in _linked(plan, p):
            core = within(blocks[at].core, blocks[at].view)
            pairs, shared = overlaps(read(q, at)[core], read(p, at)[core])
            kept[f"link{axis}"], kept[f"shared{axis}"] = pairs, shared
        with atomic_path(mark) as path:
            np.savez(path, **kept)


def write_part(work: str, key: str, p: int, places: list[Place]) -> None:
    """Write the final labels of some blocks of plane ``p``."""
    plan, blocks, folder = _plan(work, key), _blocks(work, key), Path(work)
    stored = open_scratch(folder / "blocks")
    new = np.load(folder / "relabel.npy", mmap_mode="r")
    offsets = _offsets(work, key)
    target = open_level(folder / "labels")
    for at in places:
        mark = _mark(folder, "written", p, at, "")
        if mark.exists():
            continue
        block = blocks[at]
        offset, n = offsets[p, at]
        if n:
            inside = within(block.core, block.view)
            labels = np.asarray(stored[p, at[0], at[1]][inside])
            labels = renamed(labels, new, offset, n)
            target[(*plan.planes[p], *block.core)] = labels.astype(target.dtype)
        mark.touch()


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


def table_of(work: Path, p: int, at: tuple[int, ...]) -> BlockTable:
    """Return what is known of the objects of a block of plane ``p``."""
    with np.load(_mark(work, "tables", p, at)) as stored:
        return BlockTable(**{name: stored[name] for name in stored.files})


def _mark(
    work: Path, part: str, p: int, at: tuple[int, ...], suffix: str = ".npz"
) -> Path:
    """Return the file that says that something is done, and often what was found."""
    return work / part / f"{p}-{'-'.join(map(str, at))}{suffix}"
