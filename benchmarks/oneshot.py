"""One-shot quality of models and baselines: tables, or a contact sheet.

    python benchmarks/oneshot.py DATA... --models forest,otsu,panet,svp --output q.json
    python benchmarks/oneshot.py DATA... --models svp,forest --sheet q.png [--pick 5]

The protocol is that of ``docs/benchmark.md``. ``--resume`` continues an interrupted
run; models can be added to a finished run in the same way.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from napari_svpseg.benchmark import one_shot
from napari_svpseg.benchmark.one_shot_tasks import BenchmarkSettings
from napari_svpseg.benchmark.report import to_markdown


def main() -> None:
    """Read the options, run, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path, help="data folders")
    parser.add_argument("--models", default="forest,otsu,svp", help="names or folders")
    default = BenchmarkSettings()
    parser.add_argument("--prompts", type=int, default=default.prompts)
    parser.add_argument("--max-queries", type=int, default=default.max_queries)
    parser.add_argument("--classes", help="names, values or DATASET:CLASS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="of the forest")
    parser.add_argument("--output", type=Path, help="JSON; tables as .md beside it")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--sheet", type=Path, help="only write a contact sheet (PNG)")
    parser.add_argument(
        "--pick", type=int, default=0, help="worst, middle and best tasks of the sheet"
    )
    options = parser.parse_args()
    models = options.models.split(",")
    settings = BenchmarkSettings(
        prompts=options.prompts,
        max_queries=options.max_queries,
        classes=options.classes.split(",") if options.classes else None,
        seed=options.seed,
        device=options.device,
        n_threads=options.threads,
    )
    if options.sheet:
        path = one_shot.contact_sheet(
            options.data,
            models,
            options.sheet,
            settings,
            pick=options.pick,
            on_progress=_Line(),
        )
        print(path)
        return
    report = one_shot.run(
        options.data,
        models,
        settings,
        output=options.output,
        resume=options.resume,
        on_progress=_Line(),
    )
    print(to_markdown(report))


class _Line:
    """Progress on one line of the terminal, at most twice a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, done: int, total: int, message: str = "") -> None:
        if time.monotonic() - self._last > 0.5 and sys.stderr.isatty():
            self._last = time.monotonic()
            print(f"\r{done}/{total} {message:60.60s}", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
