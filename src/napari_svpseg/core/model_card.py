"""The model card: facts about a model, known without loading it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelCard:
    """Content of ``model.json``.

    Parameters
    ----------
    name : str
        Shown and used to select the model.
    method : str
        Name in the registry of methods, such as ``svp`` or ``panet``.
    arguments : dict
        Architecture arguments that rebuild the network.
    licence : str
        SPDX name of the licence of the weights.
    sha256 : str
        Hash of ``weights.safetensors``.
    channels : str
        What it was trained on: ``"any"`` takes grey, RGB and 1-4 channels.
    title, paper : str
    n_parameters : int
    training : dict
        Data sets with their licences, seed, steps, commit.
    scores : dict
        Scores as written by the benchmark.
    classes : dict of str to str
        Name and colour ``#rrggbb`` of each class, in the order of their ids from 1, of
        a model that needs no prompt.
    path : str
        Folder it was read from.
    version : int
        Of the file format.
    """

    name: str
    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    licence: str = "BSD-3-Clause"
    sha256: str = ""
    channels: str = "any"
    title: str = ""
    paper: str = ""
    n_parameters: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    path: str = ""
    version: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without the path."""
        values = asdict(self)
        del values["path"]
        return values
