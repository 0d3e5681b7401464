"""The plan of a run over a large image: all that its tasks have to know."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.contrast import Profile, alike_notes
from ..core.fingerprint import fingerprint
from ..core.image import ImageError
from ..core.labels.blocks import Grid, block_grid
from ..core.labels.instances import halo_width
from ..core.planes import PlaneContrasts, Planes
from ..core.prompt import Prompts, PromptSet, as_prompt_set
from ..core.result import ObjectProperties, Recipe, versions
from ..core.settings import PostprocessSettings, SegmentSettings, check_range
from ..io.ome_zarr import LazyImage
from ..io.zarr_labels import LabelsLayout
from .identity import prompt_values
from .segment_image import model_reference, prompt_record

if TYPE_CHECKING:  # they import torch
    from ..engine.inference.device import Device
    from ..engine.inference.tiling import TileGrid
    from ..models.base import PromptSegmenter

BLOCK = 1024
"""Pixels along the blocks in which objects are found, and along chunks of labels."""

MIN_BLOCK, MAX_BLOCK = 16, 65_536

NOT_COMPARED = {
    *("notes", "device", "prompts", "query_file", "prompts_file", "fingerprint")
}
"""Fields of a recipe that do not decide on the labels, or are part of the content."""

MAX_PIXELS = 500_000_000_000
"""Pixels of the largest image; the list of its tasks alone takes gigabytes."""

TOO_LARGE = (
    "{path}: has {n:,} pixels, more than the {most:,} that one run can do: choose a "
    "coarser level of its pyramid, or cut it into parts."
)
TAKES_NO_PROMPTS = (
    "the model {name} takes no prompts: use it on image files that fit into memory"
)

Code = dict[str, np.ndarray]
"""The encoded prompts: arrays by name."""

WRONG_OBJECTS_NOT_USED = (
    "objects marked as wrong are not used for images done by parts: remove others like "
    "them by hand"
)


@dataclass(frozen=True)
class BlockOptions:
    """The blocks in which objects are found, and the file that takes the labels.

    Parameters
    ----------
    block : int
        Pixels along a block.
    halo : int, optional
        Pixels around a block that decide on the objects in it; by default twice the
        diameter of the prompts' objects.
    version : str, optional
        Of OME-Zarr, 0.4 or 0.5; by default that of the image.
    """

    block: int = BLOCK
    halo: int | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        check_range("block", self.block, MIN_BLOCK, MAX_BLOCK)
        check_range("halo", self.halo, 0, MAX_BLOCK)


@dataclass(frozen=True, eq=False)
class ChannelOptions:
    """The channels that are read, and their intensities; as in `segment`.

    Parameters
    ----------
    channels : tuple of int, optional
    rgb : bool, optional
    intensities : (C, 2) array or Profile, optional
        Percentiles of the whole image; by default those of a sample of it.
    """

    channels: tuple[int, ...] | None = None
    rgb: bool | None = None
    intensities: np.ndarray | Profile | None = None


@dataclass(frozen=True)
class Plan:
    """All that a task must know; stored as ``plan.json`` beside what the tasks write.

    Parameters
    ----------
    image, level, axes, channels, rgb
        Which pixels are read.
    stack, shape : tuple of int
        Number of planes along each stack axis, and (Y, X).
    model : str
        Name or folder of the model.
    recipe : dict
        Of the run; its settings, intensities and scale are those of every task.
    objects : dict
        `ObjectProperties` of the prompts.
    maps : tuple of str
        Names of the maps that the model predicts.
    block, halo : int
        Pixels of the grid on which objects are found.
    radius, stride : int
        Of the network.
    layout : dict
        Of the labels, without data type and folder.
    content : str
        Fingerprint of the pixels of the image and of the prompts.
    """

    image: str
    level: int
    axes: str
    channels: tuple[int, ...] | None
    rgb: bool
    stack: tuple[int, ...]
    shape: tuple[int, int]
    model: str
    recipe: dict[str, Any]
    objects: dict[str, Any]
    maps: tuple[str, ...]
    block: int
    halo: int
    radius: int
    stride: int
    layout: dict[str, Any] = field(default_factory=dict)
    content: str = ""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """Return the plan of values from JSON, where tuples have become lists."""
        tuples = {name: tuple(values[name]) for name in ("stack", "shape", "maps")}
        channels = values["channels"]
        return cls(
            **values
            | tuples
            | {"channels": None if channels is None else tuple(channels)}
        )

    @property
    def key(self) -> str:
        """Fingerprint of all that decides on the labels."""
        values = asdict(self)
        values["recipe"] = {
            k: v for k, v in values["recipe"].items() if k not in NOT_COMPARED
        }
        del values["image"]  # known by its content, wherever it is
        return fingerprint(values)

    @property
    def planes(self) -> list[tuple[int, ...]]:
        """Index of each plane into the stack axes."""
        return list(np.ndindex(*self.stack))

    @property
    def ranges(self) -> list[np.ndarray]:
        """Intensity range (C, 2) of each plane."""
        shared = self.recipe["intensities"]
        each = self.recipe["plane_intensities"] or [shared] * len(self.planes)
        return [np.asarray(one, np.float64) for one in each]

    @property
    def segment(self) -> SegmentSettings:
        """How the model is run."""
        return SegmentSettings.from_dict(self.recipe["segment"])

    @property
    def post(self) -> PostprocessSettings:
        """How objects are made."""
        return PostprocessSettings.from_dict(self.recipe["postprocess"])

    @property
    def object_properties(self) -> ObjectProperties:
        """Properties of the prompts' objects."""
        return ObjectProperties(**self.objects)

    def grid(self) -> TileGrid:
        """Return the tiles of a plane."""
        from ..engine.inference.tiling import TileGrid

        run = self.segment
        return TileGrid.of(
            self.shape,
            self.recipe["scale"],
            tile=run.tile,
            overlap=run.overlap,
            radius=self.radius,
            stride=self.stride,
        )

    def blocks(self) -> Grid:
        """Return the blocks of a plane."""
        return block_grid(self.shape, self.block, self.halo)


