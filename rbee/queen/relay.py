"""Passes a worker's answer through the queen, for callers that cannot reach the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from rbee.adapters import http, sse
from rbee.errors import ConnectionTimeoutError, DrainingError, LoadingTimeoutError, WorkerFailedError, from_body
from rbee.wire import worker as wire

if TYPE_CHECKING:
    from rbee.adapters.config import Timeouts
    from rbee.wire.queen import TaskHandle, TaskRequest


async def relay(send: sse.Send, task: TaskRequest, handle: TaskHandle, limits: Timeouts) -> None:
    """Wait until the worker is ready, run the request there, and send its events as they come."""
    async with http.connect(handle.worker_url, handle.api_key) as client:
        if handle.state not in ("idle", "busy"):
            await _wait_ready(client, limits)
        request = wire.InferenceRequest(
            prompt=task.prompt,
            max_tokens=task.max_tokens,
            temperature=task.temperature,
            top_p=task.top_p,
            top_k=task.top_k,
            min_p=task.min_p,
            repeat_penalty=task.repeat_penalty,
            seed=task.seed,
            stop=task.stop,
            raw=task.raw,
            narrate=task.narrate,
            request_id=handle.request_id,
        )
        try:
            async with http.events(client, "POST", wire.INFERENCE, body=request) as events:
                async for event in events:
                    await send.send(sse.encoded(event.data, event.name))
        except http.StreamLostError as exc:
            raise WorkerFailedError(f"the worker's stream ended early: {exc}") from exc


async def _wait_ready(client: http.Client, limits: Timeouts) -> None:
    pause = limits.ready_poll
    # The hive counts too, from an earlier moment on, knows the layers, and needs a moment to end the worker.
    with trio.move_on_after(limits.loading + limits.unload):
        while True:
            try:
                ready = await http.call(client, "GET", wire.READY, wire.Ready, delays=limits.call_delays)
            except ConnectionTimeoutError as exc:
                raise WorkerFailedError("the worker ended while it loaded its model") from exc
            if ready.ready:
                return
            if ready.state == "draining":
                raise DrainingError("the worker is shutting down")
            if ready.state == "failed":
                raise from_body({"error": ready.error}) or WorkerFailedError("the model could not be loaded")
            await trio.sleep(pause)
            pause = min(pause * 2, limits.ready_poll_most)
    raise LoadingTimeoutError.after(limits.loading, "loading", None)
