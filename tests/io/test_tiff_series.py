"""Which image of a TIFF is read, and that no part of it is missed in silence."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile

from napari_svpseg.core.image import ImageError
from napari_svpseg.io.image_series import with_series, without_set_members
from napari_svpseg.io.images import list_series, read_image
from napari_svpseg.io.ome_zarr import open_image

POSITIONS = [np.full((24, 32), n + 1, np.uint8) for n in range(3)]
QUIET = {"on_note": lambda note: None}


@pytest.fixture
def positions(tmp_path):
    """Return an OME-TIFF of three positions of different pixel sizes."""
    path = tmp_path / "multi.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for n, plane in enumerate(POSITIONS):
            size = {"PhysicalSizeX": n + 1.0, "PhysicalSizeY": n + 1.0}
            tiff.write(plane, metadata={"axes": "YX", "Name": f"Pos{n}", **size})
    return path


def test_positions_are_listed_chosen_and_the_others_named(positions):
    assert list_series(positions) == ["0 Pos0", "1 Pos1", "2 Pos2"]
    notes: list[str] = []
    first = read_image(positions, on_note=notes.append)
    assert tuple(notes) == first.notes
    assert "Pos1" in notes[0] and "Pos2" in notes[0]
    for n, plane in enumerate(POSITIONS):
        for image in (read_image(positions, series=n), read_image(positions / str(n))):
            np.testing.assert_array_equal(image.array, plane)
            assert image.pixel_size == (n + 1, n + 1)
            assert not image.notes
        lazy = open_image(positions / str(n))
        np.testing.assert_array_equal(lazy.array[:], plane)
        assert lazy.scale == {"Y": n + 1, "X": n + 1}
    with pytest.raises(ImageError):
        read_image(positions, series=3)
    assert open_image(positions).notes == first.notes


def test_a_note_without_a_listener_is_logged(positions, caplog):
    read_image(positions)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_series_of_a_job(positions, tmp_path):
    plain = tmp_path / "a.tif"
    tifffile.imwrite(plain, POSITIONS[0])
    both = [plain, positions]
    assert with_series(both, "") == both
    assert with_series(both, "all") == [plain, *(positions / c for c in "012")]
    assert with_series([positions], "2, 0") == [positions / "2", positions / "0"]
    assert with_series(both, "0") == [plain, positions / "0"]
    for path in with_series(both, "7"):
        with pytest.raises(ImageError):
            read_image(path)


def test_labels_of_a_slide_are_known_by_their_whole_name(tmp_path):
    path = tmp_path / "a.ome.tif"
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for name, plane in zip(
            ("macro image", "cells_labels"), POSITIONS, strict=False
        ):
            tiff.write(plane, metadata={"axes": "YX", "Name": name, **size})
    image = read_image(path)
    assert (image.array.max(), image.pixel_size) == (2, (0.5, 0.5))
    assert not image.notes


def test_pages_of_several_sizes_are_series(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(POSITIONS[0], metadata=None)
        tiff.write(POSITIONS[1][:11, :13], metadata=None)
    assert len(read_image(path, **QUIET).notes) == 1
    np.testing.assert_array_equal(
        read_image(path, series=1).array, POSITIONS[1][:11, :13]
    )


def test_thumbnails_and_levels_are_no_images(tmp_path):
    path = tmp_path / "a.tif"
    large = np.ones((96, 128), np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(large[:20, :30], metadata=None, subfiletype=1)
        tiff.write(large, metadata=None, subifds=1)
        tiff.write(large[::2, ::2], metadata=None, subfiletype=1)
    image = read_image(path)
    assert image.array.shape == large.shape
    assert not image.notes


def test_axes_that_tifffile_wrote_are_known(tmp_path):
    stack = np.zeros((3, 24, 32), np.uint8)
    options = {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", stack, metadata={"axes": "TYX"}, **options)
    assert read_image(tmp_path / "a.tif").axes.order == "TYX"
    assert open_image(tmp_path / "a.tif").axes.order == "TYX"
    tifffile.imwrite(tmp_path / "b.tif", stack, **options)
    with pytest.raises(ImageError):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "YX"])
def test_axes_are_for_files_that_do_not_say(tmp_path, axes):
    data = np.zeros((2, 24, 32), np.uint8)
    tifffile.imwrite(tmp_path / "c.tif", data, imagej=True, metadata={"axes": "CYX"})
    notes: list[str] = []
    image = read_image(tmp_path / "c.tif", axes, on_note=notes.append)
    assert (image.axes.order, len(notes)) == ("CYX", 1)
    assert open_image(tmp_path / "c.tif", axes=axes).axes.order == "CYX"
    tifffile.imwrite(tmp_path / "d.tif", data[0])
    plane = read_image(tmp_path / "d.tif", axes, on_note=notes.append)
    assert (plane.axes.order, len(notes)) == ("YX", 1)


def test_hyperstacks_of_imagej(tmp_path):
    data = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata={"axes": "TZCYX"})
    image = read_image(tmp_path / "a.tif")
    assert image.axes.order == "TZCYX"
    np.testing.assert_array_equal(image.array, data)


# ---------------------------------------------------------------- files of one set


def set_of_files(folder, n_times: int, images: int = 1):
    """Write an OME-TIFF set: in each image the planes of several files."""

    def about(own: str) -> bytes:
        parts = []
        for i in range(images):
            planes = "".join(
                f'<TiffData FirstT="{t}" IFD="0" PlaneCount="1">'
                f'<UUID FileName="p{i}_t{t}.ome.tif">urn:uuid:{i}-{t}</UUID></TiffData>'
                for t in range(n_times)
            )
            parts.append(
                f'<Image ID="Image:{i}" Name="P{i}"><Pixels ID="Pixels:{i}" '
                'DimensionOrder="XYZCT" Type="uint8" SizeX="32" SizeY="24" SizeZ="1" '
                f'SizeC="1" SizeT="{n_times}"><Channel ID="Channel:{i}:0" '
                f'SamplesPerPixel="1"/>{planes}</Pixels></Image>'
            )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{own}">{"".join(parts)}</OME>'
        ).encode()

    paths = []
    for i in range(images):
        for t in range(n_times):
            paths.append(folder / f"p{i}_t{t}.ome.tif")
            tifffile.imwrite(
                paths[-1],
                np.full((24, 32), 10 * i + t + 1, np.uint8),
                description=about(f"{i}-{t}"),
                metadata=None,
            )
    return paths


def test_a_whole_set_is_one_image(tmp_path):
    paths = set_of_files(tmp_path, 3)
    for path in paths:
        image = read_image(path)
        assert (image.axes.order, image.notes) == ("TYX", ())
        assert image.array[:, 0, 0].tolist() == [1, 2, 3]
    assert without_set_members(paths) == paths[:1]


@pytest.mark.parametrize("absent", [(0,), (2,), (0, 2)])
def test_files_that_are_missing_are_named_and_not_black(tmp_path, absent):
    paths = set_of_files(tmp_path, 3)
    for t in absent:
        paths[t].unlink()
    here = next(t for t in range(3) if t not in absent)
    notes: list[str] = []
    image = read_image(paths[here], on_note=notes.append)
    assert all(paths[t].name in notes[0] for t in absent)
    there = [t + 1 for t in range(3) if t not in absent]
    values = image.array.reshape(len(there), -1)[:, 0].tolist()
    assert values == there
    with pytest.raises(ImageError):  # of a large image no part can be chosen
        open_image(paths[here])


def test_each_file_of_a_set_of_positions_is_its_own(tmp_path):
    paths = set_of_files(tmp_path, 1, images=2)
    for i, path in enumerate(paths):
        assert read_image(path, **QUIET).array.max() == 10 * i + 1
    assert without_set_members(paths) == paths
    copied = tmp_path / "copied"
    copied.mkdir()
    shutil.copy(paths[1], copied)
    assert read_image(copied / paths[1].name, **QUIET).array.max() == 11


def test_planes_that_were_never_taken_are_not_black(tmp_path):
    """Stopped in its second time, of which one of two planes was written."""
    path = tmp_path / "a.ome.tif"
    planes = np.arange(1, 5, dtype=np.uint8)[:, None, None] * np.ones(
        (24, 32), np.uint8
    )
    tifffile.imwrite(
        path, planes.reshape(2, 2, 24, 32), metadata={"axes": "TZYX"},
        photometric="minisblack",
    )  # fmt: skip
    about = tifffile.tiffcomment(path).replace('SizeT="2"', 'SizeT="3"')
    about = about.replace('PlaneCount="4"', 'PlaneCount="3"')
    tifffile.tiffcomment(path, about.encode())
    notes: list[str] = []
    image = read_image(path, on_note=notes.append)
    assert len(notes) == 1
    assert image.axes.order == "ZYX"
    assert image.array[:, 0, 0].tolist() == [1, 2]


def test_positions_along_an_axis_are_series(tmp_path):
    path = tmp_path / "a.tif"
    stack = np.stack(POSITIONS)
    tifffile.imwrite(path, stack, metadata={"axes": "RYX"}, photometric="minisblack")
    assert len(list_series(path)) == 3
    np.testing.assert_array_equal(read_image(path, series=2).array, POSITIONS[2])
    lazy = open_image(path / "1")
    np.testing.assert_array_equal(lazy.array[3:9, :], POSITIONS[1][3:9])
    assert lazy.axes.order == "YX"


@pytest.mark.parametrize("metadata", [{}, None])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_masks_in_sub_pages_are_listed_and_not_stacked(tmp_path, metadata, dtype):
    path = tmp_path / "a.tif"
    mask = (POSITIONS[1] * 100).astype(dtype)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(POSITIONS[0], subifds=1, metadata=metadata)
        tiff.write(mask, metadata=None)
    image = read_image(path)
    assert (image.axes.order, image.notes) == ("YX", ())
    np.testing.assert_array_equal(image.array, POSITIONS[0])
    assert len(list_series(path)) == 2
    np.testing.assert_array_equal(read_image(path, series=1).array, mask)


def test_what_tifffile_leaves_out_is_told(tmp_path, caplog):
    """An image whose planes are stored in another way than its metadata say."""
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for n in range(2):
            tiff.write(POSITIONS[n], metadata={"axes": "YX", "Name": f"Pos{n}"})
    about = tifffile.tiffcomment(path)
    at = about.rindex('SizeX="32"')
    about = about[:at] + 'SizeX="16"' + about[at + len('SizeX="32"') :]
    tifffile.tiffcomment(path, about.encode())
    notes: list[str] = []
    image = read_image(path, on_note=notes.append)
    np.testing.assert_array_equal(image.array, POSITIONS[0])
    assert len(notes) == 1
    assert not caplog.records  # nothing of it is printed besides


@pytest.mark.parametrize(
    ("steps", "along", "kind", "axes", "shape"),
    [
        (4, "T", "lifetime", "TYX", (4, 9, 8)),
        (2, "T", "lifetime", "TYX", (4, 9, 8)),
        (2, "Z", "angle", "ZYX", (4, 9, 8)),
        (4, "C", "lambda", "CYX", (4, 9, 8)),
    ],
)
def test_steps_of_an_axis_are_indices_of_it(tmp_path, steps, along, kind, axes, shape):
    pixels = np.arange(4 * 9 * 8, dtype=np.uint16).reshape(4, 9, 8)
    sizes = "".join(f'Size{a}="{4 if a == along else 1}" ' for a in "CZT")
    named = "Annotation:0"
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/'
        f'2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        f'Type="uint16" SizeX="8" SizeY="9" {sizes}><TiffData/></Pixels>'
        f'<AnnotationRef ID="{named}"/></Image><StructuredAnnotations><XMLAnnotation '
        f'ID="{named}" Namespace="openmicroscopy.org/omero/dimension/modulo"><Value>'
        f'<Modulo><ModuloAlong{along} Type="{kind}" Start="0" End="{steps - 1}" '
        'Step="1"/></Modulo></Value></XMLAnnotation></StructuredAnnotations></OME>'
    )
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path, pixels, description=xml, metadata=None, photometric="minisblack"
    )
    found = read_image(path)
    assert found.axes.order == axes and found.array.shape == shape
    np.testing.assert_array_equal(found.array, pixels)
