"""Episodes are repeatable, legal, and all of one task."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_svpseg.engine.training.episodes import (
    DISTRACTOR,
    Episodes,
    EpisodeSettings,
    LabelledImage,
    PackedTasks,
    SyntheticTasks,
    TaskList,
    cut,
    cut_episode,
    make_task,
)


def disc_image(size: int = 160, radius: int = 9) -> LabelledImage:
    y, x = np.mgrid[:size, :size]
    ids = np.zeros((size, size), np.uint16)
    centres = [(cy, cx) for cy in range(20, size, 40) for cx in range(20, size, 40)]
    for number, (cy, cx) in enumerate(centres, 1):
        ids[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    image = np.where(ids > 0, 200, 40).astype(np.uint8)
    return LabelledImage(np.repeat(image[..., None], 3, axis=2), ids)


@pytest.fixture
def task():
    discs = disc_image()
    return make_task("discs", [discs.image], [discs.ids], instances=True)


PLAIN = EpisodeSettings(
    border_tasks=0, role_swap=0, empty=0, negative=0, smallest=16, largest=20, query=96
)


def test_the_same_number_gives_the_same_batch_from_any_start(task):
    def episodes(start: int) -> Episodes:
        return Episodes(
            [(TaskList([[task]]), 1.0)],
            PLAIN,
            batch=2,
            n_batches=9,
            seed=3,
            start=start,
        )

    there, later = episodes(0)[5], episodes(4)[1]
    assert there.keys() == later.keys()
    for name in there:
        torch.testing.assert_close(there[name], later[name], rtol=0, atol=0)
    assert not torch.equal(there["query"], episodes(0)[6]["query"])
    assert len(episodes(4)) == 5
    with pytest.raises(IndexError):
        episodes(4)[5]


@pytest.mark.parametrize("n_prompts", [1, 3])
def test_an_episode_has_the_shapes_it_promises(task, n_prompts):
    episode = cut_episode(task, n_prompts, PLAIN, np.random.default_rng(0))
    assert episode["prompts"].shape == (n_prompts, 3, 64, 64)
    assert episode["masks"].shape == (n_prompts, 64, 64)
    assert episode["query"].shape == (3, 96, 96)
    for name in ("foreground", "distance", "boundary", "known", "instances"):
        assert episode[name].shape == (1, 96, 96)
        assert 0 <= episode[name].min() <= episode[name].max() <= 1
    assert all((m > 0).any() for m in episode["masks"])


def test_queries_of_a_training_have_several_sizes(task):
    settings = replace(PLAIN, query=64, largest_query=112)
    source = (TaskList([[task]]), 1.0)
    episodes = Episodes([source], settings, batch=1, n_batches=24, seed=3)
    sides = {tuple(b["query"].shape[2:]) for b in (episodes[i] for i in range(24))}
    assert sides == {(64, 64), (80, 80), (96, 96), (112, 112)}
    assert episodes[2]["foreground"].shape[2:] == episodes[2]["query"].shape[2:]


@pytest.mark.parametrize("seed", range(3))
def test_drawn_scenes_of_a_training_touch_and_are_textured_by_images(seed):
    image = disc_image().image
    usual = SyntheticTasks(3, seed)
    touching = SyntheticTasks(3, seed, touching=1.0)
    textured = SyntheticTasks(3, seed, textured=1.0, images=[image])
    alone = SyntheticTasks(3, seed, textured=1.0)  # no image to cut textures from
    shown = [
        source(np.random.default_rng(1)).images[0].image
        for source in (usual, touching, textured, alone)
    ]
    assert not np.array_equal(shown[0], shown[1])
    assert not np.array_equal(shown[0], shown[2])
    np.testing.assert_array_equal(shown[0], shown[3])


@pytest.mark.parametrize("seed", range(8))
def test_image_and_mask_stay_together(task, seed):
    """Discs are brighter than background, wherever and however they were cut."""
    crop, ids = cut(
        task.images[0],
        np.array([80.0, 80.0]),
        96,
        0.9,
        np.random.default_rng(seed),
        turn=True,
    )
    inside = crop[0][ids > 0].mean()
    outside = crop[0][ids == 0].mean()
    assert inside > 0.9
    assert outside < 0.12


@pytest.mark.parametrize("zoom", [0.8, 1.0, 2.5])
def test_zoom_scales_objects(task, zoom):
    _, ids = cut(
        task.images[0],
        np.array([60.0, 60.0]),
        64,
        zoom,
        np.random.default_rng(1),
        turn=False,
    )
    area = (ids == ids[32, 32]).sum()
    assert area == pytest.approx(np.pi * 9.1**2 * zoom**2, rel=0.1)


def test_role_swap_and_border_tasks_have_no_instances(task):
    for name in ("role_swap", "border_tasks"):
        none = {"border_tasks": 0, "role_swap": 0}
        settings = EpisodeSettings(**(none | {name: 1.0}))
        episode = cut_episode(task, 1, settings, np.random.default_rng(2))
        assert not episode["instances"].any(), name
    assert cut_episode(task, 1, PLAIN, np.random.default_rng(2))["instances"].min() == 1


def test_a_task_without_objects_is_none():
    discs = disc_image()
    nothing = [0 * discs.ids]
    assert make_task("empty", [discs.image], nothing, instances=True) is None


def test_drawn_scenes_serve_as_tasks():
    batch = Episodes(
        [(SyntheticTasks(3, seed=1), 1.0)],
        EpisodeSettings(query=64),
        batch=3,
        n_batches=1,
    )[0]
    assert batch["query"].shape == (3, 3, 64, 64)
    assert torch.isfinite(batch["query"]).all()


def test_packed_tasks_come_back_by_group(tmp_path):
    from napari_svpseg.io.packed_tasks import load_tasks, save_tasks

    discs = disc_image(96)
    packed = PackedTasks()
    packed.add("one", "discs", [("a", discs.image, discs.ids)], instances=True)
    packed.add("two", "area", [("a", discs.image, discs.ids > 0)], instances=False)
    save_tasks(tmp_path / "tasks.npz", packed)
    back = load_tasks(tmp_path / "tasks.npz")
    assert back.index == packed.index
    assert back.arrays.keys() == packed.arrays.keys()
    for name, array in packed.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)
    ((task,),) = back.tasks({"two"})
    assert (task.name, task.instances) == ("area", False)
    assert len(back.tasks()) == 2


def test_a_damaged_pack_is_named(tmp_path):
    from napari_svpseg.io.packed_tasks import load_tasks

    path = tmp_path / "tasks.npz"
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_tasks(path)


def test_only_the_negative_prompt_tells_two_kinds_apart():
    source = SyntheticTasks(30, seed=4)
    settings = EpisodeSettings(distractors=1.0)
    rng = np.random.default_rng(0)
    task = next(t for t in iter(lambda: source(rng), None) if t.distractors)
    episode = next(
        e
        for i in range(20)
        if (e := cut_episode(task, 2, settings, np.random.default_rng(i))) is not None
    )
    shown, negative = episode["masks"].numpy()
    assert (shown > 0).any()
    assert not (shown == DISTRACTOR).any()
    assert set(np.unique(negative)) <= {-1, 0}
    assert (negative == 0).any()
    assert episode["foreground"].max() <= 1
    plain = cut_episode(task, 1, settings, np.random.default_rng(0))
    assert plain is not None, "with one prompt there is nothing to tell apart"
    assert (plain["masks"] >= 0).all()


def test_crops_of_an_episode_may_have_looks_masks_and_sizes_of_their_own(task):
    ways = EpisodeSettings(
        own_looks=1, painted=1, other_scale=1, several=1, max_prompts=4, query=96
    )
    batches = Episodes([(TaskList([[task]]), 1.0)], ways, batch=4, n_batches=6, seed=1)
    plain = Episodes([(TaskList([[task]]), 1.0)], PLAIN, batch=4, n_batches=6, seed=1)
    assert any((b["masks"] == -1).any() for b in batches)
    assert not any((b["masks"] == -1).any() for b in plain)
    assert len({b["masks"].shape[1] for b in batches}) > 1
    for batch in batches:
        assert all(torch.isfinite(v.float()).all() for v in batch.values())
