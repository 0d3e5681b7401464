"""Model folders: ``model.json``, ``weights.safetensors`` and a readable model card."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..core.errors import joined, short_line
from ..core.fingerprint import fingerprint
from ..core.method_plugins import is_plugin, plugin_cards
from ..core.model_card import ModelCard
from .atomic import PRIVATE_FOLDER, atomic_folder, atomic_path
from .ownership import (
    MODEL_FILES,
    Origin,
    check_no_inputs,
    check_replaceable,
    file_hash,
    origin,
    read_json,
    sealed_json,
)
from .prompt_files import load_prompts, save_prompts

if TYPE_CHECKING:
    from ..core.prompt import PromptSet
    from ..models.base import PromptSegmenter

FORMAT_VERSION = 1
WEIGHTS, CARD, README = "weights.safetensors", "model.json", "README.md"
PROMPTS = "prompts.svprompt"
MEMBERS = MODEL_FILES

CARD_TYPES = {
    "name": str, "method": str, "arguments": dict, "licence": str, "sha256": str,
    "channels": str, "title": str, "paper": str, "n_parameters": int, "training": dict,
    "scores": dict, "classes": dict, "needs_prompt": bool, "version": int,
}  # fmt: skip
"""Type of each entry of ``model.json``."""

REQUIRED = ("name", "method", "sha256")

PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".pkl", ".bin")

BAD_PATH = "{path}: refused, it holds the path {member!r}."
TOO_LARGE = "{path}: refused, over {limit} MB unpacked."
NO_CARD = "{folder}: not a model folder, model.json is missing or unreadable."
CARD_DAMAGED = "{path}: damaged, not a JSON object."
UNKNOWN_VERSION = (
    "{path}: format version {version!r} is not known here: update napari-svpseg."
)
BAD_ENTRY = "{path}: '{entry}' is missing or wrong."
NO_MODEL = "There is no model '{model}': choose one of {names}, or a model folder."
PICKLED = (
    "{path}: pickled weights can run code and are not read: give a model folder with "
    "model.json and weights.safetensors."
)
WEIGHTS_UNREADABLE = "{path}: cannot be read ({reason})."
HASHES_DIFFER = (
    "{path}: these are not the weights of model.json (their hashes differ): install "
    "the model again."
)
DO_NOT_FIT = "{folder}: weights and model.json do not fit ({reason})."
NOT_FINITE = (
    "{path}: the weights '{name}' hold NaN or infinite values, which find nothing: "
    "install the model again."
)
NO_PROMPTS = "The model '{name}' has no prompts of its own: draw or give some."

logger = logging.getLogger(__name__)


class ModelFormatError(ValueError):
    """A model folder that cannot be used; the message names it and says why."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in memory, ready to predict.

    Parameters
    ----------
    card : ModelCard
    network : PromptSegmenter
        On the CPU and in evaluation mode.
    """

    card: ModelCard
    network: PromptSegmenter


def builtin_folder() -> Path:
    """Return the folder of the models that are shipped with the package."""
    package = Path(__file__).resolve().parents[1]
    # Inside the package in a wheel, at the top level of the repository otherwise.
    inside = package / "weights"
    return inside if inside.is_dir() else package.parents[1] / "weights"


def research_folder() -> Path:
    """Return the folder of models for non-commercial research.

    Only a source checkout has it; wheels hold no such weights.
    """
    return builtin_folder() / "research"


def user_folder() -> Path:
    """Return the folder of the user's own models, which may not exist yet.

    It lies in the folder that the environment variable ``NAPARI_SVPSEG_HOME`` names, or
    in the data folder that the system has for the user.
    """
    home = os.environ.get("NAPARI_SVPSEG_HOME")
    if home:
        return Path(home) / "models"
    from platformdirs import user_data_path

    return user_data_path("napari-svpseg", appauthor=False) / "models"


def make_folder(folder: Path) -> None:
    """Make a folder, unless it is there; among the user's own data, for the user only.

    These are models, which hold prompts, training sets and large results.
    """
    is_own = user_folder().parent in folder.absolute().parents
    mode = PRIVATE_FOLDER if is_own else 0o777
    folder.mkdir(parents=True, exist_ok=True, mode=mode)


def list_models(folders: Iterable[Path] | None = None) -> list[ModelCard]:
    """Return the cards of all models: the default model first, then by name.

    Folders that hold no valid model are skipped, and logged.

    Parameters
    ----------
    folders : iterable of Path, optional
        Folders with model folders. Of two models with one name the first counts. By
        default `builtin_folder`, `research_folder` and `user_folder`, then the methods
        of other packages.

    Returns
    -------
    list of ModelCard
    """
    cards: dict[str, ModelCard] = {}
    for card in _cards(folders):
        cards.setdefault(card.name, card)
    return sorted(cards.values(), key=lambda c: (c.name != "svp", c.name))


def _cards(folders: Iterable[Path] | None = None) -> Iterator[ModelCard]:
    """Return the cards that `list_models` does, of which the first of a name counts."""
    usual = (builtin_folder(), research_folder(), user_folder())
    for folder in usual if folders is None else folders:
        for path in _model_folders(folder):
            try:
                yield read_card(path)
            except ModelFormatError as error:
                logger.warning("%s", error)
    # Last, so that no package can take the name of a built-in model, and because
    # looking through all installed packages takes longer than all folders.
    if folders is None:
        yield from plugin_cards()


def _model_folders(folder: Path) -> list[Path]:
    """Return the model folders in a folder; hidden ones are being written."""
    try:
        return [
            path
            for path in sorted(folder.iterdir())
            if not path.name.startswith(".") and (path / CARD).is_file()
        ]
    except FileNotFoundError:
        return []
    except OSError as error:
        logger.warning("%s: models there cannot be read (%s).", folder, error.strerror)
        return []


def read_card(folder: str | Path) -> ModelCard:
    """Return the card of a model folder.

    Raises
    ------
    ModelFormatError
        If ``model.json`` is missing, damaged, incomplete or of another version.
    """
    folder = Path(folder)
    try:
        values = json.loads((folder / CARD).read_text(encoding="utf8"))
    except OSError as error:
        raise ModelFormatError(NO_CARD.format(folder=folder)) from error
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(CARD_DAMAGED.format(path=folder / CARD)) from error
    return parse_card(values, folder)


def parse_card(values: Any, folder: Path) -> ModelCard:
    """Return the card that the content of a ``model.json`` describes.

    Parameters
    ----------
    values : Any
        Parsed JSON.
    folder : Path
        Model folder, or the file that it comes from.
    """
    path = folder / CARD
    if not isinstance(values, dict):
        raise ModelFormatError(CARD_DAMAGED.format(path=path))
    version = values.get("version")
    if version != FORMAT_VERSION:
        raise ModelFormatError(UNKNOWN_VERSION.format(path=path, version=version))
    # Unknown entries are ignored: a later release may add some.
    known = {k: v for k, v in values.items() if k in CARD_TYPES}
    wrong = [k for k, v in known.items() if not isinstance(v, CARD_TYPES[k])]
    wrong += [k for k in REQUIRED if not known.get(k) and k not in wrong]
    if not wrong and not all(
        isinstance(colour, str) for colour in known.get("classes", {}).values()
    ):
        wrong.append("classes")
    if wrong:
        raise ModelFormatError(BAD_ENTRY.format(path=path, entry=wrong[0]))
    return ModelCard(**{"arguments": {}} | known, path=str(folder))


def find_model(model: str | Path) -> ModelCard:
    """Return the card of a model given by name or folder.

    Raises
    ------
    ModelFormatError
        If there is none; the message lists the names of the models.
    """
    path = Path(model)
    if (path / CARD).is_file():
        return read_card(path)
    refuse_pickles(path)
    found = next((card for card in _cards() if card.name == str(model)), None)
    if found is not None:
        return found
    names = ", ".join(card.name for card in list_models()) or "none"
    raise ModelFormatError(NO_MODEL.format(model=model, names=names))


def member_parts(name: str, path: Path) -> tuple[str, ...]:
    """Return the parts of the path of a file in a zip.

    Parameters
    ----------
    name : str
        In the zip; on Windows either slash leads out of a folder.
    path : Path
        Of the zip, for the error.

    Raises
    ------
    ModelFormatError
        If it leads out of the folder that the zip is unpacked to.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or (parts and parts[0].startswith("/")):
        raise ModelFormatError(BAD_PATH.format(path=path, member=name))
    return parts


