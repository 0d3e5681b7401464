"""Write a model with its prompts baked in, for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.exchange import GraphFormat
from ..core.progress import Progress, ignore_progress
from ..core.prompt import Prompts, as_prompt_set
from ..io.atomic import atomic_path
from ..io.bioimageio_package import write_package
from ..io.model_store import load_model, model_prompts
from ..io.ownership import check_replaceable


@dataclass(frozen=True)
class SharedModel:
    """The file that was written, and what is not in it."""

    path: Path
    notes: tuple[str, ...] = ()


def share_model(
    model: str | Path,
    path: str | Path,
    prompts: Prompts | None = None,
    *,
    form: GraphFormat = "bioimageio",
    side: int | None = None,
    authors: Sequence[str] = (),
    overwrite: bool = False,
    on_progress: Progress = ignore_progress,
) -> SharedModel:
    """Write a model whose prompts are baked in: it takes an image and nothing else.

    Parameters
    ----------
    model : str or path
        Name or folder of a model of the method ``svp``.
    path : path
        File to be written.
    prompts : Prompt, PromptSet or iterable of Prompt, optional
        By default those in the model's folder.
    form : {"bioimageio", "onnx", "torchscript"}
        A package of bioimage.io, which has all that is needed to run the model, or the
        graph alone.
    side : int, optional
        The only side of images in pixels, for programs that cannot compute with
        shapes (OpenCV 4). By default images have any size.
    authors : sequence of str
        For the package's description.
    overwrite : bool
        Allow to replace a file that this program did not write.
    on_progress : callable
        ``(done, total, message)``; may raise `Cancelled`.

    Returns
    -------
    SharedModel

    Raises
    ------
    ModelFormatError
        If there is no such model, or it has no prompts.
    PromptError
        If no prompt is usable.
    ExchangeError
        For another method, or where a package for writing ONNX is missing.
    WriteError
        If the file cannot be written.
    """
    from ..engine.exchange.bake import bake, check_method

    path = Path(path)
    check_replaceable(path, overwrite)
    loaded = load_model(model)
    check_method(loaded.network)
    chosen = model_prompts(model) if prompts is None else as_prompt_set(prompts)
    usable = chosen.usable()
    graph = bake(loaded.network, usable, form, side, on_progress)
    if form == "bioimageio":
        write_package(
            path, graph, loaded.card, usable, authors=authors, overwrite=overwrite
        )
    else:
        with atomic_path(path, overwrite) as temporary:
            temporary.write_bytes(graph.data)
    return SharedModel(path, graph.notes)
