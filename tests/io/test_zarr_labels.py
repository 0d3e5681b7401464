"""Labels in an OME-Zarr: where they lie, what the image around them keeps."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import zarr

from napari_svpseg.core.image import ImageError
from napari_svpseg.core.result import Recipe
from napari_svpseg.io.content import content_fingerprint
from napari_svpseg.io.ome_zarr import open_image
from napari_svpseg.io.ownership import ForeignTargetError, Origin, origin
from napari_svpseg.io.zarr_labels import (
    LabelsLayout,
    check_takes_labels,
    count_levels,
    create_labels,
    create_labels_in_store,
    is_consolidated,
    labels_folder,
    levels_for,
    open_level,
    publish_labels,
    read_labels_metadata,
    write_zarr_labels,
)

SMALL = np.arange(35, dtype=np.uint32).reshape(5, 7)


def made(folder, labels=SMALL, version="0.5"):
    """Make labels as a run leaves them in its work folder."""
    layout = LabelsLayout(
        str(folder), labels.shape, (8, 8), "YX", "uint32", (1, 1), "um", version
    )
    create_labels(layout)
    open_level(folder)[:] = labels
    return layout


def publish(store, name="cells", version="0.5", labels=SMALL):
    layout = made(store.with_name("work"), labels, version)
    return publish_labels(layout, store, name, Recipe("svp"), {"run": name})


def write_image(path, version="0.5", scale_factors=()):
    """Write an OME-Zarr image with ome-zarr's own writer."""
    from ome_zarr.format import format_from_version
    from ome_zarr.writer import write_image

    fmt = format_from_version(version)
    group = zarr.open_group(path, mode="w", zarr_format=fmt.zarr_format)
    write_image(
        SMALL.astype("u1"), group, axes="yx", fmt=fmt, scale_factors=scale_factors
    )
    return path


def consolidate(path):
    with warnings.catch_warnings():  # zarr says that format 3 does not specify it
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path)


@pytest.fixture(params=["0.4", "0.5"])
def version(request):
    return request.param


def test_labels_of_an_image_have_the_version_that_makes_it_valid(tmp_path, version):
    image = write_image(tmp_path / "a.zarr", version)
    before = content_fingerprint(image)
    for name in ("cells", "nuclei"):
        assert publish(image, name, version) == image / "labels" / name
    listed = zarr.open_group(image / "labels", mode="r").attrs.asdict()
    if version == "0.5":
        assert listed["ome"]["version"] == "0.5"
    assert listed.get("ome", listed)["labels"] == ["cells", "nuclei"]
    assert not is_consolidated(image) and content_fingerprint(image) == before


def test_labels_are_seen_in_an_image_with_consolidated_metadata(tmp_path, version):
    image = write_image(tmp_path / "a.zarr", version)
    before = content_fingerprint(image)
    consolidate(image)
    assert content_fingerprint(image) == before
    for name in ("cells", "nuclei", "cells"):
        publish(image, name, version)
        group = zarr.open_group(image, mode="r", use_consolidated=True)
        assert np.array_equal(group["labels"][name]["0"][:], SMALL)
    attributes = group["labels"].attrs.asdict()
    assert sorted(attributes.get("ome", attributes)["labels"]) == ["cells", "nuclei"]
    assert content_fingerprint(image) == before


def test_consolidated_metadata_of_the_groups_around_an_image_are_renewed(tmp_path):
    zarr.open_group(tmp_path / "plate.zarr", mode="w")
    image = write_image(tmp_path / "plate.zarr" / "A" / "0")
    zarr.open_group(tmp_path / "plate.zarr").require_group("A")
    before = content_fingerprint(tmp_path / "plate.zarr")
    consolidate(tmp_path / "plate.zarr")
    publish(image)
    group = zarr.open_group(tmp_path / "plate.zarr", mode="r", use_consolidated=True)
    assert "cells" in group["A/0/labels"] and not is_consolidated(image)
    assert content_fingerprint(tmp_path / "plate.zarr") == before


