"""Training: sets that are damaged, configs, data sets, folders to write to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_svpseg.io.training_set import TrainingSet

from .. import scene
from ..case import Action, Case, Place, Seen, either, refused, right
from ..scene import CPU, discs, write_image

ODD: dict[str, Any] = {
    "null": None, "text": "x", "number": 7, "list": [], "dict": {}, "missing": ...,
}  # fmt: skip
ENTRIES = (
    "format", "axes", "rgb", "channels", "source", "used", "validation", "more",
)  # fmt: skip
CONFIG = """
name = "tiny"
method = "panet"
[arguments]
width = 4
features = 8
[data]
scenes = 2
share = { real = 0.0, synthetic = 1.0 }
[episodes]
query = 48
prompt = 32
[train]
steps = 1
batch = 2
"""


def cases() -> Iterator[Case]:
    """Yield the cases of this group."""
    fine = either(_trained, "set")
    yield Case(
        "training", "as it is", partial(_set, lambda folder: None), right(_trained)
    )
    for entry in ENTRIES:
        for name, value in ODD.items():
            yield Case(
                "training",
                f"{entry} is {name}",
                partial(_set, partial(_entry, entry, value)),
                either(_trained_and_told, "a") if entry == "format" else fine,
            )
    for name, change in _damage():
        yield Case(
            "training",
            f"set: {name}",
            partial(_set, change),
            # an entry without labels is as good as none
            fine if "nothing" in name else either(_trained_and_told, "set"),
        )
    yield from _configs()
    yield from _outputs()


def _trained(here: Path, seen: Seen) -> None:
    from napari_svpseg.io.model_store import load_model

    assert load_model(here / "m").card.name


def _trained_and_told(here: Path, seen: Seen) -> None:
    """Check that training went on without an entry that is damaged, and said so."""
    _trained(here, seen)
    assert "set" in seen.error, "no word about the damaged entry"


def _set(change: Any, place: Place) -> Action:
    """Return what trains on a set of two images, of which one is changed."""
    image, labels = discs()
    stored = TrainingSet("set")
    for i, name in enumerate("ab"):
        turned = np.rot90(image, i).copy(), scene.partial(np.rot90(labels, i)).copy()
        stored.add(name, *turned)
    change(Path("set/a"))
    return _finetune(place, "--training-set", "set", "-o", "m")


def _finetune(place: Place, *more: object) -> Action:
    start = ("--start-from", place.base / "tiny-svp", "--steps", 2)
    return ["finetune", *more, *start, *CPU]


def _entry(entry: str, value: Any, folder: Path) -> None:
    path = folder / "entry.json"
    values = json.loads(path.read_text())
    if value is ...:
        values.pop(entry, None)
    else:
        values[entry] = value
    path.write_text(json.dumps(values))


def _damage() -> Iterator[tuple[str, Any]]:
    """Yield ways to damage an entry of a training set."""

    def text(name: str, data: bytes, folder: Path) -> None:
        (folder / name).write_bytes(data)

    def without(name: str, folder: Path) -> None:
        (folder / name).unlink()

    for name in ("entry.json", "image.tif", "labels-0001.tif"):
        yield f"{name} is gone", partial(without, name)
        for what, data in (("empty", b""), ("text", b"text"), ("zeros", bytes(999))):
            yield f"{name} is {what}", partial(text, name, data)
    for text_ in ("[]", "{", "null", "[" * 100_000):
        yield f"entry.json is {text_[:4]}", partial(text, "entry.json", text_.encode())
    for name, array in {
        "other shape": np.ones((5, 5), np.uint16),
        "negative": np.full((96, 96), -1, "i2"),
        "floats": np.full((96, 96), 0.5, "f4"),
        "nothing": np.zeros((96, 96), "u2"),
        "a stack": np.ones((2, 96, 96), "u2"),
    }.items():
        yield f"labels are {name}", partial(_array, "labels-0001.tif", array)
        if name not in ("nothing", "negative", "floats"):
            yield f"image is {name}", partial(_array, "image.tif", array)


def _array(name: str, array: np.ndarray, folder: Path) -> None:
    tifffile.imwrite(folder / name, array)


def _configs() -> Iterator[Case]:
    """Yield configs and data sets that cannot be trained on."""
    changes = {
        "empty": ("", None),
        "no TOML": ("[", None),
        "a list": ("x = [", None),
        "no name": ('name = "tiny"', ""),
        "no method": ('method = "panet"', ""),
        "unknown method": ("panet", "unet9"),
        "unknown key": ("width = 4", "colour = 4"),
        "width 0": ("width = 4", "width = 0"),
        "width text": ("width = 4", 'width = "x"'),
        "steps -1": ("steps = 1", "steps = -1"),
        "steps 0": ("steps = 1", "steps = 0"),
        "steps text": ("steps = 1", 'steps = "x"'),
        "batch 0": ("batch = 2", "batch = 0"),
        "batch -1": ("batch = 2", "batch = -1"),
        "query 1": ("query = 48", "query = 1"),
        "query 0": ("query = 48", "query = 0"),
        "prompt 0": ("prompt = 32", "prompt = 0"),
        "scenes 0": ("scenes = 2", "scenes = 0"),
        "scenes -1": ("scenes = 2", "scenes = -1"),
        "share 0": ("synthetic = 1.0", "synthetic = 0.0"),
        "share -1": ("synthetic = 1.0", "synthetic = -1.0"),
        "share NaN": ("synthetic = 1.0", "synthetic = nan"),
        "share text": ("synthetic = 1.0", 'synthetic = "x"'),
        "unknown section": ("[train]", "[training]"),
        "data that is not given": ("scenes = 2", 'datasets = ["x"]\nscenes = 2'),
        "a name that leads out": ('"tiny"', '"../../tiny"'),
        "rate NaN": ("steps = 1", "steps = 1\nlearning_rate = nan"),
    }
    for name, (old, new) in changes.items():
        text = old if new is None else CONFIG.replace(old, new)
        valid = name == "a name that leads out"
        yield Case(
            "training",
            f"config: {name}",
            partial(_config, text),
            either(_trained, "c.toml") if valid else refused("c.toml"),
        )
    yield Case(
        "training", "config: as it is", partial(_config, CONFIG), right(_trained)
    )
    for name, data in (("zeros", bytes(99)), ("not UTF-8", b"\xff\xfe")):
        yield Case(
            "training", f"config: {name}", partial(_config, data), refused("c.toml")
        )
    for name in ("empty", "no images", "no labels", "no description", "one odd image"):
        yield Case(
            "training", f"data set: {name}", partial(_data, name), refused("cells")
        )
    for name, array in {
        "blank": np.zeros((96, 96), "u1"),
        "tiny": np.ones((4, 4), "u1"),
    }.items():
        yield Case(
            "training",
            f"unlabelled: {name}",
            partial(_unlabelled, array),
            refused("pictures"),
        )
    yield Case(
        "training",
        "unlabelled: no image",
        partial(_unlabelled, None),
        refused("pictures"),
    )


def _config(text: str | bytes, place: Place) -> Action:
    Path("c.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return ["train", "c.toml", "-o", "m", *CPU]


def _data(name: str, place: Place) -> Action:
    folder = Path("data/cells")
    image, labels = discs()
    for part, array in (("images", image), ("labels", labels)):
        (folder / part).mkdir(parents=True)
        write_image(folder / part / "a.tif", array)
    (folder / "dataset.toml").write_text('name = "cells"\nkind = "instance"\n')
    if name == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif name == "no description":
        (folder / "dataset.toml").unlink()
    elif name == "one odd image":
        (folder / "images/a.tif").write_bytes(b"no image")
    else:
        shutil.rmtree(folder / name.partition(" ")[2])
    text = CONFIG.replace("scenes = 2", 'datasets = ["cells"]\nscenes = 2')
    Path("c.toml").write_text(text.replace("real = 0.0", "real = 1.0"))
    return ["train", "c.toml", "-o", "m", "--data", "data", *CPU]


def _unlabelled(array: np.ndarray | None, place: Place) -> Action:
    Path("pictures").mkdir()
    if array is not None:
        write_image(Path("pictures/a.tif"), array)
    words = ("--self-supervised", "pictures", "--method", "panet", "--minutes", "0.01")
    return ["train", *words, "--start-from", "none", "-o", "m", *CPU]


def _outputs() -> Iterator[Case]:
    """Yield places that no model may be written to."""
    pair = "a.tif=b.tif"

    def into(name: str, place: Place) -> Action:
        image, labels = discs()
        write_image(Path("a.tif"), image)
        write_image(Path("b.tif"), scene.partial(labels))
        if name == "a file":
            Path("m").write_text("my notes")
        elif name == "my data":
            Path("m").mkdir()
            write_image(Path("m/raw.tif"), image)
        elif name == "a link to my data":
            Path("real").mkdir()
            write_image(Path("real/raw.tif"), image)
            Path("m").symlink_to("real")
        elif name == "my README":
            Path("m").mkdir()
            Path("m/README.md").write_text("my notes")
        elif name == "my hidden file":
            Path("m").mkdir()
            Path("m/.notes").write_text("my notes")
        return _finetune(place, pair, "-o", "m")

    for name in (
        "a file",
        "my data",
        "a link to my data",
        "my README",
        "my hidden file",
    ):
        yield Case("training", f"into {name}", partial(into, name), refused("m"))
    for name in ("", ".", "/dev/null", "/dev/null/m", "x" * 300, "a.tif"):
        yield Case(
            "training",
            f"into {name[:12]!r}".replace("/", " "),
            lambda place, name=name: [
                "m" if w == "m" and name is None else (name if w == "m" else w)
                for w in into("", place)
            ],
            refused("/dev/null" if name.startswith("/") else name[:99]),
        )
