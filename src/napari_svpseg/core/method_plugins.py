"""Segmentation methods of other packages, found by entry points without an import.

A package registers a method by an entry point in the group ``napari_svpseg.models``::

    [project.entry-points."napari_svpseg.models"]
    my-method = "my_package.my_module:MyMethod"

The object is a class or function that returns a ready-to-use `PromptSegmenter` when
called without arguments. The method then appears as a model in the dock, on the command
line and in the benchmark, and model folders may use it as their method.
"""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint, entry_points

from .model_card import ModelCard

GROUP = "napari_svpseg.models"

logger = logging.getLogger(__name__)


def plugin_methods() -> dict[str, EntryPoint]:
    """Return the entry points of methods of other packages, by method name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def plugin_cards() -> list[ModelCard]:
    """Return a model card for each method of another package.

    Name, licence and title come from the metadata of the package, so that listing
    models imports none of them.
    """
    return [_card(point) for point in plugin_methods().values()]


def _card(point: EntryPoint) -> ModelCard:
    if point.dist is None:
        return ModelCard(point.name, point.name, licence="not stated")
    about = point.dist.metadata.json
    licence = str(about.get("license_expression") or about.get("license") or "")
    return ModelCard(
        name=point.name,
        method=point.name,
        licence=licence.splitlines()[0] if licence else "not stated",
        title=str(about.get("summary") or f"from the package {point.dist.name}"),
        training={"package": f"{point.dist.name} {point.dist.version}"},
    )


def is_plugin(card: ModelCard) -> bool:
    """Return whether a card describes a method of another package.

    Such a model has no folder and no weights file.
    """
    return not card.path and not card.sha256 and card.name in plugin_methods()
