"""A session as one file: what goes in comes out, and damaged files are refused."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from napari_svpseg.core.geometry import Box
from napari_svpseg.core.prompt import Prompt
from napari_svpseg.io.atomic import WriteError
from napari_svpseg.io.session import STATE, SessionError
from napari_svpseg.io.session_file import open_session, save_session


@pytest.fixture
def prompts():
    image = np.random.default_rng(0).integers(0, 255, (80, 80, 3)).astype(np.uint8)
    labels = np.zeros((80, 80), int)
    labels[20:40, 20:40] = 1
    return [
        Prompt.from_image(image, labels, Box(5, 5), name="cells"),
        Prompt.from_image(image[..., 0], labels, Box(5, 5), name="grey cells"),
    ]


@pytest.fixture
def saved(tmp_path, prompts):
    arrays = {
        "0": np.random.default_rng(1).integers(0, 9, (3, 300, 270)).astype(np.uint32),
        "1w": np.zeros((40, 50), np.uint16),
    }
    path = save_session(tmp_path / "a.svpsession", {"n": np.int64(3)}, prompts, arrays)
    return path, arrays


def test_what_goes_in_comes_out(saved, prompts):
    path, arrays = saved
    session = open_session(path)
    assert session.state["n"] == 3
    for key, array in arrays.items():
        np.testing.assert_array_equal(session.labels(key), array)
        assert session.labels(key).dtype == array.dtype
    assert [p.name for p in session.prompts()] == ["cells", "grey cells"]
    assert session.problems == []
    session.discard()
    assert not session.folder.exists()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_it_is_replaced_as_a_whole_or_not_at_all(saved, prompts, monkeypatch):
    path, arrays = saved
    before = path.read_bytes()
    with pytest.raises(WriteError):
        save_session(path, {}, prompts, {})  # nobody allowed to replace it

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(WriteError):
        save_session(path, {}, prompts, arrays, overwrite=True)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def damaged(path, what):
    if what == "no zip":
        path.write_bytes(b"nothing")
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:300])
    else:
        with zipfile.ZipFile(path, "a") as archive:
            if what == "other file":
                archive.writestr("../evil.txt", "")
            elif what == "bomb":
                archive.writestr(
                    "labels-9.log", bytes(60_000_000), zipfile.ZIP_DEFLATED
                )
    if what == "version":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(STATE, json.dumps({"format": 99}))


@pytest.mark.parametrize("what", ("no zip", "cut", "other file", "bomb", "version"))
def test_what_is_no_session_is_refused_in_one_line(saved, what):
    path, _ = saved
    damaged(path, what)
    with pytest.raises(SessionError) as error:
        open_session(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not (path.parent / "evil.txt").exists()
