"""Write a benchmark's scores into a model's card.

    svpseg benchmark DATA... --models svp,forest --json q.json
    python benchmarks/card_scores.py q.json weights/svp --model svp

The text after the table (notes, data, known failures) is kept.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

from napari_svpseg.benchmark.report import BASELINE, task_means
from napari_svpseg.io.model_store import card_markdown, find_model, update_card

NOTES = "<!-- notes -->"
"""Comment in the README after which the text is kept."""


def main() -> None:
    """Read the options, write the card, print the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="JSON of the benchmark")
    parser.add_argument("folder", type=Path, help="model folder")
    parser.add_argument("--model", help="name in the report; default: the folder's")
    options = parser.parse_args()
    records = json.loads(options.report.read_text(encoding="utf-8"))["records"]
    card = find_model(str(options.folder))
    model = options.model or card.name
    dice, f1 = task_means(records, "dice"), task_means(records, "f1")
    if model not in dice:
        raise SystemExit(f"{options.report} has no records of {model}.")
    scores = {
        task: {
            "dice": round(dice[model][task], 3),
            "f1": _rounded(f1.get(model, {}), task),
            f"{BASELINE}_dice": _rounded(dice.get(BASELINE, {}), task),
            f"{BASELINE}_f1": _rounded(f1.get(BASELINE, {}), task),
        }
        for task in sorted(dice[model])
    }
    card = replace(card, scores=scores)
    readme = options.folder / "README.md"
    _, separator, notes = readme.read_text(encoding="utf-8").partition(NOTES)
    update_card(
        card, f"{card_markdown(card).rstrip()}\n\n{separator}{notes}".rstrip() + "\n"
    )
    print(readme.read_text(encoding="utf-8"))


def _rounded(means: dict[str, float], task: str) -> float | None:
    """Return a task's score with three digits, None if it has none."""
    value = means.get(task, math.nan)
    return None if math.isnan(value) else round(value, 3)


if __name__ == "__main__":
    main()
