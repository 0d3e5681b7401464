"""The ``svpseg`` commands; the only module that prints.

Exit status: 0 all done, 1 some inputs failed (each named, the rest done), 2 usage.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from . import api
from .core.batch import FORMATS, PATTERN, BatchJob, FileOutcome
from .core.card import ModelCard
from .core.geometry import MIN_BOX_SIZE
from .core.image import ImageError
from .core.messages import DEBUG, joined, one_line
from .core.prompt import Prompt, PromptSet
from .core.settings import (
    PostprocessSettings,
    SegmentSettings,
    Settings,
    split_settings,
)
from .core.weak import WeakSettings
from .segmenting import own_prompts

if TYPE_CHECKING:
    from .large import LargeOutcome

app = typer.Typer(
    name="svpseg", no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Find more of these: one labelled 64 x 64 box, every such cell as an object.",
)
prompts_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make, show and merge prompts.",
)
models_app = typer.Typer(
    rich_markup_mode=None, help="List, show, import and export models.",
)
app.add_typer(prompts_app, name="prompts")
app.add_typer(models_app, name="models")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Corners = Annotated[
    list[str] | None,
    typer.Option("--box", help="Top-left corner of a prompt box.", metavar="Y X"),
]
Size = Annotated[int, typer.Option("--size", help="Side of the boxes in pixels.")]
AxesText = Annotated[
    str | None,
    typer.Option("--axes", help="Axes of the images where files do not say: ZYX, ..."),
]
ChannelsText = Annotated[
    str | None, typer.Option("--channels", help="Channels to take, such as 0 or 0,2.")
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; errors are one line on stderr."""
    debug = bool(os.environ.get(DEBUG))
    _show_our_log(logging.DEBUG if debug else logging.WARNING)
    _stop_cleanly_when_terminated()
    try:
        words = with_joined_corners(sys.argv[1:] if argv is None else argv)
        status = app(words, prog_name="svpseg", standalone_mode=False)
    except KeyboardInterrupt:
        _say("svpseg: stopped")
        return 130
    except Exception as error:
        if hasattr(error, "format_message"):  # usage, found by typer
            text = error.format_message()
            is_help = text.startswith("Usage:")  # a command was asked for nothing
            _say(text if is_help else f"svpseg: {joined(text)} (try --help)")
            return 2
        if debug:
            raise
        _say(f"svpseg: {one_line(error)}")
        return 1
    return status if isinstance(status, int) else 0


def with_joined_corners(words: Sequence[str]) -> list[str]:
    """Return arguments in which ``--box Y X`` is the one value ``--box Y,X``.

    Typer has no repeatable option of two values.

    Examples
    --------
    >>> with_joined_corners(["a.tif", "--box", "16", "40", "-o", "out"])
    ['a.tif', '--box', '16,40', '-o', 'out']
    """
    joined: list[str] = []
    for word in words:
        is_number = word.removeprefix("-").isdigit()
        if is_number and joined[-2:-1] == ["--box"] and "," not in joined[-1]:
            joined[-1] += f",{word}"
        else:
            joined.append(word)
    return joined


def settings_options(
    *kinds: type[Settings],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command, in place of its ``**settings``, an option for each setting."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        own = [
            p for p in signature.parameters.values()
            if p.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        added = [_option(f) for kind in kinds for f in fields(kind)]

        @functools.wraps(command)
        def run(*args: Any, **values: Any) -> Any:
            return command(*args, **values)

        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *added]
        )
        return run

    return decorate


def _option(setting: Field[Any]) -> inspect.Parameter:
    """Return a command's parameter for a setting, whose limits its class checks."""
    meta, kind = setting.metadata, _kind(setting)
    text = meta["help"]
    if meta["choices"]:
        text += f": {', '.join(meta['choices'])}"
    if meta["low"] is not None:
        text += f": {meta['low']} to {meta['high']} {meta['unit']}".rstrip()
    name = setting.name.replace("_", "-")
    flag = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Option(setting.default, flag, help=text),
        annotation=kind,
    )


