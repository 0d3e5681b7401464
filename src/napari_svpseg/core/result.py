"""Result of a segmentation run, and the recipe that repeats it."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import PurePath
from typing import Any

import numpy as np

from .settings import PostprocessSettings, SegmentSettings, flag_of

DEFAULT_SPLIT = 0.2
"""Split strength where the prompts show no touching objects, in [0, 1]."""

NOT_A_RECIPE = "This is no recipe, or one of a later version."


@dataclass(frozen=True)
class ObjectProperties:
    """Properties of the prompts' objects that guide post-processing.

    Parameters
    ----------
    diameter : float
        Typical equivalent diameter in pixels of the query.
    net : bool
        The prompts show a net, such as membranes, and no separate objects.
    holes : bool
        The objects have holes, such as cytoplasm around a nucleus.
    split : float
        Split strength in [0, 1] that a setting of 0.5 stands for.
    depth : float
        Mean distance of the objects' pixels to their borders, in pixels of the query;
        NaN if it is not known.
    """

    diameter: float
    net: bool = False
    holes: bool = False
    split: float = DEFAULT_SPLIT
    depth: float = float("nan")


@dataclass(frozen=True, eq=False)
class Maps:
    """Output of a network for one plane, from which objects are made.

    Parameters
    ----------
    foreground : (Y, X) float32 array
        Probability in [0, 1].
    distance : (Y, X) float32 array or None
        0 at the border of an object and outside, 1 in its centre.
    boundary : (Y, X) float32 array or None
        Probability in [0, 1] of an outline between or around objects.
    objects : ObjectProperties or None
        Properties of the prompts' objects, if they are known.
    classes : (Y, X) uint8 array or None
        Most likely class of each pixel, from 1, for a model with classes of its own.
    """

    foreground: np.ndarray
    distance: np.ndarray | None = None
    boundary: np.ndarray | None = None
    objects: ObjectProperties | None = None
    classes: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        named: Mapping[str, np.ndarray],
        objects: ObjectProperties | None = None,
        classes: np.ndarray | None = None,
    ) -> Maps:
        """Return the maps that a network gave these names."""
        return cls(
            named["foreground"],
            named.get("distance"),
            named.get("boundary"),
            objects,
            classes,
        )

    def window(self, rows_columns: tuple[slice, ...]) -> Maps:
        """Return the maps of some rows and columns of the plane."""
        arrays = {
            f.name: getattr(self, f.name)[rows_columns]
            for f in fields(self)
            if isinstance(getattr(self, f.name), np.ndarray)
        }
        return replace(self, **arrays)

    @property
    def uncertainty(self) -> np.ndarray:
        """(Y, X) float32 in [0, 1]: 1 where the probability is 0.5, 0 at 0 and 1."""
        return np.asarray(1 - np.abs(2 * self.foreground - 1), np.float32)


@dataclass(frozen=True)
class Recipe:
    """Everything needed to repeat a run.

    Parameters
    ----------
    model : str
        Name or folder of the model.
    weights_sha256 : str
        Hash of the weights file.
    prompts : tuple of dict
        Name, source and box of each prompt, in order.
    segment, postprocess : dict
        The settings as plain values.
    device : str
        Device that was used, with the reason if another one was asked for.
    axes : str
        Axes of the query, for example ``"YX"`` or ``"YXC"``.
    channels : tuple of int or None
        Channels of the query that were used; None means all.
    intensities : tuple
        Low and high percentile of each channel of the whole query.
    scale : float
        Factor by which the query was resampled for the network.
    notes : tuple of str
        Deviations from the settings, such as smaller tiles.
    versions : dict of str to str
        Versions of Python and the packages that influence the result.
    prompts_file, query_file : str
        Files that prompts and query were read from; empty if there were none.
    plane : tuple of int
        Index along T and Z, if a single plane of a stack was segmented.
    stack_axes : str
        Axes of that stack.
    needs_prompt : bool
        False for a model with classes of its own.
    other_planes : tuple of dict
        Recipes of the other planes, if planes were segmented one by one.
    level : int
        Level of the image's pyramid; 0 is the full size.
    channel_files : tuple of str
        Files, or names, of the images that were combined as channels.
    plane_intensities : tuple
        The same of each plane, where they differ: those of a movie that bleaches.
    by_parts : bool
        The image was segmented part by part into labels in a Zarr store.
    fingerprint : str
        Of all that decides on the labels, the pixels of the image among it; empty where
        the image was no file.
    """

    model: str
    weights_sha256: str = ""
    prompts: tuple[dict[str, Any], ...] = ()
    segment: dict[str, Any] = field(default_factory=dict)
    postprocess: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    axes: str = "YX"
    channels: tuple[int, ...] | None = None
    intensities: tuple[tuple[float, float], ...] = ()
    scale: float = 1.0
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    prompts_file: str = ""
    query_file: str = ""
    plane: tuple[int, ...] = ()
    stack_axes: str = ""
    needs_prompt: bool = True
    other_planes: tuple[dict[str, Any], ...] = ()
    level: int = 0
    channel_files: tuple[str, ...] = ()
    by_parts: bool = False
    plane_intensities: tuple[tuple[tuple[float, float], ...], ...] = ()
    fingerprint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the recipe as JSON text."""
        return json.dumps(self.to_dict(), indent=1, default=_plain)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Return the recipe written by `to_json`.

        Raises
        ------
        ValueError
            If ``text`` is no recipe, or one of a later version with other fields.
        """
        values = json.loads(text)
        known = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or not {"model"} <= set(values) <= known:
            raise ValueError(NOT_A_RECIPE)
        # JSON has lists only; equal recipes must stay equal after a round trip.
        values["prompts"] = tuple(values.get("prompts", ()))
        values["notes"] = tuple(values.get("notes", ()))
        values["intensities"] = tuple(tuple(v) for v in values.get("intensities", ()))
        values["plane_intensities"] = tuple(
            tuple(map(tuple, one)) for one in values.get("plane_intensities", ())
        )
        values["plane"] = tuple(values.get("plane", ()))
        values["other_planes"] = tuple(values.get("other_planes", ()))
        values["channel_files"] = tuple(values.get("channel_files", ()))
        if values.get("channels") is not None:
            values["channels"] = tuple(values["channels"])
        return cls(**values)

    def to_python(self) -> str:
        """Return Python code that repeats the run."""
        # Defaults are left out: the code shows what the user chose.
        extra = "".join(f", {word}" for word in self._keywords())
        axes = f", axes={self.axes!r}" if self.axes != "YX" else ""
        channels = "" if self.channels is None else f", channels={self.channels!r}"
        prompts, query = self.prompts_file or "cells.svprompt", self.query_file
        if self.by_parts and not self.channel_files:
            level = f", level={self.level}" if self.level else ""
            return (
                "import napari_svpseg as svpseg\n\n"
                f"outcome = svpseg.segment_zarr({query or 'query.zarr'!r}, "
                f"{prompts!r}, 'labels.zarr', {self.model!r}{level}{axes}{channels}"
                f"{extra})\n"
            )
        part = self._plane_index()
        if part:  # the plane alone would be scaled by percentiles of its own
            extra += f", intensities={[list(pair) for pair in self.intensities]!r}"
        load = given = ""
        if self.needs_prompt:
            load = f"prompts = svpseg.load_prompts({prompts!r})\n"
            given = "prompts, "
        imports, array = self._query_code(query or "query.tif")
        return (
            f"{imports}\n"
            f"{load}"
            f"query = {array}{part}\n"
            f"result = svpseg.segment(query, {given}model={self.model!r}"
            f"{axes}{channels}{extra})\n"
        )

    def _changed(self) -> list[tuple[str, Field[Any], Any]]:
        """Return the settings that a call has to name to give the same result.

        Each as the keyword of its group, its declaration and its value.
        """
        usual: dict[str, Any] = {
            "labels": "objects" if self.needs_prompt else "classes"
        }
        if self.by_parts and not self.channel_files:  # results are not checked there
            usual["trust"] = False
        groups = (
            ("settings", SegmentSettings, self.segment),
            ("postprocess", PostprocessSettings, self.postprocess),
        )
        return [
            (group, f, value)
            for group, kind, values in groups
            for f in fields(kind)
            if (value := values.get(f.name)) is not None
            and value != usual.get(f.name, f.default)
        ]

    def _keywords(self) -> list[str]:
        """Return the settings that a call has to name, as Python arguments."""
        words: list[str] = []
        grouped: dict[str, list[str]] = {"settings": [], "postprocess": []}
        for group, f, value in self._changed():
            own = f.metadata["keyword"]
            (words if own else grouped[group]).append(f"{f.name}={value!r}")
        kinds = {"settings": SegmentSettings, "postprocess": PostprocessSettings}
        for group, inner in grouped.items():
            if inner:
                name = kinds[group].__name__
                words.append(f"{group}=svpseg.{name}({', '.join(inner)})")
        return words

    def _query_code(self, query: str) -> tuple[str, str]:
        """Return the import lines, and the expression that reads the query."""
        ours = "import napari_svpseg as svpseg\n"
        if self.channel_files:
            files = repr(self.channel_files)
            code = f"np.stack([svpseg.read_image(p).array for p in {files}])"
            return f"import numpy as np\n\n{ours}", code
        ends = (".zarr", ".zip", ".ozx")  # a Zarr, or a path inside of one
        in_zarr = any(p.lower().endswith(ends) for p in PurePath(query).parts)
        if self.level or in_zarr:
            code = f"open_image({query!r}, level={self.level}).array"
            return f"{ours}from napari_svpseg.io.ome_zarr import open_image\n", code
        return ours, f"svpseg.read_image({query!r}).array"

    def _plane_index(self) -> str:
        """Return the code that takes the plane out of the stack, such as ``[3]``."""
        if not self.plane:
            return ""
        positions = iter(self.plane)
        words = [":" if a in "CYX" else str(next(positions)) for a in self.stack_axes]
        while words[-1] == ":":  # stack[3] instead of stack[3, :, :]
            words.pop()
        return f"[{', '.join(words)}]"

    def to_command(self) -> str:
        """Return the command that repeats the run on all planes of a stack."""
        words = [
            "svpseg",
            "segment",
            self.query_file or "query.tif",
            *(
                ["--prompts", self.prompts_file or "cells.svprompt"]
                if self.needs_prompt
                else []
            ),
            "-o",
            "labels.zarr" if self.by_parts else "out",
            "--model",
            self.model,
        ]
        axes = self.stack_axes or self.axes
        if axes not in ("YX", "YXC"):
            words += ["--axes", axes]
        if self.channels is not None:
            words += ["--channels", ",".join(map(str, self.channels))]
        if self.level:
            words += ["--level", str(self.level)]
        for _, f, value in self._changed():
            flag = flag_of(f)
            if isinstance(value, bool):
                words.append(flag if value else "--no-" + flag[2:])
            else:
                words += [flag, str(value)]
        return shlex.join(words)


def _plain(value: Any) -> Any:
    """Return numpy numbers and arrays as plain values, and anything else as text."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that influence a result."""
    packages = ("napari-svpseg", "torch", "numpy", "scikit-image")
    return {"python": platform.python_version()} | {n: _version(n) for n in packages}


