"""Make the gallery of the docs: prompts, pictures and what the default model finds.

    python scripts/gallery.py                      # docs/gallery and the contact sheet
    python scripts/gallery.py --packages FOLDER    # a package of bioimage.io of each

Pictures come with scikit-image, or are drawn by this package. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage import data
from skimage.measure import label
from skimage.morphology import remove_small_objects

import napari_svpseg as svpseg
from napari_svpseg.core.labels.palette import contrasting_colors, main_colors
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.engine.training.synthetic import draw_scene
from napari_svpseg.io.prompt_files import save_prompts
from napari_svpseg.io.sample_images import blue_nuclei
from napari_svpseg.workflows.share_model import share_model

DOCS = Path(__file__).parents[1] / "docs"
FOLDER, SHEET = DOCS / "gallery", DOCS / "images" / "gallery.png"

PICTURE = 240
"""Side of a picture in the contact sheet."""

Array = np.ndarray


@dataclass(frozen=True)
class Entry:
    """A picture of the gallery.

    Parameters
    ----------
    name : str
        Of its files.
    what : str
        What is found in it.
    box : (int, int, int)
        Row, column and side of the prompt.
    picture : callable
        Returns the picture, (Y, X) or (Y, X, 3) uint8.
    labels : callable
        From the content of the box to the ids of its objects.
    """

    name: str
    what: str
    box: tuple[int, int, int]
    picture: Callable[[], Array]
    labels: Callable[[Array], Array]

    def prompt(self, image: Array) -> Prompt:
        """Return the prompt: what a user draws and paints."""
        y, x, side = self.box
        labels = np.zeros(image.shape[:2], np.uint16)
        here = np.s_[y : y + side, x : x + side]
        labels[here] = self.labels(image[here])
        return Prompt.from_image(image, labels, (y, x), side, name=self.name)


def coins() -> Array:
    """Return scikit-image's ``coins``."""
    return np.asarray(data.coins())


def tissue() -> Array:
    """Return a part of scikit-image's ``immunohistochemistry``."""
    return np.asarray(data.immunohistochemistry()[192:512, 96:416])


def galaxies() -> Array:
    """Return a part of scikit-image's ``hubble_deep_field``."""
    return np.asarray(data.hubble_deep_field()[380:700, 380:700])


def drawn(seed: int) -> Array:
    """Return a picture that the generator of training scenes draws."""
    image = draw_scene(seed, size=256).images[0]
    low, high = np.percentile(image, [0.5, 99.9])
    return np.asarray(np.clip((image - low) / (high - low), 0, 1) * 255, np.uint8)


def drawn_labels(seed: int, box: tuple[int, int, int]) -> Callable[[Array], Array]:
    """Return a function to the objects in a box of a drawn picture."""
    y, x, side = box

    def of(crop: Array) -> Array:
        labels = draw_scene(seed, size=256).kinds[0][0]
        return np.asarray(labels[y : y + side, x : x + side])

    return of


def brighter(level: float, smallest: int) -> Callable[[Array], Array]:
    """Return a function to what is brighter than a level, as objects."""

    def of(crop: Array) -> Array:
        grey = crop.astype(float) if crop.ndim == 2 else crop.mean(2)
        mask = ndimage.binary_fill_holes(ndimage.gaussian_filter(grey, 1) > level)
        return np.asarray(remove_small_objects(label(mask), max_size=smallest))

    return of


def drawn_entry(name: str, what: str, seed: int, box: tuple[int, int, int]) -> Entry:
    """Return an entry of a drawn picture."""
    return Entry(name, what, box, lambda: drawn(seed), drawn_labels(seed, box))


ENTRIES = (
    Entry("nuclei", "blue nuclei", (188, 64, 64), tissue, blue_nuclei),
    Entry("coins", "coins", (66, 8, 128), coins, brighter(110, 300)),
    Entry("galaxies", "galaxies", (150, 60, 64), galaxies, brighter(60, 12)),
    drawn_entry("brown-cells", "brown cells, not green ones", 6, (16, 72, 96)),
    drawn_entry("rods", "bright rods, not dark cells", 4, (0, 96, 96)),
)


