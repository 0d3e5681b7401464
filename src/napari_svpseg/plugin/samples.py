"""Sample data of the manifest, as layers: images, labels and prompt boxes."""

from __future__ import annotations

from typing import Any

from ..core.geometry import Box
from ..io import sample_images
from .layers.image_source import MARK

LayerData = tuple[Any, dict[str, Any], str]

NO_STARDIST = (
    "The nuclei come with the package stardist, which is not installed: drawn cells "
    "are shown instead (pip install --no-deps stardist)."
)


def stained_tissue() -> list[LayerData]:
    """Return a stained tissue section (scikit-image's ``ihc``) with one prompt."""
    sample = sample_images.tissue()
    return [
        (sample.image, {"name": sample.name, "rgb": True}, "image"),
        (sample.labels, {"name": "tissue mask", "opacity": 0.5}, "labels"),
        _boxes(sample.name, [sample.box]),
    ]


def nuclei() -> list[LayerData]:
    """Return real fluorescent nuclei and their labels, or drawn cells without them."""
    sample = sample_images.nuclei()
    if sample is None:
        from napari.utils.notifications import show_info

        show_info(NO_STARDIST)
        return drawn_cells()
    hidden = {"name": "nuclei labels", "opacity": 0.5, "visible": False}
    return [
        (sample.image, {"name": sample.name}, "image"),
        (sample.labels, hidden, "labels"),
        _boxes(sample.name, [sample.box]),
    ]


def drawn_cells() -> list[LayerData]:
    """Return two drawn images with two kinds of cells, and one prompt of one kind."""
    sample, others = sample_images.drawn_cells()
    layers: list[LayerData] = [
        (
            image,
            {"name": f"drawn {i + 1}", "rgb": True, "translate": (0, 264 * i)},
            "image",
        )
        for i, image in enumerate([sample.image, *others])
    ]
    layers.append((sample.labels, {"name": "drawn mask", "opacity": 0.5}, "labels"))
    layers.append(_boxes(sample.name, [sample.box]))
    return layers


def _boxes(image: str, boxes: list[Box]) -> LayerData:
    """Return the layer in which the dock looks for the boxes of an image."""
    return (
        [box.corners for box in boxes],
        {
            "name": "SVPSeg prompts",
            "shape_type": "rectangle",
            "face_color": "transparent",
            "edge_color": "#ffb000",
            "edge_width": 2,
            "metadata": {MARK: {"kind": "boxes", "image": image}},
        },
        "shapes",
    )
