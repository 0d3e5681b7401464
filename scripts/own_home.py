"""Let screenshots be taken without the settings and sessions of who takes them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_home() -> Iterator[None]:
    """Give napari and the plugin a home that is empty, and goes afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        os.environ["NAPARI_SVPSEG_HOME"] = home
        os.environ["NAPARI_CONFIG"] = f"{home}/napari.yaml"
        yield
