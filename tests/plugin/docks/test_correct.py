"""Corrections in a real viewer, with an engine that pretends to learn from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage.measure import label

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.labels.doubts import Answer
from napari_svpseg.core.prompt import UNKNOWN, PromptSet
from napari_svpseg.core.result import Maps, ObjectProperties, Recipe, Result
from napari_svpseg.plugin.docks.correct_controller import NO_OBJECT, NO_RESULT
from napari_svpseg.plugin.docks.follow_controller import HERE_ONLY, SWITCHED_OFF
from napari_svpseg.plugin.layers.images.visibility import bring_into_sight
from napari_svpseg.plugin.layers.metadata import METADATA_KEY, metadata_of
from napari_svpseg.plugin.layers.results.corrected import (
    KEY,
    corrected_entries,
    fixed_on,
    from_entries,
)
from napari_svpseg.plugin.layers.results.written_labels import set_ids
from napari_svpseg.plugin.panels.image_panel import CHANGED
from napari_svpseg.plugin.tools.doubt_guide import NOTHING_LEFT

ROUND, DARK, FAINT = 200.0, 120.0, 80.0
"""Intensities of the wanted kind, of another one, and of one that is missed."""

SPOTS = {
    (30, 30): ROUND,
    (30, 80): DARK,
    (80, 30): FAINT,
    (80, 80): ROUND,
    (120, 40): DARK,
    (120, 90): FAINT,
}
NAMES = ("a", "b", "c")


def disc(at, r=8, shape=(150, 130)):
    y, x = np.indices(shape)
    return (y - at[0]) ** 2 + (x - at[1]) ** 2 <= r * r


def scene():
    """Return an image of discs of three kinds."""
    image = np.full((150, 130), 20.0, np.float32)
    for at, value in SPOTS.items():
        image[disc(at)] = value
    return image


def shown(prompt, value):
    """Return whether the object of a prompt is of a kind of disc."""
    known = prompt.mask > 0 if not prompt.is_negative else prompt.mask == 0
    return abs(np.median(prompt.image[..., 0][known]) - value) < 10


def learning_segment(emit, on_progress, query, prompts, *, axes, **settings):
    """Find all but faint discs, unless the prompts say otherwise."""
    query = np.asarray(query, float)
    unwanted = {
        v for p in prompts for v in (ROUND, DARK) if p.is_negative and shown(p, v)
    }
    wanted = {ROUND, DARK} - unwanted
    if any(shown(p, FAINT) for p in prompts if not p.is_negative):
        wanted.add(FAINT)
    foreground = np.isin(query, list(wanted)).astype(np.float32)
    foreground[query == DARK] *= 0.7
    on_progress(1, 1, "")
    recipe = Recipe("svp", axes=axes, postprocess=settings["postprocess"].to_dict())
    maps = Maps(foreground, None, None, ObjectProperties(16.0))
    return Result(label(foreground > 0.5).astype(np.uint32), maps, 0.9, recipe, 0.1)


def agreeing(emit, on_progress, before, examples, model, settings):
    return examples, PromptSet()


def disagreeing(emit, on_progress, before, examples, model, settings):
    return PromptSet(), examples


@pytest.fixture
def dock(viewer, open_dock, runner, finish):
    """Return the dock with three images that were segmented with one prompt."""
    runner.pretend["segment"] = learning_segment
    runner.pretend["split_by_agreement"] = agreeing
    for name in NAMES:
        viewer.add_image(scene(), name=name)
    dock = open_dock()
    bring_into_sight(viewer, viewer.layers["a"])
    dock.image_panel.select(viewer.layers["a"])
    item = dock.book.place(dock.source_of(viewer.layers["a"]), (), Box(10, 10, 40))
    dock.book.add_paint_layer(item, disc((20, 20), shape=(40, 40)).astype(int))
    dock.run.click()
    finish(dock)
    return dock


@pytest.fixture
def follow(qtbot):
    """Return a function that waits until all results have followed."""

    def wait(dock):
        correct = dock.correct.controller
        qtbot.waitUntil(lambda: not (correct.follow.is_busy or correct._files.is_busy))

    return wait


def at(dock, spot, name="a"):
    """Return the id of the object at a place of an image's result."""
    return int(dock.viewer.layers[f"{name} [svpseg]"].data[spot])


