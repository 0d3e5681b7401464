"""The demo in the real napari window, on a screen or on a virtual display.

With a screen the window stays open. Without one, or with ``DEMO=headless`` in the
environment, the same window opens on a virtual display and a picture of it is saved.
"""

from __future__ import annotations

import gc
import os
import secrets
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from ..core.labels.ids import count_objects
from ..io.atomic import atomic_path
from ..io.sample_images import SampleImage
from ..workflows.demo_run import (
    DemoOutcome,
    DemoSettings,
    Say,
    check_outputs,
    demo_samples,
    score,
)

if TYPE_CHECKING:
    from napari import Viewer

    from .docks.segment_dock import SegmentWidget

PLUGIN, WIDGET = "napari-svpseg", "Segment from prompts"
SCREEN = "1600x1000x24"
WINDOW = (1560, 940)
LONGEST_WAIT_S = 600.0
SERVE = '"$@" & exec >/dev/null; cat; kill $!'
"""Shell script that runs a command until standard input is closed."""


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why."""


def run_in_window(demo: DemoSettings) -> list[DemoOutcome]:
    """Run the demo in the napari window, as a user would, and save pictures of it."""
    samples = demo_samples(demo.say)
    pictures = [_picture(demo, samples, sample) for sample in samples]
    check_outputs(demo, [*pictures, *(demo.labels_path(s) for s in samples)])
    demo.output.mkdir(parents=True, exist_ok=True)
    if _has_screen():
        return _run(demo, samples, stay=True)
    with virtual_display(demo.say):
        return _run(demo, samples, stay=False)


def _run(
    demo: DemoSettings, samples: list[SampleImage], *, stay: bool
) -> list[DemoOutcome]:
    import napari
    from vispy import set_log_level

    set_log_level("error")  # a virtual display has no DPI to warn of
    demo.say("Opening napari")
    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW)
    outcomes = []
    try:
        _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
        _choose(dock, demo)
        for sample in samples:
            viewer.layers.clear()
            picture = _picture(demo, samples, sample)
            outcomes.append(_show(viewer, dock, sample, demo, picture))
        if stay:
            demo.say(
                "napari stays open: draw another box, or close it to end the demo."
            )
            napari.run()
    finally:
        if not stay:
            _close(viewer)
    return outcomes


def _close(viewer: Viewer) -> None:
    """Close the window, and free what it drew with while its display is there."""
    from qtpy.QtCore import QCoreApplication, QEvent

    viewer.close()
    _settle(0.05)
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    gc.collect()


def _picture(
    demo: DemoSettings, samples: list[SampleImage], sample: SampleImage
) -> Path:
    """Return the file for the picture of the window with a sample."""
    is_main = sample is samples[-1]
    return demo.output / ("window.png" if is_main else f"window_{sample.name}.png")


def _show(
    viewer: Viewer,
    dock: SegmentWidget,
    sample: SampleImage,
    demo: DemoSettings,
    picture: Path,
) -> DemoOutcome:
    """Open a sample, press Run, and save labels and a picture of the window."""
    from napari.layers import Labels

    from .layers.metadata import metadata_of

    name = sample.name
    demo.say(f"{name}: opening the sample with its prompt")
    viewer.open_sample(PLUGIN, name)
    image = next(la for la in viewer.layers if la.name == name)
    mask = next(la for la in viewer.layers if isinstance(la, Labels))
    item = dock.book.items[-1]
    dock.book.update(item.id, mask_layer=mask, name=name)
    if item.box is None:
        raise DemoError(f"The sample {name} has no prompt box.")
    _wait(lambda: not dock.device_line.text().startswith("Starting"), "the engine")
    demo.say(f"{name}: running")
    start = time.perf_counter()
    dock.run.click()
    _wait(dock.run.isEnabled, "the result")
    seconds = time.perf_counter() - start
    results = [la for la in viewer.layers if metadata_of(la, "labels")]
    if not results:
        raise DemoError(dock.message.text())
    mask.visible = False
    viewer.layers.selection = {image}
    viewer.reset_view()
    _settle()
    with atomic_path(picture, demo.overwrite) as temporary:
        viewer.screenshot(str(temporary), canvas_only=False, flash=False)
    labels = demo.labels_path(sample)
    dock.save_box.save_labels(str(labels))
    found = np.asarray(results[-1].data)
    recipe = (metadata_of(results[-1]) or {}).get("recipe") or {}
    return DemoOutcome(
        image=name,
        objects=count_objects(found),
        seconds=round(seconds, 3),
        device=str(recipe.get("device", "")),
        dice=score(sample, found),
        window=str(picture),
        labels=str(labels),
    )


def _choose(dock: SegmentWidget, demo: DemoSettings) -> None:
    index = dock.model.findText(demo.model)
    if index < 0:
        raise DemoError(f"There is no model '{demo.model}': see svpseg models.")
    dock.model.setCurrentIndex(index)
    dock.device.setCurrentText(demo.device)


def _wait(is_ready: Callable[[], bool], what: str) -> None:
    """Let the window live until something is there."""
    limit = time.monotonic() + LONGEST_WAIT_S
    while not is_ready():
        if time.monotonic() > limit:
            raise DemoError(f"Waited {LONGEST_WAIT_S:.0f} s for {what} in vain.")
        _settle(0.02)


def _settle(seconds: float = 0.5) -> None:
    """Let Qt draw for a while."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while True:
        QApplication.processEvents()
        if time.monotonic() >= end:
            return
        time.sleep(0.005)


