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

from ..core.annotation.partial_images import FineTuneData
from ..core.annotation.partial_labels import UNKNOWN
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
from ..io.atomic import atomic_path
from ..io.free_path import free_path
from ..io.locks import (
    InUseError,
    claimed_model,
    is_claimed,
    run_folder,
)
from ..io.model_store import (
    LoadedModel,
    check_model_folder,
    load_model,
    save_model,
    user_folder,
)
from .finetune_data import GivenImages, gather
from .identity import training_identity
from .training_state import CHECKPOINT, RUN, begin_training, empty_folder

if TYPE_CHECKING:
    from ..engine.finetuning.loop import OnLook, Tuned

STOP = "stop"

NOT_COMPARED = {"seconds", "preset"}
"""Settings that do not decide on the result of a training that ends."""

ROOM = 3
"""Times the size of the checkpoint that a training needs on the disk."""

IS_TRAINED = (
    "{output}: is being trained already, in another window or by a command: stop that "
    "training or choose another name ({error})."
)
TAKES_NO_PROMPTS = (
    "The model '{name}' takes no prompts and is not trained in this way: start from "
    "another, such as svp."
)


# ---------------------------------------------------------------- the run's folder


@contextlib.contextmanager
def claimed(output: str | Path) -> Iterator[Path]:
    """Lock the run's folder of a model against all other processes, and yield it.

    Raises
    ------
    FineTuneError
        If the model is being trained already.
    WriteError
        If the folder cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(claimed_model(output))
        except InUseError as error:
            message = IS_TRAINED.format(output=output, error=error)
            raise FineTuneError(message) from error
        yield folder


def is_running(output: str | Path) -> bool:
    """Return whether some process is training ``output`` now."""
    return is_claimed(run_folder(output))


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
    """Return the trainings that were cut off and can be resumed.

    Parameters
    ----------
    folder : path, optional
        Where models are written; by default the folder of the user's own models.

    Returns
    -------
    list of dict
        ``output``, ``start_from``, ``settings`` and ``training_set`` of each.
    """
    base = user_folder() if folder is None else Path(folder)
    found = []
    for path in sorted(base.glob(".*.run")):
        try:
            values = json.loads((path / RUN).read_text(encoding="utf8"))
            there = isinstance(values, dict) and (path / CHECKPOINT).is_file()
            if there and not is_running(values["output"]):
                found.append(values)
        except (OSError, ValueError, KeyError):
            continue
    return found


def needs_other_place(output: str | Path) -> bool:
    """Return whether the disk is too full to go on with a training that was cut off."""
    checkpoint = run_folder(output) / CHECKPOINT
    try:
        needed = ROOM * checkpoint.stat().st_size
        return shutil.disk_usage(checkpoint.parent).free < needed
    except OSError:
        return False


def move_finetune(output: str | Path, folder: str | Path) -> str:
    """Move the checkpoint of a training to another folder, where there is room.

    Returns
    -------
    str
        Model folder to write when the training is resumed.

    Raises
    ------
    FineTuneError, WriteError
        If it is being trained, or cannot be moved; then it stays where it is.
    """
    target = free_path(Path(folder) / Path(output).name, separator="-")
    with claimed(output) as old, claimed(target) as new:
        values = json.loads((old / RUN).read_text(encoding="utf8"))
        with atomic_path(new / CHECKPOINT, overwrite=True) as temporary:
            shutil.copyfile(old / CHECKPOINT, temporary)
        with atomic_path(new / RUN, overwrite=True) as temporary:
            text = json.dumps({**values, "output": str(target)}, indent=1)
            temporary.write_text(text + "\n", encoding="utf8")
        empty_folder(old)
    return str(target)


def discard_finetune(output: str | Path) -> None:
    """Delete the leftovers of a training that was cut off."""
    if run_folder(output).is_dir():
        with claimed(output) as folder:
            empty_folder(folder)


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
    overwrite: bool = False,
    on_progress: Progress | None = None,
    on_partial: Callable[[FineTuneProgress], None] | None = None,
    on_look: OnLook | None = None,
) -> FineTuneResult:
    """Train a model further on a few partly labelled images, and check it.

    A part of the labels, the validation labels, is not trained on. The model that does
    better on them, the one at the start or the best on the way, becomes a model folder
    with prompts in it, which `segment` takes as ``model``.

    Parameters
    ----------
    images : sequence of (Y, X) or (Y, X, C) arrays
        Planes with up to three channels (or ``channels`` chosen).
    partial_labels : sequence of (Y, X) int arrays
        One for each image: 0 = unknown, 1 = background, 2, 3, ... = objects, or
        classes where ``settings.semantic``. Other forms are converted by
        `core.annotation.partial_labels`.
    start_from : str, path or LoadedModel
        What is trained further.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    settings : FineTuneSettings, optional
        By default the quick preset: under a minute on two processor cores.
    output : path, optional
        Model folder to write; by default a new one among the user's own models.
    training_set : path, optional
        A folder of images and labels (`io.training_set`): the given images are added
        to it, and all of its images in use are trained on.
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
        Go on from the checkpoint of a run that was cut off or cancelled; with other
        images, labels, settings or versions, start from the beginning and say so.
    overwrite : bool
        Allow to replace a model that was changed, or comes from elsewhere.
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
        If the labels do not suffice or do not fit.
    WriteError, CheckpointWriteError
        If the model or a checkpoint cannot be written; the last checkpoint stays.
    ReplaceError
        If it would replace anything that must not be.
    """
    from ..engine.finetuning.loop import Callbacks
    from ..engine.finetuning.loop import finetune as train
    from ..engine.inference.device import choose

    settings, report = FineTuneSettings.of(settings), on_progress or ignore_progress
    target = Path(output) if output is not None else _new_folder()
    check_model_folder(target, overwrite, start_from)
    model, where = _start_model(start_from), choose(device)
    notes = [where.reason] if where.is_fallback else []
    if unlabelled is not None:
        settings = replace(settings, self_supervised_first=True)
    data = gather(
        GivenImages(
            images, partial_labels, names, rgb, channels, frozenset(validation_images)
        ),
        settings,
        training_set=None if training_set is None else Path(training_set),
        unlabelled=None if unlabelled is None else Path(unlabelled),
        on_progress=report,
        notes=notes,
    )
    values = {
        "output": str(target),
        "start_from": str(model.card.path or model.card.name),
        "settings": settings.to_dict(),
        "training_set": None if training_set is None else str(training_set),
        "unlabelled": None if unlabelled is None else str(unlabelled),
    }
    decides = {k: v for k, v in settings.to_dict().items() if k not in NOT_COMPARED}
    identity = training_identity(
        data.fingerprint(), start=model.card.sha256, settings=decides
    )
    with claimed(target) as folder:
        resumed, told = begin_training(folder, identity, resume=resume, values=values)
        notes += told
        (folder / STOP).unlink(missing_ok=True)
        tuned = train(
            model.network,
            data,
            settings,
            device=where,
            folder=folder,
            resume=resumed,
            callbacks=Callbacks((folder / STOP).exists, report, on_partial, on_look),
        )
        notes += tuned.notes
        card, prompts = _model_card(target, tuned, model.card, data, settings, where)
        save_model(
            target,
            tuned.network,
            card,
            history=_rows(tuned) or None,
            prompts=prompts,
            overwrite=overwrite,
        )
        empty_folder(folder)
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


def _new_folder() -> Path:
    """Return a folder among the user's own models that is not there yet."""
    return free_path(user_folder() / "fine-tuned", separator="-", first=1)


