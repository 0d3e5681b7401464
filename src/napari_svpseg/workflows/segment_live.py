"""Segment an open image into a store on the disk that can be watched filling.

The tasks are those of `segment_large`, so the labels are the same. But they are done
block by block: objects are found as soon as their tiles are predicted, and shown with
ids of their own until all blocks are done and each object gets its final id.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.contrast import Profile
from ..core.fingerprint import array_fingerprint
from ..core.image import Axes, ImageError
from ..core.jobs.stored_labels import (
    DONE,
    FILLING,
    NAME,
    Filled,
    StoredLabels,
    work_folder,
)
from ..core.labels.blocks import Window, renamed, within
from ..core.progress import Progress, ignore_progress
from ..core.prompt import PromptSet
from ..core.result import Recipe
from ..core.settings import PostprocessSettings, SegmentSettings
from ..io.atomic import WriteError, as_write_error
from ..io.model_store import make_folder
from ..io.ome_zarr import LazyImage
from ..io.zarr_labels import (
    PLANE_NOT_LAST,
    LabelsLayout,
    create_labels_in_store,
    labels_folder,
    open_scratch,
    read_labels_metadata,
    seal_labels,
    write_labels_metadata,
    write_window,
)
from .large_plan import BLOCK, BlockOptions, ChannelOptions, Plan, make_plan
from .large_tasks import (
    Place,
    claimed_work,
    compare_part,
    empty_work,
    final_ids,
    given_image,
    label_part,
    predict_part,
    run_notes,
    start_or_resume,
    table_of,
)

NO_ROOM = (
    "{folder}: has {free:.1f} GB left, and this result needs about {needed:.1f} GB: "
    "free some space or choose another folder."
)

BYTES_A_PIXEL = 1
"""Room on the disk that a run needs at least: labels and maps, compressed."""


def segment_stored(
    query: Any,
    prompts: PromptSet,
    store: str | Path,
    model: str,
    *,
    axes: str,
    image: str = "",
    channels: tuple[int, ...] | None = None,
    rgb: bool | None = None,
    intensities: np.ndarray | Profile | None = None,
    scale: dict[str, float] | None = None,
    unit: str = "pixel",
    origin: dict[str, float] | None = None,
    about: dict[str, Any] | None = None,
    block: int = BLOCK,
    settings: SegmentSettings | None = None,
    postprocess: PostprocessSettings | None = None,
    on_progress: Progress | None = None,
    on_partial: Callable[[StoredLabels | Filled], None] | None = None,
) -> StoredLabels:
    """Segment an array into OME-Zarr labels that can be watched.

    A stopped run is resumed by a call with the same store, image and settings. The
    keywords are those of `segment`, so that a dock calls either with the same ones.

    Parameters
    ----------
    query : array
        Read tile by tile; may be lazy (dask, zarr).
    prompts : PromptSet
    store : path
        OME-Zarr to be made; its labels are replaced where another run made them.
    model : str
    axes : str
        Of ``query``; those of the labels are the same without C.
    image : str
        Name of the image, or its file: identifies the run.
    channels, rgb, intensities
        As in `api.segment`.
    scale : dict of str to float, optional
        Size of a pixel along each axis.
    unit : str
        ``"um"`` or ``"pixel"``.
    origin : dict of str to float, optional
        Where the centre of the first pixel lies along each axis.
    about : dict, optional
        Plain values that are stored with the labels.
    block : int
        Pixels along the grid on which objects are found.
    settings, postprocess : optional
        As in `segment`.
    on_progress : callable, optional
        ``(done, total, message)``; may raise `Cancelled`.
    on_partial : callable, optional
        Called with the `StoredLabels` once their empty arrays are there, then with each
        part that is `Filled`.

    Returns
    -------
    StoredLabels

    Raises
    ------
    ImageError, PromptError, ValueError
        If the image, the prompts or the settings cannot be used.
    ReplaceError
        If the labels there are not those of a run, or were changed since.
    InUseError
        If another run fills them now.
    WriteError
        If the disk is full; finished parts are kept, so that the run can be resumed.
    """
    start, store = time.perf_counter(), Path(store).absolute()
    report, hand_over = on_progress or ignore_progress, on_partial or _ignore
    if not Axes(axes).labels.endswith("YX"):
        raise ImageError(PLANE_NOT_LAST.format(axes=axes))
    source = LazyImage(
        query,
        Axes(axes),
        scale or {},
        unit,
        Path(image or "image"),
        origin=origin or {},
    )
    try:
        make_folder(store.parent)
        _check_room(store.parent, source.n_pixels)
        plan, code = make_plan(
            source,
            prompts,
            model,
            SegmentSettings.of(settings),
            postprocess or PostprocessSettings(),
            reading=ChannelOptions(channels, rgb, intensities),
            options=BlockOptions(block),
            content=array_fingerprint(query),
        )
        with claimed_work(work_folder(store)) as work:
            begun = start_or_resume(work, plan, code)
            with given_image(work, source):
                layout = _labels(store, plan, about or {})
                run = _Run(plan, work, store, layout, report, hand_over)
                hand_over(run.begun())
                ended = run.fill()
            empty_work(work)
    except OSError as error:
        raise _with_advice(error, store) from error
    seconds = time.perf_counter() - start
    return replace(ended, seconds=seconds, notes=(*begun, *ended.notes))


def _ignore(value: StoredLabels | Filled) -> None:
    pass


def _check_room(folder: Path, n_pixels: int) -> None:
    free, needed = shutil.disk_usage(folder).free, n_pixels * BYTES_A_PIXEL
    if free < needed:
        raise WriteError(
            NO_ROOM.format(folder=folder, free=free / 1e9, needed=needed / 1e9)
        )


def _with_advice(error: OSError, store: Path) -> OSError:
    """Return the error of a full disk, with advice."""
    return as_write_error(error, store) if error.errno else error


def _labels(store: Path, plan: Plan, about: dict[str, Any]) -> LabelsLayout:
    """Return the arrays that a run fills, made if they are not its own already."""
    layout = LabelsLayout(
        folder=str(labels_folder(store, NAME)), dtype="uint32", **plan.layout
    )
    metadata = read_labels_metadata(store, NAME)
    if metadata.get("run") != plan.key or metadata.get("state") != FILLING:
        layout = create_labels_in_store(store, NAME, layout)
        metadata = {"run": plan.key, "state": FILLING, "about": about}
        write_labels_metadata(layout.folder, {**metadata, "recipe": plan.recipe})
    return layout


@dataclass(frozen=True, eq=False)
class _Run:
    """The parts of a run, one after the other in this process."""

    plan: Plan
    work: Path
    store: Path
    layout: LabelsLayout
    report: Progress
    hand_over: Callable[[StoredLabels | Filled], None]

    def begun(self) -> StoredLabels:
        """Return the labels as they are at the start: empty."""
        return StoredLabels(
            self.layout.folder, len(self.layout.level_shapes), recipe=self.plan.recipe
        )

    def fill(self) -> StoredLabels:
        """Do the remaining parts; return the complete labels."""
        arguments = str(self.work), self.plan.key
        blocks, planes = self.plan.blocks(), self.plan.planes
        total, done, offset = len(planes) * len(blocks), 0, 0
        found = open_scratch(self.work / "blocks")
        for p, plane in enumerate(planes):
            which = f"plane {p + 1} of {len(planes)}: " if len(planes) > 1 else ""
            for at, tiles in self._new_tiles():
                done += 1
                text = f"{which}part {done - p * len(blocks)} of {len(blocks)}"
                self.report(done - 1, total, text)
                for group in tiles:
                    predict_part(*arguments, p, group)
                    self.report(done - 1, total, text)
                label_part(*arguments, p, [at])
                compare_part(*arguments, p, [at])
                block = blocks[at]
                labels = found[p, at[0], at[1]][within(block.core, block.view)]
                # until the end, ids differ from block to block
                self._write(plane, block.core, np.where(labels > 0, labels + offset, 0))
                offset += table_of(self.work, p, at).n
                self.hand_over(Filled(plane, block.core))
        self.report(total, total, "Joining objects")
        return self._finish()

    def _finish(self) -> StoredLabels:
        """Give all objects their final ids."""
        new, beyond = final_ids(self.plan, self.work)
        objects, offset = int(new.max(initial=0)), 0
        if self.plan.post.labels == "classes":
            new = np.minimum(new, 1)
        found, blocks = open_scratch(self.work / "blocks"), self.plan.blocks()
        total = len(self.plan.planes) * len(blocks)
        for p, plane in enumerate(self.plan.planes):
            for n, (at, block) in enumerate(blocks.items(), start=1):
                labels = found[p, at[0], at[1]][within(block.core, block.view)]
                size = table_of(self.work, p, at).n
                self._write(plane, block.core, renamed(labels, new, offset, size))
                offset += size
                self.report(p * len(blocks) + n, total, "Writing final ids")
        notes, device = run_notes(self.plan, self.work, beyond)
        recipe = replace(
            Recipe.from_json(json.dumps(self.plan.recipe)),
            notes=tuple(notes),
            device=device,
            fingerprint=self.plan.key,
        )
        values = json.loads(recipe.to_json())
        metadata = read_labels_metadata(self.store, NAME)
        metadata |= {"state": DONE, "objects": objects, "recipe": values}
        seal_labels(self.layout.folder, metadata)
        return StoredLabels(
            self.layout.folder,
            len(self.layout.level_shapes),
            objects,
            recipe=values,
            notes=tuple(notes),
        )

    def _write(
        self, plane: tuple[int, ...], window: Window, labels: np.ndarray
    ) -> None:
        """Write a part of a plane, into all levels."""
        n_levels = len(self.layout.level_shapes)
        write_window(
            self.layout.folder, n_levels, plane, window, labels.astype(np.uint32)
        )

    def _new_tiles(self) -> Iterator[tuple[Place, list[list[Place]]]]:
        """Yield each block, and groups of the tiles that are first needed for it.

        On a CPU a group is a single tile, so that a run stops within a second.
        """
        grid, run = self.plan.grid(), self.plan.segment
        on_cpu = self.plan.recipe["device"].startswith("cpu")
        size = 1 if on_cpu else run.batch
        seen: set[Place] = set()
        for at, block in self.plan.blocks().items():
            rows, columns = block.view
            tiles = [t for t in grid.touching((rows, columns)) if t not in seen]
            seen.update(tiles)
            groups = [tiles[i : i + size] for i in range(0, len(tiles), size)]
            yield (at[0], at[1]), groups
