"""Hands the result of one piece of work to everyone who waits for it."""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

from rbee.errors import RbeeError

T = TypeVar("T")


class Outcome(Generic[T]):
    """A result, or the error that came in its place; settled once, read by any number of tasks."""

    def __init__(self) -> None:
        self._settled = trio.Event()
        self._result: T | RbeeError | None = None

    @property
    def is_settled(self) -> bool:
        """Whether there is a result or an error."""
        return self._settled.is_set()

    def settle(self, result: T | RbeeError) -> None:
        """Give the result, or an error to raise, to everyone who waits; only the first one counts."""
        if not self._settled.is_set():
            self._result = result
            self._settled.set()

    async def wait(self) -> T:
        """Return the result once it is there; raises the error that came in its place."""
        if not self._settled.is_set():
            await self._settled.wait()
        if isinstance(self._result, RbeeError):
            raise self._result
        return self._result  # type: ignore[return-value]  # settled: None only where T allows it
