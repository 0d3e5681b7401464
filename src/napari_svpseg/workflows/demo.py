"""The main job on real pictures, end to end: in the real napari window, or without one.

With a screen the window stays open. Without one, or with ``DEMO=headless`` in the
environment, the same window opens on a virtual display and its picture is saved.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.geometry import Box
from ..core.labels.metrics import dice

if TYPE_CHECKING:
    from napari import Viewer

    from ..plugin.docks.segment_dock import SegmentWidget

PLUGIN, WIDGET = "napari-svpseg", "Segment from prompts"
SCREEN = "1600x1000x24"
WINDOW = (1560, 940)
LONGEST_WAIT_S = 600.0

Say = Callable[[str], Any]


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """What the demo found on one picture.

    Parameters
    ----------
    image : str
        Name of the sample.
    objects : int
    seconds : float
        From pressing *Run* to the labels.
    device : str
    dice : float or None
        Against the ground truth, outside the prompt's box; None where there is none.
    window : str or None
        Picture of the window.
    labels : str
        Labels file.
    """

    image: str
    objects: int
    seconds: float
    device: str
    dice: float | None
    window: str | None
    labels: str


def run(
    output: Path,
    *,
    gui: bool = True,
    device: str = "auto",
    model: str = "svp",
    say: Say = print,
) -> int:
    """Run the demo and write pictures, labels and ``summary.json`` into ``output``.

    Parameters
    ----------
    output : path
    gui : bool
        False opens no window at all.
    device, model : str
        As in `api.segment`.
    say : callable
        Receives each line of text.

    Returns
    -------
    int
        0
    """
    output.mkdir(parents=True, exist_ok=True)
    samples = ["tissue"]
    if _has_nuclei():
        samples.append("nuclei")  # the last one is what the summary is about
    else:
        say("The real nuclei are not installed (pip install --no-deps stardist).")
    if not gui:
        outcomes = [_without_window(s, output, device, model, say) for s in samples]
    elif _has_screen():
        outcomes = _in_window(samples, output, device, model, say, stay=True)
    else:
        with virtual_display(say):
            outcomes = _in_window(samples, output, device, model, say, stay=False)
    return _summarise(outcomes, output, say)


def _summarise(outcomes: list[Outcome], output: Path, say: Say) -> int:
    main = asdict(outcomes[-1])
    summary = {
        **{
            k: main[k]
            for k in (
                "objects",
                "seconds",
                "device",
                "dice",
                "window",
                "labels",
                "image",
            )
        },
        "others": [asdict(o) for o in outcomes[:-1]],
    }
    path = output / "summary.json"
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    for outcome in outcomes:
        score = "" if outcome.dice is None else f", Dice {outcome.dice:.3f}"
        say(
            f"{outcome.image}: {outcome.objects} objects in {outcome.seconds:.1f} s on "
            f"{outcome.device.partition(' (')[0]}{score}"
        )
        for written in filter(None, (outcome.window, outcome.labels)):
            say(f"  {written}")
    say(f"Summary: {path}")
    return 0


# ---------------------------------------------------------------- with a window


def _in_window(
    samples: list[str], output: Path, device: str, model: str, say: Say, *, stay: bool
) -> list[Outcome]:
    import napari
    from vispy import set_log_level

    set_log_level("error")  # a virtual display has no DPI to warn of
    say("Opening napari")
    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW)
    outcomes = []
    try:
        _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
        _choose(dock, device, model)
        for sample in samples:
            viewer.layers.clear()
            is_main = sample == samples[-1]
            picture = output / ("window.png" if is_main else f"window_{sample}.png")
            outcomes.append(_show(viewer, dock, sample, output, picture, say))
        if stay:
            say("napari stays open: draw another box, or close it to end the demo.")
            napari.run()
    finally:
        if not stay:
            viewer.close()
    return outcomes


def _show(
    viewer: Viewer,
    dock: SegmentWidget,
    sample: str,
    output: Path,
    picture: Path,
    say: Say,
) -> Outcome:
    """Open a sample, run on it as a user would, and save what comes of it."""
    from napari.layers import Labels

    from ..plugin.layers.metadata import metadata_of

    say(f"{sample}: opening the sample with its prompt")
    viewer.open_sample(PLUGIN, sample)
    image = next(la for la in viewer.layers if la.name == sample)
    mask = next(la for la in viewer.layers if isinstance(la, Labels))
    item = dock.book.items[-1]
    dock.book.update(item.id, mask_layer=mask, name=sample)
    box, truth = item.box, np.asarray(mask.data)
    if box is None:
        raise DemoError(f"The sample {sample} has no prompt box.")
    _wait(lambda: not dock.device_line.text().startswith("Starting"), "the engine")
    say(f"{sample}: running")
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
    viewer.screenshot(str(picture), canvas_only=False, flash=False)
    labels = output / f"{sample}_labels.ome.tif"
    dock.save_box.save_labels(str(labels))
    found = np.asarray(results[-1].data)
    recipe = (metadata_of(results[-1]) or {}).get("recipe") or {}
    return Outcome(
        image=sample,
        objects=int(np.unique(found[found > 0]).size),
        seconds=round(seconds, 3),
        device=str(recipe.get("device", "")),
        dice=_score(sample, found, truth, box),
        window=str(picture),
        labels=str(labels),
    )


def _choose(dock: SegmentWidget, device: str, model: str) -> None:
    index = dock.model.findText(model)
    if index < 0:
        raise DemoError(f"There is no model '{model}': see svpseg models.")
    dock.model.setCurrentIndex(index)
    dock.device.setCurrentText(device)


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


# ---------------------------------------------------------------- without a window


def _without_window(
    sample: str, output: Path, device: str, model: str, say: Say
) -> Outcome:
    """Do the same by calling the API in this process."""
    from dataclasses import replace

    from ..core.prompt import Prompt
    from ..io.images import write_labels
    from .segment_image import segment

    say(f"{sample}: running")
    image, mask, box = _read_sample(sample)
    prompt = Prompt.from_image(image, mask, box, name=sample, source=sample)
    start = time.perf_counter()
    result = segment(image, prompt, model=model, device=device)
    seconds = time.perf_counter() - start
    path = write_labels(
        output / f"{sample}_labels.ome.tif",
        result.labels,
        recipe=replace(result.recipe, query_file=sample),
    )
    return Outcome(
        image=sample,
        objects=result.n_objects,
        seconds=round(seconds, 3),
        device=result.recipe.device,
        dice=_score(sample, result.labels, mask, box),
        window=None,
        labels=str(path),
    )


def _read_sample(sample: str) -> tuple[np.ndarray, np.ndarray, Box]:
    """Return picture, mask and box of a sample without a viewer."""
    from ..plugin import samples

    layers = samples.nuclei() if sample == "nuclei" else samples.stained_tissue()
    by_kind = {kind: data for data, _, kind in reversed(layers)}
    (corners,) = by_kind["shapes"]
    image = np.asarray(by_kind["image"])
    box = Box.from_corners(corners, shape=(image.shape[0], image.shape[1]))
    return image, np.asarray(by_kind["labels"]), box


def _score(sample: str, found: np.ndarray, truth: np.ndarray, box: Box) -> float | None:
    """Return the Dice outside the prompt's box, where all objects are known."""
    if sample != "nuclei":
        return None
    ignore = np.zeros(truth.shape, bool)
    ignore[box.slices] = True
    return round(dice(found, truth, ignore), 4)


def _has_nuclei() -> bool:
    from ..plugin.samples import nuclei_files

    return nuclei_files() is not None


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
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", SCREEN, "-nolisten", "tcp"],
        pass_fds=(write,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            number = pipe.readline().strip()
        if not number:
            raise DemoError("The virtual display (Xvfb) did not start.")
        with _environment(
            DISPLAY=f":{number}",
            QT_QPA_PLATFORM="xcb",
            WAYLAND_DISPLAY=None,
            LIBGL_ALWAYS_SOFTWARE="1",
        ):
            yield
    finally:
        server.terminate()
        server.wait(10)


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
