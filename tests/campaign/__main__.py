"""The campaign: thousands of ways to lose a week's work, and none may succeed.

    python -m tests.campaign                       everything
    python -m tests.campaign --groups images,zarr  these groups
    python -m tests.campaign --sample 10           every tenth case
    python -m tests.campaign --case "images/1 x 1" one case, with its messages

Run from the top level of the repository. All data is generated; what is written lies in
a temporary folder. The exit status is 1 unless every case is in the first column.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import torch
import torch._dynamo  # what optimisers import: once here, not in each child

import napari_svpseg.workflows.finetuning
import napari_svpseg.workflows.segment_large
import napari_svpseg.workflows.tag_training
import napari_svpseg.workflows.training  # noqa: F401

from .case import Case, Seen
from .scene import make_base
from .table import Table
from .verdict import RIGHT, Verdict
from .watchdog import LIMIT_S, call_in_child, run_cases

INPUTS = (
    "images", "labels", "prompts", "models", "zarr", "tags", "training", "options",
    "folders", "jobs", "exports", "corrections",
)  # fmt: skip
"""Groups of bad input, each a module of `inputs` with a function ``cases``."""

RUNS = ("kills", "processes", "viewer", "load", "disk")
"""Groups that start and kill whole programs, each a module with ``outcomes``."""


def main() -> int:
    """Run the campaign, print its table, return its exit status."""
    wanted = _parser().parse_args()
    groups = wanted.groups.split(",") if wanted.groups else [*INPUTS, *RUNS]
    if wanted.case:
        groups = [wanted.case.partition("/")[0]]
    unknown = [g for g in groups if g not in INPUTS + RUNS]
    if unknown:
        print(f"no group {unknown[0]}: {', '.join(INPUTS + RUNS)}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    table, whole = Table(), False
    with tempfile.TemporaryDirectory(prefix="svpseg-campaign-") as folder:
        base = Path(folder) / "base"
        os.environ["NAPARI_SVPSEG_HOME"] = str(Path(folder) / "home")
        call_in_child(make_base, base)
        try:
            for group in groups:
                start = time.monotonic()
                for title, verdict in _outcomes(group, base, wanted):
                    table.add(title, verdict)
                print(f"{group}: {time.monotonic() - start:.0f} s", file=sys.stderr)
            whole = True
        except KeyboardInterrupt:
            print("stopped: the table is not complete", file=sys.stderr)
        os.chdir("/")
    print(table)
    return table.status if whole else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--groups", help="which, parted by commas")
    parser.add_argument("--sample", type=int, default=1, help="every n-th case")
    parser.add_argument("--case", help="one case, with what it prints")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds a case")
    parser.add_argument("--messages", help="file for all messages")
    return parser


def _outcomes(
    group: str, base: Path, wanted: argparse.Namespace
) -> Iterator[tuple[str, Verdict]]:
    """Yield the title and verdict of each case of a group."""
    if group in RUNS:
        module = importlib.import_module(f".{group}", __package__)
        for title, run in list(module.runs())[:: wanted.sample]:
            if wanted.case in (None, f"{group}/{title}"):
                yield f"{group}/{title}", run(base)
        return
    module = importlib.import_module(f".inputs.{group}", __package__)
    cases = list(module.cases())
    titles = [case.title for case in cases]
    twice = {t for t in titles if titles.count(t) > 1}
    if twice:
        raise AssertionError(f"two cases have one title: {sorted(twice)}")
    cases = [c for c in cases[:: wanted.sample] if wanted.case in (None, c.title)]
    for case, verdict, seen in run_cases(cases, base, wanted.limit):
        if wanted.case and seen is not None:
            print(f"status {seen.status}\n{seen.out}{seen.error}")
        if wanted.messages:
            _note(Path(wanted.messages), case, verdict, seen)
        yield case.title, verdict


def _note(path: Path, case: Case, verdict: Verdict, seen: Seen | None) -> None:
    """Append what a case said to a file that a person may read."""
    said = " | ".join(seen.error.split("\n")) if seen else ""
    mark = "" if verdict.column == RIGHT else f"!! {verdict.column}: {verdict.why} "
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{case.title}: {mark}{said}\n")


if __name__ == "__main__":
    sys.exit(main())
