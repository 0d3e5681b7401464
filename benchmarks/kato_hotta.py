"""One-shot training in three folds: U-Net from scratch, pre-trained U-Net, attention.

    python benchmarks/kato_hotta.py DATA --json bench-output/kato-hotta.json

DATA contains ``isbi2012_membrane`` and ``vnc_sstem``. In each fold a network is trained
on one labelled image and a 64 x 64 prompt from another third of the stack, and scored
on sections of the last third. All arms have the same encoder; they differ in their
initial weights and their output:

- ``U-Net``: random weights, an ordinary output layer;
- ``U-Net, pre-trained``: the weights of svp-attention, a new output layer;
- ``attention, pre-trained``: the same weights, each pixel attends to the prompt;
- ``attention, not trained on it``: the same without training, for comparison.

The score is the mean Dice of the two classes, from one confusion table of all test
pixels. Each record is saved at once; an interrupted run continues where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_svpseg.engine.training.one_image import (
    Example,
    OneImageSettings,
    fit_one_image,
)
from napari_svpseg.io.datasets import read_dataset
from napari_svpseg.io.model_store import load_model
from napari_svpseg.models.base import PromptCode, PromptSegmenter
from napari_svpseg.models.svp_attention import AttentionSegmenter
from napari_svpseg.models.unet import upsample
from napari_svpseg.workflows.training_tasks import example

SETS = ("isbi2012_membrane", "vnc_sstem")
ARMS = (
    "U-Net",
    "U-Net, pre-trained",
    "attention, pre-trained",
    "attention, not trained on it",
)
FOLDS = 3
WINDOW = 256
"""Side of the middle part of a section that is scored."""


class OutputLayer(PromptSegmenter):
    """The encoder of `AttentionSegmenter` and a 1 x 1 convolution; no prompt."""

    def __init__(self, body: AttentionSegmenter) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Conv2d(body.embed.out_channels, 1, 1)

    def encode_prompts(self, images: Tensor, masks: Tensor) -> PromptCode:
        """Return an empty code: there is no prompt."""
        return {}

    def forward(self, query: Tensor, code: PromptCode) -> dict[str, Tensor]:
        """Return ``foreground`` logits (B, 1, H, W)."""
        height, width = query.shape[2:]
        # unit vectors, scaled to unit variance, which suits a linear layer
        features = self.body.embeddings(query) * self.head.in_channels**0.5
        logits = upsample(self.head(features), self.body.stride)
        return {"foreground": logits[..., :height, :width]}


def network_of(arm: str, model: str) -> PromptSegmenter:
    """Return the untrained or pre-trained network of an arm."""
    torch.manual_seed(0)
    loaded = load_model(model)
    if arm == "U-Net":
        return OutputLayer(AttentionSegmenter(**loaded.card.arguments))
    if arm == "U-Net, pre-trained":
        return OutputLayer(loaded.network)
    return loaded.network


def thirds(names: list[str], fold: int) -> tuple[str, str, list[str]]:
    """Return the training image, the prompt's image and three test images of a fold."""
    n = len(names) // FOLDS
    parts = [names[i * n : (i + 1) * n] for i in range(FOLDS)]
    test = parts[fold]
    image, prompt = parts[(fold + 1) % FOLDS][0], parts[(fold + 2) % FOLDS][0]
    return image, prompt, test[:: max(1, len(test) // 3)][:3]


def table_of(network: PromptSegmenter, test: list[Example], prompt: Example) -> Tensor:
    """Return the confusion table (2, 2): rows are the truth, columns predictions."""
    counts = torch.zeros(2, 2)
    with torch.inference_mode():
        code = network.encode_prompts(
            prompt.image[None, None], prompt.mask[None, None].long()
        )
        for one in test:
            y, x = ((n - WINDOW) // 2 for n in one.mask.shape)
            window = (slice(y, y + WINDOW), slice(x, x + WINDOW))
            logits = network(one.image[:, *window][None], code)["foreground"][0, 0]
            counts += confusion(one.mask[window], logits > 0)
    return counts


def confusion(truth: Tensor, found: Tensor) -> Tensor:
    """Return how often each class (0, 1) of the truth (rows) was found as each."""
    return torch.bincount((2 * truth + found).flatten(), minlength=4).reshape(2, 2)


def class_mean_dice(counts: Tensor) -> float:
    """Return the mean of both classes' Dice.

    Examples
    --------
    >>> class_mean_dice(torch.tensor([[8.0, 2.0], [0.0, 0.0]]))
    0.4444...
    """
    right = counts.diagonal()
    return float((2 * right / (counts.sum(0) + counts.sum(1)).clamp(min=1)).mean())


def run_fold(
    data: Path, name: str, fold: int, arm: str, model: str, steps: int
) -> dict[str, object]:
    """Return the record of one fold and arm."""
    image, prompt, test = thirds(list(read_dataset(data / name).ids), fold)
    crop = example(data, f"{name}/{prompt}", 1, (0, 0))
    network = network_of(arm, model)
    if arm != ARMS[-1]:
        settings = OneImageSettings(steps=steps, side=128, seed=fold)
        fit_one_image(
            network,
            example(data, f"{name}/{image}", 1),
            crop,
            settings,
            torch.device("cpu"),
        )
    examples = [example(data, f"{name}/{item}", 1) for item in test]
    score = class_mean_dice(table_of(network.eval(), examples, crop))
    return {"set": name, "fold": fold, "arm": arm, "steps": steps, "dice": score}


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records that an earlier call has left."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def add_record(path: Path, record: dict[str, Any]) -> None:
    """Save a record at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def main() -> None:
    """Make the missing records and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path, default=Path("kato-hotta.json"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--model", default="svp-attention")
    given = parser.parse_args()
    records = read_records(given.json)
    done = {(r["set"], r["fold"], r["arm"], r["steps"]): r["dice"] for r in records}
    for name in SETS:
        for fold in range(FOLDS):
            for arm in ARMS:
                if (name, fold, arm, given.steps) in done:
                    continue
                record = run_fold(given.data, name, fold, arm, given.model, given.steps)
                done[name, fold, arm, given.steps] = float(str(record["dice"]))
                add_record(given.json, record)
    print(f"\nClass-mean Dice, {given.steps} steps a fold\n")
    print("| arm | " + " | ".join(SETS) + " |\n|---|" + "---|" * len(SETS))
    for arm in ARMS:
        cells = []
        for name in SETS:
            folds = [done[name, fold, arm, given.steps] for fold in range(FOLDS)]
            low, high = min(folds), max(folds)
            cells.append(f"{sum(folds) / FOLDS:.3f} ({low:.3f} to {high:.3f})")
        print(f"| {arm} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
