"""Image-level tags: which image holds what, in a table or by folder names.

``tags.csv`` has a line for each image: its file, then its classes. A file without
classes holds none of them; a file that is not listed is not known.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..core.annotation.image_tags import checked_classes
from .atomic import atomic_path
from .images import BITMAP_SUFFIXES, TIFF_SUFFIXES

HEADER = ("file", "classes")
SUFFIXES = (*TIFF_SUFFIXES, *BITMAP_SUFFIXES, ".npy")
MAX_BYTES = 50_000_000
MAX_TOLD = 5
"""Bad rows that an error names; the rest is counted."""

NOTHING = ("none", "nothing", "background")
"""Folder names that stand for no class."""


class TagsError(ValueError):
    """Tags that cannot be used; the message names the file and the row."""


class Tags(Mapping[str, frozenset[str]]):
    """Which classes each image holds, in order.

    Parameters
    ----------
    images : mapping of str to iterable of str
        Classes of each file; an empty one says that it holds none of them.
    classes : iterable of str, optional
        All classes in the order of their ids; by default in the order of appearance.

    Raises
    ------
    TagsError
        If an image has a class that is not among ``classes``, or a name cannot be one.

    Examples
    --------
    >>> tags = Tags({"a.tif": ["tumour"], "b.tif": []})
    >>> tags.classes, sorted(tags["a.tif"]), tags.images_of("tumour")
    (('tumour',), ['tumour'], ['a.tif'])
    """

    def __init__(
        self, images: Mapping[str, Iterable[str]], classes: Iterable[str] | None = None
    ) -> None:
        ordered = {name: list(dict.fromkeys(given)) for name, given in images.items()}
        found = dict.fromkeys(c for given in ordered.values() for c in given)
        names = tuple(found if classes is None else classes)
        self._images = {name: frozenset(given) for name, given in ordered.items()}
        unknown = [c for c in found if c not in names]
        if unknown:
            raise TagsError(
                f"the class {unknown[0]!r} is not among {', '.join(names) or 'none'}"
            )
        try:
            self.classes: tuple[str, ...] = checked_classes(names) if names else ()
        except ValueError as error:
            raise TagsError(str(error)) from error

    def __getitem__(self, image: str) -> frozenset[str]:
        return self._images[image]

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        return f"Tags({len(self)} images, classes {', '.join(self.classes) or 'none'})"

    def images_of(self, name: str) -> list[str]:
        """Return the images that hold a class."""
        return [image for image, given in self._images.items() if name in given]


def read_tags(path: str | Path) -> Tags:
    """Read a ``tags.csv``.

    Each row is a file and its classes, separated by commas (or semicolons, or tabs). A
    first row ``file, ...`` is a heading. A comment ``# classes: a, b`` sets the order
    of the classes; other lines that start with ``#`` are skipped.

    Raises
    ------
    TagsError
        One line that names the file and every bad row: a file listed twice, no file,
        or neither image nor class.
    """
    path = Path(path)
    rows, classes = _rows(path)
    images: dict[str, list[str]] = {}
    seen_at: dict[str, int] = {}
    bad: list[str] = []
    for line, row in rows:
        name, *given = (cell.strip() for cell in row)
        given = [c for c in given if c]
        if not name:
            bad.append(f"row {line} names no file")
        elif name in images:
            same = set(images[name]) == set(given)
            bad.append(
                f"row {line} lists {name} again (first in row {seen_at[name]}, "
                f"{'with the same' if same else 'with other'} classes)"
            )
        else:
            images[name], seen_at[name] = given, line
    if bad:
        raise TagsError(f"{path}: {_some(bad)}: correct it and try again.")
    if not images and not classes:
        raise TagsError(f"{path}: holds no image: write a line file,class for each.")
    try:
        return Tags(images, _ordered(classes, images))
    except TagsError as error:
        raise TagsError(f"{path}: {error}.") from error


def _rows(path: Path) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Return the rows with their line numbers, and the classes a comment names."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TagsError(f"{path}: refused, too large to be a table of tags.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TagsError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise TagsError(
            f"{path}: not a text file in UTF-8: save it as CSV (UTF-8)."
        ) from error
    classes: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text), delimiter=_delimiter(text))
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            first = row[0].strip()
            if first.startswith("#"):
                kind, _, rest = ",".join(row).strip("# ").partition(":")
                if kind.strip().lower() == "classes":
                    classes = [c.strip() for c in rest.split(",") if c.strip()]
            elif rows or first.lower() not in ("file", "image", "filename", "name"):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise TagsError(f"{path}: row {reader.line_num}: no CSV ({error}).") from error
    return rows, classes


def _delimiter(text: str) -> str:
    """Return what separates cells: what the first lines hold most of."""
    head = "\n".join(
        line for line in text.splitlines()[:50] if not line.startswith("#")
    )
    return max(",;\t", key=head.count)


def _ordered(classes: list[str], images: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Return the classes a file names first, then those that only rows name."""
    found = (c for given in images.values() for c in given)
    return tuple(dict.fromkeys([*classes, *found]))