@cache  # metadata are read from the disk, and every result names its versions
def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True, eq=False)
class Result:
    """Result of the segmentation of one query.

    Parameters
    ----------
    labels : (Y, X) uint32 array
        Object ids, 0 = background. Where classes were asked for, 1 is foreground, or
        the class id of a model that knows classes. Of a stack, in its shape without the
        channel axis.
    maps : Maps
        Output of the network, from which post-processing can be repeated.
    trust : float
        Dice score that the result is expected to have, in [0, 1], see
        `core.labels.reliability`. NaN if it was not asked for.
    recipe : Recipe
    seconds : float
        Wall time of the run.
    classes : dict of str to str
        Name and colour ``#rrggbb`` of each class, in the order of their ids from 1, for
        a model with classes.
    """

    labels: np.ndarray
    maps: Maps
    trust: float
    recipe: Recipe
    seconds: float = 0.0
    classes: dict[str, str] = field(default_factory=dict)

    @property
    def foreground(self) -> np.ndarray:
        """(Y, X) float32 foreground probability in [0, 1]."""
        return self.maps.foreground

    @property
    def uncertainty(self) -> np.ndarray:
        """(Y, X) float32 uncertainty of the foreground in [0, 1]."""
        return self.maps.uncertainty

    @property
    def n_objects(self) -> int:
        """Number of objects, the distinct ids in ``labels``."""
        from .labels.ids import count_objects  # not needed to read a recipe

        return count_objects(self.labels)

    @property
    def class_of(self) -> dict[int, str]:
        """Class name of each id in ``labels``, whose ids may be those of classes."""
        if self.recipe.postprocess.get("labels") == "classes":
            return dict(enumerate(self.classes, start=1))
        return self.object_classes

    @property
    def object_classes(self) -> dict[int, str]:
        """Class name of each id; empty for a model without classes."""
        found = self.labels > 0
        if self.maps.classes is None or not found.any():
            return {}
        # All pixels of an object have one class, that of its first pixel.
        ids, first = np.unique(self.labels[found], return_index=True)
        names, of_pixel = list(self.classes), self.maps.classes[found]
        return {
            int(i): names[int(of_pixel[at]) - 1]
            for i, at in zip(ids, first, strict=True)
        }
