"""Image-level tags: the classes that each image shows, in a table or by folder names.

``tags.csv`` has a row for each image: its file, then its classes. A file without
classes shows none of them; for a file that is not listed nothing is known.
"""

from __future__ import annotations

import codecs
import csv
import io
import locale
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..core.annotation.image_tags import checked_classes
from .atomic import atomic_path
from .image_series import without_masks
from .images import IMAGE_SUFFIXES
from .tables import csv_writer, quoted, unquoted

HEADER = ("file", "classes")
SUFFIXES = (*IMAGE_SUFFIXES, ".npy")
MAX_BYTES = 50_000_000
"""Larger files are no table of tags."""

MAX_LISTED = 5
"""Bad rows or files that a message names; the rest is counted."""

NO_CLASS_NAMES = ("none", "nothing", "background")
"""Folder names that stand for no class."""

HEADINGS = ("file", "image", "filename", "name")
"""First cells of a row that is a heading."""

UNKNOWN_CLASS = "the class {name!r} is not among {classes}"
NO_FILE_NAME = "row {row} names no file"
SAME_AGAIN = (
    "row {row} lists {name} again (first in row {first}, with the same classes)"
)
OTHER_AGAIN = "row {row} lists {name} again (first in row {first}, with other classes)"
BAD_ROWS = "{path}: {rows}: correct it and try again."
NO_IMAGES = "{path}: holds no image: write a line file,class for each."
TOO_LARGE = "{path}: refused, too large to be a table of tags."
UNREADABLE = "{path}: cannot be read ({reason})."
NOT_TEXT = "{path}: not a text file: save it as CSV (UTF-8)."
NOT_CSV = "{path}: row {row}: no CSV ({reason})."
AND_MORE = "; and {n} more"
NO_FOLDER = "{folder}: no such folder."
NO_CLASS_FOLDERS = (
    "{folder}: no folder with images in it: make one for each class, such as "
    "{folder.name}/tumour/a.tif, or give a tags.csv."
)
MISSING = "tagged but not there, left out: {names}"
NONE_THERE = (
    "{folder}: none of the tagged files is there, such as {name}: check the folder."
)
NONE_TAGGED = "{folder}: no image in it is tagged: tag at least two that differ."
WITHOUT_TAGS = "without tags, left out: {names}"


class TagsError(ValueError):
    """Tags that cannot be used; the message names the file and the row."""


class Tags(Mapping[str, frozenset[str]]):
    """The classes that each image shows: a mapping of file names to sets of classes.

    Parameters
    ----------
    images : mapping of str to iterable of str
        Classes of each file; empty if it shows none of them.
    classes : iterable of str, optional
        All classes in the order of their ids; by default in the order of appearance.

    Raises
    ------
    TagsError
        If an image has a class that is not in ``classes``, or a name is not valid.

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
            listed = ", ".join(names) or "none"
            raise TagsError(UNKNOWN_CLASS.format(name=unknown[0], classes=listed))
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
        """Return the images that show a class."""
        return [image for image, given in self._images.items() if name in given]


def read_tags(path: str | Path) -> Tags:
    """Return the tags in a ``tags.csv``.

    Each row has a file and its classes, separated by commas, semicolons or tabs. A
    first row ``file, ...`` is a heading. A comment ``# classes: a, b`` sets the order
    of the classes; other lines that start with ``#`` are skipped.

    Raises
    ------
    TagsError
        If the file cannot be read, a row has no file or one that is listed before, or
        there is neither image nor class; one line that names the file and the rows.
    """
    path = Path(path)
    rows, classes = _rows(path)
    images: dict[str, list[str]] = {}
    seen_at: dict[str, int] = {}
    bad: list[str] = []
    for line, row in rows:
        name, *given = (unquoted(cell.strip()) for cell in row)
        given = [c for c in given if c]
        if not name:
            bad.append(NO_FILE_NAME.format(row=line))
        elif name in images:
            same = set(images[name]) == set(given)
            message = SAME_AGAIN if same else OTHER_AGAIN
            bad.append(message.format(row=line, name=name, first=seen_at[name]))
        else:
            images[name], seen_at[name] = given, line
    if bad:
        raise TagsError(BAD_ROWS.format(path=path, rows=_first_few(bad)))
    if not images and not classes:
        raise TagsError(NO_IMAGES.format(path=path))
    try:
        return Tags(images, _ordered(classes, images))
    except TagsError as error:
        raise TagsError(f"{path}: {error}.") from error


def _rows(path: Path) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Return the rows with their line numbers, and the classes of the comment."""
    if path.exists() and not path.is_file():  # reading a pipe would never end
        raise TagsError(UNREADABLE.format(path=path, reason="it is no file"))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TagsError(TOO_LARGE.format(path=path))
        text = _decoded(path.read_bytes())
    except OSError as error:
        raise TagsError(UNREADABLE.format(path=path, reason=error.strerror)) from error
    except UnicodeDecodeError as error:
        raise TagsError(NOT_TEXT.format(path=path)) from error
    if "\0" in text:
        raise TagsError(NOT_TEXT.format(path=path))
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # of old Macs
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
            elif rows or first.lower() not in HEADINGS:
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise TagsError(
            NOT_CSV.format(path=path, row=reader.line_num, reason=error)
        ) from error
    return rows, classes


