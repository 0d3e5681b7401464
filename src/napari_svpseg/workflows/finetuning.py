"""Fine-tuning from arrays or a training set to a model folder: `svpseg.finetune`."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from ..core.annotation.partial_labels import (
    BACKGROUND,
    FEWEST_PIXELS,
    UNKNOWN,
    check_partial_labels,
    to_ids,
)
from ..core.annotation.validation_split import ValidationPart, split_validation
from ..core.fingerprint import fingerprint
from ..core.geometry import MIN_BOX_SIZE
from ..core.image import as_float32, channels_last, intensity_range
from ..core.jobs.finetune_job import (
    FineTuneError,
    FineTuneProgress,
    FineTuneResult,
    FineTuneSettings,
    ValidationScore,
)
from ..core.model_card import ModelCard
from ..core.progress import Progress, ignore_progress
from ..core.prompt import PromptSet
from ..io.atomic import WriteError, atomic_path

if TYPE_CHECKING:
    from ..engine.finetuning.label_crops import PartialImage
    from ..engine.finetuning.loop import OnLook, Tuned
    from ..io.model_store import LoadedModel

RUN, STOP, LOCK = "run.json", "stop", "lock"
MAX_UNLABELLED = 24
"""Pictures taken of a folder of unlabelled images."""


# ---------------------------------------------------------------- the run's folder


def run_folder(output: str | Path) -> Path:
    """Return where checkpoints of the model ``output`` lie while it is trained."""
    output = Path(output)
    return output.with_name(f".{output.name}.run")


@contextlib.contextmanager
def claimed(output: str | Path) -> Iterator[Path]:
    """Give the run's folder of a model, kept from all other processes meanwhile.

    Raises
    ------
    FineTuneError
        If the model is being trained already.
    WriteError
        If the folder cannot be made.
    """
    folder = run_folder(output)
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise FineTuneError(
            f"{output}: is being trained already, in another window or by a command: "
            "stop that training or choose another name."
        ) from error
    except OSError as error:
        raise WriteError(
            f"{output}: cannot be written ({error.strerror}): choose another folder "
            "for the model."
        ) from error
    try:
        yield folder
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            if {p.name for p in folder.iterdir()} <= {LOCK}:
                _empty(folder, but=())


def is_running(output: str | Path) -> bool:
    """Return whether some process is training ``output`` now."""
    path = run_folder(output) / LOCK
    if not path.is_file():
        return False
    try:
        with FileLock(path, blocking=False):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _empty(folder: Path, but: Sequence[str] = (LOCK,)) -> None:
    """Delete what a folder holds, and the folder where nothing shall be left."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in but:
            path.unlink()
    if not but:
        folder.rmdir()


def stop_finetune(output: str | Path) -> bool:
    """Ask the training of a model folder to end and keep its best so far.

    Returns
    -------
    bool
        Whether such a training was there.
    """
    if not is_running(output):
        return False
    (run_folder(output) / STOP).touch()
    return True


def unfinished_finetunes(folder: str | Path | None = None) -> list[dict[str, Any]]:
    """Return trainings that were cut off and can be resumed.

    Parameters
    ----------
    folder : path, optional
        Where models are written; by default the folder of the user's own models.

    Returns
    -------
    list of dict
        ``output``, ``start_from``, ``settings`` and ``training_set`` of each.
    """
    from ..io.model_store import user_folder

    base = user_folder() if folder is None else Path(folder)
    found = []
    for path in sorted(base.glob(".*.run")):
        try:
            values = json.loads((path / RUN).read_text(encoding="utf8"))
            there = isinstance(values, dict) and (path / "checkpoint.pt").is_file()
            if there and not is_running(values["output"]):
                found.append(values)
        except (OSError, ValueError, KeyError):
            continue
    return found


def discard_finetune(output: str | Path) -> None:
    """Delete what a training that was cut off left behind."""
    if run_folder(output).is_dir():
        with claimed(output) as folder:
            _empty(folder)


def _prepare(
    folder: Path, values: dict[str, Any], resume: bool, notes: list[str]
) -> bool:
    """Make a run's folder ready; return whether there is something to go on with."""
    if resume and (folder / "checkpoint.pt").is_file():
        _check_same_run(folder, values["print"])
        (folder / STOP).unlink(missing_ok=True)
        return True
    if resume:
        notes.append(f"{folder}: holds no checkpoint, the training began anew.")
    try:
        _empty(folder)
    except OSError as error:
        raise WriteError(
            f"{folder}: what is left of an older training cannot be deleted "
            f"({error.strerror}): delete it, or choose another name."
        ) from error
    with atomic_path(folder / RUN) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf8")
    return False


