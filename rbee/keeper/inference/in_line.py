"""Has a request placed and generated, and lets it stand in line again where another one was faster."""

from __future__ import annotations

import contextlib
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio
from msgspec import UNSET

from rbee.clients.wait_ready import wait_ready
from rbee.clients.worker import WorkerClient
from rbee.errors import AllSlotsBusyError, DrainingError, WorkerFailedError
from rbee.keeper.inference import explain_failure
from rbee.keeper.inference.generation import Generation
from rbee.keeper.inference.placement import place
from rbee.keeper.inference.relayed import RelayedWorker
from rbee.keeper.session import session
from rbee.narrower_errors import WorkerDrainingError
from rbee.wire.common import Narration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rbee.adapters.config import Settings
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.attached_queen import AttachedQueen
    from rbee.wire.queen import TaskHandle, TaskRequest
    from rbee.wire.worker import Done

    Follow = Callable[[Generation], Awaitable[Done]]

AGAIN_PAUSES: Final = (0.1, 0.2, 0.5, 1.0)
"""Seconds before a request whose slot another one has taken stands in line again."""


class Answered(NamedTuple):
    """An answer that is complete, and where it came from."""

    handle: TaskHandle
    generation: Generation
    done: Done


class _SlotTaken(Exception):
    """The worker that the queen named had no slot any more."""

    def __init__(self, error: AllSlotsBusyError) -> None:
        super().__init__(error.message)
        self.error = error


async def generate(
    queen: AttachedQueen,
    task: TaskRequest,
    settings: Settings,
    terminal: Terminal,
    *,
    keep: float | None,
    follow: Follow,
) -> Answered:
    """Have the task placed, and generate; `follow` runs the generation, and shows what comes.

    Who asks a worker itself, past the queen, may take the slot that was meant for the task: then it waits again.
    """
    waits_until: float | None = None
    for pause in chain(AGAIN_PAUSES, repeat(AGAIN_PAUSES[-1])):
        try:
            return await _attempt(queen, task, settings, terminal, keep, follow)
        except _SlotTaken as exc:
            now = trio.current_time()
            waits_until = waits_until or now + task.wait_s
            task = msgspec.structs.replace(task, wait_s=waits_until - now - pause)
            if task.wait_s <= 0:
                raise exc.error from exc
        human = "Another request was faster; waiting for a slot again"
        terminal.narrate(Narration(actor="rbee-keeper", action="wait", target="queen-rbee", human=human))
        await trio.sleep(pause)
    raise AssertionError


async def _attempt(
    queen: AttachedQueen,
    task: TaskRequest,
    settings: Settings,
    terminal: Terminal,
    keep: float | None,
    follow: Follow,
) -> Answered:
    """Have the task placed, and generate: at the worker itself, or through the queen where only that reaches it."""
    assert task.request_id is not None
    limits = settings.timeouts
    async with place(queen, task, settings, terminal, keep) as (handle, events), contextlib.AsyncExitStack() as stack:
        worker: WorkerClient | RelayedWorker
        if handle.direct:
            client = WorkerClient(handle.worker_url, handle.api_key, timeout=limits.call, delays=limits.call_delays)
            worker = await stack.enter_async_context(client)
        else:
            worker = RelayedWorker(queen, task, handle, events)
        log = queen.log_place(f"worker-{handle.worker_id}.log", handle.node)
        retries = None if task.wait_s else limits.busy_delays
        generation = Generation(worker, task.generation(), settings, log=log, retries=retries)
        if (kept := handle.keep_s) is not UNSET:
            generation.keep = kept
        if keep is not None:
            generation.keep = keep
        try:
            if isinstance(worker, WorkerClient):  # the queen has waited for another one itself
                await wait_ready(worker, terminal.report, limits, end_progress=terminal.end_progress, log=log)
            return Answered(handle, generation, await follow(generation))
        except AllSlotsBusyError as exc:
            if retries is not None:
                raise
            raise _SlotTaken(exc) from exc
        except WorkerFailedError as exc:
            if not generation.text and await session.has_ended(settings, queen):
                raise DrainingError("the queen has ended meanwhile", hint="try again") from exc
            raise await explain_failure.explained(exc, task.request_id, queen, has_text=bool(generation.text)) from exc
        except DrainingError as exc:
            raise WorkerDrainingError(exc.message, hint=exc.hint, worker_id=handle.worker_id) from exc
