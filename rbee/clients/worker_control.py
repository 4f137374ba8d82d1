"""What a hive asks of its workers: their state, and their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters import event_stream, http
from rbee.wire import worker as wire
from rbee.wire.common import Health

if TYPE_CHECKING:
    from collections.abc import Callable


async def follow(url: str, key: str, changed: Callable[[wire.WorkerStatus], None]) -> None:
    """Hold the worker's event stream and pass on its state, first what is, then each change.

    Returns when the worker ends the stream; raises StreamLostError or ConnectionTimeoutError when it is lost.
    """
    async with http.connect(url, key) as client, event_stream.events(client, "GET", wire.EVENTS) as events:
        async for event in events:
            changed(event_stream.decode_event(event.data, wire.WorkerStatus))


async def health(url: str) -> str | None:
    """Return the id that the worker at `url` says it has; raises ConnectionTimeoutError when nobody answers."""
    async with http.connect(url, None) as client:
        answer = await http.call(client, "GET", wire.HEALTH, Health)
    return answer.worker_id


async def shut_down(url: str, key: str) -> None:
    """Tell the worker to drain, unload and exit; returns when it has accepted."""
    async with http.connect(url, key) as client:
        await http.call(client, "POST", wire.SHUTDOWN, bytes)
