"""The parts in RAM: bounded by bytes, those that were used last (PURE)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rbee.worker.engine.state_store import StoredPart


class RecentParts:
    """Parts by their keys. For one thread at a time."""

    def __init__(self, limit: int) -> None:
        """Hold at most `limit` bytes."""
        self.limit = limit
        self.bytes = 0
        self._parts: OrderedDict[bytes, StoredPart] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._parts

    def get(self, key: bytes) -> StoredPart | None:
        return self._parts.get(key)

    def ends(self) -> Iterator[int]:
        return (part.end for part in self._parts.values())

    def put(self, key: bytes, part: StoredPart) -> list[bytes]:
        """Hold a new part as the one used last, and return the keys of those that went: perhaps its own."""
        self._parts[key] = part
        self.bytes += len(part.data)
        return self.shrink()

    def shrink(self) -> list[bytes]:
        """Drop what is above the limit, and return the keys."""
        gone = []
        while self.bytes > self.limit:
            key, part = self._parts.popitem(last=False)
            self.bytes -= len(part.data)
            gone.append(key)
        return gone

    def use(self, keys: Iterable[bytes]) -> None:
        """Remember that those were used, the last one most recently."""
        for key in keys:
            if key in self._parts:
                self._parts.move_to_end(key)
