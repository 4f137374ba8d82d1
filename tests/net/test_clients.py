"""The clients of hive and worker against servers that break off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rbee.adapters.config import Timeouts
from rbee.adapters.http import sse_client
from rbee.clients.hive import HiveClient
from rbee.clients.wait_ready import WorkerUnreachedError, wait_ready
from rbee.clients.worker import WorkerClient
from rbee.errors import (
    ConnectionTimeoutError,
    RbeeError,
    SpawnFailedError,
    WorkerFailedError,
)
from rbee.wire.common import Health, Narration
from rbee.wire.hive import SpawnReply, SpawnRequest
from tests.kit.scripted import NOBODY, STREAM, Scripted, chunk, reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"


NARRATION = b'event: narration\ndata: {"actor":"rbee-hive","action":"a","target":"t","human":"h"}\n\n'
WORKER = b'event: worker\ndata: {"worker_id":"w","url":"http://x:1","state":"loading","api_key":"k"}\n\n'


async def spawn(url: str) -> tuple[SpawnReply, list[Narration]]:
    told: list[Narration] = []
    async with HiveClient(url, "k") as client:
        return await client.spawn(SpawnRequest(model_ref="m"), told.append), told


async def test_a_hive_tells_while_it_starts_a_worker(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(STREAM + chunk(NARRATION + WORKER + b"data: [DONE]\n\n") + b"0\r\n\r\n")
    reply_, told = await spawn(server.url)
    assert reply_ == SpawnReply(worker_id="w", url="http://x:1", state="loading", api_key="k")
    assert [narration.human for narration in told] == ["h"]


async def test_a_hives_error_is_raised(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    error = b'data: {"error":{"code":"SPAWN_FAILED","message":"m"}}\n\ndata: [DONE]\n\n'
    server = await scripted(STREAM + chunk(NARRATION + error) + b"0\r\n\r\n")
    with pytest.raises(SpawnFailedError, match="m"):
        await spawn(server.url)


@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n", chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n", chunk(b"data: x\n\n")])
async def test_a_hive_that_dies_while_it_starts_a_worker_is_an_error_of_ours(
    scripted: Callable[..., Awaitable[Scripted]], end: bytes
) -> None:
    server = await scripted(STREAM + chunk(NARRATION) + end)
    with pytest.raises(RbeeError):
        await spawn(server.url)


async def test_a_hives_health_is_asked_again_only_where_that_is_wanted(
    scripted: Callable[..., Awaitable[Scripted]],
) -> None:
    good = reply(b'{"status":"alive","version":"1","api_version":"v1"}')
    server = await scripted(b"", b"", good, b"", good)
    async with HiveClient(server.url, "k") as client:
        assert await client.health() == Health(status="alive", version="1", api_version="v1")
        with pytest.raises(ConnectionTimeoutError):
            await client.health(patient=False)


async def test_a_workers_states_are_passed_on_until_its_stream_ends(
    scripted: Callable[..., Awaitable[Scripted]],
) -> None:
    data = b"".join(
        b'data: {"state":"%s","slots_total":2,"slots_available":1}\n\n' % state for state in (b"idle", b"busy")
    )
    server = await scripted(STREAM + chunk(data + b"data: [DONE]\n\n") + b"0\r\n\r\n", STREAM + chunk(data))
    states: list[str] = []
    async with WorkerClient(server.url, "k") as client:
        await client.follow(lambda status: states.append(status.state))
    assert states == ["idle", "busy"]
    async with WorkerClient(server.url, "k") as client:
        with pytest.raises(sse_client.StreamLostError):
            await client.follow(lambda status: states.append(status.state))


async def test_a_worker_is_told_to_end_once(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(b"HTTP/1.1 202 X\r\nContent-Length: 0\r\n\r\n")
    async with WorkerClient(server.url, "k") as client:
        await client.shut_down()
        assert server.requests[0].startswith(b"POST /v1/admin/shutdown ")
        with pytest.raises(ConnectionTimeoutError):
            await client.shut_down()
    assert len(server.requests) == 2


async def test_a_worker_that_was_never_reached_is_not_said_to_have_ended() -> None:
    async with WorkerClient(NOBODY, "k", delays=(0,)) as client:
        with pytest.raises(WorkerUnreachedError) as caught:
            await wait_ready(client, lambda _: None, Timeouts())
    said = "the worker cannot be reached from here: 127.0.0.1:9 does not answer (connection refused)"
    assert caught.value.message == said


async def test_a_worker_that_was_reached_and_is_lost_has_ended(
    scripted: Callable[..., Awaitable[Scripted]],
) -> None:
    loading = reply(b'{"ready":false,"state":"loading"}')
    server = await scripted(loading, b"", b"")
    async with WorkerClient(server.url, "k", delays=(0,)) as client:
        with pytest.raises(WorkerFailedError, match="the worker ended while it loaded its model"):
            await wait_ready(client, lambda _: None, Timeouts(ready_poll=0.01))
