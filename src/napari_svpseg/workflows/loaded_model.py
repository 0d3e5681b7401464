"""A model in memory with its prompts: an image in, a result out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.prompt import Prompts, PromptSet, as_prompt_set
from ..core.result import Result
from ..io.model_store import PROMPTS, LoadedModel, model_prompts
from ..io.model_store import load_model as load
from .segment_image import segment


@dataclass(frozen=True, eq=False)
class Model(LoadedModel):
    """A model that predicts. What `load_model` returns; every function takes it.

    Parameters
    ----------
    card : ModelCard
    network : PromptSegmenter
    prompts : PromptSet or None
        Used where `predict` is given none. None for a model that needs none, or that
        has none of its own.
    """

    prompts: PromptSet | None = None

    def predict(
        self, image: Any, prompts: Prompts | None = None, **options: Any
    ) -> Result:
        """Find the prompts' kind of object in an image, stack or time series.

        Parameters
        ----------
        image : array
            As ``query`` of `segment`: ``(Y, X)``, RGB, or any shape that the option
            ``axes`` explains.
        prompts : Prompt, PromptSet or iterable of Prompt, optional
            By default those of the model.
        **options
            As of `segment`: ``device``, ``axes``, ``channels``, ``threshold``, ...

        Returns
        -------
        Result
            Its ``labels`` are a uint32 array.

        Raises
        ------
        ImageError, PromptError, ValueError
            As for `segment`.

        Examples
        --------
        >>> model = load_model("svp", prompts)  # doctest: +SKIP
        >>> labels = model.predict(image).labels  # doctest: +SKIP
        """
        chosen = self.prompts if prompts is None else as_prompt_set(prompts)
        return segment(image, chosen, model=self, **options)


def load_model(model: str | Path, prompts: Prompts | None = None) -> Model:
    """Return a model with its weights, on the CPU and in evaluation mode.

    Parameters
    ----------
    model : str or path
        Name of a built-in model, of a user's own or of another package's, or a model
        folder.
    prompts : Prompt, PromptSet or iterable of Prompt, optional
        What `Model.predict` finds; by default the prompts in the model's folder.

    Returns
    -------
    Model

    Raises
    ------
    ModelFormatError
        If there is no such model, or its weights are missing, damaged, not those of the
        card, or do not fit the network.
    """
    loaded = load(model)
    if prompts is not None:
        return Model(loaded.card, loaded.network, as_prompt_set(prompts))
    folder = loaded.card.path  # the built-in ones hold no prompts: `predict` takes some
    holds_prompts = bool(folder) and Path(folder, PROMPTS).is_file()
    own = model_prompts(folder) if holds_prompts else None
    return Model(loaded.card, loaded.network, own)
