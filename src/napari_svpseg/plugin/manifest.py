"""Hooks of the manifest: the reader of prompt sets and the menu command.

The manifest also names the docks, the writers and the samples. A widget imports those,
never this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .docks.tabs import SEGMENT, open_docks, show_dock
from .layers.metadata import layer_name

if TYPE_CHECKING:
    import napari


def get_prompt_reader(path: str | list[str]) -> Callable[[Any], list[Any]] | None:
    """Return the reader of prompt sets, or None for other files."""
    paths = [path] if isinstance(path, str) else list(path)
    if not all(str(p).lower().endswith(".svprompt") for p in paths):
        return None
    return read_prompts


def read_prompts(path: str | list[str]) -> list[Any]:
    """Open prompt sets: into the dock if it is open, else as crops and masks.

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
            crop = prompt.image if prompt.rgb else prompt.image[..., 0]
            if prompt.rgb:
                crop = np.clip(crop, 0, 255).astype(np.uint8)
            layers.append(
                (
                    crop,
                    {"name": layer_name(prompt.name), "rgb": prompt.rgb, **place},
                    "image",
                )
            )
            layers.append(
                (
                    prompt.mask,
                    {"name": layer_name(f"{prompt.name} mask"), **place},
                    "labels",
                )
            )
    return layers


def add_prompt(viewer: napari.viewer.Viewer) -> None:
    """Place a box in the middle of the view, in the dock (opened if need be)."""
    dock = show_dock(viewer, SEGMENT)
    dock.prompt_panel.add_prompt_at_centre()