def refuse_pickles(path: Path) -> None:
    """Raise `ModelFormatError` for a file of pickled weights."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise ModelFormatError(PICKLED.format(path=path))


def load_model(model: str | Path) -> LoadedModel:
    """Return a model with its weights, on the CPU and in evaluation mode.

    Parameters
    ----------
    model : str or path
        Name of a built-in model, of a user's own or of another package's, or a model
        folder.

    Returns
    -------
    LoadedModel

    Raises
    ------
    ModelFormatError
        If there is no such model, or its weights are missing, damaged, not those of the
        card, or do not fit the network.
    """
    card = find_model(model)
    if is_plugin(card):
        return LoadedModel(card, _of_plugin(card))
    return LoadedModel(card, read_network(card, Path(card.path)))


def _of_plugin(card: ModelCard) -> PromptSegmenter:
    """Return the network of a method of another package."""
    from ..models.registry import ModelConfig, build

    try:
        return build(ModelConfig(card.method)).eval()
    except ValueError as error:
        raise ModelFormatError(joined(str(error))) from error


ODD_CONTENT = (
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError,
    AssertionError,
)  # fmt: skip
"""Errors that reading a damaged card, or building its network, can raise."""


def read_network(
    card: ModelCard, folder: Path, source: Path | None = None
) -> PromptSegmenter:
    """Return the network of a card with the weights in a folder.

    Parameters
    ----------
    card : ModelCard
    folder : Path
    source : Path, optional
        Place that errors name, if the folder is a temporary one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from ..models.registry import ModelConfig, build

    source = source or folder
    try:
        data = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise ModelFormatError(
            WEIGHTS_UNREADABLE.format(path=source / WEIGHTS, reason=error.strerror)
        ) from error
    # Hash and network are made from the same bytes: the file may change in between.
    if fingerprint(data) != card.sha256:
        raise ModelFormatError(HASHES_DIFFER.format(path=source / WEIGHTS))
    try:
        network = build(ModelConfig(card.method, card.arguments))
        state = load(data)
        network.load_state_dict(state)
    except (SafetensorError, *ODD_CONTENT) as error:
        raise ModelFormatError(
            DO_NOT_FIT.format(folder=source, reason=short_line(error))
        ) from error
    for name, weight in state.items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise ModelFormatError(NOT_FINITE.format(path=source / WEIGHTS, name=name))
    return network.eval()


