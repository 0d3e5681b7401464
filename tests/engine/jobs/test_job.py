"""Jobs in a thread, a child process and on a Dask worker; what may go wrong."""

from __future__ import annotations

import gc
import importlib
import io
import operator
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from napari_svpseg.core.progress import Cancelled
from napari_svpseg.engine.jobs.child_process import (
    BY_SIGNAL,
    CANNOT_START,
    CLOSED,
    ENDED,
    KILL_AFTER_S,
    NOT_STARTED,
    OUT_OF_MEMORY,
    ChildProcess,
)
from napari_svpseg.engine.jobs.dask_runner import GIVE_UP_AFTER_S
from napari_svpseg.engine.jobs.job import (
    JobError,
    Reports,
    TargetError,
    find_target,
    run_target,
)
from napari_svpseg.engine.jobs.runners import connect
from napari_svpseg.engine.jobs.transport import (
    LOCK,
    PREFIX,
    ForeignPayloadError,
    NoRoomError,
    Pipe,
    Transport,
    remove_stale,
)
from napari_svpseg.engine.jobs.workers import NoSchedulerError

LONG = 3600
"""Seconds, or steps, that no test waits for."""
PATIENCE_S = 120
"""How long to wait for what comes at once on a machine that has nothing else to do."""

FUNCTIONS = """
import os, sys, time

def double(array, on_progress, on_partial):
    on_progress(0, 2, "starting")
    on_partial(array[:1])
    on_progress(2, 2, "ready")
    return array * 2

def count(n, pause, on_progress):
    for i in range(n):
        on_progress(i, n, "counting")
        time.sleep(pause)
    return n

def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))

def stubborn(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except Exception:
            pass

def flood(n, on_partial):
    while True:
        on_partial(bytes(n))

def talk():
    print("hello from the job")
    os.write(1, b"and from below\\n")
    return sys.stdin.read()

def complain():
    raise ValueError("The box leaves the image: move it inside.")

def crash():
    os.kill(os.getpid(), 11)

def give(value=None):
    return value

def tidy(path, on_progress):
    try:
        while True:
            on_progress(1, 2, "working")
            time.sleep(0.001)
    finally:
        open(path, "w").write("ended properly")

def unpicklable():
    return lambda: None

def modules():
    return sorted(sys.modules)

def who():
    return os.getpid()
"""


class Jobs:
    """The functions above, imported from the file that the fixture writes."""

    def __getattr__(self, name):
        return getattr(importlib.import_module("job_functions"), name)


jobs = Jobs()


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """Make the functions above importable here and in child processes."""
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "job_functions.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("job_functions", None)


@pytest.fixture
def child(functions):
    runner = ChildProcess()
    folders = runner._transport.folders
    yield runner
    runner.close()
    assert not any(folder.exists() for folder in folders)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        dashboard_address=None,
        host="127.0.0.1",
        protocol="tcp",
    ) as cluster:
        yield cluster


@pytest.fixture(params=["thread", "child", "dask"])
def runner(request, functions):
    """Each kind of runner: what holds for one holds for all."""
    if request.param == "thread":
        runner = request.getfixturevalue("in_process")
    elif request.param == "child":
        runner = ChildProcess()
    else:
        runner = connect(request.getfixturevalue("cluster").scheduler_address)
    yield runner
    runner.close()


def payloads(folder: Path) -> list[Path]:
    """Return what a process left for the other one in a folder."""
    return [path for path in folder.iterdir() if path.name != LOCK]


