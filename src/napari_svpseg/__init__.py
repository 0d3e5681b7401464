"""Find more of *these*: prompt-based segmentation of microscopy images.

Public names stand in ``__init__.pyi`` and are imported on first use, so that importing
the package loads neither torch nor Qt nor numpy.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

_import_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-svpseg")
    return _import_public(name)
