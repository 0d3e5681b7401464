"""Preferences of the plugin, with defaults for a napari that does not know them."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger(__name__)

PLUGIN = "napari-svpseg"
DEFAULTS: dict[str, Any] = {
    "device": "auto",
    "tile": 512,
    "shortcuts": True,
    "autosave": True,
    "large": 32,
    "results": "",
    "model": "",
    "threads": 0,
    "labels_look": "fill",
    "warm_up": True,
}


def preference(name: str) -> Any:
    """Return a preference: the user's choice (napari 0.9 and later) or the default."""
    try:
        from napari.settings import get_plugin_settings

        return getattr(get_plugin_settings(PLUGIN).engine, name)
    except Exception as error:  # noqa: BLE001  (any napari, any settings file)
        logger.debug("preference %s: %s", name, error)
        return DEFAULTS[name]
