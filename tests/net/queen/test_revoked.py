"""A key that is revoked while its requests run: they end, with the reason, and nobody else's do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import trio
from quart import request

from rbee.adapters import config
from rbee.adapters.daemon.lifecycle import Stopping
from rbee.adapters.http import sse_server
from rbee.adapters.http.app import answer
from rbee.adapters.http.kept_connections import KeptConnections
from rbee.adapters.store.sqlite import Store
from rbee.queen.access.api_keys import ApiKeys
from rbee.queen.access.key_table import TABLE, KeyTable
from rbee.queen.requests.tracker import RequestTracker
from rbee.queen.routes import app as routes
from rbee.queen.routes import request_log
from rbee.queen.routes.context import QueenContext
from tests.kit.local_http import LOCAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from quart import Response
    from quart_trio import QuartTrio

    from rbee.queen.nodes.nodes import Nodes
    from rbee.queen.registry.table import Registry

TOKEN = "rbee_token"
AS_ADMINISTRATOR = {"Authorization": f"Bearer {TOKEN}"}
PATH = "/v1/test/endless"


class Queen:
    """A queen with one more route for inference, whose answer has no end."""

    def __init__(self, context: QueenContext, store: Store, url: str) -> None:
        self.context = context
        self.store = store
        self.url = url
        self.running = 0

    def add_route(self, app: QuartTrio) -> None:
        context = self.context

        @app.post(PATH)
        async def endless() -> Response:
            record = request_log.current()
            record.request_id = record.correlation_id

            async def work(tell: Callable[[bytes], Awaitable[None]]) -> None:
                with context.track(record.id, record.identity):
                    self.running += 1
                    try:
                        while True:
                            await tell(sse_server.event({"token": "x"}))
                            await trio.sleep(0.01)
                    finally:
                        self.running -= 1

            async def produce(send: sse_server.Send) -> None:
                await work(send.send)

            async def drop(_: bytes) -> None:
                await trio.lowlevel.checkpoint()

            if await request.get_data() == b"stream":
                return context.stream(produce)
            await work(drop)
            return answer({})

    async def create(self, name: str) -> str:
        async with httpx.AsyncClient(base_url=self.url, headers=AS_ADMINISTRATOR, **LOCAL) as client:
            return str((await client.post("/v2/keys", json={"name": name})).json()["key"])

    async def revoke(self, name: str) -> Any:
        async with httpx.AsyncClient(base_url=self.url, headers=AS_ADMINISTRATOR, **LOCAL) as client:
            return (await client.delete(f"/v2/keys/{name}")).json()


@pytest.fixture
async def queen(
    tmp_path: Path, nursery: trio.Nursery, serve_app: Callable[[QuartTrio], Awaitable[str]]
) -> AsyncIterator[Queen]:
    store = await Store.open(tmp_path / "beehives.db", (TABLE,))
    keys = ApiKeys(KeyTable(store))
    nodes, registry = cast("Nodes", None), cast("Registry", None)  # no request goes there
    settings, tracker = config.Settings(), RequestTracker()
    context = QueenContext(settings, TOKEN, registry, nodes, tracker, KeptConnections(), nursery, Stopping(), keys)
    app = routes.build(context)
    found = Queen(context, store, "")
    found.add_route(app)
    found.url = await serve_app(app)
    yield found
    await store.close()


async def until(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not is_so():  # noqa: ASYNC110 (what the test waits for has no event)
            await trio.sleep(0.01)


async def read(url: str, key: str, events: list[Any]) -> None:
    async with (
        httpx.AsyncClient(base_url=url, headers={"x-api-key": key}, **LOCAL) as client,
        client.stream("POST", PATH, content="stream") as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))  # noqa: PERF401 (others look at it meanwhile)


async def test_its_streams_end_with_the_reason_and_others_go_on(queen: Queen, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    alice, bob = [await queen.create(name) for name in ("alice", "bob")]
    hers: list[list[Any]] = [[], []]
    his: list[Any] = []
    async with trio.open_nursery() as nursery:
        for events in hers:
            nursery.start_soon(read, queen.url, alice, events)
        nursery.start_soon(read, queen.url, bob, his)
        await until(lambda: all(len(events) > 2 for events in (*hers, his)))
        assert await queen.revoke("alice") == {"name": "alice", "ended": 2}
        await until(lambda: all(events[-1] == "[DONE]" for events in hers))
        assert queen.running == 1
        seen = len(his)
        await until(lambda: len(his) > seen + 3)
        nursery.cancel_scope.cancel()
    for events in hers:
        error = json.loads(events[-2])["error"]
        assert (error["code"], error["message"]) == ("INVALID_API_KEY", "the key was revoked while the request ran")
    lines = [entry.getMessage() for entry in caplog.records if "key=alice" in entry.getMessage()]
    assert [line.rpartition("end=")[2] for line in lines] == ["INVALID_API_KEY"] * 2


async def test_its_streams_end_where_the_disk_does_not_take_that_too(queen: Queen) -> None:
    alice = await queen.create("alice")
    events: list[Any] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, queen.url, alice, events)
        await until(lambda: len(events) > 2)
        await queen.store.close()
        assert (await queen.revoke("alice"))["error"]["code"] == "STORAGE_FAILED"
        await until(lambda: events[-1] == "[DONE]")
    assert json.loads(events[-2])["error"]["code"] == "INVALID_API_KEY"


async def test_an_answer_that_is_not_streamed_is_the_refusal(queen: Queen) -> None:
    alice = await queen.create("alice")
    found: list[httpx.Response] = []

    async def ask() -> None:
        headers = {"Authorization": f"Bearer {alice}"}
        async with httpx.AsyncClient(base_url=queen.url, headers=headers, **LOCAL) as client:
            found.append(await client.post(PATH, content="whole", timeout=30))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await until(lambda: queen.running == 1)
        await queen.revoke("alice")
    assert (found[0].status_code, found[0].json()["error"]["code"]) == (401, "invalid_api_key")
    assert queen.running == 0


async def test_a_request_whose_body_comes_meanwhile_does_not_slip_through(queen: Queen) -> None:
    """It was let in with a key that was good then."""
    alice = await queen.create("alice")
    admitted = trio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"who"
        await trio.sleep(0.1)  # the head is there by now
        await queen.revoke("alice")
        admitted.set()
        yield b"le"

    async with httpx.AsyncClient(base_url=queen.url, headers={"x-api-key": alice}, **LOCAL) as client:
        response = await client.post(PATH, content=body(), timeout=30)
    assert admitted.is_set()
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_what_a_key_was_used_for_is_counted(queen: Queen) -> None:
    alice = await queen.create("alice")
    async with httpx.AsyncClient(base_url=queen.url, headers={"x-api-key": alice}, **LOCAL) as client:
        for _ in range(3):
            await client.get("/v1/nowhere")
        await client.get("/v2/status")
    async with httpx.AsyncClient(base_url=queen.url, headers=AS_ADMINISTRATOR, **LOCAL) as client:
        listed = (await client.get("/v2/keys")).json()["keys"]
    assert [(key["name"], key["requests"]) for key in listed] == [("alice", 3)]
    assert listed[0]["last_used_unix"] is not None
    assert alice not in json.dumps(listed)
