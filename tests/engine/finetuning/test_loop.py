"""Training on partial labels: nothing is learned from unknown or validation pixels."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_svpseg.core.annotation.partial_images import FineTuneData, PartialImage
from napari_svpseg.core.annotation.partial_labels import (
    UNKNOWN,
    from_labels,
    to_ids,
)
from napari_svpseg.core.annotation.validation_split import split_validation
from napari_svpseg.core.image import intensity_range
from napari_svpseg.core.jobs.finetune_job import (
    FineTuneError,
    FineTuneSettings,
    ValidationScore,
)
from napari_svpseg.engine.finetuning.finetuner import FineTuner
from napari_svpseg.engine.finetuning.forgetting import MAX_FORGETTING, Forgetting
from napari_svpseg.engine.finetuning.label_crops import (
    NO_PLACE,
    Windows,
    cut_prompts,
)
from napari_svpseg.engine.finetuning.loop import (
    FORGOT_BACKGROUND,
    JOINED_OBJECTS,
    MAX_JOINED,
    NO_WHOLE_OBJECT,
    OUT_OF_TIME,
    STUDENT_KEPT,
    STUDENT_NOT_KEPT,
    finetune,
    keep_best,
)
from napari_svpseg.engine.finetuning.student import self_labelled
from napari_svpseg.engine.finetuning.validation import ValidationSet, count_joined
from napari_svpseg.engine.inference.device import choose
from napari_svpseg.engine.training.trainer import episode_loss
from napari_svpseg.models.base import PromptSegmenter
from napari_svpseg.models.losses import maps_loss
from napari_svpseg.models.registry import ModelConfig, build

SETTINGS = FineTuneSettings(steps=4, batch=2, seed=1)
START = ValidationScore(0.8, None, 400 * 64 * 64, 0)
BOXES = [(0, 0, 48, 48), (48, 48, 48, 48)]


def tiny():
    torch.manual_seed(0)
    return build(ModelConfig("panet", {"width": 4, "features": 8}))


def partial_image(image, ids, held=None, name="a"):
    plane = image[..., None]
    held = np.zeros(ids.shape, bool) if held is None else held
    return PartialImage(plane, intensity_range(plane), ids, held, name)


@pytest.fixture
def image(disc_scene):
    """Return the discs with two labelled boxes, one of them the validation set."""
    ids = to_ids(from_labels(disc_scene.labels, BOXES))
    held = np.zeros(ids.shape, bool)
    held[48:, 48:] = True
    return partial_image(disc_scene.image, ids, held)


@pytest.fixture
def windows(image):
    device = choose("cpu")
    prompts = cut_prompts([image], SETTINGS, tiny(), device)
    return Windows([image], prompts, 1.0, SETTINGS)


def test_prompts_come_from_training_labels(image):
    (prompt,) = cut_prompts([image], SETTINGS, tiny(), choose("cpu"))
    assert prompt.box.y + prompt.box.size <= 48 and prompt.box.x == 0
    assert prompt.n_objects == 2


def test_batches_are_the_same_for_the_same_number_and_seed(windows, image):
    first, again, next_one = windows[3], windows[3], windows[4]
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["query"], next_one["query"])


def test_windows_know_nothing_of_validation_labels(disc_scene, image, windows):
    unlike = image.ids.copy()
    unlike[image.validation] = np.where(unlike[image.validation] > 0, 0, 7)
    prompts = cut_prompts([image], SETTINGS, tiny(), choose("cpu"))
    other = Windows(
        [partial_image(disc_scene.image, unlike, image.validation)],
        prompts,
        1.0,
        SETTINGS,
    )
    for n in range(4):
        first, second = windows[n], other[n]
        assert all(torch.equal(first[k], second[k]) for k in first)


def test_unknown_pixels_are_known_as_such(windows):
    batch = windows[0]
    known, instances, outlines = (batch[k] for k in ("known", "instances", "outlines"))
    assert 0 < known.mean() < 1
    assert ((known == 0) & (instances + outlines > 0)).sum() == 0
    assert (batch["masks"] == UNKNOWN).any() and (batch["masks"] > 0).any()


def test_the_loss_counts_known_pixels_only(windows):
    batch = windows[0]
    maps = {
        k: torch.randn_like(batch["foreground"])
        for k in ("foreground", "distance", "boundary")
    }
    loss = maps_loss(maps, batch)
    unlike = dict(batch)
    for k in maps:
        unlike[k] = torch.where(batch["known"] == 0, 1 - batch[k], batch[k])
    assert all(torch.equal(v, loss[k]) for k, v in maps_loss(maps, unlike).items())
    unlike["foreground"] = 1 - batch["foreground"]  # but known ones do count
    assert maps_loss(maps, unlike)["foreground"] != loss["foreground"]


def test_the_anchor_is_nothing_at_the_start_and_grows(windows, tmp_path):
    settings = replace(SETTINGS, anchor=1.0, learning_rate=1e-2)
    tuner = FineTuner(tiny(), settings, tmp_path, torch.device("cpu"))
    assert tuner._backward(windows[0])["anchor"] == 0
    tuner.train_step(windows[0])
    tuner.optimizer.zero_grad()
    anchor = tuner._backward(windows[1])["anchor"]
    pulled = [p.grad.clone() for p in tuner.network.parameters()]
    tuner.optimizer.zero_grad()
    tuner.tuning = replace(settings, anchor=0.0)
    assert "anchor" not in tuner._backward(windows[1])
    moved = 0.0
    pairs = zip(tuner.network.parameters(), tuner.start.parameters(), strict=True)
    for gradient, (weight, start) in zip(pulled, pairs, strict=True):
        far = (weight - start).detach()
        moved += float(far.square().sum())
        torch.testing.assert_close(
            gradient - weight.grad, 2 * far, atol=1e-4, rtol=1e-2
        )
    assert 0 < float(anchor) == pytest.approx(moved, rel=1e-4)


def test_pseudo_labels_are_sure_away_from_borders_and_never_where_labels_are(
    windows, tmp_path, monkeypatch
):
    tuner = FineTuner(tiny(), SETTINGS, tmp_path, torch.device("cpu"))
    batch = windows[0]
    half = torch.zeros_like(batch["foreground"])
    half[..., : half.shape[-1] // 2] = 1
    monkeypatch.setattr(tuner, "average", TwoHalves())
    found, kept = tuner._pseudo_labels(batch)
    assert torch.equal(found, half)
    assert kept.sum() > 0 and not (kept * batch["known"]).any()
    middle = half.shape[-1] // 2
    assert not kept[..., middle - 2 : middle + 2].any()  # nobody is sure beside it


class TwoHalves(PromptSegmenter):
    """Is sure that the left half of a window is foreground, whichever way it lies."""

    def encode_prompts(self, images, masks):
        return {"none": torch.zeros(len(images), 1)}

    def forward(self, query, code):
        logits = torch.full_like(query[:, :1], -3.0)
        n = len(query) // 2
        middle = query.shape[-1] // 2
        logits[:n, ..., :middle] = 3.0
        logits[n:, ..., middle:] = 3.0  # the second view is mirrored
        return {"foreground": logits}


def test_views_that_disagree_teach_nothing(windows, tmp_path, monkeypatch):
    class Left(TwoHalves):
        def forward(self, query, code):
            logits = torch.full_like(query[:, :1], -3.0)
            logits[..., : query.shape[-1] // 2] = 3.0
            return {"foreground": logits}

    tuner = FineTuner(tiny(), SETTINGS, tmp_path, torch.device("cpu"))
    monkeypatch.setattr(tuner, "average", Left())
    assert tuner._pseudo_labels(windows[0])[1].sum() == 0


class Oracle(PromptSegmenter):
    """Sees what is bright."""

    def encode_prompts(self, images, masks):
        return {"none": torch.zeros(len(images), 1)}

    def forward(self, query, code):
        return {"foreground": 8 * (query.mean(1, keepdim=True))}


def test_the_check_gives_full_marks_to_who_knows(image):
    prompts = cut_prompts([image], SETTINGS, tiny(), choose("cpu"))
    check = ValidationSet([image], prompts, choose("cpu"), SETTINGS, 1.0)
    score = check(Oracle())
    assert check.is_validation and check.n_pixels == 48 * 48
    assert score.dice > 0.95 and score.f1 == 1.0 and score.n_objects >= 1
    semantic = replace(SETTINGS, semantic=True)
    assert (
        ValidationSet([image], prompts, choose("cpu"), semantic, 1.0)(Oracle()).f1
        is None
    )


def test_scribbles_become_prompts_the_network_completes(disc_scene):
    ids = np.full(disc_scene.labels.shape, UNKNOWN)
    ids[20, 20:28], ids[42:45, 5:90] = 1, 0
    (prompt, *_) = cut_prompts(
        [partial_image(disc_scene.image, ids)], SETTINGS, Oracle(), choose("cpu")
    )
    y, x = 20 - prompt.box.y, 24 - prompt.box.x
    assert prompt.mask[y, x] > 0
    assert 3 * 8 < (prompt.mask > 0).sum() < 64 * 64 / 2  # the discs, not the stroke
    with pytest.raises(FineTuneError, match=NO_PLACE):
        cut_prompts(
            [partial_image(disc_scene.image, np.minimum(ids, 0))],
            SETTINGS,
            Oracle(),
            choose("cpu"),
        )


def test_the_network_given_is_not_changed(image, tmp_path):
    network = tiny()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    held = split_validation([image.ids], 0.25)
    tuned = finetune(
        network,
        FineTuneData([image], held),
        replace(SETTINGS, learning_rate=0.1),
        device="cpu",
        folder=tmp_path,
    )
    assert tuned.steps == 4
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_a_second_network_learns_from_what_the_first_one_says(image, disc_scene):
    """Its labels fill the image; true ones stay, validation labels are not used."""
    prompts = cut_prompts([image], SETTINGS, Oracle(), choose("cpu"))
    (made,) = self_labelled([image], Oracle(), prompts, choose("cpu"))
    taught = image.training_ids != UNKNOWN
    assert np.array_equal(made.ids[taught], image.training_ids[taught])
    assert not made.validation.any()
    known = made.ids != UNKNOWN
    assert known.mean() > 0.6
    right = (made.ids > 0) == (disc_scene.labels > 0)
    assert right[known].mean() > 0.98


def test_the_second_network_is_kept_only_if_it_is_better(image, tmp_path, pattern):
    settings = replace(SETTINGS, student=True, learning_rate=0.0)
    tuned = finetune(
        tiny(), FineTuneData([image]), settings, device="cpu", folder=tmp_path
    )
    kept = [n for n in tuned.notes if re.fullmatch(pattern(STUDENT_KEPT), n)]
    dropped = [n for n in tuned.notes if re.fullmatch(pattern(STUDENT_NOT_KEPT), n)]
    assert len(kept) + len(dropped) == 1
    assert bool(kept) == (tuned.config is not None)
    if tuned.config is not None:
        build(tuned.config).load_state_dict(tuned.network.state_dict())


@pytest.mark.parametrize(
    "boxes, wanted", [(400, [1, 2, 3, 4, 4, 6, 6]), (1, [1, 2, 3, 4, 5, 6, 6])]
)
def test_of_states_that_are_as_good_the_last_is_kept(tmp_path, boxes, wanted):
    """One box tells 0.93 and 0.95 not apart, 400 boxes do."""
    tuner = FineTuner(tiny(), SETTINGS, tmp_path, torch.device("cpu"))
    tuner.best_value = 0.8  # of the model at the start
    kept = []
    for value in (0.801, 0.9, 0.95, 0.949, 0.93, 0.9495, 0.80):
        tuner.step += 1
        score = ValidationScore(value, None, boxes * 64 * 64, 0)
        keep_best(tuner, lambda _, score=score: score, lambda _: 0.0, START)
        kept.append(tuner.best_step)
    assert kept == wanted
    assert tuner.best_value == 0.95


@pytest.mark.parametrize("is_last, n_measured", [(False, 1), (True, 2)])
def test_forgetting_is_measured_where_it_decides(tmp_path, is_last, n_measured):
    tuner = FineTuner(tiny(), SETTINGS, tmp_path, torch.device("cpu"))
    tuner.best_value, measured = 0.8, []

    def forgetting(network: PromptSegmenter) -> float:
        measured.append(tuner.step)
        return 0.0

    for value in (0.9, 0.5):
        tuner.step += 1
        score = ValidationScore(value, None, 400 * 64 * 64, 0)
        last = is_last and tuner.step == 2
        keep_best(tuner, lambda _, s=score: s, forgetting, START, is_last=last)
    assert len(measured) == n_measured and tuner.best_step == 1
    assert np.isnan(tuner.history[-1]["forgetting"]) != is_last


def test_the_weights_that_are_kept_are_scored_once(image, tmp_path, monkeypatch):
    scored = []
    plain = ValidationSet.__call__

    def counted(self, network):
        scored.append(_weights(network))
        return plain(self, network)

    monkeypatch.setattr(ValidationSet, "__call__", counted)
    finetune(tiny(), FineTuneData([image]), SETTINGS, folder=tmp_path)
    assert len(scored) == len(set(scored)) > 1


def _weights(network: PromptSegmenter) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in network.parameters())


class Level(PromptSegmenter):
    """Foreground wherever a pixel is brighter than some level."""

    def __init__(self, level):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(float(level)))

    def encode_prompts(self, images, masks):
        return {"nothing": images.new_zeros(1, 1)}

    def forward(self, query, code):
        return {"foreground": 8 * (query.mean(1, keepdim=True) - self.level)}


def half_labelled():
    """Return an image of bright discs on a ramp, of which the left is labelled."""
    y, x = np.mgrid[:128, :192]
    discs = (y % 32 - 16) ** 2 + (x % 32 - 16) ** 2 < 64
    ids = np.where(discs, 1 + y // 32 * 6 + x // 32, 0)
    ids[:, 64:] = UNKNOWN
    return partial_image((x / 192 + 3.0 * discs).astype(np.float32), ids)


def test_forgetting_is_the_share_of_former_background_that_is_forgotten():
    image, device = half_labelled(), choose("cpu")
    prompts = cut_prompts([image], SETTINGS, tiny(), device)
    forgetting = Forgetting([image], prompts, Level(1.0), device, SETTINGS)
    assert forgetting(Level(1.0)) == 0
    assert forgetting(Level(-20.0)) == 1
    shares = [forgetting(Level(level)) for level in (0.0, -0.5, -3.0)]
    assert shares == sorted(shares) and shares[-1] > MAX_FORGETTING
    flat = replace(image, ids=np.maximum(image.ids, 0))
    assert Forgetting([flat], prompts, Level(1.0), device, SETTINGS)(Level(-20.0)) == 0
    told = replace(SETTINGS, unlabelled_is_background=True)
    assert Forgetting([image], prompts, Level(1.0), device, told)(Level(-20.0)) == 0


def test_a_state_that_forgot_the_background_is_not_kept(tmp_path):
    tuner = FineTuner(tiny(), SETTINGS, tmp_path, torch.device("cpu"))
    tuner.best_value, kept = 0.8, []
    for value, forgot in (
        (0.9, 0.0),
        (0.95, MAX_FORGETTING + 0.01),
        (0.92, MAX_FORGETTING),
        (0.99, 1.0),
    ):
        tuner.step += 1
        score = ValidationScore(value, None, 400 * 64 * 64, 0)
        keep_best(tuner, lambda _, s=score: s, lambda _, f=forgot: f, START)
        kept.append(tuner.best_step)
    assert kept == [1, 1, 3, 3]
    assert [h["forgetting"] for h in tuner.history] == [
        0.0,
        MAX_FORGETTING + 0.01,
        MAX_FORGETTING,
        1.0,
    ]


def test_who_forgets_the_background_from_the_start_leaves_the_model_as_it_was(
    image, tmp_path, monkeypatch
):
    monkeypatch.setattr(Forgetting, "__call__", lambda *_: 0.5)
    settings = replace(SETTINGS, learning_rate=1e-2)
    network = tiny()
    tuned = finetune(
        network, FineTuneData([image]), settings, device="cpu", folder=tmp_path
    )
    assert tuned.kept == "before"
    assert FORGOT_BACKGROUND.format(share=0.5, kept="the old model") in tuned.notes
    for name, weights in tuned.network.state_dict().items():
        assert torch.equal(weights, network.state_dict()[name])


def test_objects_found_as_one_are_counted_by_their_labelled_parts():
    ids = np.full((12, 24), UNKNOWN)
    ids[:, :6], ids[:, 6:12], ids[:, 14:20], ids[0, 20:] = 1, 2, 3, 4
    wanted = np.array([1, 2, 3])
    found = np.maximum(ids, 0)
    assert count_joined(found, ids, wanted) == 0
    assert count_joined(np.where(found == 2, 1, found), ids, wanted) == 2
    assert count_joined(np.ones_like(ids), ids, wanted) == 3
    found[:, :4] = 0  # two thirds of it are missed, and the rest is joined
    assert count_joined(np.where(found == 1, 2, found), ids, wanted) == 0


class Bars(PromptSegmenter):
    """Foreground of 16 columns each, parted by as many others or by none."""

    def __init__(self, parted: bool):
        super().__init__()
        self.parted = parted

    def encode_prompts(self, images, masks):
        return {}

    def forward(self, query, code):
        x = torch.arange(query.shape[-1]) // 16 % 2
        inside = (x == 0) if self.parted else torch.ones_like(x)
        shape = (len(query), 1, *query.shape[2:])
        return {"foreground": (16 * inside - 8.0).expand(shape)}


@pytest.mark.parametrize("whole", [True, False])
def test_where_all_objects_are_cut_those_found_before_tell(whole):
    columns = np.arange(96) // 16
    bars = np.tile(np.where(columns % 2 == 0, columns // 2 + 1, 0), (64, 1))
    box = (0, 0, 64, 48) if whole else (20, 4, 24, 24)  # two bars, or a part of one
    image = partial_image(bars.astype(float), to_ids(from_labels(bars, [box])))
    device = choose("cpu")
    prompts = cut_prompts([image], SETTINGS, tiny(), device)
    check = ValidationSet([image], prompts, device, SETTINGS, 1.0)
    assert check.score_start(Bars(parted=True)).joined == 0
    assert check(Bars(parted=True)).joined == 0
    assert check(Bars(parted=False)).joined == 1


@pytest.mark.parametrize("joined, kept", [(MAX_JOINED, 1), (MAX_JOINED + 0.01, 0)])
def test_a_state_that_joins_objects_is_not_kept(tmp_path, joined, kept):
    tuner = FineTuner(tiny(), SETTINGS, tmp_path, torch.device("cpu"))
    tuner.best_value, tuner.step = 0.8, 1
    score = replace(START, dice=0.95, joined=joined)
    keep_best(tuner, lambda _: score, lambda _: 0.0, START)
    assert tuner.best_step == kept and tuner.history[-1]["joined"] == joined


def test_who_joins_objects_from_the_start_leaves_the_model_as_it_was(
    image, tmp_path, monkeypatch
):
    plain = ValidationSet.__call__
    network = tiny()
    begun = _weights(network)

    def check(self, other):
        score = plain(self, other)
        same = _weights(other) == begun
        return replace(score, dice=0.5 if same else 0.9, joined=0.0 if same else 0.5)

    monkeypatch.setattr(ValidationSet, "__call__", check)
    tuned = finetune(
        network, FineTuneData([image]), SETTINGS, device="cpu", folder=tmp_path
    )
    told = JOINED_OBJECTS.format(share=0.5, before=0.0, kept="the old model")
    assert tuned.kept == "before" and told in tuned.notes


def test_the_distance_is_held_where_objects_are_cut(windows, tmp_path):
    torch.manual_seed(0)
    small = {"widths": (4, 8, 8, 8), "features": 8, "decoder": (4, 8, 8)}
    network = build(ModelConfig("svp", small))
    tuner = FineTuner(network, SETTINGS, tmp_path, torch.device("cpu"))
    batch = windows[0]
    assert (batch["cut"] > 0).any()
    assert not ((batch["cut"] > 0) & (batch["known"] == 0)).any()
    maps = tuner._maps(batch)
    assert tuner._depth_loss(batch, maps)["depth"] == 0  # not trained yet
    other = maps | {"distance": maps["distance"] - 3}
    assert tuner._depth_loss(batch, other)["depth"] > 0
    settings = replace(SETTINGS, anchor=0.0)
    free = FineTuner(network, settings, tmp_path, torch.device("cpu"))
    assert free._depth_loss(batch, free._maps(batch)) == {}


def test_batches_in_halves_learn_the_same(windows, tmp_path, monkeypatch):
    """The depth of cut objects in one half counts as it does in the whole batch."""
    small = {"widths": (4, 8, 8, 8), "features": 8, "decoder": (4, 8, 8)}
    batch = dict(windows[0])
    batch["cut"] = batch["cut"].clone()
    batch["cut"][: len(batch["cut"]) // 2] = 0
    found = []
    for in_halves in (True, False):
        monkeypatch.setattr(
            "napari_svpseg.engine.training.trainer.parts_by_rows",
            lambda _, by_rows=in_halves: by_rows,
        )
        torch.manual_seed(0)
        network = build(ModelConfig("svp", small))
        tuner = FineTuner(network, SETTINGS, tmp_path, torch.device("cpu"))
        with torch.no_grad():
            for weight in tuner.network.parameters():
                weight.add_(0.01)  # away from the start
        parts = tuner._backward(batch)
        found.append((parts, [p.grad for p in tuner.network.parameters()]))
    assert {k: float(v.detach()) for k, v in found[0][0].items()} == pytest.approx(
        {k: float(v.detach()) for k, v in found[1][0].items()}, rel=1e-4
    )
    assert found[0][0]["depth"] > 0 and found[0][0]["anchor"] > 0
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_who_labels_no_whole_object_is_told(image, tmp_path, monkeypatch, whole):
    monkeypatch.setattr(
        "napari_svpseg.engine.finetuning.loop.is_better", lambda *_: True
    )
    if not whole:  # only the middles of objects
        inside = ndimage.binary_erosion(image.ids > 0, iterations=2)
        image = replace(
            image,
            ids=np.where((image.ids > 0) & ~inside, UNKNOWN, image.ids).astype(
                np.int32
            ),
        )
    tuned = finetune(
        tiny(), FineTuneData([image]), SETTINGS, device="cpu", folder=tmp_path
    )
    assert tuned.kept == "after"
    assert (NO_WHOLE_OBJECT in tuned.notes) != whole


def test_few_labels_show_more_objects_than_pictures_do(windows, tmp_path):
    """Foreground has to be surer where little is labelled, and no surer elsewhere."""
    loss = {}
    for labelled in (0.0, 1.0):
        tuner = FineTuner(
            tiny(), SETTINGS, tmp_path, torch.device("cpu"), labelled=labelled
        )
        assert tuner.shift == pytest.approx(np.log(2) * (1 - labelled))
        batch = windows[0] | {"foreground": torch.zeros_like(windows[0]["foreground"])}
        loss[labelled] = float(tuner._loss(batch)["foreground"])
        plain = episode_loss(tuner.network, batch)["foreground"]
        assert (loss[labelled] > float(plain)) == (labelled < 1)
    assert loss[0.0] > loss[1.0]


def test_the_clock_only_stops(image, tmp_path, step_clock):
    settings = replace(SETTINGS, steps=10_000, seconds=2.0)
    tuned = finetune(
        tiny(), FineTuneData([image]), settings, device="cpu", folder=tmp_path
    )
    assert 1 <= tuned.steps < 10_000
    assert OUT_OF_TIME.format(seconds=2, step=tuned.steps, steps=10_000) in tuned.notes