def _some(told: list[str]) -> str:
    more = len(told) - MAX_TOLD
    return "; ".join(told[:MAX_TOLD]) + (f"; and {more} more" if more > 0 else "")


def write_tags(path: str | Path, tags: Tags) -> Path:
    """Write tags so that `read_tags` gives them back, whole or not at all.

    Raises
    ------
    WriteError
        If the file cannot be written; an older one is untouched.
    """
    path = Path(path)
    text = io.StringIO()
    text.write(f"# classes: {', '.join(tags.classes)}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for image in tags:
        writer.writerow([image, *(c for c in tags.classes if c in tags[image])])
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return path


def tags_from_folders(folder: str | Path) -> Tags:
    """Return the tags that the names of folders give.

    ``FOLDER/tumour/a.tif`` holds tumour; ``FOLDER/tumour+stroma/b.tif`` holds both;
    what lies in a folder named none, nothing or background, or in ``FOLDER`` itself,
    holds no class.

    Raises
    ------
    TagsError
        If there is no such folder, or no folder with an image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TagsError(f"{folder}: no such folder.")
    images: dict[str, list[str]] = {}
    for place in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        if place.name.startswith("."):
            continue
        inside = place != folder
        words = [w.strip() for w in place.name.split("+")] if inside else []
        given = [w for w in words if w and w.lower() not in NOTHING]
        for path in image_files(place):
            images[path.relative_to(folder).as_posix()] = given
    if not any(images.values()):
        raise TagsError(
            f"{folder}: no folder with images in it: make one for each class, such as "
            f"{folder.name}/tumour/a.tif, or give a tags.csv."
        )
    try:
        return Tags(images)
    except TagsError as error:
        raise TagsError(f"{folder}: {error}.") from error


def image_files(folder: str | Path) -> list[Path]:
    """Return the images that lie in a folder, sorted; hidden ones are left out."""
    return [
        path
        for path in sorted(Path(folder).iterdir())
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    ]


def tagged_files(folder: str | Path, tags: Tags) -> tuple[dict[str, Path], list[str]]:
    """Return where the tagged images lie, and what is to be told.

    Parameters
    ----------
    folder : path
        Names in the tags are relative to it; ``images/`` in it is looked at as well,
        and a name without a suffix, or in another case of the suffix, is found.
    tags : Tags

    Returns
    -------
    files : dict of str to Path
        In the order of the tags.
    notes : list of str
        Tagged files that are missing, and images without tags.

    Raises
    ------
    TagsError
        If none of the tagged files is there.
    """
    folder = Path(folder)
    places = [folder, folder / "images"]
    files: dict[str, Path] = {}
    missing: list[str] = []
    by_stem = {
        p.stem: p for place in places if place.is_dir() for p in image_files(place)
    }
    for name in tags:
        found = (place / name for place in places if (place / name).is_file())
        here = next(found, None)
        if here is None and Path(name).name == name:
            is_image = Path(name).suffix.lower() in SUFFIXES
            here = by_stem.get(Path(name).stem if is_image else name)
        if here is None:
            missing.append(name)
        else:
            files[name] = here
    notes = []
    if missing:
        notes.append(f"tagged but not there, left out: {_some(missing)}")
    if not files:
        raise TagsError(
            f"{folder}: none of the tagged files is there, such as {missing[0]}: check "
            "the folder."
        )
    taken = {path.resolve() for path in files.values()}
    loose = [p.name for p in by_stem.values() if p.resolve() not in taken]
    if loose:
        notes.append(f"without tags, left out: {_some(sorted(loose))}")
    return files, notes
