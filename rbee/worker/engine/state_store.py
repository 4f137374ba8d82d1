"""What the prefix cache needs of that which keeps states outside the context (PURE).

Whoever fulfils it knows nothing else of the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class StoredPart(NamedTuple):
    """The state of the tokens from `start` to `end` of a prompt."""

    start: int
    end: int
    data: bytes | memoryview


class StateStore(Protocol):
    """Keeps states outside the context; `salt` parts those that must not see each other's."""

    def longest(self, salt: bytes, tokens: Sequence[int]) -> int:
        """Return how many of the tokens, from the first, could be restored."""

    def parts(self, salt: bytes, tokens: Sequence[int], end: int) -> Iterator[StoredPart]:
        """Yield the states of the first `end` tokens, in order; fewer where one is gone."""

    def missing(self, salt: bytes, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """Return the ranges of these tokens whose states it wants."""

    def put(self, salt: bytes, tokens: Sequence[int], start: int, end: int, data: bytes) -> None:
        """Keep the state of a range of these tokens."""

    @property
    def takes_more(self) -> bool:
        """Whether a part that is put now will be kept; else it has to catch up first."""

    def close(self) -> None:
        """Write what is to outlive the process."""
