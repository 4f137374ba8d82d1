"""Finds out which of the workers that outlived their hive speak this hive's interface, before any is used."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from rbee import __version__
from rbee.clients.worker import WorkerClient
from rbee.errors import RbeeError
from rbee.wire.common import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.hive.workers.rows import LastKnownWorker

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 1.0
"""A worker answers its health in milliseconds; one that does not is adopted, and its health checks decide."""


async def without_others(survivors: Sequence[LastKnownWorker]) -> list[LastKnownWorker]:
    """Return the survivors; one of another interface has no URL any more, so it is not used, and ended."""
    usable = list(survivors)

    async def check(number: int, worker: LastKnownWorker, url: str) -> None:
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                async with WorkerClient(url, None) as client:
                    health = await client.health()
            except RbeeError:
                return
            if health.worker_id == worker.id and health.api_version != API_VERSION:
                log.warning(
                    "worker %s is rbee %s, and has another interface than this hive, rbee %s: it is ended",
                    worker.id,
                    health.version,
                    __version__,
                )
                usable[number] = worker._replace(url=None)

    async with trio.open_nursery() as nursery:
        for number, worker in enumerate(survivors):
            if worker.url is not None:
                nursery.start_soon(check, number, worker, worker.url)
    return usable
