"""What the founding papers claim, and what holds here: one table.

    python benchmarks/claims.py [--output bench-output] [--records benchmarks/records]

Reads what the other benchmarks of the methods wrote: `methods.py` (methods.json),
`founding.py` (founding.jsonl) and `kato_hotta.py` (kato-hotta.json) into ``--output``.
What needs a long training is read from ``--records``:

- ``no-labels.json``: three networks, 12,240 episodes each (``steps = 1020``),
  ``svpseg train configs/NAME.toml --data DATA --start-from none --output runs/NAME``
  with NAME alpnet-superpixels, panet-superpixels and panet-nuclei, then
  ``python benchmarks/methods.py DATA --sets SETS --only methods --models
  runs/alpnet-superpixels,runs/panet-superpixels,runs/panet-nuclei --json FILE``;
- ``tag-training.json``: ``python benchmarks/tag_training.py DATA --imagenet --output
  FILE``.

Differences are in points, with a 95 % interval over data sets (over folds in training
on one image).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_svpseg.benchmark.report import paired_interval

MISSING = "not measured"

Units = dict[str, float]
"""Score of each data set or fold."""


@dataclass(frozen=True)
class Records:
    """What the benchmarks wrote.

    Parameters
    ----------
    output, kept : Path
        Folders of this run, and of the records of long trainings.
    """

    output: Path
    kept: Path

    def episodes(
        self, table: str, arm: str, column: int = 0, *, file: Path | None = None
    ) -> Units:
        """Return the mean Dice of each set in a table of `methods.py`."""
        content = _read(file or self.output / "methods.json")
        scores = content[0][table][arm][column]
        return {name: float(np.mean(values)) for name, values in scores.items()}

    def unlabelled(self, arm: str, column: int = 0) -> Units:
        """Return the same of a network trained without labels, or with few."""
        return self.episodes("methods", arm, column, file=self.kept / "no-labels.json")

    def prompt(self, model: str, row: str) -> Units:
        """Return the mean Dice of each set for a kind of prompt in `founding.py`."""
        found: dict[str, list[float]] = {}
        for r in _read(self.output / "founding.jsonl"):
            if (r["model"], r["table"], r["row"]) == (model, "kind", row):
                found.setdefault(r["set"], []).append(r["dice"])
        return {name: float(np.mean(values)) for name, values in found.items()}

    def one_image(self, arm: str) -> Units:
        """Return the class-mean Dice of each fold in `kato_hotta.py`."""
        rows = _read(self.output / "kato-hotta.json")
        steps = max(r["steps"] for r in rows)
        return {
            f"{r['set']} {r['fold']}": r["dice"]
            for r in rows
            if r["arm"] == arm and r["steps"] == steps
        }

    def tags(self, row: str) -> Units:
        """Return the mean IoU of each set in `tag_training.py`."""
        return {
            f"{r['dataset']} {r['seed']}": r["miou"]
            for r in _read(self.kept / "tag-training.json")
            if r["row"] == row
        }


def _read(path: Path) -> list[Any]:
    """Return the rows of a JSON or JSON lines file."""
    text = path.read_text(encoding="utf8")
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]
    return content if isinstance(content, list) else [content]


@dataclass(frozen=True)
class Claim:
    """A claim that one arm is better than another.

    Parameters
    ----------
    paper, text : str
    better, other : callable
        Return the scores that are compared.
    wanted : float
        Points that the first is to be better by; 0 if the paper's number is of other
        data and cannot be expected here. Below 0, it may be worse by as much.
    """

    paper: str
    text: str
    better: Callable[[Records], Units] | None
    other: Callable[[Records], Units] | None = None
    wanted: float = 0.0

    def row(self, records: Records) -> str:
        """Return the row of the table."""
        found, verdict = MISSING, ""
        n, more, low, high = self.measured(records)
        if n:
            found = f"{more:+.1f} ({low:.1f} to {high:.1f}; {n})"
            verdict = self.verdict(more, low, high)
        return f"| {self.paper} | {self.text} | {found} | {verdict} |"

    def measured(self, records: Records) -> tuple[int, float, float, float]:
        """Return the number of sets, the points between the arms and their interval."""
        if self.better is None or self.other is None:
            return 0, math.nan, math.nan, math.nan
        try:
            better, other = self.better(records), self.other(records)
        except (FileNotFoundError, KeyError, ValueError):
            better, other = {}, {}
        more, low, high = (100 * v for v in paired_interval(better, other))
        return len(set(better) & set(other)), more, low, high

    def verdict(self, more: float, low: float, high: float) -> str:
        """Return whether the claim holds, in a few words."""
        if high < min(self.wanted, 0):
            return "no, the opposite"
        if low <= min(self.wanted, 0):
            return "not shown"
        return "yes" if more >= self.wanted else f"yes, under {self.wanted:.0f}"


SVP, ALP, DSP, PBIP = "Kato & Hotta", "ALPNet", "DSPNet", "PBIP"
CLAIMS = (
    Claim(
        SVP,
        "a 64 x 64 prompt is as good as 128 x 128, within 2 points (svp)",
        lambda r: r.prompt("svp", "64"),
        lambda r: r.prompt("svp", "128"),
        -2,
    ),
    Claim(
        SVP,
        "it is better than a whole image, reduced (svp)",
        lambda r: r.prompt("svp", "64"),
        lambda r: r.prompt("svp", "whole image, 256"),
    ),
    Claim(
        SVP,
        "the same (svp-attention)",
        lambda r: r.prompt("svp-attention", "64"),
        lambda r: r.prompt("svp-attention", "whole image, 256"),
    ),
    Claim(
        SVP,
        "the same (svp-concat)",
        lambda r: r.prompt("svp-concat", "64"),
        lambda r: r.prompt("svp-concat", "whole image, 256"),
    ),
    Claim(
        SVP,
        "attention to the prompt's pixels is better than one vector (svp-attention, "
        "svp-concat)",
        lambda r: r.episodes("methods", "svp-attention"),
        lambda r: r.episodes("methods", "svp-concat"),
    ),
    Claim(
        SVP,
        "trained on one image: attention is better than a U-Net from scratch",
        lambda r: r.one_image("attention, pre-trained"),
        lambda r: r.one_image("U-Net"),
    ),
    Claim(
        SVP,
        "and than the same pre-trained network without a prompt",
        lambda r: r.one_image("attention, pre-trained"),
        lambda r: r.one_image("U-Net, pre-trained"),
    ),
    Claim(
        SVP,
        "a second network learns from 1/2, 1/4, 1/8 of the images "
        "([fine-tuning](fine-tuning-benchmark.md) does so from five boxes)",
        None,
    ),
    Claim(
        ALP,
        "local prototypes are better than global ones (same weights)",
        lambda r: r.episodes("prototypes", "alpnet, windows of 4 pixels"),
        lambda r: r.episodes("prototypes", "alpnet, global"),
    ),
    Claim(
        ALP,
        "without labels (superpixels): ALPNet above PANet, one prompt",
        lambda r: r.unlabelled("alpnet-superpixels"),
        lambda r: r.unlabelled("panet-superpixels"),
        5,
    ),
    Claim(
        ALP,
        "the same, three prompts",
        lambda r: r.unlabelled("alpnet-superpixels", 1),
        lambda r: r.unlabelled("panet-superpixels", 1),
        5,
    ),
    Claim(
        ALP,
        "ALPNet without labels is above PANet with few labels of one kind (nuclei)",
        lambda r: r.unlabelled("alpnet-superpixels"),
        lambda r: r.unlabelled("panet-nuclei"),
    ),
    Claim(
        ALP,
        "with labels of 25 sets: ALPNet above PANet",
        lambda r: r.episodes("methods", "alpnet"),
        lambda r: r.episodes("methods", "panet"),
    ),
    Claim(
        DSP,
        "DSPNet is better than ALPNet, one prompt",
        lambda r: r.episodes("methods", "dspnet"),
        lambda r: r.episodes("methods", "alpnet"),
        2,
    ),
    Claim(
        DSP,
        "the same, three prompts",
        lambda r: r.episodes("methods", "dspnet", 1),
        lambda r: r.episodes("methods", "alpnet", 1),
        2,
    ),
    *(
        Claim(
            DSP,
            f"{part} helps (same weights, switched off)",
            lambda r: r.episodes("parts", "all parts"),
            lambda r, part=part: r.episodes("parts", f"without {part}"),  # type: ignore[misc]
        )
        for part in ("RAN", "FSPA", "BCMA")
    ),
    Claim(
        DSP,
        "the form of the paper is better than that of the released code",
        lambda r: r.episodes("parts", "all parts"),
        lambda r: r.episodes("parts", "released form"),
    ),
    Claim(
        PBIP,
        "the full first stage is better than plain class activation maps",
        lambda r: r.tags("+ contrast (full)"),
        lambda r: r.tags("CAM"),
        7,
    ),
    Claim(
        PBIP,
        "prototypes help (beside maps of the same four strides)",
        lambda r: r.tags("+ prototypes"),
        lambda r: r.tags("CAM, four strides"),
    ),
    Claim(
        PBIP,
        "the contrast with the bank helps",
        lambda r: r.tags("+ contrast (full)"),
        lambda r: r.tags("+ prototypes"),
    ),
    Claim(
        PBIP,
        "the second stage is better than the first",
        lambda r: r.tags("full, second stage"),
        lambda r: r.tags("+ contrast (full)"),
    ),
    Claim(
        PBIP,
        "a bank of features learned on photographs is better than one of `svp`'s",
        lambda r: r.tags("full, ImageNet bank"),
        lambda r: r.tags("+ contrast (full)"),
    ),
    Claim(
        "CLIP-Adapter",
        "adapted CLIP features (no weights could be had)",
        None,
    ),
    Claim("SAM", "prompts by Segment Anything (no weights could be had)", None),
)


def table(records: Records) -> str:
    """Return the table as markdown."""
    head = "| paper | claim | points here (95 % interval; sets) | holds |"
    return "\n".join([head, "|---" * 4 + "|", *(c.row(records) for c in CLAIMS)])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("bench-output"))
    parser.add_argument(
        "--records", type=Path, default=Path(__file__).parent / "records"
    )
    given = parser.parse_args()
    print("\nWhat the papers claim, and what holds here\n")
    print(table(Records(given.output, given.records)))


if __name__ == "__main__":
    main()
