"""Files are whole or not there."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time

import pytest

from napari_svpseg.io.atomic import (
    CANNOT_WRITE,
    REASONS,
    WriteError,
    atomic_folder,
    atomic_path,
    remove_leftovers,
)

PART = "model.json"
"""A file in a folder that may be replaced."""


@pytest.fixture(params=[atomic_path, atomic_folder], ids=["file", "folder"])
def writer(request):
    """Return a function that writes ``text`` at a place, or fails half way."""

    def write(target, text, error=None):
        with request.param(target, overwrite=True) as temporary:
            path = temporary / PART if request.param is atomic_folder else temporary
            path.write_text(text)
            if error is not None:
                raise error

    return write


def content(target) -> str:
    return (target / PART if target.is_dir() else target).read_text()


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failure_leaves_what_was_there(tmp_path, writer, error):
    target = tmp_path / "a"
    with pytest.raises(type(error)):
        writer(target, "half", error)
    assert not list(tmp_path.iterdir())
    writer(target, "old")
    with pytest.raises(type(error)):
        writer(target, "half", error)
    assert content(target) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("number", sorted(REASONS), ids=errno.errorcode.get)
def test_each_reason_is_one_line_that_says_what_to_do(
    tmp_path, writer, number, pattern
):
    message = pattern(CANNOT_WRITE, target=tmp_path / "a", reason=REASONS[number])
    with pytest.raises(WriteError, match=message) as caught:
        writer(tmp_path / "a", "half", OSError(number, os.strerror(number)))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_unknown_error_keeps_its_own_message(tmp_path, writer, pattern):
    with pytest.raises(WriteError, match=pattern(CANNOT_WRITE, reason="out of luck")):
        writer(tmp_path / "a", "half", OSError("out of luck"))


def test_a_second_write_replaces_the_first(tmp_path, writer):
    for text in ("old", "new"):
        writer(tmp_path / "a", text)
    assert content(tmp_path / "a") == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_place_of_the_folder_is_reported(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(WriteError, match=REASONS[errno.ENOTDIR]),
        atomic_path(tmp_path / "file" / "a") as temporary,
    ):
        temporary.write_text("x")


CROWDED = """
import resource, sys
import numpy as np
from napari_svpseg.io.atomic import WriteError
from napari_svpseg.io.label_files import write_labels
from napari_svpseg.io.prompt_files import save_prompts
from napari_svpseg.core.prompt import Prompt, PromptSet

rng = np.random.default_rng(0)
labels = rng.integers(0, 60_000, (512, 512))
prompt = Prompt.from_image(rng.random((64, 64)), np.ones((64, 64), int), (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for write in (
    lambda: write_labels(sys.argv[1] + "/a.ome.tif", labels),
    lambda: save_prompts(PromptSet([prompt]), sys.argv[1] + "/a.svprompt"),
):
    try:
        write()
    except WriteError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_failed_write_leaves_no_partial_file(tmp_path, pattern):
    done = subprocess.run(
        [sys.executable, "-c", CROWDED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    message = pattern(CANNOT_WRITE, reason=REASONS[errno.EFBIG])
    assert all(re.fullmatch(message, line) for line in lines)
    assert not list(tmp_path.iterdir())


def test_leftovers_of_killed_writers_go_once_they_are_old(tmp_path):
    old, fresh, other = (
        tmp_path / name for name in (".12-a.tif", ".13-b.tif", ".hidden-file")
    )
    for path in (old, fresh, other):
        path.write_text("x")
    for path in (old, other):
        os.utime(path, (time.time() - 3600,) * 2)
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".13-b.tif", ".hidden-file"]


def test_a_writer_that_is_killed_leaves_only_a_hidden_file(tmp_path):
    code = (
        "import os, sys; from napari_svpseg.io.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1] + '/a.tif') as path:\n"
        "    path.write_text('half'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert [p.name[0] for p in tmp_path.iterdir()] == ["."]
