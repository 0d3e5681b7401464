"""Files of Cellpose and NumPy: the same labels in them, as others read them."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from skimage.io import imread

from napari_svpseg.core.jobs.folder_job import BatchJob
from napari_svpseg.io.cellpose_files import MAX_OBJECTS
from napari_svpseg.io.exports import ExportData, export
from napari_svpseg.io.images import read_image
from napari_svpseg.io.ownership import ReplaceError

ENDS = {
    "cellpose-png": "_cp_masks.png",
    "cellpose-tif": "_cp_masks.tif",
    "cellpose-seg": "_seg.npy",
    "npy": ".npy",
}
PLANE = np.zeros((12, 15), np.int64)
PLANE[1:5, 2:7] = 3
PLANE[6:11, 3:9] = 60_000


def values_of(path):
    """Return the dictionary of a ``_seg.npy`` as Cellpose's window loads it."""
    return np.load(path, allow_pickle=True).item()


READ = {
    "cellpose-png": imread,
    "cellpose-tif": tifffile.imread,
    "cellpose-seg": lambda path: values_of(path)["masks"],
    "npy": np.load,
}


@pytest.mark.parametrize("kind", ENDS)
def test_others_and_we_read_the_same_ids(tmp_path, kind):
    path = export(tmp_path / f"a{ENDS[kind]}", kind, ExportData(PLANE))
    np.testing.assert_array_equal(READ[kind](path), PLANE)
    np.testing.assert_array_equal(read_image(path, as_ids=True).array, PLANE)
    assert READ[kind](path).dtype == np.uint16


@pytest.mark.parametrize("kind", [kind for kind in ENDS if kind != "cellpose-png"])
def test_stacks_and_large_ids(tmp_path, kind):
    stack = np.stack([PLANE, PLANE * 2, PLANE * 0])
    path = export(tmp_path / f"a{ENDS[kind]}", kind, ExportData(stack, "ZYX"))
    np.testing.assert_array_equal(READ[kind](path), stack)


def test_a_png_refuses_what_it_cannot_hold(tmp_path):
    for data in (ExportData(PLANE * 2), ExportData(PLANE[None], "ZYX")):
        with pytest.raises(ValueError):
            export(tmp_path / "a_cp_masks.png", "cellpose-png", data)
    with pytest.raises(ValueError):
        data = ExportData(PLANE * MAX_OBJECTS)
        export(tmp_path / "a_seg.npy", "cellpose-seg", data)
    assert not list(tmp_path.iterdir())


def test_a_session_of_cellpose_holds_what_its_window_asks_for(tmp_path):
    labels = np.where(PLANE == 60_000, 4, PLANE)
    data = ExportData(labels, source="images/a.tif")
    found = values_of(export(tmp_path / "a_seg.npy", "cellpose-seg", data))
    assert found["filename"] == "images/a.tif"
    assert found["ismanual"].tolist() == [False] * 4
    outlines = found["outlines"]
    assert outlines.shape == labels.shape and outlines.dtype == found["masks"].dtype
    inner = np.zeros(labels.shape, bool)
    inner[2:4, 3:6] = inner[7:10, 4:8] = True
    np.testing.assert_array_equal(outlines, np.where(inner, 0, labels))
    assert found["diameter"] == pytest.approx(2 * np.sqrt(25 / np.pi))


@pytest.mark.parametrize("kind", ENDS)
def test_a_file_that_is_there_is_kept(tmp_path, kind):
    path = tmp_path / f"a{ENDS[kind]}"
    path.write_bytes(b"the only copy")
    with pytest.raises(ReplaceError):
        export(path, kind, ExportData(PLANE))
    assert path.read_bytes() == b"the only copy"


def test_files_of_cellpose_are_named_by_the_image():
    job = BatchJob(("a.tif",), "p.svprompt", "out", formats=tuple(ENDS))
    names = [path.rpartition("/")[2] for path in job.targets("a.tif").values()]
    expected = ["a_cp_masks.png", "a_cp_masks.tif", "a_seg.npy", "a_labels.npy"]
    assert names == expected
