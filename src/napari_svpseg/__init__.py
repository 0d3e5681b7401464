"""Find more of *these*: prompt-based segmentation of microscopy images.

Public names are fetched on first use, so that importing the package loads neither
torch nor Qt.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import models

if TYPE_CHECKING:
    from .core.model_card import ModelCard

_PUBLIC = {
    "Box": "core.geometry",
    "UncertainPlace": "core.labels.uncertainty",
    "FineTuneProgress": "core.jobs.finetune_job",
    "FineTuneResult": "core.jobs.finetune_job",
    "FineTuneSettings": "core.jobs.finetune_job",
    "ImageError": "core.image",
    "Maps": "core.result",
    "PostprocessSettings": "core.settings",
    "Prompt": "core.prompt",
    "PromptError": "core.prompt",
    "PromptSet": "core.prompt",
    "Recipe": "core.result",
    "Result": "core.result",
    "SegmentSettings": "core.settings",
    "TagTrainingSettings": "core.annotation.image_tags",
    "uncertain_places": "core.labels.uncertainty",
    "finetune": "api",
    "train_from_tags": "api",
    "image_uncertainty": "core.labels.uncertainty",
    "load_model": "api",
    "load_prompts": "io.prompt_files",
    "postprocess": "api",
    "save_prompts": "io.prompt_files",
    "segment": "api",
    "segment_file": "api",
    "segment_zarr": "workflows.segment_large",
}

__all__ = ["models", *sorted(_PUBLIC)]


class _ListedModels(ModuleType):
    """The sub-package of networks; called, it lists the installed models.

    Both are called ``models``, and Python lets a sub-package take its name in the
    package: so it is the sub-package that answers ``svpseg.models()``.
    """

    def __call__(self) -> list[ModelCard]:
        cards: list[ModelCard] = import_module(f"{__name__}.api").models()
        return cards


models.__class__ = _ListedModels


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-svpseg")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
