"""``svpseg segment``: files, folders and large images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.escapes import escaped
from ..core.jobs.folder_job import (
    FORMATS,
    PATTERN,
    BatchJob,
    FileOutcome,
    series_numbers,
)
from ..core.settings import (
    MAX_LEVEL,
    MAX_WORKERS,
    PostprocessSettings,
    SegmentSettings,
    split_settings,
)
from .console import end_line, failures, plural, progress_line, say, show
from .options import (
    AxesText,
    ChannelsText,
    Corners,
    ModelName,
    Overwrite,
    SeriesText,
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
    from ..engine.jobs.workers import TlsAddress
    from ..workflows.segment_large import LargeOutcome

DONE_BEFORE = "done before"
ONE_SERIES = "labels of one image go into a Zarr: name one series, --series 2"
MASKS_LEFT_OUT = "left out, as masks beside their images: {names}"
JOB_ALONE = "--job says itself which images and prompts"
TLS_TOGETHER = "--tls-ca and --tls-cert go together, and with --scheduler"
TLS_SCHEME = "an encrypted connection needs --scheduler tls://host:port, got {address}"


def _pem_file(what: str) -> Any:
    """Return an option for a file of an encrypted connection."""
    return typer.Option(
        exists=True, dir_okay=False, readable=True, help=f"{what} (PEM)."
    )


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
    series: SeriesText = "",
    channels: ChannelsText = None,
    skip_done: Annotated[
        bool, typer.Option("--skip-done", help="Skip images whose results are there.")
    ] = False,
    overwrite: Overwrite = False,
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
        typer.Option(
            help="A run.json to repeat; --output, --skip-done, --overwrite go with it."
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler that runs the job."),
    ] = None,
    tls_ca: Annotated[
        Path | None, _pem_file("Authority that signed the scheduler's certificate")
    ] = None,
    tls_cert: Annotated[
        Path | None, _pem_file("Certificate to show to the scheduler")
    ] = None,
    tls_key: Annotated[
        Path | None, _pem_file("Key of --tls-cert, unless it is in that file")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes for a Zarr image on this machine; 0: only this.",
            min=0,
            max=MAX_WORKERS,
        ),
    ] = None,
    level: Annotated[
        int,
        typer.Option(
            help="Level of a Zarr image that is segmented.", min=0, max=MAX_LEVEL
        ),
    ] = 0,
    name: Annotated[str, typer.Option(help="Name of labels in a Zarr.")] = "cells",
    **settings: Any,
) -> int:
    """Label every object like the prompts' in many images.

    A Zarr image, or a TIFF with -o labels.zarr, is segmented in parts by several
    processes; without -o the labels are added to the Zarr image. Several Zarr images, a
    folder of them, or one with --formats are segmented one after the other.
    """
    cluster = _scheduler(scheduler, tls_ca, tls_cert, tls_key)
    if job is not None:
        if images or prompts or prompt_image:
            raise typer.BadParameter(JOB_ALONE)
        stored = _stored_job(job, output, skip_done)
        return _run_job(stored, None, cluster, overwrite)
    if not images:
        raise typer.BadParameter("Missing argument 'IMAGES...'")
    large = _is_large(images, output) and is_default(context, "formats")
    if output is None and not large:
        raise typer.BadParameter("Missing option '--output' / '-o'")
    check_settings(settings)
    check_model(model)
    chosen = None
    if prompts is not None or prompt_image or not _brings_its_own(model):
        chosen = prompts_from_options(
            prompts,
            prompt_image,
            prompt_labels,
            box,
            size,
            axes=axes,
            channels=channels,
        )
    if large:
        from ..workflows.segment_large import segment_zarr

        run, post = split_settings(settings)
        image = _one_series(images[0], series)
        outcome = segment_zarr(
            image,
            prompts or chosen,
            output,
            model,
            name=name,
            level=level,
            axes=axes,
            channels=as_channels(channels, [image]),
            settings=run,
            postprocess=post,
            scheduler=cluster,
            workers=workers,
            skip_done=skip_done,
            overwrite=overwrite,
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
            series=series,
            skip_done=skip_done,
        )
        made = _with_channels(made, channels)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    cut_from = [*(prompt_image or []), *(prompt_labels or [])]
    return _run_job(made, chosen, cluster, overwrite, cut_from)


def _with_channels(job: BatchJob, text: str | None) -> BatchJob:
    """Return a job with the channels of a text, which may name those of its images."""
    if text is None:
        return job
    from ..io.folder_records import find_images

    is_named = not all(word.isdecimal() for word in as_words(text))
    files = find_images(job.inputs, job.include, job) if is_named else []
    return replace(job, channels=as_channels(text, files))


def _scheduler(
    address: str | None, ca: Path | None, cert: Path | None, key: Path | None
) -> str | TlsAddress | None:
    """Return where a scheduler is, with the files of the connection if they are given.

    Without files the connection is as Dask's own configuration says.
    """
    if ca is None and cert is None and key is None:
        return address
    if address is None or ca is None or cert is None:
        raise typer.BadParameter(TLS_TOGETHER)
    from ..engine.jobs.workers import ENCRYPTED, TlsAddress

    if address.partition("://")[0] not in ENCRYPTED:
        raise typer.BadParameter(TLS_SCHEME.format(address=address))
    return TlsAddress(address, str(ca), str(cert), str(key) if key else None)


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
    from ..io.ome_zarr import is_zarr, list_images

    to_zarr = output is not None and output.suffix.lower() == ".zarr"
    if to_zarr and len(images) > 1:
        raise typer.BadParameter(
            "several images go into a folder: -o FOLDER --formats ome-zarr"
        )
    # a store that is missing or damaged is named, where no folder is
    called_zarr = output is None and images[0].suffix.lower() == ".zarr"
    if to_zarr or len(images) != 1 or not is_zarr(images[0]):
        return to_zarr or (len(images) == 1 and called_zarr)
    _, is_plate = list_images(images[0])
    return not is_plate  # the fields of a plate are images of a folder run


def _one_series(path: Path, text: str) -> Path:
    """Return the image of one series of a file or group; the file itself without."""
    from ..io.image_series import with_series

    try:
        numbers = series_numbers(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if text and len(numbers) != 1:
        raise typer.BadParameter(ONE_SERIES)
    return with_series([path], text)[0] if text else path


def _report_large(outcome: LargeOutcome) -> int:
    """Print what became of a large image; return the exit status."""
    end_line()
    if outcome.skipped:
        show(f"{outcome.labels}: done already")
        return 0
    rate = outcome.megapixels / max(outcome.seconds, 1e-9)
    show(
        f"{outcome.labels}: {plural(outcome.objects, 'object')}, "
        f"{outcome.seconds:.1f} s, {rate:.2f} megapixels/s"
    )
    for note in outcome.notes:
        say(f"{outcome.source}: {note}")
    return 0


def _run_job(
    job: BatchJob,
    prompts: PromptSet | None,
    scheduler: str | TlsAddress | None,
    overwrite: bool,
    cut_from: Sequence[Path] = (),
) -> int:
    """Run a job over its files, print what became of each; return the exit status.

    ``cut_from`` are the files that the prompts are cut from.
    """
    from ..io.folder_records import check_collisions, find_images
    from ..workflows.folder_run import run_batch

    check_settings(job.settings)
    check_model(job.model)
    try:
        files = find_images(job.inputs, job.include, job, _say_masks)
        check_collisions(job, files, cut_from)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    runner = None
    if scheduler is not None:
        from ..engine.jobs.runners import connect

        runner = connect(scheduler)
    try:
        outcomes = run_batch(
            job,
            prompts,
            runner=runner,
            overwrite=overwrite,
            on_progress=progress_line("segment"),
            on_partial=_print_each(len(files)),
        )
    finally:
        if runner is not None:
            runner.close()
    return _report(outcomes)


def _say_masks(masks: list[Path]) -> None:
    """Print which files of a folder are left out, as they are masks."""
    from ..io.tiff_series import few

    say(MASKS_LEFT_OUT.format(names=few([path.name for path in masks])))


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

    def show_each(outcomes: list[FileOutcome]) -> None:
        nonlocal n
        for outcome in outcomes:
            if outcome.status != "running":
                n += 1
                end_line()
                _print_outcome(outcome, f"[{n}/{total}] {outcome.source}: ")

    return show_each


def _print_outcome(outcome: FileOutcome, start: str) -> None:
    if outcome.status == "failed":
        named = escaped(outcome.source) in outcome.error
        say(outcome.error if named else f"{outcome.source}: {outcome.error}")
    elif outcome.skipped:
        show(f"{start}{DONE_BEFORE}, {outcome.labels}")
    else:
        show(
            f"{start}{plural(outcome.objects, 'object')}, {outcome.seconds:.1f} s on "
            f"{outcome.device.partition(' (')[0]}, {outcome.labels}"
        )
        for note in outcome.notes:
            say(f"{outcome.source}: {note}")


def _brings_its_own(model: str) -> bool:
    """Return whether a model needs no prompts, or has some in its folder."""
    from ..io.model_store import PROMPTS, find_model

    card = find_model(model)
    return not card.takes_prompts or (Path(card.path) / PROMPTS).is_file()