def _check_same_run(folder: Path, wanted: str) -> None:
    try:
        values = json.loads((folder / RUN).read_text(encoding="utf8"))
        same = values["print"] == wanted
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FineTuneError(
            f"{folder / RUN}: damaged, the run cannot be resumed: start it anew."
        ) from error
    if not same:
        raise FineTuneError(
            f"{folder}: was made with other images, labels or settings: start anew, "
            "without resuming."
        )


# ---------------------------------------------------------------- what is trained on


def _from_arrays(
    images: Sequence[Any],
    partial_labels: Sequence[Any],
    names: Sequence[str] | None,
    rgb: bool | None,
    channels: tuple[int, ...] | None,
    settings: FineTuneSettings,
    notes: list[str],
) -> list[PartialImage]:
    if len(images) != len(partial_labels):
        raise FineTuneError(
            f"Each image needs its labels: got {len(images)} images and "
            f"{len(partial_labels)} labels."
        )
    names = list(names or (f"image {i}" for i in range(1, len(images) + 1)))
    if len(names) != len(images):
        raise FineTuneError(f"got {len(names)} names for {len(images)} images.")
    found = [
        _partial_image(image, labels, name, rgb, channels, settings, notes)
        for image, labels, name in zip(images, partial_labels, names, strict=True)
    ]
    return _with_own_names(found)


def _with_own_names(images: list[PartialImage]) -> list[PartialImage]:
    seen: dict[str, int] = {}
    renamed = []
    for image in images:
        n = seen[image.name] = seen.get(image.name, 0) + 1
        renamed.append(image if n == 1 else replace(image, name=f"{image.name} ({n})"))
    return renamed


def _partial_image(
    image: Any,
    labels: Any,
    name: str,
    rgb: bool | None,
    channels: tuple[int, ...] | None,
    settings: FineTuneSettings,
    notes: list[str],
) -> PartialImage:
    from ..engine.finetuning.label_crops import PartialImage

    plane, is_rgb = channels_last(np.asarray(image), None, channels, rgb)
    if min(plane.shape[:2]) < MIN_BOX_SIZE:
        raise FineTuneError(
            f"{name}: {plane.shape[0]} x {plane.shape[1]} pixels are too few to train "
            f"on: the smallest image is {MIN_BOX_SIZE} x {MIN_BOX_SIZE}."
        )
    ids = to_ids(
        check_partial_labels(labels, plane.shape, name),
        unlabelled_is_background=settings.unlabelled_is_background,
        wanted=settings.wanted if settings.semantic else None,
    )
    intensities = intensity_range(plane)
    if plane.dtype.kind == "f":
        bad = ~np.isfinite(plane).all(axis=2)
        if bad.all():
            raise FineTuneError(f"{name}: no pixel of the image is a finite number.")
        if bad.any():
            notes.append(
                f"{name}: {int(bad.sum())} pixels are NaN or infinite, labels there "
                "are left out."
            )
            ids = np.where(bad, UNKNOWN, ids).astype(np.int32)
            plane = np.where(np.isfinite(plane), plane, intensities[:, 0])
            plane = as_float32(plane)
    return PartialImage(
        plane, intensities, ids, np.zeros(ids.shape, bool), name, is_rgb, channels
    )


def _check_labels(images: Sequence[PartialImage], settings: FineTuneSettings) -> None:
    if not images:
        raise FineTuneError("No image to train on: add at least one with labels.")
    if len({i.plane.shape[2] for i in images}) > 1:
        counts = ", ".join(f"{i.name}: {i.plane.shape[2]}" for i in images)
        raise FineTuneError(
            f"The images differ in their number of channels ({counts}): choose the "
            "same channels for all."
        )
    objects = sum(int((i.ids > 0).sum()) for i in images)
    background = sum(int((i.ids == 0).sum()) for i in images)
    what = f"class {settings.wanted}" if settings.semantic else "objects"
    if not objects + background:
        raise FineTuneError(
            "No pixel is labelled: paint some objects (2, 3, ...) and some background "
            f"({BACKGROUND})."
        )
    if objects + background < FEWEST_PIXELS:
        raise FineTuneError(
            f"Only {objects + background} pixels are labelled: paint at least an "
            "object and some background beside it."
        )
    if not objects:
        raise FineTuneError(
            f"Only background is labelled: paint some {what} "
            f"({settings.wanted if settings.semantic else '2, 3, ...'})."
        )
    if not background:
        raise FineTuneError(
            f"Only {what} are labelled: paint some background ({BACKGROUND}) too, or "
            "say that unlabelled pixels are background."
        )


def _validation(
    images: list[PartialImage], settings: FineTuneSettings, whole: Iterable[int]
) -> tuple[list[PartialImage], ValidationPart]:
    held = split_validation(
        [i.ids for i in images], settings.validation, settings.seed, whole
    )
    images = [
        replace(image, held=mask)
        for image, mask in zip(images, held.masks, strict=True)
    ]
    return images, held


