"""The docs name files, commands and options that exist."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer import Context
from typer.main import get_command

from napari_svpseg.cli.main import app

TOP = Path(__file__).parents[1]
DOCS = TOP / "docs"
GUIDE = (TOP / "CONTRIBUTING.md").read_text("utf-8")
WRITTEN = [
    path
    for path in sorted([TOP / "README.md", *DOCS.glob("*.md"), *DOCS.glob("*/*.md")])
    if path.parent.name != "generated"
]


def test_the_tree_of_the_contributor_guide_is_the_real_one() -> None:
    updated = runpy.run_path(str(TOP / "scripts" / "tree.py"))["updated"](GUIDE)
    assert updated == GUIDE, "run: python scripts/tree.py"
    assert "?\n" not in re.search(r"```text\n(.*?)```", GUIDE, re.DOTALL)[1]


def test_files_that_the_contributor_guide_names_exist() -> None:
    table = GUIDE[GUIDE.index("| to change |") : GUIDE.index("## How we write")]
    named = re.findall(r"`([\w/]+\.(?:py|yaml))`", table)
    places = (
        TOP,
        TOP / "src" / "napari_svpseg",
        TOP / "src/napari_svpseg/plugin/docks",
    )
    assert len(named) > 20
    assert not [n for n in named if not any((place / n).exists() for place in places)]


@pytest.mark.parametrize("folder", ["decisions", "experiments"])
def test_each_page_is_in_its_index_under_its_title(folder: str) -> None:
    index = (DOCS / folder / "index.md").read_text("utf-8")
    for path in (DOCS / folder).glob("*.md"):
        title = path.read_text("utf-8").splitlines()[0].removeprefix("# ")
        assert path.name == "index.md" or f"[{title}]({path.name})" in index


def shown_texts() -> set[str]:
    """Return each text in the code of the docks and of the options they show."""
    package = TOP / "src" / "napari_svpseg"
    return {
        node.value
        for path in [*package.glob("plugin/**/*.py"), package / "core" / "settings.py"]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_controls_that_the_tutorials_name_exist() -> None:
    pages = [
        "../README",
        "segment",
        "batch",
        "fine-tune",
        "large-images",
        "train-from-tags",
    ]
    bold = {
        (page, " ".join(name.split()))
        for page in pages
        for name in re.findall(
            r"\*\*([^*]+)\*\*", (DOCS / f"{page}.md").read_text("utf-8")
        )
    }
    napari = {"Plugins"} | {
        name for _, name in bold if name.startswith(("Layers >", "File >"))
    }
    shown = shown_texts() | napari
    assert len(bold) > 40
    assert not sorted((page, name) for page, name in bold if name not in shown)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield where each ``svpseg`` command of the docs is, and its words."""
    for path in WRITTEN:
        for block in re.findall(r"^```(?:sh|bash)\n(.*?)^```", path.read_text("utf-8"),
                                re.MULTILINE | re.DOTALL):  # fmt: skip
            for line in block.replace("\\\n", " ").splitlines():
                if line.lstrip().startswith("svpseg "):
                    yield path.name, shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize(
    ("page", "words"), [pytest.param(p, w, id=f"{p}-{w[0]}") for p, w in commands()]
)
def test_commands_of_the_docs_exist_with_their_options(page, words) -> None:
    command = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    known = {
        name
        for param in command.get_params(Context(command))
        for name in (*param.opts, *param.secondary_opts)
    }
    assert not hasattr(command, "commands") or not words, f"no command {words}"
    assert given <= known, f"{command.name} has no {given - known}"


def test_pages_that_the_code_names_exist() -> None:
    named = {
        (path.name, page)
        for folder in ("src", "tests", "benchmarks", "scripts")
        for path in (TOP / folder).rglob("*.py")
        for page in re.findall(
            r"docs/((?:decisions|experiments)/[\w-]+)", path.read_text("utf-8")
        )
    }
    assert len(named) > 5
    assert not [(n, p) for n, p in named if not (DOCS / f"{p}.md").is_file()]


def test_no_page_holds_both_sides_of_a_merge() -> None:
    for path in (*WRITTEN, TOP / "CHANGELOG.md", TOP / "CONTRIBUTING.md"):
        assert not re.search(r"^(<{7}|>{7}) ", path.read_text("utf-8"), re.M), path
