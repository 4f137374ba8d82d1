"""How a client uses the worker that it was given: waits until it is ready, reads a generation, cancels one."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from rbee.errors import ConnectionTimeoutError, DrainingError, LoadingTimeoutError, RbeeError, WorkerFailedError
from rbee.wire.error_body import from_body
from tests.simulation.worker import key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.queen.scheduling.place_request import Placed
    from rbee.wire.worker import Readiness
    from tests.simulation.network import Network


async def wait_ready(network: Network, url: str, seconds: float) -> None:
    """Return once the worker has loaded its model; raises why it will not."""
    pause = 0.1
    with trio.move_on_after(seconds):
        while True:
            try:
                ready: Readiness = await network.call(
                    url, "a readiness check", lambda found: found.tell_ready(), repeats=True
                )
            except ConnectionTimeoutError as exc:
                raise WorkerFailedError("the worker ended while it loaded its model") from exc
            if ready.ready:
                return
            if ready.state == "draining":
                raise DrainingError("the worker is shutting down")
            if ready.state == "failed":
                raise from_body({"error": ready.error}) or WorkerFailedError("the model could not be loaded")
            await trio.sleep(pause)
            pause = min(pause * 2, 2)
    raise LoadingTimeoutError.after(seconds, "loading", None)


async def infer(network: Network, placed: Placed, request_id: str, tokens: int, heard: Callable[[Any], None]) -> None:
    """Hold the stream of a generation."""
    key = key_of(placed.worker_id)

    def receive(token: Any) -> None:
        network.rules.heard(request_id, placed.worker_id)
        heard(token)

    await network.stream(
        placed.url,
        f"the answer to {request_id}",
        lambda found, send: found.infer(key, request_id, tokens, send),
        receive,
    )


async def cancel(network: Network, worker: tuple[str, str], request_id: str) -> None:
    url, key = worker
    with suppress(RbeeError):  # a worker that does not answer generates for nobody
        await network.call(url, f"the end of {request_id}", lambda found: found.cancel(key, request_id))