# ---------------------------------------------------------------- the display


def _has_screen() -> bool:
    if os.environ.get("DEMO") == "headless":
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextmanager
def virtual_display(say: Say = print) -> Iterator[None]:
    """Give programs a display of their own, by Xvfb or else by Qt alone."""
    if sys.platform in ("win32", "darwin") or shutil.which("Xvfb") is None:
        say("No Xvfb found: drawing without any display")
        with _environment(QT_QPA_PLATFORM="offscreen"):
            yield
        return
    with TemporaryDirectory(prefix="svpseg-display-") as folder:  # of this user alone
        key = Path(folder) / "Xauthority"
        key.write_bytes(_display_key())
        with (
            _xvfb(key) as number,
            _environment(
                DISPLAY=f":{number}",
                XAUTHORITY=str(key),
                QT_QPA_PLATFORM="xcb",
                WAYLAND_DISPLAY=None,
                LIBGL_ALWAYS_SOFTWARE="1",
            ),
        ):
            yield


def _display_key() -> bytes:
    """Return an entry of an Xauthority file, for a display of any number.

    Without one every user of the machine sees the display and types into its windows.
    """
    any_host, any_display = b"\xff\xff" + struct.pack(">H", 0), struct.pack(">H", 0)
    fields = (b"MIT-MAGIC-COOKIE-1", secrets.token_bytes(16))
    named = (struct.pack(">H", len(field)) + field for field in fields)
    return any_host + any_display + b"".join(named)


@contextmanager
def _xvfb(key: Path) -> Iterator[str]:
    """Start Xvfb, which lets in who has the key; give the number of its display.

    It ends with this process, however that ends. Once Qt has drawn on it, it is not
    ended before: Qt lets go of its display only when Python ends, and crashed now and
    then where that display had gone.
    """
    until_closed, held_open = os.pipe()
    options = f"-displayfd 1 -screen 0 {SCREEN} -nolisten tcp -auth".split()
    server = subprocess.Popen(
        ["sh", "-c", SERVE, "sh", "Xvfb", *options, str(key)],
        stdin=until_closed,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    os.close(until_closed)
    try:
        assert server.stdout is not None
        with server.stdout as pipe:
            number = pipe.readline().decode().strip()
        if not number:
            raise DemoError("The virtual display (Xvfb) did not start.")
        yield number
    finally:
        if not _holds_display():
            os.close(held_open)
            server.wait(10)


def _holds_display() -> bool:
    from qtpy.QtWidgets import QApplication

    return QApplication.instance() is not None


@contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