def test_a_new_store_is_the_pyramid_and_takes_labels_of_other_names(tmp_path):
    store = tmp_path / "a.zarr"
    assert publish(store) == store and origin(store) is Origin.OURS
    nuclei = publish(store, "nuclei", labels=SMALL + 1)
    assert nuclei == store / "labels" / "nuclei" and origin(store) is Origin.OURS
    publish(store, labels=SMALL + 2)
    assert np.array_equal(open_image(store).array[:], SMALL + 2)
    assert np.array_equal(open_image(nuclei).array[:], SMALL + 1)
    assert read_labels_metadata(store, "nuclei")["run"] == "nuclei"
    zarr.create_array(store / "labels" / "theirs", data=SMALL)
    with pytest.raises(ForeignTargetError):
        publish(store)
    assert np.array_equal(open_image(nuclei).array[:], SMALL + 1)


def test_labels_of_an_image_have_as_many_levels(tmp_path, version):
    """OME-Zarr demands it."""
    image = write_image(tmp_path / "a.zarr", version, scale_factors=(2, 4))
    assert levels_for(image, "cells") == open_image(image).n_levels == 3
    assert levels_for(tmp_path / "new.zarr", "cells") == 0
    layout = made(tmp_path / "w", version=version)
    layout = create_labels_in_store(image, "cells", layout)
    assert layout.level_shapes == [(5, 7), (3, 4), (2, 2)]
    assert count_levels(layout.folder) == open_image(layout.folder).n_levels == 3


def test_labels_are_found_where_they_are(tmp_path):
    image = write_image(tmp_path / "image.zarr")
    assert labels_folder(image, "cells") == image / "labels" / "cells"
    assert labels_folder(tmp_path / "new.zarr", "cells") == tmp_path / "new.zarr"
    old = tmp_path / "old.zarr"  # a group of nothing but labels
    create_labels_in_store(old / "labels" / "cells", "cells", made(tmp_path / "w"))
    assert labels_folder(old, "cells") == old / "labels" / "cells"
    (tmp_path / "file").write_text("mine")
    assert labels_folder(tmp_path / "file", "cells") != tmp_path / "file"
    (tmp_path / "link.zarr").symlink_to(publish(tmp_path / "b.zarr"))
    assert labels_folder(tmp_path / "link.zarr", "cells") == tmp_path / "b.zarr"


@pytest.mark.parametrize("shape", [(1025, 1030), (2, 1027, 513)])
@pytest.mark.parametrize("origin", [{}, {"Y": 100.0, "X": -3.5}])
def test_each_pixel_of_each_level_is_the_one_of_full_size_at_its_place(
    tmp_path, version, shape, origin
):
    """Labels are not averaged, so the centre of each pixel is that of a finer one."""
    axes, step = "ZYX"[-len(shape) :], {"Z": 2.0, "Y": 0.5, "X": 0.25}
    labels = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    store = write_zarr_labels(
        tmp_path / "a.zarr", labels, axes=axes, scale=step, version=version,
        unit="um", origin=origin,
    )  # fmt: skip
    full = open_image(store)
    assert full.n_levels == 3 and full.scale == {a: step[a] for a in axes}
    for number in range(full.n_levels):
        level = open_image(store, number)
        indices = [
            (level.origin.get(a, 0.0) + np.arange(n) * level.scale[a]
             - origin.get(a, 0.0)) / step[a]
            for a, n in zip(axes, level.array.shape, strict=True)
        ]  # fmt: skip
        whole = [np.rint(i).astype(int) for i in indices]
        for i, w in zip(indices, whole, strict=True):
            np.testing.assert_allclose(i, w)
        assert np.array_equal(level.array[:], labels[np.ix_(*whole)])


@pytest.mark.parametrize("act", [check_takes_labels, "create"])
def test_what_writes_labels_is_asked_for_before_the_work(tmp_path, monkeypatch, act):
    monkeypatch.setattr("napari_svpseg.io.zarr_stores.find_spec", lambda _: None)
    store = tmp_path / "a.zarr"
    layout = LabelsLayout("", (5, 7), (8, 8), "YX", "uint32", (1, 1), "um", "0.5")
    with pytest.raises(ImageError, match=r"ome-zarr.*napari-svpseg\[zarr\]"):
        if act == "create":
            create_labels_in_store(store, "cells", layout)
        else:
            act(store)
    assert not store.exists()
