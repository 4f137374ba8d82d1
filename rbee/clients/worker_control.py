"""What a hive asks of its workers: their state, and their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters.http import client as http_client
from rbee.adapters.http import sse_client
from rbee.wire import worker as wire
from rbee.wire.common import Health

if TYPE_CHECKING:
    from collections.abc import Callable


async def follow(url: str, key: str, changed: Callable[[wire.WorkerStatus], None]) -> None:
    """Hold the worker's event stream and pass on its state, first what is, then each change.

    Returns when the worker ends the stream; raises StreamLostError or ConnectionTimeoutError when it is lost.
    """
    async with http_client.connect(url, key) as client, sse_client.events(client, "GET", wire.EVENTS) as events:
        async for event in events:
            changed(sse_client.decode_event(event.data, wire.WorkerStatus))


async def health(url: str) -> str | None:
    """Return the id that the worker at `url` says it has; raises ConnectionTimeoutError when nobody answers."""
    async with http_client.connect(url, None) as client:
        answer = await http_client.call(client, "GET", wire.HEALTH, Health)
    return answer.worker_id


async def shut_down(url: str, key: str) -> None:
    """Tell the worker to drain, unload and exit; returns when it has accepted."""
    async with http_client.connect(url, key) as client:
        await http_client.call(client, "POST", wire.SHUTDOWN, bytes)