def gone(pid: int, within: float = PATIENCE_S) -> bool:
    """Tell whether a process ends in time (a zombie has ended)."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


# ---------------------------------------------------------------- every runner


def test_events_come_in_order_and_the_result_last(runner):
    events = []
    array = np.arange(5)
    job = runner.submit(jobs.double, array, on_event=events.append)
    np.testing.assert_array_equal(job.result(30), array * 2)
    assert job.done
    assert [e.kind for e in events] == ["progress", "partial", "progress", "done"]
    assert (events[2].done, events[2].total, events[2].message) == (2, 2, "ready")
    np.testing.assert_array_equal(events[1].value, [0])
    np.testing.assert_array_equal(events[3].value, array * 2)


def test_our_errors_reach_the_user_as_they_are(runner):
    events = []
    job = runner.submit(jobs.complain, on_event=events.append)
    with pytest.raises(JobError, match=r"^The box leaves the image: move it inside.$"):
        job.result(30)
    assert events[-1].kind == "failed"
    assert "in complain" in events[-1].traceback


def test_foreign_errors_are_named(runner):
    with pytest.raises(JobError, match="ZeroDivisionError: integer division"):
        runner.submit(operator.floordiv, 1, 0).result(30)


def test_only_functions_that_can_be_imported_are_taken(runner):
    def inner():
        """Cannot be imported by name."""

    for function in (inner, lambda: None, [].append):
        with pytest.raises((TargetError, AttributeError)):
            runner.submit(function)


def test_cancel_ends_a_job(runner):
    events = []
    job = runner.submit(jobs.count, LONG, 0.02, on_event=events.append)
    while not events:
        time.sleep(0.01)
    job.cancel()
    with pytest.raises(Cancelled):
        job.result(30)
    assert events[-1].kind == "cancelled"
    assert runner.submit(operator.add, 1, 2).result(30) == 3


def test_a_job_is_stopped_by_force_within_a_second():
    assert KILL_AFTER_S < 1
    assert GIVE_UP_AFTER_S < 1


def test_waiting_jobs_can_be_cancelled(runner):
    first = runner.submit(jobs.count, 10, 0.05)
    second = runner.submit(jobs.count, 1000, 0.05)
    second.cancel()
    with pytest.raises(Cancelled):
        second.result(PATIENCE_S)
    assert first.result(PATIENCE_S) == 10


@pytest.mark.filterwarnings("error:Sending large graph")
def test_arrays_go_there_and_back(runner):
    array = np.random.default_rng(0).random((1500, 1500))
    back = runner.submit(jobs.give, value=[array]).result(60)
    np.testing.assert_array_equal(back[0], array)


def test_a_failing_receiver_harms_nobody(runner):
    def receive(event):
        raise RuntimeError("the window is gone")

    job = runner.submit(operator.add, 1, 2, on_event=receive)
    assert job.result(30) == 3


def test_result_waits_only_so_long(runner):
    job = runner.submit(jobs.count, 30, 0.05)
    with pytest.raises(TimeoutError):
        job.result(0.05)
    job.cancel()


def test_close_cancels_what_is_left(runner):
    job = runner.submit(jobs.count, 1000, 0.05)
    time.sleep(0.3)
    runner.close()
    with pytest.raises(Cancelled):
        job.result(30)


# ---------------------------------------------------------------- child process


def test_the_child_starts_with_the_first_job(child, functions):
    assert child.pid is None
    assert child.submit(jobs.who).result(30) == child.pid != os.getpid()


def test_results_that_cannot_be_sent_fail_clearly(child):
    with pytest.raises(JobError, match=r"pickle|local object"):
        child.submit(jobs.unpicklable).result(30)
    with pytest.raises((TypeError, AttributeError)):
        child.submit(jobs.give, lambda: None)
    assert child.submit(jobs.give, 1).result(30) == 1


def test_large_arrays_travel_and_leave_nothing(child):
    array = np.random.default_rng(0).integers(0, 255, 100_000_000, np.uint8)
    back = child.submit(jobs.give, {"a": [array, "x"]}).result(60)
    np.testing.assert_array_equal(back["a"][0], array)
    back["a"][0][:] = 0  # may be written to
    assert not any(payloads(folder) for folder in child._transport.folders)


def test_arguments_are_copied_on_submit(child):
    array = np.zeros(10_000)
    blocking = child.submit(jobs.count, 5, 0.05)
    job = child.submit(jobs.give, array)
    array[:] = 1
    assert not job.result(30).any()
    assert blocking.done


@pytest.mark.parametrize("name", ["sleep", "busy"])
def test_a_job_that_does_not_report_is_interrupted(child, name):
    pid = child.submit(jobs.who).result(30)
    job = child.submit(time.sleep if name == "sleep" else jobs.busy, LONG)
    time.sleep(0.2)
    job.cancel()
    with pytest.raises(Cancelled):
        job.result(30)
    assert child.submit(jobs.who).result(30) == pid  # the same process


class SlowToRead:
    """Sleeps for an hour when it is unpickled."""

    def __reduce__(self):
        return time.sleep, (LONG,)


def test_a_job_is_cancelled_while_its_arguments_are_read(child):
    pid = child.submit(jobs.who).result(30)
    job = child.submit(jobs.give, SlowToRead())
    time.sleep(0.2)
    job.cancel()
    with pytest.raises(Cancelled):
        job.result(30)
    assert child.submit(jobs.who).result(30) == pid


def test_a_job_that_hangs_is_killed_and_the_waiting_one_runs(child):
    pid = child.submit(jobs.who).result(30)
    job = child.submit(jobs.stubborn, LONG)
    after = child.submit(jobs.who)
    time.sleep(0.2)
    job.cancel()
    with pytest.raises(Cancelled):
        job.result(30)
    assert after.result(30) != pid
    assert gone(pid)


def test_cancel_while_large_parts_are_sent_breaks_nothing(child):
    """Interrupts must not leave half a message in the pipe."""
    pid = child.submit(jobs.who).result(30)
    for _ in range(5):
        events = []
        job = child.submit(jobs.flood, 500_000, on_event=events.append)
        while not events:
            time.sleep(0.01)
        job.cancel()
        with pytest.raises(Cancelled):
            job.result(PATIENCE_S)
        assert child.submit(jobs.who).result(30) == pid
    assert not any(payloads(folder) for folder in child._transport.folders)


def test_killed_in_the_middle_the_next_job_works(child):
    array = np.zeros(1_000_000)
    pid = child.submit(jobs.who).result(30)
    events = []
    job = child.submit(jobs.count, 1000, 0.02, on_event=events.append)
    waiting = child.submit(jobs.give, array)
    while not events:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    why = BY_SIGNAL.format(n=9) + OUT_OF_MEMORY
    with pytest.raises(JobError) as caught:
        job.result(30)
    assert str(caught.value) == ENDED.format(why=why, log=child.log)
    np.testing.assert_array_equal(waiting.result(30), array)
    assert child.pid != pid
    assert gone(pid)


def test_a_job_that_had_not_begun_is_repeated(child):
    """Here stopped; else killed while idle, just before the next job is submitted."""
    pid = child.submit(jobs.who).result(30)
    os.kill(pid, signal.SIGSTOP)
    array = np.arange(1_000_000)
    job = child.submit(jobs.give, array)
    os.kill(pid, signal.SIGKILL)
    np.testing.assert_array_equal(job.result(30), array)
    assert child.pid != pid


def test_a_job_is_repeated_once(child):
    pid = child.submit(jobs.who).result(30)
    os.kill(pid, signal.SIGSTOP)
    events = []
    job = child.submit(jobs.count, 1000, 0.02, on_event=events.append)
    os.kill(pid, signal.SIGKILL)
    while not events:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(JobError):
        job.result(30)


def test_a_crash_is_told_with_the_log(child):
    with pytest.raises(JobError) as caught:
        child.submit(jobs.crash).result(30)
    why = BY_SIGNAL.format(n=11)
    assert str(caught.value) == ENDED.format(why=why, log=child.log)
    assert "Segmentation fault" in child.log.read_text()
    assert child.submit(operator.add, 1, 2).result(30) == 3


def test_print_goes_to_the_log_and_breaks_nothing(child):
    assert child.submit(jobs.talk).result(30) == ""
    text = child.log.read_text()
    assert "hello from the job" in text
    assert "and from below" in text


def test_noise_before_the_start_is_skipped(child, functions):
    (functions / "sitecustomize.py").write_text("print('welcome', flush=True)")
    assert child.submit(operator.add, 1, 2).result(30) == 3


def test_a_file_in_the_working_folder_is_not_imported(child, tmp_path, monkeypatch):
    (tmp_path / "logging.py").write_text("raise RuntimeError('not me')")
    monkeypatch.chdir(tmp_path)
    assert child.submit(operator.add, 1, 2).result(30) == 3


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/true"])
def test_a_wrong_interpreter_is_told(functions, python, pattern):
    runner = ChildProcess(python)
    with pytest.raises(JobError) as caught:
        runner.submit(operator.add, 1, 2).result(30)
    told = [pattern(text, python=python) for text in (CANNOT_START, NOT_STARTED)]
    assert any(re.fullmatch(text, str(caught.value)) for text in told)
    runner.close()


def test_a_pipe_that_was_closed_is_a_broken_pipe():
    incoming, outgoing = io.BytesIO(), io.BytesIO()
    outgoing.close()
    with pytest.raises(BrokenPipeError):
        Pipe(incoming, outgoing).send(b"S", 1)


def test_the_log_does_not_grow_for_ever(child):
    child.log.parent.mkdir(parents=True)
    child.log.write_bytes(b"x" * 2_000_000)
    assert child.submit(operator.add, 1, 2).result(30) == 3
    assert child.log.stat().st_size < 10_000


def test_an_unwritable_log_is_no_obstacle(functions, tmp_path):
    (tmp_path / "file").write_text("")
    runner = ChildProcess(log=tmp_path / "file" / "engine.log")
    assert runner.submit(operator.add, 1, 2).result(30) == 3
    folder = runner.log.parent  # a new one, whose name others do not foresee
    assert folder.parent == Path(tempfile.gettempdir())
    if os.name == "posix":
        assert (folder.stat().st_mode | runner.log.stat().st_mode) & 0o077 == 0
    runner.close()
    shutil.rmtree(folder)


def test_the_engine_is_reached_by_its_pipes_alone(child):
    assert child.submit(jobs.who).result(30) == child.pid
    # no socket, not even one of the file system
    assert psutil.Process(child.pid).net_connections("all") == []
    folders = child._transport.folders
    if os.name == "posix":
        assert all(folder.stat().st_mode & 0o077 == 0 for folder in folders)


def test_the_engine_knows_no_qt_and_the_client_no_torch(functions):
    code = """
        import sys
        import job_functions as jobs
        from napari_svpseg.workflows.segment_image import describe_device
        from napari_svpseg.engine.jobs.runners import connect
        runner = connect()
        device = runner.submit(describe_device).result(120)
        loaded = runner.submit(jobs.modules).result(30)
        runner.close()
        assert device["device"]
        assert "torch" in loaded
        qt = {"PyQt5", "PyQt6", "PySide2", "PySide6", "qtpy", "napari", "magicgui"}
        assert not qt & set(loaded), qt & set(loaded)
        assert "torch" not in sys.modules
        assert "distributed" not in sys.modules
    """
    run_python(code)


def test_the_child_ends_with_its_parent_even_when_that_is_killed(functions):
    code = """
        import sys, time
        import numpy as np
        import job_functions as jobs
        from napari_svpseg.engine.jobs.runners import connect
        runner = connect()
        pid = runner.submit(jobs.who).result(30)
        job = runner.submit(time.sleep, 60)
        waiting = runner.submit(jobs.give, np.zeros(100_000))
        print(pid, *runner._transport.folders, flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    pid, *folders = parent.stdout.readline().split()
    assert any(payloads(Path(folder)) for folder in folders)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(int(pid))
    assert not any(Path(folder).exists() for folder in folders)


def test_a_job_ends_properly_when_the_window_is_gone(child, tmp_path):
    """Its records say that it was stopped, its checkpoint is written."""
    begun = threading.Event()
    child.submit(jobs.tidy, str(tmp_path / "a"), on_event=lambda event: begun.set())
    assert begun.wait(PATIENCE_S)
    pid = child.pid
    child.close()
    assert gone(pid) and (tmp_path / "a").read_text() == "ended properly"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_the_log_is_for_its_user_only(child, functions, tmp_path):
    assert child.submit(operator.add, 1, 2).result(PATIENCE_S) == 3
    assert child.log.stat().st_mode & 0o777 == 0o600
    assert child.log.parent.stat().st_mode & 0o777 == 0o700


def test_no_child_is_left_when_the_script_ends_or_is_interrupted(functions):
    for ending in ("", "import signal, os; os.kill(os.getpid(), signal.SIGINT)"):
        code = f"""
            import time
            import job_functions as jobs
            from napari_svpseg.engine.jobs.runners import connect
            runner = connect()
            print(runner.submit(jobs.who).result(30), flush=True)
            job = runner.submit(time.sleep, 60)
            {ending}
        """
        done = run_python(code, check=not ending)
        assert gone(int(done.stdout.split()[0]))
        assert "resource_tracker" not in done.stderr


def run_python(code: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def test_a_closed_runner_takes_no_job(functions):
    runner = ChildProcess()
    runner.close()
    with pytest.raises(RuntimeError, match=CLOSED):
        runner.submit(operator.add, 1, 2)
    runner.close()  # twice does no harm


# ---------------------------------------------------------------- transport


@pytest.fixture
def transport(tmp_path):
    folders = [tmp_path / "memory", tmp_path / "disk"]
    for folder in folders:
        folder.mkdir()
    return Transport(folders, "p")


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        {"a": np.zeros(0), "b": np.arange(7.0)},
        np.arange(1_000_003, dtype=np.uint8),
        np.ones((300, 200)).T,
        np.ones((9, 9))[::2],
        [np.float32(3), np.zeros((2, 0, 3))],
        "x" * 100_000,
    ],
    ids=str,
)
def test_values_come_back(transport, value):
    back = transport.unpack(transport.pack(value))
    np.testing.assert_equal(back, value)
    assert not any(list(folder.iterdir()) for folder in transport.folders)


