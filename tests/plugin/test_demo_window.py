"""The window of the demo: its display (the demo itself: tests/workflows)."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import sys
from pathlib import Path

import pytest

from napari_svpseg.plugin import demo_window


def test_the_environment_is_put_back(monkeypatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    with demo_window._environment(DISPLAY=None, QT_QPA_PLATFORM="xcb"):
        assert "DISPLAY" not in os.environ
        assert os.environ["QT_QPA_PLATFORM"] == "xcb"
    assert os.environ["DISPLAY"] == ":0"
    assert "QT_QPA_PLATFORM" not in os.environ


def lets_in(display: str, key: bytes) -> bool:
    """Return whether an X server accepts a client with a key."""
    name = b"MIT-MAGIC-COOKIE-1" if key else b""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"/tmp/.X11-unix/X{display.lstrip(':')}")
        client.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), len(key)))
        client.sendall(name + bytes(-len(name) % 4) + key)
        try:
            return client.recv(1) == b"\1"
        except ConnectionResetError:  # how a server may refuse
            return False


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("Xvfb") is None, reason="needs Xvfb"
)
def test_only_who_has_the_key_sees_the_virtual_display() -> None:
    with demo_window.virtual_display():
        display, file = os.environ["DISPLAY"], Path(os.environ["XAUTHORITY"])
        key = file.read_bytes()[-16:]
        assert file.parent.stat().st_mode & 0o077 == 0
        assert lets_in(display, key)
        assert not lets_in(display, b"")
        assert not lets_in(display, bytes(16))
    assert not file.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_display_that_does_not_start_is_said(tmp_path, monkeypatch) -> None:
    broken = tmp_path / "Xvfb"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with (
        pytest.raises(demo_window.DemoError, match="did not start"),
        demo_window.virtual_display(),
    ):
        pass
