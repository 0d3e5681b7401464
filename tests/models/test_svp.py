"""The default method: what it sees of the prompts' masks."""

from __future__ import annotations

import torch

from napari_svpseg.models.svp import typical_size


def test_a_speck_does_not_change_the_size_that_the_decoder_is_told():
    mask = torch.zeros(2, 64, 64, dtype=torch.int64)
    mask[:, 10:30, 10:30] = 7
    mask[1, 50, 50] = 9
    plain, with_speck = typical_size(mask).tolist()
    assert plain == with_speck != 0
    assert typical_size(torch.zeros_like(mask)).tolist() == [0, 0]
