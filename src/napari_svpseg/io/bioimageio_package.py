"""Packages of bioimage.io (specification 0.5) that hold a model with its prompts."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..core.contrast import percentile_table, plain_range
from ..core.exchange import EPSILON, BakedGraph, GraphShape
from ..core.fingerprint import fingerprint
from ..core.image import HIGH_PERCENTILE, LOW_PERCENTILE
from ..core.model_card import ModelCard
from ..core.prompt import PromptSet
from ..core.settings import PostprocessSettings
from .atomic import atomic_path
from .model_store import CARD, PROMPTS, WEIGHTS
from .ownership import seal_zip
from .prompt_files import save_prompts

DESCRIPTION, ONNX, README, COVER = "rdf.yaml", "model.onnx", "README.md", "cover.png"
TEST_INPUT, TEST_OUTPUT = "test_input.npy", "test_output.npy"
MAPS = ["foreground", "distance", "boundary"]
PROJECT = "https://github.com/napari-svpseg/napari-svpseg"
TOLERANCE = 1e-4
"""How much engines may differ in a probability."""

TEXT = """# {name}

{title}

Made with [napari-svpseg]({project}) from {n} prompt(s): small boxes in which a few
objects were labelled. The prompts are part of the model, which takes one image.

## Input

One image `(1, {channels}, height, width)` of 32-bit floats{sizes}. Before it enters
the network, each channel of the **whole** image is scaled linearly so that its
percentile {low} becomes 0 and its percentile {high} becomes 1 (`scale_range`;
programs that know bioimage.io do it). Everything else is inside the graph: clipping,
resampling to the size of the objects ({scale:.4g} pixels of the network for each
pixel of the image), and mirrored borders.

Images should have pixels of the same size as those of the prompts. NaN is left out
of the percentiles and becomes 0 after the scaling.

## Output

`(1, 3, height, width)`, each in 0 to 1: `foreground`, the probability of an object;
`distance`, 0 at the border of an object and 1 in its centre; `boundary`, the
probability of an outline. Tiles need a border (halo) of {halo} pixels whose maps are
not used.

## From maps to objects

Foreground of at least {threshold:g} is object. Objects that touch are split by a
watershed of `distance * (1 - boundary / 2)`, smoothed with a Gaussian of {blur:.2g}
pixels. Typical objects are {diameter:.3g} pixels wide; those with less than
{smallest:.0f} pixels can be left out. napari-svpseg does all of this: `svpseg models
import FILE`, then `svpseg segment IMAGES --model {name}`.

## Validation

Look at the result of an image with known objects first: `svpseg benchmark` measures
it on a folder of them.

## What is not in the graph

