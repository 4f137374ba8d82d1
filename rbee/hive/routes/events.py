"""The hive's event stream: the states of its workers and downloads, as they change."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from rbee.adapters.http import sse_server
from rbee.hive.models.pace import ProgressThrottle
from rbee.hive.workers import view
from rbee.wire import hive as wire

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.hive.models.downloads import Downloads
    from rbee.hive.routes.context import HiveContext
    from rbee.hive.workers.supervisor import WorkerSupervisor


def add(app: QuartTrio, context: HiveContext) -> None:
    @app.get(wire.EVENTS)
    async def events() -> Response:
        return context.stream(partial(_publish, context.workers, context.library.downloads))


async def _publish(workers: WorkerSupervisor, downloads: Downloads, send: sse_server.Send) -> None:
    """Publish the whole state, then every change that lasts until it is sent, and each request that ends meanwhile."""
    published: wire.WorkerList | None = None
    told = workers.ended_requests.count
    throttle = ProgressThrottle(downloads.states())
    while True:
        changed = workers.changed.next, downloads.changed.next
        now = workers.view()
        for name, message in view.changes(published, now):
            await send.send(sse_server.event(message, name))
        published = now
        ended, told = workers.ended_requests.since(told), workers.ended_requests.count
        for request in ended:
            await send.send(sse_server.event(request, "request"))
        states, again = throttle.take(downloads.states(), trio.current_time())
        for state in states:
            await send.send(sse_server.event(state, "download"))
        if workers.is_over:
            return
        with trio.move_on_at(again):
            await _one_of(*changed)


async def _one_of(*events: trio.Event) -> None:
    """Return once one of them is set."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)
