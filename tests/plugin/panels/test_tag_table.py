"""Tagging: the table, its keys, the classes, and the file that grows with it."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from skimage.io import imsave

from napari_svpseg.io.tag_files import read_tags
from napari_svpseg.plugin.panels.tag_panel import TagPanel, free_name
from napari_svpseg.plugin.panels.tag_table import (
    MAX_CLASSES,
    Picture,
    TagTable,
    TagView,
)


@pytest.fixture
def table(qtbot, tmp_path):
    table = TagTable()
    table.show([Picture(f"{i}.png", f"{i}.png", tmp_path) for i in range(6)], {}, "ab")
    yield table
    table.close()


@pytest.fixture
def view(table, qtbot):
    view = TagView(table)
    qtbot.addWidget(view)
    view.mark(0)
    return view


@pytest.fixture
def folder(tmp_path):
    """Return a folder of six small pictures, one of them in a folder of its own."""
    place = tmp_path / "images"
    (place / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png", "d.png", "e.tif", "more/f.png"):
        picture = rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)
        imsave(place / name, picture, check_contrast=False)
    (place / "notes.txt").write_text("no image")
    (place / ".hidden.png").write_bytes(b"")
    return place


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Keep the user's folder out of it."""
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def viewer():
    """Return a viewer without a window: the table needs none."""
    return ViewerModel()


@pytest.fixture
def panel(viewer, home, qtbot):
    panel = TagPanel(viewer)
    qtbot.addWidget(panel)
    panel.told = []
    panel.message.connect(lambda text, error: panel.told.append((text, error)))
    yield panel
    panel.close_hooks()


def press(qtbot, view, keys):
    for key in keys:
        qtbot.keyClick(view, Qt.Key.Key_Return if key == "\n" else key)


def listed(panel, qtbot, folder):
    panel.choose_folder(str(folder))
    qtbot.waitUntil(lambda: panel.folder == folder)


def saved(path):
    if not path.exists():
        return {}
    tags = read_tags(path)
    return {
        name: tuple(c for c in tags.classes if c in of) for name, of in tags.items()
    }


# ------------------------------------------------------------------------ keys


def test_digits_toggle_and_enter_goes_on(view, qtbot):
    press(qtbot, view, "1\n2\n12\n")
    assert view.table.rows() == {
        "0.png": ("a",),
        "1.png": ("b",),
        "2.png": ("a", "b"),
    }
    assert view.marked_rows() == [3]
    press(qtbot, view, "11")
    assert "3.png" not in view.table.rows()


