"""Sample data of the manifest, as layers: images, labels and prompt boxes."""

from __future__ import annotations

from typing import Any

from ..core.geometry import Box
from ..io import sample_images
from .layers.metadata import ID, METADATA_KEY, layer_name, new_id

LayerData = tuple[Any, dict[str, Any], str]

NO_STARDIST = (
    "The nuclei come with the package stardist, which is not installed. Drawn cells "
    "are shown instead (pip install --no-deps stardist)."
)


def stained_tissue() -> list[LayerData]:
    """Return a stained tissue section (scikit-image's ``ihc``) with one prompt."""
    sample, known = sample_images.tissue(), {ID: new_id()}
    return [
        (
            sample.image,
            {"name": layer_name(sample.name), "rgb": True, "metadata": known},
            "image",
        ),
        (sample.labels, {"name": "tissue mask", "opacity": 0.5}, "labels"),
        _boxes(sample.name, known[ID], [sample.box]),
    ]


def nuclei() -> list[LayerData]:
    """Return real fluorescent nuclei and their labels, or drawn cells.

    The nuclei come with the package ``stardist``, of which only two image files are
    read. Without it, drawn cells are returned.
    """
    sample = sample_images.nuclei()
    if sample is None:
        from napari.utils.notifications import show_info

        show_info(NO_STARDIST)
        return drawn_cells()
    hidden = {"name": "nuclei labels", "opacity": 0.5, "visible": False}
    known = {ID: new_id()}
    return [
        (sample.image, {"name": layer_name(sample.name), "metadata": known}, "image"),
        (sample.labels, hidden, "labels"),
        _boxes(sample.name, known[ID], [sample.box]),
    ]


def drawn_cells() -> list[LayerData]:
    """Return two drawn images with two kinds of cells, and one prompt of one kind."""
    sample, others = sample_images.drawn_cells()
    ids = [new_id() for _ in (sample, *others)]
    layers: list[LayerData] = [
        (
            image,
            {
                "name": f"drawn {i + 1}",
                "rgb": True,
                "translate": (0, 264 * i),
                "metadata": {ID: ids[i]},
            },
            "image",
        )
        for i, image in enumerate([sample.image, *others])
    ]
    layers.append((sample.labels, {"name": "drawn mask", "opacity": 0.5}, "labels"))
    layers.append(_boxes(sample.name, ids[0], [sample.box]))
    return layers


def _boxes(image: str, image_id: str, boxes: list[Box]) -> LayerData:
    """Return the layer of boxes on an image, as the dock expects it."""
    entry = {"kind": "boxes", "image": image, "source_id": image_id}
    return (
        [box.corners for box in boxes],
        {
            "name": "SVPSeg prompts",
            "shape_type": "rectangle",
            "face_color": "transparent",
            "edge_color": "#ffb000",
            "edge_width": 2,
            "metadata": {METADATA_KEY: entry},
        },
        "shapes",
    )