def save_model(
    folder: str | Path,
    network: PromptSegmenter,
    card: ModelCard,
    *,
    history: Sequence[Mapping[str, float]] | None = None,
    readme: str | None = None,
    prompts: PromptSet | None = None,
    overwrite: bool = False,
) -> ModelCard:
    """Write a model folder, atomically.

    Parameters
    ----------
    folder : path
        A model that this program wrote is replaced; anything else is refused.
    network : PromptSegmenter
    card : ModelCard
        Its hash, number of parameters and path are filled in.
    history : list of dict, optional
        Rows of ``history.csv``.
    readme : str, optional
        Content of ``README.md``; by default made from ``card``.
    prompts : PromptSet, optional
        Prompts that are used when no others are given.
    overwrite : bool
        Allow to replace a model that was changed, or comes from elsewhere.

    Returns
    -------
    ModelCard
        The card as written.

    Raises
    ------
    WriteError
        If the folder cannot be written, or must not be replaced.
    """
    from safetensors.torch import save

    folder = Path(folder)
    check_model_folder(folder, overwrite)
    # safetensors stores contiguous tensors only.
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    data = save(state)
    card = dataclasses.replace(
        card,
        sha256=fingerprint(data),
        path=str(folder),
        n_parameters=sum(p.numel() for p in network.parameters()),
    )
    make_folder(folder.parent)
    with atomic_folder(folder, overwrite) as temporary:
        (temporary / WEIGHTS).write_bytes(data)
        (temporary / README).write_text(readme or card_markdown(card), encoding="utf8")
        if history:
            _write_history(temporary / "history.csv", history)
        if prompts is not None:
            save_prompts(prompts, temporary / PROMPTS)
        write_card(temporary / CARD, card)
    return card


