"""A model that was warmed up is not loaded again."""

from __future__ import annotations

import pytest

from napari_svpseg.core.settings import SegmentSettings
from napari_svpseg.io import model_store
from napari_svpseg.workflows.segment_image import prepare
from napari_svpseg.workflows.warm_up import warm_up


def test_the_next_run_finds_the_model_loaded(monkeypatch):
    about = warm_up("svp", SegmentSettings(device="cpu", tile=64))
    assert about["device"] == "cpu"

    def load(*args, **kwargs):
        pytest.fail("loaded again")

    monkeypatch.setattr(model_store, "load_model", load)
    prepare("svp", "cpu")
