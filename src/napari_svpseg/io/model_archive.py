"""Export of a model folder as one zip file, and import from one."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..core.errors import short_line
from ..core.model_card import ModelCard
from .atomic import WriteError, atomic_folder, atomic_path
from .foreign_package import DESCRIPTIONS, read_foreign
from .model_store import (
    BAD_PATH,
    CARD,
    MEMBERS,
    ODD_CONTENT,
    TOO_LARGE,
    WEIGHTS,
    ModelFormatError,
    builtin_folder,
    find_model,
    make_folder,
    member_parts,
    parse_card,
    read_card,
    read_network,
    refuse_pickles,
    research_folder,
    save_model,
    user_folder,
    write_card,
)
from .ownership import seal_zip

MAX_MODEL_BYTES = 2_000_000_000
"""Largest size of an unpacked model: a small zip may unpack to fill the disk."""

CANNOT_READ = "{path}: not a model file, it cannot be read ({reason})."
BUILTIN_NAME = (
    "'{name}' is the name of a built-in model, which would hide this one: import it "
    "under another (--name)."
)
BAD_NAME = "'{name}' is not a name for a model folder."
NAME_TAKEN = (
    "There is already a model '{name}' in {folder}: import this one under another name "
    "(--name), or remove that one first."
)
INCOMPLETE = "{path}: not a model file, model.json or weights.safetensors missing."


def export_model(
    model: str | Path, path: str | Path, *, overwrite: bool = False
) -> Path:
    """Write a model as one zip file, which `import_model` reads.

    Parameters
    ----------
    model : str or path
        Name or folder of the model.
    path : path
        File to be written.
    overwrite : bool
        Allow to replace a file that this program did not write.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ModelFormatError
        If there is no such model.
    WriteError
        If the file cannot be written.
    """
    card, path = find_model(model), Path(path)
    with atomic_path(path, overwrite) as temporary:
        with zipfile.ZipFile(
            temporary, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False
        ) as archive:
            for name in MEMBERS:
                member = Path(card.path) / name
                if member.is_file():
                    archive.write(member, f"{card.name}/{name}")
        seal_zip(temporary)
    return path


def import_model(
    path: str | Path,
    folder: Path | None = None,
    name: str = "",
    outputs: Sequence[str] = (),
) -> ModelCard:
    """Add a model from a zip file or folder to the user's own models.

    The model is loaded once before it is added, so that a damaged one is refused.

    Parameters
    ----------
    path : path
        Zip file written by `export_model`, a package of bioimage.io, or a model folder.
    folder : Path, optional
        Folder of the models; by default `user_folder`.
    name : str
        Name for the model; by default its own.
    outputs : sequence of str
        What each channel of the output is, for packages of other programs that do not
        say it: see `foreign_package`.

    Returns
    -------
    ModelCard
        Card of the added model.

    Raises
    ------
    ModelFormatError
        If it is no model, or there is one of that name.
    WriteError
        If the folder cannot be written.
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
            if _is_foreign(archive):
                return _foreign(archive, path, folder, name, outputs)
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
            CANNOT_READ.format(path=path, reason=short_line(error))
        ) from error


def _is_foreign(archive: zipfile.ZipFile) -> bool:
    """Return whether a zip is a package of another program."""
    names = {PurePosixPath(n).name for n in archive.namelist()}
    return bool(names & set(DESCRIPTIONS)) and CARD not in names


def _foreign(
    archive: zipfile.ZipFile,
    path: Path,
    folder: Path,
    name: str,
    outputs: Sequence[str],
) -> ModelCard:
    """Add a model of another program, and return its card."""
    found = read_foreign(archive, path, outputs)
    card = _named(found.card, name)
    return save_model(_free_place(card.name, folder), found.network, card)


def _received(card: ModelCard, source: Path, there: Path, target: Path) -> ModelCard:
    """Return the card of a model that was copied to ``there``, after loading it.

    Parameters
    ----------
    card : ModelCard
    source : Path
        Place that the model comes from, for errors.
    there : Path
        Temporary folder of the copy.
    target : Path
        Folder that the copy will have.
    """
    write_card(there / CARD, card)
    read_network(card, there, source)
    return dataclasses.replace(card, path=str(target))


def _named(card: ModelCard, name: str) -> ModelCard:
    """Return the card under another name, if one is given."""
    return dataclasses.replace(card, name=name) if name else card


def _free_place(name: str, folder: Path) -> Path:
    """Return the folder of a new model, or raise `ModelFormatError`."""
    # of two models with one name the built-in one is found first
    shipped = (builtin_folder(), research_folder())
    if folder == user_folder() and any((f / name / CARD).is_file() for f in shipped):
        raise ModelFormatError(BUILTIN_NAME.format(name=name))
    if not name or name != Path(name).name or name.startswith("."):
        raise ModelFormatError(BAD_NAME.format(name=name))
    target = folder / name
    if target.exists():
        raise ModelFormatError(NAME_TAKEN.format(name=name, folder=folder))
    make_folder(folder)
    return target


def _checked_members(
    archive: zipfile.ZipFile, path: Path
) -> dict[str, zipfile.ZipInfo]:
    """Return the files of a model in a zip by name, after checking paths and sizes."""
    members = {}
    for info in archive.infolist():
        if info.is_dir():
            continue
        # MEMBER or NAME/MEMBER, and no path that leads out of the model folder.
        parts = member_parts(info.filename, path)
        if not 1 <= len(parts) <= 2:
            raise ModelFormatError(BAD_PATH.format(path=path, member=info.filename))
        if parts[-1] in MEMBERS:
            members[parts[-1]] = info
    if CARD not in members or WEIGHTS not in members:
        raise ModelFormatError(INCOMPLETE.format(path=path))
    if sum(info.file_size for info in members.values()) > MAX_MODEL_BYTES:
        raise ModelFormatError(TOO_LARGE.format(path=path, limit=MAX_MODEL_BYTES >> 20))
    return members
