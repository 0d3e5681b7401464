"""A viewer with discs whose answer is known, and a runner that only pretends."""

from __future__ import annotations

import gc
import logging
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from npe2 import PluginManifest
from npe2.manifest.schema import DiscoverResults
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QTimer

from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.result import Maps, Recipe, Result
from napari_svpseg.workflows.segment_image import segment
from napari_svpseg.workflows.segment_several import Segmented


def disc_image(shape=(96, 110), spots=((30, 30), (30, 70), (66, 40), (70, 90)), r=8):
    """Return an image of bright discs and their labels."""
    yy, xx = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    for i, (y, x) in enumerate(spots, start=1):
        labels[(yy - y) ** 2 + (xx - x) ** 2 <= r * r] = i
    rng = np.random.default_rng(0)
    image = np.where(labels > 0, 200.0, 40.0) + rng.normal(0, 4, shape)
    return image.astype(np.float32), labels


def fake_segment(query, prompts, *, axes, on_progress, on_partial=None, **kwargs):
    """Return thresholded labels with a real `Result` round them."""
    from skimage.measure import label

    query = np.asarray(query, float)
    if "C" in axes:
        query = query.mean(axis=axes.index("C"))
    on_progress(1, 2, "tile 1 of 2")
    foreground = (query > query.mean() + query.std()).astype(np.float32)
    labels = np.zeros(query.shape, np.uint32)
    planes = foreground.reshape(-1, *foreground.shape[-2:])
    flat = labels.reshape(-1, *foreground.shape[-2:])
    last = 0
    for i, plane in enumerate(planes):
        on_progress(i, len(planes), "plane")
        found = label(plane > 0)
        flat[i] = np.where(found > 0, found + last, 0)
        last = max(last, int(flat[i].max()))
        if len(planes) > 1 and on_partial is not None:
            on_partial((np.unravel_index(i, foreground.shape[:-2]), flat[i].copy()))
    on_progress(2, 2, "tile 2 of 2")
    recipe = Recipe(
        "svp",
        axes=axes,
        postprocess={"threshold": kwargs["postprocess"].threshold},
        segment={"device": kwargs["settings"].device},
    )
    return Result(labels, Maps(foreground), 0.9, recipe, 0.1)


@pytest.fixture(scope="session", autouse=True)
def cheap_viewers():
    """Save what opening and closing a viewer repeats, a fifth of a test's time.

    Each viewer reads the manifests of all plugins, and is followed by garbage
    collections, which need not look at the modules that are loaded.
    """
    import napari.viewer  # noqa: F401

    gc.collect()
    gc.freeze()
    found = list(PluginManifest.discover())

    def discover(cls, paths=()):
        for manifest, distribution, error in found:
            own = manifest and manifest.model_copy(deep=True)
            yield DiscoverResults(own, distribution, error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PluginManifest, "discover", classmethod(discover))
        yield
    gc.unfreeze()


PATIENCE_MS = 60_000
"""How long to wait for what comes at once on a machine that has nothing else to do."""


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Wait for a busy machine: only a failing test waits longer for it."""
    wait_until, wait_signal = QtBot.waitUntil, QtBot.waitSignal

    def until(self, callback, *, timeout=0):
        wait_until(self, callback, timeout=max(timeout, PATIENCE_MS))

    def signal(self, signal, *, timeout=0, raising=None, **options):
        if raising is not False:  # `assertNotEmitted` waits in vain
            timeout = max(timeout, PATIENCE_MS)
        return wait_signal(self, signal, timeout=timeout, raising=raising, **options)

    monkeypatch.setattr(QtBot, "waitUntil", until)
    monkeypatch.setattr(QtBot, "waitSignal", signal)


@dataclass
class FakeJob:
    stopped: threading.Event

    def cancel(self):
        self.stopped.set()


class Stopped(Exception):
    pass


class FakeRunner:
    """Run jobs in threads.

    ``slow`` seconds pass before the work is done, or until ``release`` is set.
    """

    def __init__(self):
        self.release = threading.Event()
        self.slow = self.slow_plane = 0.0
        self.fail = ""
        self.pretend = {}
        self.calls, self.jobs = [], []
        self.closed = 0

    def submit(self, function, *args, on_event=None, **kwargs):
        self.calls.append((function, args, kwargs))
        job = FakeJob(threading.Event())
        self.jobs.append(job)
        threading.Thread(
            target=self._work, args=(job, function, args, kwargs, on_event), daemon=True
        ).start()
        return job

    def close(self):
        self.closed += 1

    def segment_calls(self):
        return [c for c in self.calls if c[0].__name__ == "segment"]

    def _work(self, job, function, args, kwargs, on_event):
        def emit(kind, **values):
            on_event(SimpleNamespace(kind=kind, **values))

        def on_progress(done, total, message=""):
            emit("progress", done=done, total=total, message=message)
            if job.stopped.is_set():
                raise Stopped

        try:
            name = function.__name__
            if name in ("describe_device", "warm_up"):
                value = {"device": "cpu", "threads": 2, "reason": "no GPU found"}
            elif name in self.pretend:
                value = self.pretend[name](emit, on_progress, *args, **kwargs)
            elif name == "segment":
                value = self._segment(job, args, kwargs, emit, on_progress)
            elif name == "segment_several":
                value = self._several(job, *args, emit, on_progress)
            else:
                value = function(*args, **kwargs)
        except Stopped:
            emit("cancelled")
        except Exception as error:  # noqa: BLE001
            emit("failed", message=str(error), traceback="trace")
        else:
            emit("done", value=value)

    def _several(self, job, calls, emit, on_progress):
        pretend = self.pretend.get("segment")
        for i, (args, kwargs) in enumerate(calls):
            self.calls.append((segment, args, kwargs))
            try:
                value = (
                    pretend(emit, on_progress, *args, **kwargs)
                    if pretend
                    else self._segment(job, args, kwargs, emit, on_progress)
                )
                done = Segmented(i, value, seconds=value.seconds)
            except RuntimeError as error:
                done = Segmented(i, None, str(error))
            emit("partial", value=done)

    def _segment(self, job, args, kwargs, emit, on_progress):
        end = time.monotonic() + self.slow
        while time.monotonic() < end and not self.release.is_set():
            on_progress(0, 2, "waiting")
            time.sleep(0.01)
        if self.fail:
            raise RuntimeError(self.fail)
        return fake_segment(
            *args,
            **kwargs,
            on_progress=on_progress,
            on_partial=lambda value: (
                emit("partial", value=value),
                job.stopped.wait(self.slow_plane),
            ),
        )


class Errors(logging.Handler):
    """Keeps the errors of callbacks, which the plugin shows in place of raising."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.found = []

    def emit(self, record):
        self.found.append(record.exc_info[1])

    def claim(self, kind):
        """Assert that there are errors, of this kind only; they fail no test."""
        assert self.found and all(isinstance(e, kind) for e in self.found), self.found
        self.found = []


