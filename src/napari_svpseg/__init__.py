"""Find more of *these*: prompt-based segmentation of microscopy images.

Public names are fetched on first use, so that importing the package loads neither
torch nor Qt.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

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
    "list_models": "api",
    "load_model": "api",
    "load_prompts": "api",
    "postprocess": "api",
    "read_image": "api",
    "save_prompts": "api",
    "segment": "api",
    "segment_file": "api",
    "segment_zarr": "api",
}

__all__ = sorted(_PUBLIC)


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
