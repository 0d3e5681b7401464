"""A real napari killed while strokes are painted: what is older than a save is kept."""

from __future__ import annotations

import os
import queue
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .scene import write_image
from .verdict import HUNG, LOST, RIGHT, UNCLEAR, Verdict
from .watchdog import call_in_child

KILLS = 15
STARTS_S = 120.0
"""How long a napari may take to start, on a busy machine."""

OLD_S = 3.0
"""Age of a stroke that has to be kept: twice the 1.5 s from an edit to its save."""


def runs() -> Iterator[tuple[str, Callable[[Path], Verdict]]]:
    """Yield the title of each case, and what does it and returns the verdict."""
    yield f"napari killed {KILLS} times", _kills
    yield "two naparis killed at once", _two


@dataclass
class _Napari:
    """A napari that paints, and the lines that it prints."""

    base: Path
    home: Path
    launch: int
    lines: queue.Queue[str] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        image = self.home.parent / "field.tif"
        words = ["-m", "tests.campaign.painter", str(image), str(self.launch)]
        environment = os.environ | {"NAPARI_SVPSEG_HOME": str(self.home)}
        log = open(self.home.parent / "napari.log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)

    def restored(self) -> set[str]:
        """Wait until it has restored the last session; return the strokes in it."""
        return set(self._line("restored").split()[1:])

    def paint(self, seconds: float) -> set[str]:
        """Let it paint, kill it, and return the strokes that were old by then."""
        strokes = [self._line("stroke").split()]
        end = float(strokes[0][2]) + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
        self.process.kill()
        killed = time.monotonic()
        self.process.wait()
        time.sleep(0.1)
        while not self.lines.empty():
            strokes.append(self.lines.get().split())
        return {s[1] for s in strokes if len(s) == 3 and float(s[2]) < killed - OLD_S}

    def _line(self, word: str) -> str:
        while True:
            try:
                line = self.lines.get(timeout=STARTS_S)
            except queue.Empty:
                self.process.kill()
                raise TimeoutError(f"no '{word}' after {STARTS_S:.0f} s") from None
            if line.startswith(word):
                return line


def _display():
    from pyvirtualdisplay.display import Display

    return Display(visible=False, size=(1400, 900))


def _home(base: Path) -> Path:
    folder = base.parent / "viewer"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    write_image(folder / "field.tif", np.zeros((600, 600), np.uint8))
    return folder / "home"


def _kills(base: Path) -> Verdict:
    """Kill one napari after the other; each restores what the last one saved."""
    return call_in_child(_chain, base)


def _chain(base: Path) -> Verdict:
    draw, home, wanted = random.Random("napari"), _home(base), set()
    with _display():
        try:
            for launch in range(KILLS + 1):
                napari = _Napari(base, home, launch)
                missing = wanted - napari.restored()
                if missing:
                    napari.process.kill()
                    some = f"{len(missing)} of {len(wanted)}: {sorted(missing)[:5]}"
                    return Verdict(LOST, f"launch {launch} lacks strokes, {some}")
                wanted |= napari.paint(draw.uniform(OLD_S + 0.3, OLD_S + 2))
        except TimeoutError as late:
            return Verdict(HUNG, str(late))
    return (
        Verdict(RIGHT) if len(wanted) > KILLS else Verdict(UNCLEAR, "nothing painted")
    )


def _two(base: Path) -> Verdict:
    """Kill two naparis of one user; the sessions of both are there."""
    return call_in_child(_two_at_once, base)


def _two_at_once(base: Path) -> Verdict:
    from napari_svpseg.io.session import crashed_sessions

    from .painter import strokes_in

    home = _home(base)
    with _display():
        pair = [_Napari(base, home, launch) for launch in range(2)]
        try:
            for napari in pair:
                if napari.restored():
                    return Verdict(LOST, "one napari took the session of the other")
            wanted = pair[0].paint(OLD_S + 3) | pair[1].paint(OLD_S + 3)
        except TimeoutError as late:
            return Verdict(HUNG, str(late))
        finally:
            for napari in pair:
                napari.process.kill()
    sessions, problems = crashed_sessions(home / "sessions")
    arrays = [s.labels(e["key"]) for s in sessions for e in s.state["labels"]]
    found = {s for array in arrays if array is not None for s in strokes_in(array)}
    if problems:
        return Verdict(UNCLEAR, problems[0])
    if not wanted <= found or len(sessions) != 2:
        return Verdict(
            LOST, f"{len(sessions)} sessions lack {sorted(wanted - found)[:5]}"
        )
    return Verdict(RIGHT)
