"""``svpseg prompts``: make, show and merge prompt files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import plural, show, show_json
from .options import (
    AsJson,
    AxesText,
    ChannelsText,
    Corners,
    Overwrite,
    Size,
    as_channels,
    as_corner,
)

if TYPE_CHECKING:
    from ..core.prompt import Prompt, PromptSet

WHAT_TO_FIND = (
    "name the prompts: --prompts FILE, or --prompt-image I --prompt-labels L --box Y X"
)
EACH_PROMPT = "each prompt needs an image, labels and a box"

prompts_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, show and merge prompts.",
)


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
    overwrite: Overwrite = False,
) -> None:
    """Cut prompts out of images and their labels."""
    from ..core.prompt import PromptSet
    from ..io.ownership import check_no_inputs
    from ..io.prompt_files import save_prompts, with_end

    cut = cut_prompts(
        image,
        labels,
        box,
        size,
        negative=negative,
        axes=axes,
        channels=channels,
        names=name,
    )
    check_no_inputs([with_end(target)], [*image, *(labels or [])])
    save_prompts(PromptSet(cut, target.stem), target, overwrite=overwrite)
    n_objects = plural(sum(p.n_objects for p in cut), "object")
    show(f"{target}: {plural(len(cut), 'prompt')}, {n_objects}")


@prompts_app.command("show")
def show_prompts(
    path: Annotated[Path, typer.Argument(help="A .svprompt file.")],
    as_json: AsJson = False,
) -> None:
    """List the prompts of a file."""
    from ..io.prompt_files import load_prompts

    records = [_prompt_row(p) for p in load_prompts(path)]
    if as_json:
        show_json({"file": str(path), "prompts": records})
        return
    for r in records:
        shows = "negative" if r["negative"] else plural(r["objects"], "object")
        box = "box y={y} x={x} size={size}".format(**r["box"])
        off = "" if r["enabled"] else " (off)"
        channels, source = plural(r["channels"], "channel"), r["source"] or "unknown"
        show(f"{r['name']}: {shows}, {channels}, {box} of {source}{off}")


@prompts_app.command("merge")
def merge_prompts(
    target: Annotated[Path, typer.Argument(help="The .svprompt file to write.")],
    parts: Annotated[list[Path], typer.Argument(help="Prompt files, in order.")],
    overwrite: Overwrite = False,
) -> None:
    """Merge the prompts of several files into one."""
    from ..core.prompt import PromptSet
    from ..io.prompt_files import load_prompts, save_prompts

    merged = PromptSet([p for part in parts for p in load_prompts(part)], target.stem)
    save_prompts(merged, target, overwrite=overwrite)
    show(f"{target}: {plural(len(merged), 'prompt')}")


def prompts_from_options(
    file: Path | None,
    images: list[Path] | None,
    labels: list[Path] | None,
    boxes: list[str] | None,
    size: int,
    *,
    axes: str | None,
    channels: str | None,
) -> PromptSet:
    """Return the prompts of a file, or cut from images."""
    from ..core.image import ImageError
    from ..core.prompt import PromptSet

    if (file is None) == (not images):
        raise typer.BadParameter(WHAT_TO_FIND)
    if file is not None:
        from ..io.prompt_files import load_prompts

        return load_prompts(file).usable()
    try:  # the axes of the images to segment may be those of a stack
        cut = cut_prompts(images or [], labels, boxes, size, channels=channels)
    except ImageError:
        if axes is None:
            raise
        cut = cut_prompts(
            images or [], labels, boxes, size, axes=axes, channels=channels
        )
    return PromptSet(cut).usable()


def cut_prompts(
    images: list[Path],
    labels: list[Path] | None,
    boxes: list[str] | None,
    size: int,
    *,
    negative: bool = False,
    axes: str | None = None,
    channels: str | None = None,
    names: list[str] | None = None,
) -> list[Prompt]:
    """Return prompts cut from images and their labels; channels as in `as_channels`."""
    from ..io.prompt_files import prompt_from_files

    masks: Sequence[Path | None] = labels or ([None] * len(images) if negative else [])
    if not len(images) == len(masks) == len(boxes or []):
        raise typer.BadParameter(
            f"{EACH_PROMPT}, got {plural(len(images), 'image')}, "
            f"{len(labels or [])} labels and {plural(len(boxes or []), 'box')}"
        )
    if names and len(names) != len(images):
        raise typer.BadParameter(
            f"got {len(names)} names for {plural(len(images), 'prompt')}"
        )
    names = names or [f"{path.stem} {i}" for i, path in enumerate(images, 1)]
    corners = [as_corner(text) for text in boxes or []]
    cuts = zip(images, masks, corners, names, strict=True)
    return [
        prompt_from_files(
            image,
            mask,
            box,
            size,
            axes=axes,
            channels=as_channels(channels, [image]),
            negative=negative,
            name=name,
        )
        for image, mask, box, name in cuts
    ]


def _prompt_row(prompt: Prompt) -> dict[str, Any]:
    return {
        "name": prompt.name,
        "negative": prompt.is_negative,
        "objects": prompt.n_objects,
        "channels": prompt.n_channels,
        "rgb": prompt.rgb,
        "box": {"y": prompt.box.y, "x": prompt.box.x, "size": prompt.box.size},
        "source": prompt.source,
        "enabled": prompt.enabled,
        "pixel_size": prompt.pixel_size,
        "unit": prompt.unit,
    }
