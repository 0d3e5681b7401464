"""Pages of the site that are made when it is built.

References of command line and Python come from the code, model cards from ``weights/``;
home page, contributor guide and changelog are the files at the top level.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/napari-svpseg/napari-svpseg"
SHOWN_BY = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "generated/contributing.md",
    "CHANGELOG.md": "generated/changes.md",
    "weights": "generated/models.md",
}
"""Files and folders at the top level, and the pages of the site that show them."""


def write(folder: Path) -> None:
    """Write all generated pages into ``folder``; unchanged files are left alone."""
    pages = {
        "readme.md": top_level_page("README.md"),
        "contributing.md": top_level_page("CONTRIBUTING.md"),
        "changes.md": top_level_page("CHANGELOG.md"),
        "models.md": model_cards(),
        "commands.md": commands(),
        "api.md": public_names(),
    }
    folder.mkdir(exist_ok=True)
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def top_level_page(name: str) -> str:
    """Return a top-level Markdown file whose links work on the site.

    Links to what the site does not show lead to the repository.
    """
    place = posixpath.dirname(SHOWN_BY[name])

    def link(match: re.Match[str]) -> str:
        path, hash_mark, anchor = match[1].partition("#")
        page = SHOWN_BY.get(path.rstrip("/"))
        if page is None and path.startswith("docs/"):
            page = path.removeprefix("docs/")
        if page is None:
            return f"]({REPOSITORY}/blob/main/{path})"
        return f"]({posixpath.relpath(page, place or '.')}{hash_mark}{anchor})"

    text = (TOP / name).read_text("utf-8")
    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", link, text)


def model_cards() -> str:
    """Return the cards of the models in ``weights/``, the default one first."""
    folders = sorted(
        (path.parent for path in (TOP / "weights").rglob("model.json")),
        key=lambda p: ("research" in p.parts, p.name != "svp", p.name),
    )
    intro = (
        "# Models\n\nThe cards of the models in `weights/`. `svpseg models` lists "
        "those that are installed; [Methods](../methods.md) says which to use when."
    )
    cards = [(folder / "README.md").read_text("utf-8") for folder in folders]
    lower = [re.sub(r"^(#+) ", r"\1# ", card, flags=re.MULTILINE) for card in cards]
    return "\n\n".join([intro, *lower])


def commands() -> str:
    """Return the reference of the command line, made from the commands themselves."""
    from typer import Context
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from napari_svpseg.cli.main import app

    command = get_command(app)
    text = get_docs_for_click(
        obj=command, ctx=Context(command), name="svpseg", title="Command line"
    )
    # lists of commands, which cut their help short: the headings say the same
    return re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text)


def public_names() -> str:
    """Return the directives of the Python reference: functions, classes, errors."""
    import napari_svpseg

    groups: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": []}
    for name in sorted(napari_svpseg.__all__):
        value = getattr(napari_svpseg, name)
        is_class = isinstance(value, type)
        is_error = is_class and issubclass(value, BaseException)
        group = "Errors" if is_error else "Classes" if is_class else "Functions"
        kind = "exception" if is_error else "class" if is_class else "function"
        members = "   :members:\n" if is_class else ""
        groups[group].append(
            f"### {name}\n\n```{{eval-rst}}\n"
            f".. auto{kind}:: napari_svpseg.{name}\n{members}```"
        )
    parts = ["# Python\n\nAll names are imported from `napari_svpseg` itself."]
    for group, directives in groups.items():
        parts += [f"## {group}", *directives]
    return "\n\n".join(parts) + "\n"
