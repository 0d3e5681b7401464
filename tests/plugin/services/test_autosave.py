"""Autosave: a process that is killed, what comes back, and what the GUI has to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Labels

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.prompt import renamed
from napari_svpseg.io.session import (
    STATE,
    SavedSession,
    Session,
    crashed_sessions,
    sessions_folder,
)
from napari_svpseg.plugin.layers.images.image_source import ImageSource
from napari_svpseg.plugin.layers.labels.partial_label_layers import (
    paint_layer,
    start_painting,
)
from napari_svpseg.plugin.layers.metadata import metadata_of
from napari_svpseg.plugin.layers.prompts.prompt_book import PromptBook
from napari_svpseg.plugin.layers.prompts.prompt_item import PromptItem
from napari_svpseg.plugin.services import autosave as module
from napari_svpseg.plugin.services.autosave import IS_OFF, RESTORED, Autosave
from napari_svpseg.plugin.services.edited_blocks import EditedBlocks
from napari_svpseg.plugin.services.restoring import not_listed

from ..conftest import disc_image

WORK = """
import sys, time
import numpy as np
from qtpy.QtWidgets import QApplication
app = QApplication([])
from napari.components import ViewerModel
import napari_svpseg.plugin.services.autosave as autosave
autosave.WAIT_MS = 1
from napari_svpseg.core.geometry import Box
from napari_svpseg.plugin.layers.prompts.prompt_book import PromptBook
from napari_svpseg.plugin.layers.images.image_source import ImageSource
from napari_svpseg.plugin.layers.labels.partial_label_layers import start_painting
viewer = ViewerModel()
keeper = autosave.Autosave.of(viewer)
image = viewer.open(sys.argv[1], plugin="napari")[0]
source = ImageSource.of(image, "YX")
book = PromptBook(viewer, lambda layer: ImageSource.of(layer, "YX"))
class Dock:
    def choices(self): return {"answer": 42}
    def restore(self, values): pass
dock = Dock()
keeper.attach("dock", dock.choices, dock.restore, book)
item = book.place(source, (), Box(14, 14, 32))
mask = book.add_paint_layer(item)
mask.data_setitem(tuple(np.array([[30, 30, 31], [30, 31, 31]])), 1)
layer = start_painting(viewer, source, 2)
layer.data_setitem(tuple(np.array([[5, 6], [7, 8]])), 2)
layer.data_setitem(tuple(np.array([[50, 60], [70, 80]])), 1)
def is_waiting():
    files = keeper._timer.isActive() or keeper._files.is_busy
    return files or keeper.blocks.is_waiting or not item.is_ready
while is_waiting():
    app.processEvents(); time.sleep(0.01)