@dataclass(frozen=True, eq=False)
class _EncodedPrompts:
    """Encoded prompts of a network, shared by all tasks.

    Parameters
    ----------
    code : dict of arrays
    objects : ObjectProperties
    maps : tuple of str
        Names of the maps that the network predicts.
    scale : float
        Network pixels per image pixel.
    """

    code: Code
    objects: ObjectProperties
    maps: tuple[str, ...]
    scale: float


def make_plan(
    source: LazyImage,
    prompts: Prompts | str | Path,
    model: str | Path,
    run: SegmentSettings,
    post: PostprocessSettings,
    *,
    reading: ChannelOptions | None = None,
    options: BlockOptions | None = None,
    content: str,
) -> tuple[Plan, Code]:
    """Return the plan of a run, and the encoded prompts.

    Of the image only a sample is read, for its intensities, if they are not given.

    Parameters
    ----------
    source : LazyImage
    prompts : PromptSet, prompts, or path of a prompt file
    model : str or path
    run : SegmentSettings
    post : PostprocessSettings
    reading : ChannelOptions, optional
    options : BlockOptions, optional
    content : str
        Fingerprint of the pixels of the image.

    Raises
    ------
    ImageError, PromptError, ValueError
        If the image, the prompts, the model or the settings cannot be used.
    """
    from ..engine.inference.device import choose
    from ..engine.inference.predict import query_zoom, zoom_notes
    from ..engine.inference.prompt_features import resized
    from ..engine.inference.unwanted import shown_to_network
    from ..io.model_store import load_model

    reading, options = reading or ChannelOptions(), options or BlockOptions()
    if source.n_pixels > MAX_PIXELS:
        raise ImageError(
            TOO_LARGE.format(path=source.path, n=source.n_pixels, most=MAX_PIXELS)
        )
    run = replace(run, trust=False)
    post = replace(post, labels=post.labels or "objects")
    chosen, prompts_file = _prompts(prompts)
    loaded, device = load_model(model), choose(run.device)
    network = loaded.network
    if not network.needs_prompt:
        raise ValueError(TAKES_NO_PROMPTS.format(name=loaded.card.name))
    planes = Planes.of(
        source.array,
        chosen,
        axes=source.axes.order,
        channels=reading.channels,
        rgb=reading.rgb,
    )
    encoded = _encode(network, device, chosen, resize=run.scale_objects)
    given = reading.intensities
    if given is None or isinstance(given, Profile):
        contrasts = planes.contrasts(given or planes.profile(), chosen)
    else:
        contrasts = PlaneContrasts.given(given, len(planes.indices))
    ranges = list(contrasts.ranges)
    middle = len(planes.indices) // 2
    zoom = query_zoom(
        planes.view(planes.indices[middle]),
        shown_to_network(chosen),
        network,
        device,
        run,
        ranges[middle],
    )
    recipe = Recipe(
        model=model_reference(loaded.card),
        weights_sha256=loaded.card.sha256,
        prompts=tuple(prompt_record(p) for p in chosen),
        segment=run.to_dict(),
        postprocess=post.to_dict(),
        device=str(device),
        axes=planes.axes.order,
        channels=planes.channels,
        scale=encoded.scale * zoom,
        versions=versions(),
        intensities=tuple((float(a), float(b)) for a, b in ranges[0]),
        plane_intensities=contrasts.recorded,
        notes=(
            *contrasts.notes,
            *alike_notes(ranges, chosen),
            *_not_used(chosen),
            *zoom_notes(zoom),
        ),
        prompts_file=prompts_file,
        query_file=str(source.path),
        level=source.level,
        by_parts=True,
    )
    sizes = dict(zip(planes.axes.order, planes.shape, strict=True))
    objects = resized(encoded.objects, zoom)
    halo = halo_width(objects) if options.halo is None else options.halo
    plan = Plan(
        image=str(Path(source.path).absolute()),
        level=source.level,
        axes=planes.axes.order,
        channels=planes.channels,
        rgb=planes.rgb,
        stack=tuple(sizes[a] for a in planes.axes.stack),
        shape=(sizes["Y"], sizes["X"]),
        model=loaded.card.path or str(model),
        recipe=json.loads(recipe.to_json()),
        objects=asdict(objects),
        maps=encoded.maps,
        block=options.block,
        halo=halo,
        radius=network.overlap,
        stride=network.stride,
        layout=_layout(source, planes, options),
        content=fingerprint(
            {"image": content, "prompts": [prompt_values(p) for p in chosen]}
        ),
    )
    LabelsLayout(folder="", dtype="uint32", **plan.layout)  # refuses a wrong version
    return plan, encoded.code


