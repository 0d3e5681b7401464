"""Hooks of the manifest: the reader of prompt sets and the menu command.

The manifest also names the docks, the writers and the samples. A widget imports those,
never this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .docks.tabs import SEGMENT, open_docks, show_dock
from .layers.metadata import METADATA_KEY, PROMPT, layer_name

if TYPE_CHECKING:
    import napari


UNIT_COLOURS = 2.0
"""Colours up to this are floats from 0 to 1, some of them beyond."""


def get_prompt_reader(
    path: str | list[str] = "",
) -> Callable[[Any], list[Any]] | None:
    """Return the reader of prompt sets, or None for other files.

    Without a file, as napari's palette calls it, a prompt set is asked for and opened
    in the dock.
    """
    if not path:
        from .commands import open_prompts

        open_prompts()
        return None
    paths = [path] if isinstance(path, str) else list(path)
    if not all(str(p).lower().endswith(".svprompt") for p in paths):
        return None
    return read_prompts


def read_prompts(path: str | list[str]) -> list[Any]:
    """Open prompt sets: into the dock if it is open, else as crops and masks.

    A dock that is opened later lists them, and removes these layers.

    Returns
    -------
    list of (data, attributes, layer type)
    """
    import napari

    from ..io.prompt_files import load_prompts

    paths = [path] if isinstance(path, str) else list(path)
    docks = open_docks(napari.current_viewer(), SEGMENT)
    if docks:
        for one in paths:
            docks[0].prompt_panel.load_prompt_set(str(one))
        return [(None,)]
    layers: list[Any] = []
    for one in paths:
        for n, prompt in enumerate(load_prompts(one)):
            # side by side, so that all are seen at once
            place = {"translate": (0, n * (prompt.image.shape[1] + 8))}
            entry = {"kind": PROMPT, "prompt": prompt, "file": str(one)}
            crop = prompt.image if prompt.rgb else prompt.image[..., 0]
            if prompt.rgb:
                crop = shown_colours(crop, prompt.intensities)
            layers.append(
                (
                    crop,
                    {
                        "name": layer_name(prompt.name),
                        "rgb": prompt.rgb,
                        "metadata": {METADATA_KEY: entry},
                        **place,
                    },
                    "image",
                )
            )
            layers.append(
                (
                    prompt.mask,
                    {
                        "name": layer_name(f"{prompt.name} mask"),
                        "metadata": {METADATA_KEY: {"kind": PROMPT}},
                        **place,
                    },
                    "labels",
                )
            )
    return layers


def shown_colours(crop: np.ndarray, intensities: np.ndarray) -> np.ndarray:
    """Return the colours of a prompt as uint8; floats and 16 bits are scaled.

    Parameters
    ----------
    crop : (Y, X, 3) float array
    intensities : (3, 2) array
        Low and high percentile of each channel of the whole source.

    Examples
    --------
    >>> shown_colours(np.full((1, 1, 3), 0.5), np.full((3, 2), 1.0)).tolist()
    [[[128, 128, 128]]]
    """
    top = float(intensities[:, 1].max())
    # colours are 0 to 1 or 0 to 255; of 16 bits a camera rarely fills all
    scale = 255.0 if top <= UNIT_COLOURS else 1.0 if top <= 255 else 255 / top
    return np.rint(np.clip(crop * scale, 0, 255)).astype(np.uint8)


def save_session(viewer: napari.viewer.Viewer) -> None:
    """Save the whole state of the work as one file, which is asked for."""
    show_dock(viewer, SEGMENT).session_panel.save_session()


def open_session(viewer: napari.viewer.Viewer) -> None:
    """Go on with a saved session, which is asked for."""
    show_dock(viewer, SEGMENT).session_panel.open_session()


def add_prompt(viewer: napari.viewer.Viewer) -> None:
    """Place a box in the middle of the view, in the dock (opened if need be)."""
    dock = show_dock(viewer, SEGMENT)
    dock.prompt_panel.add_prompt_at_centre()
