"""The content hash: what weights, prompts, images and settings are known by."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Content = bytes | str | np.ndarray | Mapping[str, object]

WHOLE_BYTES = 64 * 2**20
"""Size up to which content is hashed as a whole; of more, only `SAMPLES`."""

SAMPLES = 64
"""Parts of large content that are hashed."""

SAMPLE_SIDE, SAMPLE_DEPTH = 128, 2
"""Pixels of a sample along the two longest axes of an array, and along the others."""


def fingerprint(*parts: Content) -> str:
    """Return the SHA-256 of some content as 64 hexadecimal digits.

    Parameters
    ----------
    *parts : bytes, str, array or mapping
        Hashed one after the other: bytes as they are, so that the fingerprint of a
        file's content is what ``sha256sum`` gives; text as UTF-8; arrays by their
        values in C order, without shape and data type; mappings as JSON with sorted
        keys.

    Examples
    --------
    >>> fingerprint(b"ab") == fingerprint("a", np.array([98], np.uint8))
    True
    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(np.ascontiguousarray(part).data)
        elif isinstance(part, Mapping):
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        else:
            digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def array_fingerprint(array: Any, *, whole: bool = False) -> str:
    """Return the fingerprint of an array with its shape and type; lazy ones are read.

    Of an array larger than `WHOLE_BYTES`, `SAMPLES` windows are hashed, at places that
    depend on its shape only: a change between them is not noticed.

    Parameters
    ----------
    array : array
        Slicing it returns a numpy array, or one that becomes a numpy array.
    whole : bool
        Hash all of it, however large.

    Examples
    --------
    >>> a = np.zeros((2, 3), np.uint8)
    >>> array_fingerprint(a) == array_fingerprint(a.reshape(3, 2))
    False
    """
    shape, dtype = tuple(int(n) for n in array.shape), np.dtype(array.dtype)
    about: dict[str, object] = {"shape": shape, "dtype": dtype.str}
    if whole or math.prod(shape) * dtype.itemsize <= WHOLE_BYTES:
        return fingerprint(about, np.asarray(array[...]))
    longest = sorted(range(len(shape)), key=lambda axis: -shape[axis])[:2]
    sides = [
        min(n, SAMPLE_SIDE if axis in longest else SAMPLE_DEPTH)
        for axis, n in enumerate(shape)
    ]
    # spread at random, as patterns in images are regular
    starts = np.random.default_rng(0).random((SAMPLES, len(shape)))
    parts = []
    for start in starts:
        window = []
        for at, n, side in zip(start, shape, sides, strict=True):
            first = int(at * (n - side + 1))
            window.append(slice(first, first + side))
        parts.append(np.asarray(array[tuple(window)]))
    return fingerprint(about, *parts)
