"""Training from image-level tags, from files or arrays to a model folder.

See ``docs/train-from-tags.md``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.annotation.image_tags import (
    FIRST_STAGE,
    SECOND_STAGE,
    BankPatch,
    TagTrainingError,
    TagTrainingPreview,
    TagTrainingProgress,
    TagTrainingResult,
    TagTrainingSettings,
    class_colours,
)
from ..core.geometry import Box
from ..core.image import ImageError
from ..core.model_card import ModelCard
from ..core.progress import Progress, ignore_progress
from ..core.prompt import Prompt, PromptSet
from ..core.settings import PostprocessSettings, SegmentSettings
from ..io.free_path import free_path
from ..io.locks import claimed_model
from ..io.model_store import check_model_folder, load_model, save_model, user_folder
from ..io.ownership import check_work_folder
from .identity import training_identity
from .tagged_images import (
    Images,
    TaggedImages,
    TagsOfImages,
    check_tags,
    named_in_note,
)
from .training_state import EARLIER, RUN, begin_training

if TYPE_CHECKING:
    from ..engine.inference.device import Device
    from ..engine.tag_training.patch_bank import Bank
    from ..engine.tag_training.stages import Course
    from ..engine.tag_training.tagged_crops import Windows
    from ..models.base import SemanticSegmenter
    from ..models.semantic import Trunk

TRAINING_PARTS = ("first", "second", "stop", RUN)
"""What a training makes in the folder of its checkpoints."""

STAGES = ("reading", "bank", FIRST_STAGE, "pseudo masks", SECOND_STAGE, "saving")
N_PREVIEWS = 2
MAX_PREVIEW_SIDE = 1024

SEVERAL_KINDS = "images of several kinds: each is measured by its own intensities"
NO_IMAGE = "No image can be used: {error}"
OTHER_ENCODER = (
    "The model '{name}' has another kind of encoder: start from svp, or from a model "
    "made of it."
)
NO_SECOND_STAGE = "stopped in the first stage, so there is no second network"


class Reporter:
    """Reports the progress of a training, and stops it where that is asked.

    Parameters
    ----------
    on_progress : Progress
    on_partial : callable or None
    stages : sequence of str
        The stages that this training has.
    """

    def __init__(
        self,
        on_progress: Progress,
        on_partial: Callable[[Any], None] | None,
        stages: Sequence[str],
    ) -> None:
        self._on_progress, self._stages = on_progress, list(stages)
        self.on_partial = on_partial or (lambda value: None)
        self.wants_partial = on_partial is not None

    def __call__(self, progress: TagTrainingProgress) -> None:
        """Report a step; raises `Cancelled` if the training is to end at once."""
        share = progress.step / max(progress.n_steps, 1)
        done = (self._stages.index(progress.stage) + min(share, 1.0)) * 1000
        total = progress.losses.get("total")
        loss = "" if total is None else f", loss {total:.3f}"
        self._on_progress(
            round(done),
            1000 * len(self._stages),
            f"{progress.stage}, step {progress.step} of {progress.n_steps}{loss}",
        )
        self.on_partial(progress)


def train_from_tags(
    images: Images,
    tags: TagsOfImages,
    *,
    settings: TagTrainingSettings | None = None,
    output: str | Path | None = None,
    device: str = "auto",
    start_from: str | Path = "svp",
    bank: Sequence[BankPatch] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Progress | None = None,
    on_partial: Callable[[Any], None] | None = None,
) -> TagTrainingResult:
    """Train a model of classes from tags that say which image holds which class.

    Parameters
    ----------
    images : folder, mapping of str to path or array, or sequence of paths or arrays
        Single planes, grey or colour. Names in the tags are relative to the folder.
    tags : Tags, path of a ``tags.csv``, mapping, or sequence
        Classes of each image; an empty list says that it holds none of them.
    settings : TagTrainingSettings, optional
    output : path, optional
        Model folder to write; by default a new one among the user's models.
        Checkpoints lie beside it in ``NAME-training``.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    start_from : str or path
        Model whose encoder is the start: ``svp``, or one made of it.
    bank : sequence of BankPatch, optional
        An image bank that the user has edited; by default a new one is found.
    resume : bool
        Go on from the checkpoints, if there are some of the same images, tags, settings
        and versions.
    overwrite : bool
        Allow to replace a model that was changed, or comes from elsewhere.
    on_progress : callable, optional
        Called with ``(done, total, message)``; may raise `Cancelled`.
    on_partial : callable, optional
        Called with a `TagTrainingProgress` at each step, the bank (a list of
        `BankPatch`) once it is found, and a `TagTrainingPreview` of some images after
        each pass.

    Returns
    -------
    TagTrainingResult

    Raises
    ------
    TagTrainingError, TagsError
        If nothing can be learned from the tags, in one line.
    """
    settings = TagTrainingSettings.of(settings)
    folder = Path(output) if output else _new_folder()
    check_model_folder(folder, overwrite, start_from)  # now, not after the training
    given = TaggedImages.of(images, tags)
    import torch  # after all that can be wrong was checked

    from ..engine.inference.device import choose
    from ..engine.tag_training.stages import Course

    skipped = () if settings.second_stage else ("pseudo masks", SECOND_STAGE)
    stages = [stage for stage in STAGES if stage not in skipped]
    report = Reporter(on_progress or ignore_progress, on_partial, stages)
    training = training_folder(folder)
    course = Course(training, report, settings.minutes)
    with claimed_model(folder):
        course.stop_file.unlink(missing_ok=True)
        chosen = choose(device)
        torch.manual_seed(settings.seed)
        work = _Work(given, settings, course, report, chosen, *_start(start_from))
        work.read()
        work.find_patch_bank(bank)
        _check_work(training)
        resumed, told = begin_training(
            training,
            work.identity(bank),
            resume=resume,
            keep=(course.stop_file.name,),
        )
        work.notes += told
        return work.save(folder, work.train(resumed), overwrite)


def find_patch_bank(
    images: Images,
    tags: TagsOfImages,
    *,
    settings: TagTrainingSettings | None = None,
    device: str = "auto",
    start_from: str | Path = "svp",
    on_progress: Progress | None = None,
) -> tuple[BankPatch, ...]:
    """Return the image bank that `train_from_tags` would start from; takes seconds.

    Parameters
    ----------
    images, tags, settings, device, start_from, on_progress
        As for `train_from_tags`.
    """
    from ..engine.inference.device import choose
    from ..engine.tag_training.stages import Course

    settings = TagTrainingSettings.of(settings)
    report = Reporter(on_progress or ignore_progress, None, STAGES[:2])
    work = _Work(
        TaggedImages.of(images, tags),
        settings,
        Course(Path(), report),
        report,
        choose(device),
        *_start(start_from),
    )
    work.read()
    work.find_patch_bank(None)
    assert work.bank is not None
    return work.bank.patches


def training_folder(output: str | Path) -> Path:
    """Return the folder of a training's checkpoints, beside the model."""
    output = Path(output)
    return output.with_name(f"{output.name}-training")


