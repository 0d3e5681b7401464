"""The methods by name: importing this module imports them all, and they register."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

from ..core.method_plugins import plugin_methods
from . import (  # noqa: F401
    alpnet,
    dspnet,
    graph,
    panet,
    pbip,
    plain_unet,
    prototype_memory,
    semantic,
    svp,
    svp_attention,
    svp_concat,
)
from .base import METHODS, PromptSegmenter


@dataclass(frozen=True)
class ModelConfig:
    """Name of a method and the arguments of its network."""

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)


def methods() -> tuple[str, ...]:
    """Return the names of all methods, those of other packages too."""
    return tuple(sorted({*METHODS, *plugin_methods()}))


def build(config: ModelConfig) -> PromptSegmenter:
    """Return an untrained network of ``config``.

    Raises
    ------
    ValueError
        For an unknown method, with the known ones; for another package's method that
        cannot be loaded or gives no `PromptSegmenter`, with the reason.
    """
    if config.method in METHODS:
        with warnings.catch_warnings():
            # of sizes of 0, which are refused below
            warnings.simplefilter("ignore", UserWarning)
            network = METHODS[config.method](**config.arguments)
        if not all(p.numel() for p in network.parameters()):
            raise ValueError(f"the arguments {config.arguments} leave no weights")
        return network
    point = plugin_methods().get(config.method)
    if point is None:
        raise ValueError(
            f"unknown method {config.method!r}; known: {', '.join(methods())}"
        )
    try:
        network = point.load()(**config.arguments)
    except Exception as error:
        raise ValueError(
            f"the method {config.method!r} ({point.value}) cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, PromptSegmenter):
        raise ValueError(
            f"the method {config.method!r} ({point.value}) gives no PromptSegmenter "
            f"but a {type(network).__name__}."
        )
    return network
