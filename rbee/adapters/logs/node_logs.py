"""Reads the logs of a node's daemons together, in the order in which they were written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.logs import worker_files
from rbee.adapters.logs.reader import LogReader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from rbee.adapters.logs.redaction import Entry
    from rbee.wire.logs import LogLine, LogQuery

POLL_SECONDS: Final = 0.2
"""Between two reads of logs that are followed."""
_WORKER_ID: Final = re.compile(r"[0-9a-f-]{1,64}")
_NAMES: Final = re.compile(r"(queen|hive|worker-.+)\.log")
QUEEN: Final = "queen.log"
_limiter: Final = trio.CapacityLimiter(4)


class NodeLogs:
    """The logs in a folder that other processes write; close it. Every method blocks for as long as the disk does.

    `only` is the file name of one log, to read no other. The queen's own log is for those who ask `with_queen`.
    """

    def __init__(self, folder: Path, only: str | None = None, *, with_queen: bool = False) -> None:
        self._folder = folder
        self._only = only
        self._without = set() if with_queen else {QUEEN}
        self._readers: dict[str, LogReader] = {}

    def last(self, count: int) -> list[LogLine]:
        """Return the newest lines of all logs, oldest first; `more` goes on after them."""
        self._look()
        found = _in_order([reader.last(count) for reader in self._readers.values()])
        return found[-count:] if count else []

    def unfinished(self) -> list[LogLine]:
        """Return the last lines although they have no end yet, for a caller that reads no more."""
        return _in_order([reader.unfinished() for reader in self._readers.values()])

    def more(self) -> list[LogLine]:
        """Return what was written since the last read; of a new log, all."""
        self._look()
        found = _in_order([reader.more() for reader in self._readers.values()])
        for name in [name for name, reader in self._readers.items() if reader.is_gone]:
            self._readers.pop(name).close()
        return found

    @property
    def is_over(self) -> bool:
        """Whether the log named by `only` was removed."""
        return self._only is not None and self._only not in self._readers

    def _look(self) -> None:
        """Open the logs that are new."""
        try:
            names = {path.name for path in self._folder.iterdir()}
        except OSError:
            return
        for name in sorted(names - self._readers.keys() - self._without):
            if (found := _NAMES.fullmatch(name)) and self._only in (None, name):
                self._readers[name] = LogReader(self._folder / name, found[1])

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


def _in_order(logs: list[list[Entry]]) -> list[LogLine]:
    """Merge logs by time. Lines before the first timestamp of their log take that timestamp."""
    entries: list[tuple[str, LogLine]] = []
    for log in logs:
        first = next((entry.at for entry in log if entry.at), "")
        entries += [(entry.at or first, entry.line) for entry in log]
    return [line for _, line in sorted(entries, key=lambda entry: entry[0])]


def worker_log(folder: Path, worker_id: str) -> str | None:
    """Return the file name of a worker's log, or None where there is none; `worker_id` may be anything."""
    name = worker_files.name(worker_id)
    return name if _WORKER_ID.fullmatch(worker_id) and (folder / name).exists() else None


async def read(
    folder: Path,
    query: LogQuery,
    report: Callable[[list[LogLine]], Awaitable[None]],
    *,
    only: str | None = None,
    with_queen: bool = False,
) -> None:
    """Pass on the newest lines of the logs in `folder`, and with `follow` what is written from then on.

    No more is read while `report` waits. Ends when the log named by `only` is removed, else only when cancelled.
    """
    logs = NodeLogs(folder, only, with_queen=with_queen)
    try:
        await report(await trio.to_thread.run_sync(logs.last, query.lines, limiter=_limiter))
        if not query.follow:
            await report(logs.unfinished() if query.lines else [])
        while query.follow and not logs.is_over:
            found = await trio.to_thread.run_sync(logs.more, limiter=_limiter)
            if found:
                await report(found)
            else:
                await trio.sleep(POLL_SECONDS)
    finally:
        logs.close()
