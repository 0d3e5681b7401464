"""Masks and labels: for prompts, and partial ones for fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from napari_svpseg.io.prompt_files import load_prompts

from .. import scene
from ..case import Action, Case, Check, Expected, Place, Seen, either, refused, right
from ..scene import CPU, SIDE, discs, write_image

BOX = (8, 8)
UNTRAINABLE = ("nothing labelled", "background only", "one pixel")
"""Labels that are told of all images together, by the names of the images."""


def cases() -> Iterator[Case]:
    """Yield the cases of this group."""
    for name, array, expected in _arrays():
        for suffix in (".tif", ".npy"):
            if array.dtype.kind == "c" and suffix == ".tif":
                continue
            yield Case(
                "labels",
                f"prompt {name}{suffix}",
                partial(_prompt, f"b{suffix}", array),
                expected,
            )
    for suffix in (".jpg",):
        image = ((discs()[1] * 40) % 256).astype(np.uint8)
        yield Case(
            "labels",
            f"prompt of a mask packed with loss {suffix}",
            partial(_prompt, f"b{suffix}", image),
            refused(f"b{suffix}"),
        )
    yield from _boxes()
    yield from _partial_labels()


def _arrays() -> Iterator[tuple[str, np.ndarray, Expected]]:
    """Yield labels of a prompt and what has to come of them."""
    labels = discs()[1].astype(np.int64)
    same, no = right(_mask_is(labels)), refused("b.")
    for dtype in (
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "int8",
        "int16",
        "int32",
        "int64",
    ):
        yield dtype, labels.astype(dtype), same
    yield "bool", labels > 0, right(_mask_is(labels))  # components
    for dtype in ("float32", "float64"):
        yield f"{dtype}, whole", labels.astype(dtype), either(_mask_is(labels), "b.")
        yield f"{dtype}, fractions", labels * 0.37, no
        yield f"{dtype}, NaN", np.where(labels > 0, labels, np.nan).astype(dtype), no
    yield "complex", labels.astype("complex64"), no
    yield "negative", np.where(labels == 2, -2, labels), no
    yield "empty", np.zeros_like(labels), no
    yield "empty in the box", np.pad(labels[80:, 80:] * 0 + 3, ((80, 0), (80, 0))), no
    yield "ids at 2e9", labels * 400_000_000, right(_mask_is(labels * 400_000_000))
    yield "ids above int32", labels * 2**32, either(_mask_is(labels * 2**32), "b.")
    last = np.where(labels > 0, np.uint64(2**64 - 1), np.uint64(0))
    yield "ids at the end of uint64", last, either(_mask_is(labels), "b.")
    yield (
        "background 255",
        np.where(labels, labels, 255),
        right(_mask_is(np.where(labels, labels, 255))),
    )
    for shape in ((SIDE, SIDE + 1), (SIDE // 2, SIDE // 2), (1, SIDE * SIDE), (1, 1)):
        yield f"shape {shape}", np.resize(labels, shape), no
    grey = labels.astype(np.uint8) * 40
    yield "RGB", np.dstack([grey, grey // 2, 255 - grey]), no
    yield "grey as RGB", np.dstack([grey] * 3), either(_mask_is(labels), "b.")
    yield "a stack", np.stack([labels] * 2), no
    yield "the image itself", discs()[0].astype(np.float32) + 0.5, no


def _mask_is(labels: np.ndarray) -> Check:
    """Return a check that the prompt has the mask of the labels in the box."""
    part = labels[8:72, 8:72]

    def check(here: Path, seen: Seen) -> None:
        (prompt,) = load_prompts(here / "p.svprompt")
        same = (prompt.mask > 0) == (part > 0)
        assert same.all(), f"{(~same).sum()} pixels of the mask differ"
        kept = prompt.mask[part > 0].tolist(), part[part > 0].tolist()
        pairs, n = set(zip(*kept, strict=True)), len(set(kept[1]))
        assert len(pairs) == n == prompt.n_objects, "ids are mixed up"

    return check


def _prompt(name: str, labels: np.ndarray, place: Place) -> Action:
    write_image(Path(name), labels)
    return _new(place, name)


def _new(place: Place, labels: object, *more: object, box: tuple = BOX) -> Action:
    image = ("--image", place.base / "discs.tif", "--labels", labels)
    return ["prompts", "new", "p.svprompt", *image, "--box", *box, *more]


def _boxes() -> Iterator[Case]:
    """Yield boxes that do not lie in the image, or are no boxes."""
    places = [(-1, 0), (0, -5), (33, 0), (0, 33), (10**9, 0), (10**20, 0), (0, 96)]
    for box in places:
        yield Case(
            "labels",
            f"box at {box}",
            lambda place, box=box: _new(place, place.base / "labels.tif", box=box),
            refused("discs.tif" if max(map(abs, box)) < 2**31 else str(box[0])),
        )
    for size in (0, -1, 1, 97, 10**6, 10**9, 10**20):
        yield Case(
            "labels",
            f"box of {size} pixels",
            lambda place, size=size: _new(
                place, place.base / "labels.tif", "--size", size
            ),
            refused(str(size) if size == 97 else "--size"),
        )
    for words in (("x", "y"), ("1.5", "2"), ("8",), ("nan", "nan"), ("8,8,8", "")):
        yield Case(
            "labels",
            f"box {words}",
            lambda place, words=words: _new(
                place, place.base / "labels.tif", box=words
            ),
            refused("box" if len(words) == 1 else ""),
        )
    for name in ("gone.tif", "", ".", "p.svprompt"):
        yield Case(
            "labels",
            f"labels file {name!r}",
            lambda place, name=name: _new(place, name),
            refused(name),
        )


def _partial_labels() -> Iterator[Case]:
    """Yield partial labels that cannot be trained on."""
    labels = scene.partial(discs()[1]).astype(np.int64)
    bad = {
        "nothing labelled": labels * 0,
        "background only": np.ones_like(labels),
        "negative": labels - 3,
        "fractions": labels * 0.5,
        "NaN": np.where(labels > 1, np.nan, 1.0),
        "other shape": labels[:50],
        "a stack": np.stack([labels] * 2),
        "RGB": np.dstack([labels.astype(np.uint8), labels.astype(np.uint8) // 2] * 2)[
            ..., :3
        ],
        "one pixel": np.where(np.arange(labels.size).reshape(labels.shape) == 5, 2, 0),
    }
    for name, array in bad.items():
        yield Case(
            "labels",
            f"fine-tune {name}",
            partial(_finetune, array),
            refused("b.tif" if name not in UNTRAINABLE else "discs"),
        )
    for name, array in {
        "ids at 2e9": np.where(labels > 1, labels + 2_000_000_000, labels),
        "ids above int32": np.where(labels > 1, labels + 2**33, labels),
    }.items():
        yield Case(
            "labels",
            f"fine-tune {name}",
            partial(_finetune, array),
            either(_model_is_there, "b.tif"),
        )
    for pair in (
        "a.tif",
        "a.tif=",
        "=b.tif",
        "a.tif=b.tif=c.tif",
        "",
        "=",
        "gone=gone",
    ):
        yield Case(
            "labels",
            f"pair {pair!r}",
            lambda place, pair=pair: ["finetune", pair, "-o", "m", *CPU],
            refused("a.tif" if "a.tif" in pair else ""),
        )


def _finetune(labels: np.ndarray, place: Place) -> Action:
    write_image(Path("b.tif"), labels)
    pair = f"{place.base / 'discs.tif'}=b.tif"
    start = ("--start-from", place.base / "tiny-svp", "--steps", 2)
    return ["finetune", pair, "-o", "m", *start, *CPU]


def _model_is_there(here: Path, seen: Seen) -> None:
    from napari_svpseg.io.model_store import load_model

    assert load_model(here / "m").card.name
