"""Tags in tables and folder names are read, written, or refused in one line."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.io import imsave

from napari_svpseg.io.atomic import REASONS, WriteError
from napari_svpseg.io.tag_files import (
    AND_MORE,
    BAD_ROWS,
    MISSING,
    NO_CLASS_FOLDERS,
    NO_FILE_NAME,
    NO_FOLDER,
    NO_IMAGES,
    NONE_TAGGED,
    NONE_THERE,
    NOT_TEXT,
    OTHER_AGAIN,
    SAME_AGAIN,
    UNKNOWN_CLASS,
    UNREADABLE,
    WITHOUT_TAGS,
    Tags,
    TagsError,
    image_files,
    read_tags,
    tagged_files,
    tags_from_folders,
    write_tags,
)


def table(folder: Path, text: str) -> Path:
    path = folder / "tags.csv"
    path.write_text(text, encoding="utf-8")
    return path


def empty_image(path: Path) -> Path:
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


def test_the_order_of_classes_can_be_set(tmp_path):
    tags = read_tags(table(tmp_path, "# classes: b, a, c\n1.tif,a\n2.tif,d\n"))
    assert tags.classes == ("b", "a", "c", "d")


@pytest.mark.parametrize(
    "text",
    ["", "file,classes\n"],
)
def test_a_table_without_images_is_refused(tmp_path, text, pattern):
    path = table(tmp_path, text)
    with pytest.raises(TagsError, match=pattern(NO_IMAGES, path=path)):
        read_tags(path)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a.tif,x\na.tif,x\n", [SAME_AGAIN.format(row=2, name="a.tif", first=1)]),
        ("a.tif,x\na.tif,y\n", [OTHER_AGAIN.format(row=2, name="a.tif", first=1)]),
        (",x\n", [NO_FILE_NAME.format(row=1)]),
        (
            "a.tif,x\n,y\na.tif,y\n",
            [
                NO_FILE_NAME.format(row=2),
                OTHER_AGAIN.format(row=3, name="a.tif", first=1),
            ],
        ),
    ],
)
def test_bad_rows_are_refused_in_one_line(tmp_path, text, rows):
    path = table(tmp_path, text)
    with pytest.raises(TagsError) as error:
        read_tags(path)
    assert str(error.value) == BAD_ROWS.format(path=path, rows="; ".join(rows))


def test_a_class_twice_in_the_comment_is_one_class(tmp_path):
    path = table(tmp_path, "# classes: x, x\na.tif,x\n")
    assert read_tags(path).classes == ("x",)


def test_some_bad_rows_are_listed_and_the_rest_counted(tmp_path, pattern):
    path = table(tmp_path, "a.tif,x\n" * 20)
    with pytest.raises(TagsError, match=pattern(AND_MORE, n=14)):
        read_tags(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_tables_of_excel_and_names_of_macos(tmp_path, encoding, form):
    if (encoding, form) == ("cp1252", "NFD"):
        pytest.skip("this code page has no accents by themselves")
    text = unicodedata.normalize(form, "file;class\r\nPräparat 1.tif;Gewebe\r\n")
    (tmp_path / "tags.csv").write_bytes(text.encode(encoding))
    tags = read_tags(tmp_path / "tags.csv")
    for n, other in enumerate(("NFC", "NFD")):
        folder = tmp_path / str(n)
        folder.mkdir()
        name = unicodedata.normalize(other, "Präparat 1.tif")
        (folder / name).touch()
        found, notes = tagged_files(folder, tags)
        assert [p.name for p in found.values()] == [name]
        assert notes == []


def test_masks_beside_images_are_not_tagged(tmp_path):
    for name in ("a.tif", "a_mask.tif", "a_cp_masks.png", "mask.tif"):
        (tmp_path / name).touch()
    assert [p.name for p in image_files(tmp_path)] == ["a.tif", "mask.tif"]


def test_what_is_no_table_is_refused(tmp_path, pattern):
    with pytest.raises(
        TagsError, match=pattern(UNREADABLE, path=tmp_path / "none.csv")
    ):
        read_tags(tmp_path / "none.csv")
    path = tmp_path / "tags.csv"
    for data in (b"\x89PNG\r\n\x1a\n\x00\x01\xff\x81", bytes(99)):
        path.write_bytes(data)
        with pytest.raises(TagsError, match=pattern(NOT_TEXT, path=path)):
            read_tags(path)
    if hasattr(os, "mkfifo"):  # reading it would wait for ever
        os.mkfifo(tmp_path / "pipe.csv")
        with pytest.raises(TagsError, match=pattern(UNREADABLE)):
            read_tags(tmp_path / "pipe.csv")


def test_tags_of_no_image_are_refused(tmp_path, pattern):
    with pytest.raises(TagsError, match=pattern(NONE_TAGGED, folder=tmp_path)):
        tagged_files(tmp_path, Tags({}, ["a"]))


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

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match=REASONS[errno.ENOSPC]):
        write_tags(path, Tags({"b.tif": ["y"]}), overwrite=True)
    assert path.read_text() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("bad", ["", " ", "a,b", "a\nb"])
def test_names_that_a_table_cannot_hold_are_refused(bad):
    with pytest.raises(TagsError):
        Tags({"a.tif": [bad]})


def test_a_tag_that_is_no_class_is_refused(pattern):
    with pytest.raises(TagsError, match=pattern(UNKNOWN_CLASS, name="z", classes="x")):
        Tags({"a.tif": ["z"]}, ["x"])


def test_folder_names_are_tags(tmp_path):
    for name in ("tumour/a.png", "tumour+stroma/b.png", "none/c.png", "d.png"):
        empty_image(tmp_path / name)
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


def test_folders_without_names_of_classes_are_refused(tmp_path, pattern):
    empty_image(tmp_path / "a.png")
    with pytest.raises(TagsError, match=pattern(NO_CLASS_FOLDERS, folder=tmp_path)):
        tags_from_folders(tmp_path)
    with pytest.raises(
        TagsError, match=pattern(NO_FOLDER, folder=tmp_path / "nowhere")
    ):
        tags_from_folders(tmp_path / "nowhere")


def test_tagged_files_are_found_and_the_others_noted(tmp_path):
    for name in ("a.png", "images/b.png", "loose.png"):
        empty_image(tmp_path / name)
    tags = Tags({"a.png": ["x"], "b": [], "gone.png": ["x"]})
    files, notes = tagged_files(tmp_path, tags)
    assert list(files) == ["a.png", "b"]
    assert notes == [
        MISSING.format(names="gone.png"),
        WITHOUT_TAGS.format(names="loose.png"),
    ]


def test_a_folder_with_none_of_the_files_is_refused(tmp_path, pattern):
    message = pattern(NONE_THERE, folder=tmp_path, name="gone.png")
    with pytest.raises(TagsError, match=message):
        tagged_files(tmp_path, Tags({"gone.png": ["x"]}))
