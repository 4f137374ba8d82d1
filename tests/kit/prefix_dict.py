"""A store of saved prefixes in a dict: what the engine needs of `rbee.worker.prefix_store`, in its simplest form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.worker.engine.state_store import StoredPart

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class PrefixDict:
    """Parts are blocks of so many tokens; None: whole states. What ends after `lose_from` is gone when it is read."""

    def __init__(self, block: int | None) -> None:
        self.block = block
        self.states: dict[tuple[bytes, tuple[int, ...]], StoredPart] = {}
        self.lose_from: int | None = None

    def _ends(self, tokens: Sequence[int]) -> range:
        return range(self.block, len(tokens) + 1, self.block) if self.block else range(1, len(tokens) + 1)

    def longest(self, salt: bytes, tokens: Sequence[int]) -> int:
        found = 0
        for end in self._ends(tokens):
            if (salt, tuple(tokens[:end])) in self.states:
                found = end
            elif self.block:
                break
        return found

    def parts(self, salt: bytes, tokens: Sequence[int], end: int) -> Iterator[StoredPart]:
        for at in self._ends(tokens[:end]) if self.block else [end]:
            if self.lose_from is not None and at > self.lose_from:
                return
            yield self.states[salt, tuple(tokens[:at])]

    def missing(self, salt: bytes, tokens: Sequence[int]) -> list[tuple[int, int]]:
        ends = self._ends(tokens) if self.block else [len(tokens)]
        return [(end - (self.block or end), end) for end in ends if (salt, tuple(tokens[:end])) not in self.states]

    def put(self, salt: bytes, tokens: Sequence[int], start: int, end: int, data: bytes) -> None:
        self.states[salt, tuple(tokens[:end])] = StoredPart(start, end, data)

    @property
    def takes_more(self) -> bool:
        return True

    def close(self) -> None:
        pass
