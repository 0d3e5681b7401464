"""Model card: the description of a model that is read without loading its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelCard:
    """Content of the ``model.json`` of a model folder.

    Parameters
    ----------
    name : str
        Name that is shown and by which the model is selected.
    method : str
        Name in the registry of methods, such as ``svp`` or ``panet``.
    arguments : dict
        Arguments of the network's constructor, which rebuild its architecture.
    licence : str
        SPDX identifier of the licence of the weights.
    sha256 : str
        Hash of ``weights.safetensors``.
    channels : str
        Channels that the model was trained on: ``"any"`` takes grey, RGB and 1-4
        channels.
    title : str
        One line that describes the model.
    paper : str
        Reference of the method.
    n_parameters : int
    training : dict
        Data sets with their licences, seed, number of steps, commit.
    scores : dict
        Scores of each data set, as the benchmark writes them.
    classes : dict of str to str
        Name and colour ``#rrggbb`` of each class, in the order of their ids from 1.
        Empty for a model that knows none.
    needs_prompt : bool
        False for a model of another program, which finds what it was trained on.
    path : str
        Folder that the card was read from.
    version : int
        Version of the file format.
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
    needs_prompt: bool = True
    path: str = ""
    version: int = 1

    @property
    def takes_prompts(self) -> bool:
        """Whether the model finds what prompts show."""
        return self.needs_prompt and not self.classes

    def to_dict(self) -> dict[str, Any]:
        """Return the card as plain values for JSON; the path is left out."""
        values = asdict(self)
        del values["path"]
        return values
