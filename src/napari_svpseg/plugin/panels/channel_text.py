"""Channels as the user types them."""

from __future__ import annotations

CHANNELS_TIP = "Channels to use, up to three, such as 0, 2"


def channel_text(channels: tuple[int, ...] | None) -> str:
    """Return channels as text; empty for all of them."""
    return ", ".join(map(str, channels or ()))


def named_channels(names: tuple[str, ...]) -> str:
    """Return channels with their numbers as text.

    Examples
    --------
    >>> named_channels(("DAPI", "GFP"))
    '0 DAPI, 1 GFP'
    """
    return ", ".join(f"{i} {name}" for i, name in enumerate(names))


def parse_channels(
    text: str, n: int, names: tuple[str, ...] = ()
) -> tuple[int, ...] | None:
    """Return the channels named in a text such as ``0, 2``; None for all.

    Parameters
    ----------
    text : str
    n : int
        Number of channels that there are.
    names : tuple of str
        Their names, which may be written in place of the numbers.

    Raises
    ------
    ValueError
        For anything but up to three different channels.

    Examples
    --------
    >>> parse_channels("0, 2", 4)
    (0, 2)
    >>> parse_channels("gfp", 2, ("DAPI", "GFP"))
    (1,)
    """
    known = {name.lower(): str(i) for i, name in enumerate(names)}
    parts = [part.strip() for part in text.split(",")]
    parts = [known.get(part.lower(), part) for part in parts]
    words = [known.get(word.lower(), word) for part in parts for word in part.split()]
    if not words or words == ["all"]:
        return None
    taken = tuple(int(w) for w in words if w.isdecimal() and int(w) < n)
    if len(taken) != len(words) or len(set(taken)) != len(taken) or len(taken) > 3:
        raise ValueError(
            f"Choose up to three channels from 0 to {n - 1}, such as 0, 1; "
            f"got '{text}'."
        )
    return taken
