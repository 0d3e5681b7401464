"""Sessions: written as they change, locked, read back after a crash, damaged ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from napari_svpseg.core.prompt import PromptSet, renamed
from napari_svpseg.io import session as session_module
from napari_svpseg.io.atomic import WriteError
from napari_svpseg.io.model_store import make_folder
from napari_svpseg.io.session import (
    BLOCK,
    CANNOT_SAVE,
    STATE,
    SavedSession,
    Session,
    block_slices,
    block_starts,
    crashed_sessions,
)

SHAPE = (2, 300, 600)


def cut(labels, region=None):
    return [
        (start, labels[block_slices(start, labels.shape)].copy())
        for start in block_starts(labels.shape, region)
    ]


def abandon(session):
    """Do what the system does when the process is killed."""
    session._lock.release()


def only(folder):
    sessions, problems = crashed_sessions(folder)
    assert not problems and len(sessions) == 1
    return sessions[0]


@pytest.fixture
def labels():
    made = np.zeros(SHAPE, np.uint16)
    made[1, 250:260, 500:520] = 7
    return made


@pytest.mark.parametrize("shape", [(5, 5), (256, 257), (3, 300, 20), (2, 2, 40, 513)])
def test_blocks_cover_each_pixel_once(shape):
    seen = np.zeros(shape, int)
    for start in block_starts(shape):
        seen[block_slices(start, shape)] += 1
    assert (seen == 1).all()


def test_what_was_written_is_read(tmp_path, labels, disc_prompt):
    session = Session(tmp_path)
    session.write_state({"settings": {"segment": {"threshold": 0.7}}})
    session.write_prompts(PromptSet([disc_prompt]))
    session.write_blocks("a", SHAPE, "<u2", cut(labels))
    labels[0, 3, 4] = 9
    region = (slice(0, 1), slice(3, 4), slice(4, 5))
    assert session.write_blocks("a", SHAPE, "<u2", cut(labels, region)) < 2000
    abandon(session)
    saved = only(tmp_path)
    np.testing.assert_array_equal(saved.labels("a"), labels)
    assert saved.labels("a").dtype == np.uint16
    assert saved.state["settings"]["segment"]["threshold"] == 0.7 and saved.when
    assert saved.prompts()[0] == disc_prompt or saved.prompts()[0].name == "discs"
    assert not saved.problems
    saved.discard()
    assert crashed_sessions(tmp_path) == ([], [])


def test_prompts_of_several_kinds_of_images_are_kept(tmp_path, disc_prompt):
    three = np.repeat(disc_prompt.image, 3, axis=2)
    ranges = np.repeat(disc_prompt.intensities, 3, axis=0)
    colour = replace(disc_prompt, name="colour", image=three, intensities=ranges)
    session = Session(tmp_path)
    session.write_state({})
    session.write_prompts([disc_prompt, colour, renamed(disc_prompt, "third")])
    names = [p.name for p in SavedSession(session.folder, {}).prompts()]
    assert sorted(names) == ["colour", "discs", "third"]
    session.write_prompts([colour])
    assert [p.name for p in SavedSession(session.folder, {}).prompts()] == ["colour"]
    session.write_prompts([])
    assert SavedSession(session.folder, {}).prompts() == []
    session.close()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_sessions_are_for_their_user_only(tmp_path, labels, disc_prompt, monkeypatch):
    folder = tmp_path / "sessions"
    folder.mkdir(mode=0o755)  # by an earlier version
    session = Session(folder)
    session.write_blocks("a", SHAPE, "<u2", cut(labels))
    session.write_prompts(PromptSet([disc_prompt]))
    session.write_state({})
    session._compact(session._path("a"), session._logs["a"])
    for path in (folder, session.folder):
        assert path.stat().st_mode & 0o777 == 0o700
    files = list(session.folder.iterdir())
    assert len(files) == 4
    assert {p.stat().st_mode & 0o777 for p in files} == {0o600}
    abandon(session)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_what_is_the_users_own_is_for_the_user_only(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(home))
    for name in ("models", "training-sets/cells", "results"):
        make_folder(home / name)
        assert (home / name).stat().st_mode & 0o777 == 0o700
    (home / "models").chmod(0o755)  # shared on purpose
    make_folder(home / "models")
    make_folder(tmp_path / "elsewhere")
    shared = 0o777 & ~current_umask()
    assert (home / "models").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == shared


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_only_what_changed_is_written(tmp_path, labels):
    session = Session(tmp_path)
    first = session.write_blocks("a", SHAPE, "<u2", cut(labels))
    assert first > 0  # the painted blocks; empty ones cost nothing
    assert session.write_blocks("a", SHAPE, "<u2", cut(labels)) == 0
    labels[:] = 0
    session.write_blocks("a", SHAPE, "<u2", cut(labels))
    session.write_state({})
    abandon(session)
    assert not only(tmp_path).labels("a").any()  # erased is known, too


def test_the_log_does_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(session_module, "COMPACT_AT", 10_000)
    labels = np.zeros((BLOCK, BLOCK), np.uint8)
    session = Session(tmp_path)
    rng = np.random.default_rng(0)
    for n in range(40):
        labels[rng.integers(0, BLOCK, 99), rng.integers(0, BLOCK, 99)] = n + 1
        session.write_blocks("a", labels.shape, "|u1", cut(labels))
    written = sum(p.stat().st_size for p in session.folder.glob("*.log"))
    assert written < 100_000
    session.write_state({})
    abandon(session)
    np.testing.assert_array_equal(only(tmp_path).labels("a"), labels)


def test_an_open_session_is_offered_to_no_other_process(tmp_path):
    mine, other = Session(tmp_path), Session(tmp_path)
    for n, session in enumerate((mine, other)):
        session.write_state({"n": n})
    assert mine.folder != other.folder
    assert crashed_sessions(tmp_path) == ([], [])
    abandon(other)
    saved = only(tmp_path)
    assert saved.state["n"] == 1
    assert crashed_sessions(tmp_path) == ([], [])  # offered once, not to two at a time
    saved.release()
    assert only(tmp_path).state["n"] == 1


def test_a_session_that_was_closed_is_gone(tmp_path, labels):
    session = Session(tmp_path)
    session.write_blocks("a", SHAPE, "<u2", cut(labels))
    session.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', "[" * 99_999])
def test_a_damaged_session_is_named_and_kept_aside(tmp_path, text):
    session = Session(tmp_path)
    session.write_state({})
    (session.folder / STATE).write_text(text)
    abandon(session)
    sessions, problems = crashed_sessions(tmp_path)
    assert not sessions and len(problems) == 1
    assert session.folder.name in problems[0] and "\n" not in problems[0]
    kept = [p for p in tmp_path.iterdir() if p.name.startswith("damaged-")]
    assert len(kept) == 1 and (kept[0] / STATE).read_text() == text
    assert crashed_sessions(tmp_path) == ([], [])


def two_versions(tmp_path, labels):
    """Return a session's log, and the labels before the last record of it."""
    session = Session(tmp_path)
    session.write_state({})
    session.write_blocks("a", SHAPE, "<u2", cut(labels))
    before = labels.copy()
    labels[0, 3, 4] = 9
    session.write_blocks("a", SHAPE, "<u2", cut(labels))
    abandon(session)
    return session.folder / "labels-a.log", before


