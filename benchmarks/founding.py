"""Value of the prompt on whole images, by its kind and by the number of prompts.

    python benchmarks/founding.py DATA --sets yeast_phase,worms_brightfield

Prints two tables. *Kind*: no prompt (its code is set to zero), a whole labelled image
reduced to 256 x 256 pixels, 128 x 128 pixels around the box, and the box of 64 x 64.
*Number*: 1, 2, 4 and 8 boxes, combined by the mean of the predictions for each
(svp-concat: the mean of their vectors), or by attention to all their pixels together
(svp-concat: to their vectors). All rows segment the same queries at the scale of the
box, drawn and scored as in ``docs/benchmark.md``.

Each record is saved at once; an interrupted run continues where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, Task, plan
from napari_svpseg.core.geometry import PROMPT_SIZE, Box
from napari_svpseg.core.image import (
    normalise,
    resize_image,
    resize_labels,
    to_three_channels,
)
from napari_svpseg.core.labels.instances import instances_from_maps
from napari_svpseg.core.labels.metrics import dice, match_instances
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.core.settings import PostprocessSettings, SegmentSettings
from napari_svpseg.engine.inference.predict import predict
from napari_svpseg.engine.inference.prompt_features import network_scale, prompt_tensors
from napari_svpseg.io.model_store import load_model
from napari_svpseg.models.base import PromptCode, PromptSegmenter
from napari_svpseg.models.registry import ModelConfig, build

KINDS = ("no prompt", "whole image, 256", "128", "64")
NUMBERS = (1, 2, 4, 8)
WAYS = ("mean", "attention")
WHOLE = 256
SETTINGS = SegmentSettings(device="cpu", trust=False)
Encode = Callable[[PromptSegmenter], PromptCode]
Record = dict[str, Any]


class FixedCode(PromptSegmenter):
    """A network whose prompts are replaced by a code computed otherwise."""

    def __init__(self, network: PromptSegmenter, encode: Encode) -> None:
        super().__init__()
        self.network, self.encode = network, encode
        self.overlap = network.overlap
        self.object_range = network.object_range

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return the code of ``encode``; the prompts only set the scale."""
        return self.encode(self.network)

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        """Return the network's maps."""
        return self.network(query, code)


