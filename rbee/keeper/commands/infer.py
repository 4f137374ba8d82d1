"""`rbee infer`: continues a prompt, and prints the text as it is generated."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Any, Final

import trio

from rbee.adapters.logs.json_log import correlate
from rbee.clients.wait_ready import wait_ready
from rbee.clients.worker import WorkerClient
from rbee.errors import DrainingError, UnloadFailedError, WorkerDrainingError, WorkerFailedError
from rbee.keeper.command_line import prompt, reference
from rbee.keeper.inference import explain_failure
from rbee.keeper.inference.generation import Generation
from rbee.keeper.inference.placement import place
from rbee.keeper.inference.relayed import RelayedWorker
from rbee.keeper.output.result import Result
from rbee.keeper.output.text import Text
from rbee.keeper.session import interrupt, session
from rbee.wire import model_ref
from rbee.wire.common import Sampling
from rbee.wire.decode import convert
from rbee.wire.queen import TaskRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import InferOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.attached_queen import AttachedQueen
    from rbee.wire.queen import TaskHandle
    from rbee.wire.worker import Done

MAX_ATTEMPTS: Final = 3
"""Workers or queens that may end before they have generated anything."""


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
                    result = await _infer(queen, task, settings, terminal, as_json=options.json)
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


def _task(options: InferOptions, settings: Settings, note: Callable[[str], None]) -> TaskRequest:
    ref = reference.parse(options.model or settings.defaults.model or model_ref.BUILTIN, settings.paths.models)
    values: dict[str, Any] = {name: getattr(options, name, None) for name in Sampling.__struct_fields__}
    values |= {
        "prompt": prompt.read(options.prompt, note),
        "model": str(ref),
        "node": options.node or settings.defaults.node,
        "max_tokens": options.max_tokens,
        "backend": options.backend,
        "device": options.device,
        "wait_s": options.wait,
        "request_id": str(uuid.uuid4()),
        "narrate": True,
    }
    return convert(values, TaskRequest, strict=True)


async def _infer(
    queen: AttachedQueen, task: TaskRequest, settings: Settings, terminal: Terminal, *, as_json: bool
) -> Result:
    """Have the task placed, and generate: at the worker itself, or through the queen where only that reaches it."""
    assert task.request_id is not None
    limits = settings.timeouts
    async with place(queen, task, settings, terminal) as (handle, events), contextlib.AsyncExitStack() as stack:
        worker: WorkerClient | RelayedWorker
        if handle.direct:
            client = WorkerClient(handle.worker_url, handle.api_key, timeout=limits.call, delays=limits.call_delays)
            worker = await stack.enter_async_context(client)
        else:
            worker = RelayedWorker(queen, task, handle, events)
        log = queen.log_place(f"worker-{handle.worker_id}.log", handle.node)
        generation = Generation(worker, task.generation(), settings, log=log)
        try:
            if isinstance(worker, WorkerClient):  # the queen has waited for another one itself
                await wait_ready(worker, terminal.report, limits, end_progress=terminal.end_progress, log=log)
            if not as_json:
                return await _show(generation, settings, terminal)
            done = await generation.run(terminal, _nowhere)
            return Result(data=_summary(handle, task, generation.text, done))
        except WorkerFailedError as exc:
            raise await explain_failure.explained(exc, task.request_id, queen, has_text=bool(generation.text)) from exc
        except DrainingError as exc:
            raise WorkerDrainingError(exc.message, hint=exc.hint, worker_id=handle.worker_id) from exc


async def _show(generation: Generation, settings: Settings, terminal: Terminal) -> Result:
    text = Text(terminal)
    try:
        await generation.run(terminal, text.write)
    except BaseException:
        with trio.move_on_after(settings.timeouts.acknowledge, shield=True):
            await text.cut()
        raise
    await text.end()
    return Result()


async def _nowhere(_: str) -> None:
    pass


def _summary(handle: TaskHandle, task: TaskRequest, text: str, done: Done) -> dict[str, object]:
    return {
        "request_id": task.request_id,
        "model": task.model,
        "node": handle.node,
        "worker_id": handle.worker_id,
        "text": text,
        "total_tokens": done.total_tokens,
        "duration_ms": done.duration_ms,
        "stop_reason": done.stop_reason,
    }
