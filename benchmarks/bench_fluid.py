"""The longest block of the event loop in each action, and whose code it is.

Run with a display: ``python benchmarks/bench_fluid.py`` (or under ``xvfb-run``). Opens
each dock, then works with 30 images, their results and an image of 2,048 x 2,048 with
about 5,000 objects, and with ``--training`` fine-tunes. A block is the call of an
action or one turn of the event loop. Prints for each action the processor time of the
longest block of the GUI thread; how much of a block is our code with what it calls in
other libraries but napari, vispy and Qt's events (from a second time with a profiler,
which makes that number too large); and the longest block of the same action in a
napari without our docks, where it has it.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

PLUGIN = "napari-svpseg"
DOCKS = "Segment from prompts", "Fine-tune", "Batch", "Train from tags"
THEIRS = ("/napari/", "/vispy/", "/qtpy/", "/superqt/", "/app_model/", "/psygnal/")
OURS = "/napari_svpseg/"
TURNS = 12
"""Turns of the event loop that belong to an action."""
MOST_SECONDS = 400
MEANWHILE_S = 0.3
LEAST_MS = 5.0
"""Blocks shorter than this are not looked into."""
HEAD = (
    "| action | longest block | our code | napari alone |\n"
    "|---|---|---|---|"
)  # fmt: skip

Step = Callable[[], Any]


def events() -> None:
    """Run one turn of the event loop."""
    from qtpy.QtWidgets import QApplication

    QApplication.processEvents()


def settle(seconds: float = 0.3) -> None:
    """Let timers and jobs of the action before come to an end."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        events()
        time.sleep(0.002)


def blocks(
    action: Step, until: Callable[[], bool] | None = None, meanwhile: Step = events
) -> Iterator[Step]:
    """Yield the action, then the turns of the event loop that follow it.

    Parameters
    ----------
    action : callable
    until : callable, optional
        Whether what the action started has come to its end.
    meanwhile : callable
        What is done a few times a second until then.
    """
    yield action
    now = time.monotonic()
    end, due = now + MOST_SECONDS, now
    while until is not None and not until():
        now = time.monotonic()
        if now > end:
            raise TimeoutError
        if now > due:
            due = now + MEANWHILE_S
            yield meanwhile
        yield events
        time.sleep(0.002)
    for _ in range(TURNS):
        yield events


def longest(steps: Iterator[Step]) -> float:
    """Return the processor time of the longest block, in milliseconds."""
    most = 0.0
    for step in steps:
        start = time.thread_time()
        step()
        most = max(most, time.thread_time() - start)
    return 1000 * most


def longest_of_ours(steps: Iterator[Step]) -> tuple[float, str]:
    """Return the milliseconds of our code in the block that has most, and where."""
    found = [(0.0, "")]
    for step in steps:
        profile = cProfile.Profile(time.thread_time)
        start = time.thread_time()
        profile.enable()
        step()
        profile.disable()
        if 1000 * (time.thread_time() - start) > LEAST_MS:
            found.append(ours_of(profile))
    return max(found)


def ours_of(profile: cProfile.Profile) -> tuple[float, str]:
    """Return the milliseconds of our code, and the three functions with most of it."""
    stats: Any = pstats.Stats(profile)
    spent: dict[str, float] = {}
    for (file, _, name), (_, _, own, _, callers) in stats.stats.items():
        if OURS in file:
            place = f"{os.path.basename(file)} {name}"
            spent[place] = spent.get(place, 0.0) + own
        elif not any(part in file for part in THEIRS):
            for (caller, _, by), (_, _, part, _) in callers.items():
                if OURS in caller:  # of a library or of Python: whoever called it
                    place = f"{os.path.basename(caller)} {by} > {name}"
                    spent[place] = spent.get(place, 0.0) + part
    most = sorted(spent, key=lambda place: -spent[place])[:3]
    text = ", ".join(f"{place} {1000 * spent[place]:.0f}" for place in most)
    return 1000 * sum(spent.values()), text


