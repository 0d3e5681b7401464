"""The main job on real images, end to end, without a window.

`plugin.demo_window` does the same in napari.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.labels.metrics import dice
from ..core.prompt import Prompt
from ..io.atomic import atomic_path
from ..io.label_files import write_labels
from ..io.ownership import WRITTEN, check_replaceable, file_hash, sealed_json
from ..io.sample_images import SampleImage, nuclei, tissue
from .segment_image import segment

SUMMARY = "summary.json"
Say = Callable[[str], Any]

NO_NUCLEI = "The real nuclei are not installed (pip install --no-deps stardist)."


@dataclass(frozen=True)
class DemoSettings:
    """How the demo is run.

    Parameters
    ----------
    output : Path
        Folder for pictures, labels and ``summary.json``; made if it is not there.
    device, model : str
        As in `segment`.
    overwrite : bool
        Allow to replace files that no demo wrote.
    say : callable
        Receives each line of text.
    """

    output: Path
    device: str = "auto"
    model: str = "svp"
    overwrite: bool = False
    say: Say = print

    def labels_path(self, sample: SampleImage) -> Path:
        """Return the file for the labels of a sample."""
        return self.output / f"{sample.name}_labels.ome.tif"


@dataclass(frozen=True)
class DemoOutcome:
    """Result of the demo on one image.

    Parameters
    ----------
    image : str
        Name of the sample.
    objects : int
    seconds : float
        From pressing *Run* to the labels.
    device : str
    dice : float or None
        Against the ground truth, outside the prompt's box; None where there is none.
    window : str or None
        Picture of the window.
    labels : str
        Labels file.
    """

    image: str
    objects: int
    seconds: float
    device: str
    dice: float | None
    window: str | None
    labels: str


def demo_samples(say: Say = print) -> list[SampleImage]:
    """Return the images of the demo; the summary is about the last one."""
    found = [sample for sample in (tissue(), nuclei()) if sample is not None]
    if len(found) < 2:
        say(NO_NUCLEI)
    return found


def run_without_window(demo: DemoSettings) -> list[DemoOutcome]:
    """Run the demo in this process, through the functions that scripts call."""
    samples = demo_samples(demo.say)
    check_outputs(demo, [demo.labels_path(sample) for sample in samples])
    demo.output.mkdir(parents=True, exist_ok=True)
    return [_outcome(sample, demo) for sample in samples]


def check_outputs(demo: DemoSettings, paths: Iterable[Path]) -> None:
    """Raise `ReplaceError` if the demo would replace anything else, before it runs."""
    for path in (demo.output / SUMMARY, *paths):
        check_replaceable(path, demo.overwrite)


def _outcome(sample: SampleImage, demo: DemoSettings) -> DemoOutcome:
    demo.say(f"{sample.name}: running")
    prompt = Prompt.from_image(
        sample.image, sample.labels, sample.box, name=sample.name, source=sample.name
    )
    start = time.perf_counter()
    result = segment(sample.image, prompt, model=demo.model, device=demo.device)
    seconds = time.perf_counter() - start
    path = write_labels(
        demo.labels_path(sample),
        result.labels,
        recipe=replace(result.recipe, query_file=sample.name),
        overwrite=demo.overwrite,
    )
    return DemoOutcome(
        image=sample.name,
        objects=result.n_objects,
        seconds=round(seconds, 3),
        device=result.recipe.device,
        dice=score(sample, result.labels),
        window=None,
        labels=str(path),
    )


def score(sample: SampleImage, found: np.ndarray) -> float | None:
    """Return the Dice outside the prompt's box; None where not all is labelled."""
    if not sample.is_complete:
        return None
    ignore = np.zeros(sample.labels.shape, bool)
    ignore[sample.box.slices] = True
    return round(dice(found, sample.labels, ignore), 4)


def write_summary(outcomes: list[DemoOutcome], demo: DemoSettings) -> Path:
    """Write ``summary.json`` about the last outcome, and print all outcomes."""
    fields = ("objects", "seconds", "device", "dice", "window", "labels", "image")
    main = asdict(outcomes[-1])
    summary = {name: main[name] for name in fields}
    summary["others"] = [asdict(outcome) for outcome in outcomes[:-1]]
    # pictures carry no seal, nor do labels that were saved in the window
    files = [Path(f) for o in outcomes for f in (o.window, o.labels) if f]
    summary[WRITTEN] = {f.name: file_hash(f) for f in files}
    path = demo.output / SUMMARY
    with atomic_path(path, demo.overwrite) as temporary:
        sealed_json(temporary, summary)
    for outcome in outcomes:
        dice_text = "" if outcome.dice is None else f", Dice {outcome.dice:.3f}"
        demo.say(
            f"{outcome.image}: {outcome.objects} objects in {outcome.seconds:.1f} s on "
            f"{outcome.device.partition(' (')[0]}{dice_text}"
        )
        for written in filter(None, (outcome.window, outcome.labels)):
            demo.say(f"  {written}")
    demo.say(f"Summary: {path}")
    return path
