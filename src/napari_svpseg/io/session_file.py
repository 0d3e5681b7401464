"""A session as one file: the folder that `io.session` writes, in a zip.

Autosave appends to such a folder while the user works; a session that the user saves
is complete at once, and replaced as a whole.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import short_line
from ..core.prompt import Prompt
from .atomic import atomic_path
from .session import (
    LOCK,
    STATE,
    SavedSession,
    Session,
    SessionError,
    block_slices,
    block_starts,
    read_state,
)

MEMBER = re.compile(rf"{re.escape(STATE)}|prompts(-\d+)?\.svprompt|labels-\w+\.log")
"""Files in a session; a zip with any other is none."""

MAX_BYTES = 20_000_000_000
"""Largest size of an unpacked session: a small zip may unpack to fill the disk."""
MAX_RATIO = 200
"""Least share of its size that a session is packed to."""

NOT_A_SESSION = "{path}: not a saved session, or damaged ({reason})."
OTHER_FILES = "it holds {name!r}"
TOO_LARGE = "it would fill the disk"


def save_session(
    path: str | Path,
    state: dict[str, Any],
    prompts: Sequence[Prompt],
    labels: Mapping[str, np.ndarray],
    *,
    overwrite: bool = False,
) -> Path:
    """Write a session as one file, atomically.

    Parameters
    ----------
    path : path
        Ends in `result_files.SESSION_END`; its folder must exist.
    state : dict
        Plain values, as `Session.write_state` takes them.
    prompts : sequence of Prompt
        Of any kinds of images.
    labels : dict of str to int array
        Pixels of the layers by their key in ``state``.
    overwrite : bool
        Allow to replace a file.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    WriteError
        If it cannot be written; an older file stays as it was.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix="svpseg-") as work:
        session = Session(work)
        try:
            for key, array in labels.items():
                shape = tuple(array.shape)
                blocks = (
                    (s, array[block_slices(s, shape)]) for s in block_starts(shape)
                )
                session.write_blocks(key, shape, array.dtype.str, blocks)
            session.write_prompts(prompts)
            session.write_state(state)
            with (
                atomic_path(path, overwrite) as temporary,
                zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
            ):
                for file in sorted(session.folder.iterdir()):
                    if file.name != LOCK:
                        archive.write(file, file.name)
        finally:
            session.close()
    return path


def open_session(path: str | Path) -> SavedSession:
    """Return a session that was saved as one file.

    It is unpacked into a temporary folder, which `SavedSession.discard` deletes.

    Raises
    ------
    SessionError
        If it is none, of another version, or damaged; one line that names the file.
    """
    path = Path(path)
    folder = Path(tempfile.mkdtemp(prefix="svpseg-"))
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, path)
            archive.extractall(folder)
        return SavedSession(folder, read_state(folder / STATE))
    except SessionError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise SessionError(
            str(error).replace(str(folder / STATE), str(path))
        ) from error
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, KeyError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise SessionError(
            NOT_A_SESSION.format(path=path, reason=short_line(error))
        ) from error


def _check(archive: zipfile.ZipFile, path: Path) -> None:
    """Raise `SessionError` for a zip that holds anything else, or too much."""
    infos = archive.infolist()
    other = [i.filename for i in infos if not MEMBER.fullmatch(i.filename)]
    if other or STATE not in archive.namelist():
        reason = OTHER_FILES.format(name=other[0]) if other else f"no {STATE}"
        raise SessionError(NOT_A_SESSION.format(path=path, reason=reason))
    size = sum(i.file_size for i in infos)
    packed = sum(i.compress_size for i in infos)
    if size > MAX_BYTES or size > MAX_RATIO * max(packed, 100_000):
        raise SessionError(NOT_A_SESSION.format(path=path, reason=TOO_LARGE))
