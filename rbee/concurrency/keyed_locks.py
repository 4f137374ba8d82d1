"""A lock for each key, which is there as long as somebody holds it or waits for it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable

K = TypeVar("K", bound="Hashable")


class KeyedLocks(Generic[K]):
    """Locks by their keys, of which there may be any number in the life of a daemon."""

    def __init__(self) -> None:
        self._locks: dict[K, trio.Lock] = {}

    def __len__(self) -> int:
        return len(self._locks)

    def is_held(self, key: K) -> bool:
        """Whether somebody holds the lock of this key."""
        return key in self._locks

    @asynccontextmanager
    async def hold(self, key: K) -> AsyncIterator[None]:
        """Hold the lock of a key."""
        lock = self._locks.setdefault(key, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            # Who waits has it by now: trio hands it over.
            if not lock.locked() and self._locks.get(key) is lock:
                del self._locks[key]
