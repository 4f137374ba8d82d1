"""Writes down what happens in a simulation, in words and in order, so that a failing seed can be read."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Trace(logging.Handler):
    """What has happened; as a handler of the product's log it takes in what that says too.

    Worker ids are random, so the trace calls the workers w1, w2, … in the order in which it learns of them.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: list[tuple[float, str, str]] = []
        self._names: dict[str, str] = {}
        self._calls: list[tuple[int, Callable[[], None]]] = []

    def __str__(self) -> str:
        return "\n".join(f"{at:10.3f}  {who:<10} {what}" for at, who, what in self._lines)

    def add(self, who: str, what: str) -> None:
        self._lines.append((trio.current_time(), self._readable(who), self._readable(what)))
        if self._calls and self._calls[0][0] <= len(self._lines):
            self._calls.pop(0)[1]()

    def call_after(self, lines: int, call: Callable[[], None]) -> None:
        """Call this once so many more lines stand here: at a moment at which something happens."""
        self._calls.append((len(self._lines) + lines, call))
        self._calls.sort(key=lambda item: item[0])

    def emit(self, record: logging.LogRecord) -> None:
        self.add(f"({record.name.removeprefix('rbee.')})", record.getMessage())

    def name(self, worker_id: str) -> str:
        """Return what the trace calls a worker."""
        return self._names.setdefault(worker_id, f"w{len(self._names) + 1}")

    def _readable(self, text: str) -> str:
        return _UUID.sub(lambda found: self.name(found[0]), text)
