from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_svpseg.engine import memory
from napari_svpseg.engine.memory import PeakMemory


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_each_piece_of_work_has_its_own_peak() -> None:
    peaks = []
    for megabytes in (200, 20, 100):
        with PeakMemory() as measured:
            np.ones(megabytes * 1_000_000, np.uint8)
        peaks.append(measured.peak_mb)
    assert peaks == pytest.approx([200, 20, 100], abs=15)


def test_unknown_stays_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "absent")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "absent" / "file")
    monkeypatch.setattr(memory, "_cuda", lambda: None)
    monkeypatch.setitem(__import__("sys").modules, "resource", None)
    with PeakMemory() as measured:
        pass
    assert measured.peak_mb is None
