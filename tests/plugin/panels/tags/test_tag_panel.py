"""Tagging a folder or the open images, and the file that grows with it."""

from __future__ import annotations

import os

import numpy as np
from qtpy.QtCore import Qt

from napari_svpseg.io.tag_files import read_tags
from napari_svpseg.plugin.panels.tags.tag_panel import FROM_FOLDERS, MOVED, NO_IMAGES
from napari_svpseg.plugin.panels.tags.thumbnails import small_view


def saved(path):
    if not path.exists():
        return {}
    tags = read_tags(path)
    return {
        name: tuple(c for c in tags.classes if c in of) for name, of in tags.items()
    }


def test_a_folder_is_listed_with_its_folders(panel, folder, listed):
    listed(folder)
    assert [p.title for p in panel.tags.images] == [
        "a.png", "b.png", "c.png", "d.png", "e.tif", "more/f.png"
    ]  # fmt: skip
    assert panel.tags.classes == ()  # one folder tells nothing


def test_tags_grow_in_a_file_beside_the_images(panel, folder, qtbot, press, listed):
    listed(folder)
    for name in ("round", "long"):
        panel.classes.new_class.setText(name)
        qtbot.keyClick(panel.classes.new_class, Qt.Key.Key_Return)
    press(panel.view, "1")
    qtbot.waitUntil(lambda: saved(folder / "tags.csv") == {"a.png": ("round",)})
    press(panel.view, "\n12\n")
    wanted = {"a.png": ("round",), "b.png": ("round", "long")}
    qtbot.waitUntil(lambda: saved(folder / "tags.csv") == wanted)
    assert "2 of 6 tagged" in panel.status.text()
    assert not list(folder.glob(".*tags*"))  # nothing half-written


def test_tags_are_there_when_the_folder_is_opened_again(panel, folder, qtbot, listed):
    (folder / "tags.csv").write_text(
        "file,class,class\nc.png,round,long\ngone.png,long\n"
    )
    listed(folder)
    assert set(panel.tags.classes) == {"round", "long"}
    assert [p.key for p, _ in panel.tags.tagged()] == ["c.png"]
    assert panel.view.selected_rows() == [0]  # the first that has no tag
    panel.tags.toggle([0], 0)
    qtbot.waitUntil(lambda: "a.png" in saved(folder / "tags.csv"))
    assert saved(folder / "tags.csv")["gone.png"] == ("long",)  # never lost


def test_comments_of_the_user_stay(panel, folder, qtbot, listed):
    comment = "# round: at most 1.2 times as long as wide"
    (folder / "tags.csv").write_text(f"{comment}\nfile,class\nc.png,round\n")
    listed(folder)
    panel.tags.toggle([0], 0)
    qtbot.waitUntil(lambda: "a.png" in saved(folder / "tags.csv"))
    assert comment in (folder / "tags.csv").read_text().splitlines()


def test_folder_names_become_tags(panel, tmp_path, folder, listed):
    for name in ("gland", "stroma"):
        (tmp_path / "sorted" / name).mkdir(parents=True)
        os.replace(
            folder / ("a.png" if name == "gland" else "b.png"),
            tmp_path / "sorted" / name / "x.png",
        )
    listed(tmp_path / "sorted")
    assert panel.tags.classes == ("gland", "stroma") and len(panel.tags.tagged()) == 2
    assert panel.told[-1] == (FROM_FOLDERS, False)


def test_a_damaged_tags_file_is_not_overwritten(panel, folder, qtbot, listed):
    damaged = b"\x00\xff\xfe broken \x00"
    (folder / "tags.csv").write_bytes(damaged)
    listed(folder)
    assert panel.told[-1][1] and "tags-2.csv" in panel.told[-1][0]
    panel.tags.add_class("round")
    panel.tags.toggle([0], 0)
    qtbot.waitUntil((folder / "tags-2.csv").exists)
    assert (folder / "tags.csv").read_bytes() == damaged


def test_tags_of_another_program_are_not_overwritten(panel, folder, qtbot, listed):
    listed(folder)
    panel.tags.add_class("round")
    qtbot.waitUntil((folder / "tags.csv").exists)
    theirs = "file,class\na.png,theirs\n"
    (folder / "tags.csv").write_text(theirs)
    panel.tags.toggle([0], 0)
    qtbot.waitUntil((folder / "tags-2.csv").exists)
    assert (folder / "tags.csv").read_text() == theirs
    qtbot.waitUntil(lambda: "tags-2.csv" in panel.place.text())


def test_a_folder_that_cannot_be_written_has_its_tags_at_home(
    panel, folder, home, qtbot, monkeypatch, listed
):
    from napari_svpseg.io import tag_files

    write = tag_files.write_tags

    def refuse(path, what, **how):
        if str(path).startswith(str(folder)):
            raise OSError(f"{path}: cannot be written, the disk is read-only.")
        return write(path, what, **how)

    monkeypatch.setattr(tag_files, "write_tags", refuse)
    listed(folder)
    panel.tags.add_class("round")
    panel.tags.toggle([0], 0)
    qtbot.waitUntil(lambda: any(text.startswith(MOVED) for text, _ in panel.told))
    assert panel.saver.path.parent == home / "tags"
    qtbot.waitUntil(lambda: saved(panel.saver.path) == {"a.png": ("round",)})
    listed_again = panel.saver.path
    panel.use_layers()
    listed(folder)
    assert panel.saver.path == listed_again and len(panel.tags.tagged()) == 1


def test_a_folder_without_images_says_so(panel, tmp_path, qtbot):
    (tmp_path / "empty").mkdir()
    panel.choose_folder(str(tmp_path / "empty"))
    qtbot.waitUntil(lambda: bool(panel.told))
    assert panel.told[-1][0].startswith(f"{NO_IMAGES} empty") and panel.folder is None


def test_open_images_are_tagged_and_renamed(panel, model):
    model.add_image(np.eye(30), name="one")
    model.add_image(np.zeros((4, 30, 30)), name="two")
    model.add_labels(np.ones((30, 30), int), name="labels")
    assert [p.title for p in panel.tags.images] == ["one", "two"]
    panel.tags.add_class("round")
    panel.tags.toggle([0], 0)
    model.layers["one"].name = "first"
    assert panel.tags.rows() == {"first": ("round",)}
    model.layers.remove("first")
    assert panel.tags.tagged() == [] and panel.tags.rows() == {"first": ("round",)}
    for image in panel.tags.images:
        assert small_view(image).dtype == np.uint8
