"""``kill -9`` at the n-th write of each program: it goes on as if nothing had been.

The places are drawn by the title of the case, so that it hits the same place again.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

from napari_svpseg.io.atomic import TEMPORARY

from .case import content
from .faults import Writes, kill
from .programs import PROGRAMS, Program, at_every_step, compared
from .verdict import HUNG, LOST, RIGHT, UNCLEAR, Verdict
from .watchdog import act, call_in_child

KILLS = 15
"""Of each program."""


def runs() -> Iterator[tuple[str, Callable[[Path], Verdict]]]:
    """Yield the title of each kill, and what does it and returns the verdict."""
    for program in PROGRAMS:
        for i in range(KILLS):
            yield f"{program.name} {i}", partial(_killed, program, i)


def _killed(program: Program, number: int, base: Path) -> Verdict:
    """Kill a program once, in every third case again while it resumes; compare."""
    writes, undisturbed = _undisturbed(program, base)
    draw = random.Random(f"{program.name} {number}")
    here, words = prepared(program, base)
    before = content(here)
    try:
        for _ in range(2 if number % 3 == 0 else 1):
            try:
                call_in_child(_sitting, program, here, words, draw.randint(1, writes))
            except EOFError:
                continue
        _, outcome, status, error = call_in_child(_sitting, program, here, words, 0)
    except TimeoutError as late:
        return Verdict(HUNG, str(late))
    after = content(here)
    lost = [path for path, digest in before.items() if after.get(path) != digest]
    if lost:
        return Verdict(LOST, f"changed or gone: {', '.join(lost[:3])}")
    verdict = compared(outcome, undisturbed, status, error)
    left = [path for path in after if any(map(TEMPORARY.match, Path(path).parts))]
    if left and verdict.column == RIGHT:
        return Verdict(UNCLEAR, f"left behind: {', '.join(left[:3])}")
    return verdict


@cache
def _undisturbed(program: Program, base: Path) -> tuple[int, dict[str, str]]:
    """Return the number of writes of a program that nobody disturbs, and its result."""
    here, words = prepared(program, base)
    writes, outcome, status, error = call_in_child(_sitting, program, here, words, 0)
    assert status == 0, error
    return writes, outcome


def prepared(program: Program, base: Path) -> tuple[Path, list[str]]:
    """Return a fresh folder with the input, always the same path, and the words."""
    here = base.parent / "killed"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    return here, call_in_child(_prepare, program, here, base)


def _prepare(program: Program, here: Path, base: Path) -> list[str]:
    os.chdir(here)
    return [str(word) for word in program.prepare(base)]


def _sitting(
    program: Program, here: Path, words: list[str], kill_at: int
) -> tuple[int, dict[str, str], int, str]:
    """Run a program, and kill it at one of its writes."""
    os.chdir(here)
    at_every_step()
    writes = Writes(here, kill_at, kill if kill_at else None)
    seen = act(words)
    writes.stopped = True
    outcome = program.outcome() if seen.status == 0 else {}
    return writes.count, outcome, seen.status, seen.error