@pytest.fixture(autouse=True)
def callback_errors():
    """Fail a test in whose callbacks an error was raised, unless it claims it."""
    errors = Errors()
    loggers = [
        logging.getLogger(f"napari_svpseg.plugin.{name}")
        for name in ("callbacks", "docks.controller", "docks.base")
    ]
    for logger in loggers:
        logger.addHandler(errors)
    yield errors
    for logger in loggers:
        logger.removeHandler(errors)
    if errors.found:
        raise errors.found[0]


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Keep models, sessions and training sets away from the user's own."""
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(tmp_path / "own-home"))
    return tmp_path / "own-home"


@pytest.fixture
def runner():
    runner = FakeRunner()
    yield runner
    for job in runner.jobs:
        job.cancel()


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy()


@pytest.fixture
def open_dock(viewer, runner, monkeypatch, qtbot):
    """Return a function that opens the dock in the viewer, on the fake runner."""
    from napari_svpseg.io import model_store
    from napari_svpseg.plugin.docks.segment_dock import SegmentWidget
    from napari_svpseg.plugin.services.engine_process import Engine

    card = ModelCard("svp", "svp", title="SVPSeg", n_parameters=800_000)
    monkeypatch.setattr(model_store, "list_models", lambda folders=None: [card])

    def open_it():
        dock = SegmentWidget(viewer, Engine(lambda: runner))
        viewer.window.add_dock_widget(dock, name="Segment from prompts")
        qtbot.waitUntil(lambda: "Starting" not in dock.device_line.text())
        return dock

    return open_it


@pytest.fixture
def dock_without_window(runner, monkeypatch, qtbot):
    """Return a function that opens the dock on a viewer that draws nothing."""
    from napari_svpseg.io import model_store
    from napari_svpseg.plugin.docks.segment_dock import SegmentWidget
    from napari_svpseg.plugin.services.engine_process import Engine

    card = ModelCard("svp", "svp", title="SVPSeg", n_parameters=800_000)
    monkeypatch.setattr(model_store, "list_models", lambda folders=None: [card])

    def open_it(viewer):
        dock = SegmentWidget(viewer, Engine(lambda: runner))
        qtbot.addWidget(dock)
        return dock

    return open_it


@pytest.fixture
def discs(viewer):
    """Add an image of discs and their labels to the viewer."""
    image, labels = disc_image()
    viewer.add_image(image, name="discs")
    viewer.add_labels(labels, name="truth")
    return viewer


@pytest.fixture
def settle(qtbot):
    """Return a function that waits until what was put off until later is done."""

    def wait():
        done = []
        QTimer.singleShot(0, lambda: done.append(True))  # after those that wait
        qtbot.waitUntil(lambda: bool(done))

    return wait


@pytest.fixture
def finish(qtbot):
    """Return a function that waits until the dock has nothing to do."""

    def wait(dock, timeout=5000):
        qtbot.waitUntil(lambda: not dock.is_busy, timeout=timeout)

    return wait
