"""Global, local and refined prototypes."""

from __future__ import annotations

import math

import pytest
import torch

from napari_svpseg.models.alpnet import (
    LocalPrototypeSegmenter,
    class_shares,
    soft_maximum,
    windows,
)
from napari_svpseg.models.dspnet import (
    DetailPrototypeSegmenter,
    attend_clusters,
    banded,
    cluster_seeds,
    foreground_clusters,
    resemblance,
)
from napari_svpseg.models.panet import PrototypeSegmenter

TINY = {"width": 8, "features": 16}


def seeded(kind, **arguments):
    torch.manual_seed(0)
    return kind(**TINY, **arguments).eval()


def episode(n: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    images = torch.randn(1, n, 3, 64, 64, generator=g)
    masks = torch.zeros(1, n, 64, 64, dtype=torch.int64)
    masks[..., 8:32, 8:40] = 1
    masks[..., 44:60, 40:60] = 2
    images += 2.0 * (masks > 0)[:, :, None]
    return images, masks, torch.randn(1, 3, 48, 52, generator=g)


def answer(model, images, masks, query) -> torch.Tensor:
    with torch.inference_mode():
        return model(query, model.encode_prompts(images, masks))["foreground"]


# ------------------------------------------------------------------- local prototypes


def test_shares_are_area_means_and_padding_belongs_to_nobody():
    masks = torch.zeros(1, 6, 8, dtype=torch.int64)
    masks[0, :2, :4] = 1
    masks[0, :, 6:] = -1
    background, foreground = class_shares(masks, (2, 2))[0]
    assert foreground.tolist() == [[0.5, 0.0], [0.0, 0.0]]
    assert background.tolist() == [[0.5, 0.5], [0.5, 0.25]]


def test_windows_are_means_without_overlap():
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert windows(maps, 2)[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]


def test_soft_maximum_is_near_the_largest_score_that_counts():
    scores = torch.tensor([0.0, 18.0, 20.0])[None, :, None, None]
    full = soft_maximum(scores, torch.tensor([[0.0, 0.0, 0.0]]))
    assert math.isclose(
        float(full), (18 * math.exp(-2) + 20) / (1 + math.exp(-2)), rel_tol=1e-5
    )
    assert math.isclose(
        float(soft_maximum(scores, torch.tensor([[0.0, 0.0, -1e4]]))),
        18.0,
        rel_tol=1e-5,
    )
    assert float(soft_maximum(scores, torch.full((1, 3), -1e4))) == 0


def test_windows_count_by_coverage_and_thin_objects_by_half():
    model = seeded(LocalPrototypeSegmenter)
    covered = torch.tensor([[1.0, 0.97, 0.6, 0.0], [0.8, 0.6, 0.4, 0.0]])
    assert model.counting(covered).tolist() == [
        [True, True, False, False],
        [True, True, False, False],
    ]
    assert not model.counting(torch.full((1, 4), 0.3)).any()


def test_the_foreground_always_has_its_global_prototype_the_background_in_need():
    model = seeded(LocalPrototypeSegmenter)
    images, masks, _ = episode()
    with torch.inference_mode():
        code = model.encode_prompts(images, masks)
        assert float(code["foreground_bias"][0, 0]) == 0
        assert float(code["background_bias"][0, 0]) < -1
        thin = torch.zeros_like(masks)
        thin[..., ::8, :] = 1
        everywhere = model.encode_prompts(images, (thin == 0).long())
    assert float(everywhere["background_bias"][0, 0]) == 0
    assert int((everywhere["background_bias"] == 0).sum()) == 1


def test_without_local_prototypes_it_is_a_global_method():
    images, masks, query = episode()
    globally = seeded(LocalPrototypeSegmenter, local_prototypes=False)
    plain = seeded(PrototypeSegmenter)
    plain.load_state_dict(globally.state_dict())
    there = answer(globally, images, masks, query)
    # its masks are met at stride 4, those of PANet at full resolution
    agree = (there > 0) == (answer(plain, images, masks, query) > 0)
    assert float(agree.float().mean()) > 0.9
    local = seeded(LocalPrototypeSegmenter)
    assert (answer(local, images, masks, query) - there).abs().max() > 1e-2


@pytest.mark.parametrize("kind", [PrototypeSegmenter, LocalPrototypeSegmenter])
def test_flipping_prompt_and_query_flips_the_answer_of_averaged_features(kind):
    model = seeded(kind)

    def averaged(image: torch.Tensor) -> torch.Tensor:
        turned = [torch.rot90(image, k, (2, 3)) for k in range(4)]
        flipped = [t.flip(3) for t in turned]
        features = [original(t) for t in (*turned, *flipped)]
        back = [*features[:4], *(f.flip(3) for f in features[4:])]
        return torch.stack(
            [torch.rot90(f, -(k % 4), (2, 3)) for k, f in enumerate(back)]
        ).mean(0)

    original, model.embeddings = model.embeddings, averaged
    images, masks, _ = episode()
    query = torch.randn(1, 3, 64, 64)
    there = answer(model, images, masks, query)
    mirrored = answer(model, images.flip(4), masks.flip(3), query.flip(3))
    torch.testing.assert_close(mirrored.flip(3), there, atol=1e-4, rtol=1e-4)


def test_swapping_roles_turns_the_answer_around():
    """Not exactly, as only the foreground always has a global prototype."""
    images, masks, _ = episode()
    query = images[:, 0]
    model = seeded(LocalPrototypeSegmenter)
    there = answer(model, images, masks, query) > 0
    swapped = answer(model, images, (masks == 0).long(), query) > 0
    assert float((there != swapped).float().mean()) > 0.75


@pytest.mark.parametrize(
    "kind", [PrototypeSegmenter, LocalPrototypeSegmenter, DetailPrototypeSegmenter]
)
def test_the_alignment_loss_reaches_the_encoder(kind):
    model = seeded(kind).train()
    images, masks, query = episode(2)
    maps = model(query, model.encode_prompts(images, masks))
    parts = model.regularise(query, maps, images, masks)
    parts["alignment"].backward()
    assert float(model.encoder.stem[0].weight.grad.abs().max()) > 0
    maps["foreground"] = torch.full_like(maps["foreground"], -1)
    assert model.regularise(query, maps, images, masks) == {}


# ----------------------------------------------------------------- refined prototypes


def test_forms_of_resemblance_agree_where_prompt_and_query_are_one():
    maps = torch.randn(2, 8, 6, 6)
    released = resemblance(maps, maps, 0.2, "released")
    torch.testing.assert_close(resemblance(maps, maps, 0.2, "intended"), released)
    other = torch.randn(2, 8, 6, 6)
    difference = resemblance(maps, other, 0.2, "intended") - resemblance(
        maps, other, 0.2, "released"
    )
    assert difference.abs().max() > 0.1


def test_resemblance_takes_a_query_of_any_size():
    maps, query = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 9, 3)
    for form in ("intended", "released"):
        assert resemblance(maps, query, 0.1, form).shape == maps.shape


