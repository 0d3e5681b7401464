"""``svpseg segment``: files, folders and large images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.jobs.folder_job import FORMATS, PATTERN, BatchJob, FileOutcome
from ..core.settings import (
    PostprocessSettings,
    SegmentSettings,
    split_settings,
)
from .console import end_line, failures, plural, progress_line, say
from .options import (
    AxesText,
    ChannelsText,
    Corners,
    ModelName,
    Size,
    as_channels,
    as_words,
    check_model,
    check_settings,
    is_default,
    settings_options,
)
from .prompts import prompts_from_options

if TYPE_CHECKING:
    from ..core.prompt import PromptSet
    from ..workflows.segment_large import LargeOutcome

DONE_BEFORE = "done before"
JOB_ALONE = "--job says itself which images and prompts"


@settings_options(SegmentSettings, PostprocessSettings)
def segment(
    context: typer.Context,
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files, or folders of them.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="A prompt file (.svprompt).")
    ] = None,
    prompt_image: Annotated[
        list[Path] | None,
        typer.Option("--prompt-image", help="Image to cut a prompt from; repeatable."),
    ] = None,
    prompt_labels: Annotated[
        list[Path] | None,
        typer.Option("--prompt-labels", help="Its labels; one for each image."),
    ] = None,
    box: Corners = None,
    size: Size = 64,
    model: ModelName = "svp",
    axes: AxesText = None,
    channels: ChannelsText = None,
    skip_done: Annotated[
        bool, typer.Option("--skip-done", help="Skip images whose results are there.")
    ] = False,
    formats: Annotated[
        str, typer.Option(help=f"What to write, of {', '.join(FORMATS)}.")
    ] = "ome-tiff",
    pattern: Annotated[
        str,
        typer.Option(help="Names of the results: {name}, {folder}, {model}, {prompts}"),
    ] = PATTERN,
    include: Annotated[
        str, typer.Option(help="Which files of a folder are taken, such as '*.tif'.")
    ] = "*",
    job: Annotated[
        Path | None,
        typer.Option(help="A run.json to repeat; goes with --output and --skip-done."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler that runs the job."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes for a Zarr image on this machine; 0: only this."),
    ] = None,
    level: Annotated[
        int, typer.Option(help="Level of a Zarr image that is segmented.")
    ] = 0,
    name: Annotated[str, typer.Option(help="Name of labels in a Zarr.")] = "cells",
    **settings: Any,
) -> int:
    """Label every object like the prompts' in many images.

    A Zarr image, or a TIFF with -o labels.zarr, is segmented in parts by several
    processes; without -o the labels are added to the Zarr image. Several Zarr images, a
    folder of them, or one with --formats are segmented one after the other.
    """
    if job is not None:
        if images or prompts or prompt_image:
            raise typer.BadParameter(JOB_ALONE)
        return _run_job(_stored_job(job, output, skip_done), None, scheduler)
    if not images:
        raise typer.BadParameter("Missing argument 'IMAGES...'")
    large = _is_large(images, output) and is_default(context, "formats")
    if output is None and not large:
        raise typer.BadParameter("Missing option '--output' / '-o'")
    check_settings(settings)
    check_model(model)
    taken = as_channels(channels)
    chosen = None
    if prompts is not None or prompt_image or not _brings_its_own(model):
        chosen = prompts_from_options(
            prompts, prompt_image, prompt_labels, box, size, axes=axes, channels=taken
        )
    if large:
        from ..workflows.segment_large import segment_zarr

        run, post = split_settings(settings)
        outcome = segment_zarr(
            images[0],
            prompts or chosen,
            output,
            model,
            name=name,
            level=level,
            axes=axes,
            channels=taken,
            settings=run,
            postprocess=post,
            scheduler=scheduler,
            workers=workers,
            skip_done=skip_done,
            on_progress=progress_line("segment"),
        )
        return _report_large(outcome)
    try:
        made = BatchJob(
            inputs=tuple(map(str, images)),
            prompts=str(prompts or ""),
            output=str(output),
            model=model,
            settings=settings,
            formats=tuple(as_words(formats)),
            pattern=pattern,
            include=include,
            axes=axes,
            channels=taken,
            skip_done=skip_done,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return _run_job(made, chosen, scheduler)


def _stored_job(path: Path, output: Path | None, skip_done: bool) -> BatchJob:
    """Return the job of a ``run.json``, changed by the other options."""
    from ..io.folder_records import read_run

    stored, _ = read_run(path)
    return replace(
        stored,
        skip_done=skip_done or stored.skip_done,
        output=str(output or stored.output),
    )


def _is_large(images: list[Path], output: Path | None) -> bool:
    """Return whether a run goes from one large image to labels in a Zarr."""
    from ..io.ome_zarr import is_zarr

    to_zarr = output is not None and output.suffix.lower() == ".zarr"
    if to_zarr and len(images) > 1:
        raise typer.BadParameter(
            "several images go into a folder: -o FOLDER --formats ome-zarr"
        )
    # a store that is missing or damaged is named, where no folder is
    called_zarr = output is None and images[0].suffix.lower() == ".zarr"
    return to_zarr or (len(images) == 1 and (called_zarr or is_zarr(images[0])))


def _report_large(outcome: LargeOutcome) -> int:
    """Print what became of a large image; return the exit status."""
    end_line()
    if outcome.skipped:
        print(f"{outcome.labels}: done already")
        return 0
    rate = outcome.megapixels / max(outcome.seconds, 1e-9)
    print(
        f"{outcome.labels}: {plural(outcome.objects, 'object')}, "
        f"{outcome.seconds:.1f} s, {rate:.2f} megapixels/s"
    )
    for note in outcome.notes:
        say(f"{outcome.source}: {note}")
    return 0


def _run_job(job: BatchJob, prompts: PromptSet | None, scheduler: str | None) -> int:
    """Run a job over its files, print what became of each; return the exit status."""
    from ..io.folder_records import check_collisions, find_images
    from ..workflows.folder_run import run_batch, save_cut_prompts

    check_settings(job.settings)
    check_model(job.model)
    try:
        files = find_images(job.inputs, job.include, job)
        check_collisions(job, files)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if prompts is not None and not job.prompts:
        job = replace(job, prompts=str(save_cut_prompts(prompts, job.output)))
    runner = None
    if scheduler is not None:
        from ..engine.jobs.runners import connect

        runner = connect(scheduler)
    try:
        outcomes = run_batch(
            job,
            prompts,
            runner=runner,
            on_progress=progress_line("segment"),
            on_partial=_print_each(len(files)),
        )
    finally:
        if runner is not None:
            runner.close()
    return _report(outcomes)


def _report(outcomes: list[FileOutcome]) -> int:
    """Print how many images failed, and return the exit status."""
    end_line()
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if failed:
        say(failures(failed, len(outcomes)))
    return 1 if failed else 0


def _print_each(total: int) -> Callable[[list[FileOutcome]], None]:
    """Return a callable that prints a line for each file once it is done."""
    n = 0

    def show(outcomes: list[FileOutcome]) -> None:
        nonlocal n
        for outcome in outcomes:
            if outcome.status != "running":
                n += 1
                end_line()
                _print_outcome(outcome, f"[{n}/{total}] {outcome.source}: ")

    return show


def _print_outcome(outcome: FileOutcome, start: str) -> None:
    if outcome.status == "failed":
        named = outcome.source in outcome.error
        say(outcome.error if named else f"{outcome.source}: {outcome.error}")
    elif outcome.skipped:
        print(f"{start}{DONE_BEFORE}, {outcome.labels}", flush=True)
    else:
        print(
            f"{start}{plural(outcome.objects, 'object')}, {outcome.seconds:.1f} s on "
            f"{outcome.device.partition(' (')[0]}, {outcome.labels}",
            flush=True,
        )
        for note in outcome.notes:
            say(f"{outcome.source}: {note}")


def _brings_its_own(model: str) -> bool:
    """Return whether a model knows its classes, or has prompts in its folder."""
    from ..io.model_store import PROMPTS, find_model

    card = find_model(model)
    return bool(card.classes) or (Path(card.path) / PROMPTS).is_file()
