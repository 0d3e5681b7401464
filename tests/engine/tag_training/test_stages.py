"""Training from tags: windows, bank, what is asked of which window, and stages."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_svpseg.core.annotation.image_tags import (
    SECOND_STAGE,
    BankPatch,
    TagTrainingError,
    TagTrainingSettings,
    class_ious,
    confusion_matrix,
)
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.progress import Cancelled
from napari_svpseg.engine.tag_training.patch_bank import (
    NEVER_ALONE,
    NO_PATCH,
    build_bank,
)
from napari_svpseg.engine.tag_training.stages import (
    Course,
    FirstStage,
    SecondStage,
    StageRun,
    agreement,
    pseudo_masks,
    split_images,
    superpixels,
    tag_accuracy,
)
from napari_svpseg.engine.tag_training.tag_losses import TagTargets
from napari_svpseg.engine.tag_training.tagged_crops import Batches, Windows, cut_windows
from napari_svpseg.models.pbip import BankEncoder
from napari_svpseg.models.semantic import UNKNOWN, Trunk

TRUNK = {"widths": (8, 12, 12, 12), "depths": (1, 1, 1), "pixel_features": 12}
SETTINGS = TagTrainingSettings(
    epochs=6, second_epochs=6, batch=4, n_prototypes=2, learning_rate=3e-3
)
RANGE = np.array([[0.0, 255.0]])


def scenes(n: int = 12, side: int = 48) -> tuple[list[np.ndarray], np.ndarray, list]:
    """Images with a bright disc, a dark square or nothing; their masks and tags."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    images, masks, tags = [], [], []
    for i in range(n):
        image, mask = rng.normal(110, 8, (side, side)), np.zeros((side, side), int)
        cy, cx = rng.integers(side // 3, side - side // 3, 2)
        if i % 3 == 0:
            mask[(y - cy) ** 2 + (x - cx) ** 2 <= 196] = 1
        elif i % 3 == 1:
            mask[cy - 12 : cy + 12, cx - 12 : cx + 12] = 2
        images.append((image + 90 * (mask == 1) - 90 * (mask == 2))[..., None])
        masks.append(mask)
        tags.append([float(1 in mask), float(2 in mask)])
    return images, np.array(masks), tags


def windows_of(images, tags, settings: TagTrainingSettings = SETTINGS) -> Windows:
    names = [f"{i}.png" for i in range(len(images))]
    planes = ((n, im, RANGE) for n, im in zip(names, images, strict=True))
    return cut_windows(planes, dict(zip(names, tags, strict=True)), settings)


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    torch.manual_seed(0)
    return Trunk(**TRUNK)


def bank_of(windows: Windows, trunk: Trunk, given=None, side: int = 48):
    encoder = BankEncoder(Trunk(**TRUNK))
    encoder.trunk.load_state_dict(trunk.state_dict())
    shapes = [(side, side)] * len(windows.names)
    return build_bank(
        encoder,
        windows,
        shapes,
        ("disc", "square"),
        SETTINGS,
        torch.device("cpu"),
        given,
    )


# --------------------------------------------------------------------------- windows


def test_small_images_are_one_window_no_larger_than_needed():
    images, _, tags = scenes(3, 40)
    windows = windows_of(images, tags)
    assert windows.pixels.shape == (3, 3, 48, 48)
    assert windows.owner.tolist() == [0, 1, 2]
    restored = windows.images(slice(0, 1))[0, 0, :40, :40].numpy()
    expected = (images[0][..., 0] / 255 - 0.5) / 0.25
    assert np.abs(restored - expected).max() < 0.02


def test_large_images_are_covered_by_windows():
    image = np.random.default_rng(0).random((150, 70, 1)) * 255
    settings = TagTrainingSettings(window=64)
    windows = windows_of([image], [[1.0]], settings)
    covered = np.zeros((150, 70), bool)
    for y, x in windows.corner:
        covered[y : y + 64, x : x + 64] = True
    assert covered.all() and len(windows) == 6 and windows.owner.tolist() == [0] * 6


def test_windows_are_cut_at_the_scale_of_the_network():
    image = np.zeros((200, 100, 1))
    windows = windows_of([image], [[1.0]], TagTrainingSettings(window=64, scale=0.5))
    assert windows.pixels.shape[-1] == 64 and len(windows) == 2
    assert windows.corner.tolist() == [[0, 0], [36, 0]]


def test_batches_are_the_same_whenever_they_are_asked_and_turn_maps_along():
    images, masks, tags = scenes(6)
    windows = windows_of(images, tags)
    maps = torch.from_numpy(masks)
    batches = Batches(windows, torch.arange(6), 3, 4, seed=1, maps=maps)
    again = Batches(windows, torch.arange(6), 3, 4, seed=1, maps=maps, start=2)
    for a, b in zip(batches[2].values(), again[0].values(), strict=True):
        assert torch.equal(a, b)
    seen = torch.cat([batches[i]["window"] for i in range(2)])
    assert sorted(seen.tolist()) == list(range(6))
    for i in range(4):
        query, mask = batches[i]["query"][:, 0], batches[i]["maps"]
        assert query[mask == 1].mean() > query[mask == 0].mean()
    with pytest.raises(IndexError):
        batches[4]


# ------------------------------------------------------------------------------ bank


def test_the_bank_holds_patches_of_images_that_hold_the_class(trunk):
    images, _, tags = scenes()
    windows = windows_of(images, tags)
    bank = bank_of(windows, trunk)
    assert bank.filled.all() and bank.notes == ()
    torch.testing.assert_close(bank.prototypes.norm(dim=-1), torch.ones(2, 2))
    assert {p.class_name for p in bank.patches} == {"disc", "square"}
    for patch in bank.patches:
        at = windows.names.index(patch.image)
        assert tags[at][("disc", "square").index(patch.class_name)] == 1
        assert patch.box.fits((48, 48))


def test_a_class_that_is_never_alone_is_noted(trunk):
    images, _, tags = scenes()
    tags = [[max(t), t[1]] for t in tags]  # where there is a square, there is a disc
    bank = bank_of(windows_of(images, tags), trunk)
    assert bank.notes[0] == NEVER_ALONE.format("square")


def test_every_image_may_hold_something(trunk):
    images, _, tags = scenes()
    kept = [i for i, t in enumerate(tags) if any(t)]
    bank = bank_of(
        windows_of([images[i] for i in kept], [tags[i] for i in kept]), trunk
    )
    assert bank.background.isfinite().all() and len(bank.background)


def test_an_edited_bank_is_taken_and_removed_patches_do_not_count(trunk):
    images, _, tags = scenes()
    windows = windows_of(images, tags)
    found = bank_of(windows, trunk)
    edited = [
        BankPatch(p.class_name, p.subclass, p.image, p.box, removed=i % 2 == 1)
        for i, p in enumerate(found.patches)
    ]
    taken = bank_of(windows, trunk, edited)
    assert taken.patches == tuple(edited)
    without = bank_of(windows, trunk, [p for p in edited if not p.removed])
    torch.testing.assert_close(taken.prototypes, without.prototypes)
    gone = [BankPatch("disc", 0, "0.png", Box(0, 0, 48), removed=True)]
    with pytest.raises(TagTrainingError, match=re.escape(NO_PATCH.format("disc"))):
        bank_of(windows, trunk, gone)


# ------------------------------------------------------------------------------ tags


def test_a_tag_is_asked_of_the_strongest_window_and_its_absence_of_all():
    image = np.zeros((64, 130, 1))
    windows = windows_of(
        [image, image[:, :60]], [[1.0, 0.0], [0.0, 1.0]], TagTrainingSettings(window=64)
    )
    assert windows.owner.tolist() == [0, 0, 0, 1]
    targets, index = TagTargets(windows), torch.arange(4)
    _, weight = targets.of(index, torch.device("cpu"))
    assert weight.all()  # nobody has answered yet
    targets.update(
        index, torch.tensor([[0.1, 9.0], [0.7, 0.0], [0.3, 0.0], [0.0, 0.0]])
    )
    tags, weight = targets.of(index, torch.device("cpu"))
    assert tags[:3].tolist() == [[1, 0]] * 3
    assert weight.tolist() == [[0, 1], [1, 1], [0, 1], [1, 1]]


def test_superpixels_start_at_zero_and_keep_discs_apart():
    images, masks, tags = scenes(1)
    regions = superpixels(windows_of(images, tags))[0].numpy()
    assert regions.min() == 0 and regions.max() < 60
    purity = [
        max((masks[0][regions == r] == 1).mean(), (masks[0][regions == r] == 0).mean())
        for r in np.unique(regions)
    ]
    assert np.mean(purity) > 0.9


# ---------------------------------------------------------------------------- stages


def test_few_images_are_all_learned_from():
    assert split_images(23, 0)[1] == []
    learn, check = split_images(30, 0)
    assert len(check) == 5 and sorted(learn + check) == list(range(30))


@pytest.mark.parametrize("variant", ["published", "seed"])
def test_discs_and_squares_are_found_from_tags_alone(trunk, tmp_path, variant):
    images, masks, tags = scenes()
    windows = windows_of(images, tags)
    changed = {"variant": variant, "epochs": 30, "learning_rate": 6e-3}
    settings = TagTrainingSettings(**SETTINGS.to_dict() | changed)
    torch.manual_seed(0)
    stage = FirstStage.of(settings, windows, bank_of(windows, trunk), trunk, TRUNK)
    reports = []
    course = Course(tmp_path, reports.append)
    device, everything = torch.device("cpu"), torch.arange(12)
    run = StageRun(everything, everything, course, device)
    network = stage.run(run)
    assert tag_accuracy(network, windows, everything) > 0.8
    found = pseudo_masks(network, windows, course)
    known = found != UNKNOWN
    table = confusion_matrix(found[known].numpy(), masks[known.numpy()], 3)
    # all background, or every image full of its class, would both be below 0.3
    assert np.nanmean(class_ious(table)) > 0.36, table
    for i, held in enumerate(tags):
        assert not any((found[i] == c + 1).any() for c in (0, 1) if not held[c])
    second = SecondStage.of(settings, windows, found, trunk, TRUNK).run(run)
    losses = [r.losses["total"] for r in reports if r.stage == SECOND_STAGE]
    assert losses[-1] < losses[0]
    assert agreement(second, windows, found, everything) > 0
    assert all(math.isfinite(r.losses["total"]) for r in reports if r.losses)
    assert reports[-1].validation == course.history[-1]["validation"]


def steps_of(
    trunk, folder: Path, report, *, resume=False, seconds=math.inf, variant="published"
):
    images, _, tags = scenes(6)
    windows = windows_of(images, tags)
    torch.manual_seed(0)
    settings = replace(SETTINGS, variant=variant)
    stage = FirstStage.of(settings, windows, bank_of(windows, trunk), trunk, TRUNK)
    course = Course(folder, report)
    run = StageRun(
        torch.arange(6),
        torch.arange(0),
        course,
        torch.device("cpu"),
        seconds,
        resume,
    )
    network = stage.run(run)
    return network, course


def test_a_training_that_is_cancelled_goes_on_where_it_was(trunk, tmp_path):
    seen = []

    def cancel(progress):
        seen.append(progress.step)
        if progress.step == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        steps_of(trunk, tmp_path, cancel)
    _, course = steps_of(trunk, tmp_path, lambda p: seen.append(p.step), resume=True)
    assert seen == list(range(1, 10)) and not course.stopped


@pytest.mark.parametrize("variant", ["published", "seed"])
def test_resumed_equals_undisturbed(trunk, tmp_path, variant):
    """Losses have a state: what was drawn, seen and remembered."""

    def cancel(progress):
        if progress.step == 4:
            raise Cancelled

    more = {"variant": variant}
    whole, first = steps_of(trunk, tmp_path / "a", lambda p: None, **more)
    with pytest.raises(Cancelled):
        steps_of(trunk, tmp_path / "b", cancel, **more)
    parts, second = steps_of(trunk, tmp_path / "b", lambda p: None, resume=True, **more)
    for (name, a), b in zip(
        whole.state_dict().items(), parts.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    rows = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in course.history]
        for course in (first, second)
    ]
    assert rows[0] == rows[1] and len(rows[0]) > 1


def test_a_training_that_is_stopped_keeps_what_it_has(trunk, tmp_path):
    def stop(progress):
        if progress.step == 3:
            (tmp_path / "stop").touch()

    network, course = steps_of(trunk, tmp_path, stop)
    assert course.stopped and (tmp_path / "first" / "checkpoint.pt").exists()
    with torch.inference_mode():
        assert network.class_logits(torch.zeros(1, 3, 32, 32)).isfinite().all()


def test_a_training_ends_with_its_time(trunk, tmp_path):
    steps = []
    steps_of(trunk, tmp_path, lambda p: steps.append(p.step), seconds=1e-6)
    assert steps == [1]
