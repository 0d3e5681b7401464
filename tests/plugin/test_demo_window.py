"""The window of the demo: its display (the demo itself: tests/workflows)."""

from __future__ import annotations

import os

from napari_svpseg.plugin import demo_window


def test_the_environment_is_put_back(monkeypatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    with demo_window._environment(DISPLAY=None, QT_QPA_PLATFORM="xcb"):
        assert "DISPLAY" not in os.environ
        assert os.environ["QT_QPA_PLATFORM"] == "xcb"
    assert os.environ["DISPLAY"] == ":0"
    assert "QT_QPA_PLATFORM" not in os.environ
