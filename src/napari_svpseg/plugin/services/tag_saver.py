"""Saves tags as they are given."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from qtpy.QtCore import QObject, Signal

from ...io.free_path import free_path
from ..messages import sentence
from .background import Background


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
        self._writer = Background(1, limit=1)
        self._stamp: tuple[int, int] | None = None
        self._comments: tuple[str, ...] = ()

    def use(self, path: Path) -> None:
        """Write to this file from now on; what it holds now is known."""
        from ...io.tag_files import read_comments

        self.path, self._stamp = path, _stamp(path)
        self._comments = read_comments(path)

    def save(self, tags: dict[str, tuple[str, ...]], classes: tuple[str, ...]) -> None:
        """Write the tags; of writes that wait only the newest is done."""
        self._writer.call(
            lambda: self._write(tags, classes),
            lambda moved: self.moved.emit(str(moved)) if moved else None,
            lambda error: self.failed.emit(sentence(error)),
        )

    def close(self) -> None:
        """Wait until all is written."""
        self._writer.close(finish=True)

    def _write(
        self, tags: dict[str, tuple[str, ...]], classes: tuple[str, ...]
    ) -> Path | None:
        """Write in the writer's thread; return the new place if it had to move."""
        from ...io.tag_files import Tags, write_tags

        assert self.path is not None
        moved = None
        given, comments = Tags(tags, classes), self._comments
        if _stamp(self.path) != self._stamp:
            moved = self.path = free_tags_file(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_tags(self.path, given, comments=comments, overwrite=True)
        except OSError:
            if user_place(self.path) == self.path:
                raise
            moved = self.path = user_place(self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_tags(self.path, given, comments=comments, overwrite=True)
        self._stamp = _stamp(self.path)
        return moved


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return a stamp that changes when the file is written, None without a file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def free_tags_file(path: Path) -> Path:
    """Return a name beside a tags file that is not taken, such as ``tags-2.csv``."""
    return free_path(path, suffix=path.suffix, separator="-", first=2)


def user_place(path: Path) -> Path:
    """Return where tags go that cannot be written beside their images."""
    from ...io.model_store import user_folder

    home = user_folder().parent / "tags"
    if path.parent == home:
        return path
    folder = path.parent
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return home / f"{folder.name}-{digest}.csv"


def open_images_file() -> Path:
    """Return where the tags of the open images are saved."""
    from ...io.model_store import user_folder

    return user_folder().parent / "tags" / "open-images.csv"
