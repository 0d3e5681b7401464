"""What a run returns, and the recipe that repeats it."""

from __future__ import annotations

import json
import platform
import shlex
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

import numpy as np

from .settings import PostprocessSettings, SegmentSettings, flag_of

USUAL_SPLIT = 0.2
"""How readily touching objects are split where the prompts do not tell."""


@dataclass(frozen=True)
class ObjectLook:
    """What the prompts' objects look like, as far as it guides making objects of maps.

    Parameters
    ----------
    diameter : float
        Typical equivalent diameter in pixels of the query.
    net : bool
        The prompts show a net, such as membranes, and no single objects.
    holes : bool
        The objects have holes, such as cytoplasm around a nucleus.
    split : float
        How readily touching ones are split where the settings say 0.5, in [0, 1].
    depth : float
        Mean distance of their pixels to their borders, in pixels of the query; NaN
        where it is not known.
    """

    diameter: float
    net: bool = False
    holes: bool = False
    split: float = USUAL_SPLIT
    depth: float = float("nan")


@dataclass(frozen=True, eq=False)
class Maps:
    """What a model says of each pixel, before objects are made of it.

    Parameters
    ----------
    foreground : (Y, X) float32 array
        Probability in [0, 1].
    distance : (Y, X) float32 array or None
        0 at an object's border and outside, 1 in its middle.
    boundary : (Y, X) float32 array or None
        Probability in [0, 1] of lying between touching objects.
    objects : ObjectLook or None
        What the prompts' objects look like, where it is known.
    classes : (Y, X) uint8 array or None
        Most likely class of each pixel, from 1, where the model knows classes.
    """

    foreground: np.ndarray
    distance: np.ndarray | None = None
    boundary: np.ndarray | None = None
    objects: ObjectLook | None = None
    classes: np.ndarray | None = None

    @property
    def uncertainty(self) -> np.ndarray:
        """(Y, X) float32 in [0, 1]: 1 where the foreground is a coin toss."""
        return np.asarray(1 - np.abs(2 * self.foreground - 1), np.float32)


@dataclass(frozen=True)
class Recipe:
    """Everything needed to repeat a run.

    Parameters
    ----------
    model : str
        Built-in name or folder of the model.
    weights_sha256 : str
        Hash of the weights file.
    prompts : tuple of dict
        Name, source and box of each prompt, in order.
    segment, postprocess : dict
        The settings as plain values.
    device : str
        Device that was really used, with the reason if another was asked for.
    axes : str
        Axes of the query, for example ``"YX"`` or ``"YXC"``.
    channels : tuple of int or None
    intensities : tuple
        Low and high percentile of each channel of the whole query.
    scale : float
        Factor by which the query was resampled for the network.
    notes : tuple of str
        What was done differently from what was asked, such as smaller tiles.
    versions : dict
    prompts_file, query_file : str
        Where they were read from, if they were files.
    plane : tuple of int
        Where one plane of a stack was segmented: its index along T and Z.
    stack_axes : str
        Axes of that stack.
    needs_prompt : bool
        False for a model that knows its classes.
    other_planes : tuple of dict
        Recipes of the other planes, where planes were segmented one by one.
    level : int
        Of the image's pyramid.
    channel_files : tuple of str
        Files, or names, of the images that were taken as channels.
    by_parts : bool
        The image was segmented part by part, into labels in a Zarr.
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
            If ``text`` is no recipe, or one of a later version.
        """
        values = json.loads(text)
        known = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or not {"model"} <= set(values) <= known:
            raise ValueError("This is no recipe, or one of a later version.")
        values["prompts"] = tuple(values.get("prompts", ()))
        values["notes"] = tuple(values.get("notes", ()))
        values["intensities"] = tuple(tuple(v) for v in values.get("intensities", ()))
        values["plane"] = tuple(values.get("plane", ()))
        values["other_planes"] = tuple(values.get("other_planes", ()))
        values["channel_files"] = tuple(values.get("channel_files", ()))
        if values.get("channels") is not None:
            values["channels"] = tuple(values["channels"])
        return cls(**values)

    def to_python(self) -> str:
        """Return Python code that repeats the run."""
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
        if part:  # percentiles are those of the whole stack
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
        """Return the imports, and the code that reads the query."""
        ours = "import napari_svpseg as svpseg\n"
        if self.channel_files:
            files = repr(self.channel_files)
            code = f"np.stack([svpseg.read_image(p).array for p in {files}])"
            return f"import numpy as np\n\n{ours}", code
        if self.level or query.endswith(".zarr"):
            code = f"open_image({query!r}, level={self.level}).array"
            return f"{ours}from napari_svpseg.io.ome_zarr import open_image\n", code
        return ours, f"svpseg.read_image({query!r}).array"

    def _plane_index(self) -> str:
        """Return what takes the plane out of the stack, such as ``[3]``."""
        if not self.plane:
            return ""
        positions = iter(self.plane)
        words = [":" if a in "CYX" else str(next(positions)) for a in self.stack_axes]
        while words[-1] == ":":
            words.pop()
        return f"[{', '.join(words)}]"

    def to_command(self) -> str:
        """Return the command line that repeats the run, on all planes of a stack."""
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
    """Return what JSON knows for numpy's numbers and arrays, and text for the rest."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def versions() -> dict[str, str]:
    """Return the versions that a recipe records."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("napari-svpseg", "torch", "numpy", "scikit-image"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@dataclass(frozen=True, eq=False)
class Result:
    """The answer for one query.

    Parameters
    ----------
    labels : (Y, X) uint32 array
        0 = background; object ids, or where classes were asked for 1 for all
        foreground, and class ids of a model that knows classes. Stacks have the
        stack's shape without the channel axis.
    maps : Maps
        Kept so that post-processing can be repeated without the model.
    trust : float
        In [0, 1]: Dice with which the query's own result re-segments the prompt;
        NaN where it was not asked for.
    recipe : Recipe
    seconds : float
        Wall time of the run.
    classes : dict of str to str
        Name and colour of each class, in the order of their ids from 1, of a model that
        knows classes.
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
        """(Y, X) float32 in [0, 1]."""
        return self.maps.uncertainty

    @property
    def n_objects(self) -> int:
        """Number of distinct ids."""
        return int(np.unique(self.labels[self.labels > 0]).size)

    @property
    def object_classes(self) -> dict[int, str]:
        """Class name of each id, where the model knows classes."""
        found = self.labels > 0
        if self.maps.classes is None or not found.any():
            return {}
        ids, first = np.unique(self.labels[found], return_index=True)
        names, of_pixel = list(self.classes), self.maps.classes[found]
        return {
            int(i): names[int(of_pixel[at]) - 1]
            for i, at in zip(ids, first, strict=True)
        }