def test_clearing_and_taking_back(view, qtbot):
    press(qtbot, view, "12")
    qtbot.keyClick(view, Qt.Key.Key_Backspace)
    assert view.table.rows() == {}
    qtbot.keyClick(view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert view.table.rows() == {"0.png": ("a", "b")}
    for _ in range(3):  # one more than there is to take back
        qtbot.keyClick(view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert view.table.rows() == {}


def test_zero_says_none_of_the_classes(view, qtbot):
    press(qtbot, view, "10\n")
    assert view.table.rows() == {"0.png": ()}
    assert view.table.n_tagged() == 1 and view.table.next_untagged(-1) == 1
    view.mark(0)
    press(qtbot, view, "22")  # a class that is taken away leaves an image unknown
    assert view.table.rows() == {}


def test_shift_enter_goes_back(view, qtbot):
    press(qtbot, view, "\n\n")
    qtbot.keyClick(view, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    assert view.marked_rows() == [1]


def test_several_rows_get_a_class_together(view, qtbot):
    view.table.toggle([1], 0)
    view.selectAll()
    press(qtbot, view, "1")
    assert all(of == ("a",) for of in view.table.rows().values())
    assert len(view.table.rows()) == 6
    press(qtbot, view, "1")  # all have it: now none
    assert view.table.rows() == {}


def test_a_digit_without_a_class_does_nothing(view, qtbot):
    press(qtbot, view, "39")
    assert view.table.rows() == {}


def test_enter_after_the_last_row_says_so(view, qtbot):
    view.mark(5)
    with qtbot.waitSignal(view.last_passed):
        press(qtbot, view, "\n")
    assert view.marked_rows() == [5]


def test_a_click_on_a_box_toggles_the_class(view, qtbot):
    view.resize(300, 300)
    view.show()
    cell = view.visualRect(view.table.index(2, 2)).center()
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=cell)
    assert view.table.rows() == {"2.png": ("b",)}
    name = view.visualRect(view.table.index(3, 0)).center()
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=name)
    assert view.table.rows() == {"2.png": ("b",)} and view.marked_rows() == [3]


def test_a_new_class_leaves_the_marked_row(view, qtbot):
    view.mark(4)
    view.table.add_class("third")
    press(qtbot, view, "3")
    assert view.table.rows() == {"4.png": ("third",)}


# ------------------------------------------------------------------------ classes


def test_a_renamed_class_keeps_its_tags(table):
    table.toggle([0, 1], 0)
    table.rename_class(0, "gland")
    assert table.classes == ("gland", "b")
    assert table.rows() == {"0.png": ("gland",), "1.png": ("gland",)}
    table.rename_class(0, "Gland")  # only its case
    assert table.classes == ("Gland", "b")


def test_a_removed_class_comes_back(table):
    table.toggle([0, 1], 0)
    table.toggle([1], 1)
    table.remove_class(0)
    assert table.classes == ("b",) and table.rows() == {"1.png": ("b",)}
    assert table.undo()
    assert table.classes == ("a", "b")
    assert table.rows() == {"0.png": ("a",), "1.png": ("a", "b")}


@pytest.mark.parametrize("name", ["", "  ", "a", "A", "x,y", 'x"y', "#x"])
def test_names_that_cannot_be(table, name):
    with pytest.raises(ValueError, match="class"):
        table.add_class(name)
    assert table.classes == ("a", "b")


def test_there_are_as_many_classes_as_digits(table):
    for i in range(MAX_CLASSES - 2):
        table.add_class(f"more {i}")
    with pytest.raises(ValueError, match="remove one"):
        table.add_class("too many")


def test_tags_of_unknown_classes_are_kept(table):
    table.show(table.pictures, {"0.png": ("a", "odd")}, ("a",))
    assert table.rows() == {"0.png": ("a", "odd")}


# ------------------------------------------------------------------------ folder


def test_a_folder_is_listed_with_its_folders(panel, folder, qtbot):
    listed(panel, qtbot, folder)
    assert [p.title for p in panel.table.pictures] == [
        "a.png", "b.png", "c.png", "d.png", "e.tif", "more/f.png"
    ]  # fmt: skip
    assert panel.classes == ()  # one folder tells nothing


def test_tags_grow_in_a_file_beside_the_images(panel, folder, qtbot):
    listed(panel, qtbot, folder)
    for name in ("round", "long"):
        panel.new_class.setText(name)
        qtbot.keyClick(panel.new_class, Qt.Key.Key_Return)
    press(qtbot, panel.view, "1")
    qtbot.waitUntil(lambda: saved(folder / "tags.csv") == {"a.png": ("round",)})
    press(qtbot, panel.view, "\n12\n")
    wanted = {"a.png": ("round",), "b.png": ("round", "long")}
    qtbot.waitUntil(lambda: saved(folder / "tags.csv") == wanted)
    assert "2 of 6 tagged" in panel.status.text()
    assert not list(folder.glob(".*tags*"))  # nothing half-written


def test_tags_are_there_when_the_folder_is_opened_again(panel, folder, qtbot):
    (folder / "tags.csv").write_text(
        "file,class,class\nc.png,round,long\ngone.png,long\n"
    )
    listed(panel, qtbot, folder)
    assert set(panel.classes) == {"round", "long"}
    assert [p.key for p, _ in panel.tagged()] == ["c.png"]
    assert panel.view.marked_rows() == [0]  # the first that has no tag
    panel.table.toggle([0], 0)
    qtbot.waitUntil(lambda: "a.png" in saved(folder / "tags.csv"))
    assert saved(folder / "tags.csv")["gone.png"] == ("long",)  # never lost


def test_folder_names_become_tags(panel, tmp_path, folder, qtbot):
    for name in ("gland", "stroma"):
        (tmp_path / "sorted" / name).mkdir(parents=True)
        os.replace(
            folder / ("a.png" if name == "gland" else "b.png"),
            tmp_path / "sorted" / name / "x.png",
        )
    listed(panel, qtbot, tmp_path / "sorted")
    assert panel.classes == ("gland", "stroma") and len(panel.tagged()) == 2
    assert "names of the folders" in panel.told[-1][0]


def test_a_damaged_tags_file_is_not_overwritten(panel, folder, qtbot):
    damaged = b"\x00\xff\xfe broken \x00"
    (folder / "tags.csv").write_bytes(damaged)
    listed(panel, qtbot, folder)
    assert panel.told[-1][1] and "tags-2.csv" in panel.told[-1][0]
    panel.table.add_class("round")
    panel.table.toggle([0], 0)
    qtbot.waitUntil((folder / "tags-2.csv").exists)
    assert (folder / "tags.csv").read_bytes() == damaged


def test_tags_of_another_program_are_not_overwritten(panel, folder, qtbot):
    listed(panel, qtbot, folder)
    panel.table.add_class("round")
    qtbot.waitUntil((folder / "tags.csv").exists)
    time.sleep(0.02)
    theirs = "file,class\na.png,theirs\n"
    (folder / "tags.csv").write_text(theirs)
    panel.table.toggle([0], 0)
    qtbot.waitUntil((folder / "tags-2.csv").exists)
    assert (folder / "tags.csv").read_text() == theirs
    qtbot.waitUntil(lambda: "tags-2.csv" in panel.place.text())


def test_a_folder_that_cannot_be_written_has_its_tags_at_home(
    panel, folder, home, qtbot, monkeypatch
):
    from napari_svpseg.io import tag_files

    write = tag_files.write_tags

    def refuse(path, what):
        if str(path).startswith(str(folder)):
            raise OSError(f"{path}: cannot be written, the disk is read-only.")
        return write(path, what)

    monkeypatch.setattr(tag_files, "write_tags", refuse)
    listed(panel, qtbot, folder)
    panel.table.add_class("round")
    panel.table.toggle([0], 0)
    qtbot.waitUntil(lambda: any("now saved in" in text for text, _ in panel.told))
    assert panel.file.path.parent == home / "tags"
    qtbot.waitUntil(lambda: saved(panel.file.path) == {"a.png": ("round",)})
    listed_again = panel.file.path
    panel.use_layers()
    listed(panel, qtbot, folder)
    assert panel.file.path == listed_again and len(panel.tagged()) == 1


def test_a_folder_without_images_says_so(panel, tmp_path, qtbot):
    (tmp_path / "empty").mkdir()
    panel.choose_folder(str(tmp_path / "empty"))
    qtbot.waitUntil(lambda: bool(panel.told))
    assert "no images in empty" in panel.told[-1][0] and panel.folder is None


def test_free_name(tmp_path):
    (tmp_path / "tags-2.csv").write_text("")
    assert free_name(tmp_path / "tags.csv") == tmp_path / "tags-3.csv"


def test_thumbnails_are_made_of_what_is_seen(panel, folder, qtbot, monkeypatch):
    asked = []
    small = Picture.small

    def count(picture):
        asked.append(picture.key)
        return small(picture)

    monkeypatch.setattr(Picture, "small", count)
    (folder / "b.png").write_bytes(b"damaged")
    names = [f"{i}.png" for i in range(500)]
    listed(panel, qtbot, folder)
    pictures = [*panel.table.pictures, *(Picture(n, n, folder / n) for n in names)]
    panel.resize(300, 500)
    panel.show()
    panel.table.refresh(pictures)
    qtbot.waitUntil(lambda: "a.png" in panel.table._pixmaps)
    qtbot.waitUntil(lambda: "b.png" in panel.table._pixmaps)
    assert panel.table._pixmaps["a.png"] is not None
    assert panel.table._pixmaps["b.png"] is None  # damaged: a grey square
    assert len(set(asked)) < 40


def test_thumbnails_of_colour_pictures_keep_their_colours(tmp_path):
    pale = np.full((60, 60, 3), (220, 180, 200), np.uint8)
    pale[20:40] = (200, 170, 190)
    imsave(tmp_path / "pale.png", pale, check_contrast=False)
    imsave(tmp_path / "grey.png", pale[..., 0], check_contrast=False)
    small = {n: Picture(n, n, tmp_path / n).small() for n in ("pale.png", "grey.png")}
    assert small["pale.png"][0, 0].tolist() == [220, 180, 200]
    assert small["grey.png"].min() == 0 and small["grey.png"].max() == 255


# ------------------------------------------------------------------------ open images


def test_open_images_are_tagged_and_renamed(panel, viewer, qtbot):
    viewer.add_image(np.eye(30), name="one")
    viewer.add_image(np.zeros((4, 30, 30)), name="two")
    viewer.add_labels(np.ones((30, 30), int), name="labels")
    assert [p.title for p in panel.table.pictures] == ["one", "two"]
    panel.table.add_class("round")
    panel.table.toggle([0], 0)
    viewer.layers["one"].name = "first"
    assert panel.table.rows() == {"first": ("round",)}
    viewer.layers.remove("first")
    assert panel.tagged() == [] and panel.table.rows() == {"first": ("round",)}
    for picture in panel.table.pictures:
        assert picture.small().dtype == np.uint8


def test_what_is_missing_is_said(panel, viewer):
    assert "Open images" in panel.problem()
    for name in ("one", "two", "three"):
        viewer.add_image(np.zeros((30, 30)), name=name)
    for classes, tags, said in (
        ("", {}, "Add a class"),
        ("ab", {}, "Tag some images"),
        ("a", {"one": "a"}, "tag more"),
        ("ab", {"one": "a", "two": ""}, "class 'b'"),
        ("ab", {"one": "ab", "two": "ab"}, "nothing to compare"),
        ("ab", {"one": "b", "two": "a"}, ""),
        ("a", {"one": "a", "two": ""}, ""),
    ):
        panel.table.show(panel.table.pictures, tags, tuple(classes))
        problem = panel.problem()
        assert said in problem and bool(problem) == bool(said), problem
    for classes, tags, said in (
        ("ab", {"one": "ab", "two": "a"}, "Each tagged image has 'a'"),
        ("ab", {"one": "ab", "two": ""}, "'a' or 'b' alone"),
        ("ab", {"one": "b", "two": "a"}, "1 without a tag"),
        ("ab", {"one": "b", "two": "a", "three": "a"}, ""),
    ):
        panel.table.show(panel.table.pictures, tags, tuple(classes))
        remark = panel.remark()
        assert said in remark and bool(remark) == bool(said), remark
