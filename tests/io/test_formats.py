"""Files of microscopes are read right, or refused with the readers that could."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from napari_svpseg.core.image import ImageError
from napari_svpseg.io import microscope_files
from napari_svpseg.io.images import list_series, read_image
from napari_svpseg.io.microscope_files import READERS, open_contents
from napari_svpseg.io.ome_zarr import open_image

PLANES = np.arange(2 * 3 * 20 * 30, dtype=np.uint16).reshape(2, 3, 20, 30)
"""C, Z, Y, X; no two pixels are the same."""


def same_everywhere(path: Path, expected: np.ndarray, axes: str, size: tuple) -> None:
    image = read_image(path)
    assert image.axes.order == axes
    assert (image.pixel_size, image.unit) == (pytest.approx(size), "um")
    np.testing.assert_array_equal(np.asarray(image.array), expected)


# ---------------------------------------------------------------- with other packages


@pytest.fixture
def czi(tmp_path):
    """Return a function that writes a CZI of planes, by scene and index."""
    pytest.importorskip("bioio_czi")
    writer = pytest.importorskip("pylibCZIrw.czi")

    def write(scenes: list[np.ndarray], names: tuple[str, ...]) -> Path:
        path = tmp_path / "a.czi"
        with writer.create_czi(str(path)) as document:
            for n, planes in enumerate(scenes):
                for c, z in np.ndindex(*planes.shape[:2]):
                    plane = planes[c, z]
                    document.write(
                        data=plane if plane.ndim == 3 else plane[..., None],
                        plane={"C": c, "Z": z, "T": 0},
                        location=(100 * n, 0),
                        **({"scene": n} if len(scenes) > 1 else {}),
                    )
            document.write_metadata(
                "a",
                channel_names=dict(enumerate(names)),
                scale_x=0.2e-6,
                scale_y=0.25e-6,
                scale_z=2e-6,
            )
        return path

    return write


def test_czi(czi):
    path = czi([PLANES], ("DAPI", "GFP"))
    same_everywhere(path, PLANES, "CZYX", (0.25, 0.2))
    image = read_image(path)
    assert image.channel_names == ("DAPI", "GFP")
    assert image.z_step == pytest.approx(2)


def test_large_images_are_read_where_they_are_sliced(czi, monkeypatch):
    monkeypatch.setattr(microscope_files, "LAZY_BYTES", 0)
    image = read_image(czi([PLANES], ()))
    assert not isinstance(image.array, np.ndarray)
    np.testing.assert_array_equal(np.asarray(image.array[1, :, 3:9]), PLANES[1, :, 3:9])


def test_colours_of_a_czi_are_in_order(czi):
    # bioio-czi 3.0.1 repeats the first of them where it reads lazily
    colours = np.zeros((1, 1, 20, 30, 3), np.uint8)
    colours[..., :] = (10, 20, 30)
    image = read_image(czi([colours], ()))
    assert (image.axes.order, image.rgb) == ("YXC", True)
    assert image.array[0, 0].tolist() == [10, 20, 30]


def test_scenes_that_a_reader_does_not_show_are_told(czi):
    path = czi([PLANES[:1, :1], PLANES[1:, :1]], ("DAPI",))
    assert len(read_image(path, on_note=lambda note: None).notes) == 1


def test_tiles_of_a_mosaic_are_put_together():
    tiles, whole = np.zeros((4, 1, 20, 30)), PLANES[:, 0]
    reader = SimpleNamespace(
        set_scene=lambda name: None,
        dims=SimpleNamespace(order="MCYX"),
        shape=tiles.shape,
        dtype=tiles.dtype,
        xarray_data=SimpleNamespace(data=tiles, dims=tuple("MCYX")),
        mosaic_xarray_data=SimpleNamespace(data=whole, dims=tuple("CYX")),
        physical_pixel_sizes=SimpleNamespace(Z=None, Y=0.5, X=0.5),
        channel_names=["DAPI", "GFP"],
    )
    image = microscope_files._bioio_image(reader, "a", ())
    assert image.axes == "CYX"
    np.testing.assert_array_equal(image.array, whole)


def test_mrc(tmp_path):
    mrcfile = pytest.importorskip("mrcfile")
    volume = PLANES[0].astype(np.int16)
    with mrcfile.new(tmp_path / "v.mrc") as file:
        file.set_data(volume)
        file.set_volume()
        file.voxel_size = (5, 6, 10)  # X, Y, Z in angstrom
    same_everywhere(tmp_path / "v.mrc", volume, "ZYX", (6e-4, 5e-4))
    assert read_image(tmp_path / "v.mrc").z_step == pytest.approx(1e-3)
    with mrcfile.new(tmp_path / "s.mrc") as file:
        file.set_data(volume)
        file.set_image_stack()
    with pytest.raises(ImageError):  # a stack of what, it does not say
        read_image(tmp_path / "s.mrc")
    assert read_image(tmp_path / "s.mrc", axes="TYX").axes.order == "TYX"


def test_deltavision(tmp_path):
    mrc = pytest.importorskip("mrc")
    pytest.importorskip("bioio_dv")
    mrc.imsave(
        str(tmp_path / "a.dv"), PLANES, metadata={"dx": 0.1, "dy": 0.2, "dz": 0.3}
    )
    same_everywhere(tmp_path / "a.dv", PLANES, "CZYX", (0.2, 0.1))


def test_ilastik_and_other_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    tags = {"axes": [{"key": key, "typeFlags": 2} for key in "zyxc"]}
    with h5py.File(path, "w") as file:
        data = np.moveaxis(PLANES, 0, -1)
        file.create_dataset("exported_data", data=data).attrs["axistags"] = json.dumps(
            tags
        )
        file["raw/plain"] = PLANES[0, 0]
        file["raw/names"] = np.array([b"a"])
    assert list_series(path) == ["0 exported_data", "1 raw/plain"]
    notes: list[str] = []
    image = read_image(path, on_note=notes.append)
    assert len(notes) == 1
    assert image.axes.order == "ZYXC"
    np.testing.assert_array_equal(image.array, data)
    np.testing.assert_array_equal(read_image(path / "1").array, PLANES[0, 0])
    with pytest.raises(ImageError):
        read_image(path / "2")


def lif_bytes(data: np.ndarray) -> bytes:
    """Return a Leica file of one image, as LAS writes it (version 2)."""
    root = ElementTree.fromstring(
        '<LMSDataContainerHeader Version="2"><Element Name="a"><Children>'
        '<Element Name="cells"><Data><Image><ImageDescription>'
        "<Channels/><Dimensions/></ImageDescription></Image></Data>"
        '<Memory Size="0" MemoryBlockID="MemBlock_1"/></Element>'
        "</Children></Element></LMSDataContainerHeader>"
    )
    channels, dimensions = root.find(".//Channels"), root.find(".//Dimensions")
    strides = dict(zip("CZYX", data.strides, strict=True))
    for c in range(data.shape[0]):
        about = {
            "DataType": "0", "ChannelTag": "0", "Resolution": "16",
            "NameOfMeasuredQuantity": "", "Min": "0", "Max": "1", "Unit": "",
            "LUTName": "Gray", "IsLUTInverted": "0",
            "BytesInc": str(c * strides["C"]), "BitInc": "0",
        }  # fmt: skip
        ElementTree.SubElement(channels, "ChannelDescription", about)
    for number, axis, metres in ((1, "X", 0.2e-6), (2, "Y", 0.25e-6), (3, "Z", 2e-6)):
        n = data.shape["CZYX".index(axis)]
        about = {
            "DimID": str(number), "NumberOfElements": str(n), "Origin": "0",
            "Length": str(metres * (n - 1)), "Unit": "m", "BitInc": "0",
            "BytesInc": str(strides[axis]),
        }  # fmt: skip
        ElementTree.SubElement(dimensions, "DimensionDescription", about)
    root.find(".//Memory").set("Size", str(data.nbytes))
    text = ElementTree.tostring(root, encoding="unicode")
    name = "MemBlock_1"
    head = struct.pack("<BI", 0x2A, len(text)) + text.encode("utf-16-le")
    block = struct.pack("<BQBI", 0x2A, data.nbytes, 0x2A, len(name))
    block += name.encode("utf-16-le")
    return (
        struct.pack("<II", 0x70, len(head)) + head
        + struct.pack("<II", 0x70, len(block)) + block + data.tobytes()
    )  # fmt: skip


def test_leica(tmp_path):
    pytest.importorskip("bioio_lif")
    (tmp_path / "a.lif").write_bytes(lif_bytes(PLANES))
    image = read_image(tmp_path / "a.lif")
    assert image.axes.order == "CZYX"
    np.testing.assert_array_equal(np.asarray(image.array), PLANES)
    assert image.pixel_size == pytest.approx((0.25, 0.2))
    assert image.z_step == pytest.approx(2)


def test_olympus(tmp_path):
    pytest.importorskip("oiffile")
    folder = tmp_path / "a.oif.files"
    folder.mkdir()
    for c, z in np.ndindex(2, 3):
        name = f"a_C{c + 1:03}Z{z + 1:03}.tif"
        tifffile.imwrite(folder / name, PLANES[c, z], metadata=None)
    ends = {
        "X": (29 * 0.2, "um"),
        "Y": (19 * 0.25, "um"),
        "Z": (2000, "nm"),
        "C": (2, "Ch"),
    }
    sizes = dict(zip("CZYX", PLANES.shape, strict=True))
    lines = ["[Axis Parameter Common]", 'AxisOrder="XYZC"']
    for i in range(8):
        axis = "XYCZ"[i] if i < 4 else ""
        end, unit = ends.get(axis, (0, ""))
        lines += [
            f"[Axis {i} Parameters Common]", f'AxisCode="{axis}"',
            f"MaxSize={sizes.get(axis, 0)}", "StartPosition=0", f"EndPosition={end}",
            f'UnitName="{unit}"',
        ]  # fmt: skip
    for i, dye in enumerate(("DAPI", "None"), 1):
        lines += [f"[Channel {i} Parameters]", f'DyeName="{dye}"', f'CH Name="CH{i}"']
    lines += ["[Reference Image Parameter]", "ValidBitCounts=12"]
    lines += ["[ProfileSaveInfo]", 'Name="a"', 'Version="1"']
    (tmp_path / "a.oif").write_bytes("\r\n".join(lines).encode("utf-16"))
    same_everywhere(tmp_path / "a.oif", PLANES, "CZYX", (0.25, 0.2))
    image = read_image(tmp_path / "a.oif")
    assert image.channel_names == ("DAPI", "CH2")
    assert image.z_step == pytest.approx(1)


# ---------------------------------------------------------------- with tifffile alone


def test_aperio_slides_with_their_thumbnail(tmp_path):
    path = tmp_path / "a.svs"
    rng = np.random.default_rng(0)
    slide = rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)
    about = "Aperio Image Library v10\r\n128x96 |AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(path) as tiff:
        options = {"photometric": "rgb", "metadata": None, "description": about}
        tiff.write(slide, tile=(32, 32), **options)
        tiff.write(slide[:32, :48], rowsperstrip=32, **options)
        tiff.write(slide[:48, :64], tile=(32, 32), **options)
    same_everywhere(path, slide, "YXC", (0.499, 0.499))
    assert read_image(path).notes == ()  # a thumbnail is not missed
    lazy = open_image(path)
    np.testing.assert_array_equal(lazy.array[:40, :40], slide[:40, :40])
    assert lazy.scale == pytest.approx({"Y": 0.499, "X": 0.499})
    assert len(list_series(path)) == 2


def test_leica_slides(tmp_path):
    path = tmp_path / "a.scn"
    slide = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    about = (
        '<?xml version="1.0"?>'
        '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        '<collection name="a" sizeX="1" sizeY="1"><image name="image_0">'
        '<pixels sizeX="128" sizeY="96">'
        '<dimension sizeX="128" sizeY="96" r="0" ifd="0"/>'
        '<dimension sizeX="64" sizeY="48" r="1" ifd="1"/></pixels>'
        '<view sizeX="64000" sizeY="24000" offsetX="0" offsetY="0"/>'
        "</image></collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        options = {"photometric": "rgb", "metadata": None, "tile": (32, 32)}
        tiff.write(slide, description=about, **options)
        tiff.write(slide[::2, ::2], **options)
    same_everywhere(path, slide, "YXC", (0.25, 0.5))
    assert read_image(path).notes == ()


def test_zeiss_lsm_without_its_thumbnails(tmp_path):
    path = tmp_path / "a.lsm"
    names = [(n, f"<{f}") for n, f in tifffile.TIFF.CZ_LSMINFO if len(f) == 2]
    info = np.zeros((), np.dtype(names))
    values = {
        "MagicNumber": 67127628, "StructureSize": info.itemsize, "DimensionX": 30,
        "DimensionY": 20, "DimensionZ": 3, "DimensionChannels": 1, "DimensionTime": 1,
        "DataType": 2, "ThumbnailX": 16, "ThumbnailY": 16, "VoxelSizeX": 0.2e-6,
        "VoxelSizeY": 0.25e-6, "VoxelSizeZ": 2e-6,
    }  # fmt: skip
    for name, value in values.items():
        info[name] = value
    tag = (34412, 1, info.nbytes, info.tobytes(), True)
    with tifffile.TiffWriter(path) as tiff:
        for z, plane in enumerate(PLANES[0]):
            tags = [tag] if z == 0 else []
            tiff.write(plane, metadata=None, extratags=tags)
            thumbnail = np.zeros((16, 16, 3), np.uint8)
            tiff.write(thumbnail, photometric="rgb", metadata=None, subfiletype=1)
    same_everywhere(path, PLANES[0], "ZYX", (0.25, 0.2))
    image = read_image(path)
    assert (image.z_step, image.notes) == (pytest.approx(2), ())


def test_channels_of_an_akoya_slide(tmp_path):
    path = tmp_path / "a.qptiff"
    data = PLANES[:, 0].astype(np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        for n, name in enumerate(("DAPI", "CD8")):
            about = (
                '<?xml version="1.0"?><PerkinElmer-QPI-ImageDescription>'
                f"<ImageType>FullResolution</ImageType><Name>{name}</Name>"
                "</PerkinElmer-QPI-ImageDescription>"
            )
            tiff.write(
                data[n], tile=(16, 16), metadata=None, description=about,
                software="PerkinElmer-QPI", photometric="minisblack",
            )  # fmt: skip
    image = read_image(path)
    assert (image.axes.order, image.channel_names) == ("CYX", ("DAPI", "CD8"))
    np.testing.assert_array_equal(image.array, data)


# ---------------------------------------------------------------- without a reader


def test_a_missing_reader_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.czi"
    path.write_bytes(b"ZISRAWFILE" + bytes(600))
    monkeypatch.setattr(microscope_files, "has_module", lambda name: False)
    with pytest.raises(ImageError) as caught:
        open_contents(path)
    assert READERS["bioio_czi"] in str(caught.value)
    assert READERS["bioio_lif"] not in str(caught.value)


@pytest.mark.parametrize(
    "suffix", [".czi", ".lif", ".nd2", ".oib", ".mrc", ".h5", ".x"]
)
@pytest.mark.parametrize("content", [b"", b"nonsense" * 90])
def test_damaged_files_are_one_line_with_their_name(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_suffix_that_is_not_known_is_tried(tmp_path):
    plane = PLANES[0, 0]
    tifffile.imwrite(tmp_path / "a.data", plane)
    np.save(tmp_path / "b.npy", plane)
    (tmp_path / "b.npy").rename(tmp_path / "b")
    for name in ("a.data", "b"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array, plane)
