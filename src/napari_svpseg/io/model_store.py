"""Model folders: ``model.json``, ``weights.safetensors`` and a card people can read."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import joined, short_line
from ..core.fingerprint import fingerprint
from ..core.method_plugins import is_plugin, plugin_cards
from ..core.model_card import ModelCard
from .atomic import WriteError, atomic_folder, atomic_path
from .prompt_files import load_prompts, save_prompts

if TYPE_CHECKING:
    from ..core.prompt import PromptSet
    from ..models.base import PromptSegmenter

FORMAT_VERSION = 1
WEIGHTS, CARD, README = "weights.safetensors", "model.json", "README.md"
PROMPTS = "prompts.svprompt"
MEMBERS = (CARD, WEIGHTS, README, "history.csv", PROMPTS)

KINDS = {
    "name": str, "method": str, "arguments": dict, "licence": str, "sha256": str,
    "channels": str, "title": str, "paper": str, "n_parameters": int, "training": dict,
    "scores": dict, "classes": dict, "version": int,
}  # fmt: skip
NEEDED = ("name", "method", "sha256")

logger = logging.getLogger(__name__)


class ModelFormatError(ValueError):
    """A model folder that cannot be used; the message names it."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A card and its network, ready to predict."""

    card: ModelCard
    network: PromptSegmenter


