"""Part of the labels is kept out of training to check a model with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_svpseg.core.annotation.partial_labels import (
    UNKNOWN,
    PartialLabelError,
    from_labels,
    to_ids,
)
from napari_svpseg.core.annotation.validation_split import (
    NOT_ASKED_FOR,
    NOTHING_TO_TRAIN_ON,
    TOO_FEW_LABELS,
    split_validation,
)


def squares(*corners, side=8, shape=(64, 64)):
    labels = np.zeros(shape, np.int32)
    for i, (y, x) in enumerate(corners, 1):
        labels[y : y + side, x : x + side] = i
    return labels


LABELS = squares((4, 4), (4, 40), (40, 4), (40, 40))


def boxed(n_images, boxes=((0, 0, 24, 24), (36, 36, 24, 24))):
    return [to_ids(from_labels(LABELS, boxes)) for _ in range(n_images)]


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 4), share=st.floats(0.05, 0.6), seed=st.integers(0, 1000),
    whole=st.booleans(),
)  # fmt: skip
def test_validation_and_training_have_objects_and_background(n, share, seed, whole):
    ids = [LABELS] * n if whole else boxed(n)
    held = split_validation(ids, share, seed)
    assert held.n_pixels > 0 and held.notes == ()
    for a, mask in zip(ids, held.masks, strict=True):
        assert not (mask & (a == UNKNOWN)).any()
    rest = [~m & (a != UNKNOWN) for m, a in zip(held.masks, ids, strict=True)]
    for masks in (held.masks, rest):
        values = np.concatenate([a[m] for a, m in zip(ids, masks, strict=True)])
        assert (values > 0).any() and (values == 0).any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_objects_are_never_divided(seed):
    held = split_validation([LABELS], 0.3, seed).masks[0]
    for i in range(1, 5):
        assert len(np.unique(held[i == LABELS])) == 1


def test_the_split_depends_on_the_seed_only():
    first, again = (split_validation(boxed(3), 0.25, 5) for _ in range(2))
    assert all(
        np.array_equal(a, b) for a, b in zip(first.masks, again.masks, strict=True)
    )
    others = [split_validation(boxed(3), 0.25, s) for s in range(8)]
    assert len({tuple(m.sum() for m in o.masks) for o in others}) > 1


def test_chosen_images_are_kept_for_validation_whole():
    held = split_validation(boxed(3), 0.25, whole=[1])
    assert [bool(m.any()) for m in held.masks] == [False, True, False]
    with pytest.raises(PartialLabelError, match=NOTHING_TO_TRAIN_ON):
        split_validation(boxed(2), 0.25, whole=[0, 1])


def test_no_validation_part_if_not_wanted_or_too_few_labels():
    assert split_validation(boxed(2), 0.0).notes == (NOT_ASKED_FOR,)
    tiny = np.full((64, 64), UNKNOWN)
    tiny[4:8, 4:8], tiny[8:12, 4:8] = 1, 0
    held = split_validation([tiny], 0.25)
    assert held.n_pixels == 0 and held.notes == (TOO_FEW_LABELS,)
