"""Tags: tables and folder names that are read, written, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.io import imsave

from napari_svpseg.io.atomic import WriteError
from napari_svpseg.io.tag_files import (
    Tags,
    TagsError,
    read_tags,
    tagged_files,
    tags_from_folders,
    write_tags,
)


def table(folder: Path, text: str) -> Path:
    path = folder / "tags.csv"
    path.write_text(text, encoding="utf-8")
    return path


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, np.zeros((20, 20), np.uint8), check_contrast=False)
    return path


def test_rows_are_files_and_their_classes(tmp_path):
    tags = read_tags(table(tmp_path, "a.tif,tumour,stroma\nb.tif\n\nc.tif, stroma \n"))
    assert dict(tags) == {
        "a.tif": {"tumour", "stroma"},
        "b.tif": set(),
        "c.tif": {"stroma"},
    }
    assert tags.classes == ("tumour", "stroma")
    assert tags.images_of("stroma") == ["a.tif", "c.tif"]


@pytest.mark.parametrize(
    "text",
    [
        "file,classes\na.tif,x\n",
        "\ufeffa.tif,x\n",
        "a.tif;x\n",
        "a.tif\tx\n",
        "# made by hand\na.tif,x\n",
        '"a.tif","x"\r\n',
        "Image,Tag\r\na.tif,x,,\r\n",
    ],
)
def test_tables_of_other_programs_are_read(tmp_path, text):
    assert dict(read_tags(table(tmp_path, text))) == {"a.tif": {"x"}}


def test_the_order_of_classes_can_be_said(tmp_path):
    tags = read_tags(table(tmp_path, "# classes: b, a, c\n1.tif,a\n2.tif,d\n"))
    assert tags.classes == ("b", "a", "c", "d")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no image"),
        ("file,classes\n", "holds no image"),
        ("a.tif,x\na.tif,x\n", "row 2 lists a.tif again .*with the same classes"),
        ("a.tif,x\na.tif,y\n", "row 2 lists a.tif again .*with other classes"),
        (",x\n", "row 1 names no file"),
        ("a.tif,x\n,y\na.tif,y\n", "row 2 names no file; row 3 lists a.tif again"),
        ("# classes: x, x\na.tif,x\n", None),
    ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path, text, told):
    path = table(tmp_path, text)
    if told is None:  # a class named twice in the comment is one class
        assert read_tags(path).classes == ("x",)
        return
    with pytest.raises(TagsError, match=told) as error:
        read_tags(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_only_some_bad_rows_are_told_and_the_rest_counted(tmp_path):
    path = table(tmp_path, "a.tif,x\n" * 20)
    with pytest.raises(TagsError, match="and 14 more"):
        read_tags(path)


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(TagsError, match=r"none\.csv: cannot be read"):
        read_tags(tmp_path / "none.csv")
    path = tmp_path / "tags.csv"
    path.write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(TagsError, match="not a text file"):
        read_tags(path)


names = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=12)
classes = st.lists(
    st.text("abc äß'\"-", min_size=1, max_size=6).map(str.strip).filter(bool),
    unique=True,
    max_size=4,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(names.map(lambda n: n.strip("#") + ".tif"), classes, min_size=1))
def test_what_is_written_is_read_back(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("tags") / "tags.csv"
    tags = Tags(images)
    assert read_tags(write_tags(path, tags)) == tags
    assert read_tags(path).classes == tags.classes


def test_a_class_without_an_image_is_kept_in_the_file(tmp_path):
    tags = Tags({"a.tif": ["x"]}, ["y", "x"])
    read = read_tags(write_tags(tmp_path / "t.csv", tags))
    assert read.classes == ("y", "x") and read == tags


def test_a_write_that_fails_leaves_the_old_tags(tmp_path, monkeypatch):
    path = write_tags(tmp_path / "tags.csv", Tags({"a.tif": ["x"]}))
    before = path.read_text()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(WriteError, match="disk is full"):
        write_tags(path, Tags({"b.tif": ["y"]}))
    assert path.read_text() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("bad", ["", " ", "a,b", "a\nb"])
def test_names_that_a_table_cannot_hold_are_refused(bad):
    with pytest.raises(TagsError):
        Tags({"a.tif": [bad]})


def test_a_tag_that_is_no_class_is_refused():
    with pytest.raises(TagsError, match="'z' is not among x"):
        Tags({"a.tif": ["z"]}, ["x"])


def test_folder_names_are_tags(tmp_path):
    for name in ("tumour/a.png", "tumour+stroma/b.png", "none/c.png", "d.png"):
        picture(tmp_path / name)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "tumour" / "notes.txt").write_text("x")
    tags = tags_from_folders(tmp_path)
    assert dict(tags) == {
        "d.png": set(),
        "none/c.png": set(),
        "tumour/a.png": {"tumour"},
        "tumour+stroma/b.png": {"tumour", "stroma"},
    }
    files, notes = tagged_files(tmp_path, tags)
    assert files["tumour/a.png"] == tmp_path / "tumour" / "a.png" and notes == []


def test_folders_without_names_of_classes_are_refused(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(TagsError, match="make one for each class"):
        tags_from_folders(tmp_path)
    with pytest.raises(TagsError, match="no such folder"):
        tags_from_folders(tmp_path / "nowhere")


def test_tagged_files_are_found_and_the_others_told(tmp_path):
    for name in ("a.png", "images/b.png", "loose.png"):
        picture(tmp_path / name)
    tags = Tags({"a.png": ["x"], "b": [], "gone.png": ["x"]})
    files, notes = tagged_files(tmp_path, tags)
    assert list(files) == ["a.png", "b"]
    assert notes == [
        "tagged but not there, left out: gone.png",
        "without tags, left out: loose.png",
    ]


def test_a_folder_with_none_of_the_files_is_refused(tmp_path):
    with pytest.raises(TagsError, match=r"none of the tagged files.*gone\.png"):
        tagged_files(tmp_path, Tags({"gone.png": ["x"]}))
