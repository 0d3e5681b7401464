"""The number of processor cores: no hyper-threads, no more than are allowed."""

from __future__ import annotations

import os

import psutil
import pytest

from napari_svpseg.engine.jobs.processors import physical_cores


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
