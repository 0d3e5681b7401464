"""``svpseg models``: list, show, import and export models."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..core.escapes import escaped
from .console import say, show, show_json
from .options import AsJson, Overwrite

if TYPE_CHECKING:
    from ..core.exchange import GraphFormat
    from ..core.model_card import ModelCard

FOR_OTHERS = "--prompts, --side and --author go with --format bioimageio, onnx, ..."


ExportFormat = StrEnum("ExportFormat", ["svpseg", "bioimageio", "onnx", "torchscript"])

models_app = typer.Typer(
    rich_markup_mode=None,
    help="List, show, import and export models.",
)


@models_app.callback(invoke_without_command=True)
def _list_by_default(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        list_models(as_json)


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the built-in and your own models with licence and hash."""
    from .. import api

    cards = api.list_models()
    if as_json:
        show_json([_card_row(card) for card in cards])
        return
    if not cards:
        say("no model is installed: svpseg models import FILE.zip")
        return
    rows = [
        ("name", "method", "licence", "weights", "sha256", "folder or package", "paper")
    ]
    rows += [
        (
            c.name,
            c.method,
            c.licence,
            f"{c.n_parameters / 1e6:.2f} M",
            c.sha256[:16] or "-",
            c.path or str(c.training.get("package", "")),
            c.paper,
        )
        for c in cards
    ]
    lines = [[escaped(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        show("  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip())


@models_app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    as_json: AsJson = False,
) -> None:
    """Show the card of a model."""
    from ..io.model_store import find_model

    row = _card_row(find_model(model))
    if as_json:
        show_json(row)
        return
    for key, value in row.items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        if text not in ("", "{}"):
            show(f"{key}: {text}")


@models_app.command("import")
def import_models(
    archives: Annotated[list[Path], typer.Argument(help="Zips of exported models.")],
    name: Annotated[
        str, typer.Option(help="Name of the model; for one archive at a time.")
    ] = "",
    outputs: Annotated[
        str,
        typer.Option(
            "--outputs",
            help="What each channel of another program's model is, if its package does "
            "not say it: foreground, boundary, distance, background, ignore, or the "
            "name of a class, with commas between; or stardist.",
        ),
    ] = "",
) -> None:
    """Add models to your own: exported ones, and packages of bioimage.io."""
    from ..io.model_archive import import_model

    if (name or outputs) and len(archives) > 1:
        raise typer.BadParameter("--name and --outputs go with one model at a time")
    words = [word.strip() for word in outputs.split(",") if word.strip()]
    for archive in archives:
        card = import_model(archive, name=name, outputs=words)
        show(f"{card.name}: {card.path}")


@models_app.command("export")
def export_models(
    model: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="Prompts to bake in; by default the model's."),
    ] = None,
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="svpseg: a zip for napari-svpseg. The others have the prompts baked "
            "in and run elsewhere.",
        ),
    ] = ExportFormat.svpseg,
    side: Annotated[
        int | None,
        typer.Option(
            "--side",
            min=1,
            help="The only side of images in pixels, for OpenCV 4 and QuPath.",
        ),
    ] = None,
    author: Annotated[
        list[str] | None,
        typer.Option("--author", help="Who made the prompts; repeatable."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model as one file: to share it, or for other programs."""
    from ..io.model_archive import export_model
    from ..io.prompt_files import load_prompts
    from ..workflows.share_model import share_model

    if form == ExportFormat.svpseg:
        if prompts or side or author:
            raise typer.BadParameter(FOR_OTHERS)
        export_model(model, output, overwrite=overwrite)
        show(output)
        return
    shared = share_model(
        model,
        output,
        prompts=None if prompts is None else load_prompts(prompts),
        form=cast("GraphFormat", form.value),
        side=side,
        authors=author or (),
        overwrite=overwrite,
    )
    for note in shared.notes:
        say(note)
    show(shared.path)


def _card_row(card: ModelCard) -> dict[str, Any]:
    return {**card.to_dict(), "path": card.path}
