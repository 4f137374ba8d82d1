"""Asks a node's hive what an order needs: which workers there are, and for a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.errors import InvalidApiKeyError, MissingApiKeyError
from rbee.queen.registry import identity
from rbee.wire.hive import SpawnRequest

if TYPE_CHECKING:
    from rbee.queen.hives.copy_sources import Find
    from rbee.queen.hives.link import HiveLink
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.wire.hive import SpawnReply, WorkerRow
    from rbee.wire.progress import Report


async def list_workers(name: str, hive: HiveLink, url: str) -> list[WorkerRow]:
    """Return the workers of the hive at `url`, which is that of the node `name`.

    A refusal names the hive, or who sent the order would take it for one of the own token.
    """
    try:
        async with hive.connect(url) as client:
            return (await client.workers()).workers
    except (InvalidApiKeyError, MissingApiKeyError) as exc:
        raise identity.refused(name, url.removeprefix("http://")) from exc


async def start_worker(hive: HiveLink, url: str, wanted: Wanted, find_sources: Find, report: Report) -> SpawnReply:
    """Have the hive at `url` start a worker, or name one that it starts or has started already."""
    async with hive.connect(url) as client:
        request = SpawnRequest(
            model_ref=wanted.model_ref,
            backend=wanted.backend,
            device=wanted.device,
            reuse=True,
            sources=await find_sources(client, wanted.model_ref),
        )
        return await client.spawn(request, report)