def _prompts(prompts: Prompts | str | Path) -> tuple[PromptSet, str]:
    """Return the prompts to be used, and their file if they are read from one."""
    if not isinstance(prompts, str | Path):
        return as_prompt_set(prompts).usable(), ""
    from ..io.prompt_files import load_prompts

    return load_prompts(prompts).usable(), str(prompts)


def _not_used(prompts: PromptSet) -> tuple[str, ...]:
    """Return a note where prompts mark single objects as wrong."""
    return (WRONG_OBJECTS_NOT_USED,) if any(p.marks_object for p in prompts) else ()


def _encode(
    network: PromptSegmenter, device: Device, prompts: PromptSet, *, resize: bool
) -> _EncodedPrompts:
    from ..engine.inference.forward import Forward, evaluating
    from ..engine.inference.prompt_features import (
        network_scale,
        prompt_code,
        prompt_object_properties,
        prompt_tensors,
    )
    from ..engine.inference.unwanted import shown_to_network

    prompts = shown_to_network(prompts)
    scale = network_scale(prompts, network, resize=resize)
    forward = Forward(network, device)
    with evaluating(network, device):
        images, masks = prompt_tensors(prompts, scale)
        code = prompt_code(images, masks, forward)
        objects = prompt_object_properties(prompts, images, forward, code, scale)
        forward(images[0, :1], code)  # only then the names of the maps are known
    arrays = {name: value.float().cpu().numpy() for name, value in code.items()}
    return _EncodedPrompts(arrays, objects, forward.names, float(scale))


def _layout(source: LazyImage, planes: Planes, options: BlockOptions) -> dict[str, Any]:
    """Return the layout of the labels, a chunk for each block."""
    letters = planes.axes.stack + "YX"
    sizes = dict(zip(planes.axes.order, planes.shape, strict=True))
    return {
        "shape": tuple(sizes[a] for a in letters),
        "chunks": (*(1,) * (len(letters) - 2), options.block, options.block),
        "axes": letters,
        "scale": [source.scale.get(a, 1.0) for a in letters],
        "unit": source.unit,
        "origin": [source.origin.get(a, 0.0) for a in letters],
        "version": options.version or source.version or "0.5",
    }
