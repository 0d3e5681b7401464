"""Channels of image files that are chosen by number or by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..core.image import ImageError
from .ome_zarr import read_channel_names

NO_NAMES = "{path}: its channels have no names: choose them by number, such as 0,2"
NO_SUCH_CHANNEL = "{path}: it has no channel {word!r}, it has {known}"
OTHER_PLACES = (
    "{path}: {words} are its channels {numbers}, in {first} they are {others}: give "
    "these images in runs of their own"
)


def channel_numbers(
    words: Sequence[str], paths: Iterable[str | Path]
) -> tuple[int, ...]:
    """Return the numbers of channels that are the same ones in all of some images.

    Parameters
    ----------
    words : sequence of str
        Numbers from 0, and names in any letter case.
    paths : iterable of path
        Only opened where one of the words is a name.

    Raises
    ------
    ImageError
        If an image has no channel of that name, or at another place than the first.
    """
    if all(word.isdecimal() for word in words):
        return tuple(map(int, words))
    found: tuple[int, ...] = ()
    first: str | Path = ""
    for path in paths:
        numbers = _numbers_in(words, path)
        if first and numbers != found:
            raise ImageError(
                OTHER_PLACES.format(
                    path=path,
                    words=", ".join(words),
                    numbers=", ".join(map(str, numbers)),
                    first=Path(first).name,
                    others=", ".join(map(str, found)),
                )
            )
        found, first = numbers, first or path
    return found


def _numbers_in(words: Sequence[str], path: str | Path) -> tuple[int, ...]:
    """Return the numbers of channels in one image."""
    names = read_channel_names(path)
    if not names:
        raise ImageError(NO_NAMES.format(path=path))
    folded = [name.casefold() for name in names]
    numbers = []
    for word in words:
        if word in names:
            numbers.append(names.index(word))
        elif folded.count(word.casefold()) == 1:
            numbers.append(folded.index(word.casefold()))
        elif word.isdecimal():
            numbers.append(int(word))
        else:
            known = ", ".join(names)
            raise ImageError(NO_SUCH_CHANNEL.format(path=path, word=word, known=known))
    return tuple(numbers)
