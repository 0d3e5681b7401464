"""Messages to the user that several parts of the plugin share, and their grammar."""

from __future__ import annotations

from typing import Any

from ..core.errors import one_line

OPEN_IMAGE = "Open an image to begin (or File > Open Sample > SVPSeg)."
DRAW_BOX = "Draw a box on a few labelled cells to begin."
TRY = "Press Preview to try it on what you see."
PAINTED = "Press Preview to try it. M is the next number where objects touch."
NO_MODEL = "No model is installed: reinstall napari-svpseg."
SHOWING = "Showing '{}'."
READY = "{} · ready"
STARTING = "Starting the engine…"
STOPPING = "Stopping…"


def sentence(error: BaseException) -> str:
    """Return an error's text as a sentence; a name it begins with stays as it is.

    Examples
    --------
    >>> sentence(ValueError("draw a box")), sentence(ValueError("a1.tif: not found"))
    ('Draw a box', 'a1.tif: not found')
    """
    text = one_line(error, hint="")
    is_name = ":" in text.split(" ", 1)[0]
    return text if is_name else text[:1].upper() + text[1:]


def count(n: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 object`` and ``3 objects``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def device_line(about: dict[str, Any]) -> str:
    """Return the line on where models run, from `workflows.segment_image`'s answer.

    Examples
    --------
    >>> device_line({"device": "cpu", "threads": 2, "reason": "no GPU found"})
    'CPU · 2 cores (no GPU found)'
    """
    kind = str(about.get("device", "cpu")).upper()
    reason = str(about.get("reason", ""))
    if kind == "CPU":
        cores = about.get("threads", 1)
        return f"CPU · {count(cores, 'core')} ({reason})"
    memory = about.get("free_mb")
    room = f", {memory / 1024:.1f} GB free" if memory else ""
    return f"{about.get('name', kind)} · {kind.lower()}{room} ({reason})"