def _decoded(data: bytes) -> str:
    """Return a text in UTF-8, UTF-16 or the code page that Excel saves "CSV" in.

    Raises
    ------
    UnicodeDecodeError
        If it is no text.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    try:
        text = data.decode("utf-8-sig")  # Excel writes a byte order mark in front
    except UnicodeDecodeError:
        text = data.decode(_code_page())
    if "\0" in text:
        raise UnicodeDecodeError("utf-8", data, 0, 1, "binary")
    return text


def _code_page() -> str:
    """Return the code page of this system, or that of western Europe."""
    name = locale.getencoding().lower()
    return name if name.startswith(("cp125", "cp93")) else "cp1252"


def _delimiter(text: str) -> str:
    """Return the separator of cells, the most frequent one in the first lines."""
    head = "\n".join(
        line for line in text.splitlines()[:50] if not line.startswith("#")
    )
    # A comma wins a tie, as in a file without any separator.
    return max(",;\t", key=head.count)


def _ordered(classes: list[str], images: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Return the classes of the comment, then those that only rows have."""
    found = (c for given in images.values() for c in given)
    return tuple(dict.fromkeys([*classes, *found]))


def _first_few(items: list[str]) -> str:
    """Return the first items as text, and the number of the others."""
    more = len(items) - MAX_LISTED
    text = "; ".join(items[:MAX_LISTED])
    return text + (AND_MORE.format(n=more) if more > 0 else "")


