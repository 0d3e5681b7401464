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
    LEFTOVER_AFTER_S,
    REASONS,
    WriteError,
    atomic_folder,
    atomic_path,
    is_temporary,
    private_folder,
    private_opener,
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


KILLED = """
import os, sys
from pathlib import Path
from napari_svpseg.io import atomic
writer, target, at = getattr(atomic, sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
if at == "between":  # the old folder is moved aside, the new one not yet in its place
    replace, calls = os.replace, []
    def dying(*paths):
        calls.append(paths)
        os._exit(9) if len(calls) == 2 else replace(*paths)
    os.replace = dying
with writer(target, overwrite=True) as path:
    (path / "model.json" if path.is_dir() else path).write_text("half")
    if at == "alive":
        print("writing", flush=True)
        sys.stdin.read()
    elif at == "writing":
        os._exit(9)
"""


def started(writer: str, target, at: str, **streams) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", KILLED, writer, str(target), at]
    return subprocess.Popen(words, text=True, **streams)


@pytest.mark.parametrize("writer", ["atomic_path", "atomic_folder"])
def test_leftovers_of_a_killed_writer_go_at_the_next_write(tmp_path, writer):
    started(writer, tmp_path / "a", "writing").wait()
    left = [p.name for p in tmp_path.iterdir()]
    assert left and all(is_temporary(name) for name in left)
    foreign = tmp_path / ".12-a.tif"
    foreign.write_text("somebody else's")
    with atomic_path(tmp_path / "b") as path:
        path.write_text("x")
    assert sorted(p.name for p in tmp_path.iterdir()) == [foreign.name, "b"]


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started("atomic_path", tmp_path / "a", "alive", **streams) as process:
        assert process.stdout.readline() == "writing\n"
        before = sorted(p.name for p in tmp_path.iterdir())
        remove_leftovers(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == before
        process.communicate()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_was_being_replaced_is_put_back(tmp_path):
    with atomic_folder(tmp_path / "a") as path:
        (path / PART).write_text("old")
    started("atomic_folder", tmp_path / "a", "between").wait()
    assert not (tmp_path / "a").exists()
    remove_leftovers(tmp_path)
    assert content(tmp_path / "a") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_without_a_lock_only_old_leftovers_go(tmp_path):
    old, fresh = (tmp_path / f".svpseg-{n:012x}-a.tif" for n in range(2))
    for path in (old, fresh):
        path.write_text("x")
    os.utime(old, (time.time() - LEFTOVER_AFTER_S - 60,) * 2)
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [fresh.name]


def test_long_names_have_temporary_ones(tmp_path, writer):
    name = "é" * 120 + ".ome.tif"
    writer(tmp_path / name, "x")
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_private_files_are_for_their_user_only(tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    assert private_folder(folder).stat().st_mode & 0o777 == 0o700
    with atomic_path(folder / "x", private=True) as path:
        path.write_text("x")
    with open(folder / "y", "wb", opener=private_opener) as file:
        file.write(b"y")
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o600}
