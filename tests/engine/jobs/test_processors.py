"""How many cores there are, no more than are allowed, and how torch uses them."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from napari_svpseg.engine.jobs import processors
from napari_svpseg.engine.jobs.processors import (
    NOT_ASKED,
    PASSIVE,
    THREADS,
    WAITING,
    physical_cores,
    prepare_threads,
    threads_asked_for,
    use_threads_asked_for,
    worker_environment,
)


@pytest.fixture
def quotas(tmp_path, monkeypatch):
    """Return a function that lays down the control groups of this process."""
    monkeypatch.setattr(processors, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(processors, "GROUP_FOLDERS", tmp_path)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)

    def lay_down(own: str, files: dict[str, str]) -> None:
        (tmp_path / "cgroup").write_text(own)
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return lay_down


@pytest.fixture
def nobody_asked(monkeypatch):
    """Take away what the tests themselves are run with."""
    for name in (THREADS, WAITING, NOT_ASKED):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


def test_hyper_threads_do_not_count(monkeypatch):
    assert physical_cores() >= 1
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 8 if logical else 1)
    assert physical_cores() == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="not on this system")
def test_cores_of_others_do_not_count(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 7})
    assert physical_cores() == 3
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)  # not known
    assert physical_cores() == 3


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {}, 64),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}, 3),
        ("0::/host/only", {"cpu.max": "50000 100000"}, 1),  # in a container
        ("0::/../out", {"cpu.max": "400000 100000"}, 4),
        ("0::/", {"cpu.max": "nonsense"}, 64),
        (
            "4:memory:/x\n2:cpu,cpuacct:/x",
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "200000",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2,
        ),
    ],
)
def test_quotas_of_containers_count(quotas, own, files, cores):
    quotas(own, files)
    assert physical_cores() == cores


@pytest.mark.usefixtures("nobody_asked")
def test_threads_are_those_of_the_cores_and_wait_asleep(monkeypatch):
    monkeypatch.setattr(processors, "physical_cores", lambda: 6)
    prepare_threads()
    assert os.environ[THREADS] == "6" and os.environ[WAITING] == PASSIVE
    assert threads_asked_for() is None  # nor in a process that inherits this
    assert worker_environment(3)[THREADS] == "1"


@pytest.mark.usefixtures("nobody_asked")
def test_what_the_user_set_is_kept(monkeypatch):
    monkeypatch.setattr(processors, "physical_cores", lambda: 6)
    monkeypatch.setenv(THREADS, "4,2")
    monkeypatch.setenv(WAITING, "ACTIVE")
    prepare_threads()
    assert os.environ[THREADS] == "4,2" and os.environ[WAITING] == "ACTIVE"
    assert threads_asked_for() == 4
    assert worker_environment(1) == {THREADS: "4", WAITING: "ACTIVE", NOT_ASKED: ""}
    assert worker_environment(2)[THREADS] == "3"  # no more than there are cores
    for text in ("", "many", "0", "-1"):
        monkeypatch.setenv(THREADS, text)
        assert threads_asked_for() is None


def test_torch_follows_the_user_and_not_dask(monkeypatch):
    import torch

    before = torch.get_num_threads()
    monkeypatch.setenv(THREADS, "3")
    try:
        use_threads_asked_for()
        assert torch.get_num_threads() == 3
        monkeypatch.delenv(THREADS)
        use_threads_asked_for()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


STARTS = {
    "command line": """
import os, sys
from napari_svpseg.cli import main

def app(*_, **__):
    assert "torch" not in sys.modules
    print(os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"])

main.app = app
main.main([])
""",
    "engine": """
import os
from napari_svpseg.engine.jobs.child_process import ChildProcess
runner = ChildProcess()
for name in "OMP_NUM_THREADS", "OMP_WAIT_POLICY":
    print(runner.submit(os.getenv, name).result(60))
runner.close()
""",
}


@pytest.mark.parametrize("code", STARTS.values(), ids=STARTS)
def test_our_processes_prepare_before_torch_is_imported(code, tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "NAPARI"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env | {"NAPARI_SVPSEG_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(physical_cores()), PASSIVE]