def erase(layer, mask):
    """Erase as a user does; the layer may be hidden."""
    pixels = np.nonzero(mask)
    set_ids(layer, pixels, np.zeros(pixels[0].size, int))


def kinds(dock, value):
    """Return in which images each disc of a kind is an object."""
    spots = [spot for spot, kind in SPOTS.items() if kind == value]
    return [[at(dock, spot, name) > 0 for spot in spots] for name in NAMES]


def source(dock, name="a"):
    return dock.source_of(dock.viewer.layers[name])


def test_the_tools_come_with_the_first_result(viewer, open_dock, runner, finish):
    runner.pretend["segment"] = learning_segment
    viewer.add_image(scene(), name="a")
    dock = open_dock()
    assert not dock.correct.isVisibleTo(dock)
    dock.correct.not_this_tool.start(viewer.layers["a"])
    assert dock.message.text() == NO_RESULT and not dock.correct.not_this_tool.is_on


def test_one_wrong_object_takes_its_kind_out_of_all_images(dock, follow):
    assert kinds(dock, DARK) == [[True, True]] * 3
    dock.correct.controller.not_this(source(dock), (), [(30.0, 80.0)])
    assert at(dock, (30, 80)) == 0 and at(dock, (120, 40)) > 0  # at once, here
    follow(dock)
    assert kinds(dock, DARK) == [[False, False]] * 3
    assert kinds(dock, ROUND) == [[True, True]] * 3
    item = dock.book.items[-1]
    assert item.negative and item.is_ready and not item.is_whole_box
    prompt = dock.book.prompt(item)
    assert prompt.is_negative and (prompt.mask == UNKNOWN).any()
    assert "5 others" in dock.message.text() and "3 images" in dock.message.text()
    rows = [dock.images.item(i).text() for i in range(3)]
    assert [CHANGED in row for row in sorted(rows)] == [False, True, True]


def test_one_undo_takes_a_correction_back_everywhere(dock, follow):
    before = [dock.viewer.layers[f"{n} [svpseg]"].data.copy() for n in NAMES]
    dock.correct.controller.not_this(source(dock), (), [(30.0, 80.0)])
    follow(dock)
    dock.undo.click()
    for name, labels in zip(NAMES, before, strict=True):
        np.testing.assert_array_equal(
            dock.viewer.layers[f"{name} [svpseg]"].data, labels
        )
    assert len(dock.book.items) == 1
    assert (fixed_on(source(dock), ()) == UNKNOWN).all()
    follow(dock)  # the maps are made anew, the labels stay
    assert kinds(dock, DARK) == [[True, True]] * 3
    dock.undo.click()  # the run itself
    assert not [la for la in dock.viewer.layers if metadata_of(la, "labels")]


def test_a_missed_object_is_outlined_corrected_and_found_everywhere(dock, follow):
    tool = dock.correct.this_too_tool
    assert tool.start(dock.viewer.layers["a"])
    patches, best = dock.correct.controller.propose(source(dock), (), (80.0, 30.0))
    tool.offer(source(dock), (), patches, best)
    first = tool.outline.sum()
    tool.resize(-20)
    assert tool.outline.sum() <= first
    tool.resize(20)
    assert tool.outline.sum() >= first and tool.outline[80, 30]
    tool.offer(source(dock), (), patches, best)
    tool.accept()
    assert tool.outline is None and tool.is_on
    assert at(dock, (80, 30)) > 0
    follow(dock)
    assert kinds(dock, FAINT) == [[True, True]] * 3
    item = dock.book.items[-1]
    assert not item.negative and item.n_objects == 1
    assert dock.book.prompt(item).clicked and not dock.book.prompts()[0].clicked
    assert "5 more found in 3 images" in dock.message.text()


def test_an_outline_is_dropped_with_its_tool(dock):
    tool = dock.correct.this_too_tool
    tool.start(dock.viewer.layers["a"])
    patches, best = dock.correct.controller.propose(source(dock), (), (80.0, 30.0))
    tool.offer(source(dock), (), patches, best)
    assert [la for la in dock.viewer.layers if metadata_of(la, "outline")]
    dock.viewer.layers.selection.active = dock.viewer.layers["b"]
    assert not tool.is_on and not dock.correct.this_too.isChecked()
    assert not [la for la in dock.viewer.layers if metadata_of(la, "outline")]
    assert dock.viewer.layers.selection.active == dock.viewer.layers["b"]
    assert len(dock.book.items) == 1


