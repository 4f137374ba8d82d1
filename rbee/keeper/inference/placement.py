"""Has the queen place a task, and shows what happens until a worker has it."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import trio

from rbee.adapters.daemon import instance, stopped
from rbee.adapters.http import sse_client
from rbee.clients.progress import progress_of
from rbee.errors import InternalError, RbeeError
from rbee.keeper.inference import explain_failure
from rbee.wire.queen import TaskHandle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.queen import TaskRequest


class Placement(NamedTuple):
    """The worker that has the task, and the rest of the queen's stream: its answer, where the handle says `relayed`."""

    handle: TaskHandle
    events: sse_client.EventStream


@asynccontextmanager
async def place(
    queen: QueenClient, task: TaskRequest, settings: Settings, terminal: Terminal
) -> AsyncIterator[Placement]:
    """Ask the queen for a worker, and show what it reports; a task that is given up meanwhile is cancelled there."""
    holder = instance.find(settings.state_dir, "queen")
    identity = holder.identity if holder is not None and holder.url == queen.url else None
    placement: Placement | None = None
    try:
        async with (
            stopped.fail_if_sigstopped("queen", identity) as stop_watching,
            queen.place(task, relay_if_needed=True) as events,
        ):
            try:
                placement = Placement(await _wait_placed(events, settings, terminal), events)
            finally:
                terminal.end_progress()
            stop_watching()
            yield placement
    except RbeeError as exc:
        if placement is None:
            explain_failure.name_node(exc)
            explain_failure.add_log(exc, settings)
        raise
    except BaseException:
        if placement is None:
            with trio.move_on_after(settings.timeouts.acknowledge, shield=True):
                # A queen that does not answer has lost our stream too, and gives up for that.
                with suppress(RbeeError):
                    await queen.cancel(task.request_id or "")
        raise


async def _wait_placed(events: sse_client.EventStream, settings: Settings, terminal: Terminal) -> TaskHandle:
    handle: TaskHandle | None = None
    try:
        async for event in events:
            if (message := progress_of(event)) is not None:
                terminal.report(message)
            elif event.name == "worker":
                handle = sse_client.decode_event(event.data, TaskHandle)
                if handle.relayed:
                    return handle
                # Else read on to the end: only then the queen takes another request of this name.
            else:
                sse_client.decode_event(event.data, dict)
    except sse_client.StreamLostError as exc:
        if handle is None:
            raise _unplaced(settings) from exc
    if handle is None:
        raise _unplaced(settings)
    return handle


def _unplaced(settings: Settings) -> RbeeError:
    return InternalError(
        "the queen ended before the request was placed", hint=f"its log is {settings.logs_dir / 'queen.log'}"
    )
