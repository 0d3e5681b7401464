"""Models as one file: a model folder is packed into a zip, or taken from one."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ..core.errors import short_line
from ..core.model_card import ModelCard
from .atomic import WriteError, atomic_folder, atomic_path
from .model_store import (
    CARD,
    MEMBERS,
    ODD_CONTENT,
    WEIGHTS,
    ModelFormatError,
    builtin_folder,
    find_model,
    parse_card,
    read_card,
    read_network,
    refuse_pickles,
    research_folder,
    user_folder,
    write_card,
)

MAX_MODEL_BYTES = 2_000_000_000


def export_model(model: str | Path, path: str | Path) -> Path:
    """Write a model as one zip that `import_model` reads."""
    card, path = find_model(model), Path(path)
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(
            temporary, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False
        ) as archive,
    ):
        for name in MEMBERS:
            member = Path(card.path) / name
            if member.is_file():
                archive.write(member, f"{card.name}/{name}")
    return path


def import_model(
    path: str | Path, folder: Path | None = None, name: str = ""
) -> ModelCard:
    """Add a model from a zip or folder to the user's own.

    Parameters
    ----------
    path : path
        A zip written by `export_model`, or a model folder.
    folder : Path, optional
        Where models are kept; `user_folder` by default.
    name : str
        What to call it; by default as where it comes from.

    Raises
    ------
    ModelFormatError
        If it is no model, or one of that name is already there.
    """
    path, folder = Path(path), folder or user_folder()
    if path.is_dir():
        card = _named(read_card(path), name)
        target = _free_place(card.name, folder)
        with atomic_folder(target) as temporary:
            for member in MEMBERS:
                if (path / member).is_file():
                    shutil.copy2(path / member, temporary / member)
            return _received(card, path, temporary, target)
    refuse_pickles(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked_members(archive, path)
            values = json.loads(archive.read(members[CARD]))
            card = _named(parse_card(values, path), name)
            target = _free_place(card.name, folder)
            with atomic_folder(target) as temporary:
                for member, info in members.items():
                    (temporary / member).write_bytes(archive.read(info))
                return _received(card, path, temporary, target)
    except (ModelFormatError, WriteError):
        raise
    except (OSError, zipfile.BadZipFile, zlib.error, *ODD_CONTENT) as error:
        raise ModelFormatError(
            f"{path}: not a model file, it cannot be read ({short_line(error)})."
        ) from error


def _received(card: ModelCard, source: Path, there: Path, target: Path) -> ModelCard:
    """Return the card of a model that was just copied, once its weights are proven."""
    write_card(there / CARD, card)
    read_network(card, there, told=source)
    return dataclasses.replace(card, path=str(target))


def _named(card: ModelCard, name: str) -> ModelCard:
    return dataclasses.replace(card, name=name) if name else card


def _free_place(name: str, folder: Path) -> Path:
    shipped = (builtin_folder(), research_folder())
    if folder == user_folder() and any((f / name / CARD).is_file() for f in shipped):
        raise ModelFormatError(
            f"'{name}' is the name of a built-in model, which would hide this one: "
            "import it under another (--name)."
        )
    if not name or name != Path(name).name or name.startswith("."):
        raise ModelFormatError(f"'{name}' is not a name for a model folder.")
    target = folder / name
    if target.exists():
        raise ModelFormatError(
            f"There is already a model '{name}' in {folder}: import this one under "
            "another name (--name), or remove that one first."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return target


def _checked_members(
    archive: zipfile.ZipFile, path: Path
) -> dict[str, zipfile.ZipInfo]:
    members = {}
    for info in archive.infolist():
        if info.is_dir():
            continue
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if not 1 <= len(parts) <= 2 or ".." in parts or parts[0].startswith("/"):
            raise ModelFormatError(
                f"{path}: refused, it holds the path {info.filename!r}."
            )
        if parts[-1] in MEMBERS:
            members[parts[-1]] = info
    if CARD not in members or WEIGHTS not in members:
        raise ModelFormatError(
            f"{path}: not a model file, {CARD} or {WEIGHTS} missing."
        )
    if sum(info.file_size for info in members.values()) > MAX_MODEL_BYTES:
        raise ModelFormatError(
            f"{path}: refused, over {MAX_MODEL_BYTES >> 20} MB unpacked."
        )
    return members
