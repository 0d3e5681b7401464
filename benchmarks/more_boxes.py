"""Boxes of the query itself beside boxes of other images: 1, 4 and 8 of them.

    python benchmarks/more_boxes.py DATA... [--models svp,forest] [--queries 2]
        [--unseen FOLDER,FOLDER] [--seed 0] [--classes A,B] [--json FILE]

Prints scores, differences with intervals over tasks, kinds of errors, oracles and how
well the trust tells the Dice; the records of every row go to the JSON file. With
--unseen a set is also scored by the first of these models that was not trained on it:
two networks, each trained on half of the kinds, score all sets. See
`napari_svpseg.benchmark.more_boxes`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from napari_svpseg.benchmark.more_boxes import (
    FOREST,
    drawn_queries,
    scored,
    to_markdown,
)
from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings, plan
from napari_svpseg.benchmark.unseen import first_unseen
from napari_svpseg.io.model_store import find_model, load_model

UNSEEN = "unseen"
"""Name of the networks of --unseen in the tables."""


def main() -> None:
    """Score all rows and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="data folders")
    parser.add_argument("--models", default=f"svp,{FOREST}")
    parser.add_argument("--unseen", default="", help="models, separated by commas")
    parser.add_argument("--queries", type=int, default=2, help="images of a task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classes", help="only these, separated by commas")
    parser.add_argument("--json", type=Path, help="file of the records")
    options = parser.parse_args()
    networks = {
        name: None if name == FOREST else load_model(name).network
        for name in options.models.split(",")
    }
    cards = [find_model(name) for name in options.unseen.split(",") if name]
    halves = {card.path: load_model(card.path).network for card in cards}
    classes = tuple(options.classes.split(",")) if options.classes else None
    settings = BenchmarkSettings(prompts=1, max_queries=1000, classes=classes)
    records: list[dict[str, Any]] = []
    for task in plan(options.data, settings):
        networks.pop(UNSEEN, None)
        if card := first_unseen(cards, task.dataset.name):
            networks[UNSEEN] = halves[card.path]
        for image, rows in drawn_queries(task, options.queries, options.seed):
            for row in rows:
                records += scored(task, image, row, networks)
        print(f"{task.dataset.name}: {task.name}", file=sys.stderr, flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(records), encoding="utf-8")
    print(to_markdown(records))


if __name__ == "__main__":
    main()
