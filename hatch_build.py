"""Bring the top level's napari.yaml, weights/ and README into the package.

A wheel gets copies, without the weights for non-commercial research. An editable
install finds the weights at the top level by itself, but napari looks for the manifest
beside the code: it is linked there, or copied where links are not allowed. Links of the
README lead to the repository, so that they work where the package is shown.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

PACKAGE = "napari_svpseg"
RESEARCH = "research"
"""Folder of the weights whose licence is not that of the package."""


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
            if path.is_file() and weights / RESEARCH not in path.parents:
                inside = path.relative_to(root).as_posix()
                build_data["force_include"][str(path)] = f"{PACKAGE}/{inside}"


def beside_code(source: Path, target: Path) -> None:
    """Link ``target`` to ``source``, or copy where the system allows no links."""
    target.unlink(missing_ok=True)
    try:
        target.symlink_to(Path("..", "..", source.name))
    except OSError:
        shutil.copyfile(source, target)


class Readme(MetadataHookInterface):
    """Hatchling's hook of the metadata: the description of the package."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README with absolute links."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        source = metadata["urls"]["Source Code"]
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": with_absolute_links(text, source),
        }


def with_absolute_links(text: str, source: str) -> str:
    """Return Markdown whose relative links lead to the repository ``source``."""
    relative = r"\]\((?!https?:|#)([^)]+)\)"
    images = re.sub("!(\\[[^]]*)" + relative, rf"!\1]({source}/raw/main/\2)", text)
    return re.sub(relative, rf"]({source}/blob/main/\1)", images)