print("saved", flush=True)
time.sleep(120)
"""


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "discs.tif"
    tifffile.imwrite(path, disc_image()[0])
    return path


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(module, "WAIT_MS", 1)


@pytest.fixture
def model(qapp, soon):
    """Return a viewer without a window, with an image, and what saves it."""
    viewer = ViewerModel()
    viewer.add_image(disc_image()[0], name="discs")
    saver = Autosave.of(viewer)
    yield viewer, saver
    module._close(id(viewer))


class Dock:
    """What autosave needs of a dock."""

    def choices(self):
        return {}

    def restore(self, values):
        """Take what was saved."""


@pytest.fixture
def book(model):
    """Return the prompts of the viewer, as a dock has them."""
    viewer, saver = model
    book = PromptBook(viewer, lambda la: ImageSource.of(la, "YXC" if la.rgb else "YX"))
    dock = Dock()
    saver.attach("dock", dock.choices, dock.restore, book)
    yield book
    book.close()


@pytest.fixture
def settled(qtbot):
    """Return a function that waits until all is saved."""

    def wait(saver):
        qtbot.waitUntil(
            lambda: (
                not (
                    saver._timer.isActive()
                    or saver._files.is_busy
                    or saver.blocks.is_waiting
                )
            ),
            timeout=20_000,
        )

    return wait


def source_of(viewer):
    return ImageSource.of(viewer.layers["discs"], "YX")


def crash(saver):
    """Let go of the lock without closing, as the system does for a killed process."""
    saver._timer.stop()
    saver._session._lock.release()
    saver._broken = True


def test_a_killed_napari_gives_everything_back(image_file, viewer, open_dock, qtbot):
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, str(image_file)],
        stdout=subprocess.PIPE,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
    )
    try:
        assert process.stdout.readline().strip() == b"saved"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()

    dock = open_dock()
    bar = dock.last_session
    qtbot.waitUntil(lambda: bar.isVisibleTo(dock), timeout=20_000)
    assert "1 box and 2 painted layers on discs" in bar.text.text()
    bar.take.click()
    qtbot.waitUntil(lambda: dock.message.text() == RESTORED, timeout=20_000)
    assert not bar.isVisibleTo(dock)
    np.testing.assert_array_equal(viewer.layers["discs"].data, disc_image()[0])
    layer = paint_layer(viewer, dock.source_of(viewer.layers["discs"]))
    assert layer.data[5, 7] == 2 and layer.data[60, 80] == 1
    assert np.count_nonzero(layer.data) == 4
    assert [(i.box, i.n_objects) for i in dock.book.items] == [(Box(14, 14, 32), 1)]
    # the old session goes only when the new one holds all of it
    qtbot.waitUntil(
        lambda: len([p for p in sessions_folder().iterdir() if p.is_dir()]) == 1,
        timeout=20_000,
    )
    assert crashed_sessions(sessions_folder()) == ([], [])


def test_a_session_that_is_closed_is_not_offered(model, settled):
    viewer, saver = model
    start_painting(viewer, source_of(viewer), 2).data_setitem(
        tuple(np.array([[5], [5]])), 2
    )
    settled(saver)
    assert saver._session.folder.is_dir()
    saver.close()
    assert crashed_sessions(sessions_folder()) == ([], [])
    assert not saver._session.folder.exists()


def test_two_viewers_do_not_overwrite_each_other(model, settled):
    first, saver = model
    second = ViewerModel()
    second.add_image(disc_image()[0], name="discs")
    other = Autosave.of(second)
    for value, (viewer, one) in enumerate(((first, saver), (second, other)), start=2):
        start_painting(viewer, source_of(viewer), 2).data_setitem(
            tuple(np.array([[5], [5]])), value
        )
        settled(one)
    assert saver._session.folder != other._session.folder
    crash(saver)
    crash(other)
    found, _ = crashed_sessions(sessions_folder())
    keys = [s.state["labels"][0]["key"] for s in found]
    values = {int(s.labels(k)[5, 5]) for s, k in zip(found, keys, strict=True)}
    assert values == {2, 3}
    module._close(id(second))


def test_undo_is_saved_too(model, settled):
    viewer, saver = model
    layer = start_painting(viewer, source_of(viewer), 2)
    layer.data_setitem(tuple(np.array([[5], [5]])), 2)
    layer.data_setitem(tuple(np.array([[9], [9]])), 3)
    settled(saver)
    layer.undo()
    settled(saver)
    crash(saver)
    saved = crashed_sessions(sessions_folder())[0][0]
    labels = saved.labels(saved.state["labels"][0]["key"])
    np.testing.assert_array_equal(labels, layer.data)
    assert labels[5, 5] == 2 and labels[9, 9] == 0


def test_results_are_saved_once_they_are_edited(model, settled):
    viewer, saver = model
    labels = disc_image()[1].astype(np.uint32)
    layer = viewer.add_labels(labels, metadata={"svpseg": {"kind": "labels"}})
    layer.data_setitem(tuple(np.array([[1], [1]])), 9)  # as a run writes it
    settled(saver)
    assert not saver.blocks.keys
    layer.mode = "paint"
    layer.paint((80, 20), 7)
    settled(saver)
    crash(saver)
    saved = crashed_sessions(sessions_folder())[0][0]
    entry = saved.state["labels"][0]
    np.testing.assert_array_equal(saved.labels(entry["key"]), layer.data)


def test_the_gui_only_copies_small_blocks(model, settled, monkeypatch):
    viewer, saver = model
    threads, sizes = set(), []
    write, take = Session.write_blocks, EditedBlocks.take

    def watched_write(self, *args):
        threads.add(threading.current_thread())
        return write(self, *args)

    def watched_take(self, layer, limit):
        made = take(self, layer, limit)
        sizes.append(sum(a.nbytes for _, a in made))
        return made

    monkeypatch.setattr(Session, "write_blocks", watched_write)
    monkeypatch.setattr(EditedBlocks, "take", watched_take)
    layer = viewer.add_labels(np.ones((3000, 3000), np.uint16), name="large")
    layer.mode = "paint"
    layer.paint((1500, 1500), 5)
    settled(saver)
    assert threads and threading.main_thread() not in threads
    assert 0 < max(sizes) <= module.AT_ONCE * 256 * 256 * 2
    assert sum(sizes) >= layer.data.nbytes
    n = sum(p.stat().st_size for p in saver._session.folder.glob("*.log"))
    sizes.clear()
    layer.paint((100, 100), 7)
    settled(saver)
    written = sum(p.stat().st_size for p in saver._session.folder.glob("*.log")) - n
    assert 0 < written < 10_000  # an edit costs its blocks, not the image


def test_a_damaged_session_is_told_and_kept(model, settled, qtbot):
    viewer, saver = model
    start_painting(viewer, source_of(viewer), 2).data_setitem(
        tuple(np.array([[5], [5]])), 2
    )
    settled(saver)
    crash(saver)
    (saver._session.folder / STATE).write_text("{")
    next_viewer = ViewerModel()
    later = Autosave(next_viewer)
    with qtbot.waitSignal(later.message, timeout=20_000) as told:
        pass
    assert "damaged" in told.args[0] and told.args[1]
    assert any(p.name.startswith("damaged-") for p in sessions_folder().iterdir())
    later.close()


def test_blocks_that_cannot_be_copied_are_saved_later():
    class Unreadable:
        shape = (300, 300)

        def __getitem__(self, index):
            raise OSError("the drive is gone")

    blocks = EditedBlocks()
    layer = Labels(np.zeros((300, 300), np.uint8))
    blocks.begin(layer)
    broken = SimpleNamespace(unique_id=layer.unique_id, data=Unreadable())
    with pytest.raises(OSError, match="gone"):
        blocks.take(broken, 99)
    assert blocks.take(layer, 0) == []
    n = len(blocks.take(layer, 99))
    assert n == 4 and not blocks.is_waiting


def test_a_disk_that_cannot_be_written_is_told_once(model, own_home, qtbot):
    viewer, saver = model
    own_home.mkdir(exist_ok=True)
    (own_home / "sessions").write_text("in the way")
    told = []
    saver.message.connect(lambda text, error: told.append(text))
    layer = start_painting(viewer, source_of(viewer), 2)
    layer.data_setitem(tuple(np.array([[5], [5]])), 2)
    qtbot.waitUntil(lambda: bool(told), timeout=20_000)
    layer.data_setitem(tuple(np.array([[6], [6]])), 2)
    saver.save()
    assert not saver._files.is_busy
    assert len(told) == 1 and told[0].startswith(IS_OFF)
    assert layer.data[6, 6] == 2 and metadata_of(layer, "partial")


def test_prompts_on_grey_and_colour_images_are_saved(model, book, settled, qtbot):
    viewer, saver = model
    grey = viewer.layers["discs"]
    colour = viewer.add_image(np.repeat(grey.data[..., None], 3, -1), rgb=True)
    for layer in (grey, colour):
        item = book.place(book.source_of(layer), (), Box(14, 14, 32))
        paint = book.add_paint_layer(item)
        paint.data_setitem(tuple(np.array([[30, 30, 31], [30, 31, 31]])), 1)
    qtbot.waitUntil(lambda: all(i.is_ready for i in book.items))
    settled(saver)
    prompts = SavedSession(saver._session.folder, {}).prompts()
    assert sorted(p.n_channels for p in prompts) == [1, 3]
    assert not saver._broken


def test_a_prompt_of_a_file_is_not_taken_for_a_box_of_its_name(disc_prompt):
    box = disc_prompt.box
    drawn = renamed(disc_prompt, "prompt 1")
    loaded = replace(drawn, box=Box(box.y + 1, box.x, box.size))
    items = [PromptItem("prompt 1", "#ffffff", box=box)]
    assert not_listed([loaded, drawn], items) == [loaded]
    assert not_listed([loaded, drawn], [*items, *items]) == []
    assert not_listed([drawn], []) == [drawn]
