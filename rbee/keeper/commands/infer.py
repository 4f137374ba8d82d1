"""`rbee infer`: continues a prompt, and prints the text as it is generated."""

from __future__ import annotations

import contextlib
import uuid
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio
from msgspec import UNSET

from rbee.adapters.logs.json_log import correlate
from rbee.clients.wait_ready import wait_ready
from rbee.clients.worker import WorkerClient
from rbee.errors import (
    AllSlotsBusyError,
    DrainingError,
    InvalidRequestError,
    UnloadFailedError,
    WorkerDrainingError,
    WorkerFailedError,
)
from rbee.keeper.command_line import prompt, reference
from rbee.keeper.command_line.checked import convert
from rbee.keeper.inference import explain_failure, summary
from rbee.keeper.inference.generation import Generation
from rbee.keeper.inference.placement import place
from rbee.keeper.inference.relayed import RelayedWorker
from rbee.keeper.output.result import Result
from rbee.keeper.output.text import Text
from rbee.keeper.session import interrupt, session
from rbee.wire import model_ref
from rbee.wire.common import Narration, Sampling
from rbee.wire.queen import TaskRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import InferOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.attached_queen import AttachedQueen
    from rbee.wire.model_ref import ModelRef
    from rbee.wire.worker import Done

MAX_ATTEMPTS: Final = 3
"""Workers or queens that may end before they have generated anything."""
AGAIN_PAUSES: Final = (0.1, 0.2, 0.5, 1.0)
"""Seconds before a request whose slot another one has taken stands in line again."""


def run(options: InferOptions, settings: Settings, terminal: Terminal) -> Result:
    """Place the prompt, stream the answer; everything that is wrong with it is refused before anything starts."""
    task = _task(options, settings, terminal.note)

    async def command(force: trio.Event) -> Result:
        correlate(task.request_id)
        attempt = 0
        while True:
            attempt += 1
            result: Result | None = None
            try:
                async with session.use(settings, terminal, force, options=options) as queen:
                    result = await _infer_in_line(queen, task, settings, terminal, options)
            except UnloadFailedError as exc:
                if result is None:
                    raise
                return result._replace(failure=exc)
            except DrainingError as exc:
                # The worker was told to end, or the queen: it was another command's, which is over. Nothing was
                # generated yet, so another one may do it.
                of_worker = isinstance(exc, WorkerDrainingError)
                if attempt == MAX_ATTEMPTS or not (of_worker or await session.wait_until_gone(settings, terminal)):
                    raise
            else:
                return result

    return interrupt.run(command)


def _model(options: InferOptions, settings: Settings) -> ModelRef:
    """Return the model that the user means. Raises InvalidRequestError."""
    default = settings.defaults.model
    try:
        return reference.parse(options.model or default or model_ref.BUILTIN, settings.paths.models)
    except InvalidRequestError as exc:
        if options.model is None:
            exc.message = f"`model` under [defaults] ({default}, from {settings.source}): {exc.message}"
        raise


def _task(options: InferOptions, settings: Settings, note: Callable[[str], None]) -> TaskRequest:
    ref = _model(options, settings)
    given = {name: getattr(options, name, None) for name in Sampling.__struct_fields__}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    values |= {
        "prompt": prompt.read(options.prompt, note),
        "model": str(ref),
        "node": options.node or settings.defaults.node,
        "backend": options.backend,
        "device": options.device,
        "wait_s": options.wait,
        "request_id": str(uuid.uuid4()),
        "narrate": True,
    }
    if options.max_tokens is not None:
        values["max_tokens"] = options.max_tokens
    return convert(values, TaskRequest, strict=True)


async def _infer_in_line(
    queen: AttachedQueen, task: TaskRequest, settings: Settings, terminal: Terminal, options: InferOptions
) -> Result:
    """Have the task placed, and generate.

    Who asks a worker itself, past the queen, may take the slot that was meant for the task: then it waits again.
    """
    waits_until: float | None = None
    for pause in chain(AGAIN_PAUSES, repeat(AGAIN_PAUSES[-1])):
        try:
            return await _infer(queen, task, settings, terminal, options)
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


class _SlotTaken(Exception):
    """The worker that the queen named had no slot any more."""

    def __init__(self, error: AllSlotsBusyError) -> None:
        super().__init__(error.message)
        self.error = error


async def _infer(
    queen: AttachedQueen, task: TaskRequest, settings: Settings, terminal: Terminal, options: InferOptions
) -> Result:
    """Have the task placed, and generate: at the worker itself, or through the queen where only that reaches it."""
    assert task.request_id is not None
    limits = settings.timeouts
    placing = place(queen, task, settings, terminal, options.keep)
    async with placing as (handle, events), contextlib.AsyncExitStack() as stack:
        worker: WorkerClient | RelayedWorker
        if handle.direct:
            client = WorkerClient(handle.worker_url, handle.api_key, timeout=limits.call, delays=limits.call_delays)
            worker = await stack.enter_async_context(client)
        else:
            worker = RelayedWorker(queen, task, handle, events)
        log = queen.log_place(f"worker-{handle.worker_id}.log", handle.node)
        retries = None if task.wait_s else limits.busy_delays
        generation = Generation(worker, task.generation(), settings, log=log, retries=retries)
        if (keep := handle.keep_s) is not UNSET:
            generation.keep = keep
        if options.keep is not None:
            generation.keep = options.keep
        try:
            if isinstance(worker, WorkerClient):  # the queen has waited for another one itself
                await wait_ready(worker, terminal.report, limits, end_progress=terminal.end_progress, log=log)
            if options.json:
                done = await generation.run(terminal, _nowhere)
                return Result(data=summary.to_json(task, handle, generation.text, done))
            done = await _show(generation, settings, terminal)
            return Result(notes=(summary.last_line(task, handle, done),))
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


async def _show(generation: Generation, settings: Settings, terminal: Terminal) -> Done:
    text = Text(terminal)
    try:
        done = await generation.run(terminal, text.write)
    except BaseException:
        with trio.move_on_after(settings.timeouts.acknowledge, shield=True):
            await text.cut()
        raise
    await text.end()
    return done


async def _nowhere(_: str) -> None:
    pass