def _print_of(
    images: Sequence[PartialImage],
    unlabelled: Sequence[tuple[str, np.ndarray]],
    settings: FineTuneSettings,
    start: ModelCard,
) -> str:
    """Return the hash of all that decides what comes out, but for the time."""
    told = settings.to_dict()
    del told["seconds"], told["preset"]
    pixels = [array for i in images for array in (i.plane, i.ids, i.held)]
    others = [part for name_and_picture in unlabelled for part in name_and_picture]
    return fingerprint(start.sha256, told, *pixels, *others)


# ---------------------------------------------------------------- the whole


def finetune(
    images: Sequence[Any],
    partial_labels: Sequence[Any],
    *,
    start_from: str | Path | LoadedModel = "svp",
    device: str = "auto",
    settings: FineTuneSettings | None = None,
    output: str | Path | None = None,
    training_set: str | Path | None = None,
    unlabelled: str | Path | None = None,
    names: Sequence[str] | None = None,
    validation_images: Iterable[int] = (),
    rgb: bool | None = None,
    channels: tuple[int, ...] | None = None,
    resume: bool = False,
    on_progress: Progress | None = None,
    on_partial: Callable[[FineTuneProgress], None] | None = None,
    on_look: OnLook | None = None,
) -> FineTuneResult:
    """Train a model further on a few partly labelled images, and check it.

    A part of the labels is kept out of training. The model that does better on them,
    the one at the start or the best on the way, becomes a model folder with prompts in
    it, which `segment` takes as ``model``.

    Parameters
    ----------
    images : sequence of (Y, X) or (Y, X, C) arrays
        Planes with up to three channels (or ``channels`` chosen).
    partial_labels : sequence of (Y, X) int arrays
        One for each image: 0 = unknown, 1 = background, 2, 3, ... = objects, or
        classes where ``settings.semantic``. See `core.annotation.partial_labels` for other forms.
    start_from : str, path or LoadedModel
        What is trained further.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    settings : FineTuneSettings, optional
        By default the quick preset: under a minute on two processor cores.
    output : path, optional
        Model folder to write; by default a new one among the user's own models.
    training_set : path, optional
        A folder of images and labels (`io.training_set`): what is given is added to
        it, and all of it that is in use is trained on.
    unlabelled : path, optional
        A folder of further images, without labels: the model first learns from
        superpixels of some of them (``settings.self_supervised_first`` does so with
        the labelled images alone).
    names : sequence of str, optional
        Of the images, for messages and the training set.
    validation_images : iterable of int
        Images that are only used to check.
    rgb, channels
        As in `segment`.
    resume : bool
        Go on from the checkpoint of a run that was cut off or cancelled.
    on_progress : callable, optional
        Called with ``(step, steps, message)``; may raise `Cancelled`.
    on_partial : callable, optional
        Called with a `FineTuneProgress` after each step.

    on_look : callable, optional
        Called at each check with the network; see `engine.finetuning.loop`.

    Returns
    -------
    FineTuneResult

    Raises
    ------
    FineTuneError
        If the labels do not suffice or do not fit, or there is nothing to resume.
    WriteError
        If the model cannot be written; the last checkpoint stays beside it.
    """
    from ..engine.finetuning.loop import finetune as train
    from ..engine.inference.device import choose
    from ..io.model_store import check_model_folder, find_model, load_model

    settings = settings or FineTuneSettings()
    on_progress = on_progress or ignore_progress
    notes: list[str] = []
    card = find_model(start_from) if isinstance(start_from, str | Path) else None
    target = Path(output) if output is not None else _new_place()
    check_model_folder(target)
    where = choose(device)
    if where.is_fallback:
        notes.append(where.reason)
    found = _from_arrays(images, partial_labels, names, rgb, channels, settings, notes)
    whole = set(validation_images)
    if training_set is not None:
        found, whole = _from_set(
            Path(training_set),
            images,
            partial_labels,
            found,
            settings,
            notes,
            whole,
            rgb=rgb,
            channels=channels,
        )
    _check_labels(found, settings)
    found, held = _validation(found, settings, whole)
    model = load_model(start_from) if card is not None else start_from
    assert not isinstance(model, str | Path)
    if not model.network.needs_prompt:
        raise FineTuneError(
            f"The model '{model.card.name}' takes no prompts and is not trained in "
            "this way: start from another, such as svp."
        )
    pictures: list[tuple[str, np.ndarray]] = []
    if unlabelled is not None:
        settings = replace(settings, self_supervised_first=True)
        pictures = _unlabelled(Path(unlabelled), settings, on_progress)
    values = {
        "output": str(target),
        "start_from": str(model.card.path or model.card.name),
        "settings": settings.to_dict(),
        "training_set": None if training_set is None else str(training_set),
        "unlabelled": None if unlabelled is None else str(unlabelled),
        "print": _print_of(found, pictures, settings, model.card),
    }
    with claimed(target) as folder:
        again = _prepare(folder, values, resume, notes)
        tuned = train(
            model.network,
            found,
            settings,
            device=where,
            folder=folder,
            held=held,
            unlabelled=pictures,
            resume=again,
            should_stop=(folder / STOP).exists,
            on_progress=on_progress,
            on_partial=on_partial,
            on_look=on_look,
        )
        notes += tuned.notes
        _write_model(
            target, tuned, model.card, found, len(pictures), settings, str(where)
        )
        _empty(folder)
    return FineTuneResult(
        tuned.before,
        tuned.after,
        tuned.kept,
        str(target),
        tuned.history,
        tuple(dict.fromkeys(notes)),
        tuned.stopped,
        tuned.seconds,
    )


