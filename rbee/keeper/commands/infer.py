"""Continues a prompt."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from rbee.adapters.daemon import instance, stopped
from rbee.adapters.http import sse_client
from rbee.adapters.logs.json_log import correlate
from rbee.clients.progress import progress_of
from rbee.clients.wait_ready import wait_ready
from rbee.clients.worker import WorkerClient
from rbee.errors import (
    DrainingError,
    InternalError,
    RbeeError,
    UnloadFailedError,
    WorkerDrainingError,
    WorkerFailedError,
)
from rbee.keeper.command_line import prompt, reference
from rbee.keeper.inference import why_ended
from rbee.keeper.inference.generation import Generation
from rbee.keeper.inference.relayed import RelayedWorker
from rbee.keeper.output.result import Result
from rbee.keeper.output.text import Text
from rbee.keeper.session import interrupt, session
from rbee.wire import model_ref
from rbee.wire.common import Sampling
from rbee.wire.decode import convert
from rbee.wire.queen import TaskHandle, TaskRequest

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.command_line.typed import InferOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.worker import Done


def run(options: InferOptions, settings: Settings, terminal: Terminal) -> Result:
    """Place the prompt, stream the answer; everything that is wrong with it is refused before anything starts."""
    task = _task(options, settings)

    async def command(force: trio.Event) -> Result:
        correlate(task.request_id)
        for is_last in (False, False, True):
            is_placed = False
            result: Result | None = None
            try:
                async with session.use(settings, terminal, force, options=options) as queen:
                    handle = await _place(queen, task, settings, terminal)
                    is_placed = True
                    try:
                        result = await _generate(queen, handle, task, settings, terminal, as_json=options.json)
                    except WorkerFailedError as exc:
                        raise await why_ended.explained(exc, handle, queen) from exc
            except UnloadFailedError as exc:
                if result is None:
                    raise
                return result._replace(failure=exc)
            except DrainingError as exc:
                # The worker was told to end, or the queen: it was another command's, which is over. Nothing was
                # generated yet, so another one may do it.
                of_worker = is_placed or isinstance(exc, WorkerDrainingError)
                if is_last or not (of_worker or await session.wait_until_gone(settings, terminal)):
                    raise
            else:
                return result
        raise AssertionError

    return interrupt.run(command)


def _task(options: InferOptions, settings: Settings) -> TaskRequest:
    ref = reference.parse(options.model or settings.defaults.model or model_ref.BUILTIN)
    values: dict[str, Any] = {name: getattr(options, name, None) for name in Sampling.__struct_fields__}
    values |= {
        "prompt": prompt.read(options.prompt),
        "model": str(ref),
        "node": options.node or settings.defaults.node,
        "max_tokens": options.max_tokens,
        "backend": options.backend,
        "device": options.device,
        "wait_s": options.wait,
        "request_id": str(uuid.uuid4()),
    }
    return convert(values, TaskRequest, strict=True)


async def _place(queen: QueenClient, task: TaskRequest, settings: Settings, terminal: Terminal) -> TaskHandle:
    """Ask the queen for a worker, and show what it tells; a request that is given up is cancelled there."""
    assert task.request_id is not None
    holder = instance.find(settings.state_dir, "queen")
    identity = holder.identity if holder is not None and holder.url == queen.url else None
    handle: TaskHandle | None = None
    try:
        async with stopped.fail_if_sigstopped("queen", identity), queen.place(task) as events:
            async for event in events:
                if (message := progress_of(event)) is not None:
                    terminal.report(message)
                elif event.name == "worker":
                    # Read on to the end: only then the queen takes another request of this name.
                    handle = sse_client.decode_event(event.data, TaskHandle)
                else:
                    sse_client.decode_event(event.data, dict)
    except sse_client.StreamLostError as exc:
        if handle is None:
            raise _unplaced(settings) from exc
    except RbeeError as exc:
        why_ended.name_node(exc)
        why_ended.add_log(exc, settings)
        raise
    except BaseException:
        with trio.move_on_after(settings.timeouts.acknowledge, shield=True):
            # A queen that does not answer has lost our stream too, and gives up for that.
            with contextlib.suppress(RbeeError):
                await queen.cancel(task.request_id)
        raise
    finally:
        terminal.end_progress()
    if handle is None:
        raise _unplaced(settings)
    return handle


def _unplaced(settings: Settings) -> RbeeError:
    return InternalError(
        "the queen ended before the request was placed", hint=f"its log is {settings.logs_dir / 'queen.log'}"
    )


async def _generate(
    queen: QueenClient,
    handle: TaskHandle,
    task: TaskRequest,
    settings: Settings,
    terminal: Terminal,
    *,
    as_json: bool,
) -> Result:
    log = why_ended.place_of(settings, f"worker-{handle.worker_id}.log", handle.node)
    request = msgspec.structs.replace(task.generation(), narrate=True)
    limits = settings.timeouts
    async with contextlib.AsyncExitStack() as stack:
        worker: WorkerClient | RelayedWorker
        if handle.direct:
            client = WorkerClient(handle.worker_url, handle.api_key, timeout=limits.call, delays=limits.call_delays)
            worker = await stack.enter_async_context(client)
            await wait_ready(worker, terminal, limits, log=log)
        else:
            worker = RelayedWorker(queen, task, handle)  # the queen has waited until it was ready
        generation = Generation(worker, request, settings, log=log)
        if as_json:
            done = await generation.run(terminal, _nowhere)
            return Result(data=_summary(handle, task, generation.text, done))
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
