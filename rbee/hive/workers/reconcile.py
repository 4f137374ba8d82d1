"""Compares the stored workers with what runs, before the hive serves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rbee.adapters.daemon.process import Identity
    from rbee.hive.workers.rows import LastKnownWorker

log = logging.getLogger(__name__)


class Compared(NamedTuple):
    """The stored workers that still run, and the ids of the others."""

    surviving: list[LastKnownWorker]
    gone: list[str]


def compare(stored: Iterable[LastKnownWorker], is_running: Callable[[Identity], bool]) -> Compared:
    """Return which of the stored workers still run.

    A row is compared with the process's start time and the boot, so a pid that was given out again is never taken for a
    worker. Whether the process also answers as that worker is checked once it is adopted.
    """
    compared = Compared([], [])
    for row in stored:
        if not is_running(row.identity):
            compared.gone.append(row.id)
            continue
        what = "is adopted" if row.url is not None else "was not ready: it is ended"
        log.info("worker %s (pid %d) outlived its hive and %s", row.id, row.identity.pid, what)
        compared.surviving.append(row)
    return compared
