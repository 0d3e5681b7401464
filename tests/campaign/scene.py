"""Generated data: images of discs whose answer is known, prompts, models, stores."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tifffile

from napari_svpseg.core.model_card import ModelCard
from napari_svpseg.core.prompt import Prompt, PromptSet
from napari_svpseg.io.images import quiet_tifffile
from napari_svpseg.io.model_store import save_model
from napari_svpseg.io.prompt_files import save_prompts
from napari_svpseg.models.registry import ModelConfig, build

from .case import Check, Place, Seen

DISCS = ((20, 24, 7), (24, 70, 8), (66, 22, 9), (70, 66, 7), (48, 46, 6))
"""Centre and radius; none touches another or the border."""

SIDE, N_DISCS = 96, len(DISCS)

TINY_SVP = {
    "widths": [8, 12, 12, 12],
    "depths": [1, 1, 1],
    "features": 12,
    "pixel_features": 12,
    "decoder": [8, 8, 8],
}
CPU = ("--device", "cpu")


def discs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (96, 96) uint8 of five discs, and their labels."""
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.uint16)
    for i, (cy, cx, radius) in enumerate(DISCS, 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = i
    noise = np.random.default_rng(seed).normal(0, 3, labels.shape)
    image = 20 + 180 * (labels > 0) + noise
    return image.clip(0, 255).astype(np.uint8), labels


def partial(labels: np.ndarray) -> np.ndarray:
    """Return labels as partial ones: 1 = background, 2, 3, ... = objects."""
    return (labels.astype(np.int32) + 1).astype(np.uint16)


def make_base(base: Path) -> None:
    """Write what all cases share: an image, its labels, a prompt file, two models."""
    import torch

    base.mkdir(parents=True)
    image, labels = discs()
    tifffile.imwrite(base / "discs.tif", image)
    tifffile.imwrite(base / "labels.tif", labels)
    tifffile.imwrite(base / "partial.tif", partial(labels))
    prompt = Prompt.from_image(image, labels, (8, 8), name="discs", source="discs.tif")
    save_prompts(PromptSet([prompt], "discs"), base / "discs.svprompt")
    torch.manual_seed(0)
    for name, config in (
        ("tiny", ModelConfig("panet", {"width": 4, "features": 8})),
        ("tiny-svp", ModelConfig("svp", TINY_SVP)),
    ):
        card = ModelCard(name, config.method, config.arguments, licence="CC0-1.0")
        save_model(base / name, build(config), card)


def write_image(path: Path, image: np.ndarray | None = None, **more: object) -> Path:
    """Write an image, by default the discs; the suffix says which format."""
    image = discs()[0] if image is None else image
    if path.suffix == ".npy":
        np.save(path, image)
    elif path.suffix in (".png", ".jpg", ".bmp", ".gif"):
        from skimage.io import imsave

        imsave(path, image, check_contrast=False)
    else:
        if image.dtype == bool:  # which tifffile calls white-is-zero as they are
            more = {"photometric": "minisblack"} | more
        tifffile.imwrite(path, image, **more)
    return path


def segment(place: Place, image: object, *more: object, model: str = "svp") -> list:
    """Return the words that segment an image into ``out``."""
    name = model if model == "svp" else place.base / model
    prompts = (
        () if "--prompts" in more else ("--prompts", place.base / "discs.svprompt")
    )
    words = ["segment", image, *prompts, "-o", "out", "--model", name, *CPU]
    return [*words, *more]


def result(name: str = "a", folder: str = "out") -> Path:
    """Return the labels that `segment` writes of an image."""
    return Path(folder) / f"{name}_labels.ome.tif"


def objects(
    n: int | range, shape: tuple[int, ...] = (SIDE, SIDE), name: str = "a"
) -> Check:
    """Return a check of the labels of a run: their number, shape and dtype."""

    def check(here: Path, seen: Seen) -> None:
        with quiet_tifffile(), tifffile.TiffFile(here / result(name)) as tiff:
            labels, kind = tiff.series[0].asarray(), tiff.series[0].kind
        assert kind == "ome", "its OME-XML cannot be read"
        assert labels.shape == shape, f"shape {labels.shape}, not {shape}"
        assert labels.dtype.kind == "u", f"dtype {labels.dtype}"
        found = len(np.unique(labels[labels > 0]))
        assert found in (n if isinstance(n, range) else (n,)), (
            f"{found} objects, not {n}"
        )

    return check


def noted(check: Check) -> Check:
    """Return a check that also wants a note on standard error."""

    def both(here: Path, seen: Seen) -> None:
        check(here, seen)
        assert seen.error, "no word about it"

    return both


def copy(place: Place, name: str, target: str = "") -> Path:
    """Return a copy of shared data in the folder of a case."""
    source, there = place.base / name, place.here / (target or name)
    there.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, there)
    else:
        shutil.copy(source, there)
    return there.relative_to(place.here)
