"""Writes rows to a store in the background, and again while the disk does not take them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import trio

from rbee.concurrency.contained import as_error, keep_running

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable

    Work = Callable[[sqlite3.Connection], Any]

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 5.0


class WriteBehind:
    """Rows to write, of each the latest state only; `transact` stores one.

    While the disk is full, memory holds one state per row, and the log gets two lines.
    """

    def __init__(self, transact: Callable[[Work], Awaitable[Any]]) -> None:
        self._transact = transact
        self._due: dict[str, Work] = {}
        self._changed = trio.Event()
        self._closed = trio.Event()

    def put(self, key: str, work: Work) -> None:
        """Write (or delete) the row `key` soon, instead of what was due for it before."""
        self._due[key] = work
        self._changed.set()

    def close(self) -> None:
        """Have `run` return once everything is written, or has been tried once more."""
        self._closed.set()
        self._changed.set()

    async def run(self) -> None:
        """Write what is due until `close`, and then until everything is written, or has been tried once more."""
        await keep_running("writing rows", self._write_when_due)

    async def _write_when_due(self) -> None:
        is_failing = False
        if self._due:
            self._changed.set()
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            failure = await self._write()
            if failure is not None and not is_failing:
                error = as_error(failure, "writing a row")
                advice = f" ({error.hint})" if error.hint else ""
                log.error("%s; it is tried again every %g s%s", error.message, RETRY_SECONDS, advice)
            if failure is None and is_failing:
                log.info("the registry is written again")
            is_failing = failure is not None
            if self._closed.is_set() and (is_failing or not self._due):
                return
            if is_failing:
                self._changed.set()
                with trio.move_on_after(RETRY_SECONDS):
                    await self._closed.wait()

    async def _write(self) -> Exception | None:
        """Write what is due; returns why some of it still is."""
        failure = None
        for key, work in list(self._due.items()):
            try:
                await self._transact(work)
            except Exception as exc:  # noqa: BLE001 (the other rows are written all the same)
                failure = exc
                continue
            if self._due.get(key) is work:
                del self._due[key]
        return failure
