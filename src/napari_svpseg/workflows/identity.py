"""What decides on the result of a run, as one fingerprint: whether it is the same run.

Compared are contents, settings and versions, never names or places of files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.fingerprint import fingerprint
from ..core.jobs.stored_labels import NAME
from ..core.prompt import Prompt, prompt_hash
from ..core.result import Recipe, versions
from ..core.settings import PostprocessSettings, SegmentSettings
from ..io.content import content_fingerprint
from ..io.label_files import read_recipe

if TYPE_CHECKING:
    from ..core.model_card import ModelCard


def training_identity(*content: Any, **values: object) -> str:
    """Return the fingerprint of a training.

    Parameters
    ----------
    *content : bytes, str, array or mapping
        What is trained on, as `fingerprint` takes it.
    **values
        Settings and hashes as plain values.
    """
    return fingerprint({"versions": versions(), **values}, *content)


def segment_identity(
    card: ModelCard,
    prompts: Iterable[Prompt] | None,
    run: SegmentSettings,
    post: PostprocessSettings,
    *,
    axes: str | None,
    channels: tuple[int, ...] | None,
    formats: Iterable[str],
) -> str:
    """Return the fingerprint of all that decides on results, but for the image.

    Parameters
    ----------
    card : ModelCard
    prompts : iterable of Prompt, or None
        By default the model's own.
    run : SegmentSettings
    post : PostprocessSettings
    axes, channels
        As in `segment`.
    formats : iterable of str
        Which files are written: of others nothing is known.
    """
    if prompts is None:
        prompts = _own_prompts(card)
    return fingerprint(
        {
            "versions": versions(),
            "model": _model_values(card),
            "prompts": [prompt_values(prompt) for prompt in prompts],
            "segment": run.to_dict(),
            "postprocess": post.to_dict(),
            "axes": axes,
            "channels": channels,
            "formats": sorted(formats),
        }
    )


def image_identity(made_of: str, path: str | Path) -> str:
    """Return the fingerprint of the result of one image file.

    Parameters
    ----------
    made_of : str
        From `segment_identity`.
    path : path

    Raises
    ------
    OSError
        If the image cannot be read.
    """
    return fingerprint({"made of": made_of, "image": content_fingerprint(path)})


def identity_of_results(targets: Mapping[str, str]) -> str:
    """Return the fingerprint that results name; empty where none of them does.

    Parameters
    ----------
    targets : dict of str to str
        Path of the file of each format.
    """
    recipe: Recipe | None = None
    if "ome-tiff" in targets:
        recipe = read_recipe(targets["ome-tiff"])
    elif "ome-zarr" in targets:
        from ..io.zarr_labels import read_labels_metadata

        values = read_labels_metadata(targets["ome-zarr"], NAME).get("recipe")
        try:
            recipe = Recipe.from_json(json.dumps(values)) if values else None
        except (ValueError, TypeError):
            return ""
    return "" if recipe is None else recipe.fingerprint


def prompt_values(prompt: Prompt) -> dict[str, object]:
    """Return what a prompt adds to a result, as plain values."""
    return {
        "sha256": prompt_hash(prompt),
        "negative": prompt.is_negative,
        "size": prompt.box.size,
        "intensities": prompt.intensities.tolist(),
        "rgb": prompt.rgb,
        "channels": prompt.channels,
    }


def _model_values(card: ModelCard) -> dict[str, object]:
    """Return what a model adds to a result, as plain values."""
    return {
        "name": "" if card.sha256 else card.name,
        "weights": card.sha256,
        "method": card.method,
        "arguments": card.arguments,
        "classes": card.classes,
        "intensities": card.training.get("intensities"),
    }


def _own_prompts(card: ModelCard) -> list[Prompt]:
    """Return the prompts in a model's folder, if it has some."""
    from ..io.model_store import PROMPTS
    from ..io.prompt_files import load_prompts

    path = Path(card.path) / PROMPTS
    return list(load_prompts(path)) if card.path and path.is_file() else []
