"""Keeps the last ones of a series of things, for followers that each take what is new to them."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The last `kept` things; `count` is of all that there were. A follower that falls further behind misses some."""

    def __init__(self, kept: int) -> None:
        self._things: deque[T] = deque(maxlen=kept)
        self.count = 0

    def add(self, thing: T) -> None:
        self._things.append(thing)
        self.count += 1

    def since(self, count: int) -> list[T]:
        """Return what was added since there were `count`."""
        new = min(self.count - count, len(self._things))
        return list(islice(self._things, len(self._things) - new, None))