def test_an_example_that_hurts_others_stays_here(dock, runner, finish, follow):
    runner.pretend["split_by_agreement"] = disagreeing
    dock.correct.controller.not_this(source(dock), (), [(30.0, 80.0)])
    follow(dock)
    assert kinds(dock, DARK) == [[False, False], [True, True], [True, True]]
    assert dock.book.items[-1].here_only and HERE_ONLY in dock.message.text()
    dock.run.click()
    finish(dock)
    assert kinds(dock, DARK) == [[False, False], [True, True], [True, True]]


def test_an_example_that_floods_its_image_is_switched_off(dock, runner, follow):
    def flooding(emit, on_progress, query, prompts, **options):
        found = learning_segment(emit, on_progress, query, prompts, **options)
        if not any(p.clicked for p in prompts):
            return found
        flood = Maps(np.full(query.shape, 0.6, np.float32), None, None, None)
        return replace(found, labels=np.ones_like(found.labels), maps=flood)

    runner.pretend["segment"] = flooding
    before = np.array(dock.viewer.layers["b [svpseg]"].data)
    dock.correct.controller.this_too(source(dock), (), disc((60, 55), r=5))
    follow(dock)
    item = dock.book.items[-1]
    assert not item.enabled and not item.here_only
    assert SWITCHED_OFF in dock.message.text()
    assert at(dock, (60, 55)) > 0 and at(dock, (10, 100)) == 0
    assert kinds(dock, DARK) == kinds(dock, ROUND) == [[True, True]] * 3
    np.testing.assert_array_equal(dock.viewer.layers["b [svpseg]"].data, before)
    dock.undo.click()
    follow(dock)
    assert at(dock, (60, 55)) == 0 and item not in dock.book.items


def test_a_model_without_prompts_is_asked_nothing_about_examples(
    dock, runner, follow, monkeypatch
):
    """Such as one for classes: the object goes in its own image, and nothing fails."""
    asked = []
    runner.pretend["split_by_agreement"] = lambda *args, **more: asked.append(args)
    choices = dock.run_choices()
    card = replace(choices.model, needs_prompt=False)
    monkeypatch.setattr(dock, "run_choices", lambda: replace(choices, model=card))
    correct = dock.correct.controller
    correct.not_this(source(dock), (), [(30, 80)])
    follow(dock)
    assert not asked and at(dock, (30, 80)) == 0


def test_without_following_only_this_image_changes(dock, follow):
    dock.correct.follow_box.setChecked(False)
    dock.correct.controller.not_this(source(dock), (), [(30.0, 80.0)])
    follow(dock)
    assert kinds(dock, DARK) == [[False, False], [True, True], [True, True]]


def test_what_was_corrected_stays_whatever_the_model_says(dock, runner, finish, follow):
    def stubborn(emit, on_progress, query, prompts, **settings):
        return learning_segment(emit, on_progress, query, prompts[:1], **settings)

    runner.pretend["segment"] = stubborn
    dock.correct.controller.not_this(source(dock), (), [(30.0, 80.0)])
    follow(dock)
    mask = disc((80, 30))
    dock.correct.controller.this_too(source(dock), (), mask)
    follow(dock)
    layer = dock.viewer.layers["b [svpseg]"]
    erase(layer, disc((80, 80)))
    for _ in range(2):
        assert at(dock, (30, 80)) == 0 and at(dock, (80, 30)) > 0
        np.testing.assert_array_equal(
            dock.viewer.layers["a [svpseg]"].data == at(dock, (80, 30)), mask
        )
        dock.run.click()
        finish(dock)
    assert at(dock, (80, 80), "b") == 0  # the layer that was edited is as it was


def test_strokes_stay_when_the_image_follows(dock, follow):
    layer = dock.viewer.layers["b [svpseg]"]
    erase(layer, disc((80, 80), 4))
    dock.correct.controller.not_this(source(dock), (), [(30.0, 80.0)])
    follow(dock)
    assert kinds(dock, DARK) == [[False, False]] * 3
    assert at(dock, (80, 80), "b") == 0 and at(dock, (80, 87), "b") > 0
    assert len([la for la in dock.viewer.layers if metadata_of(la, "labels")]) == 3


