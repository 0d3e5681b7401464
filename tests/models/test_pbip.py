"""Prototype image prompting: prototypes, maps, contrast, and the memory."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from napari_svpseg.models import pbip as P
from napari_svpseg.models import prototype_memory as M
from napari_svpseg.models.base import SemanticSegmenter
from napari_svpseg.models.registry import ModelConfig, build
from napari_svpseg.models.semantic import UNKNOWN, Trunk, semantic_loss

TRUNK = {"widths": (4, 8, 8, 8), "depths": (1, 1, 1), "pixel_features": 8}
LENGTH = 8 + 8 + 8 + 8


def network(method: str, classes: int = 2, **arguments) -> SemanticSegmenter:
    torch.manual_seed(0)
    if method == "pbip":
        arguments = {"features": LENGTH} | arguments
    built = build(ModelConfig(method, {"classes": classes} | TRUNK | arguments))
    if method == "pbip":
        generator = torch.Generator().manual_seed(1)
        bank = torch.randn(built.bank.shape, generator=generator)
        built.set_bank(F.normalize(bank, dim=-1), torch.ones_like(built.filled))
    return built.eval()


@pytest.mark.parametrize("method", ["pbip", "pbip-seed", "semantic"])
@pytest.mark.parametrize("shape", [(64, 64), (1, 1), (17, 66), (33, 20)])
@pytest.mark.parametrize("classes", [1, 3])
def test_classes_of_any_image_are_told(method, shape, classes):
    built = network(method, classes)
    with torch.inference_mode():
        answer = built(torch.randn(2, 3, *shape), {})["classes"]
    assert answer.shape == (2, classes + 1, *shape) and answer.isfinite().all()
    assert not built.needs_prompt and built.encode_prompts(answer, answer) == {}


def test_odd_networks_are_refused():
    with pytest.raises(ValueError, match=r"classes.* 0$"):
        network("semantic", 0)
    with pytest.raises(ValueError, match=r"scale.* 0\.0$"):
        network("semantic", 1, scale=0.0)


def test_the_trunk_takes_the_weights_of_the_default_model():
    svp = build(ModelConfig("svp", TRUNK | {"features": 8, "decoder": (8, 8, 8)}))
    trunk = Trunk(**TRUNK)
    assert trunk.take_weights(svp)
    image = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        _, pyramid, pixels = svp.features(image)
        mine = trunk(image)
    torch.testing.assert_close(mine[0], pixels)
    torch.testing.assert_close(mine[1], pyramid)
    assert not Trunk((4, 8, 8, 16), (1, 1, 1), 8).take_weights(svp)


# ------------------------------------------------------------------------ clustering


def test_kmeans_finds_directions_whatever_their_length():
    generator = torch.Generator().manual_seed(0)
    truth = torch.eye(3, 5)
    vectors = truth.repeat_interleave(20, 0) + 0.05 * torch.randn(
        60, 5, generator=generator
    )
    vectors *= torch.rand(60, 1, generator=generator) + 0.5
    centres, index = P.cosine_kmeans(vectors, 3, generator)
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(3))
    assert (centres @ truth.T).amax(0).min() > 0.99
    assert all(len(index[i : i + 20].unique()) == 1 for i in (0, 20, 40))


def test_fewer_vectors_than_centres_and_equal_ones_do_no_harm():
    generator = torch.Generator().manual_seed(0)
    centres, _ = P.cosine_kmeans(torch.eye(2), 5, generator)
    assert centres.shape == (2, 2)
    centres, _ = P.cosine_kmeans(torch.ones(4, 3), 3, generator)
    assert centres.isfinite().all()


# -------------------------------------------------------------------------- contrast


def test_the_contrast_is_that_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    found, positive = F.normalize(torch.randn(2, 3, 4, generator=generator), dim=-1)
    negatives = F.normalize(torch.randn(3, 2, 4, generator=generator), dim=-1)
    near = torch.exp((found * positive).sum(1) / P.TEMPERATURE).sum()
    far = torch.exp((found[:, None] * negatives).sum(2) / P.TEMPERATURE).sum()
    expected = -math.log(float(near / (near + far)))
    loss = P.contrast_loss(found, positive, negatives)
    assert float(loss) == pytest.approx(expected, abs=1e-4)
    padded = torch.cat([negatives, torch.zeros(3, 1, 4)], dim=1)
    torch.testing.assert_close(P.contrast_loss(found, positive, padded), loss)


def cells() -> tuple[torch.Tensor, torch.Tensor]:
    """Images with a bright square, and the perfect map of each."""
    generator = torch.Generator().manual_seed(0)
    images = 0.2 * torch.randn(3, 3, 48, 48, generator=generator) - 1
    maps = torch.zeros(3, 48, 48)
    for i, (y, x) in enumerate([(4, 8), (20, 24), (8, 20)]):
        maps[i, y : y + 20, x : x + 20] = 1
    return images + 2 * maps[:, None], maps


@pytest.fixture
def encoder() -> P.BankEncoder:
    torch.manual_seed(0)
    built = P.BankEncoder(Trunk(**TRUNK))
    with torch.inference_mode():
        raw = built.places(cells()[0]).flatten(0, 2)
        built.standardise_by(raw)
    return built


def test_with_perfect_maps_the_contrast_falls_as_the_prototype_comes_near(encoder):
    images, maps = cells()
    generator = torch.Generator().manual_seed(3)
    bank = F.normalize(torch.randn(2, 1, LENGTH, generator=generator), dim=-1)
    others = F.normalize(torch.randn(1, LENGTH, generator=generator), dim=-1)
    target = encoder.regions(images, maps)[0].mean(0)
    chosen = (torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    losses = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        moved = bank.clone()
        moved[0, 0] = F.normalize((1 - share) * bank[0, 0] + share * target, dim=0)
        parts = P.match_losses(encoder, images, maps, moved, chosen, others)
        losses.append(float(parts["found"]))
    assert all(a > b for a, b in pairwise(losses)), losses


def test_the_contrast_reaches_the_maps_and_not_the_fixed_encoder(encoder):
    images, maps = cells()
    # not a cut of the map itself: only what is above the cut has a gradient there
    maps = (0.2 + 0.6 * maps).requires_grad_()
    bank = F.normalize(torch.randn(2, 1, LENGTH), dim=-1)
    chosen = (torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    parts = P.match_losses(encoder, images, maps, bank, chosen, bank[1])
    torch.stack(list(parts.values())).sum().backward()
    assert maps.grad.abs().sum() > 0
    assert all(p.grad is None for p in encoder.parameters())


# ------------------------------------------------------------------------------ maps


def test_maps_of_a_pixel_do_not_depend_on_far_away():
    built = network("pbip")
    image = torch.randn(1, 3, 256, 64)
    other = image.clone()
    other[..., 192:, :] = 5.0
    with torch.inference_mode():
        a, b = built.class_logits(image), built.class_logits(other)
    torch.testing.assert_close(a[..., :64, :], b[..., :64, :])


def test_a_look_that_is_not_there_takes_no_part():
    built = network("pbip", n_prototypes=2)
    filled = torch.tensor([[True, False], [True, True]])
    bank = built.bank.clone()
    image = torch.randn(1, 3, 32, 32)
    answers = []
    for seed in (0, 1):
        bank[0, 1] = torch.randn(LENGTH, generator=torch.Generator().manual_seed(seed))
        built.set_bank(bank, filled)
        with torch.inference_mode():
            answers.append((built.class_logits(image), built.tag_scores(image)))
    torch.testing.assert_close(answers[0], answers[1])


def test_background_is_what_is_like_no_class():
    maps = torch.tensor([0.0, 0.1, 0.9]).reshape(1, 1, 1, 3)
    scores = P.with_background(maps)
    assert scores.argmax(1).flatten().tolist() == [0, 0, 1]
    assert scores[0, 0, 0, 1] == pytest.approx(0.9**P.BACKGROUND_POWER)


def test_pseudo_masks_leave_out_what_is_undecided():
    scores = torch.tensor([[0.1, 0.5], [0.2, 0.45], [0.9, 0.0]]).T.reshape(1, 2, 1, 3)
    scores = torch.cat([torch.zeros(1, 1, 1, 3), scores], dim=1)
    assert P.pseudo_mask(scores).flatten().tolist() == [2, 2, 1]
    close = torch.tensor([0.0, 0.50, 0.45]).reshape(1, 3, 1, 1)
    assert P.pseudo_mask(close).item() == UNKNOWN


@pytest.mark.parametrize("method", ["pbip", "pbip-seed"])
def test_scores_of_an_image_leave_out_what_its_tags_do_not_name(method):
    built = network(method)
    windows = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        scores = built.image_scores(windows, torch.tensor([1.0, 0.0]))
    assert scores.shape == (3, 3, 32, 32) and (scores[:, 2] == 0).all()
    assert (scores >= 0).all() and (scores <= 1).all() and scores[:, 1].max() > 0


# ---------------------------------------------------------------------------- memory


def test_the_memory_moves_towards_sure_pixels_only():
    built = network("pbip-seed", n_prototypes=1, features=8)
    before = built.memory.clone()
    features = torch.zeros(1, 8, 4, 4)
    features[:, 3] = 2.0
    scores = torch.zeros(1, 2, 4, 4)
    scores[:, 1, 0, 0], scores[:, 0] = 0.9, 0.5
    built.update_memory(features, scores)
    torch.testing.assert_close(built.memory[0], before[0])
    assert built.memory[1, 0, 3] > before[1, 0, 3]
    assert built.memory.norm(dim=-1).allclose(torch.ones(2, 1))


def test_labels_of_activations_are_strong_weak_or_unknown():
    scores = torch.tensor([[0.5, 0.1, 0.3], [0.2, 0.05, 0.9]]).reshape(1, 2, 1, 3)
    assert M.cam_labels(scores).flatten().tolist() == [1, 0, 2]
    assert M.cam_labels(torch.full((1, 1, 1, 1), 0.3)).item() == UNKNOWN


def test_activations_are_normalised_and_only_of_tagged_classes():
    cam = torch.randn(2, 2, 5, 5)
    scores = M.normalised_cam(cam, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert scores[0, 1].max() == 0 and scores[1].amax((1, 2)).allclose(torch.ones(2))


def test_the_memory_contrast_is_small_where_regions_are_like_their_own():
    memory = torch.eye(2)[:, None]
    features = torch.zeros(1, 2, 2, 2)
    features[:, 0, 0], features[:, 1, 1] = 1.0, 1.0
    scores = features.clone()
    right = M.memory_contrast(features, scores, memory)
    wrong = M.memory_contrast(features, scores.flip(1), memory)
    assert right < 0.01 < wrong


def test_regions_that_agree_cost_nothing():
    logits = torch.randn(1, 3, 1, 1).expand(1, 3, 4, 4)
    regions = torch.arange(16).reshape(1, 4, 4) // 4
    assert M.region_loss(logits, regions) == pytest.approx(0, abs=1e-5)
    assert M.region_loss(torch.randn(1, 3, 4, 4), regions) > 0.01


# ---------------------------------------------------------------------- second stage


def test_unknown_pixels_do_not_count():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 4, 4, generator=generator)
    target = torch.ones(1, 4, 4, dtype=torch.int64)
    target[:, :2] = UNKNOWN
    changed = logits.clone()
    changed[..., :2, :] = torch.randn(1, 3, 2, 4, generator=generator)
    for a, b in zip(
        semantic_loss(logits, target).values(),
        semantic_loss(changed, target).values(),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    nothing = semantic_loss(logits, torch.full_like(target, UNKNOWN))
    assert all(value.isfinite() for value in nothing.values())


def test_the_network_of_the_second_stage_learns_one_image_by_heart():
    built = network("semantic", 1).train()
    images, maps = cells()
    optimizer = torch.optim.AdamW(built.parameters(), 3e-3)
    for _ in range(60):
        loss = sum(semantic_loss(built.class_logits(images), maps.long()).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = built.class_logits(images).argmax(1)
    overlap = 2 * (found * maps).sum() / (found.sum() + maps.sum())
    assert overlap > 0.97
