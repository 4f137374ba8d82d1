"""Makes the stored workers agree with what runs, before the hive serves."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import trio

from rbee.adapters import process
from rbee.hive import state

if TYPE_CHECKING:
    from rbee.adapters.store import Store

log = logging.getLogger(__name__)

GRACE_SECONDS = 10.0


async def end_left_over_workers(store: Store) -> None:
    """End the workers that an earlier hive left running, and drop every stored row.

    A row is compared with the process's start time and the boot, so a pid that belongs to someone else by now is never
    signalled.
    """
    rows = await store.transact(state.last_known_workers)
    async with trio.open_nursery() as nursery:
        for worker_id, pid, started_at, boot_id in rows:
            left_over = process.Identity(pid, started_at, boot_id)
            if process.is_running(left_over):
                log.warning("worker %s (pid %d) outlived its hive and is ended", worker_id, left_over.pid)
                nursery.start_soon(_end, left_over)
    for worker_id, *_ in rows:
        await store.transact(partial(state.delete_worker, worker_id=worker_id))


async def _end(left_over: process.Identity) -> None:
    await process.end(left_over, grace=GRACE_SECONDS)
