"""The content hash: what weights, prompts, images and settings are known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

Content = bytes | str | np.ndarray | Mapping[str, object]


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
