"""Segment an image file and write its labels: `svpseg.segment_file`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.jobs.folder_job import PATTERN, FileOutcome, file_stem
from ..core.labels.measure import object_sizes
from ..core.progress import Progress
from ..core.prompt import Prompts, as_prompt_set
from ..core.settings import (
    LabelKind,
    PostprocessSettings,
    SegmentSettings,
    changed,
)
from ..io.exports import ExportData, export
from ..io.model_store import find_model
from ..io.ome_zarr import read_any
from ..io.ownership import check_no_inputs, check_replaceable
from ..io.prompt_files import load_prompts
from .identity import identity_of_results, image_identity, segment_identity
from .segment_image import Model, segment


def labels_path(
    source: str | Path, out_folder: str | Path, pattern: str = PATTERN
) -> Path:
    """Return the path of the labels that `segment_file` writes for ``source``.

    Examples
    --------
    >>> labels_path("day1/cells.ome.tif", "out").as_posix()
    'out/cells_labels.ome.tif'
    """
    return Path(out_folder) / f"{file_stem(str(source), pattern)}.ome.tif"


def segment_file(
    path: str | Path,
    prompts: Prompts | str | Path | None,
    out_folder: str | Path,
    model: Model = "svp",
    device: str | None = None,
    labels: LabelKind | None = None,
    *,
    axes: str | None = None,
    channels: tuple[int, ...] | None = None,
    threshold: float | None = None,
    min_area: int | None = None,
    split: bool | None = None,
    link_planes: bool | None = None,
    settings: SegmentSettings | None = None,
    postprocess: PostprocessSettings | None = None,
    skip_done: bool = False,
    prompts_file: str = "",
    targets: dict[str, str] | None = None,
    made_of: str = "",
    overwrite: bool = False,
    on_progress: Progress | None = None,
    on_partial: Callable[[Any], None] | None = None,
) -> FileOutcome:
    """Segment an image file and write ``NAME_labels.ome.tif``, or other formats.

    An OME-Zarr image is read piece by piece. Each result appears under its name only
    when it is complete.

    Parameters
    ----------
    path : path
        Image to be read.
    prompts : PromptSet, prompts, path of a prompt file, or None as in `segment`
    out_folder : path
        Made if it is not there.
    model, device, labels, axes, channels : optional
        As in `segment`.
    threshold, min_area, split, link_planes, settings, postprocess : optional
        As in `segment`.
    skip_done : bool
        Leave the image alone if its results are there already and say that they were
        made from the same image, prompts, model, settings and versions, as OME-TIFF and
        OME-Zarr do.
    prompts_file : str
        Recorded in the recipe.
    targets : dict, optional
        File to write for each wanted format, of `core.jobs.folder_job.FORMATS`.
    made_of : str
        Fingerprint of all but the image, where it is known: see `segment_identity`.
    overwrite : bool
        Allow to replace files that no run of this program wrote, and results that were
        changed since.
    on_progress, on_partial : callable, optional
        As in `segment`.

    Returns
    -------
    FileOutcome

    Raises
    ------
    ReplaceError
        If a result would replace anything that must not be.
    """
    targets = targets or {"ome-tiff": str(labels_path(path, out_folder))}
    first = next(iter(targets.values()))
    is_read = [path, *([prompts] if isinstance(prompts, str | Path) else ())]
    if isinstance(prompts, str | Path):
        prompts_file = prompts_file or str(prompts)
        prompts = load_prompts(prompts)
    run = changed(SegmentSettings.of(settings), device=device)
    post = changed(
        postprocess or PostprocessSettings(),
        labels=labels,
        threshold=threshold,
        min_area=min_area,
        split=split,
        link_planes=link_planes,
    )
    made_of = made_of or segment_identity(
        find_model(model) if isinstance(model, str | Path) else model.card,
        None if prompts is None else as_prompt_set(prompts),
        run,
        post,
        axes=axes,
        channels=channels,
        formats=targets,
    )
    fingerprint = ""
    with suppress(OSError):  # reading says so
        fingerprint = image_identity(made_of, path)
    if skip_done and fingerprint and _are_done(targets, fingerprint):
        return FileOutcome(str(path), first, status="skipped", fingerprint=fingerprint)
    check_no_inputs(targets.values(), is_read)
    for target in targets.values():  # now, and not after the work
        check_replaceable(target, overwrite)
    image = read_any(path, axes, on_note=_ignore)
    result = segment(
        image.array,
        prompts,
        model,
        axes=image.axes.order,
        channels=channels,
        rgb=image.rgb or None,
        settings=run,
        postprocess=post,
        on_progress=on_progress,
        on_partial=on_partial,
    )
    recipe = replace(
        result.recipe,
        query_file=str(path),
        prompts_file=prompts_file,
        fingerprint=fingerprint,
    )
    found = ExportData(
        result.labels,
        image.axes.labels,
        image.pixel_size,
        image.unit,
        image.z_step,
        recipe,
        image.array,
        image.axes.order,
        overwrite=overwrite,
        origin=image.origin,
        n_channels=image.n_channels,
        classes=result.classes,
        class_of=result.class_of,
        source=os.path.abspath(path),
    )
    Path(out_folder).mkdir(parents=True, exist_ok=True)
    if on_progress is not None:
        on_progress(1, 1, "Writing")  # the last chance to stop
    for kind, target in targets.items():
        export(target, kind, found)
    return FileOutcome(
        source=str(path),
        labels=first,
        seconds=result.seconds,
        device=recipe.device,
        trust=result.trust,
        notes=(*image.notes, *recipe.notes),
        fingerprint=fingerprint,
        **object_sizes(result.labels, image.pixel_size, image.unit),
    )


def _ignore(note: str) -> None:
    """Do nothing with a note, which the outcome holds."""


def _are_done(targets: Mapping[str, str], fingerprint: str) -> bool:
    """Return whether all results are there, and are of this run."""
    are_there = all(map(os.path.exists, targets.values()))
    return are_there and identity_of_results(targets) == fingerprint
