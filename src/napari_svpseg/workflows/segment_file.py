"""Segment an image file and write its labels: `svpseg.segment_file`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.jobs.folder_job import PATTERN, FileOutcome, file_stem
from ..core.labels.measure import object_sizes
from ..core.progress import Progress
from ..core.settings import LabelKind, PostprocessSettings, SegmentSettings
from ..io.exports import ExportData, export
from ..io.images import read_image
from ..io.ome_zarr import is_zarr, read_zarr
from ..io.prompt_files import load_prompts
from .segment_image import Model, Prompts, segment


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
        Leave the image alone if its results are there already.
    prompts_file : str
        Recorded in the recipe.
    targets : dict, optional
        File to write for each wanted format, of `core.jobs.folder_job.FORMATS`.
    on_progress, on_partial : callable, optional
        As in `segment`.

    Returns
    -------
    FileOutcome
    """
    targets = targets or {"ome-tiff": str(labels_path(path, out_folder))}
    first = next(iter(targets.values()))
    if skip_done and all(Path(target).exists() for target in targets.values()):
        return FileOutcome(str(path), first, status="skipped")
    if isinstance(prompts, str | Path):
        prompts_file = prompts_file or str(prompts)
        prompts = load_prompts(prompts)
    image = (read_zarr if is_zarr(path) else read_image)(path, axes=axes)
    result = segment(
        image.array,
        prompts,
        model,
        device,
        labels,
        axes=image.axes.order,
        channels=channels,
        rgb=image.rgb or None,
        threshold=threshold,
        min_area=min_area,
        split=split,
        link_planes=link_planes,
        settings=settings,
        postprocess=postprocess,
        on_progress=on_progress,
        on_partial=on_partial,
    )
    recipe = replace(result.recipe, query_file=str(path), prompts_file=prompts_file)
    lengths = dict(zip(image.axes.order, image.array.shape, strict=True))
    found = ExportData(
        result.labels,
        image.axes.labels,
        image.pixel_size,
        image.unit,
        image.z_step,
        recipe,
        image.array,
        image.axes.order,
        origin=image.origin,
        n_channels=1 if image.rgb else lengths.get("C", 1),
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
        notes=recipe.notes,
        **object_sizes(result.labels, image.pixel_size, image.unit),
    )
