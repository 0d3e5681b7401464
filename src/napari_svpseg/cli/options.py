"""Options that several commands share, and the values of their text."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.geometry import MAX_BOX_SIZE, MIN_BOX_SIZE
from ..core.settings import Settings, check_device, flag_of, help_text, split_settings

TWO_NUMBERS = "a box is given by two whole numbers, --box Y X"


def _device(name: str) -> str:
    """Refuse unknown device names; only torch knows whether the device is there."""
    try:
        return check_device(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _model_names() -> list[str]:
    """Return the models that a shell offers to complete."""
    from ..io.model_store import list_models

    return [card.name for card in list_models()]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Corners = Annotated[
    list[str] | None,
    typer.Option("--box", help="Top-left corner of a prompt box.", metavar="Y X"),
]

Size = Annotated[
    int,
    typer.Option(
        "--size",
        help="Side of the boxes in pixels.",
        min=MIN_BOX_SIZE,
        max=MAX_BOX_SIZE,
    ),
]

AxesText = Annotated[
    str | None,
    typer.Option("--axes", help="Axes of the images where files do not say: ZYX, ..."),
]

SeriesText = Annotated[
    str,
    typer.Option(
        "--series",
        help="Images of files with several: all, or numbers such as 0,2 (see "
        "'svpseg series FILE').",
    ),
]

ChannelsText = Annotated[
    str | None,
    typer.Option("--channels", help="Channels to take, such as 0,2 or DAPI,GFP."),
]

DeviceName = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.", callback=_device),
]

ModelName = Annotated[
    str,
    typer.Option(
        "--model", help="Name or folder of a model.", autocompletion=_model_names
    ),
]

Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace files that no run wrote, or that were changed since.",
    ),
]

Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the last checkpoint.")
]


def settings_options(
    *kinds: type[Settings], but: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command, in place of its ``**settings``, an option for each setting.

    Parameters
    ----------
    *kinds : type of Settings
    but : collection of str
        Settings that the command has no option for, or one of its own.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        own = [
            p
            for p in signature.parameters.values()
            if p.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        added = [_option(f) for k in kinds for f in fields(k) if f.name not in but]

        @functools.wraps(command)
        def run(*args: Any, **values: Any) -> Any:
            return command(*args, **values)

        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *added]
        )
        return run

    return decorate


def _option(setting: Field[Any]) -> inspect.Parameter:
    """Return a command's parameter for a setting; its class checks the limits."""
    kind, flag = _kind(setting), flag_of(setting)
    if kind is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Option(setting.default, flag, help=f"{help_text(setting)}."),
        annotation=kind,
    )


def _kind(setting: Field[Any]) -> Any:
    """Return the type that an option has on the command line; lists are text."""
    if setting.default is not None:
        return type(setting.default)
    return float | None if setting.metadata["unit"] else str | None


def is_default(context: typer.Context, option: str) -> bool:
    """Return whether an option of the running command has its default."""
    source = context.get_parameter_source(option)
    return source is None or source.name == "DEFAULT"


def as_channels(
    text: str | None, images: Iterable[str | Path]
) -> tuple[int, ...] | None:
    """Return the numbers of channels in a text such as ``0,2`` or ``DAPI,GFP``.

    Names are those of all the images.
    """
    if text is None:
        return None
    from ..io.channel_choice import channel_numbers

    return channel_numbers(as_words(text), images)


def as_corner(text: str) -> tuple[int, int]:
    """Return y and x of a text such as ``16,40``."""
    try:
        y, x = (int(word) for word in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{TWO_NUMBERS}, got {text!r}") from error
    return y, x


def as_words(text: str | None) -> list[str]:
    """Return the words of a text, parted by commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def check_settings(settings: dict[str, Any]) -> None:
    """Refuse settings out of range and unknown devices, before anything is read."""
    try:
        split_settings(settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def check_model(model: str) -> None:
    """Refuse an unknown model, and name those that there are."""
    from ..io.model_store import ModelFormatError, find_model

    try:
        find_model(model)
    except ModelFormatError as error:
        raise typer.BadParameter(str(error)) from error
