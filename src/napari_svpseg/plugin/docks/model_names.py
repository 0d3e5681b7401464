"""Names and folders of models that are to be trained."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from ...io.free_path import free_path
from ...io.model_store import user_folder

NEEDS_NAME = "Give the model a name of letters and numbers."
NOT_ALLOWED = '/\\:*?"<>|'
"""Characters that a file system may refuse."""


def clean_name(text: str) -> str:
    """Return a name for a model without superfluous spaces.

    Raises
    ------
    ValueError
        If it is empty, hidden, or holds characters that file systems refuse.
    """
    name = " ".join(text.split())
    if not name or set(name) & set(NOT_ALLOWED) or name.startswith("."):
        raise ValueError(NEEDS_NAME)
    return name


def new_model_folder(text: str, taken: Container[str] = ()) -> Path:
    """Return the folder of a new model, with a number where the name is taken.

    Parameters
    ----------
    text : str
        The name, as the user typed it.
    taken : container of str
        Names of models elsewhere.

    Raises
    ------
    ValueError
        For a name that a model cannot have.
    """
    return free_path(user_folder() / clean_name(text), taken=taken)