def model_prompts(model: str | Path) -> PromptSet:
    """Return the prompts in the folder of a model.

    Parameters
    ----------
    model : str or path
        Name or folder.

    Raises
    ------
    ModelFormatError
        If there is no such model, or it has no prompts.
    """
    card = find_model(model)
    path = Path(card.path) / PROMPTS
    if not path.is_file():
        raise ModelFormatError(NO_PROMPTS.format(name=card.name))
    return load_prompts(path)


def check_model_folder(
    folder: str | Path, overwrite: bool = False, start_from: Any = None
) -> None:
    """Raise `ReplaceError` if writing a model there would delete anything else.

    Long runs call this before they start.

    Parameters
    ----------
    folder : path
    overwrite : bool
        Allow to replace a model that was changed, or comes from elsewhere.
    start_from : optional
        Name or folder of the model that the training starts from, which is kept.
    """
    check_replaceable(folder, overwrite)
    if isinstance(start_from, str | Path) and Path(start_from).is_dir():
        check_no_inputs([folder], [start_from])


def update_card(card: ModelCard, readme: str | None = None) -> None:
    """Write a changed card, for example with new scores, into its folder.

    A ``README.md`` that somebody changed is kept, unless another one is given. What was
    changed stays known as changed.
    """
    folder = Path(card.path)
    path = folder / README
    is_sealed = origin(folder / CARD) is Origin.OURS
    files = dict(read_json(folder / CARD).get("files") or {})
    if readme or not path.exists() or files.get(README) == file_hash(path):
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text(readme or card_markdown(card), encoding="utf8")
            files[README] = file_hash(temporary)
    values = {**card.to_dict(), "files": files}
    with atomic_path(folder / CARD, overwrite=True) as temporary:
        if is_sealed:
            sealed_json(temporary, values)
        else:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf8")


def write_card(path: Path, card: ModelCard) -> None:
    """Write the card of a new model, with the hashes of the files beside it."""
    there = [n for n in MEMBERS if n != CARD and (path.parent / n).is_file()]
    files = {name: file_hash(path.parent / name) for name in there}
    sealed_json(path, {**card.to_dict(), "files": files})


def _write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write one row for each entry; columns are in the order of their appearance."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    with open(path, "w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in history:
            writer.writerow({k: f"{v:.6g}" for k, v in row.items()})


def card_markdown(card: ModelCard) -> str:
    """Return the card as Markdown, for the ``README.md`` of the model."""
    config = card.training.get("config", {})
    data = config.get("data", {}) if isinstance(config, dict) else {}
    lines = [
        f"# {card.name}",
        "",
        card.title or card.method,
        "",
        f"- method: `{card.method}`, {card.n_parameters:,} parameters",
        f"- licence of the weights: {card.licence}",
        f"- takes: {card.channels} channels",
        f"- sha256 of {WEIGHTS}: `{card.sha256}`",
    ]
    if data.get("datasets"):
        lines.append(f"- trained on: {', '.join(data['datasets'])}")
    if "episodes" in card.training:
        lines.append(f"- episodes seen: {card.training['episodes']:,}")
    if card.classes:
        lines.append(f"- needs no prompt; finds: {', '.join(card.classes)}")
    if card.scores:
        lines += ["", "## Scores", "", "| data set | Dice | F1@0.5 |", "|---|---|---|"]
        for name, score in card.scores.items():
            lines.append(
                f"| {name} | {_number(score, 'dice')} | {_number(score, 'f1')} |"
            )
    return "\n".join(lines) + "\n"


def _number(score: Any, name: str) -> str:
    """Return a score with three decimals, or a dash."""
    value = score.get(name) if isinstance(score, dict) else None
    return "–" if value is None else f"{value:.3f}"