def _start_model(start_from: str | Path | LoadedModel) -> LoadedModel:
    """Return the model that is trained further; it must be one that takes prompts."""
    model = load_model(start_from) if isinstance(start_from, str | Path) else start_from
    if not model.network.needs_prompt:
        raise FineTuneError(TAKES_NO_PROMPTS.format(name=model.card.name))
    return model


def _model_card(
    target: Path,
    tuned: Tuned,
    start: ModelCard,
    data: FineTuneData,
    settings: FineTuneSettings,
    device: Any,
) -> tuple[ModelCard, PromptSet]:
    """Return the card of the model, which records how it was trained; its prompts."""
    labelled = sum(int((i.ids != UNKNOWN).sum()) for i in data.images)
    shown = tuned.after if tuned.kept == "after" else tuned.before
    card = ModelCard(
        name=target.name,
        method=tuned.config.method if tuned.config else start.method,
        arguments=tuned.config.arguments if tuned.config else start.arguments,
        licence=start.licence,
        channels=start.channels,
        title=f"{start.name}, fine-tuned on {len(data.images)} images",
        training={
            "start_from": start.name,
            "start_sha256": start.sha256,
            "images": [i.name for i in data.images],
            "labelled_pixels": labelled,
            "unlabelled_images": len(data.unlabelled),
            "settings": settings.to_dict(),
            "steps": tuned.steps,
            "kept": tuned.kept,
            "before": _numbers(tuned.before),
            "after": _numbers(tuned.after),
            "device": str(device),
        },
        scores={"validation labels": _numbers(shown)},
    )
    return card, PromptSet(tuned.prompts, target.name)


def _rows(tuned: Tuned) -> list[dict[str, float]]:
    """Return the history without the numbers that are not known."""
    return [
        {k: v for k, v in row.items() if not math.isnan(v)} for row in tuned.history
    ]


def _numbers(score: ValidationScore) -> dict[str, Any]:
    return {
        k: None if isinstance(v, float) and math.isnan(v) else v
        for k, v in asdict(score).items()
    }
