"""Which image has which classes, with undo: what the table of tags shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qtpy.QtCore import QObject, Signal

from ...layers.images.tagged_image import TaggedImage

MAX_CLASSES = 9
"""One for each digit."""

MAX_UNDO = 200

NO_NAME = "A class needs a name."
BAD_NAME = "'{}': a class has a name without , ; # and quotes."
TAKEN_NAME = "There is a class '{}' already."
TOO_MANY_CLASSES = (
    f"There are {MAX_CLASSES} classes, one for each digit: remove one first."
)

Classes = frozenset[str]


@dataclass(frozen=True)
class TagEdit:
    """A change of tags or classes: the values before it."""

    classes: tuple[str, ...]
    tags: dict[str, Classes | None]


class TagSet(QObject):
    """Tags of the images that are shown, and of others in the same file.

    An image that has none of the classes is tagged as well: it shows what they are not.
    One without a tag is not known.

    Attributes
    ----------
    images : list of TaggedImage
    classes : tuple of str
        In the order of their digits.
    tags : dict of str to frozenset of str
        Key of an image -> its classes.
    """

    resetting = Signal()
    reset = Signal()
    """Before and after other images are shown."""
    reclassing = Signal()
    reclassed = Signal()
    """Before and after there are other classes."""
    retagged = Signal()
    edited = Signal()
    """After each change that is to be saved."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[TaggedImage] = []
        self.classes: tuple[str, ...] = ()
        self.tags: dict[str, Classes] = {}
        self._edits: list[TagEdit] = []

    def show(
        self,
        images: Iterable[TaggedImage],
        tags: Mapping[str, Iterable[str]],
        classes: Sequence[str],
    ) -> None:
        """Show other images.

        Parameters
        ----------
        images : iterable of TaggedImage
        tags : dict
            Key of an image -> its classes. Those of images that are not there are
            kept, so that they are saved again.
        classes : sequence of str
        """
        self.resetting.emit()
        self.images = list(images)
        self.tags = {key: frozenset(of) for key, of in tags.items()}
        used = sorted(frozenset().union(*self.tags.values()) - set(classes))
        self.classes = (*classes, *used)
        self._edits.clear()
        self.reset.emit()

    def refresh(self, images: Iterable[TaggedImage]) -> None:
        """Show the images that are there now; tags and undo stay."""
        self.resetting.emit()
        self.images = list(images)
        self.reset.emit()

    def rekey(self, old: str, new: str) -> None:
        """Let the tags of an image follow its new name."""
        if old in self.tags and new not in self.tags:
            self.tags[new] = self.tags.pop(old)
            self.edited.emit()

    # ------------------------------------------------------------ reading

    def tags_of(self, image: TaggedImage) -> tuple[str, ...]:
        """Return the classes of an image, in the order of the classes."""
        found = self.tags.get(image.key, frozenset())
        return tuple(c for c in self.classes if c in found)

    def tagged(self) -> list[tuple[TaggedImage, tuple[str, ...]]]:
        """Return the images shown that are tagged, with their classes."""
        return [(i, self.tags_of(i)) for i in self.images if i.key in self.tags]

    def rows(self) -> dict[str, tuple[str, ...]]:
        """Return all tags as they are saved: also of images that are not shown."""
        return {
            key: tuple(c for c in self.classes if c in found)
            for key, found in self.tags.items()
        }

    def n_tagged(self) -> int:
        """Return how many of the images shown have a tag."""
        return sum(1 for i in self.images if i.key in self.tags)

    def n_of(self, name: str) -> int:
        """Return how many of the images shown have a class."""
        return sum(1 for i in self.images if name in self.tags.get(i.key, ()))

    def next_untagged(self, row: int) -> int:
        """Return the row of the next image without a tag after a row; -1 for none."""
        n = len(self.images)
        after = [(row + 1 + i) % n for i in range(n)]
        return next((i for i in after if self.images[i].key not in self.tags), -1)

    # ------------------------------------------------------------ changing

    def toggle(self, rows: Iterable[int], i: int) -> None:
        """Give images a class, or remove it where all of them have it."""
        keys = [self.images[r].key for r in rows]
        if not keys or i >= len(self.classes):
            return
        name = self.classes[i]
        now = {k: self.tags.get(k, frozenset()) for k in keys}
        if all(name in of for of in now.values()):
            self._change(
                self.classes, {k: (of - {name}) or None for k, of in now.items()}
            )
        else:
            self._change(self.classes, {k: of | {name} for k, of in now.items()})

    def set_none(self, rows: Iterable[int]) -> None:
        """Tag images as having none of the classes."""
        self._change(self.classes, {self.images[r].key: frozenset() for r in rows})

    def clear(self, rows: Iterable[int]) -> None:
        """Remove the tags of images: they are not known."""
        self._change(self.classes, {self.images[r].key: None for r in rows})

    def add_class(self, name: str) -> None:
        """Add a class.

        Raises
        ------
        ValueError
            For a name that is empty or taken, or a tenth class.
        """
        if len(self.classes) >= MAX_CLASSES:
            raise ValueError(TOO_MANY_CLASSES)
        self._change((*self.classes, self._checked(name)), {})

    def rename_class(self, i: int, name: str) -> None:
        """Give a class another name, in all images.

        Raises
        ------
        ValueError
            For a name that is empty or taken.
        """
        old = self.classes[i]
        new = self._checked(name, but=old)
        classes = (*self.classes[:i], new, *self.classes[i + 1 :])
        self._change(
            classes,
            {k: of - {old} | {new} for k, of in self.tags.items() if old in of},
        )

    def remove_class(self, i: int) -> None:
        """Remove a class, also from the images that have it."""
        old = self.classes[i]
        self._change(
            (*self.classes[:i], *self.classes[i + 1 :]),
            {k: (of - {old}) or None for k, of in self.tags.items() if old in of},
        )

    def undo(self) -> bool:
        """Undo the latest change; return False where there is none."""
        if not self._edits:
            return False
        edit = self._edits.pop()
        self._apply(edit.classes, edit.tags)
        return True

    def _checked(self, name: str, but: str = "") -> str:
        name = " ".join(name.split())
        if not name:
            raise ValueError(NO_NAME)
        if set(name) & set(',;"#'):
            raise ValueError(BAD_NAME.format(name))
        if name.casefold() in (c.casefold() for c in self.classes if c != but):
            raise ValueError(TAKEN_NAME.format(name))
        return name

    def _change(
        self, classes: tuple[str, ...], tags: Mapping[str, Classes | None]
    ) -> None:
        before = {key: self.tags.get(key) for key in tags}
        if before == tags and classes == self.classes:
            return
        self._edits = [*self._edits, TagEdit(self.classes, before)][-MAX_UNDO:]
        self._apply(classes, tags)

    def _apply(
        self, classes: tuple[str, ...], tags: Mapping[str, Classes | None]
    ) -> None:
        for key, found in tags.items():
            if found is None:
                self.tags.pop(key, None)
            else:
                self.tags[key] = found
        if classes != self.classes:
            self.reclassing.emit()
            self.classes = classes
            self.reclassed.emit()
        else:
            self.retagged.emit()
        self.edited.emit()
