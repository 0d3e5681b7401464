"""The three forms of attention are one function."""

from __future__ import annotations

import pytest
import torch

from napari_svpseg.models.svp_attention import (
    AttentionSegmenter,
    chunked_attention,
    fused_attention,
    naive_attention,
)


def arrays(n: int, m: int, d: int, v: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(n + m)
    query, keys = torch.randn(2, n, d, generator=g), torch.randn(2, m, d, generator=g)
    bias = torch.randn(2, m, generator=g)
    bias[:, ::7] = -1e4
    return [query, keys, torch.rand(2, m, v, generator=g), bias]


@pytest.mark.parametrize(
    ("n", "m", "d", "v"), [(5, 3, 2, 2), (700, 256, 16, 2), (130, 64, 8, 20)]
)
def test_forms_agree(n, m, d, v):
    given = arrays(n, m, d, v)
    plain = naive_attention(*given)
    for other in (chunked_attention(*given, chunk=64), fused_attention(*given)):
        torch.testing.assert_close(other, plain, atol=1e-4, rtol=0)


def test_a_key_left_out_has_no_influence():
    query, keys, values, bias = arrays(50, 20, 8, 2)
    bias[:] = 0
    bias[:, 4] = -1e4
    before = fused_attention(query, keys, values, bias)
    values[:, 4] = 100
    torch.testing.assert_close(fused_attention(query, keys, values, bias), before)
    values[:, 5] = 100
    assert (fused_attention(query, keys, values, bias) - before).abs().max() > 1e-3


def test_a_pixel_like_nothing_gets_even_odds_when_classes_are_balanced():
    """A constant image matches all prompt pixels alike: only the class share speaks."""
    network = AttentionSegmenter(width=8, features=8).eval()
    masks = torch.zeros(1, 1, 64, 64, dtype=torch.int64)
    masks[..., :6] = 1  # 9 % foreground
    images = torch.zeros(1, 1, 3, 64, 64)
    with torch.inference_mode():
        code = network.encode_prompts(images, masks)
        code["keys"] = code["keys"][:, :1].expand_as(code["keys"])
        p = network(torch.zeros(1, 3, 16, 16), code)["foreground"].sigmoid()
    torch.testing.assert_close(p, torch.full_like(p, 0.5), atol=1e-3, rtol=0)


def test_the_released_form_compares_two_channels_at_temperature_one():
    network = AttentionSegmenter(width=8, form="released")
    assert network.embed.out_channels == 2
    assert float(network.temperature()) == 1
    with pytest.raises(ValueError, match="'other'"):
        AttentionSegmenter(form="other")
