"""The content hash is SHA-256, and tells apart what differs."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from napari_svpseg.core.fingerprint import fingerprint
from napari_svpseg.core.prompt import prompt_hash


def test_the_fingerprint_of_bytes_is_their_sha256():
    assert fingerprint(b"weights") == hashlib.sha256(b"weights").hexdigest()
    assert fingerprint("a", b"b", {"c": 1}) == fingerprint(b'ab{"c": 1}')


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_count_by_their_values_in_any_memory_order(dtype, order):
    array = np.arange(60).reshape(3, 4, 5).astype(dtype)
    stored = np.asarray(array, order=order)
    assert fingerprint(stored) == fingerprint(array.tobytes())
    assert fingerprint(stored[::2, 1:]) == fingerprint(array[::2, 1:].tobytes())
    assert fingerprint(stored[:0]) == fingerprint(b"")


def test_the_order_of_settings_does_not_count_and_their_values_do():
    one = {"steps": 3, "sides": [1, 2]}
    assert fingerprint(one) == fingerprint(dict(reversed(one.items())))
    assert fingerprint(one) != fingerprint(one | {"steps": 4})


def test_the_fingerprint_of_a_prompt_is_that_of_its_pixels(disc_prompt):
    known = hashlib.sha256(disc_prompt.image.tobytes() + disc_prompt.mask.tobytes())
    assert prompt_hash(disc_prompt) == known.hexdigest()
    assert prompt_hash(replace(disc_prompt, name="other")) == known.hexdigest()
    changed = replace(disc_prompt, image=disc_prompt.image + 1)
    assert prompt_hash(changed) != known.hexdigest()
