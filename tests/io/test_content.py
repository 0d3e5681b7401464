"""Whether an image is the same as before: by its content, not by its place."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import zarr

from napari_svpseg.core import fingerprint as hashing
from napari_svpseg.core.fingerprint import array_fingerprint
from napari_svpseg.io import content
from napari_svpseg.io.content import content_fingerprint

LIMIT = 6400


@pytest.fixture(params=["small", "large"])
def image(request, tmp_path, monkeypatch):
    """Return a file and a Zarr image, hashed as a whole or by samples."""
    if request.param == "large":
        monkeypatch.setattr(content, "WHOLE_BYTES", LIMIT)
        monkeypatch.setattr(content, "SAMPLE_BYTES", LIMIT // content.SAMPLES)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (300, 300), np.uint8)
    (tmp_path / "a.tif").write_bytes(pixels.tobytes())
    zarr.create_array(tmp_path / "a.zarr", data=pixels, chunks=(64, 64))
    return {kind: tmp_path / f"a.{kind}" for kind in ("tif", "zarr")}


def copied(path, target):
    """Copy a file or folder with its times."""
    copy = shutil.copytree if path.is_dir() else shutil.copy2
    copy(path, target)
    return target


@pytest.mark.parametrize("kind", ["tif", "zarr"])
def test_a_copy_is_the_same_and_a_change_is_not(image, kind, tmp_path):
    before = content_fingerprint(image[kind])
    other = copied(image[kind], tmp_path / "elsewhere")
    assert content_fingerprint(other) == before
    data = other if kind == "tif" else sorted((other / "c").rglob("*"))[-1]
    with open(data, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    assert content_fingerprint(other) != before


def test_a_chunk_more_or_less_is_another_image(image, tmp_path):
    before = content_fingerprint(image["zarr"])
    chunk = sorted((image["zarr"] / "c").rglob("*"))[-1]
    chunk.rename(chunk.with_name("77"))
    assert content_fingerprint(image["zarr"]) != before


def test_metadata_count_and_leftovers_do_not(image):
    before = content_fingerprint(image["zarr"])
    (image["zarr"] / ".svpseg-0123456789ab-x").write_text("half")
    (image["zarr"] / ".DS_Store").write_text("a file manager was here")
    (image["zarr"] / "labels").mkdir()
    (image["zarr"] / "labels" / "x").write_text("a result")
    assert content_fingerprint(image["zarr"]) == before
    facts = (image["zarr"] / "zarr.json").stat()
    text = (image["zarr"] / "zarr.json").read_text()
    (image["zarr"] / "zarr.json").write_text(text.replace("uint8", "int8 "))
    os.utime(image["zarr"] / "zarr.json", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert content_fingerprint(image["zarr"]) != before


def test_other_folders_are_hashed_with_their_labels(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a").write_text("1")
    before = content_fingerprint(tmp_path)
    (tmp_path / "labels" / "a").write_text("2")
    assert content_fingerprint(tmp_path) != before


def test_the_parts_of_two_files_are_not_mixed_up(tmp_path):
    for name, (a, b) in {"x": ("12", "3"), "y": ("1", "23")}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(a)
        (tmp_path / name / "b").write_text(b)
    assert content_fingerprint(tmp_path / "x") != content_fingerprint(tmp_path / "y")


def test_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(OSError, match="none"):
        content_fingerprint(tmp_path / "none")


def test_large_arrays_are_sampled_and_lazy_ones_are_the_same(monkeypatch):
    import dask.array as da

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (3, 400, 300), np.uint8)
    for limit in (1000, hashing.WHOLE_BYTES):
        monkeypatch.setattr(hashing, "WHOLE_BYTES", limit)
        before = array_fingerprint(pixels)
        assert array_fingerprint(da.from_array(pixels, chunks=70)) == before
        other = pixels.copy()
        other[:, 100:] = other[:, 100:] ^ 1
        assert array_fingerprint(other) != before
        assert array_fingerprint(pixels.reshape(3, 300, 400)) != before
        assert array_fingerprint(pixels.view(np.int8)) != before


@pytest.mark.parametrize("version", [2, 3])
def test_results_inside_a_container_are_no_part_of_the_image(tmp_path, version):
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=version)
    group = root.create_group("0")
    group.create_array("0", data=np.eye(30, dtype=np.uint8))
    zarr.consolidate_metadata(root.store)
    before = content_fingerprint(tmp_path / "a.zarr")
    group.create_group("labels").create_array("cells", data=np.eye(30, dtype=np.uint8))
    zarr.consolidate_metadata(root.store)
    work = tmp_path / "a.zarr" / "0.cells.work"
    work.mkdir()
    (work / "plan.json").write_text("{}")
    assert content_fingerprint(tmp_path / "a.zarr") == before
    group["0"][0, 0] = 7
    assert content_fingerprint(tmp_path / "a.zarr") != before