def builtin_folder() -> Path:
    """Return the folder of the models that ship with the package."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "weights"
    return inside if inside.is_dir() else package.parents[1] / "weights"


def research_folder() -> Path:
    """Return the folder of models for non-commercial research.

    Only a source checkout has it; wheels hold no such weights.
    """
    return builtin_folder() / "research"


def user_folder() -> Path:
    """Return the folder of the user's own models (it may not exist yet).

    ``NAPARI_SVPSEG_HOME`` overrides the place.
    """
    home = os.environ.get("NAPARI_SVPSEG_HOME")
    if home:
        return Path(home) / "models"
    from platformdirs import user_data_path

    return user_data_path("napari-svpseg", appauthor=False) / "models"


def list_models(folders: Iterable[Path] | None = None) -> list[ModelCard]:
    """Return the cards of all models, ``svp`` first; broken folders are skipped.

    Parameters
    ----------
    folders : iterable of Path, optional
        Where to look; of two models of one name the first found counts. By default
        `builtin_folder`, `research_folder` and `user_folder`, then the methods of other
        packages.
    """
    cards: dict[str, ModelCard] = {}
    usual = (builtin_folder(), research_folder(), user_folder())
    for folder in usual if folders is None else folders:
        for path in _model_folders(folder):
            try:
                card = read_card(path)
            except ModelFormatError as error:
                logger.warning("%s", error)
                continue
            cards.setdefault(card.name, card)
    if folders is None:
        for card in plugin_cards():
            cards.setdefault(card.name, card)
    return sorted(cards.values(), key=lambda c: (c.name != "svp", c.name))


def _model_folders(folder: Path) -> list[Path]:
    """Return what may be models in a folder; hidden ones are half written."""
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
        If ``model.json`` is missing, damaged or of a newer format.
    """
    folder = Path(folder)
    try:
        values = json.loads((folder / CARD).read_text(encoding="utf8"))
    except OSError as error:
        raise ModelFormatError(
            f"{folder}: not a model folder, {CARD} is missing or unreadable."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{folder / CARD}: damaged, not JSON.") from error
    return parse_card(values, folder)


def parse_card(values: Any, folder: Path) -> ModelCard:
    """Return the card that the content of a ``model.json`` describes."""
    if not isinstance(values, dict):
        raise ModelFormatError(f"{folder / CARD}: damaged, not a JSON object.")
    if values.get("version") != FORMAT_VERSION:
        raise ModelFormatError(
            f"{folder / CARD}: format version {values.get('version')!r} is not known "
            "here: update napari-svpseg."
        )
    known = {k: v for k, v in values.items() if k in KINDS}
    wrong = [k for k, v in known.items() if not isinstance(v, KINDS[k])]
    wrong += [k for k in NEEDED if not known.get(k) and k not in wrong]
    if not wrong and not all(
        isinstance(colour, str) for colour in known.get("classes", {}).values()
    ):
        wrong.append("classes")
    if wrong:
        raise ModelFormatError(f"{folder / CARD}: '{wrong[0]}' is missing or wrong.")
    return ModelCard(**{"arguments": {}} | known, path=str(folder))


def find_model(model: str | Path) -> ModelCard:
    """Return the card of a model by name or folder.

    Raises
    ------
    ModelFormatError
        If there is none, with the names there are.
    """
    path = Path(model)
    if (path / CARD).is_file():
        return read_card(path)
    refuse_pickles(path)
    cards = list_models()
    for card in cards:
        if card.name == str(model):
            return card
    names = ", ".join(card.name for card in cards) or "none"
    raise ModelFormatError(
        f"There is no model '{model}': choose one of {names}, or a model folder."
    )


def refuse_pickles(path: Path) -> None:
    """Raise `ModelFormatError` for a file of pickled weights."""
    if path.suffix.lower() in (".pt", ".pth", ".ckpt", ".pkl", ".bin"):
        raise ModelFormatError(
            f"{path}: pickled weights can run code and are not read: "
            f"give a model folder with {CARD} and {WEIGHTS}."
        )


def load_model(model: str | Path) -> LoadedModel:
    """Return a model with its weights, on the CPU and in evaluation mode.

    Parameters
    ----------
    model : str or path
        Built-in name, name of an own model, or folder.

    Raises
    ------
    ModelFormatError
        If the weights are missing, damaged, not those of the card, or do not fit it.
    """
    card = find_model(model)
    if is_plugin(card):
        return LoadedModel(card, _of_plugin(card))
    return LoadedModel(card, read_network(card, Path(card.path), told=Path(card.path)))


def _of_plugin(card: ModelCard) -> PromptSegmenter:
    from ..models.registry import ModelConfig, build

    try:
        return build(ModelConfig(card.method)).eval()
    except ValueError as error:
        raise ModelFormatError(joined(str(error))) from error


ODD_CONTENT = (
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError,
    AssertionError,
)  # fmt: skip
"""What reading or building from a card of odd content can raise."""


def read_network(card: ModelCard, folder: Path, told: Path) -> PromptSegmenter:
    """Return the network in ``folder``; errors name the place ``told``."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from ..models.registry import ModelConfig, build

    try:
        data = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise ModelFormatError(
            f"{told / WEIGHTS}: cannot be read ({error.strerror})."
        ) from error
    if fingerprint(data) != card.sha256:
        raise ModelFormatError(
            f"{told / WEIGHTS}: these are not the weights of {CARD} (their hashes "
            "differ): install the model again."
        )
    try:
        network = build(ModelConfig(card.method, card.arguments))
        network.load_state_dict(load(data))
    except (SafetensorError, *ODD_CONTENT) as error:
        raise ModelFormatError(
            f"{told}: weights and {CARD} do not fit ({short_line(error)})."
        ) from error
    return network.eval()


def save_model(
    folder: str | Path,
    network: PromptSegmenter,
    card: ModelCard,
    *,
    history: Sequence[Mapping[str, float]] | None = None,
    readme: str | None = None,
    prompts: PromptSet | None = None,
) -> ModelCard:
    """Write a model folder, whole or not at all.

    Parameters
    ----------
    folder : path
        A model that is there is replaced; a folder of anything else is refused.
    network : PromptSegmenter
    card : ModelCard
        Hash, number of parameters and path are filled in.
    history : list of dict, optional
        Rows of ``history.csv``.
    readme : str, optional
        The card for people; by default written from ``card``.
    prompts : PromptSet, optional
        What the model looks for when it is given no other prompts.

    Returns
    -------
    ModelCard
        As written.
    """
    from safetensors.torch import save

    folder = Path(folder)
    check_model_folder(folder)
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    data = save(state)
    card = dataclasses.replace(
        card,
        sha256=fingerprint(data),
        path=str(folder),
        n_parameters=sum(p.numel() for p in network.parameters()),
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as temporary:
        (temporary / WEIGHTS).write_bytes(data)
        write_card(temporary / CARD, card)
        (temporary / README).write_text(readme or card_markdown(card), encoding="utf8")
        if history:
            _write_history(temporary / "history.csv", history)
        if prompts is not None:
            save_prompts(prompts, temporary / PROMPTS)
    return card


def model_prompts(model: str | Path) -> PromptSet:
    """Return the prompts that lie in a model's folder.

    Raises
    ------
    ModelFormatError
        If there is no such model, or it has none.
    """
    card = find_model(model)
    path = Path(card.path) / PROMPTS
    if not path.is_file():
        raise ModelFormatError(
            f"The model '{card.name}' has no prompts of its own: draw or give some."
        )
    return load_prompts(path)


def check_model_folder(folder: str | Path) -> None:
    """Raise `WriteError` where writing a model would delete something else."""
    folder = Path(folder)
    if not folder.exists():
        return
    other = [] if folder.is_dir() else [folder]
    if not other:
        other = [p for p in folder.iterdir() if not _is_of_a_model(p)]
    if other:
        raise WriteError(
            f"{folder}: holds '{other[0].name}', which is no part of a model and would "
            "be lost: choose a new folder."
        )


def _is_of_a_model(path: Path) -> bool:
    return path.is_file() and (path.name in MEMBERS or path.name.startswith("."))


def update_card(card: ModelCard, readme: str | None = None) -> None:
    """Write a changed card (new scores, say) into its folder."""
    folder = Path(card.path)
    with atomic_path(folder / CARD) as temporary:
        write_card(temporary, card)
    with atomic_path(folder / README) as temporary:
        temporary.write_text(readme or card_markdown(card), encoding="utf8")


def write_card(path: Path, card: ModelCard) -> None:
    """Write a card as JSON."""
    path.write_text(json.dumps(card.to_dict(), indent=1) + "\n", encoding="utf8")


def _write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    columns = list(dict.fromkeys(name for row in history for name in row))
    with open(path, "w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in history:
            writer.writerow({k: f"{v:.6g}" for k, v in row.items()})


def card_markdown(card: ModelCard) -> str:
    """Return the card as Markdown."""
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
    value = score.get(name) if isinstance(score, dict) else None
    return "–" if value is None else f"{value:.3f}"
