"""Bring the top level's napari.yaml and weights/ into the package.

A wheel gets copies. An editable install finds the weights at the top level by itself,
but napari looks for the manifest beside the code: it is linked there, or copied where
links are not allowed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "napari_svpseg"


class TopLevelFiles(BuildHookInterface):
    """Hatchling's hook of the wheel target."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files to include, or link the manifest for an editable install."""
        root = Path(self.root)
        manifest, weights = root / "napari.yaml", root / "weights"
        if version == "editable":
            beside_code(manifest, root / "src" / PACKAGE / manifest.name)
            return
        build_data["force_include"][str(manifest)] = f"{PACKAGE}/{manifest.name}"
        for path in sorted(weights.rglob("*")):
            if path.is_file():
                inside = path.relative_to(root).as_posix()
                build_data["force_include"][str(path)] = f"{PACKAGE}/{inside}"


def beside_code(source: Path, target: Path) -> None:
    """Link ``target`` to ``source``, or copy where the system allows no links."""
    target.unlink(missing_ok=True)
    try:
        target.symlink_to(Path("..", "..", source.name))
    except OSError:
        shutil.copyfile(source, target)
