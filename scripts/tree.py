"""Update the tree of the package in CONTRIBUTING.md: ``python scripts/tree.py``.

What a folder holds is written there by hand and kept; the modules below it are those
that exist. A folder without such a text is marked with a question mark, which
``tests/test_docs.py`` refuses.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
GUIDE = TOP / "CONTRIBUTING.md"
PACKAGE = TOP / "src" / "napari_svpseg"
BLOCK = re.compile(r"(?<=```text\n)napari_svpseg/.*?(?=```)", re.DOTALL)
WIDTH = 24


def updated(text: str) -> str:
    """Return the guide with the tree as it is now."""
    block = BLOCK.search(text)
    if block is None:
        raise ValueError(f"{GUIDE.name} has no tree: a text block with napari_svpseg/")
    folders = [
        line.split(maxsplit=1) for line in block[0].splitlines() if line[0] != " "
    ]
    about = {folder: rest[0] if rest else "?" for folder, *rest in folders}
    lines: list[str] = []
    for folder in sorted(path.parent for path in PACKAGE.rglob("__init__.py")):
        name = f"{folder.relative_to(PACKAGE.parent).as_posix()}/"
        name = name.removeprefix("napari_svpseg/") or name
        lines.append(f"{name.ljust(WIDTH)}{about.get(name, '?')}")
        modules = sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")
        lines += textwrap.wrap(
            "  ".join(modules), 88, initial_indent="    ", subsequent_indent="    "
        )
    return BLOCK.sub(lambda _: "\n".join(lines) + "\n", text)


if __name__ == "__main__":
    GUIDE.write_text(updated(GUIDE.read_text("utf-8")), "utf-8")
