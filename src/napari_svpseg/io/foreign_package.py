"""Packages of bioimage.io that other programs wrote, read as models that run here.

The description (specification 0.4 or 0.5) says how intensities are prepared and which
sizes the graph takes; what its outputs mean is told from their names, or by the user.
Before a model is taken, it has to give the test output of its package.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.annotation.image_tags import class_colours
from ..core.errors import short_line
from ..core.fingerprint import fingerprint
from ..core.labels.star_convex import star_convex_labels
from ..core.model_card import ModelCard
from ..core.processing import Preparation, StepError
from .foreign_description import modern, parsed
from .foreign_outputs import is_star_step, meaning, steps_of
from .model_store import BAD_PATH, TOO_LARGE, ModelFormatError, member_parts

if TYPE_CHECKING:
    from ..models.graph import GraphSegmenter

DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml")
"""Names of the description in a package of bioimage.io."""

MAX_DESCRIPTION, MAX_TOTAL = 2_000_000, 2_000_000_000
"""Largest description, and largest sum of the files that are read, in bytes."""

MAX_SIDE = 8192
"""Largest side in pixels that an image has to have at least."""

FORMS = {"onnx": "onnx", "torchscript": "torchscript", "pytorch_script": "torchscript"}
"""Weights that can be run, by the words of both specifications; the first is taken."""

AGREE = 0.01
"""How far a value may be from the test output, and the share that may be farther."""

NO_YAML = (
    "{path}: reading packages of bioimage.io needs the package PyYAML: "
    'pip install "napari-svpseg[bioimageio]".'
)
NOT_A_MODEL = "{path}: the description is not that of a model of bioimage.io ({why})."
OTHER_VERSION = "{path}: format version {version} of bioimage.io is not known here."
OTHER_WEIGHTS = (
    "{path}: only ONNX and TorchScript are run here, the package has {found}. Convert "
    "it with bioimageio.core, or run it in the program it was made for."
)
MISSING = "{path}: the file {name!r} of its description is not in the package."
ELSEWHERE = "{path}: {name!r} lies on the internet: download the complete package."
WRONG_SUM = (
    "{path}: {name!r} is damaged or was replaced (its checksum differs): download the "
    "package again."
)
NOT_2D = "{path}: only models of one 2-D image are run here ({why})."
NOT_PROBABILITIES = (
    "{path}: its output is no probability ({low:.3g} to {high:.3g} in its test), so "
    "that objects cannot be told from it."
)
NO_SHARES = (
    "{path}: its classes and background are not parts of one whole (they add up to "
    "{low:.3g} to {high:.3g} in its test), so that classes cannot be told from them."
)
DISAGREES = (
    "{path}: its graph does not give the package's own test output here (difference "
    "{off:.3g}): it is damaged, or needs what is not known here."
)
CANNOT_RUN = "{path}: its graph cannot be run ({reason})."
BAD_STEP = "{path}: {reason}, so that the model cannot be run."


@dataclass(frozen=True, eq=False)
class ForeignModel:
    """A model of another program, ready to be stored.

    Parameters
    ----------
    card : ModelCard
    network : GraphSegmenter
        With its graph.
    """

    card: ModelCard
    network: GraphSegmenter


@dataclass(eq=False)
class _Package:
    """The files of a package, which are never unpacked to the disk."""

    archive: zipfile.ZipFile
    path: Path
    folder: str = ""
    read_bytes: int = 0
    about: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise `ModelFormatError` for links, and paths that lead elsewhere."""
        for info in self.archive.infolist():
            member_parts(info.filename, self.path)
            if (info.external_attr >> 16) & 0o170000 == 0o120000:  # a link
                raise ModelFormatError(
                    BAD_PATH.format(path=self.path, member=info.filename)
                )

    def read(self, about: Any) -> bytes:
        """Return a file of the description: a name, or its source and checksum."""
        given = about if isinstance(about, Mapping) else {"source": about}
        name = str(given.get("source"))
        if "://" in name:
            raise ModelFormatError(ELSEWHERE.format(path=self.path, name=name))
        member = str(PurePosixPath(self.folder, name))
        try:
            info = self.archive.getinfo(member)
        except KeyError as error:
            raise ModelFormatError(MISSING.format(path=self.path, name=name)) from error
        self.read_bytes += info.file_size
        if self.read_bytes > MAX_TOTAL:
            raise ModelFormatError(
                TOO_LARGE.format(path=self.path, limit=MAX_TOTAL >> 20)
            )
        data = self.archive.read(info)
        if given.get("sha256") and fingerprint(data) != given["sha256"]:
            raise ModelFormatError(WRONG_SUM.format(path=self.path, name=name))
        return data

    def array(self, about: Any) -> np.ndarray:
        """Return an array that was saved by NumPy, without objects in it."""
        return np.asarray(np.load(io.BytesIO(self.read(about)), allow_pickle=False))


