"""Find more of *these*: prompt-based segmentation of microscopy images.

Public names are fetched on first use, so that importing the package loads neither
torch nor Qt.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Box": "core.geometry",
    "Prompt": "core.prompt",
    "PromptSet": "core.prompt",
    "PromptError": "core.prompt",
    "Recipe": "core.result",
    "Result": "core.result",
    "segment": "api",
    "models": "api",
    "load_model": "api",
    "load_prompts": "io.prompts",
    "save_prompts": "io.prompts",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
