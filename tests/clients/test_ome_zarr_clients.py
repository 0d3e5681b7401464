"""OME-Zarr that we write, opened by other programs: ``make test-clients``.

The programs are installed into an environment of their own, so that none of them
decides on the versions that the product is tested with.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.clients.calls import call, needs_clients, open_with

from napari_svpseg import segment_zarr
from napari_svpseg.io.exports import ExportData, export
from napari_svpseg.io.zarr_labels import (
    is_consolidated,
    open_level,
    write_zarr_labels,
)

PROGRAMS = (
    "napari", "napari_ome_zarr", "bioio_ome_zarr", "ngff_zarr", "ome_zarr_models"
)  # fmt: skip
KNOWS_SIZES = PROGRAMS[1:]
"""napari's own reader takes the pixels only."""

pytestmark = needs_clients


def layers_of(program, path, folder):
    """Return layers as another program opens them, each with its pixels."""
    before = sorted(folder.parent.rglob("*"))
    open_with("open_zarr.py", program, path, folder)
    layers = json.loads((folder / "layers.json").read_text())
    for n, layer in enumerate(layers):
        layer["data"] = np.load(folder / f"{n}.npy")
    after = [p for p in folder.parent.rglob("*") if folder not in (p, *p.parents)]
    assert sorted(after) == before, "opening it leaves files"
    return layers


def some_labels(shape):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 70_000, (*shape[:-2], *(-(-n // 9) for n in shape[-2:])))
    return np.kron(coarse, np.ones((9, 9), int))[..., : shape[-2], : shape[-1]]


@pytest.fixture(params=["0.4", "0.5"])
def version(request):
    return request.param


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX"])
def test_a_store_of_labels_is_opened(tmp_path, version, program, axes):
    labels = some_labels((3, 601, 1029)[-len(axes) :]).astype(np.uint32)
    sizes = {"T": 1.0, "Z": 2.0, "Y": 0.5, "X": 0.25}
    place = {"Y": 10.0, "X": -4.0}
    path = write_zarr_labels(
        tmp_path / "a_labels.zarr", labels, axes=axes, unit="um",
        scale={a: sizes[a] for a in axes}, version=version,
        origin={a: place.get(a, 0.0) for a in axes},
    )  # fmt: skip
    layer = layers_of(program, path, tmp_path / "out")[0]
    assert np.array_equal(layer["data"], labels)
    assert layer["name"] in ("cells", "a_labels") and layer.get("visible", True)
    if program not in KNOWS_SIZES:
        return
    assert layer["scale"][-2:] == [0.5, 0.25]
    if "T" not in axes:  # bioio gives no scale of times without a unit
        assert layer["scale"] == [sizes[a] for a in axes]
    if "translate" in layer:
        # napari-ome-zarr 0.10 reads the first transformation of a level only
        places = [[place.get(a, 0.0) for a in axes]]
        places += [[0.0] * len(axes)] if program == "napari_ome_zarr" else []
        assert layer["translate"] in places
    if "units" in layer:
        assert layer["units"][-2:] == ["micrometer"] * 2


def test_a_store_of_labels_is_shown_by_neuroglancer(tmp_path, version):
    labels = some_labels((601, 1029)).astype(np.uint32)
    path = write_zarr_labels(
        tmp_path / "a_labels.zarr", labels, axes="YX", unit="um",
        scale={"Y": 0.5, "X": 0.25}, version=version,
    )  # fmt: skip
    call("show_in_neuroglancer.py", "neuroglancer", path, tmp_path)
    view = json.loads((tmp_path / "view.json").read_text())
    shown = np.load(tmp_path / "ids.npy")
    sizes = {axis: (float(f"{n:.9g}"), unit) for axis, (n, unit) in
             view["dimensions"].items()}  # fmt: skip
    assert sizes == {"y": (0.5e-6, "m"), "x": (0.25e-6, "m")}
    # The first axis goes to the right: the plane is seen transposed. A pixel of the
    # screen is one along X and half of one along Y.
    y, x = view["position"]
    height, width = shown.shape
    across = y + 0.5 + (np.arange(width) + 0.5 - width / 2) / 2
    down = x + 0.5 + np.arange(height) + 0.5 - height / 2
    expected = labels[np.ix_(across.astype(int), down.astype(int))].T
    assert np.array_equal(shown, expected)


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_export_without_pixel_size_is_opened(tmp_path, program):
    labels = some_labels((60, 70)).astype(np.uint16)
    path = export(tmp_path / "a_labels.zarr", "ome-zarr", ExportData(labels))
    layer = layers_of(program, path, tmp_path / "out")[0]
    assert np.array_equal(layer["data"], labels)
    assert layer["scale"] == [1.0, 1.0]


@pytest.mark.parametrize("program", ["napari_ome_zarr", "ngff_zarr", "ome_zarr_models"])
def test_an_image_stays_valid_and_shows_its_labels(
    tmp_path, version, program, disc_scene, disc_prompt
):
    """ngff-zarr consolidates by default."""
    np.save(tmp_path / "image.npy", disc_scene.image)
    image = tmp_path / "image.zarr"
    call("write_ngff_zarr.py", tmp_path / "image.npy", image, version)
    assert is_consolidated(image)
    for name in ("cells", "nuclei"):
        segment_zarr(image, [disc_prompt], name=name, workers=0)
    first, *others = layers_of(program, image, tmp_path / "out")
    assert np.array_equal(first["data"], disc_scene.image)
    assert first["scale"] == [0.5, 0.25]
    if program == "ngff_zarr":  # opens labels by their own path
        others = [
            layers_of(program, image / "labels" / name, tmp_path / name)[0]
            for name in ("cells", "nuclei")
        ]
    assert len(others) == 2
    for name, layer in zip(("cells", "nuclei"), others, strict=True):
        ours = open_level(image / "labels" / name)[:]
        assert ours.any() and np.array_equal(layer["data"], ours)
        assert layer["scale"] == [0.5, 0.25]
        assert layer.get("kind", "Labels") == "Labels"
        assert layer["translate"] == first["translate"]