def read_foreign(
    archive: zipfile.ZipFile, path: Path, outputs: Sequence[str] = ()
) -> ForeignModel:
    """Return the model in a package of bioimage.io, after running its test.

    Parameters
    ----------
    archive : ZipFile
    path : Path
        Of the zip, for errors.
    outputs : sequence of str
        What each channel of the outputs is, where the package does not say it.

    Raises
    ------
    ModelFormatError
        If it cannot be run here; the message says why.
    """
    package = _Package(archive, path)
    package.check()
    about = package.about = _description(package)
    try:
        return _model(package, about, outputs)
    except StepError as error:
        raise ModelFormatError(BAD_STEP.format(path=path, reason=error)) from error
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        why = f"{type(error).__name__}: {short_line(error)}"
        raise ModelFormatError(NOT_A_MODEL.format(path=path, why=why)) from error


def _description(package: _Package) -> dict[str, Any]:
    """Return the description, in the words of specification 0.5."""
    names = [
        n for n in package.archive.namelist() if PurePosixPath(n).name in DESCRIPTIONS
    ]
    name = min(names, key=lambda n: len(PurePosixPath(n).parts))
    package.folder = str(PurePosixPath(name).parent)
    info = package.archive.getinfo(name)
    if info.file_size > MAX_DESCRIPTION:
        raise ModelFormatError(
            TOO_LARGE.format(path=package.path, limit=MAX_DESCRIPTION >> 20)
        )
    text = package.archive.read(info)
    try:
        about = parsed(text)
    except ImportError as error:
        raise ModelFormatError(NO_YAML.format(path=package.path)) from error
    except ValueError as error:
        raise ModelFormatError(
            NOT_A_MODEL.format(path=package.path, why=short_line(error))
        ) from error
    if not isinstance(about, dict) or about.get("type") != "model":
        raise ModelFormatError(
            NOT_A_MODEL.format(path=package.path, why="its type is not model")
        )
    version = str(about.get("format_version", ""))
    if version.startswith("0.5."):
        return about
    if version.startswith("0.4."):
        try:
            return modern(about)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFormatError(
                NOT_A_MODEL.format(path=package.path, why=short_line(error))
            ) from error
    raise ModelFormatError(OTHER_VERSION.format(path=package.path, version=version))


# --------------------------------------------------------------------- the model
def _model(
    package: _Package, about: dict[str, Any], outputs: Sequence[str]
) -> ForeignModel:
    path = package.path
    if len(about["inputs"]) != 1:
        raise ModelFormatError(
            NOT_2D.format(path=path, why=f"it takes {len(about['inputs'])} inputs")
        )
    weights, form = _weights(about, path)
    graph = package.read(weights)
    image = _input(about["inputs"][0], path)
    tensors = about["outputs"]
    names, stars = meaning(about, outputs, path)
    arguments = {
        "form": form,
        "size": len(graph),
        "image": image,
        "outputs": [_output(tensor, path) for tensor in tensors],
        "names": names,
        "halo": max(int(a.get("halo", 0)) for t in tensors for a in t["axes"]),
        "stars": stars,
    }
    card = ModelCard(
        name=_name(about),
        method="graph",
        arguments=arguments,
        licence=str(about.get("license") or "not stated"),
        channels=str(image["channels"]),
        title=_line(about.get("description"), 200),
        paper=_paper(about),
        training={"package": "bioimage.io", "id": str(about.get("id") or "")},
        needs_prompt=False,
    )
    given = package.array(about["inputs"][0]["test_tensor"])
    wanted = [package.array(tensor["test_tensor"]) for tensor in tensors]
    return _tested(card, graph, given, wanted, package)


def _weights(about: dict[str, Any], path: Path) -> tuple[Any, str]:
    """Return the description of the weights that are used, and their form."""
    there = {k: v for k, v in about["weights"].items() if v}
    for word, form in FORMS.items():
        if word in there:
            if there[word].get("external_data"):
                raise ModelFormatError(
                    CANNOT_RUN.format(path=path, reason="ONNX in more than one file")
                )
            return there[word], form
    raise ModelFormatError(
        OTHER_WEIGHTS.format(path=path, found=", ".join(there) or "none")
    )


