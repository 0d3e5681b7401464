"""Tiny data drawn by hand: discs whose answer is known, a prompt, a bare model."""

from __future__ import annotations

import itertools
import json
import queue
import re
import string
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile

from napari_svpseg.core.prompt import Prompt
from napari_svpseg.core.result import Recipe
from napari_svpseg.engine.jobs.job import Job, OnEvent, name_of, run_target

DISCS = ((20, 24, 7), (24, 70, 8), (66, 22, 9), (70, 66, 7), (48, 46, 6))
"""Centre and radius of the discs, in pixels; none touches another or the border."""


class Scene(NamedTuple):
    """An image (96, 96) float32 and its labels (96, 96) int32."""

    image: np.ndarray
    labels: np.ndarray


@pytest.fixture
def disc_scene() -> Scene:
    """Return five bright discs on a dark, slightly noisy ground."""
    y, x = np.mgrid[:96, :96]
    labels = np.zeros((96, 96), np.int32)
    for i, (cy, cx, radius) in enumerate(DISCS, 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = i
    noise = np.random.default_rng(0).normal(0, 3, labels.shape)
    return Scene((20 + 180 * (labels > 0) + noise).astype(np.float32), labels)


@pytest.fixture
def disc_prompt(disc_scene: Scene) -> Prompt:
    """Return a prompt of 64 x 64 pixels that shows three of the discs whole."""
    return Prompt.from_image(*disc_scene, (8, 8), name="discs", source="discs.tif")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an untrained model of a few thousand weights."""
    import torch

    from napari_svpseg.core.model_card import ModelCard
    from napari_svpseg.io.model_store import save_model
    from napari_svpseg.models.registry import ModelConfig, build

    config = ModelConfig("panet", {"width": 4, "features": 8})
    state = torch.get_rng_state()
    torch.manual_seed(0)
    network = build(config)
    torch.set_rng_state(state)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, network, ModelCard("tiny", config.method, config.arguments))
    return folder


EXAMPLE = Path(__file__).parent / "example_method"


@pytest.fixture
def install_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Return what puts the example package where Python finds it.

    Beside its module lies what an installer writes of it.
    """

    def install(target: str = "") -> None:
        project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
        folder = tmp_path / "site"
        about = folder / f"svpseg_brightness-{project['version']}.dist-info"
        about.mkdir(parents=True)
        (folder / "brightness.py").write_text((EXAMPLE / "brightness.py").read_text())
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {project['name']}\n"
            f"Version: {project['version']}\nSummary: {project['description']}\n"
            f"License-Expression: {project['license']}\n"
        )
        ((group, points),) = project["entry-points"].items()
        lines = [f"{name} = {target or value}" for name, value in points.items()]
        (about / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, "brightness", raising=False)

    return install


@pytest.fixture
def example_method(install_method: Callable[..., None]) -> None:
    """Install the method ``brightness`` of another package."""
    install_method()


@pytest.fixture(scope="session")
def tiny_svp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an untrained, very small default model."""
    import torch

    from napari_svpseg.core.model_card import ModelCard
    from napari_svpseg.io.model_store import save_model
    from napari_svpseg.models.registry import ModelConfig, build

    config = ModelConfig(
        "svp",
        {
            "widths": [8, 12, 12, 12],
            "depths": [1, 1, 1],
            "features": 12,
            "pixel_features": 12,
            "decoder": [8, 8, 8],
        },
    )
    state = torch.get_rng_state()
    torch.manual_seed(0)
    network = build(config)
    torch.set_rng_state(state)
    folder = tmp_path_factory.mktemp("models") / "tiny-svp"
    save_model(folder, network, ModelCard("tiny-svp", config.method, config.arguments))
    return folder


@pytest.fixture
def tagged_discs(tmp_path: Path) -> Path:
    """Return a folder of twelve pictures 48 x 48, and their ``tags.csv``.

    Four hold a bright disc, four a dark square, four nothing; all are noisy.
    """
    from skimage.io import imsave

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = []
    for i in range(12):
        image = rng.normal(110, 8, (48, 48))
        cy, cx = rng.integers(14, 34, 2)
        kind = ("disc", "square", "")[i % 3]
        if kind == "disc":
            image[(y - cy) ** 2 + (x - cx) ** 2 <= 100] += 90
        elif kind == "square":
            image[cy - 9 : cy + 9, cx - 9 : cx + 9] -= 90
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        imsave(folder / f"{i:02d}.png", pixels, check_contrast=False)
        rows.append(f"{i:02d}.png,{kind}")
    (folder / "tags.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="session")
def read_recipe() -> Callable[[str | Path], Recipe | None]:
    """Return a function that reads the recipe of a labels file, None without one."""

    def read(path: str | Path) -> Recipe | None:
        with tifffile.TiffFile(path) as tiff:
            ome = tifffile.xml2dict(tiff.ome_metadata)
        text = ome["OME"]["Image"].get("Description")
        if not text:
            return None
        return Recipe.from_json(text if isinstance(text, str) else json.dumps(text))

    return read


@pytest.fixture(scope="session")
def pattern() -> Callable[..., str]:
    """Return a function that makes a regular expression of a message template.

    Fields without a given value match anything.
    """

    def make(template: str, **values: object) -> str:
        parts = []
        for text, name, spec, conversion in string.Formatter().parse(template):
            parts.append(re.escape(text))
            if name is None:
                continue
            if name.partition(".")[0].partition("[")[0] in values:
                field = "{" + name + (f"!{conversion}" if conversion else "")
                field += (f":{spec}" if spec else "") + "}"
                parts.append(re.escape(field.format(**values)))
            else:
                parts.append(".*")
        return "".join(parts)

    return make


@pytest.fixture
def step_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time go on by 50 ms whenever it is read, however busy the machine is."""
    start, readings = time.monotonic(), itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: start + 0.05 * next(readings))


class InProcess:
    """Runs jobs in a thread of this process: no other process has to start.

    A job that does not report progress cannot be stopped.
    """

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = (
            queue.SimpleQueue()
        )
        self._jobs: set[Job] = set()
        threading.Thread(target=self._work, daemon=True).start()

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        on_event: OnEvent | None = None,
        **kwargs: Any,
    ) -> Job:
        """Start a call when all earlier jobs have ended."""
        job = Job(name_of(function), on_event, lambda job: None)
        self._jobs.add(job)

        def run() -> None:
            run_target(function, args, kwargs, job.post, lambda: job.is_cancelled)
            self._jobs.discard(job)

        self._waiting.put(run)
        return job

    def close(self) -> None:
        """Ask all jobs to stop."""
        for job in list(self._jobs):
            job.cancel()
        self._waiting.put(None)

    def _work(self) -> None:
        while (run := self._waiting.get()) is not None:
            run()


@pytest.fixture
def in_process() -> Iterator[InProcess]:
    """Return a runner of jobs in a thread of this process."""
    runner = InProcess()
    yield runner
    runner.close()
