"""Evidence that grows with the prompts: `svp`, a forest on its features, and both.

    python benchmarks/weighed_evidence.py DATA... [--queries 2] [--seed 0] [--json FILE]

Rows are one and four boxes of other images, and one, four and eight boxes of the query
itself, which is then scored outside all eight. "Weighed" adds the logits of a random
forest (on the filters and features of `svp`, at stride 2) to those of the network. The
two weights and an offset are fitted by logistic regression to pixels that neither has
seen: each prompt is predicted from the other prompts, a single prompt's quarters from
its other quarters. So the weights follow how much the prompts say and how much they
resemble each other.

The rows differ in their tasks: an image must offer eight boxes to be in the last one.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor
from torch.nn import functional as F

from napari_svpseg.benchmark.one_shot_tasks import (
    BenchmarkSettings,
    Draw,
    Task,
    plan,
)
from napari_svpseg.benchmark.protocol import find_box
from napari_svpseg.core.image import intensity_range
from napari_svpseg.core.labels.instances import instances_from_maps
from napari_svpseg.core.labels.metrics import dice, match_instances
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.core.result import Maps
from napari_svpseg.core.settings import PostprocessSettings
from napari_svpseg.engine.inference.device import choose
from napari_svpseg.engine.inference.forward import Forward
from napari_svpseg.engine.inference.prompt_features import (
    network_scale,
    prompt_object_properties,
    prompt_tensors,
)
from napari_svpseg.engine.inference.tiling import ScaledQuery
from napari_svpseg.io.model_store import load_model
from napari_svpseg.models.base import IGNORE, pad_to_multiple
from napari_svpseg.models.filters import pixel_filters
from napari_svpseg.models.svp import prompt_labels
from napari_svpseg.models.unet import upsample

OTHER, OWN, MOST = 4, 8, 8
CROP = 320
"""Side of the part of a query that is segmented, in network pixels."""
TREES, LEAF = 24, 4
PRIOR = (1.0, 0.25)
"""Weights of network and forest to which the fit is drawn."""
PULL = 0.05
"""Strength of that pull, relative to the pixels of one prompt."""


def features(network: Any, image: Tensor) -> Tensor:
    """Return filters and features (B, D, H / 2, W / 2) of padded images."""
    _, pyramid, pixels = network.features(image)
    return torch.cat([pixel_filters(image), pixels, upsample(pyramid).float()], 1)


def fit_forest(x: Tensor, y: Tensor, weight: Tensor) -> Any:
    """Return a function from features (N, D) to logits (N,)."""
    forest = RandomForestClassifier(
        TREES, min_samples_leaf=LEAF, class_weight="balanced", random_state=0
    )
    forest.fit(x.numpy(), (y > 0.5).numpy(), sample_weight=weight.numpy() + 1e-6)

    def logits(query: Tensor) -> Tensor:
        p = torch.from_numpy(forest.predict_proba(query.numpy())[:, 1]).float()
        return torch.logit(p.clamp(0.02, 0.98))

    return logits


def hidden_parts(masks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield masks (K, h, w) with a part unknown, and that part as a boolean map."""
    if len(masks) > 1:
        for k in range(len(masks)):
            part = torch.zeros_like(masks, dtype=torch.bool)
            part[k] = True
            yield masks.masked_fill(part, IGNORE), part
        return
    height, width = masks.shape[-2:]
    for y in (0, height // 2):
        for x in (0, width // 2):
            part = torch.zeros_like(masks, dtype=torch.bool)
            part[0, y : y + height // 2, x : x + width // 2] = True
            yield masks.masked_fill(part, IGNORE), part


def weigh(scores: Tensor, y: Tensor, weight: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return non-negative weights (2,) and an offset for logits (N, 2)."""
    foreground, background = y * weight, (1 - y) * weight
    balance = foreground / foreground.sum().clamp(min=1)
    balance = balance + background / background.sum().clamp(min=1)
    balance = balance / balance.sum()
    prior = torch.tensor(PRIOR)
    factors = prior.clone().requires_grad_()
    offset = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [factors, offset], 1.0, 40, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = scores @ factors.clamp(min=0) + offset
        value = F.binary_cross_entropy_with_logits(
            logits, y, weight=balance, reduction="sum"
        )
        pull = (factors - prior).square().sum() + offset.square()
        value = value + PULL / n * pull
        value.backward()
        return value

    optimizer.step(loss)
    return factors.detach().clamp(min=0), offset.detach()


def segment_each_way(
    network: Any, prompts: list[Prompt], plane: np.ndarray, window: Any
) -> dict[str, np.ndarray]:
    """Return the labels of a window of the query by each kind of evidence."""
    chosen = PromptSet(prompts)
    scale = network_scale(chosen, network)
    images, masks = prompt_tensors(chosen, scale)
    device = choose("cpu")
    query = ScaledQuery(plane[window], intensity_range(plane), scale)
    height, width = query.network_shape
    with torch.no_grad():
        code = network.encode_prompts(images, masks)
        image = query.read((0, height), (0, width))[None]
        answer = network(image, code)
        objects = prompt_object_properties(
            chosen, images, Forward(network, device), code, scale
        )
        padded = pad_to_multiple(images[0], 16)
        below = padded.shape[-2] - images.shape[-2]
        right = padded.shape[-1] - images.shape[-1]
        full = F.pad(masks[0], (0, right, 0, below), value=IGNORE)
        labels, known = prompt_labels(full)
        weight = F.avg_pool2d(known, 2).flatten()
        y = F.avg_pool2d(labels[:, :1], 2).flatten() / weight.clamp(min=1e-3)
        x = features(network, padded).movedim(1, -1).flatten(0, 2)
        mean = (x * weight[:, None]).sum(0) / weight.sum()
        spread = ((x - mean).square() * weight[:, None]).sum(0) / weight.sum()
        unit = spread.sqrt() + 1e-2
        x = ((x - mean) / unit).clamp(-6, 6)
        seen = features(network, pad_to_multiple(image, 16))
        shape = seen.shape[2:]
        q = ((seen[0].flatten(1).T - mean) / unit).clamp(-6, 6)
        scores = torch.zeros(len(x), 2)
        for hidden, part in hidden_parts(full):
            if not ((hidden > 0).any() and (hidden == 0).any()):
                continue
            where = F.avg_pool2d(part[:, None].float(), 2).flatten() > 0.5
            blind = network.encode_prompts(padded[None], hidden[None])
            logits = network(padded, blind)["foreground"]
            scores[where, 0] = F.avg_pool2d(logits, 2).flatten()[where].clamp(-8, 8)
            forest = fit_forest(x[~where], y[~where], weight[~where])
            scores[where, 1] = forest(x[where])
        forest = fit_forest(x, y, weight)(q).view(1, 1, *shape)
    forest = upsample(forest)[..., :height, :width]
    factors, offset = weigh(scores, y, weight, padded.shape[-1] ** 2 // 4)
    foreground = {
        "svp": answer["foreground"],
        "forest on features": forest,
        "weighed": factors[0] * answer["foreground"] + factors[1] * forest + offset,
    }
    size = plane[window].shape[:2]
    found = {}
    for name, logits in foreground.items():
        maps = [
            F.interpolate(m.sigmoid(), size=size, mode="bilinear")[0, 0].numpy()
            for m in (logits, answer["distance"], answer["boundary"])
        ]
        maps_of = Maps(maps[0], maps[1], maps[2], objects)
        found[name] = instances_from_maps(maps_of, PostprocessSettings())
    return found


def rows(
    task: Task, image: str, rng: np.random.Generator
) -> Iterator[tuple[str, list[Prompt], np.ndarray]]:
    """Yield the rows of a query: name, prompts, and the pixels not to be scored."""
    truth, ignore = task.truth(image), task.dataset.ignore(image)
    ignore = np.zeros(truth.shape, bool) if ignore is None else ignore > 0
    others = rng.permutation([i for i in task.queries if i != image]).tolist()
    draws = [
        Draw(i, box)
        for i in (others * 3)[: 3 * OTHER]
        if (box := find_box(task.truth(i), task.rule, rng)) is not None
    ][:OTHER]
    for n in (1, OTHER):
        if len(draws) >= n:
            yield f"other {n}", [task.prompt(d) for d in draws[:n]], ignore
    own: list[Draw] = []
    covered = ignore.copy()
    for _ in range(5 * MOST):
        box = find_box(truth, task.rule, rng)
        if box is None or len(own) == MOST:
            break
        if covered[box.slices].mean() <= 0.25:
            covered[box.slices] = True
            own.append(Draw(image, box))
    for n in (1, 4, OWN):
        if len(own) >= n:
            yield f"own {n}", [task.prompt(d) for d in own[:n]], covered


def main() -> None:
    """Score all tasks and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--classes", help="as for svpseg benchmark")
    parser.add_argument("--queries", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    network = load_model("svp").network.eval()
    wanted = tuple(options.classes.split(",")) if options.classes else None
    settings = BenchmarkSettings(prompts=1, max_queries=40, classes=wanted)
    records: list[dict[str, Any]] = []
    for task in plan(options.data, settings):
        name = f"{task.dataset.name}:{task.name}"
        rng = np.random.default_rng([options.seed, zlib.crc32(name.encode())])
        for image in rng.permutation(task.queries)[: options.queries].tolist():
            truth, plane = task.truth(image), task.query(image).plane
            side = round(CROP / max(task.scale, 0.25))
            y, x = (int(rng.integers(max(1, n - side + 1))) for n in truth.shape)
            window = slice(y, y + side), slice(x, x + side)
            for row, prompts, ignore in rows(task, image, rng):
                left = ~ignore[window]
                if left.mean() < 0.2 or not truth[window][left].any():
                    continue
                for way, labels in segment_each_way(
                    network, prompts, plane, window
                ).items():
                    match = match_instances(labels, truth[window], 0.5, ~left)
                    records.append(
                        {
                            "task": name,
                            "row": row,
                            "way": way,
                            "dice": dice(labels > 0, truth[window] > 0, ~left),
                            "f1": match.f1 if task.has_objects else None,
                        }
                    )
        print(name, flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(records), encoding="utf-8")
    print(table(records))


def table(records: list[dict[str, Any]]) -> str:
    """Return the means over tasks as a markdown table, Dice / F1@0.5."""
    names = list(dict.fromkeys(r["row"] for r in records))
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for way in dict.fromkeys(r["way"] for r in records):
        cells = []
        for row in names:
            tasks: dict[str, dict[str, list[float]]] = {}
            for r in records:
                if (r["row"], r["way"]) == (row, way):
                    task = tasks.setdefault(r["task"], defaultdict(list))
                    task["dice"].append(r["dice"])
                    if r["f1"] is not None:
                        task["f1"].append(r["f1"])
            means = [
                np.mean([np.mean(t[key]) for t in tasks.values() if t[key]])
                for key in ("dice", "f1")
            ]
            cells.append(f"{means[0]:.3f} / {means[1]:.3f}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