def write_tags(
    path: str | Path,
    tags: Tags,
    *,
    comments: Iterable[str] = (),
    private: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write tags as a ``tags.csv``, which `read_tags` reads, atomically.

    Parameters
    ----------
    path : path
    tags : Tags
    comments : iterable of str
        Lines at the start, from `read_comments`.
    private : bool
        Only this user may read it.
    overwrite : bool
        Allow to replace a file. Tags are a user's own work: a file of them is never
        replaced without this, whoever wrote it.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    path = Path(path)
    with atomic_path(path, overwrite, private=private) as temporary:
        temporary.write_bytes(tags_file(tags, comments))
    return path


def tags_file(tags: Tags, comments: Iterable[str] = ()) -> bytes:
    """Return the content of the file that `write_tags` writes."""
    file = io.StringIO()
    file.writelines(f"{line}\n" for line in comments)
    file.write(f"# classes: {', '.join(tags.classes)}\n")
    writer = csv_writer(file)
    writer.writerow(HEADER)
    for image in tags:
        of_image = [c for c in tags.classes if c in tags[image]]
        writer.writerow([quoted(text) for text in (image, *of_image)])
    return file.getvalue().encode("utf-8")


def read_comments(path: str | Path) -> tuple[str, ...]:
    """Return the comment lines of a file of tags, but for that of the classes."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    comments = [line for line in lines if line.startswith("#")]
    kinds = [line.strip("# ").partition(":")[0].strip().lower() for line in comments]
    return tuple(c for c, k in zip(comments, kinds, strict=True) if k != "classes")


def tags_from_folders(folder: str | Path) -> Tags:
    """Return the tags that the names of folders give to the images in them.

    ``FOLDER/tumour/a.tif`` shows tumour; ``FOLDER/tumour+stroma/b.tif`` shows both;
    images in a folder named none, nothing or background, or in ``FOLDER`` itself, show
    no class.

    Raises
    ------
    TagsError
        If there is no such folder, or no image in a folder named by a class.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TagsError(NO_FOLDER.format(folder=folder))
    images: dict[str, list[str]] = {}
    for place in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        if place.name.startswith("."):
            continue
        inside = place != folder
        words = [w.strip() for w in place.name.split("+")] if inside else []
        given = [w for w in words if w and w.lower() not in NO_CLASS_NAMES]
        for path in image_files(place):
            images[path.relative_to(folder).as_posix()] = given
    if not any(images.values()):
        raise TagsError(NO_CLASS_FOLDERS.format(folder=folder))
    try:
        return Tags(images)
    except TagsError as error:
        raise TagsError(f"{folder}: {error}.") from error


def image_files(folder: str | Path) -> list[Path]:
    """Return the image files in a folder, sorted, without hidden ones and masks."""
    files = [
        path
        for path in sorted(Path(folder).iterdir())
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    ]
    return without_masks(files)[0]


def tagged_files(folder: str | Path, tags: Tags) -> tuple[dict[str, Path], list[str]]:
    """Return the paths of the tagged images, and notes on missing ones.

    Parameters
    ----------
    folder : path
        Folder that the names in the tags are relative to. Images may also lie in its
        sub-folder ``images/``, and have a suffix that the tags lack or have in another
        spelling.
    tags : Tags

    Returns
    -------
    files : dict of str to Path
        Path of each name, in the order of the tags.
    notes : list of str
        Tagged files that are missing, and images without tags.

    Raises
    ------
    TagsError
        If none of the tagged files exists.
    """
    folder = Path(folder)
    if not tags:
        raise TagsError(NONE_TAGGED.format(folder=folder))
    places = [folder, folder / "images"]
    files: dict[str, Path] = {}
    missing: list[str] = []
    images = [p for place in places if place.is_dir() for p in image_files(place)]
    by_stem = {_composed(p.stem): p for p in images}
    # macOS takes letters apart from their accents, and other systems do not
    by_name = {_composed(p.name): p for p in reversed(images)}
    for name in tags:
        found = (place / name for place in places if (place / name).is_file())
        here = next(found, None) or by_name.get(_composed(name))
        # By its stem, for tags of images that were converted to another format.
        if here is None and Path(name).name == name:
            is_image = Path(name).suffix.lower() in SUFFIXES
            here = by_stem.get(_composed(Path(name).stem if is_image else name))
        if here is None:
            missing.append(name)
        else:
            files[name] = here
    notes = []
    if missing:
        notes.append(MISSING.format(names=_first_few(missing)))
    if not files:
        raise TagsError(NONE_THERE.format(folder=folder, name=missing[0]))
    # Resolved, as a folder and a link to it hold the same images.
    taken = {path.resolve() for path in files.values()}
    loose = [p.name for p in by_stem.values() if p.resolve() not in taken]
    if loose:
        notes.append(WITHOUT_TAGS.format(names=_first_few(sorted(loose))))
    return files, notes


def _composed(name: str) -> str:
    """Return a name with its letters and accents in one piece (NFC)."""
    return unicodedata.normalize("NFC", name)