def _from_set(
    folder: Path,
    images: Sequence[Any],
    partial_labels: Sequence[Any],
    found: list[PartialImage],
    settings: FineTuneSettings,
    notes: list[str],
    whole: set[int],
    *,
    rgb: bool | None,
    channels: tuple[int, ...] | None,
) -> tuple[list[PartialImage], set[int]]:
    """Add what was given to a training set; return all of it that is used."""
    from ..io.training_set import TrainingSet

    training = TrainingSet(folder)
    for n, (image, labels, given) in enumerate(
        zip(images, partial_labels, found, strict=True)
    ):
        training.add(
            given.name,
            np.asarray(image),
            np.asarray(labels),
            rgb=given.rgb,
            channels=channels,
            validation=True if n in whole else None,
        )
    used = [e for e in training.entries() if e.used]
    notes += training.problems
    return (
        [
            _partial_image(
                e.image(), e.labels(), e.name, e.rgb, e.channels, settings, notes
            )
            for e in used
        ],
        {i for i, e in enumerate(used) if e.validation},
    )


def _unlabelled(
    folder: Path, settings: FineTuneSettings, on_progress: Progress
) -> list[tuple[str, np.ndarray]]:
    """Return names and pictures of a folder's images, the same for the same seed."""
    from ..engine.finetuning.loop import SUPERPIXEL_SIDE
    from .self_supervised import unlabelled_planes

    try:
        return unlabelled_planes(
            folder,
            np.random.default_rng([settings.seed, 37]),
            lambda text: on_progress(0, settings.steps, text),
            limit=MAX_UNLABELLED,
            side=SUPERPIXEL_SIDE,
        )
    except ValueError as error:  # no such folder, nothing in it, nothing readable
        raise FineTuneError(str(error)) from error


def _new_place() -> Path:
    """Return a folder among the user's own models that is not there yet."""
    from ..io.model_store import user_folder

    names = ("fine-tuned", *(f"fine-tuned-{n}" for n in range(2, 10_000)))
    return next(p for n in names if not (p := user_folder() / n).exists())


def _write_model(
    target: Path,
    tuned: Tuned,
    start: ModelCard,
    images: Sequence[PartialImage],
    n_unlabelled: int,
    settings: FineTuneSettings,
    device: str,
) -> None:
    from ..io.model_store import save_model

    labelled = sum(int((i.ids != UNKNOWN).sum()) for i in images)
    shown = tuned.after if tuned.kept == "after" else tuned.before
    card = ModelCard(
        name=target.name,
        method=tuned.config.method if tuned.config else start.method,
        arguments=tuned.config.arguments if tuned.config else start.arguments,
        licence=start.licence,
        channels=start.channels,
        title=f"{start.name}, fine-tuned on {len(images)} images",
        training={
            "start_from": start.name,
            "start_sha256": start.sha256,
            "images": [i.name for i in images],
            "labelled_pixels": labelled,
            "unlabelled_images": n_unlabelled,
            "settings": settings.to_dict(),
            "steps": tuned.steps,
            "kept": tuned.kept,
            "before": _numbers(tuned.before),
            "after": _numbers(tuned.after),
            "device": device,
        },
        scores={"held-back labels": _numbers(shown)},
    )
    rows = [
        {k: v for k, v in row.items() if not math.isnan(v)} for row in tuned.history
    ]
    prompts = PromptSet(tuned.prompts, target.name)
    save_model(target, tuned.network, card, history=rows or None, prompts=prompts)


def _numbers(score: ValidationScore) -> dict[str, Any]:
    return {
        k: None if isinstance(v, float) and math.isnan(v) else v
        for k, v in asdict(score).items()
    }
