"""One run at a time writes into a folder."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading

import pytest

from napari_svpseg.io.locks import (
    IN_USE,
    LOCK,
    PROCESS,
    RESULTS_LOCK,
    InUseError,
    claimed,
    claimed_model,
    is_claimed,
    lock_files,
    run_folder,
)

HOLD = """
import os, sys
from napari_svpseg.io.locks import claimed
with claimed(sys.argv[1], sys.argv[2]):
    print("held", flush=True)
    if sys.argv[3] == "killed":
        os.kill(os.getpid(), 9)
    sys.stdin.read()
"""


def holder(folder, name=LOCK, then="waits") -> subprocess.Popen[str]:
    """Return a process that holds the lock of a folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), name, then],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("name", [LOCK, RESULTS_LOCK])
def test_another_process_is_refused_and_told_who_holds_it(tmp_path, name, pattern):
    with holder(tmp_path, name) as process:
        known = pattern(PROCESS, pid=process.pid, host=socket.gethostname())
        with pytest.raises(InUseError, match=known) as caught, claimed(tmp_path, name):
            raise AssertionError
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
        assert is_claimed(tmp_path, name)
        process.communicate("")
    assert not is_claimed(tmp_path, name)
    with claimed(tmp_path, name):
        assert {p.name for p in tmp_path.iterdir()} == {*lock_files(name)}
    assert not list(tmp_path.iterdir())


def test_a_killed_process_locks_nobody_out(tmp_path):
    with holder(tmp_path, then="killed") as process:
        process.wait()
    assert {p.name for p in tmp_path.iterdir()} == {*lock_files()}
    assert not is_claimed(tmp_path)
    with claimed(tmp_path):
        assert is_claimed(tmp_path)


def test_threads_of_one_process_lock_each_other_out(tmp_path, pattern):
    found = []

    def second():
        try:
            with claimed(tmp_path / "link"):
                found.append(None)
        except InUseError as error:
            found.append(error)

    (tmp_path / "folder").mkdir()
    os.symlink(tmp_path / "folder", tmp_path / "link")
    with claimed(tmp_path / "folder"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    (error,) = found
    assert re.search(pattern(PROCESS, pid=os.getpid()), str(error))
    second()
    assert found[1] is None


def test_an_unknown_holder_is_said_so(tmp_path, pattern):
    with claimed(tmp_path):
        (tmp_path / lock_files()[1]).write_text("{")
        with pytest.raises(InUseError, match=pattern(IN_USE)), claimed(tmp_path):
            raise AssertionError


def test_a_claimed_model_leaves_nothing(tmp_path):
    with claimed_model(tmp_path / "m") as folder:
        assert folder == run_folder(tmp_path / "m")
        with pytest.raises(InUseError), claimed_model(tmp_path / "m"):
            raise AssertionError
        assert is_claimed(folder)
    assert not list(tmp_path.iterdir())
