"""How much labels change with the size of tiles, for several overlaps.

    python benchmarks/tiles.py

A synthetic image is segmented whole and in tiles. With an overlap of at least the
network's receptive field the labels are the same.
"""

from __future__ import annotations

import argparse

import numpy as np
from skimage.measure import label

from napari_svpseg import api
from napari_svpseg.core.prompt import Prompt
from napari_svpseg.core.result import Result
from napari_svpseg.core.settings import SegmentSettings
from scale import field

OVERLAPS = (64, 128, 192)
"""The first is the default."""


def main() -> None:
    """Print one line for each tile and overlap."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=704)
    parser.add_argument("--model", default="svp")
    options = parser.parse_args()
    image, inside = field(0, 0, options.side)
    prompt = Prompt.from_image(image, label(inside), (112, 112), name="discs")

    def segment(tile: int, overlap: int) -> Result:
        settings = SegmentSettings(tile=tile, overlap=overlap, trust=False)
        return api.segment(image, prompt, options.model, settings=settings)

    whole = segment(max(64, options.side + 64), 64)
    for overlap in OVERLAPS:
        for tile in (2 * overlap, 448):
            tiled = segment(tile, overlap)
            other = np.count_nonzero((whole.labels > 0) != (tiled.labels > 0))
            print(
                f"tile {tile}, overlap {overlap}: {tiled.n_objects} objects, "
                f"{whole.n_objects} in the whole; "
                f"{other / image.size * 1e6:.1f} of a million pixels change sides; "
                f"labels {'the same' if same(whole, tiled) else 'not the same'}"
            )


def same(one: Result, two: Result) -> bool:
    """Return whether two results have the same labels, pixel by pixel."""
    return bool(np.array_equal(one.labels, two.labels))


if __name__ == "__main__":
    main()