class Table:
    """Prints and keeps a row for each action.

    Parameters
    ----------
    only : str
        Actions with this in their name are measured.
    alone : dict of str to float
        Longest blocks of napari alone.
    """

    def __init__(self, only: str = "", alone: dict[str, float] | None = None) -> None:
        self.only, self.alone = only, alone or {}
        self.rows: dict[str, dict[str, Any]] = {}

    def add(
        self, name: str, first: Step, second: Step | None = None, **kwargs: Any
    ) -> None:
        """Do an action, then a second one like it with a profiler."""
        settle()
        if self.only not in name:
            return
        row: dict[str, Any] = {"ms": round(longest(blocks(first, **kwargs)))}
        if second is not None:
            settle()
            ours, places = longest_of_ours(blocks(second, **kwargs))
            row |= {"ours_ms": round(ours), "places": places}
        self.rows[name] = row
        theirs = self.alone.get(name)
        cells = (row["ms"], row.get("ours_ms"), None if theirs is None else theirs)
        shown = " | ".join("" if c is None else f"{c:.0f} ms" for c in cells)
        print(f"| {name} | {shown} |", flush=True)
        if row.get("places"):
            print(f"  {row['places']}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- what is shown


def scene(side: int, step: int, seed: int = 0) -> np.ndarray:
    """Return an image of bright discs, ``step`` pixels from each other."""
    rng = np.random.default_rng(seed)
    image = 60 + rng.normal(0, 15, (side, side)).astype(np.float32)
    yy, xx = np.indices((step, step)) - step // 2
    for y in range(0, side - step, step):
        for x in range(0, side - step, step):
            radius = rng.uniform(0.28, 0.4) * step
            image[y : y + step, x : x + step][yy**2 + xx**2 <= radius**2] += 100
    return image


def disc_masks(step: int, side: int = 64) -> np.ndarray:
    """Return labels for a box at the corner of a `scene`."""
    labels = np.zeros((side, side), np.int32)
    yy, xx = np.indices((step, step)) - step // 2
    n = 0
    for y in range(0, side - step + 1, step):
        for x in range(0, side - step + 1, step):
            n += 1
            labels[y : y + step, x : x + step][yy**2 + xx**2 <= (0.34 * step) ** 2] = n
    return labels


def alone(viewer: Any, n: int) -> dict[str, float]:
    """Return the longest blocks of napari's own actions, without our docks."""
    images = [viewer.add_image(scene(512, 36, i), name=f"i{i}") for i in range(n)]
    labels = [viewer.add_labels(np.zeros((512, 512), np.int32)) for _ in images]
    for layer in labels[1:]:
        layer.visible = False
    settle()

    def switch() -> None:
        for layer in (labels[0], images[2], labels[2]):
            layer.visible = layer is not labels[0]

    def add() -> None:
        viewer.add_labels(np.zeros((512, 512), np.int32), name="one")
        viewer.layers.move(len(viewer.layers) - 1, n)

    images[2].visible = False
    actions: dict[str, Step] = {
        "select an image": lambda: _activate(viewer, images[3]),
        "show another image": switch,
        "add a result": add,
        "remove a result": lambda: viewer.layers.remove("one"),
        "paint while a run goes on": lambda: _stroke(labels[2], 0),
    }
    found = {}
    for name, action in actions.items():
        settle()
        found[name] = longest(blocks(action))
    viewer.layers.clear()
    settle()
    return found


def _activate(viewer: Any, layer: Any) -> None:
    viewer.layers.selection.active = layer


def _stroke(layer: Any, at: int) -> None:
    for x in range(20, 80, 4):
        layer.paint((200 + at % 100, x + at % 300), 1)


# ---------------------------------------------------------------- actions


def open_docks(viewer: Any, table: Table) -> dict[str, Any]:
    """Open each dock for the first time in this process; return them."""
    docks = {}

    def open_one(name: str) -> None:
        _, docks[name] = viewer.window.add_plugin_dock_widget(PLUGIN, name)

    for i, name in enumerate(DOCKS):
        more = "the first dock of a session, with imports: " if i == 0 else ""
        table.add(f"{more}open {name}", partial(open_one, name))
        if name not in docks:
            open_one(name)
    return docks


def work(viewer: Any, dock: Any, table: Table, n: int) -> None:
    """Measure the actions of the dock *Segment* with some images and their results."""
    from napari_svpseg.core.geometry import Box

    step = 36
    images = [
        viewer.add_image(scene(512, step, i), name=f"image {i}") for i in range(n)
    ]
    masks = np.zeros((512, 512), np.int32)
    masks[:64, :64] = disc_masks(step)
    truth = viewer.add_labels(masks, name="truth")
    settle()
    dock.image_panel.go_to(images[0])
    dock.prompt_panel.tool.stop()
    source = dock.source_of(images[0])
    place = partial(dock.book.place, source, ())
    table.add("place a box", lambda: place(Box(0, 0)), lambda: place(Box(100, 0)))
    for item in dock.book.items[1:]:
        dock.book.remove(item.id)
    if not dock.book.items:
        place(Box(0, 0))
    dock.book.update(dock.book.items[0].id, mask_layer=truth)
    _until(lambda: dock.book.is_ready)
    painted = viewer.add_labels(np.zeros((512, 512), np.int32), name="painted")
    strokes = iter(range(10**6))
    table.add(
        "paint while a run goes on",
        dock.run.click,
        dock.run.click,
        until=lambda: not dock.is_busy,
        meanwhile=lambda: _stroke(painted, next(strokes)),
    )
    if table.only not in "paint while a run goes on":
        dock.run.click()
        _until(lambda: not dock.is_busy)
    viewer.layers.remove("painted")
    select, show = partial(_activate, viewer), dock.image_panel.go_to
    table.add("select an image", lambda: select(images[3]), lambda: select(images[5]))
    table.add("show another image", lambda: show(images[2]), lambda: show(images[4]))
    names = [f"{images[i].name} [svpseg]" for i in (7, 8)]
    remove = viewer.layers.remove
    table.add("remove a result", lambda: remove(names[0]), lambda: remove(names[1]))
    for i in range(n):
        for_run = images[i] in (images[7], images[8])
        dock.images.item(i).setCheckState(_check(for_run))
    table.add(
        "add a result", dock.run.click, dock.run.click, until=lambda: not dock.is_busy
    )
    box = dock.list.rows[dock.book.items[0].id].enabled
    table.add("toggle a prompt", box.click, box.click)


def large(viewer: Any, dock: Any, table: Table) -> None:
    """Measure a slider of the result options on a large image with many objects."""
    image = viewer.add_image(scene(2048, 29, 1), name="large")
    settle()
    for i in range(dock.images.count()):
        row = dock.images.item(i)
        row.setCheckState(_check(row.text() == "large"))
    dock.image_panel.go_to(image)
    table.add(
        "run on 2,048 x 2,048", dock.run.click, dock.run.click,
        until=lambda: not dock.is_busy,
    )  # fmt: skip
    if table.only not in "run on 2,048 x 2,048":
        dock.run.click()
        _until(lambda: not dock.is_busy)
    moves = iter(np.tile([0.45, 0.55, 0.4, 0.6], 20))
    ends = [0.0]

    def move() -> None:
        dock.options.set_values({"threshold": float(next(moves))})
        ends[0] = time.monotonic() + 2.5

    def rests() -> bool:
        return time.monotonic() > ends[0] and dock.options_controller.job is None

    n = len(np.unique(viewer.layers[-1].data)) - 1
    table.add(f"move a slider, {n:,} objects", move, move, until=rests)


def training(viewer: Any, dock: Any, table: Table, seconds: float) -> None:
    """Measure the window while a model is fine-tuned."""
    from napari_svpseg.plugin.layers.labels.partial_label_layers import paint_layer

    viewer.layers.clear()
    viewer.add_image(scene(512, 36), name="discs")
    settle()
    dock.label_panel.paint_cell.click()
    layer = paint_layer(viewer, dock.label_panel.source())
    inside = disc_masks(36, 256)
    layer.data_setitem(np.nonzero(inside == 0), 1)
    layer.data_setitem(np.nonzero(inside), inside[inside > 0] + 1)
    dock.label_panel.add.click()
    _until(lambda: bool(dock.training_set.entries))
    table.add(
        "start to fine-tune",
        dock.start_button.click,
        until=lambda: bool(dock.curves.points),
    )
    ends = [0.0]

    def begin() -> None:
        ends[0] = time.monotonic() + seconds

    table.add("fine-tune", begin, begin, until=lambda: time.monotonic() > ends[0])
    table.add("end fine-tuning", dock.stop.click, until=lambda: not dock.is_busy)


def _check(is_on: bool) -> Any:
    from qtpy.QtCore import Qt

    return Qt.CheckState.Checked if is_on else Qt.CheckState.Unchecked


def _until(condition: Callable[[], bool]) -> None:
    for step in blocks(events, condition):
        step()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=30, help="at least 10")
    parser.add_argument("--training", type=float, default=0, help="seconds of training")
    parser.add_argument("--only", default="", help="actions with this in their name")
    parser.add_argument("--no-large", action="store_true", help="no 2,048 x 2,048")
    parser.add_argument("--json", help="file for the numbers")
    options = parser.parse_args()
    import napari

    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_SVPSEG_HOME"] = home
        viewer = napari.Viewer()
        table = Table(options.only, alone(viewer, options.images))
        print(HEAD, flush=True)
        docks = open_docks(viewer, table)
        dock = docks[DOCKS[0]]
        work(viewer, dock, table, options.images)
        if not options.no_large:
            large(viewer, dock, table)
        if options.training:
            training(viewer, docks[DOCKS[1]], table, options.training)
        if options.json:
            with open(options.json, "w") as file:
                json.dump(table.rows, file, indent=1)
        dock.engine.close()
        viewer.close()


if __name__ == "__main__":
    main()
