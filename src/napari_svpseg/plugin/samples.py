"""Sample data, all of it offline."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ..core.geometry import Box
from .layers.metadata import METADATA_KEY

LayerData = tuple[Any, dict[str, Any], str]

TISSUE_BOX = Box(380, 160)
"""Blue nuclei between the glands of scikit-image's image ``ihc``."""

DRAWN_SEED = 6


def stained_tissue() -> list[LayerData]:
    """Return a stained tissue section (scikit-image's ``ihc``) with one prompt."""
    from skimage.data import immunohistochemistry

    image = immunohistochemistry()
    mask = np.zeros(image.shape[:2], np.uint16)
    mask[TISSUE_BOX.slices] = blue_nuclei(image[TISSUE_BOX.slices])
    return [
        (image, {"name": "tissue", "rgb": True}, "image"),
        (mask, {"name": "tissue mask", "opacity": 0.5}, "labels"),
        _boxes("tissue", [TISSUE_BOX]),
    ]


def blue_nuclei(crop: np.ndarray) -> np.ndarray:
    """Return the blue nuclei of a small piece of ``ihc`` as objects.

    Parameters
    ----------
    crop : (Y, X, 3) uint8 array

    Returns
    -------
    (Y, X) uint16 array
    """
    from skimage.filters import threshold_otsu
    from skimage.measure import label
    from skimage.morphology import remove_small_objects
    from skimage.segmentation import watershed

    smooth = ndimage.gaussian_filter(crop.astype(float), (1, 1, 0))
    blueness = smooth[..., 2] - smooth[..., 0]
    mask = ndimage.binary_opening(blueness > threshold_otsu(blueness), iterations=1)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1)
    peaks = (ndimage.maximum_filter(distance, 7) == distance) & (distance > 1.5)
    objects = watershed(-distance, label(peaks), mask=mask)
    return np.asarray(remove_small_objects(objects, max_size=24), np.uint16)


def nuclei() -> list[LayerData]:
    """Return real fluorescent nuclei and their labels, or drawn cells.

    The nuclei come with the package ``stardist``, of which only two image files are
    read. Without it, drawn cells are returned.
    """
    pair = nuclei_files()
    if pair is None:
        from napari.utils.notifications import show_info

        show_info(
            "The nuclei come with the package stardist, which is not installed. "
            "Drawn cells are shown instead (pip install --no-deps stardist)."
        )
        return drawn_cells()
    import tifffile

    image, labels = (tifffile.imread(p) for p in pair)
    return [
        (image, {"name": "nuclei"}, "image"),
        (labels, {"name": "nuclei labels", "opacity": 0.5, "visible": False}, "labels"),
        _boxes("nuclei", [fullest_box(labels)]),
    ]


def nuclei_files() -> tuple[Path, Path] | None:
    """Return image and labels of the pair in ``stardist``, without importing it."""
    spec = find_spec("stardist")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        pair = [
            Path(folder) / "data" / "images" / name
            for name in ("img2d.tif", "mask2d.tif")
        ]
        if all(p.is_file() for p in pair):
            return pair[0], pair[1]
    return None


def drawn_cells() -> list[LayerData]:
    """Return two drawn images with two kinds of cells, and one prompt of one kind."""
    from ..engine.training.synthetic import draw_scene

    scene = draw_scene(DRAWN_SEED, size=256)
    labels = scene.kinds[0][0]
    mask = np.zeros(labels.shape, np.uint16)
    box = fullest_box(labels)
    mask[box.slices] = labels[box.slices]
    layers: list[LayerData] = [
        (
            image,
            {"name": f"drawn {i + 1}", "rgb": True, "translate": (0, 264 * i)},
            "image",
        )
        for i, image in enumerate(scene.images)
    ]
    layers.append((mask, {"name": "drawn mask", "opacity": 0.5}, "labels"))
    layers.append(_boxes("drawn 1", [box]))
    return layers


def fullest_box(labels: np.ndarray, step: int = 8) -> Box:
    """Return the 64 x 64 box with the most whole objects, tried on a grid."""
    height, width = labels.shape
    size = min(64, height, width)
    places = [
        Box(y, x, size)
        for y in range(0, height - size + 1, step)
        for x in range(0, width - size + 1, step)
    ]
    return max(places, key=lambda box: _n_whole(labels[box.slices]))


def _n_whole(labels: np.ndarray) -> int:
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return int(np.setdiff1d(np.unique(labels), np.append(edge, 0)).size)


def _boxes(image: str, boxes: list[Box]) -> LayerData:
    """Return the layer of boxes on an image, as the dock expects it."""
    return (
        [box.corners for box in boxes],
        {
            "name": "SVPSeg prompts",
            "shape_type": "rectangle",
            "face_color": "transparent",
            "edge_color": "#ffb000",
            "edge_width": 2,
            "metadata": {METADATA_KEY: {"kind": "boxes", "image": image}},
        },
        "shapes",
    )