def found(entry: Entry) -> tuple[Array, Prompt, Array]:
    """Return picture, prompt and labels of an entry."""
    image = entry.picture()
    prompt = entry.prompt(image)
    return image, prompt, svpseg.segment(image, prompt, device="cpu").labels


def overlaid(image: Array, labels: Array) -> Array:
    """Return a picture (Y, X, 3) with its objects in colours."""
    rgb = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
    shown = rgb.astype(float)
    pixels = rgb.reshape(-1, 3)[::7] / 255
    some = contrasting_colors(main_colors(pixels)) * 255
    colours = some[np.arange(int(labels.max()) + 1) % len(some)]
    inside = labels > 0
    edge = inside & (
        (ndimage.maximum_filter(labels, 3) != labels)
        | (ndimage.minimum_filter(labels, 3) != labels)
    )
    shown[inside] = 0.6 * shown[inside] + 0.4 * colours[labels[inside]]
    shown[edge] = colours[labels[edge]]
    return shown.astype(np.uint8)


def boxed(image: Array, entry: Entry) -> Image.Image:
    """Return a picture with the box of the prompt."""
    picture = Image.fromarray(image).convert("RGB")
    y, x, side = entry.box
    ImageDraw.Draw(picture).rectangle(
        (x, y, x + side - 1, y + side - 1), outline=(255, 215, 0), width=2
    )
    return picture


def fitted(picture: Image.Image) -> Image.Image:
    """Return a picture in a square of `PICTURE`."""
    square = Image.new("RGB", (PICTURE, PICTURE), "white")
    picture.thumbnail((PICTURE, PICTURE))
    square.paste(
        picture, ((PICTURE - picture.width) // 2, (PICTURE - picture.height) // 2)
    )
    return square


def sheet(columns: list[tuple[Image.Image, Image.Image, str]]) -> Image.Image:
    """Return pictures above results, with what was found."""
    gap, line = 8, 34
    wide = len(columns) * (PICTURE + gap) + gap
    whole = Image.new("RGB", (wide, 2 * (PICTURE + gap) + gap + line), "white")
    for i, (above, below, text) in enumerate(columns):
        x = gap + i * (PICTURE + gap)
        whole.paste(fitted(above), (x, gap))
        whole.paste(fitted(below), (x, 2 * gap + PICTURE))
        ImageDraw.Draw(whole).text(
            (x, 2 * (gap + PICTURE) + gap),
            textwrap.fill(text, 38),
            fill=(40, 40, 40),
            font_size=13,
        )
    return whole


def main() -> None:
    """Write the files of the gallery, or packages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, help="write packages to this folder")
    folder = parser.parse_args().packages
    columns = []
    for entry in ENTRIES:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            prompt = entry.prompt(entry.picture())
            path = folder / f"{entry.name}.zip"
            print(share_model("svp", path, prompt, overwrite=True).path)
            continue
        image, prompt, labels = found(entry)
        FOLDER.mkdir(exist_ok=True)
        place = FOLDER / entry.name
        save_prompts(
            PromptSet([prompt], entry.name),
            place.with_suffix(".svprompt"),
            overwrite=True,
        )
        Image.fromarray(image).save(place.with_suffix(".png"), optimize=True)
        ids = Image.fromarray(labels.astype(np.uint16))
        ids.save(FOLDER / f"{entry.name}_labels.png", optimize=True)
        n = int(labels.max())
        print(f"{entry.name}: {prompt.n_objects} labelled, {n} found")
        text = f"{entry.what}: {n} from {prompt.n_objects}"
        columns.append(
            (boxed(image, entry), Image.fromarray(overlaid(image, labels)), text)
        )
    if columns:
        sheet(columns).quantize(256).save(SHEET, optimize=True)


if __name__ == "__main__":
    main()
