"""Has the queen place a task, and shows what happens until a worker has it."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio

from rbee.adapters.daemon import stopped
from rbee.adapters.http import sse_client
from rbee.clients.progress import progress_of
from rbee.errors import DrainingError, InternalError, RbeeError
from rbee.keeper.inference import explain_failure, reach
from rbee.keeper.session import session
from rbee.wire.queen import TaskHandle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.adapters.config import Settings
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.attached_queen import AttachedQueen
    from rbee.wire.queen import TaskRequest


class Placement(NamedTuple):
    """The worker that has the task, and the rest of the queen's stream: its answer, where the handle says `relayed`."""

    handle: TaskHandle
    events: sse_client.EventStream


def _terminal() -> str:
    """Return the terminal, or job, that this command belongs to: two of them take turns, where both wait."""
    return f"terminal-{os.getsid(0)}"


@asynccontextmanager
async def place(
    queen: AttachedQueen, task: TaskRequest, settings: Settings, terminal: Terminal, keep: float | None
) -> AsyncIterator[Placement]:
    """Ask the queen for a worker, and show what it reports; a task that is given up meanwhile is cancelled there.

    The worker is one that is reached from here, or else its answer comes through the queen.
    """
    identity = queen.own.identity if queen.own is not None else None
    placement: Placement | None = None
    tried: set[str] = set()
    try:
        while True:
            async with (
                stopped.fail_if_sigstopped("queen", identity) as stop_watching,
                queen.place(
                    task, relay_if_needed=True, unreached=queen.unreached, keep=keep, session=_terminal()
                ) as events,
            ):
                try:
                    handle = await _wait_placed(events, queen, settings, terminal)
                finally:
                    terminal.end_progress()
                if not handle.direct or await reach.is_reached(handle, queen):
                    placement = Placement(handle, events)
                elif handle.worker_url in tried:
                    # A queen of an earlier version does not know the preference: it is asked for a relay instead.
                    placement = Placement(msgspec.structs.replace(handle, direct=False), events)
                tried.add(handle.worker_url)
                if placement is not None:
                    stop_watching()
                    yield placement
                    return
    except RbeeError as exc:
        if placement is None:
            explain_failure.name_node(exc, settings)
            explain_failure.add_log(exc, queen)
        raise
    except BaseException:
        if placement is None:
            with trio.move_on_after(settings.timeouts.acknowledge, shield=True):
                # A queen that does not answer has lost our stream too, and gives up for that.
                with suppress(RbeeError):
                    await queen.cancel(task.request_id or "")
        raise


async def _wait_placed(
    events: sse_client.EventStream, queen: AttachedQueen, settings: Settings, terminal: Terminal
) -> TaskHandle:
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
            raise await _unplaced(queen, settings) from exc
    if handle is None:
        raise await _unplaced(queen, settings)
    return handle


async def _unplaced(queen: AttachedQueen, settings: Settings) -> RbeeError:
    message, hint = "the queen ended before the request was placed", f"its log is {queen.log_place('queen.log')}"
    # One that ends with the command that started it may do so at any moment, and another can do the request.
    error = DrainingError if await session.has_ended(settings, queen) else InternalError
    return error(message, hint=hint)
