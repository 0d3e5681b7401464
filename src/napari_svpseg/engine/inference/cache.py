"""Cache of values derived from a network's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from ...core.fingerprint import Content, fingerprint
from ...models.base import PromptSegmenter

T = TypeVar("T")


class NetworkCache(Generic[T]):
    """Values by network, the state of its weights, and what else they were made of.

    Parameters
    ----------
    size : int
        Values for each network; those used last are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: WeakKeyDictionary[PromptSegmenter, dict[str, T]] = (
            WeakKeyDictionary()
        )

    def get(
        self,
        network: PromptSegmenter,
        content: Iterable[Content],
        make: Callable[[], T],
    ) -> T:
        """Return the cached value for this content, or the value of ``make``."""
        # torch counts the changes of each weight, so that no weight needs to be read
        changes = sum(p._version for p in network.parameters())
        key = fingerprint(str(changes), *content)
        values = self._values.setdefault(network, {})
        value = values.pop(key, None)
        if value is None:
            value = make()
        values[key] = value  # now the last that was used
        while len(values) > self._size:
            values.pop(next(iter(values)))
        return value
