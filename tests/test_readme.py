"""What the README says is done, word by word."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_svpseg.cli.main import main
from napari_svpseg.cli.segment import DONE_BEFORE
from napari_svpseg.core.jobs.finetune_job import PRESETS

TOP = Path(__file__).parents[1]
README = (TOP / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with the files that the README names."""
    yy, xx = np.mgrid[:160, :150]
    (tmp_path / "images").mkdir()
    for name, seed in (("a", 1), ("b", 2)):
        rng = np.random.default_rng(seed)
        labels = np.zeros(yy.shape, np.uint16)
        for i, (y, x) in enumerate(
            [(30, 30), (40, 70), (75, 45), (110, 100), (60, 120), (130, 40)], 1
        ):
            dy, dx = rng.integers(-3, 3, 2)
            labels[(yy - y - dy) ** 2 + (xx - x - dx) ** 2 <= 81] = i
        image = 30 + 160 * (labels > 0) + rng.normal(0, 6, labels.shape)
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", image.astype(np.uint8))
        if name == "a":
            tifffile.imwrite(tmp_path / "a_labels.tif", labels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAPARI_SVPSEG_HOME", str(tmp_path / "home"))
    return tmp_path


def test_the_python_runs_and_finds_the_cells(place, capsys) -> None:
    namespace: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert (place / "cells.svprompt").exists()
    assert 4 <= namespace["result"].n_objects <= 9
    assert namespace["movie"].labels.shape == (2, 160, 150)
    said = capsys.readouterr().out
    assert "svpseg segment" in said
    assert "svp BSD-3-Clause" in said


def test_the_commands_run(place, capsys, monkeypatch) -> None:
    monkeypatch.setitem(PRESETS, "quick", {"steps": 2, "batch": 1})  # not a minute
    lines = [
        line
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("svpseg ")
    ]
    assert len(lines) >= 5
    for line in lines:
        words = [
            name
            for word in shlex.split(line)[1:]
            for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
        ]
        assert main(words) == 0, (line, capsys.readouterr().err)
    assert sorted(p.name for p in (place / "out").glob("*.tif")) == [
        "a_labels.ome.tif",
        "b_labels.ome.tif",
    ]
    said = capsys.readouterr().out
    assert "round cells: " in said
    assert said.count(DONE_BEFORE) == 2


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (TOP / target).exists(), target


def test_make_targets_and_extras_are_those_that_exist() -> None:
    makefile = (TOP / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\S+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    project = (TOP / "pyproject.toml").read_text("utf-8")
    for extra in re.findall(r"^\| `\[(\w+)\]`", README, re.MULTILINE):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
    for name in ("constraints.txt", "Makefile", "CONTRIBUTING.md", "docs/install.md"):
        assert "torch==2.13.0" in (TOP / name).read_text("utf-8"), name
