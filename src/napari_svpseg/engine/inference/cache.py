"""Caches of values derived from a network's weights. They load no torch."""

from __future__ import annotations

import itertools
import random
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

import psutil

from ...core.fingerprint import Content, fingerprint

if TYPE_CHECKING:
    from ...models.base import PromptSegmenter, QueryFeatures

T = TypeVar("T")

MOST_BYTES = 3 * 2**29
"""Memory for encoded queries: about 40 images of 512 x 512 network pixels."""

SHARE = 0.15
"""Share of the machine's memory that they take at most."""


class NetworkCache(Generic[T]):
    """Values by network, the state of its weights, and what else they were made of.

    A value that several threads ask for is made once: the others wait for it.

    Parameters
    ----------
    size : int
        Values for each network; those used last are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._making: dict[tuple[int, str], threading.Lock] = {}
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
        key = fingerprint(str(_changes(network)), *content)
        with self._lock:
            values = self._values.setdefault(network, {})
            making = self._making.setdefault((id(network), key), threading.Lock())
        with making:
            with self._lock:
                value = values.get(key)
            try:
                if value is None:
                    value = make()
            finally:
                with self._lock:
                    self._making.pop((id(network), key), None)
            with self._lock:
                values.pop(key, None)
                values[key] = value  # now the last that was used
                while len(values) > self._size:
                    values.pop(next(iter(values)))
        return value


def _changes(network: PromptSegmenter) -> int:
    """Return how often the weights were changed: torch counts, none is read."""
    return sum(p._version for p in network.parameters())


class FeatureCache:
    """Encoded queries by network, the state of its weights, and their pixels.

    They are kept as far as they fit into the memory that is allowed: none at first.
    Then any may leave but the one used last. If always the oldest left, rounds over
    slightly more images than fit would find none of them.
    """

    def __init__(self) -> None:
        self._allowed = 0
        self._random = random.Random(0)
        self._kept: dict[tuple[int, str], QueryFeatures] = {}
        self._numbers: WeakKeyDictionary[PromptSegmenter, int] = WeakKeyDictionary()
        self._next = itertools.count()
        self._lock = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Memory that is taken now."""
        return sum(_size(features) for features in self._kept.values())

    def allow(self, n_bytes: int) -> None:
        """Let the cache take this much memory, and forget what does not fit."""
        with self._lock:
            self._allowed = n_bytes
            self._shrink()

    def get(
        self,
        network: PromptSegmenter,
        content: Iterable[Content],
        make: Callable[[], QueryFeatures],
    ) -> QueryFeatures:
        """Return the cached features of a query, or those of ``make``."""
        if not self._allowed:
            return make()
        key = self._number(network), fingerprint(str(_changes(network)), *content)
        with self._lock:
            features = self._kept.pop(key, None)
        if features is None:
            features = make()
        with self._lock:
            self._kept[key] = features  # now the last that was used
            self._shrink()
        return features

    def _number(self, network: PromptSegmenter) -> int:
        """Return a number that no other network has had."""
        with self._lock:
            number = self._numbers.get(network)
            if number is None:
                number = self._numbers[network] = next(self._next)
                weakref.finalize(network, self._forget, number)
            return number

    def _forget(self, number: int) -> None:
        """Drop the features of a network that is gone."""
        for key in [key for key in list(self._kept) if key[0] == number]:
            self._kept.pop(key, None)

    def _shrink(self) -> None:
        while self._kept and self.n_bytes > self._allowed:
            *others, newest = self._kept
            self._kept.pop(self._random.choice(others) if others else newest)


def _size(features: QueryFeatures) -> int:
    return sum(value.nbytes for value in features.values())


query_features = FeatureCache()
"""Encoded queries of this process."""


def keep_query_features() -> None:
    """Let this process keep encoded queries, which are then decoded again quickly.

    For processes in which a user waits for answers on the same images.
    """
    share = int(SHARE * psutil.virtual_memory().total)
    query_features.allow(min(MOST_BYTES, share))