def test_a_split_and_a_join_mend_the_labels(dock, follow):
    correct = dock.correct.controller
    path = np.array([(18.0, 30.0), (44.0, 31.0)])
    correct.split(source(dock), (), path)
    assert len({at(dock, (30, 25)), at(dock, (30, 36)), 0}) == 3
    follow(dock)
    assert len({at(dock, (30, 25)), at(dock, (30, 36)), 0}) == 3
    correct.join(source(dock), (), [(30.0, 25.0), (30.0, 36.0)])
    follow(dock)
    assert at(dock, (30, 25)) == at(dock, (30, 36)) > 0
    for expected in (3, 2):
        dock.undo.click()
        follow(dock)
        assert len({at(dock, (30, 25)), at(dock, (30, 36)), 0}) == expected


def test_a_whole_unwanted_box_asks_what_is_wrong(dock, follow):
    item = dock.book.place(source(dock), (), Box(20, 60, 40))
    dock.book.update(item.id, negative=True)
    row = dock.list.rows[item.id]
    assert item.is_whole_box and row.which.isVisibleTo(row)
    row.which.click()
    assert dock.correct.not_this.isChecked()
    dock.correct.controller.not_this(source(dock), (), [(30.0, 80.0)], item)
    follow(dock)
    assert item not in dock.book.items and not dock.book.items[-1].is_whole_box
    dock.undo.click()
    assert item in dock.book.items and item.is_whole_box


def test_clicks_on_nothing_say_so(dock):
    tool = dock.correct.not_this_tool
    tool.start(dock.viewer.layers["a"])
    tool._remove(source(dock), [dock.viewer.layers["a"].data_to_world((2, 2))])
    assert dock.message.text() == NO_OBJECT and len(dock.book.items) == 1


def test_doubtful_objects_are_asked_about(dock, follow, qtbot):
    guide, correct = dock.correct.guide, dock.correct

    def ask():
        correct.next_place.click()
        qtbot.waitUntil(lambda: not guide._background.is_busy)

    ask()
    assert correct.answers.isVisibleTo(dock)
    seen, doubt = guide._now
    assert doubt.kind == "wrong" and SPOTS[doubt.point] == DARK
    boxes = dock.viewer.layers.selection.active
    assert metadata_of(boxes, "boxes")
    guide.no()
    qtbot.waitUntil(lambda: not guide._background.is_busy)
    assert (guide._now is not None and guide._now[1].point != doubt.point) or (
        guide._now[0].key != seen.key
    )
    guide.yes()
    follow(dock)
    assert kinds(dock, DARK) == [[False, False]] * 3
    ask()
    assert not correct.answers.isVisibleTo(dock)


def test_answers_count_for_the_objects_like_it_in_all_images(dock, follow, qtbot):
    guide, asked = dock.correct.guide, []

    def answer(act):
        asked.append(guide._now)
        act()
        qtbot.waitUntil(lambda: not guide._background.is_busy)

    dock.correct.next_place.click()
    qtbot.waitUntil(lambda: not guide._background.is_busy)
    while guide._now is not None:
        answer(guide.no)
    # there are six, but those that are left are as right as those that were kept
    assert 2 <= len(asked) < 6 and dock.message.text() == NOTHING_LEFT

    dock.correct.next_place.click()
    qtbot.waitUntil(lambda: not guide._background.is_busy)
    answer(guide.yes)
    follow(dock)
    (said,) = guide._answered
    assert said.answer() == Answer(said.doubt, True)
    qtbot.waitUntil(lambda: not guide._background.is_busy)
    dock.undo.click()
    follow(dock)
    assert said.answer() is None


def test_corrections_survive_a_session_as_plain_values(dock, follow):
    import json

    dock.correct.controller.not_this(source(dock), (), [(30.0, 80.0)])
    follow(dock)
    image = dock.viewer.layers["a"]
    entries = json.loads(json.dumps(corrected_entries(image)))
    known = from_entries(entries)
    np.testing.assert_array_equal(known[()], image.metadata[KEY][()])
    boxes = next(la for la in dock.viewer.layers if metadata_of(la, "boxes"))
    states = json.loads(json.dumps(boxes.metadata[METADATA_KEY]["items"]))
    assert states[dock.book.items[-1].id]["patch"]["shape"]
