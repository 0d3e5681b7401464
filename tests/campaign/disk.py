"""A disk that fills: at a new file, or in the middle of one, while each program runs.

The program says so in one line, or goes on with a note; when there is room again, it
gives what it gives undisturbed.
"""

from __future__ import annotations

import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

from .case import Place, content
from .faults import Writes, disk_is_full
from .kills import prepared
from .programs import PROGRAMS, Program, at_every_step, compared
from .scene import discs, write_image
from .verdict import HUNG, LOST, RIGHT, UNCLEAR, Verdict, unclear_in
from .watchdog import act, call_in_child

PLACES = 4
"""New files of each program at which the disk is full, from there on."""

SIZES = (0, 20_000)
"""Bytes from which on a file cannot grow, as on a full disk."""

REASONS = ("full", "larger than", "no space", "quota", "too large")
"""What a message says of the reason."""


def _new_prompts(base: Path) -> list:
    where = ("--labels", base / "labels.tif", "--box", 8, 8)
    return ["prompts", "new", "p.svprompt", "--image", base / "discs.tif", *where]


def _export_model(base: Path) -> list:
    return ["models", "export", base / "tiny", "-o", "m.zip"]


def _one_image(base: Path) -> list:
    from .scene import segment

    place = Place(Path.cwd(), base)
    formats = ("--formats", "ome-tiff,csv,geojson,rois,ome-zarr")
    return segment(
        place, write_image(Path("a.tif"), discs()[0]), *formats, model="tiny"
    )


def _names() -> dict[str, str]:
    return dict.fromkeys(content(Path.cwd()), "")


SMALL = (
    Program("prompt file", _new_prompts, _names),
    Program("model export", _export_model, _names),
    Program("exports", _one_image, _names),
)


def runs() -> Iterator[tuple[str, Callable[[Path], Verdict]]]:
    """Yield the title of each case, and what does it and returns the verdict."""
    for program in (*SMALL, *PROGRAMS):
        for i in range(PLACES):
            yield f"{program.name}, new file {i}", partial(_full, program, i, None)
        for size in SIZES:
            yield (
                f"{program.name}, files of {size} bytes",
                partial(_full, program, 0, size),
            )


def _full(program: Program, number: int, size: int | None, base: Path) -> Verdict:
    """Run a program on a disk that fills, then with room again."""
    writes, undisturbed = _undisturbed(program, base)
    draw = random.Random(f"{program.name} {number}")
    at = 1 if number == 0 else draw.randint(1, writes)
    here, words = prepared(program, base)
    before = content(here)
    try:
        _, outcome, status, error = call_in_child(_run, program, here, words, at, size)
        verdict = (
            _clear(error) if status else compared(outcome, undisturbed, status, "")
        )
        if verdict.column != RIGHT:
            return verdict
        _, outcome, status, error = call_in_child(_run, program, here, words, 0, None)
    except TimeoutError as late:
        return Verdict(HUNG, str(late))
    except EOFError:
        return Verdict(UNCLEAR, "the program died without a word")
    after = content(here)
    lost = [path for path, digest in before.items() if after.get(path) != digest]
    if lost:
        return Verdict(LOST, f"changed or gone: {', '.join(lost[:3])}")
    return compared(outcome, undisturbed, status, error)


def _clear(error: str) -> Verdict:
    """Return whether a message names the reason."""
    problem = unclear_in(error, ())
    if not problem and not any(reason in error.lower() for reason in REASONS):
        problem = "does not say that the disk is full"
    if problem:
        return Verdict(UNCLEAR, f"{problem}: {' '.join(error.split())[-250:]}")
    return Verdict(RIGHT)


@cache
def _undisturbed(program: Program, base: Path) -> tuple[int, dict[str, str]]:
    here, words = prepared(program, base)
    writes, outcome, status, error = call_in_child(_run, program, here, words, 0, None)
    assert status == 0, error
    return writes, outcome


def _run(
    program: Program, here: Path, words: list[str], full_at: int, size: int | None
) -> tuple[int, dict[str, str], int, str]:
    """Run a program, on a disk that is full from a new file on or cuts files short."""
    os.chdir(here)
    at_every_step()
    if size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        full_at = 0
    writes = Writes(here, full_at, disk_is_full if full_at else None, new_only=True)
    seen = act(words)
    writes.stopped = True
    if size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    outcome = program.outcome() if seen.status == 0 else {}
    # a summary that could not be written is made anew from the labels, which do not
    # tell how far a result is to be trusted
    outcome.pop("summary.csv", None)
    return writes.count, outcome, seen.status, seen.error