def test_a_full_memory_file_system_is_no_obstacle(transport, monkeypatch):
    memory, disk = transport.folders
    real = Path.open

    def full(self, *args, **kwargs):
        if self.parent == memory:
            self.touch()
            raise OSError(28, "No space left on device")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    array = np.arange(100_000)
    body = transport.pack(array)
    assert list(disk.iterdir())
    assert not list(memory.iterdir())  # nothing half-written stays
    np.testing.assert_array_equal(transport.unpack(body), array)


def test_no_room_at_all_is_one_clear_line(transport):
    for folder in transport.folders:
        folder.rmdir()
    with pytest.raises(NoRoomError):
        transport.pack(np.zeros(100_000))


def test_only_own_parcels_are_read_and_removed(transport, tmp_path):
    other = tmp_path / "precious"
    other.write_bytes(b"0")
    with pytest.raises(ForeignPayloadError):
        transport.unpack(b"F" + str(other).encode())
    with pytest.raises(ForeignPayloadError):
        transport.discard(b"F" + str(other).encode())
    assert other.exists()


@pytest.mark.skipif(os.name != "posix", reason="folders are removed by Windows itself")
def test_folders_of_the_dead_are_removed_those_of_the_living_not(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "napari_svpseg.engine.jobs.transport._places", lambda: [str(tmp_path)]
    )
    living = Transport.create("p")
    dead, strange = (tmp_path / f"{PREFIX}{name}" for name in ("dead", "notes"))
    for folder in (dead, strange):
        folder.mkdir()
    (dead / LOCK).touch()  # as its process left it
    remove_stale()
    assert not dead.exists()
    assert strange.exists()
    assert living.folders[0].exists()
    living.remove()
    assert [p.name for p in tmp_path.iterdir()] == [strange.name]