class MeanOfAnswers(PromptSegmenter):
    """A network that predicts with each prompt alone and averages the results."""

    def __init__(self, network: PromptSegmenter) -> None:
        super().__init__()
        self.network = network
        self.overlap = network.overlap
        self.object_range = network.object_range

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return the codes of the prompts, (K, ...) each."""
        return self.network.encode_prompts(images[0][:, None], masks[0][:, None])

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        """Return the logits of the mean probabilities."""
        n_prompts = len(next(iter(code.values())))
        answers = [
            self.network(query, {k: v[i : i + 1] for k, v in code.items()})
            for i in range(n_prompts)
        ]
        return {
            name: torch.stack([a[name].sigmoid() for a in answers]).mean(0).logit(1e-6)
            for name in answers[0]
        }


def tensors(prompt: Prompt, image: np.ndarray, ids: np.ndarray) -> tuple[Tensor, ...]:
    """Return a part of an image as one prompt, (1, 1, 3, h, w) and (1, 1, h, w)."""
    rows = to_three_channels(normalise(image, prompt.intensities))
    ids = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
    return (
        torch.from_numpy(np.ascontiguousarray(rows)).permute(2, 0, 1)[None, None],
        torch.from_numpy(ids.astype(np.int64))[None, None],
    )


def encoder_of(kind: str, task: Task, number: int, scale: float) -> Encode | None:
    """Return the function that encodes a draw as another kind; None for the box."""
    draw = task.draws[number]
    prompt = task.prompt(draw)
    if kind == "64":
        return None
    if kind == "no prompt":
        box = prompt_tensors(PromptSet([prompt]), scale)
        return lambda network: {
            # weights, keys, values and vectors; what is divided by stays
            k: v if k.endswith("scale") else torch.zeros_like(v)
            for k, v in network.encode_prompts(*box).items()
        }
    query = task.query(draw.image)
    plane, ids = query.plane, task.truth(draw.image)
    if kind == "128":
        box = doubled(draw.box, query.shape)
        plane, ids = plane[box.slices], ids[box.slices]
        side = round(box.size * scale)
    else:
        side = WHOLE
    wanted = (side, side)
    image = resize_image(plane.astype(np.float32), wanted)
    pair = tensors(prompt, image, resize_labels(ids, wanted))
    return lambda network: network.encode_prompts(*pair)


def doubled(box: Box, shape: tuple[int, int]) -> Box:
    """Return the box of twice the side around ``box``, limited by the image."""
    size = min(2 * box.size, *shape)
    y, x = (
        int(np.clip(start - (size - box.size) // 2, 0, n - size))
        for start, n in zip((box.y, box.x), shape, strict=True)
    )
    return Box(y, x, size)


def arms(model: str) -> Iterator[tuple[str, str, int, PromptSegmenter]]:
    """Yield table, row, number of prompts and network of a model."""
    network = load_model(model).network
    for kind in KINDS:
        yield "kind", kind, 1, network
    for way in WAYS:
        combined = combine_prompts(model, network, way)
        for n in NUMBERS[1:]:
            yield "number", way, n, combined


def combine_prompts(model: str, network: PromptSegmenter, way: str) -> PromptSegmenter:
    """Return the network that combines several prompts in one way."""
    if model == "svp-concat":
        card = load_model(model).card
        config = ModelConfig(card.method, card.arguments | {"fusion": way})
        other = build(config).eval()
        other.load_state_dict(network.state_dict())
        return other
    return MeanOfAnswers(network) if way == "mean" else network


def answer(
    task: Task, image: str, first: int, row: str, n: int, network: PromptSegmenter
) -> dict[str, float | None]:
    """Return the scores of one query with ``n`` draws from ``first`` on as prompts."""
    usable = [i for i, draw in enumerate(task.draws) if draw.image != image]
    chosen = [usable[(first + i) % len(usable)] for i in range(n)]
    prompts = PromptSet([task.prompt(task.draws[i]) for i in chosen])
    if row in KINDS:
        scale = network_scale(prompts, network)
        encode = encoder_of(row, task, chosen[0], scale)
        network = network if encode is None else FixedCode(network, encode)
    query = task.query(image)
    maps = predict(query.plane, prompts, network, "cpu", SETTINGS).maps
    labels = instances_from_maps(maps, PostprocessSettings())
    truth = task.truth(image)
    match = match_instances(labels, truth, 0.5) if task.has_objects else None
    return {
        "dice": dice(labels > 0, truth > 0),
        "f1": None if match is None else match.f1,
    }


def run(given: argparse.Namespace) -> list[Record]:
    """Return all records, those of earlier runs and new ones."""
    lines = given.json.read_text().splitlines() if given.json.exists() else []
    records: list[Record] = [json.loads(line) for line in lines]
    names = ("model", "weights", "table", "row", "n", "set", "image", "first")
    done = {tuple(r[k] for k in names) for r in records}
    folders = [given.data / name for name in given.sets.split(",")]
    settings = BenchmarkSettings(prompts=max(NUMBERS), max_queries=given.queries)
    tasks = plan(folders, settings)
    for model in given.models.split(","):
        weights = load_model(model).card.sha256[:12]
        for table, row, n, network in arms(model):
            for task in tasks:
                for image in task.queries:
                    for first in range(given.draws):
                        key = (
                            model,
                            weights,
                            table,
                            row,
                            n,
                            f"{task.dataset.name}-{task.name}",
                            image,
                            first,
                        )
                        if key in done:
                            continue
                        scores = answer(task, image, first, row, n, network)
                        records.append(dict(zip(names, key, strict=True)) | scores)
                        with given.json.open("a") as file:
                            file.write(json.dumps(records[-1]) + "\n")
    wanted = {(m, load_model(m).card.sha256[:12]) for m in given.models.split(",")}
    return [r for r in records if (r["model"], r["weights"]) in wanted]


def mean(records: list[Record], score: str) -> str:
    """Return the mean over tasks of a score, as text."""
    tasks: dict[str, list[float]] = {}
    for record in records:
        if record[score] is not None:
            tasks.setdefault(record["set"], []).append(record[score])
    means = [float(np.mean(values)) for values in tasks.values()]
    return f"{np.mean(means):.3f}" if means else "-"


def show(records: list[Record], models: list[str]) -> None:
    """Print both tables, Dice / F1 of objects."""

    def cell(model: str, row: str, n: int) -> str:
        found = [
            r for r in records if (r["model"], r["row"], r["n"]) == (model, row, n)
        ]
        return f"{mean(found, 'dice')} / {mean(found, 'f1')}"

    print("\nKind of prompt: Dice / F1@0.5\n\n| prompt | " + " | ".join(models) + " |")
    print("|---|" + "---|" * len(models))
    for kind in KINDS:
        print(f"| {kind} | " + " | ".join(cell(m, kind, 1) for m in models) + " |")
    print("\nNumber of prompts: Dice / F1@0.5\n")
    print("| prompts, together by | " + " | ".join(models) + " |")
    print("|---|" + "---|" * len(models))
    print("| 1 | " + " | ".join(cell(m, "64", 1) for m in models) + " |")
    for n in NUMBERS[1:]:
        for way in WAYS:
            cells = " | ".join(cell(m, way, n) for m in models)
            print(f"| {n}, {way} | {cells} |", flush=True)


def main() -> None:
    """Make the missing records and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", required=True, help="separated by commas")
    parser.add_argument("--models", default="svp,svp-attention,svp-concat")
    parser.add_argument("--queries", type=int, default=1, help="images of a task")
    parser.add_argument("--draws", type=int, default=2, help="of prompts, for each")
    parser.add_argument(
        "--json", type=Path, default=Path("bench-output") / "founding.jsonl"
    )
    given = parser.parse_args()
    given.json.parent.mkdir(parents=True, exist_ok=True)
    print(
        f"{given.sets}: {given.queries} image(s) of each, {given.draws} draw(s); "
        f"the box is {PROMPT_SIZE} pixels where the network sees it"
    )
    show(run(given), given.models.split(","))


if __name__ == "__main__":
    main()