def test_a_truncated_record_loses_only_itself(tmp_path, labels):
    log, before = two_versions(tmp_path, labels)
    log.write_bytes(log.read_bytes()[:-3])
    saved = only(tmp_path)
    np.testing.assert_array_equal(saved.labels("a"), before)
    assert not saved.problems  # that is how a crash looks


def test_a_damaged_record_is_reported(tmp_path, labels):
    log, before = two_versions(tmp_path, labels)
    data = bytearray(log.read_bytes())
    data[-2] ^= 255
    log.write_bytes(data)
    saved = only(tmp_path)
    np.testing.assert_array_equal(saved.labels("a"), before)
    assert len(saved.problems) == 1 and str(log) in saved.problems[0]


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x00\xff\n",
        b'{"shape": [9999999, 9999999], "dtype": "<u2"}\n',
        b'{"shape": [-1, 5], "dtype": "<u2"}\n',
        b'{"shape": [5, 5], "dtype": "O"}\n',
        b'{"shape": [1e400, 5], "dtype": "<u2"}\n',
        b'{"shape": [5, 5], "dtype": "<u2"}\n{"start": [0, 0], "n": -1, "crc": 0}\n',
        b'{"shape": [5, 5], "dtype": "<u2"}\n{"start": [0, 0], "n": 1e15, "crc": 0}\n',
        b'{"shape": [5, 5], "dtype": "<u2"}\n{"start": [9, 0], "n": 0, "crc": 0}\n',
    ],
)
def test_damaged_logs_are_reported(tmp_path, labels, head):
    log, _ = two_versions(tmp_path, labels)
    log.write_bytes(head)
    saved = only(tmp_path)
    found = saved.labels("a")
    assert found is None or not found.any()
    assert len(saved.problems) == 1


def test_a_folder_that_cannot_be_written_is_reported(tmp_path, pattern):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=pattern(CANNOT_SAVE)):
        Session(tmp_path / "file" / "sessions").write_state({})


def test_a_process_that_is_killed_leaves_its_session(tmp_path):
    code = (
        "import sys, time, numpy as np\n"
        "from napari_svpseg.io.session import Session\n"
        "s = Session(sys.argv[1]); s.write_state({'who': 'killed'})\n"
        "s.write_blocks('a', (9, 9), '<i4', [((0, 0), np.full((9, 9), 3, '<i4'))])\n"
        "print('saved', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"saved\n"
    assert crashed_sessions(tmp_path) == ([], [])  # it is alive
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    saved = only(tmp_path)
    assert saved.state["who"] == "killed" and (saved.labels("a") == 3).all()


def test_the_state_is_plain_json(tmp_path):
    session = Session(tmp_path)
    session.write_state({"path": tmp_path})
    assert json.loads((session.folder / STATE).read_text())["path"] == str(tmp_path)