Rules that look at one image as a whole: the contrast of images with dirt or without
objects, objects left out because they are like those marked as wrong, fitting to the
prompts, the trust.{notes}
"""


def write_package(
    path: str | Path,
    graph: BakedGraph,
    card: ModelCard,
    prompts: PromptSet,
    *,
    authors: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a package of bioimage.io, which `import_model` reads as well.

    Parameters
    ----------
    path : path
        Zip file to be written.
    graph : BakedGraph
        Of ONNX.
    card : ModelCard
        Of the model, whose folder has its weights.
    prompts : PromptSet
        Those in the graph, and those that are not.
    authors : sequence of str
        Names of those who made the prompts.
    overwrite : bool
        Allow to replace a file that this program did not write.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    path = Path(path)
    card = dataclasses.replace(
        card,
        name=_model_name(path, card),
        title=f"Finds objects like those in {len(prompts)} prompt(s)",
    )
    weights = (Path(card.path) / WEIGHTS).read_bytes()
    with atomic_path(path, overwrite) as temporary:
        with zipfile.ZipFile(
            temporary, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False
        ) as archive:
            files = {
                ONNX: graph.data,
                TEST_INPUT: _npy(graph.test_input),
                TEST_OUTPUT: _npy(graph.test_output),
                COVER: _cover(graph),
                README: _readme(graph, card, prompts).encode(),
                CARD: json.dumps(card.to_dict(), indent=1).encode(),
                WEIGHTS: weights,
                PROMPTS: _prompt_file(prompts),
            }
            values = _description(graph, card, files, authors)
            # JSON is YAML, and needs no further library
            archive.writestr(DESCRIPTION, json.dumps(values, indent=1))
            for name, data in files.items():
                archive.writestr(name, data)
        seal_zip(temporary)
    return path


def _model_name(path: Path, card: ModelCard) -> str:
    """Return the name of the model in a package: that of the file.

    Not the name of the model without prompts, which hides another of its name.
    """
    name = re.sub(r"[^\w .()-]", "-", path.stem).lstrip(".") or "model"
    return f"{name} with prompts" if name == card.name else name


def _description(
    graph: BakedGraph, card: ModelCard, files: dict[str, bytes], authors: Sequence[str]
) -> dict[str, Any]:
    """Return the description of a package, as in the specification."""

    def file(name: str) -> dict[str, str]:
        return {"source": name, "sha256": fingerprint(files[name])}

    return {
        "format_version": "0.5.4",
        "type": "model",
        # at least five of the letters that are allowed
        "name": re.sub(r"[^\w ()-]", "-", f"svpseg {card.name}")[:128],
        "description": card.title,
        "authors": [{"name": n} for n in authors or ["napari-svpseg developers"]],
        "cite": [{"text": "napari-svpseg", "url": PROJECT}],
        "license": card.licence,
        "documentation": file(README),
        "covers": [file(COVER)],
        "tags": [
            "segmentation", "instance-segmentation", "microscopy", "one-shot", "2d",
            "napari-svpseg",
        ],
        "inputs": [{**_image(graph.shape), "test_tensor": file(TEST_INPUT)}],
        "outputs": [{**_maps(graph.shape), "test_tensor": file(TEST_OUTPUT)}],
        "weights": {"onnx": {**file(ONNX), "opset_version": 18}},
        "attachments": [file(n) for n in (PROMPTS, CARD, WEIGHTS)],
        "config": _config(graph),
    }  # fmt: skip


def _image(shape: GraphShape) -> dict[str, Any]:
    """Return the description of the input."""
    size: Any = shape.side or {"min": shape.smallest, "step": 1}
    channels = [f"channel{i}" for i in range(shape.channels)]
    return {
        "id": "image",
        "description": "One image, raw intensities",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "channel_names": channels},
            *({"type": "space", "id": a, "size": size} for a in "yx"),
        ],
        "data": {"type": "float32"},
        "preprocessing": [
            {
                "id": "scale_range",
                "kwargs": {
                    "axes": ["y", "x"],
                    "min_percentile": LOW_PERCENTILE,
                    "max_percentile": HIGH_PERCENTILE,
                    "eps": EPSILON,
                },
            }
        ],
    }


def _maps(shape: GraphShape) -> dict[str, Any]:
    """Return the description of the output."""

    def side(axis: str) -> dict[str, Any]:
        size = {"tensor_id": "image", "axis_id": axis}
        return {"type": "space", "id": axis, "size": size, "halo": shape.halo}

    return {
        "id": "maps",
        "description": "Probability of an object, depth in it, probability of outlines",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "channel_names": MAPS},
            *(side(a) for a in "yx"),
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
    }


def _config(graph: BakedGraph) -> dict[str, Any]:
    """Return what programs may know beyond the specification."""
    tolerance = {
        "absolute_tolerance": TOLERANCE,
        "relative_tolerance": TOLERANCE,
        "mismatched_elements_per_million": 0,
    }
    known = {k: v for k, v in asdict(graph.objects).items() if v == v}
    return {
        "bioimageio": {"reproducibility_tolerance": [tolerance]},
        "svpseg": {
            "scale": graph.shape.scale,
            "threshold": PostprocessSettings().threshold,
            "objects": known,  # JSON knows no NaN
            "notes": list(graph.notes),
        },
    }


def _readme(graph: BakedGraph, card: ModelCard, prompts: PromptSet) -> str:
    shape, objects = graph.shape, graph.objects
    sizes = f"; sides of {shape.smallest} pixels or more"
    if shape.side:
        sizes = f"; both sides have {shape.side} pixels"
    return TEXT.format(
        name=card.name,
        title=card.title,
        project=PROJECT,
        n=len(prompts),
        channels=shape.channels,
        sizes=sizes,
        low=LOW_PERCENTILE,
        high=HIGH_PERCENTILE,
        scale=shape.scale,
        halo=shape.halo,
        threshold=PostprocessSettings().threshold,
        blur=float(np.clip(0.06 * objects.diameter, 1, 12)),
        diameter=objects.diameter,
        smallest=np.pi / 4 * objects.diameter**2 / 12,
        notes="".join(f" {note}." for note in graph.notes),
    )


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _cover(graph: BakedGraph) -> bytes:
    """Return a picture: the test image, and its foreground beside it."""
    image = graph.test_input[0]
    pixels = image.reshape(len(image), -1).T
    low, high = plain_range(percentile_table(pixels)).T[..., None, None]
    shown = np.clip((image - low) / np.maximum(high - low, 1e-30), 0, 1)
    shown = shown if len(shown) == 3 else np.repeat(shown[:1], 3, axis=0)
    found = np.repeat(graph.test_output[0, :1], 3, axis=0)
    both = np.concatenate([shown, found], axis=2)[:, :256, :]
    both = (np.moveaxis(both, 0, -1) * 255).astype(np.uint8)
    picture = Image.fromarray(both)
    picture.thumbnail((512, 256))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _prompt_file(prompts: PromptSet) -> bytes:
    """Return the content of a prompt file."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, PROMPTS)
        save_prompts(prompts, place)
        return place.read_bytes()