def _kind(setting: Field[Any]) -> Any:
    """Return the type that an option has on the command line; lists are text."""
    if setting.default is not None:
        return type(setting.default)
    return float | None if setting.metadata["unit"] else str | None


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.")
    ] = False,
) -> None:
    if version:
        from .core.result import versions

        print(versions()["napari-svpseg"])
        raise typer.Exit


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for picture and labels.")
    ] = Path("demo-output"),
    no_gui: Annotated[
        bool, typer.Option("--no-gui", help="Open no window at all.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = (
        "auto"
    ),
    model: Annotated[str, typer.Option(help="Name or folder of a model.")] = "svp",
) -> int:
    """Do the main job on real data, end to end, and show it in napari."""
    from .demo import run

    say = functools.partial(print, flush=True)
    return run(output, gui=not no_gui, device=device, model=model, say=say)


@app.command()
@settings_options(SegmentSettings, PostprocessSettings)
def segment(
    context: typer.Context,
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files, or folders of them.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the results.")
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
    model: Annotated[str, typer.Option(help="Name or folder of a model.")] = "svp",
    axes: AxesText = None,
    channels: ChannelsText = None,
    skip_done: Annotated[
        bool, typer.Option("--skip-done", help="Leave images alone that are done.")
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
        typer.Option(help="A run.json that says all this; goes with --skip-done."),
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

    A Zarr image, or a TIFF whose labels are to be a Zarr (-o labels.zarr), is segmented
    in parts by several processes; without -o its labels are added to it. Several Zarr
    images, a folder of them, or one with --formats are a folder run like any other.
    """
    if job is not None:
        if images or prompts or prompt_image:
            raise typer.BadParameter("--job says itself which images and prompts")
        from .io.batch import read_run

        stored, _ = read_run(job)
        stored = replace(
            stored, skip_done=skip_done or stored.skip_done,
            output=str(out or stored.output),
        )
        return _run_job(stored, None, scheduler)
    large = bool(images) and _is_large(images, out)
    large = large and _is_default(context, "formats")
    if out is None and not large:
        raise typer.BadParameter("Missing option '--out' / '-o'")
    if not images:
        raise typer.BadParameter("Missing argument 'IMAGES...'")
    _check_settings(settings)
    taken = _channels(channels)
    _check_model(model)
    chosen = None
    if prompts is not None or prompt_image or not _brings_its_own(model):
        chosen = _prompts_from_options(
            prompts, prompt_image, prompt_labels, box, size, axes=axes, channels=taken
        )
    if large:
        from .large import segment_zarr

        outcome = segment_zarr(
            images[0], prompts or chosen, out, model, name=name, level=level, axes=axes,
            channels=taken, scheduler=scheduler, workers=workers, skip_done=skip_done,
            on_progress=_progress_line("segment"), **settings,
        )
        return _report_large(outcome)
    if _knows_classes(model) and _is_default(context, "output"):
        settings["output"] = "semantic"
    try:
        made = BatchJob(
            tuple(map(str, images)), str(prompts or ""), str(out), model, settings,
            tuple(_words(formats)), pattern, include, axes, taken, skip_done,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return _run_job(made, chosen, scheduler)


def _is_large(images: list[Path], out: Path | None) -> bool:
    """Tell whether a run goes from one large image to labels in a Zarr."""
    from .io.zarr import is_zarr

    to_zarr = out is not None and out.suffix.lower() == ".zarr"
    if to_zarr and len(images) > 1:
        raise typer.BadParameter(
            "several images go into a folder: -o FOLDER --formats ome-zarr"
        )
    return to_zarr or (len(images) == 1 and is_zarr(images[0]))


def _report_large(outcome: LargeOutcome) -> int:
    """Print what became of a large image."""
    _end_line()
    if outcome.skipped:
        print(f"{outcome.labels}: done already")
        return 0
    rate = outcome.megapixels / max(outcome.seconds, 1e-9)
    print(
        f"{outcome.labels}: {_plural(outcome.objects, 'object')}, "
        f"{outcome.seconds:.1f} s, {rate:.2f} megapixels/s"
    )
    for note in outcome.notes:
        _say(f"svpseg: {outcome.source}: {note}")
    return 0


def _run_job(job: BatchJob, prompts: PromptSet | None, scheduler: str | None) -> int:
    """Run a job over its files, telling of each; return the exit status."""
    from .batch import run_batch, save_cut_prompts
    from .io.batch import find_images, refuse_collisions

    _check_settings(job.settings)
    _check_model(job.model)
    try:
        files = find_images(job.inputs, job.include, job)
        refuse_collisions(job, files)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if prompts is not None and not job.prompts:
        job = replace(job, prompts=str(save_cut_prompts(prompts, job.output)))
    runner = None
    if scheduler is not None:
        from .engine.jobs import connect

        runner = connect(scheduler)
    try:
        outcomes = run_batch(
            job, prompts, runner=runner, on_progress=_progress_line("segment"),
            on_partial=_say_each(len(files)),
        )
    finally:
        if runner is not None:
            runner.close()
    return _report(outcomes)


@prompts_app.command("new")
def new_prompts(
    target: Annotated[Path, typer.Argument(help="The .svprompt file to write.")],
    image: Annotated[
        list[Path], typer.Option("--image", help="Image to cut from; repeatable.")
    ],
    labels: Annotated[
        list[Path] | None,
        typer.Option("--labels", help="Its labels; one for each image."),
    ] = None,
    box: Corners = None,
    size: Size = 64,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Name of each prompt.")
    ] = None,
    negative: Annotated[
        bool, typer.Option("--negative", help="These boxes show what not to find.")
    ] = False,
    axes: AxesText = None,
    channels: ChannelsText = None,
) -> None:
    """Cut prompts out of images and their labels."""
    from .io.prompts import save_prompts

    cut = _cut_prompts(
        image, labels, box, size, negative=negative, axes=axes,
        channels=_channels(channels), names=name,
    )
    save_prompts(PromptSet(cut, target.stem), target)
    print(f"{target}: {_plural(len(cut), 'prompt')}")


@prompts_app.command("show")
def show_prompts(
    path: Annotated[Path, typer.Argument(help="A .svprompt file.")],
    as_json: AsJson = False,
) -> None:
    """Say what a prompt file holds."""
    from .io.prompts import load_prompts

    records = [_prompt_row(p) for p in load_prompts(path)]
    if as_json:
        print(json.dumps({"file": str(path), "prompts": records}, indent=1))
        return
    for r in records:
        shows = "negative" if r["negative"] else _plural(r["objects"], "object")
        box = "box y={y} x={x} size={size}".format(**r["box"])
        off = "" if r["enabled"] else " (off)"
        channels, source = _plural(r["channels"], "channel"), r["source"] or "unknown"
        print(f"{r['name']}: {shows}, {channels}, {box} of {source}{off}")


@prompts_app.command("merge")
def merge_prompts(
    target: Annotated[Path, typer.Argument(help="The .svprompt file to write.")],
    parts: Annotated[list[Path], typer.Argument(help="Prompt files, in order.")],
) -> None:
    """Put the prompts of several files into one."""
    from .io.prompts import load_prompts, save_prompts

    merged = PromptSet([p for part in parts for p in load_prompts(part)], target.stem)
    save_prompts(merged, target)
    print(f"{target}: {_plural(len(merged), 'prompt')}")


@models_app.callback(invoke_without_command=True)
def _list_by_default(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        list_models(as_json)


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the built-in and your own models with licence and hash."""
    cards = api.models()
    if as_json:
        print(json.dumps([_card_row(card) for card in cards], indent=1))
        return
    if not cards:
        _say("svpseg: no model is installed: svpseg models import FILE.zip")
        return
    rows = [
        ("name", "method", "licence", "weights", "sha256", "folder or package", "paper")
    ]
    rows += [
        (
            c.name, c.method, c.licence, f"{c.n_parameters / 1e6:.2f} M",
            c.sha256[:16] or "-", c.path or str(c.training.get("package", "")),
            c.paper,
        )
        for c in cards
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip())


@models_app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    as_json: AsJson = False,
) -> None:
    """Say what is known of a model."""
    from .io.store import find_model

    row = _card_row(find_model(model))
    if as_json:
        print(json.dumps(row, indent=1))
        return
    for key, value in row.items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        if text not in ("", "{}"):
            print(f"{key}: {text}")


@models_app.command("import")
def import_models(
    archives: Annotated[list[Path], typer.Argument(help="Zips of exported models.")],
    name: Annotated[
        str, typer.Option(help="What to call it; for one model at a time.")
    ] = "",
) -> None:
    """Add models that were exported elsewhere to your own."""
    from .io.store import import_model

    if name and len(archives) > 1:
        raise typer.BadParameter("--name goes with one model at a time")
    for archive in archives:
        card = import_model(archive, name=name)
        print(f"{card.name}: {card.path}")


@models_app.command("export")
def export_models(
    model: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    target: Annotated[Path, typer.Option("--out", "-o", help="The zip to write.")],
) -> None:
    """Write a model as one zip to give away."""
    from .io.store import export_model

    export_model(model, target)
    print(target)


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file, see configs/.")
    ] = None,
    self_supervised: Annotated[
        Path | None,
        typer.Option(
            "--self-supervised", metavar="FOLDER",
            help="Learn from unlabelled images instead of a config.",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Of a self-supervised training.")
    ] = "alpnet",
    data: Annotated[
        Path | None, typer.Option(help="Folder with the data sets it names.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Model folder to write.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this time; resume later.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = (
        "auto"
    ),
    start_from: Annotated[
        str | None,
        typer.Option(help="Model whose weights are the start; none: no trained ones."),
    ] = None,
) -> None:
    """Train a method from a config (resumable), or on a folder without labels."""
    from .training import train_from_config, train_self_supervised

    if (config is None) == (self_supervised is None):
        raise typer.BadParameter("give a config, or --self-supervised FOLDER")
    if self_supervised is not None:
        if output is None:
            raise typer.BadParameter("--self-supervised needs --output FOLDER")
        card = train_self_supervised(
            self_supervised, output, method=method, minutes=minutes or 5.0,
            start_from=start_from, device=device, on_progress=_progress_line("train"),
        )
        _end_line()
        print(f"{card.name}: {card.path}")
        return
    card = train_from_config(
        config, data=data, output=output, resume=resume, minutes=minutes,
        device=device, start_from=None if start_from == "none" else start_from,
        on_progress=_progress_line("train"),
    )
    _end_line()
    print(f"{card.name}: {card.path}")


@app.command()
def finetune(
    pairs: Annotated[
        list[str] | None,
        typer.Argument(help="Images and their partial labels.", metavar="IMAGE=LABELS"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Model folder to write.")
    ] = None,
    start_from: Annotated[
        str, typer.Option(help="Model that is trained further: a name or a folder.")
    ] = "svp",
    preset: Annotated[
        str, typer.Option(help="quick (under a minute) or thorough.")
    ] = "quick",
    minutes: Annotated[
        float | None, typer.Option(help="Train at most this long.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.", min=1)] = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            help="The labels are ordinary ones, complete inside this box of --size "
            "pixels; one for each image, in order.",
            metavar="Y X",
        ),
    ] = None,
    size: Size = 64,
    complete: Annotated[
        bool,
        typer.Option("--complete", help="Ordinary labels: 0 = background."),
    ] = False,
    held_out: Annotated[
        float, typer.Option(help="Share of the labels kept out to check: 0 to 0.8.")
    ] = 0.25,
    seed: Annotated[int, typer.Option(help="Same seed, same model.", min=0)] = 0,
    unlabelled_is_background: Annotated[
        bool, typer.Option("--unlabelled-is-background", help="0 is no longer unknown.")
    ] = False,
    semantic: Annotated[
        bool, typer.Option("--semantic", help="Labels 2, 3, ... are classes.")
    ] = False,
    wanted: Annotated[int, typer.Option(help="The class to find.", min=2)] = 2,
    training_set: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps all images and labels; used as a whole."),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(help="First learn from the images in this folder, unlabelled."),
    ] = None,
    channels: ChannelsText = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = (
        "auto"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model further on a few partly labelled images, and check it.

    Labels: 0 = unknown, 1 = background, 2, 3, ... = objects.
    """
    from .core.finetune import FineTuneSettings

    if out is None:
        raise typer.BadParameter("say where the model goes: -o MODEL")
    if not pairs and training_set is None:
        raise typer.BadParameter("name images and their labels: IMAGE=LABELS")
    changed: dict[str, Any] = {
        "held_out": held_out, "seed": seed, "semantic": semantic, "wanted": wanted,
        "unlabelled_is_background": unlabelled_is_background,
    }
    if minutes is not None:
        changed["seconds"] = 60 * minutes
    if steps is not None:
        changed["steps"] = steps
    try:
        settings = FineTuneSettings.of_preset(preset, **changed)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    _check_model(start_from)
    names, images, labels, truths = _partial_labels(
        pairs or [], boxes, size, complete
    )
    result = api.finetune(
        images, labels, start_from=start_from, device=device, settings=settings,
        output=out, training_set=training_set, unlabelled=unlabelled, names=names,
        channels=_channels(channels), resume=resume,
        on_progress=_progress_line("finetune"),
    )
    _end_line()
    for note in result.notes:
        _say(f"svpseg: {note}")
    rest = _scores_of_the_rest(images, labels, truths, start_from, result.model, device)
    if as_json:
        print(json.dumps(result.to_dict() | {"rest": rest}, indent=1))
        return
    print(f"before: {result.before}")
    print(f"after:  {result.after}")
    n = result.before.n_pixels
    print(
        f"on {n} held-back pixels, {_plural(result.before.n_objects, 'whole object')}"
    )
    for name, scores in rest.items():
        print(
            f"{name}, outside the boxes: Dice {scores['dice']:.3f}, "
            f"F1@0.5 {scores['f1']:.3f}"
        )
    print(f"kept:   {result.kept}, {result.seconds:.0f} s of training")
    print(result.model)


def _partial_labels(
    pairs: list[str], boxes: list[str] | None, size: int, complete: bool
) -> tuple[list[str], list[Any], list[Any], list[Any]]:
    """Return names, images, partial labels and labels of ``IMAGE=LABELS`` pairs.

    There are labels where boxes were given: they say more than the boxes do.
    """
    from .core.geometry import Box
    from .core.partial import checked, from_labels, merged
    from .io.images import read_image

    if boxes and len(boxes) != len(pairs):
        raise typer.BadParameter(
            f"got {_plural(len(boxes), 'box')} for {_plural(len(pairs), 'image')}"
        )
    corners = [_corner(text) for text in boxes or []]
    found: dict[str, tuple[Any, Any]] = {}
    truths: dict[str, Any] = {}
    for n, pair in enumerate(pairs):
        image_path, sign, labels_path = pair.partition("=")
        if not (image_path and sign and labels_path):
            raise typer.BadParameter(f"give IMAGE=LABELS, got {pair!r}")
        image = read_image(image_path)
        if image.axes.stack:
            raise ImageError(
                f"{image_path}: one plane is trained on, this file has the axes "
                f"{image.axes.order}: save the plane by itself."
            )
        plane = image.axes.to_plane(np.asarray(image.array))
        labels = api.read_mask(labels_path)
        if corners:
            truths[image_path] = checked(labels, plane.shape, labels_path)
            labels = from_labels(labels, [Box(*corners[n], size)])
        elif complete:
            labels = from_labels(labels)
        labels = checked(labels, plane.shape, labels_path)
        if image_path in found:
            labels = merged(found[image_path][1], labels, image_path)
        found[image_path] = (plane, labels)
    return (
        [Path(path).name for path in found],
        [plane for plane, _ in found.values()],
        [labels for _, labels in found.values()],
        list(truths.values()),
    )


def _scores_of_the_rest(
    images: list[Any], partial: list[Any], truths: list[Any], start: str, model: str,
    device: str,
) -> dict[str, dict[str, float]]:
    """Return how both models do where labels are known but were not given."""
    from .core.metrics import dice, f1

    scores = {}
    prompts = own_prompts(model) if truths else None
    for name, asked in (("before", start), ("after", model)):
        each = []
        for image, known, truth in zip(images, partial, truths, strict=False):
            found = api.segment(
                image, prompts, asked, device, axes="YXC", trust=False
            ).labels
            given = known > 0
            each.append((dice(found, truth, given), f1(found, truth, 0.5, given)))
        if each:
            means = np.mean(each, axis=0)
            scores[name] = {"dice": float(means[0]), "f1": float(means[1])}
    return scores


@app.command()
def tags(
    data: Annotated[Path, typer.Argument(help="Data folder whose labels are classes.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for windows and tags.csv.")
    ],
    side: Annotated[
        int, typer.Option(help="Side of a window in pixels.", min=MIN_BOX_SIZE)
    ] = 64,
    number: Annotated[int, typer.Option(help="Windows at most.", min=2)] = 120,
    seed: Annotated[int, typer.Option(help="Of the places.", min=0)] = 0,
) -> None:
    """Cut tagged windows out of pictures with masks, to try `svpseg weak` on them."""
    from .io.datasets import read_dataset
    from .io.windows import write_windows

    written = write_windows(read_dataset(data), output, side, number, seed)
    print(
        f"{output / 'tags.csv'}: {_plural(len(written), 'window')}; "
        + ", ".join(f"{c}: {len(written.images_of(c))}" for c in written.classes)
        + f", none: {sum(not held for held in written.values())}"
    )


@app.command()
@settings_options(WeakSettings)
def weak(
    folder: Annotated[Path, typer.Argument(help="Folder with the images.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Model folder to write.")
    ],
    tags: Annotated[
        Path | None,
        typer.Option(
            help="Table of file, class, ...; by default the names of the folders tell."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = (
        "auto"
    ),
    start_from: Annotated[
        str, typer.Option(help="Model whose encoder is the start.")
    ] = "svp",
    **settings: Any,
) -> None:
    """Train a model of classes from tags: which image holds what."""
    from .io.tags import read_tags, tags_from_folders

    try:
        chosen = WeakSettings.from_dict(
            {**settings, "classes": _words(settings["classes"]) or None}
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    given = tags_from_folders(folder) if tags is None else read_tags(tags)
    result = api.fit_weak(
        folder, given, settings=chosen, output=output, device=device,
        start_from=start_from, resume=resume, on_progress=_progress_line("weak"),
    )
    _end_line()
    for note in result.notes:
        _say(f"svpseg: {note}")
    print(
        f"{result.model}: {', '.join(chosen.classes or given.classes)}; "
        f"a bank of {_plural(len(result.bank), 'prompt')}, {result.seconds:.0f} s"
    )


@app.command()
def benchmark(
    data: Annotated[list[Path], typer.Argument(help="Data folders.")],
    models: Annotated[
        str, typer.Option(help="Models and rivals, separated by commas.")
    ] = "svp,forest",
    prompts: Annotated[int, typer.Option(help="Prompt draws per task.", min=1)] = 5,
    queries: Annotated[int, typer.Option(help="Images per task.", min=1)] = 12,
    classes: Annotated[
        str | None, typer.Option(help="Only these classes, separated by commas.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the prompt draws.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = (
        "auto"
    ),
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for the report.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the records that are there.")
    ] = False,
) -> None:
    """Score models on the one-shot protocol, beside the random forest."""
    from .benchmark import run
    from .report import to_markdown

    report = run(
        data, _words(models), prompts=prompts, max_queries=queries,
        classes=_words(classes) or None, seed=seed, device=device, output=json_file,
        resume=resume, on_progress=_progress_line("benchmark"),
    )
    _end_line()
    print(to_markdown(report))


def _report(outcomes: list[FileOutcome]) -> int:
    """Say what is left to say of a run, and return the exit status."""
    _end_line()
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if failed:
        total = _plural(len(outcomes), "image")
        _say(f"svpseg: {failed} of {total} failed, the rest is done")
    return 1 if failed else 0


def _say_each(total: int) -> Callable[[list[FileOutcome]], None]:
    """Return a callable that tells of each file once it is done."""
    n = 0

    def tell(outcomes: list[FileOutcome]) -> None:
        nonlocal n
        for outcome in outcomes:
            if outcome.status != "running":
                n += 1
                _end_line()
                _say_outcome(outcome, f"[{n}/{total}] {outcome.source}: ")

    return tell


def _say_outcome(outcome: FileOutcome, start: str) -> None:
    if outcome.status == "failed":
        named = outcome.source in outcome.error
        text = outcome.error if named else f"{outcome.source}: {outcome.error}"
        _say(f"svpseg: {text}")
    elif outcome.skipped:
        print(f"{start}done before, {outcome.labels}", flush=True)
    else:
        print(
            f"{start}{_plural(outcome.objects, 'object')}, {outcome.seconds:.1f} s on "
            f"{outcome.device.partition(' (')[0]}, {outcome.labels}",
            flush=True,
        )
        for note in outcome.notes:
            _say(f"svpseg: {outcome.source}: {note}")


def _prompts_from_options(
    file: Path | None,
    images: list[Path] | None,
    labels: list[Path] | None,
    boxes: list[str] | None,
    size: int,
    *,
    axes: str | None,
    channels: tuple[int, ...] | None,
) -> PromptSet:
    if (file is None) == (not images):
        raise typer.BadParameter(
            "say what to find: --prompts FILE, or --prompt-image I --prompt-labels L "
            "--box Y X"
        )
    if file is not None:
        from .io.prompts import load_prompts

        return load_prompts(file).usable()
    try:  # the axes of the images to segment may be those of a stack
        cut = _cut_prompts(images or [], labels, boxes, size, channels=channels)
    except ImageError:
        if axes is None:
            raise
        cut = _cut_prompts(
            images or [], labels, boxes, size, axes=axes, channels=channels
        )
    return PromptSet(cut).usable()


def _cut_prompts(
    images: list[Path],
    labels: list[Path] | None,
    boxes: list[str] | None,
    size: int,
    *,
    negative: bool = False,
    axes: str | None = None,
    channels: tuple[int, ...] | None = None,
    names: list[str] | None = None,
) -> list[Prompt]:
    masks: Sequence[Path | None] = labels or ([None] * len(images) if negative else [])
    if not len(images) == len(masks) == len(boxes or []):
        raise typer.BadParameter(
            f"each prompt needs an image, labels and a box, got {len(images)} images, "
            f"{len(labels or [])} labels and {len(boxes or [])} boxes"
        )
    if names and len(names) != len(images):
        raise typer.BadParameter(
            f"got {len(names)} names for {_plural(len(images), 'prompt')}"
        )
    names = names or [f"{path.stem} {i}" for i, path in enumerate(images, 1)]
    corners = [_corner(text) for text in boxes or []]
    cuts = zip(images, masks, corners, names, strict=True)
    return [
        api.prompt_from_files(
            image, mask, box, size, axes=axes, channels=channels, negative=negative,
            name=name,
        )
        for image, mask, box, name in cuts
    ]


def _check_settings(settings: dict[str, Any]) -> None:
    from .engine.device import choose

    try:
        run, _ = split_settings(settings)
        choose(run.device)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _check_model(model: str) -> None:
    from .io.store import ModelFormatError, find_model

    try:
        find_model(model)
    except ModelFormatError as error:
        raise typer.BadParameter(str(error)) from error


def _brings_its_own(model: str) -> bool:
    """Tell whether a model knows its classes, or has prompts in its folder."""
    from .io.store import PROMPTS, find_model

    folder = Path(find_model(model).path)
    return _knows_classes(model) or (folder / PROMPTS).is_file()


def _knows_classes(model: str) -> bool:
    from .io.store import find_model

    return bool(find_model(model).classes)


def _is_default(context: typer.Context, option: str) -> bool:
    """Tell whether the running command was not given an option."""
    source = context.get_parameter_source(option)
    return source is None or source.name == "DEFAULT"


def _channels(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(word) for word in _words(text))
    except ValueError as error:
        raise typer.BadParameter(
            f"channels are numbers such as 0 or 0,2, got {text!r}"
        ) from error


def _corner(text: str) -> tuple[int, int]:
    try:
        y, x = (int(word) for word in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"a box is given by two whole numbers, --box Y X, got {text!r}"
        ) from error
    return y, x


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _prompt_row(prompt: Prompt) -> dict[str, Any]:
    return {
        "name": prompt.name, "negative": prompt.is_negative,
        "objects": prompt.n_objects, "channels": prompt.n_channels, "rgb": prompt.rgb,
        "box": {"y": prompt.box.y, "x": prompt.box.x, "size": prompt.box.size},
        "source": prompt.source, "enabled": prompt.enabled,
        "pixel_size": prompt.pixel_size, "unit": prompt.unit,
    }


def _card_row(card: ModelCard) -> dict[str, Any]:
    return {**card.to_dict(), "path": card.path}


def _progress_line(name: str) -> Callable[..., None]:
    """Return a callable that rewrites one line of a terminal, and is silent else."""

    def show(done: int, total: int, message: str = "") -> None:
        if sys.stderr.isatty():
            text = f"{name}: {done}/{total} {message}"[:79]
            sys.stderr.write(f"\r{text:<79}")
            sys.stderr.flush()

    return show


def _end_line() -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{'':<79}\r")


def _show_our_log(level: int) -> None:
    """Print what this package logs, and nobody else, as lines on stderr."""
    logger = logging.getLogger(__package__)
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("svpseg: %(message)s"))
        logger.addHandler(handler)


def _stop_cleanly_when_terminated() -> None:
    """Let a polite kill unwind, so that half-written temporary files go too."""
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    except ValueError:  # not in the main thread: somebody else is in charge
        return


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
