"""Ablations of the methods, on episodes of data sets they were not trained on.

    python benchmarks/methods.py DATA --sets yeast_phase,worms_brightfield
    python benchmarks/methods.py DATA --sets yeast_phase --only superpixels --steps 300

An episode is a prompt of 64 x 64 pixels and a query of 128 x 128, cut and zoomed as in
training but from other data; every arm gets the same episodes, as many of each set. The
score is the mean foreground Dice; differences to the first row have 95 % intervals over
sets. The Dice of every episode goes to ``--json``, which `benchmarks/claims.py` reads.
Only the arms of "prototypes x training data" are trained here, ``--steps`` each.
``--tasks`` takes the file that `svpseg train` writes beside its output, so that
superpixels need not be computed again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_svpseg.benchmark.report import paired_interval
from napari_svpseg.engine.training.episodes import (
    Episodes,
    EpisodeSettings,
    PackedTasks,
    TaskList,
    cut_episode,
)
from napari_svpseg.engine.training.trainer import Trainer, foreground_dices
from napari_svpseg.io.model_store import load_model
from napari_svpseg.io.packed_tasks import load_tasks
from napari_svpseg.models.base import PromptSegmenter
from napari_svpseg.models.registry import ModelConfig, build
from napari_svpseg.workflows.training_config import DataConfig, TrainingConfig
from napari_svpseg.workflows.training_tasks import pack, sources

TRAINING_DATA: dict[str, tuple[tuple[str, ...], float]] = {
    "labels of nuclei": (("dsb_fluorescence", "dsb_stained_brightfield"), 1.0),
    "labels of all sets": ((), 1.0),
    "superpixels": ((), 0.0),
    "labels and superpixels": ((), 0.5),
}
"""Data sets (empty: those of the config) and share of labelled episodes."""

CPU = torch.device("cpu")
CONFIG = Path(__file__).parents[1] / "configs" / "alpnet.toml"
METHODS = "svp,svp-concat,svp-attention,panet,alpnet,dspnet"
MAX_TRIES = 200
"""Draws for a batch of 8 episodes; some sets have hardly a prompt with background."""

Batches = dict[str, list[dict[str, Any]]]
"""Batches of each set."""

Dices = dict[str, list[float]]
"""Dice of each episode of each set."""

Cut = Callable[..., Batches]


def variant(model: str, **changes: Any) -> PromptSegmenter:
    """Return a trained network with some arguments changed that its weights fit."""
    loaded = load_model(model)
    config = ModelConfig(loaded.card.method, loaded.card.arguments | changes)
    network = build(config)
    network.load_state_dict(loaded.network.state_dict())
    return network.eval()


@torch.inference_mode()
def dices(network: PromptSegmenter, batches: Batches) -> Dices:
    """Return the Dice of every episode."""
    network.eval()
    found: Dices = {}
    for name, of_set in batches.items():
        found[name] = []
        for batch in of_set:
            code = network.encode_prompts(batch["prompts"], batch["masks"])
            found[name] += foreground_dices(network(batch["query"], code), batch)
    return found


def mean_of_sets(scores: Dices) -> float:
    """Return the mean over sets of the mean Dice."""
    return float(np.mean([np.mean(values) for values in scores.values()]))


def difference(scores: Dices, reference: Dices) -> tuple[float, float, float]:
    """Return how much higher scores are, and its 95 % interval over sets.

    The episodes are the same, so differences are paired.
    """
    ours, theirs = (
        {name: float(np.mean(values)) for name, values in dices_of_sets.items()}
        for dices_of_sets in (scores, reference)
    )
    return paired_interval(ours, theirs)


def show(title: str, rows: dict[str, list[Dices]], head: list[str]) -> None:
    """Print a table: scores, and in points how much the first row is surpassed."""
    print(f"\n{title}\n\n| arm | " + " | ".join(head) + " |")
    print("|---|" + "---|" * len(head))
    first = next(iter(rows.values()))
    for name, columns in rows.items():
        cells = [f"{mean_of_sets(column):.3f}" for column in columns]
        if columns is not first:
            for i, column in enumerate(columns):
                more, low, high = (100 * v for v in difference(column, first[i]))
                cells[i] += f"; {more:+.1f} ({low:.1f} to {high:.1f})"
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


Rows = dict[str, list[Dices]]


def all_methods(cut: Cut, models: list[str]) -> Rows:
    """Print the scores of trained models, with one prompt and with three."""
    batches = [cut(), cut(n_prompts=3)]
    rows = {
        Path(model).name: [dices(variant(model), b) for b in batches]
        for model in models
    }
    show("All methods", rows, ["1 prompt", "3 prompts"])
    return rows


def prompt_size(cut: Cut) -> Rows:
    """Print the scores of models by the size of the prompt."""
    sizes = (32, 64, 128)
    batches = [cut(prompt=size) for size in sizes]
    rows = {
        model: [dices(variant(model), b) for b in batches]
        for model in ("svp", "svp-concat", "svp-attention", "panet", "alpnet")
    }
    show("Side of the prompt, pixels", rows, [str(s) for s in sizes])
    return rows


def fusion(cut: Cut) -> Rows:
    """Print the scores of svp-concat with each fusion of prompts."""
    batches = [cut(), cut(n_prompts=3)]
    rows = {
        kind: [dices(variant("svp-concat", fusion=kind), b) for b in batches]
        for kind in ("mean", "attention")
    }
    show("svp-concat: fusion of prompts", rows, ["1 prompt", "3 prompts"])
    return rows


def parts_of_dspnet(cut: Cut) -> Rows:
    """Print the scores of DSPNet without some parts, not trained again."""
    batches = [cut(), cut(n_prompts=3)]
    arms: dict[str, dict[str, Any]] = {
        "all parts": {},
        "without RAN": {"ran": False},
        "without FSPA": {"fspa": False},
        "without BCMA": {"bcma": False},
        "none": {"ran": False, "fspa": False, "bcma": False},
        "released form": {"form": "released"},
    }
    rows = {
        name: [dices(variant("dspnet", **changes), b) for b in batches]
        for name, changes in arms.items()
    }
    show("dspnet: its parts, not trained again", rows, ["1 prompt", "3 prompts"])
    return rows


def local_prototypes(cut: Cut) -> Rows:
    """Print the scores of ALPNet with other windows, not trained again."""
    batches = [cut(), cut(n_prompts=3)]
    rows = {
        f"alpnet, {name}": [dices(variant("alpnet", **arguments), b) for b in batches]
        for name, arguments in {
            "global": {"local_prototypes": False},
            "windows of 4 pixels": {"window": 1},
            "windows of 8 pixels": {"window": 2},
            "windows of 16 pixels": {"window": 4},
        }.items()
    }
    show("alpnet: its prototypes, not trained again", rows, ["1 prompt", "3 prompts"])
    return rows


def superpixels_by_prototypes(
    cut: Cut, packed: PackedTasks, steps: int, journal: Path
) -> None:
    """Train global and local prototypes on each kind of data, and print their scores.

    Every arm starts untrained. Scores are saved at once; an interrupted run continues
    where it was.
    """
    config, batches = TrainingConfig.read(CONFIG), cut()
    n_batches = sum(len(of_set) for of_set in batches.values())
    lines = journal.read_text().splitlines() if journal.exists() else []
    recipe = f"{steps} steps, {n_batches} batches of {', '.join(batches)}"
    done = {(r["arm"], r["recipe"]): r["dices"] for r in map(json.loads, lines)}
    rows: Rows = {}
    for local in (False, True):
        row = "local prototypes (ALPNet)" if local else "global prototypes (PANet)"
        rows[row] = []
        for name, (datasets, real) in TRAINING_DATA.items():
            arm = f"{row}, {name}"
            if (arm, recipe) not in done:
                share = {"real": real, "superpixel": 1 - real}
                data = dataclasses.replace(
                    config.data, share=share, datasets=datasets or config.data.datasets
                )
                scores = _trained(config, data, packed, local, steps, batches)
                done[arm, recipe] = scores
                record = {"arm": arm, "recipe": recipe, "dices": scores}
                with journal.open("a") as file:
                    file.write(json.dumps(record) + "\n")
            rows[row].append(done[arm, recipe])
    show(
        f"Prototypes x training data, {steps} steps from an untrained start",
        rows,
        list(TRAINING_DATA),
    )


def _trained(
    config: TrainingConfig,
    data: DataConfig,
    packed: PackedTasks,
    local: bool,
    steps: int,
    batches: Batches,
) -> Dices:
    """Return the Dice of every episode for one arm after training."""
    episodes, settings = config.settings()
    settings = dataclasses.replace(
        settings, steps=steps, warm_up=20, averaging=0.95, learning_rate=2e-3
    )
    torch.manual_seed(0)
    arguments = config.arguments | {"local_prototypes": local}
    network = build(ModelConfig("alpnet", arguments))
    wanted = sources(data, packed, 0)

    def from_batch(start: int) -> Episodes:
        return Episodes(
            wanted,
            episodes,
            batch=settings.batch,
            n_batches=settings.steps,
            start=start,
        )

    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(network, settings, Path(scratch), CPU)
        trainer.run(from_batch, [])
    return dices(trainer.average, batches)


def _batch(
    source: TaskList, n_prompts: int, settings: EpisodeSettings, number: int
) -> dict[str, Any] | None:
    """Return a batch of 8 episodes; None if the tasks give no such prompts."""
    rng = np.random.default_rng([7, number])
    found: list[dict[str, Any]] = []
    for _ in range(MAX_TRIES):
        episode = cut_episode(source(rng), n_prompts, settings, rng)
        found += [] if episode is None else [episode]
        if len(found) == 8:
            return {name: torch.stack([e[name] for e in found]) for name in found[0]}
    return None


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", required=True, help="separated by commas")
    parser.add_argument(
        "--batches", type=int, default=2, help="of each set, of 8 episodes"
    )
    parser.add_argument(
        "--steps", type=int, default=60, help="for each trained arm; 0 trains none"
    )
    parser.add_argument(
        "--tasks", type=Path, help="tasks that svpseg train packed; else they are made"
    )
    parser.add_argument("--only", help="tables, separated by commas")
    parser.add_argument(
        "--models", default=METHODS, help="of the first table, separated by commas"
    )
    parser.add_argument(
        "--json", type=Path, default=Path("bench-output") / "methods.json"
    )
    given = parser.parse_args()
    packed = pack(DataConfig(validation=tuple(given.sets.split(","))), given.data)
    sources_of_sets = {
        name: TaskList(packed.tasks({name})) for name in given.sets.split(",")
    }

    def cut(prompt: int = 64, n_prompts: int = 1) -> Batches:
        settings = EpisodeSettings(
            prompt=prompt, border_tasks=0, role_swap=0, empty=0, negative=0
        )
        found: Batches = {}
        for name, source in sources_of_sets.items():
            drawn = [
                _batch(source, n_prompts, settings, i) for i in range(given.batches)
            ]
            found[name] = [batch for batch in drawn if batch is not None]
        return {name: batches for name, batches in found.items() if batches}

    tables: dict[str, Callable[[Cut], Rows]] = {
        "methods": lambda cut: all_methods(cut, given.models.split(",")),
        "size": prompt_size,
        "fusion": fusion,
        "prototypes": local_prototypes,
        "parts": parts_of_dspnet,
    }
    wanted = given.only.split(",") if given.only else [*tables, "superpixels"]
    n_episodes = 8 * given.batches * len(sources_of_sets)
    print(f"Up to {n_episodes} episodes of {given.sets}", flush=True)
    records: dict[str, Rows] = {}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    if given.json.exists():
        records = json.loads(given.json.read_text(encoding="utf8"))
    for name, table in tables.items():
        if name in wanted:
            records[name] = table(cut)
            given.json.write_text(json.dumps(records), encoding="utf8")
    if "superpixels" in wanted and given.steps:
        journal = Path("bench-output") / "superpixels.jsonl"
        journal.parent.mkdir(exist_ok=True)
        superpixels_by_prototypes(
            cut, _base_tasks(given.data, given.tasks), given.steps, journal
        )


def _base_tasks(data: Path, tasks: Path | None) -> PackedTasks:
    """Return the training tasks of the arms that are trained."""
    if tasks is not None:
        return load_tasks(tasks)
    config = TrainingConfig.read(CONFIG).data
    return pack(dataclasses.replace(config, validation=(), superpixel_masks=2), data)


if __name__ == "__main__":
    main()
