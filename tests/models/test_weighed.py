"""Evidence that grows with the prompts: exact, repeatable, and never worse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_svpseg.engine.training.synthetic import draw_scene
from napari_svpseg.io.model_store import load_model
from napari_svpseg.models.base import IGNORE
from napari_svpseg.models.weighed import (
    PromptFit,
    classified,
    fit_classifier,
    random_layer,
    weigh,
)

LAYER = random_layer(6)


def pixels(n_prompts: int = 3, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Return features (K, 64, 6) of two classes, and the share of each class."""
    g = torch.Generator().manual_seed(seed)
    foreground = (torch.rand(n_prompts, 64, generator=g) > 0.6).float()
    x = torch.randn(n_prompts, 64, 6, generator=g)
    x[..., 0] += 3 * foreground
    return x, foreground, 1 - foreground


def test_leaving_a_prompt_out_is_the_fit_of_the_others() -> None:
    x, foreground, background = pixels()
    whole = PromptFit(x, foreground, background, LAYER)
    others = PromptFit(x[[0, 2]], foreground[[0, 2]], background[[0, 2]], LAYER)
    left, right = whole.weights(0.01, without=1), others.weights(0.01)
    torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-3)


def test_prompts_that_show_less_than_a_pixel_of_a_class_are_no_test() -> None:
    x, foreground, background = pixels(2)
    background[0] *= 0.5 / background[0].sum()  # a border of unknown pixels
    blind = {k: 0 * foreground[k] + 1 for k in range(2)}
    fit = PromptFit(x, foreground, background, LAYER)
    assert [fit.shows_both(k) for k in range(2)] == [True, False]
    assert fit_classifier(x, foreground, background, {1: blind[1]}, LAYER) is None
    found = fit_classifier(x, foreground, background, blind, LAYER)
    assert found is None or found["weighed_ridge"].isfinite().all()
    nothing = [0 * foreground, background]
    assert fit_classifier(x, *nothing, blind, LAYER) is None


def test_the_classifier_knows_its_pixels_block_by_block() -> None:
    x, foreground, background = pixels()
    ridge = PromptFit(x, foreground, background, LAYER).weights(0.001)
    rows = x.flatten(0, 1)
    found = classified(rows, ridge, LAYER)
    assert ((found > 0) == (foreground.flatten() > 0)).float().mean() > 0.9
    many = rows.repeat(30, 1)  # more than a block
    torch.testing.assert_close(classified(many, ridge, LAYER)[: len(rows)], found)


def test_unknown_prompts_change_nothing() -> None:
    x, foreground, background = pixels()
    blind = {k: 0 * foreground[k] + 1 for k in range(3)}  # the network finds all
    one = fit_classifier(x, foreground, background, blind, LAYER)
    more = [torch.cat([t, 0 * t[:1]]) for t in (foreground, background)]
    two = fit_classifier(torch.cat([x, x[:1] + 9]), *more, blind, LAYER)
    assert one is not None and two is not None
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-3)
    assert fit_classifier(x, foreground, background, {}, LAYER) is None


def test_nothing_is_added_to_a_network_that_finds_hidden_prompts() -> None:
    x, foreground, background = pixels()
    blind = {k: 2 * foreground[k] - 1 for k in range(3)}
    assert fit_classifier(x, foreground, background, blind, LAYER) is None


@pytest.mark.parametrize("good", [0, 1])
def test_what_predicts_hidden_prompts_counts_more(good: int) -> None:
    g = torch.Generator().manual_seed(2)
    foreground = (torch.rand(900, generator=g) > 0.7).float()
    scores = torch.randn(900, 2, generator=g)
    scores[:, good] += 4 * (2 * foreground - 1)
    weights = weigh(scores, foreground, 1 - foreground, 300)
    assert weights[good] > 3 * weights[1 - good]
    scores[:, 1 - good] = -scores[:, good] + scores[:, 1 - good]
    weights = weigh(scores, foreground, 1 - foreground, 300)
    assert (weights >= 0).all() and weights[good] > 0


def test_few_prompts_do_not_silence_a_network_that_finds_them() -> None:
    g = torch.Generator().manual_seed(2)
    foreground = (torch.rand(900, generator=g) > 0.5).float()
    noise = torch.randn(900, 2, generator=g) * torch.tensor([4.0, 1.0])
    scores = 3 * (2 * foreground - 1)[:, None] + noise
    few, many = (weigh(scores, foreground, 1 - foreground, n) for n in (3, 3000))
    assert few[0] / few[1] > 3 * many[0] / many[1]


def test_one_class_in_what_is_hidden_gives_finite_weights() -> None:
    scores = torch.full((50, 2), 7.0)
    nothing = torch.zeros(50)
    assert torch.isfinite(weigh(scores, nothing, nothing + 1, 1)).all()
    assert torch.isfinite(weigh(scores, nothing, nothing, 1)).all()


# -- with the shipped weights ------------------------------------------------------


def scene(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return four prompts, their masks, a query, and its mask."""
    drawn = draw_scene(seed)
    image, ids = drawn.images[0], drawn.kinds[0][0]
    plane = (torch.from_numpy(image).permute(2, 0, 1).float() - 128) / 64
    mask = torch.from_numpy(ids.astype(np.int64))
    corners = [(0, 0), (0, 64), (64, 0), (64, 64)]
    prompts = torch.stack([plane[:, y : y + 64, x : x + 64] for y, x in corners])
    masks = torch.stack([mask[y : y + 64, x : x + 64] for y, x in corners])
    return prompts, masks, plane[:, -128:, -128:], mask[-128:, -128:]


def found_by(prompts: torch.Tensor, masks: torch.Tensor, query: torch.Tensor):
    network = load_model("svp").network.eval()
    with torch.inference_mode():
        code = network.encode_prompts(prompts[None], masks[None])
        return code, network(query[None], code)["foreground"][0, 0]


def test_one_or_two_prompts_keep_the_network_alone() -> None:
    prompts, masks, query, _ = scene(7)
    for n in (1, 2):
        code, _ = found_by(prompts[:n], masks[:n], query)
        assert not any(name.startswith("weighed") for name in code)
    code, _ = found_by(prompts, masks, query)
    assert {"weighed_ridge", "weighed_factors"} <= set(code)


def test_the_answer_is_repeatable_and_bears_unknown_pixels() -> None:
    prompts, masks, query, _ = scene(7)
    masks[:, :20] = IGNORE
    masks[1, :, 40:] = IGNORE
    first, again = (found_by(prompts, masks, query)[1] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.isfinite(first).all()
    masks[3] = IGNORE  # a prompt of which nothing is known
    assert torch.isfinite(found_by(prompts, masks, query)[1]).all()


@pytest.mark.parametrize(("seed", "gain"), [(1, -0.02), (7, 0.015), (9, 0.015)])
def test_a_second_true_prompt_never_hurts(seed: int, gain: float) -> None:
    prompts, masks, query, truth = scene(seed)
    scores = []
    for n in (1, 2, 4):
        inside = found_by(prompts[:n], masks[:n], query)[1] > 0
        both = (inside & (truth > 0)).sum()
        scores.append(float(2 * both / (inside.sum() + (truth > 0).sum())))
    assert scores[1] > scores[0] - 0.02
    assert scores[2] > scores[1] - 0.02
    # without `models.weighed` four gained a point at most
    assert scores[2] > scores[0] + gain
