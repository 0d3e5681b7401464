"""The dock "Train from tags": with a pretended engine, and the whole way with ours."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from skimage.io import imsave

from napari_svpseg.core.annotation.image_tags import (
    BankPatch,
    TagTrainingPreview,
    TagTrainingProgress,
    TagTrainingResult,
)
from napari_svpseg.core.geometry import Box
from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.core.result import Maps, Recipe, Result
from napari_svpseg.io.images import read_image
from napari_svpseg.io.prompt_files import load_prompts, save_prompts
from napari_svpseg.io.tag_files import read_tags
from napari_svpseg.plugin.docks.model_names import NEEDS_NAME
from napari_svpseg.plugin.docks.tags_controller import (
    BANK_SHOWN,
    CANCELLED,
    KEEPING_BEST,
    LOSS,
    MASK_SCORE,
    SECOND_LOSS,
    TAG_SCORE,
    TO_CONTINUE,
    TRAINED,
)
from napari_svpseg.plugin.layers.images.tagged_image import STACK
from napari_svpseg.plugin.layers.metadata import layer_id, metadata_of
from napari_svpseg.plugin.panels.tags.patch_bank_panel import SAVED
from napari_svpseg.plugin.panels.tags.patch_view import CHECK_MASKS, NO_OBJECT
from napari_svpseg.plugin.panels.tags.tag_advice import NO_IMAGES, UNUSED_CLASS

ENDED = "The engine ended."
COLORS = {"disc": "#ffb000", "bar": "#35c9ff"}


def drawn(kind, seed):
    """Return a 64 x 64 RGB image of bright discs or dark bars, or of neither."""
    rng = np.random.default_rng(seed)
    yy, xx = np.indices((64, 64))
    image = np.full((64, 64, 3), 120.0)
    for y, x in rng.integers(14, 50, (2, 2)):
        if kind == "disc":
            image[(yy - y) ** 2 + (xx - x) ** 2 < 60] = (250, 210, 90)
        elif kind == "bar":
            image[(abs(yy - y) < 12) & (abs(xx - x) < 3)] = (20, 30, 110)
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "wells"
    place.mkdir()
    for i in range(6):
        imsave(place / f"{i}.png", drawn(("disc", "bar")[i % 2], i))
    return place


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def viewer():
    """Return a viewer without a window: most of the dock needs none."""
    return ViewerModel()


@pytest.fixture
def open_tags(viewer, home, qtbot):
    """Return a function that opens the dock on an engine and tags a folder."""
    from napari_svpseg.plugin.docks.tags_dock import TagsWidget

    opened = []

    def open_it(engine, folder=None, keys="1\n2\n1\n2\n1\n2\n", window=None):
        dock = TagsWidget(window or viewer, engine)
        opened.append(dock)
        if window is None:
            qtbot.addWidget(dock)
        else:
            window.window.add_dock_widget(dock, name="Train from tags")
        if folder is not None:
            dock.tag_panel.choose_folder(str(folder))
            qtbot.waitUntil(lambda: dock.tag_panel.folder == folder)
            for name in ("disc", "bar"):
                dock.tag_panel.classes.new_class.setText(name)
                qtbot.keyClick(dock.tag_panel.classes.new_class, Qt.Key.Key_Return)
            for key in keys:
                key = Qt.Key.Key_Return if key == "\n" else key
                qtbot.keyClick(dock.tag_panel.view, key)
        return dock

    yield open_it
    for dock in opened:
        dock._closing()


@pytest.fixture
def dock(open_tags, runner, folder, qtbot):
    """Return the dock with six tagged images, on a pretended engine."""
    from napari_svpseg.plugin.services.engine_process import Engine

    runner.pretend = {"train_from_tags": fake_fit, "find_patch_bank": fake_bank}
    return open_tags(Engine(lambda: runner), folder)


@pytest.fixture
def finish(qtbot):
    def wait(dock, timeout=8000):
        control = dock.controller
        qtbot.waitUntil(lambda: not (dock.is_busy or control.map_job), timeout=timeout)
        qtbot.waitUntil(lambda: not dock.bank._files.is_busy, timeout=timeout)

    return wait


def fake_bank(emit, on_progress, images, tags, **kwargs):
    """Return two patches of each image."""
    return [
        BankPatch(next(iter(tags[name])), look, name, Box(0, 16 * look, 32))
        for name in images
        for look in range(2)
    ]


def fake_fit(emit, on_progress, images, tags, *, settings, output, bank, **kwargs):
    """Report as `train_from_tags` does, and write a model that cannot run."""
    patches = list(bank or fake_bank(emit, on_progress, images, tags))
    on_progress(1, 10, "bank, step 1 of 1")
    emit("partial", value=patches)
    for step in range(4):
        on_progress(2 + step, 10, f"first stage, step {step} of 4")
        time.sleep(0.02)
        told = 0.5 + step / 10
        emit("partial", value=TagTrainingProgress(
            "first stage", step, 4, float(step), {"total": 2.0 - step / 4}, told
        ))  # fmt: skip
    name = next(iter(images))
    classes = np.ones((64, 64), np.uint8)
    emit("partial", value=TagTrainingPreview(name, classes, 255 * classes))
    emit(
        "partial",
        value=TagTrainingProgress("second stage", 1, 1, 9.0, {"total": 1.0}, 0.7),
    )
    on_progress(10, 10, "saving, step 1 of 1")
    folder = Path(output)
    folder.mkdir(parents=True)
    prompts = [prompt_of(p, images) for p in patches if not p.removed]
    save_prompts(PromptSet(prompts), folder / "prompts.svprompt")
    return TagTrainingResult(str(folder), tuple(patches), (), ("one note",), 125.0)


def prompt_of(patch, images):
    image = np.asarray(read_image(images[patch.image]).array)
    mask = (abs(image.astype(int) - 120).max(axis=-1) > 40).astype(int)
    mask[patch.box.slices][0, 0] = 1
    return Prompt.from_image(
        image, mask, patch.box, name=patch.title, source=patch.image
    )


# ------------------------------------------------------------------------ Show 3


def test_the_whole_way(open_tags, folder, finish, qtbot, make_napari_viewer_proxy):
    """Tag six images with keys, train, see the bank, use a patch as prompt, segment."""
    from napari_svpseg.plugin.docks.segment_dock import SegmentWidget
    from napari_svpseg.plugin.docks.tabs import SEGMENT, show_dock
    from napari_svpseg.plugin.services.engine_process import Engine

    engine, viewer = Engine(), make_napari_viewer_proxy()
    dock = open_tags(engine, folder, window=viewer)
    assert len(dock.tags.tagged()) == 6
    dock.options.set_values({"epochs": 2, "second_epochs": 2, "n_patches": 2})
    dock.advanced.set_values({"window": 64, "batch": 2})
    dock.device.setCurrentText("cpu")
    dock.tag_panel.view.select(0)
    dock.train.click()
    finish(dock, 120_000)
    assert not dock.message.is_error, dock.message.text()
    assert dock.bank.result is not None
    assert {LOSS, SECOND_LOSS} <= set(dock.curves.points)
    assert {p.class_name for p in dock.bank.view.patches()} == {"disc", "bar"}
    assert read_tags(folder / "tags.csv")["0.png"] == {"disc"}

    dock.look.click()
    finish(dock, 60_000)
    assert viewer.layers["0 [svpseg] class map"].data.shape == (64, 64, 4)

    segment = SegmentWidget(viewer, engine)
    viewer.window.add_dock_widget(segment, name="Segment from prompts")
    assert show_dock(viewer, SEGMENT) is segment
    place = next(i for i, item in enumerate(dock.bank.view.items) if item.can_prompt)
    dock.bank.view.select(place)
    dock.bank.view.use_button.click()
    (item,) = segment.book.items
    assert item.is_ready and item.name == dock.bank.view.items[place].patch.title

    def run():
        segment.run.click()
        qtbot.waitUntil(lambda: not segment.is_busy, timeout=60_000)
        assert not segment.message.is_error, segment.message.text()
        return [la for la in viewer.layers if metadata_of(la, "labels")][-1]

    layer = run()
    assert layer.data.shape == (64, 64) and "class" not in layer.features
    dock.use.click()  # the model itself needs no prompt
    assert segment.models.knows_classes
    segment.book.remove(item.id)
    layer = run()
    assert list(layer.features["class"]) == ["background", "disc", "bar"]
    assert metadata_of(layer)["classes"] == COLORS
    np.testing.assert_allclose(
        layer.get_color(1), np.array([255, 176, 0, 255]) / 255, atol=0.01
    )
    segment._closing()


# ------------------------------------------------------------------------ training


def test_training_shows_what_it_does(dock, finish, viewer, qtbot, runner):
    dock.tag_panel.view.select(0)
    qtbot.waitUntil(lambda: "0" in viewer.layers)
    dock.train.click()
    assert not dock.train.isEnabled() and dock.stop.isVisibleTo(dock)
    finish(dock)
    assert dock.curves.points[LOSS][1] == [2.0, 1.75, 1.5, 1.25]
    assert dock.curves.points[TAG_SCORE][1][-1] == pytest.approx(0.8)
    assert dock.curves.points[MASK_SCORE] == ([9.0], [0.7])
    overlay = viewer.layers["0 [svpseg] class map"]
    assert tuple(overlay.data[5, 5][:3]) == (255, 176, 0) and overlay.data[5, 5, 3] > 99
    trained = TRAINED.format("2.1 min", "from tags")
    assert dock.message.text() == f"{trained} (one note)"
    assert len(dock.bank.view.items) == 12
    assert dock.train.isEnabled() and not dock.stop.isVisibleTo(dock)
    _, (images, tags), kwargs = runner.calls[-1]
    assert list(images) == [f"{i}.png" for i in range(6)] and tags.classes == (
        "disc", "bar",
    )  # fmt: skip
    assert tags["1.png"] == {"bar"} and kwargs["bank"] is None
    assert Path(kwargs["output"]).name == "from tags" and not kwargs["resume"]


def test_a_second_training_does_not_replace_the_first(dock, finish, home):
    for _ in range(2):
        dock.train.click()
        finish(dock)
    names = sorted(p.name for p in (home / "models").iterdir())
    assert names == ["from tags", "from tags 2"]


def test_odd_names_are_refused(dock):
    for name in ("", " ", "a/b", ".hidden"):
        dock.name.setText(name)
        dock.say("")
        dock.train.click()
        assert not dock.is_busy and dock.message.text() == NEEDS_NAME


def test_stop_keeps_the_best_so_far(dock, finish, qtbot, runner, home):
    def wait_for_stop(emit, on_progress, images, tags, *, output, **kwargs):
        stop = Path(f"{output}-training") / "stop"
        while not stop.exists():
            on_progress(0, 2, "first stage")
            time.sleep(0.01)
        return fake_fit(emit, on_progress, images, tags, output=output, **kwargs)

    runner.pretend["train_from_tags"] = wait_for_stop
    dock.train.click()
    qtbot.waitUntil(lambda: dock.progress.maximum() == 2)
    dock.stop.click()
    assert not dock.stop.isEnabled() and dock.progress.format() == KEEPING_BEST
    finish(dock)
    assert dock.bank.result is not None and (home / "models" / "from tags").is_dir()


def test_cancel_leaves_nothing(dock, finish, qtbot, runner, home):
    def endless(emit, on_progress, images, tags, *, output, **kwargs):
        Path(f"{output}-training").mkdir(parents=True)
        while True:
            on_progress(0, 2, "first stage")
            time.sleep(0.01)

    runner.pretend["train_from_tags"] = endless
    dock.train.click()
    qtbot.waitUntil(lambda: dock.progress.maximum() == 2)
    dock.drop.click()
    finish(dock)
    assert dock.message.text() == CANCELLED and dock.bank.result is None
    qtbot.waitUntil(lambda: not list((home / "models").iterdir()))
    assert len(dock.tags.tagged()) == 6


def test_after_a_crash_training_goes_on(dock, finish, runner):
    def crash(*args, output, **kwargs):
        Path(f"{output}-training").mkdir(parents=True)
        (Path(f"{output}-training") / "checkpoint").write_text("")
        raise RuntimeError(ENDED)

    runner.pretend["train_from_tags"] = crash
    dock.train.click()
    finish(dock)
    assert dock.message.text() == ENDED + TO_CONTINUE
    runner.pretend["train_from_tags"] = fake_fit
    dock.train.click()
    finish(dock)
    first, second = (c[2] for c in runner.calls if c[0].__name__ == "train_from_tags")
    assert second["resume"] and second["output"] == first["output"]


def test_after_a_crash_other_tags_begin_anew(dock, finish, runner):
    def crash(*args, **kwargs):
        raise RuntimeError(ENDED)

    runner.pretend["train_from_tags"] = crash
    dock.train.click()
    finish(dock)
    dock.tags.toggle([0], 1)
    dock.train.click()
    finish(dock)
    assert not runner.calls[-1][2]["resume"]


def test_open_images_are_handed_over_as_arrays(open_tags, viewer, runner, finish):
    from napari_svpseg.plugin.services.engine_process import Engine

    got = {}

    def look(emit, on_progress, images, tags, **kwargs):
        got.update(images)
        raise ValueError("enough")

    runner.pretend = {"train_from_tags": look}
    viewer.add_image(drawn("disc", 0), name="colour", rgb=True)
    viewer.add_image(drawn("bar", 0)[..., 0], name="grey")
    dock = open_tags(Engine(lambda: runner))
    dock.tags.show(
        dock.tags.images, {"colour": ["disc"], "grey": ["bar"]}, ("disc", "bar")
    )
    dock.train.click()
    finish(dock)
    assert got["colour"].shape == (64, 64, 3) and got["grey"].shape == (64, 64, 1)


def test_a_stack_says_what_to_do(open_tags, viewer, runner, finish):
    from napari_svpseg.plugin.services.engine_process import Engine

    viewer.add_image(np.zeros((3, 64, 64)), name="stack", axis_labels=("z", "y", "x"))
    viewer.add_image(np.zeros((64, 64)), name="one")
    dock = open_tags(Engine(lambda: runner))
    dock.tags.show(dock.tags.images, {"stack": ["disc"], "one": []}, ("disc",))
    dock.train.click()
    finish(dock)
    assert dock.message.text() == f"'stack' {STACK}" and not runner.calls


def test_nothing_tagged_says_what_to_do(open_tags, runner, folder):
    from napari_svpseg.plugin.services.engine_process import Engine

    dock = open_tags(Engine(lambda: runner))
    assert dock.message.text() == NO_IMAGES and not dock.train.isEnabled()
    dock = open_tags(Engine(lambda: runner), folder, keys="1\n1\n1\n")
    dock.train.click()
    assert dock.message.text() == UNUSED_CLASS.format("bar") and not runner.calls


# ------------------------------------------------------------------------ bank


@pytest.fixture
def banked(dock, finish):
    dock.train.click()
    finish(dock)
    return dock


def test_the_bank_is_found_without_training(dock, finish, home):
    dock.bank.find_button.click()
    finish(dock)
    assert len(dock.bank.view.items) == 12 and not (home / "models").exists()
    assert all(item.crop.shape == (32, 32, 3) for item in dock.bank.view.items)
    assert not dock.bank.view.save.isEnabled()  # there are no masks yet
    assert dock.bank.result is None and not dock.use.isEnabled()


def test_patches_before_training_are_prompts_with_suggested_masks(
    dock, finish, monkeypatch
):
    used = []
    monkeypatch.setattr(dock, "segment_with_prompts", used.append)
    dock.bank.find_button.click()
    finish(dock)
    view = dock.bank.view
    view.select(0)
    view.use()
    assert len(used[0]) == 1 and (used[0][0].mask > 0).any()
    assert dock.message.text() == CHECK_MASKS


def test_what_is_said_of_the_bank_is_trained_with(banked, finish, runner):
    panel = banked.bank.view
    assert not banked.bank.reuse.isChecked()
    panel.select(0)
    panel.remove.click()
    assert panel.items[0].patch.removed and panel.remove.text() == "Restore"
    panel.select(1)
    panel.pin.click()
    panel.list.item(2).setText("  big   disc ")
    assert [p.removed for p in panel.patches()[:3]] == [True, False, False]
    assert panel.patches()[1].pinned and panel.patches()[2].title == "big disc"
    assert len(panel.prompts()) == 11
    assert "big disc" in [p.name for p in panel.prompts()]
    assert banked.bank.reuse.isChecked()
    banked.train.click()
    finish(banked)
    assert runner.calls[-1][2]["bank"] == panel.patches()


def test_a_bank_of_other_classes_is_not_reused(banked):
    banked.bank.reuse.setChecked(True)
    banked.tags.rename_class(0, "ring")
    assert not banked.bank.reuse.isChecked() and not banked.bank.reuse.isEnabled()
    assert banked.bank.patches() is None


def test_the_bank_is_saved_as_prompts(banked, tmp_path):
    banked.bank.save(str(tmp_path / "bank"))
    prompts = load_prompts(tmp_path / "bank.svprompt")
    assert len(prompts) == 12
    assert banked.message.text() == SAVED.format("12 prompts", "bank.svprompt")
    banked.bank.save(str(tmp_path / "missing" / "bank"))
    assert banked.message.is_error and "missing" in banked.message.text()


def test_a_patch_without_an_object_is_no_prompt(banked, qtbot):
    from dataclasses import replace

    panel = banked.bank.view
    item = panel.items[0]
    empty = replace(item.prompt, mask=np.zeros((64, 64), int))
    panel.items[0] = replace(item, prompt=empty)
    panel.select(0)
    panel.use()
    assert banked.message.text() == NO_OBJECT


def test_the_bank_of_an_earlier_model_is_opened_and_kept(
    banked, home, monkeypatch, finish, qtbot
):
    from napari_svpseg.io import model_store

    result = banked.bank.result
    bank = [p.to_dict() for p in result.bank]
    card = ModelCard("from tags", "semantic", path=result.model, sha256="0",
                     training={"bank": bank}, classes=COLORS)  # fmt: skip
    monkeypatch.setattr(model_store, "list_models", lambda folders=None: [card])
    model_store.write_card(Path(result.model) / "model.json", card)
    box = banked.bank
    box.view.show_bank([], ())
    box.list_models()
    box._open()
    finish(banked)
    assert len(box.view.items) == 12
    assert banked.message.text() == BANK_SHOWN.format("from tags")
    box.view.select(3)
    box.view.pin.click()
    finish(banked)
    kept = model_store.read_card(result.model).training["bank"]
    assert [p["pinned"] for p in kept].count(True) == 1


# ------------------------------------------------------------------------ the viewer


def test_one_image_of_a_folder_is_shown_at_a_time(dock, viewer, qtbot):
    dock.tag_panel.view.select(2)
    qtbot.waitUntil(lambda: [la.name for la in viewer.layers] == ["2"])
    dock.tag_panel.view.select(3)
    qtbot.waitUntil(lambda: [la.name for la in viewer.layers] == ["3"])
    dock.show_selected.setChecked(False)
    dock.tag_panel.view.select(4)
    assert not dock.shown._reader.is_busy
    assert [la.name for la in viewer.layers] == ["3"]


def test_an_image_with_results_stays(dock, viewer, qtbot):
    dock.tag_panel.view.select(2)
    qtbot.waitUntil(lambda: [la.name for la in viewer.layers] == ["2"])
    viewer.add_labels(
        np.ones((64, 64), int),
        metadata={
            "svpseg": {"kind": "labels", "source_id": layer_id(viewer.layers["2"])}
        },
        name="mine",
    )
    dock.tag_panel.view.select(3)
    qtbot.waitUntil(lambda: "3" in viewer.layers)
    assert {"2", "mine", "3"} <= {la.name for la in viewer.layers}


def test_a_damaged_image_says_so(dock, viewer, qtbot, folder):
    (folder / "4.png").write_bytes(b"broken")
    dock.tag_panel.view.select(4)
    qtbot.waitUntil(lambda: "4.png" in dock.message.text())
    assert dock.message.is_error


def test_objects_have_the_colours_of_their_classes(viewer):
    from napari_svpseg.plugin.layers.images.image_source import ImageSource
    from napari_svpseg.plugin.layers.results.journal import Journal
    from napari_svpseg.plugin.layers.results.result_layers import Results

    image = viewer.add_image(np.zeros((20, 20)), name="cells")
    source = ImageSource.of(image, "YX")
    labels = np.zeros((20, 20), np.uint32)
    labels[2:5, 2:5], labels[9:12, 9:12], labels[15:18, 2:5] = 1, 2, 3
    classes = np.where(np.indices((20, 20))[1] > 7, 2, 1).astype(np.uint8)
    maps = Maps((labels > 0).astype(np.float32), classes=classes)

    def result(kind, known=COLORS):
        ids = np.where(labels > 0, classes, 0) if kind == "classes" else labels
        recipe = Recipe("m", postprocess={"labels": kind})
        return Result(ids.astype(np.uint32), maps, np.nan, recipe, 0.1, known)

    journal = Journal()
    results = Results(viewer, journal)
    first = result("objects")
    layer, _ = results.show(source, None, first.labels, result=first)
    assert list(layer.features["class"]) == ["background", "disc", "bar", "disc"]
    assert (layer.get_color(1) == layer.get_color(3)).all()
    assert (layer.get_color(1) != layer.get_color(2)).any()
    assert layer.get_color(99)[3] == 1  # what the user paints is seen
    second = result("classes")
    again, _ = results.show(source, None, second.labels, result=second)
    assert again == layer and list(layer.features["class"])[1:] == ["disc", "bar"]
    journal.undo()
    assert len(layer.features) == 4
    plain = result("objects", known={})
    results.show(source, None, labels * 2, result=plain)
    assert "class" not in layer.features
    assert len({tuple(layer.get_color(i)) for i in (2, 4, 6)}) == 3


def test_closing_the_dock_ends_its_run(
    open_tags, runner, folder, qtbot, make_napari_viewer_proxy
):
    from napari_svpseg.plugin.services.engine_process import Engine

    stopped = []

    def endless(emit, on_progress, *args, **kwargs):
        try:
            while True:
                on_progress(0, 2, "first stage")
                time.sleep(0.01)
        finally:
            stopped.append(True)

    runner.pretend["train_from_tags"] = endless
    viewer = make_napari_viewer_proxy()
    dock = open_tags(Engine(lambda: runner), folder, window=viewer)
    dock.train.click()
    qtbot.waitUntil(lambda: dock.progress.maximum() == 2)
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: bool(stopped))
    assert not dock.is_open and runner.closed
