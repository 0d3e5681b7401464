"""Tagged windows of data sets with masks."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tifffile
from skimage.io import imread, imsave

from napari_svpseg.benchmark.one_shot_tasks import scored_images
from napari_svpseg.benchmark.tag_windows import (
    BLANK,
    HAS_IMAGES,
    NO_CLASSES,
    NO_IMAGE_LEFT,
    pick_windows,
    write_windows,
)
from napari_svpseg.io.datasets import DatasetError, read_dataset
from napari_svpseg.io.tag_files import read_tags


def make(folder, n, *, kind="semantic", flat=False):
    """Write images 80 x 80 whose left half is class 1, and a band of it class 2."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels = np.zeros((80, 80), np.uint16)
    labels[:, :40], labels[30:50, :40] = 1, 2
    for i in range(n):
        noise = 0 if flat else rng.normal(0, 6, labels.shape)
        image = np.clip(60 * labels + 60 + noise, 0, 255).astype(np.uint8)
        if flat:
            image[:, 40:] = 255
        imsave(folder / "images" / f"{i:02d}.png", image, check_contrast=False)
        tifffile.imwrite(folder / "labels" / f"{i:02d}.tif", labels)
    named = '[classes]\n1 = "round, red"\n2 = "band"\n' if kind == "semantic" else ""
    (folder / "dataset.toml").write_text(f'name = "d"\nkind = "{kind}"\n{named}')
    return read_dataset(folder)


@pytest.fixture
def dataset(tmp_path):
    return make(tmp_path / "data", 16)


def test_tags_are_what_the_masks_hold(dataset, tmp_path):
    folder = tmp_path / "windows"
    tags = write_windows(dataset, folder, 24, 40)
    assert read_tags(folder / "tags.csv") == tags and len(tags) == 40
    assert tags.classes == ("round red", "band")
    assert {frozenset(held) for held in tags.values()} == {
        frozenset(), frozenset({"round red"}), frozenset({"round red", "band"}),
    }  # fmt: skip
    for name in tags:
        bright = imread(folder / name).astype(float)
        assert bright.shape == (24, 24)
        assert (np.quantile(bright, 0.99) > 160) == ("band" in tags[name])
    kinds = [len(held) for held in tags.values()]
    assert [kinds.count(n) for n in range(3)] == [14, 13, 13]


def test_images_that_are_scored_are_left_out(dataset, tmp_path):
    scored = scored_images(dataset)
    assert len(scored) == 12
    tags = write_windows(dataset, tmp_path / "windows", 24, 200)
    used = {name.split("_")[1].removesuffix(".png") for name in tags}
    assert used == set(dataset.ids) - scored


def test_the_same_seed_gives_the_same_windows(dataset):
    first, second, other = (
        pick_windows(dataset, dataset.ids[:3], 24, 10, seed) for seed in (1, 1, 2)
    )
    for a, b in zip(first, second, strict=True):
        assert a.source == b.source and np.array_equal(a.image, b.image)
    assert any(
        not np.array_equal(a.image, b.image) for a, b in zip(first, other, strict=True)
    )


def test_windows_that_show_nothing_are_not_used(tmp_path):
    dataset = make(tmp_path / "flat", 2, flat=True)
    windows = pick_windows(dataset, dataset.ids, 24, 500)
    assert windows and () not in {w.values for w in windows}
    assert all(w.image.std() > BLANK * np.diff(w.intensities) for w in windows)


def test_a_small_image_is_one_window(dataset):
    windows = pick_windows(dataset, dataset.ids[:1], 500, 3)
    assert {w.image.shape for w in windows} == {(80, 80, 1)}
    assert {w.values for w in windows} == {(1, 2)}


def test_what_cannot_be_cut_is_refused(dataset, tmp_path):
    (tmp_path / "full").mkdir()
    imsave(tmp_path / "full" / "a.png", np.zeros((9, 9), np.uint8),
           check_contrast=False)  # fmt: skip
    message = HAS_IMAGES.format(tmp_path / "full")
    with pytest.raises(DatasetError, match=re.escape(message)):
        write_windows(dataset, tmp_path / "full", 24, 5)
    message = NO_IMAGE_LEFT.format(tmp_path / "few", 3)
    with pytest.raises(DatasetError, match=re.escape(message)):
        write_windows(make(tmp_path / "few", 3), tmp_path / "new", 24, 5)
    cells = make(tmp_path / "cells", 14, kind="instance")
    message = NO_CLASSES.format(tmp_path / "cells")
    with pytest.raises(DatasetError, match=re.escape(message)):
        write_windows(cells, tmp_path / "new", 24, 5)
    assert not (tmp_path / "new").exists()


def test_the_command_says_what_was_cut(dataset, tmp_path, capsys):
    from napari_svpseg.cli.main import main

    out = tmp_path / "windows"
    words = [
        "benchmark-windows",
        str(dataset.folder),
        "-o",
        str(out),
        "--side",
        "24",
        "--number",
    ]
    assert main([*words, "9"]) == 0
    told = capsys.readouterr().out.strip()
    assert told == f"{out / 'tags.csv'}: 9 windows; round red: 6, band: 3, none: 3"
    assert main([*words, "9"]) == 1
    assert HAS_IMAGES.format(out) in " ".join(capsys.readouterr().err.split())
