"""Saves tags as they are given."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from ...core.fingerprint import fingerprint
from ...io.free_path import free_path
from ..messages import sentence
from .background import Background

if TYPE_CHECKING:
    from ...io.tag_files import Tags


class TagSaver(QObject):
    """A tags file that is written anew, in a thread, whenever tags change.

    The file is whole at any time, so what was tagged is there after a crash. A file
    that another program has changed since is not overwritten: ours goes beside it.
    """

    failed = Signal(str)
    moved = Signal(str)
    """The tags are saved in this file from now on."""

    def __init__(self) -> None:
        super().__init__()
        self.path: Path | None = None
        self._writer = Background(self._tell, limit=1)
        self._content: str | None = None
        self._comments: tuple[str, ...] = ()

    def use(self, path: Path) -> None:
        """Write to this file from now on; what it holds now is known."""
        from ...io.tag_files import read_comments

        self.path, self._content = path, _content(path)
        self._comments = read_comments(path)

    def save(self, tags: dict[str, tuple[str, ...]], classes: tuple[str, ...]) -> None:
        """Write the tags; of writes that wait only the newest is done."""
        self._writer.call(
            lambda: self._write(tags, classes),
            lambda moved: self.moved.emit(str(moved)) if moved else None,
            self._tell,
        )

    def _tell(self, error: BaseException) -> None:
        self.failed.emit(sentence(error))

    def close(self) -> None:
        """Wait until all is written."""
        self._writer.close(finish=True)

    def _write(
        self, tags: dict[str, tuple[str, ...]], classes: tuple[str, ...]
    ) -> Path | None:
        """Write in the writer's thread; return the new place if it had to move."""
        from ...io.tag_files import Tags, tags_file

        assert self.path is not None
        moved, now, comments = None, Tags(tags, classes), self._comments
        if _content(self.path) != self._content:
            moved = self.path = free_tags_file(self.path)
        try:
            _write(self.path, now, comments)
        except OSError:
            if user_place(self.path) == self.path:
                raise
            moved = self.path = user_place(self.path)
            _write(self.path, now, comments)
        # not what is in the file by now: another program may have been quick
        self._content = fingerprint(tags_file(now, comments))
        return moved


def _write(path: Path, tags: Tags, comments: tuple[str, ...]) -> None:
    """Write a tags file; one that is not beside the images is for its user only."""
    from ...io.atomic import private_folder
    from ...io.tag_files import write_tags

    private = path.parent == tags_folder()
    if private:
        private_folder(path.parent)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    write_tags(path, tags, comments=comments, private=private, overwrite=True)


def tags_folder() -> Path:
    """Return the folder of tags that are not beside their images."""
    from ...io.model_store import user_folder

    return user_folder().parent / "tags"


def _content(path: Path) -> str | None:
    """Return the fingerprint of a file, None where there is none to read."""
    try:
        return fingerprint(path.read_bytes())
    except OSError:
        return None


def free_tags_file(path: Path) -> Path:
    """Return a name beside a tags file that is not taken, such as ``tags-2.csv``."""
    return free_path(path, suffix=path.suffix, separator="-", first=2)


def user_place(path: Path) -> Path:
    """Return where tags go that cannot be written beside their images."""
    home = tags_folder()
    if path.parent == home:
        return path
    folder = path.parent
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return home / f"{folder.name}-{digest}.csv"


def open_images_file() -> Path:
    """Return where the tags of the open images are saved."""
    return tags_folder() / "open-images.csv"