# ---------------------------------------------------------------- small parts


def test_progress_is_thinned_out_but_the_last_step_is_told():
    events = []
    reports = Reports(events.append, lambda: False)
    for i in range(1001):
        reports.on_progress(i, 1000, "step")
    assert len(events) < 100
    assert events[-1].done == 1000


def test_functions_get_only_the_reports_they_take():
    events = []
    run_target("operator:add", (1, 2), {}, events.append, lambda: False)
    run_target("builtins:dict", (), {"a": 1}, events.append, lambda: False)
    assert [e.value for e in events] == [3, {"a": 1}]


@pytest.mark.parametrize("target", ["", ":", "os", "os:", "os:path.join", "os:sep"])
def test_targets_are_functions_of_modules(target):
    with pytest.raises(TargetError):
        find_target(target)


def test_connect_names_the_missing_scheduler(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("napari_svpseg.engine.jobs.workers.CONNECT_S", 0.5)
    with pytest.raises(NoSchedulerError, match="tcp://127"):
        connect("tcp://127.0.0.1:9")


def test_no_thread_or_file_is_left(functions):
    import threading

    before = threading.active_count()
    for _ in range(2):
        runner = ChildProcess()
        runner.submit(operator.add, 1, 2).result(30)
        runner.close()
    gc.collect()
    time.sleep(0.2)
    assert threading.active_count() <= before
