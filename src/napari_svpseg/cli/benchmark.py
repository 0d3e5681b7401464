"""``svpseg benchmark``: models and baselines on the one-shot protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.settings import MAX_SEED
from .console import end_line, progress_line, show_lines
from .options import DeviceName, Overwrite, as_words


def benchmark(
    data: Annotated[list[Path], typer.Argument(help="Data folders.")],
    models: Annotated[
        str, typer.Option(help="Models and baselines, separated by commas.")
    ] = "svp,forest",
    prompts: Annotated[
        int, typer.Option(help="Prompt draws per task.", min=1, max=1000)
    ] = 5,
    queries: Annotated[
        int, typer.Option(help="Images per task.", min=1, max=100_000)
    ] = 12,
    classes: Annotated[
        str | None, typer.Option(help="Only these classes, separated by commas.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the prompt draws.", min=0, max=MAX_SEED)
    ] = 0,
    device: DeviceName = "auto",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", "--json", help="JSON file for the report."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the records that are there.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Score models on the one-shot protocol, beside the random forest."""
    from ..io.datasets import read_dataset

    for folder in data:  # refuse missing folders before torch is loaded
        read_dataset(folder)
    from ..benchmark.one_shot import run
    from ..benchmark.one_shot_tasks import BenchmarkSettings
    from ..benchmark.report import to_markdown

    report = run(
        data,
        as_words(models),
        BenchmarkSettings(
            prompts=prompts,
            max_queries=queries,
            classes=tuple(as_words(classes)) or None,
            seed=seed,
            device=device,
        ),
        output=output,
        resume=resume,
        overwrite=overwrite,
        on_progress=progress_line("benchmark"),
    )
    end_line()
    show_lines(to_markdown(report))
