"""Makes the stored workers agree with what runs, before the hive serves."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from rbee.errors import StorageError
from rbee.hive import state

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.adapters.process import Identity
    from rbee.hive.loop import Transact
    from rbee.hive.state import LastKnown

log = logging.getLogger(__name__)


async def surviving_workers(transact: Transact, is_running: Callable[[Identity], bool]) -> list[LastKnown]:
    """Return the stored workers that still run, and drop the rows of the others; `transact` is that of `Hive`.

    A row is compared with the process's start time and the boot, so a pid that belongs to someone else by now is never
    taken for a worker. Whether it also answers as that worker is asked once it is adopted.
    """
    surviving: list[LastKnown] = []
    for row in await transact(state.last_known_workers):
        if is_running(row.identity):
            what = "is adopted" if row.url is not None else "was not ready: it is ended"
            log.info("worker %s (pid %d) outlived its hive and %s", row.id, row.identity.pid, what)
            surviving.append(row)
            continue
        try:
            await transact(partial(state.delete_worker, worker_id=row.id))
        except StorageError as exc:
            # The next hive looks at it again.
            log.warning("the row of worker %s stays: %s", row.id, exc.message)
    return surviving
