"""Sample images with labels and a prompt box, all of them offline."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..core.geometry import Box

TISSUE_BOX = Box(380, 160)
"""Blue nuclei between the glands of scikit-image's picture ``ihc``."""

DRAWN_SEED = 6


@dataclass(frozen=True, eq=False)
class SampleImage:
    """An image to try a prompt on.

    Parameters
    ----------
    name : str
    image : (Y, X) or (Y, X, 3) array
    labels : (Y, X) int array
        Object ids; 0 = background.
    box : Box
        Of the prompt.
    is_complete : bool
        All objects are labelled, not only those in the box.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray
    box: Box
    is_complete: bool = False


def tissue() -> SampleImage:
    """Return a stained tissue section (scikit-image's ``ihc``), labelled in the box."""
    from skimage.data import immunohistochemistry

    image = immunohistochemistry()
    labels = np.zeros(image.shape[:2], np.uint16)
    labels[TISSUE_BOX.slices] = blue_nuclei(image[TISSUE_BOX.slices])
    return SampleImage("tissue", image, labels, TISSUE_BOX)


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


def nuclei() -> SampleImage | None:
    """Return real fluorescent nuclei with all labels; None without ``stardist``.

    The package ``stardist`` brings the two images; only these are read, the package
    itself is not imported.
    """
    pair = nuclei_files()
    if pair is None:
        return None
    import tifffile

    image, labels = (tifffile.imread(path) for path in pair)
    return SampleImage("nuclei", image, labels, fullest_box(labels), is_complete=True)


def nuclei_files() -> tuple[Path, Path] | None:
    """Return the paths of image and labels in ``stardist``, if it is installed."""
    spec = find_spec("stardist")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        pair = [
            Path(folder) / "data" / "images" / name
            for name in ("img2d.tif", "mask2d.tif")
        ]
        if all(p.is_file() for p in pair):
            return pair[0], pair[1]
    return None


def drawn_cells() -> tuple[SampleImage, list[np.ndarray]]:
    """Return a drawn image of two kinds of cells, one labelled, and further images."""
    from ..engine.training.synthetic import draw_scene

    scene = draw_scene(DRAWN_SEED, size=256)
    labels = scene.kinds[0][0]
    box = fullest_box(labels)
    mask = np.zeros(labels.shape, np.uint16)
    mask[box.slices] = labels[box.slices]
    first, *others = scene.images
    return SampleImage("drawn 1", first, mask, box), others


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