def test_seeds_are_deep_inside_and_apart():
    inside = torch.zeros(2, 16, 16, dtype=torch.bool)
    inside[0, 2:9, 2:9] = True
    inside[0, 11:15, 11:15] = True
    inside[1, :2, :2] = True
    seeds, counts = cluster_seeds(inside, seed_area=16)
    assert divmod(int(seeds[0, 0]), 16) == (5, 5)
    assert counts.tolist() == [[True] * 4 + [False], [False] * 5]
    assert len(set(seeds[0].tolist())) == 5
    assert inside[0].flatten()[seeds[0, :4]].all()


def test_a_small_foreground_has_one_cluster_its_mean():
    maps, share = torch.randn(1, 8, 16, 16), torch.zeros(1, 16, 16)
    share[0, 3:5, 3:5] = 1
    clusters, bias = foreground_clusters(maps, share, seed_area=20)
    assert bias.tolist() == [[0, -1e4, -1e4, -1e4, -1e4]]
    torch.testing.assert_close(
        clusters[0, 0], maps[0, :, 3:5, 3:5].mean((1, 2)), atol=1e-4, rtol=1e-4
    )


def test_clusters_find_two_kinds_of_foreground():
    maps = torch.zeros(1, 2, 16, 16)
    maps[0, 0, :, :8], maps[0, 1, :, 8:] = 50.0, 50.0
    share = torch.zeros(1, 16, 16)
    share[0, 4:12, 1:7] = share[0, 4:12, 9:15] = 1
    clusters, _ = foreground_clusters(maps, share, seed_area=20)
    kinds = {tuple(round(v) for v in c) for c in clusters[0].tolist()}
    assert kinds == {(50, 0), (0, 50)}


def test_each_pixel_picks_its_cluster_in_the_intended_form():
    clusters = torch.tensor([[[9.0, 0.0], [0.0, 9.0], [5.0, 5.0]]])
    bias = torch.tensor([[0.0, 0.0, -1e4]])
    maps = torch.zeros(1, 2, 1, 2)
    maps[0, :, 0, 0], maps[0, :, 0, 1] = (
        torch.tensor([9.0, 0.0]),
        torch.tensor([0.0, 9.0]),
    )
    picked = attend_clusters(maps, clusters, bias, "intended")
    torch.testing.assert_close(picked, maps, atol=1e-3, rtol=0)
    released = attend_clusters(maps, clusters, bias, "released")
    assert torch.isfinite(released).all()


def test_channels_start_as_a_band_whose_ends_are_left_alone():
    matrix = banded(4, (0.1, 0.8, 0.2))
    expected = torch.tensor(
        [
            [1.0, 0, 0, 0],
            [0.1, 0.8, 0.2, 0],
            [0, 0.1, 0.8, 0.2],
            [0, 0, 0, 1.0],
        ]
    )
    torch.testing.assert_close(matrix, expected)


@pytest.mark.parametrize("form", ["intended", "released"])
@pytest.mark.parametrize("part", ["ran", "fspa", "bcma"])
def test_each_part_matters_and_can_be_switched_off(form, part):
    images, masks, query = episode(2)
    full = answer(seeded(DetailPrototypeSegmenter, form=form), images, masks, query)
    without = answer(
        seeded(DetailPrototypeSegmenter, form=form, **{part: False}),
        images,
        masks,
        query,
    )
    assert torch.isfinite(full).all()
    assert not torch.equal(full, without)


def test_without_its_parts_it_is_the_local_method():
    images, masks, query = episode(2)
    bare = seeded(DetailPrototypeSegmenter, ran=False, fspa=False, bcma=False)
    local = seeded(LocalPrototypeSegmenter)
    local.load_state_dict(bare.state_dict(), strict=False)
    torch.testing.assert_close(
        answer(bare, images, masks, query), answer(local, images, masks, query)
    )


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="'other'"):
        DetailPrototypeSegmenter(form="other")
