"""The parts that are still to be written to the disk, in order (PURE)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.worker.engine.state_store import StoredPart

MOST_BYTES: Final = 64_000_000
"""What parts may take that are no longer held in RAM and not yet on the disk; more are lost. One larger part may."""


class UnwrittenParts:
    """Parts by their keys; those that RAM holds as well cost nothing. For one thread at a time."""

    def __init__(self) -> None:
        self.own_bytes = 0
        """Of the parts that are held here alone."""
        self._parts: OrderedDict[bytes, StoredPart] = OrderedDict()
        self._own: set[bytes] = set()

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __contains__(self, key: bytes) -> bool:
        return key in self._parts

    @property
    def takes_more(self) -> bool:
        return self.own_bytes < MOST_BYTES

    def get(self, key: bytes) -> StoredPart | None:
        return self._parts.get(key)

    def ends(self) -> Iterator[int]:
        return (part.end for part in self._parts.values())

    def put(self, key: bytes, part: StoredPart) -> None:
        """Add a part that RAM holds too."""
        self._parts[key] = part

    def keep_alone(self, key: bytes) -> None:
        """Keep a part that has gone from RAM, if it is one of these and there is room for it; else forget it."""
        if (part := self._parts.get(key)) is None:
            return
        if self.own_bytes and self.own_bytes + len(part.data) > MOST_BYTES:
            del self._parts[key]
        else:
            self._own.add(key)
            self.own_bytes += len(part.data)

    def first(self) -> tuple[bytes, StoredPart] | None:
        return next(iter(self._parts.items()), None)

    def remove(self, key: bytes) -> None:
        """Forget one that is written, or cannot be."""
        part = self._parts.pop(key, None)
        if part is not None and key in self._own:
            self._own.discard(key)
            self.own_bytes -= len(part.data)