def stop_tag_training(output: str | Path) -> None:
    """Ask the training that will write the model folder ``output`` to end now.

    It writes the model as learned so far. Works from any process.
    """
    folder = training_folder(output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stop").touch()


def discard_tag_training(output: str | Path) -> None:
    """Delete the checkpoints of a cancelled training of the model ``output``.

    Raises
    ------
    InUseError
        If the training still goes on.
    ReplaceError
        If the folder of the checkpoints holds anything else.
    """
    with claimed_model(output):
        _discard(training_folder(output))


def _check_work(training: Path) -> None:
    """Raise `ForeignTargetError` if a folder holds more than a training's work."""
    earlier = {path.name for path in training.glob(f"{EARLIER}*")}
    check_work_folder(training, {*TRAINING_PARTS, *earlier})


def _discard(training: Path) -> None:
    _check_work(training)
    shutil.rmtree(training, ignore_errors=True)


def _new_folder() -> Path:
    """Return a folder among the user's own models that is not there yet."""
    return free_path(user_folder() / "from-tags", separator="-")


def _start(model: str | Path) -> tuple[Trunk, dict[str, Any], str]:
    """Return the encoder of a model, its arguments and its licence."""
    from ..models.semantic import Trunk

    loaded = load_model(model)
    names = ("widths", "depths", "pixel_features")
    arguments = {k: v for k, v in loaded.card.arguments.items() if k in names}
    trunk = Trunk(**arguments)
    if not trunk.take_weights(getattr(loaded.network, "trunk", loaded.network)):
        raise TagTrainingError(OTHER_ENCODER.format(name=loaded.card.name))
    return trunk, arguments, loaded.card.licence


@dataclass
class _Work:
    """State of one training, and its stages in order."""

    given: TaggedImages
    settings: TagTrainingSettings
    course: Course
    report: Reporter
    device: Device
    trunk: Trunk
    arguments: dict[str, Any]
    licence: str
    notes: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    windows: Windows | None = None
    shapes: list[tuple[int, int]] = field(default_factory=list)
    shared: dict[str, Any] | None = None
    bank: Bank | None = None

    def _tell(self, stage: str, step: int, n_steps: int) -> None:
        self.report(TagTrainingProgress(stage, step, n_steps, self.course.seconds))

    # -- reading -------------------------------------------------------------------

    def read(self) -> None:
        """Read the images into windows; those that cannot be read are left out."""
        from ..engine.tag_training.tagged_crops import cut_windows

        tags = self.given.tags
        self.classes = self.settings.classes or tags.classes
        unknown = sorted({c for held in tags.values() for c in held} - {*self.classes})
        self.notes += [*self.given.notes, *named_in_note("classes left out", unknown)]
        check_tags({n: tags[n] for n in self.given.sources}, self.classes)
        self._share_intensities()
        rows = {
            name: [float(c in tags[name]) for c in self.classes]
            for name in self.given.sources
        }
        self.windows = cut_windows(self._planes(), rows, self.settings)
        usable = {name: tags[name] for name in self.windows.names}
        self.notes += check_tags(usable, self.classes)

    def _share_intensities(self) -> None:
        kind = self.settings.intensities
        if kind == "image":
            return
        largest = self.settings.window if kind == "auto" else None
        self.shared = self.given.share_intensities(largest)
        if self.shared is None and kind == "set":
            self.notes.append(SEVERAL_KINDS)

    def _planes(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        bad: list[str] = []
        n = len(self.given.sources)
        for i, name in enumerate(self.given.sources, 1):
            self._tell("reading", i, n)
            try:
                plane, intensities = self.given.plane(name)
            except ImageError as error:
                bad.append(str(error))
                continue
            self.shapes.append(plane.shape[:2])
            yield name, plane, intensities
        if len(bad) == n:
            raise TagTrainingError(NO_IMAGE.format(error=bad[0]))
        self.notes += [f"left out, {text}" for text in bad]

    # -- bank ----------------------------------------------------------------------

    def find_patch_bank(self, given: Sequence[BankPatch] | None) -> None:
        """Find the appearances of the classes, or take the bank the user has edited."""
        import copy

        from ..engine.tag_training.patch_bank import build_bank
        from ..models.pbip import BankEncoder

        assert self.windows is not None
        self._tell("bank", 0, 1)
        encoder = BankEncoder(copy.deepcopy(self.trunk))
        self.bank = build_bank(
            encoder,
            self.windows,
            self.shapes,
            self.classes,
            self.settings,
            self.device.torch_device,
            given,
        )
        self.notes += self.bank.notes
        self._tell("bank", 1, 1)
        self.report.on_partial(list(self.bank.patches))

    def identity(self, given: Sequence[BankPatch] | None) -> str:
        """Return the fingerprint of all that decides on the model, but for the time."""
        assert self.windows is not None
        windows, settings = self.windows, self.settings.to_dict()
        del settings["minutes"]
        return training_identity(
            *(v.cpu().numpy() for v in self.trunk.state_dict().values()),
            windows.pixels.numpy(),
            windows.owner.numpy(),
            windows.corner,
            windows.tags.numpy(),
            shape=tuple(windows.pixels.shape),
            names=windows.names,
            classes=self.classes,
            settings=settings,
            arguments=self.arguments,
            bank=None if given is None else [patch.to_dict() for patch in given],
        )

    # -- training ------------------------------------------------------------------

    def train(self, resume: bool) -> tuple[SemanticSegmenter, str, dict[str, Any]]:
        """Train the stages; return the network, its method and its arguments."""
        import torch

        from ..engine.tag_training import stages as engine

        assert self.windows is not None and self.bank is not None
        settings, windows, course = self.settings, self.windows, self.course
        train, validation = engine.split_images(len(windows.names), settings.seed)
        run = engine.StageRun(
            windows.of_images(train),
            windows.of_images(validation),
            course,
            self.device.torch_device,
            course.left(engine.FIRST_SHARE if settings.second_stage else 1.0),
            resume,
            self._preview,
        )
        first = engine.FirstStage.of(
            settings, windows, self.bank, self.trunk, self.arguments
        )
        network = first.run(run)
        if not settings.second_stage or course.stopped:
            if settings.second_stage:
                self.notes.append(NO_SECOND_STAGE)
            return network, first.method, first.arguments
        masks = engine.pseudo_masks(network, windows, course)
        torch.manual_seed(settings.seed)
        second = engine.SecondStage.of(
            settings, windows, masks, self.trunk, self.arguments
        )
        trained = second.run(replace(run, seconds=course.left()))
        return trained, second.method, second.arguments

    def _preview(self, network: SemanticSegmenter) -> None:
        """Report maps of the first images that hold a class."""
        if not self.report.wants_partial:
            return
        assert self.windows is not None
        tags = self.given.tags
        some = [n for n in self.windows.names if tags[n]][:N_PREVIEWS]
        for name in some:
            plane, intensities = self.given.plane(name)
            if max(plane.shape[:2]) > MAX_PREVIEW_SIDE:
                continue
            maps = self._maps(network, plane, intensities)
            shade = np.round(maps.foreground * 255).astype(np.uint8)
            self.report.on_partial(TagTrainingPreview(name, maps.classes, shade))

    def _maps(self, network: SemanticSegmenter, plane: Any, intensities: Any) -> Any:
        from ..engine.inference.predict import predict

        return predict(
            plane, None, network, self.device, SegmentSettings(trust=False), intensities
        ).maps

    # -- saving --------------------------------------------------------------------

    def save(
        self,
        folder: Path,
        trained: tuple[SemanticSegmenter, str, dict[str, Any]],
        overwrite: bool,
    ) -> TagTrainingResult:
        """Write the model folder with the bank as prompts."""
        network, method, arguments = trained
        assert self.windows is not None and self.bank is not None
        self._tell("saving", 0, 1)
        network = network.cpu().eval()
        tags = self.given.tags
        held = {
            c: len([n for n in self.windows.names if c in tags[n]])
            for c in self.classes
        }
        card = ModelCard(
            name=folder.name,
            method=method,
            arguments=arguments,
            licence=self.licence,
            title="Trained from image-level tags: " + ", ".join(self.classes),
            classes=class_colours(self.classes),
            training={
                "from": "image-level tags",
                "images": len(self.windows.names),
                "windows": len(self.windows),
                "images_of": held,
                "settings": self.settings.to_dict(),
                "notes": self.notes,
                "intensities": self.shared,
                "seconds": round(self.course.seconds, 1),
                "bank": [patch.to_dict() for patch in self.bank.patches],
            },
        )
        save_model(
            folder,
            network,
            card,
            history=self.course.history or None,
            prompts=self._prompts(network, folder.name),
            overwrite=overwrite,
        )
        self._tell("saving", 1, 1)
        complete = not self.course.stopped and self.settings.minutes is None
        if complete:
            _discard(self.course.folder)
        return TagTrainingResult(
            str(folder),
            self.bank.patches,
            tuple(self.course.history),
            tuple(self.notes),
            self.course.seconds,
        )

    def _prompts(self, network: SemanticSegmenter, name: str) -> PromptSet:
        """Return the bank as prompts, masks as the network sees them."""
        assert self.bank is not None and self.windows is not None
        prompts = []
        for patch in self.bank.patches:
            if patch.removed or patch.image not in self.windows.names:
                continue
            plane, intensities = self.given.plane(patch.image)
            prompts.append(self._prompt(network, patch, plane, intensities))
        n_channels = {p.n_channels for p in prompts}
        if len(n_channels) > 1:  # a set is of one kind of image: the most frequent
            kind = max(n_channels, key=[p.n_channels for p in prompts].count)
            prompts = [p for p in prompts if p.n_channels == kind]
        return PromptSet(prompts, name)

    def _prompt(
        self,
        network: SemanticSegmenter,
        patch: BankPatch,
        plane: np.ndarray,
        intensities: np.ndarray,
    ) -> Prompt:
        from ..core.labels.instances import instances_from_maps

        box = patch.box
        around = tuple(
            slice(max(0, s.start - box.size), s.stop + box.size) for s in box.slices
        )
        maps = self._maps(network, plane[around], intensities)
        own = maps.classes == self.classes.index(patch.class_name) + 1
        found = instances_from_maps(
            replace(maps, foreground=np.where(own, maps.foreground, 0), classes=None),
            PostprocessSettings(split=False),
        )
        labels = np.zeros(plane.shape[:2], np.int32)
        labels[around] = found
        if not labels[box.slices].any():
            labels[box.slices] = _disc(box)
        return Prompt.from_image(
            plane,
            labels,
            box,
            rgb=plane.shape[2] == 3,
            name=patch.title,
            source=patch.image,
            intensities=intensities,
        )


def _disc(box: Box) -> np.ndarray:
    """Return a disc in the middle of a box, where nothing better is known."""
    y, x = np.mgrid[: box.size, : box.size] - (box.size - 1) / 2
    return (y**2 + x**2 <= (0.25 * box.size) ** 2).astype(np.int32)
