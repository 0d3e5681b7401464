"""Images of any size, from file to file: OME-Zarr (or TIFF) in, OME-Zarr labels out.

The work is cut into tasks (`large_tasks`), in four stages: maps are predicted on a
fixed grid of tiles; objects are found on a fixed grid of blocks with a halo; the
objects of neighbouring blocks are compared; final ids are written. Between the stages
only small tables come together. A run that was stopped or killed goes on where it was,
on any number of workers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ..core.image import ImageError
from ..core.progress import Progress, ignore_progress
from ..core.prompt import Prompts
from ..core.result import Recipe
from ..core.settings import (
    MAX_LEVEL,
    MAX_WORKERS,
    LabelKind,
    PostprocessSettings,
    SegmentSettings,
    changed,
    check_range,
)
from ..engine.jobs.workers import run_tasks, workers_of
from ..io.atomic import DISK_FULL, as_write_error, atomic_path
from ..io.content import content_fingerprint
from ..io.ome_zarr import image_folder, open_image
from ..io.ownership import check_no_inputs, check_replaceable
from ..io.zarr_labels import (
    LabelsLayout,
    check_takes_labels,
    chunk_windows,
    create_labels,
    labels_folder,
    levels_for,
    publish_labels,
    read_labels_metadata,
)
from ..io.zarr_stores import is_zipped_zarr
from .large_plan import BLOCK, MAX_BLOCK, BlockOptions, ChannelOptions, Plan, make_plan
from .large_tasks import (
    Place,
    claimed_work,
    compare_part,
    empty_work,
    final_ids,
    label_part,
    predict_part,
    reduce_part,
    run_notes,
    start_or_resume,
    write_part,
)
from .segment_image import own_prompts

TASK = 2048
"""Pixels along the part of a plane that one task does."""

TILES_PER_TASK = 4
"""Tiles along the part of a plane that one task predicts."""

CHUNKS_PER_TASK = 16
"""Chunks of a lower level of the pyramid that one task writes."""

PREDICTING, FINDING, COMPARING, WRITING = (
    "Predicting", "Finding objects", "Comparing neighbours", "Writing labels"
)  # fmt: skip
"""Messages of the stages."""

ZIP_IS_READ_ONLY = (
    "{path}: labels cannot be added to a zip: name another store, -o labels.zarr"
)
CHANGED_MEANWHILE = "{image}: has changed while it was segmented: run it again."
BAD_NAME = "labels need a plain name, such as cells; got {name!r}"


@dataclass(frozen=True)
class LargeOutcome:
    """Outcome of a run over a large image.

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
    overwrite: bool = False,
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
        New OME-Zarr for the labels, or an image to which ``labels/NAME`` is added; by
        default the image itself.
    model : str or path
        All workers must have it.
    name : str
        Of the labels; those of the same name are replaced if a run wrote them and
        nobody changed them since.
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
    overwrite : bool
        Allow to replace labels of the same name that no run wrote, or that were
        changed since.
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
    WriteError
        If the disk is full; finished parts are kept, so that the run can be resumed.
    ReplaceError
        If the labels would replace anything that must not be.
    InUseError
        If another run writes these labels now.
    """
    start = time.perf_counter()
    report = on_progress or ignore_progress
    if store is None and is_zipped_zarr(image):
        raise ValueError(ZIP_IS_READ_ONLY.format(path=image))
    where = Path(image_folder(image) if store is None else store).absolute()
    for option, value, low, high in (
        ("workers", workers, 0, MAX_WORKERS),
        ("level", level, 0, MAX_LEVEL),
        ("task", task, 1, MAX_BLOCK),
    ):
        check_range(option, value, low, high)
    if not name or name.startswith(".") or set(name) & set("/\\:"):
        raise ValueError(BAD_NAME.format(name=name))
    source = open_image(image, level, axes)
    content = content_fingerprint(image)
    plan, code = make_plan(
        source,
        own_prompts(model) if prompts is None else prompts,
        model,
        changed(SegmentSettings.of(settings), device=device),
        changed(
            postprocess or PostprocessSettings(),
            labels=labels,
            threshold=threshold,
            min_area=min_area,
            split=split,
            link_planes=link_planes,
        ),
        reading=ChannelOptions(channels),
        options=BlockOptions(block, halo, version),
        content=content,
    )
    target = labels_folder(where, name)
    if skip_done and read_labels_metadata(where, name).get("run") == plan.key:
        return LargeOutcome(str(image), str(target), skipped=True)
    is_read = [image, *([prompts] if isinstance(prompts, str | Path) else ())]
    check_no_inputs([target], is_read)
    check_takes_labels(where)  # now, and not after the work
    check_replaceable(target, overwrite)
    try:
        with claimed_work(where.with_name(f"{where.name}.{name}.work")) as work:
            begun = start_or_resume(work, plan, code)
            with workers_of(scheduler, workers, str(work)) as client:
                n_levels = levels_for(where, name)
                run = _Run(plan, work, client, report, overwrite, n_levels)
                objects, beyond = run.make_labels(max(1, task // plan.block))
            if content_fingerprint(image) != content:
                raise ImageError(CHANGED_MEANWHILE.format(image=image))
            notes = [*begun, *run.publish(where, name, objects, beyond)]
            empty_work(work)
    except OSError as error:
        if error.errno in DISK_FULL:  # what is done stays, to go on with
            raise as_write_error(error, where) from error
        raise
    return LargeOutcome(
        str(image),
        str(target),
        objects,
        time.perf_counter() - start,
        int(np.prod((*plan.stack, *plan.shape))) / 1e6,
        (*source.notes, *notes),
    )


@dataclass(frozen=True, eq=False)
class _Run:
    """The stages of a run, one after the other.

    Parameters
    ----------
    plan : Plan
    work : Path
        Folder of the run.
    client : distributed.Client or None
    report : callable
    overwrite : bool
        Allow to replace labels that no run wrote.
    n_levels : int
        Of the labels, see `LabelsLayout`.
    """

    plan: Plan
    work: Path
    client: Any
    report: Progress
    overwrite: bool = False
    n_levels: int = 0

    def make_labels(self, blocks_a_task: int) -> tuple[int, int]:
        """Do what is left of a run; return the number of objects, and of cut pieces."""
        plan, work = self.plan, self.work
        tiles = list(_groups(plan.grid().shape, TILES_PER_TASK))
        rows, columns = (i + 1 for i in next(reversed(plan.blocks())))
        parts = list(_groups((rows, columns), blocks_a_task))
        self._stage(predict_part, tiles, PREDICTING)
        self._stage(label_part, parts, FINDING)
        self._stage(compare_part, parts, COMPARING)
        new, beyond = final_ids(plan, work)
        objects = int(new.max(initial=0))
        if plan.post.labels == "classes":
            new = np.minimum(new, 1)
        layout = self._layout(objects)
        if not ((work / "relabel.npy").exists() and (work / "labels").exists()):
            create_labels(layout)
            for done in (work / "written").iterdir():  # of labels that are gone
                done.unlink()
            with atomic_path(work / "relabel.npy", overwrite=True) as path:
                np.save(path, new)
        self._stage(write_part, parts, WRITING)
        for level in range(1, len(layout.level_shapes)):
            windows = list(chunk_windows(layout, level))
            tasks = [
                (layout, level, windows[i : i + CHUNKS_PER_TASK])
                for i in range(0, len(windows), CHUNKS_PER_TASK)
            ]
            message = f"Writing level {level}"
            run_tasks(reduce_part, tasks, self.client, self.report, message)
        return objects, beyond

    def _stage(
        self, function: Callable[..., None], groups: list[list[Place]], message: str
    ) -> None:
        """Call a task's function for each group of places of each plane."""
        planes = range(len(self.plan.planes))
        run = str(self.work), self.plan.key
        tasks = [(*run, p, group) for p in planes for group in groups]
        run_tasks(function, tasks, self.client, self.report, message)

    def _layout(self, objects: int) -> LabelsLayout:
        return LabelsLayout(
            folder=str(self.work / "labels"),
            dtype="uint32" if objects < 2**32 else "uint64",
            n_levels=self.n_levels,
            **self.plan.layout,
        )

    def publish(self, store: Path, name: str, objects: int, beyond: int) -> list[str]:
        """Move the labels to their store, with their recipe; return notes."""
        plan = self.plan
        notes, device = run_notes(plan, self.work, beyond)
        recipe = replace(
            Recipe.from_json(json.dumps(plan.recipe)),
            notes=tuple(notes),
            device=device,
            fingerprint=plan.key,
        )
        extra = {
            "run": plan.key,
            "objects": objects,
            "block": plan.block,
            "halo": plan.halo,
            "level": plan.level,
        }
        layout = self._layout(objects)
        publish_labels(layout, store, name, recipe, extra, overwrite=self.overwrite)
        return notes


def _groups(shape: tuple[int, int], side: int) -> Iterator[list[Place]]:
    """Yield the places of a grid in square groups."""
    rows, columns = shape
    for i, j in product(range(0, rows, side), range(0, columns, side)):
        yield [
            (y, x)
            for y in range(i, min(i + side, rows))
            for x in range(j, min(j + side, columns))
        ]
