"""Readers of what this plugin and its neighbours wrote: labels and models."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io.result_files import kind_of_result
from .layers.images.lazy_zarr import add_zarr
from .layers.results.reopened import is_large, labels_layer
from .messages import sentence
from .services.model_install import install_model, open_dock

if TYPE_CHECKING:
    from napari.components import ViewerModel

logger = logging.getLogger(__name__)

LayerTuple = tuple[Any, ...]

NO_LAYERS: list[LayerTuple] = [(None,)]
"""What napari takes for a file that was read and needs no layer."""


def get_result_reader(
    path: str | list[str] = "",
) -> Callable[[Any], list[LayerTuple]] | None:
    """Return the reader of labels and models; None for other files.

    The pixels are not looked at, so that images of others are declined at once.
    Without a file, as napari's palette calls it, files are asked for and opened.
    """
    if not path:
        from .file_dialogs import open_results

        open_results(open_result)
        return None
    paths = [path] if isinstance(path, str) else list(path)
    if not paths or not all(kind_of_result(p) for p in paths):
        return None
    return read_results


def read_results(path: str | list[str]) -> list[LayerTuple]:
    """Open labels as Labels layers; a model is installed.

    What cannot be read is told in one line.

    Returns
    -------
    list of (data, attributes, layer type)
    """
    import napari

    paths = [path] if isinstance(path, str) else list(path)
    viewer = napari.current_viewer()
    layers: list[LayerTuple] = []
    for one in paths:
        try:
            layers += _read(one, viewer)
        except (ValueError, OSError) as error:
            logger.info("could not open %s", one, exc_info=True)
            _tell(sentence(error))
    return layers or NO_LAYERS


def open_result(viewer: ViewerModel, path: str | Path) -> None:
    """Open what `kind_of_result` knows in a viewer, without asking which reader.

    Raises
    ------
    ValueError, OSError
        If it cannot be read; one line that names the file.
    """
    from napari.layers import Layer

    for layer in _read(str(path), viewer):
        viewer.add_layer(Layer.create(*layer))


def _read(path: str, viewer: ViewerModel | None) -> list[LayerTuple]:
    kind = kind_of_result(path)
    if kind == "model":
        install_model(viewer, path)
        return []
    if kind == "session":
        open_dock(viewer, path).session_panel.open_session(path)
        return []
    if kind == "labels" and viewer is not None and is_large(path):
        add_zarr(viewer, path, "labels")
        return []
    return [labels_layer(path, viewer).as_layer_data_tuple()]


def _tell(text: str) -> None:
    from napari.utils.notifications import show_error

    show_error(text)