def _input(tensor: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return axes, channels, sides and steps of the input."""
    image: dict[str, Any] = {"axes": _letters(tensor, path), "channels": 1}
    for axis, letter in zip(tensor["axes"], image["axes"], strict=True):
        if letter == "c":
            image["channels"] = len(axis["channel_names"])
        elif letter in "yx":
            size = axis["size"]
            if isinstance(size, Mapping):
                if "min" not in size:
                    raise ModelFormatError(
                        NOT_2D.format(path=path, why="sides depend on one another")
                    )
                size = [int(size["min"]), int(size["step"])]
            image[letter] = size
            least = size[0] if isinstance(size, list) else size
            if not 1 <= least <= MAX_SIDE or (isinstance(size, list) and size[1] < 1):
                raise ModelFormatError(
                    NOT_2D.format(path=path, why=f"a side of {size}")
                )
    if not 1 <= image["channels"] <= 3:
        why = f"it takes {image['channels']} channels"
        raise ModelFormatError(NOT_2D.format(path=path, why=why))
    data = tensor.get("data")
    kind = data.get("type") if isinstance(data, Mapping) else None
    image["dtype"] = str(np.dtype(kind or "float32"))
    image["steps"] = list(tensor.get("preprocessing") or [])
    return image


def _output(tensor: Mapping[str, Any], path: Path) -> dict[str, Any]:
    steps = [s for s in steps_of(tensor) if not is_star_step(s)]
    return {"axes": _letters(tensor, path), "steps": steps}


def _letters(tensor: Mapping[str, Any], path: Path) -> str:
    """Return the axes as a letter each; other axes are of size 1, as ``1``."""
    letters = ""
    for axis in tensor["axes"]:
        if axis["type"] in ("batch", "channel"):
            letters += axis["type"][0]
        elif axis["type"] == "space" and axis.get("id") in ("y", "x"):
            letters += axis["id"]
        elif axis.get("size") == 1:
            letters += "1"
        else:
            why = f"it has the axis {axis.get('id') or axis['type']}"
            raise ModelFormatError(NOT_2D.format(path=path, why=why))
    if sorted(letters.replace("1", "").replace("b", "").replace("c", "")) != ["x", "y"]:
        raise ModelFormatError(NOT_2D.format(path=path, why=f"axes {letters}"))
    return letters


# ------------------------------------------------------------------ trying it out
def _tested(
    card: ModelCard,
    graph: bytes,
    given: np.ndarray,
    wanted: list[np.ndarray],
    package: _Package,
) -> ForeignModel:
    """Return the model with its classes, after it gave its test output."""
    import torch

    from ..models.graph import GraphSegmenter, from_layout, graph_tensor

    about, path = package.about, package.path
    try:
        network = GraphSegmenter(**card.arguments)
        network.load_state_dict({"graph": graph_tensor(graph)})
        image = np.moveaxis(from_layout(given, network.image["axes"]), 0, -1)
        prepare = Preparation(network.steps, image.reshape(-1, image.shape[-1]))
        found = network.answer(np.moveaxis(prepare(image), -1, 0))
        network(torch.from_numpy(np.moveaxis(prepare(image), -1, 0)[None]), {})
    except StepError:
        raise
    except Exception as error:  # of ONNX Runtime, which has classes of its own
        reason = short_line(error) or type(error).__name__
        raise ModelFormatError(CANNOT_RUN.format(path=path, reason=reason)) from error
    labels = any(is_star_step(s) for t in about["outputs"] for s in steps_of(t))
    off = (
        _labels_off(network, found, wanted) if labels else _off(network, found, wanted)
    )
    if off > AGREE:
        raise ModelFormatError(DISAGREES.format(path=path, off=off))
    if network.stars:
        return ForeignModel(card, network)
    used = found[[i for i, n in enumerate(network.names) if n != "ignore"]]
    low, high = float(used.min()), float(used.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ModelFormatError(NOT_PROBABILITIES.format(path=path, low=low, high=high))
    if not network.knows_classes:
        return ForeignModel(card, network)
    shares = found.sum(0)
    if "background" in network.names and np.abs(shares - 1).max() > 0.05:
        raise ModelFormatError(
            NO_SHARES.format(path=path, low=shares.min(), high=shares.max())
        )
    classes = class_colours(tuple(network.classes))
    return ForeignModel(replace(card, classes=classes), network)


def _off(network: Any, found: np.ndarray, wanted: list[np.ndarray]) -> float:
    """Return how far the answer is from the test outputs, but for a few values."""
    from ..models.graph import from_layout

    pairs = zip(network.outputs, wanted, strict=True)
    tests = np.concatenate([from_layout(w, about["axes"]) for about, w in pairs])
    if tests.shape != found.shape:
        return float("inf")
    off = np.abs(found - tests) / np.maximum(1, np.abs(tests))
    return float(np.quantile(off, 1 - AGREE))


def _labels_off(network: Any, found: np.ndarray, wanted: list[np.ndarray]) -> float:
    """Return the share of pixels that are object in one of answer and test only."""
    shape = wanted[0].squeeze().shape
    labels = star_convex_labels(found[0], found[1:], shape, **network.stars)
    return float(np.mean((labels > 0) != (wanted[0].squeeze() > 0)))


def _name(about: dict[str, Any]) -> str:
    """Return a name for the model's folder."""
    name = re.sub(r"[^\w.-]+", "-", str(about.get("name") or "model")).strip("-.")
    return name[:60] or "model"


def _paper(about: dict[str, Any]) -> str:
    """Return the first reference."""
    cited = about.get("cite") or []
    return _line(cited[0].get("text"), 300) if cited else ""


def _line(text: Any, length: int) -> str:
    """Return a text in one line, cut to a length."""
    return " ".join(str(text or "").split())[:length]
