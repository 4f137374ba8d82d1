"""The worker's routes on a real socket in this process, with the real engine."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import trio

from rbee.adapters.config import Timeouts
from rbee.adapters.daemon.lifecycle import Stopping
from rbee.adapters.http import client as http_client
from rbee.adapters.http import server as http_server
from rbee.adapters.http import sse_client
from rbee.errors import ModelLoadFailedError
from rbee.wire.worker import InferenceRequest
from rbee.worker.llama import loading
from rbee.worker.serving import routes
from rbee.worker.serving.service import Service
from rbee.worker.status.status import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import httpx

KEY = "rbee_w_test"
WORKER_ID = "00000000-0000-4000-8000-000000000001"


class Serving(NamedTuple):
    """What a test sees of the worker."""

    url: str
    client: httpx.AsyncClient
    status: Status
    service: Service
    stopping: Stopping
    load: trio.Event
    """Set it to begin loading."""

    async def infer(self, prompt: str, **fields: Any) -> httpx.Response:
        return await self.client.post("/v1/inference", json=request(prompt, **fields), timeout=60)

    async def text(self, prompt: str, **fields: Any) -> str:
        response = await self.infer(prompt, stream=False, **fields)
        assert response.status_code == 200, response.text
        return str(response.json()["text"])

    def stream(self, prompt: str, **fields: Any) -> AbstractAsyncContextManager[sse_client.EventStream]:
        asked = msgspec.convert(request(prompt, **fields), InferenceRequest)
        return sse_client.events(self.client, "POST", "/v1/inference", body=asked)

    async def wait_state(self, *states: str, seconds: float = 20) -> None:
        with trio.fail_after(seconds):
            while self.status.now.state not in states:
                await self.status.changed.wait()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def request(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": 20, "temperature": 0, **fields}


@asynccontextmanager
async def serving(
    model: Path,
    *,
    slots: int = 4,
    context: int | None = None,
    loaded: bool = True,
    memory: int = 0,
    longest: int | None = None,
    **timeouts: float,
) -> AsyncIterator[Serving]:
    """Serve `model` for the block; loading waits for `load` unless it is to be `loaded`."""
    status = Status(slots)
    service = Service(status)
    stopping = Stopping()
    load = trio.Event()
    listener = http_server.bind("127.0.0.1", 0)
    url = http_server.base_url(listener)

    async def work() -> None:
        await load.wait()
        # One compute thread: two wait for each other at every operation, which takes long where tests share processors.
        options = loading.LoadOptions(model, "cpu", 0, slots, context, 1, memory, longest)
        try:
            found = await loading.load(options, status.set_loading)
        except ModelLoadFailedError as exc:
            status.set_failed(exc)
            return
        try:
            await service.run(found.context)
        finally:
            found.close()

    async with trio.open_nursery() as nursery:
        app = routes.new(
            routes.WorkerIdentity(WORKER_ID, KEY, url),
            status,
            service,
            timeouts=Timeouts(**timeouts),
            nursery=nursery,
            shut_down=stopping.ask,
        )
        server = http_server.Server(app, listener)
        await nursery.start(server.run)
        nursery.start_soon(work)
        async with http_client.connect(url, KEY, timeout=20) as client:
            serving = Serving(url, client, status, service, stopping, load)
            if loaded:
                load.set()
                await serving.wait_state("idle", "failed")
            yield serving
        status.close()
        await server.stop()
        nursery.cancel_scope.cancel()
