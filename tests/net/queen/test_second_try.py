"""A worker that fails before the first token: the request is tried once more, and its client sees nothing of it."""

from __future__ import annotations

import json
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest

from rbee.adapters import config
from rbee.adapters.daemon.lifecycle import Stopping
from rbee.adapters.http.kept_connections import KeptConnections
from rbee.errors import ModelLoadFailedError, OutOfMemoryError
from rbee.narrower_errors import WorkerDrainingError
from rbee.queen.access.api_keys import ApiKeys
from rbee.queen.access.key_table import KeyTable
from rbee.queen.requests.tracker import RequestTracker
from rbee.queen.routes import app as routes
from rbee.queen.routes.context import QueenContext
from rbee.queen.scheduling.choose_node import Candidate
from rbee.queen.scheduling.known_prompts import KnownPrompts
from rbee.wire.chat.answer import PromptRead, TextDelta
from rbee.wire.hive import EndedWorker, WorkerGone
from tests.kit.local_http import LOCAL
from tests.kit.standin_node import StandInNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import trio
    from quart_trio import QuartTrio

    from rbee.adapters.store.sqlite import Store
    from rbee.queen.nodes.nodes import Nodes
    from rbee.queen.registry.table import Registry

TOKEN = "rbee_token"
CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hi"}]}
NO_ROOM = OutOfMemoryError("no room")
READ = PromptRead(tokens=7)


class NamedNode(StandInNode):
    """A node of several, whose hive runs and has no worker; those with more memory are asked first."""

    def __init__(self, name: str, free: int) -> None:
        super().__init__(TOKEN)
        self.name = name
        self.free = free

    async def known_candidate(self) -> Candidate:
        return Candidate(self.name, True, [], {"cpu": [self.free]})

    async def candidate(self, reference: str) -> Candidate:
        return await self.known_candidate()


class Swarm:
    """A queen and its nodes, `local` with the most memory."""

    def __init__(self, *names: str) -> None:
        self.nodes = {name: NamedNode(name, 1000 >> number) for number, name in enumerate(names)}
        self.known_prompts = KnownPrompts()
        self.client: httpx.AsyncClient

    def get(self, name: str) -> NamedNode:
        return self.nodes[name]

    def all(self) -> list[NamedNode]:
        return list(self.nodes.values())

    async def chat(self, *, stream: bool = False) -> httpx.Response:
        return await self.client.post(CHAT, json=BODY | {"stream": stream})

    async def story(self, response: httpx.Response) -> tuple[dict[str, Any], list[str]]:
        """Return what is known of a request, and the steps of its story."""
        found = (await self.client.get(f"/v2/requests/{response.headers['x-request-id']}")).json()
        return found["request"], [step["human"] for step in found["steps"]]

    @property
    def tries(self) -> dict[str, int]:
        """How often each node was asked for a worker."""
        return {name: len(node.references) for name, node in self.nodes.items() if node.references}


@pytest.fixture
async def start(
    nursery: trio.Nursery, serve_app: Callable[[QuartTrio], Awaitable[str]]
) -> AsyncIterator[Callable[..., Awaitable[Swarm]]]:
    async def start(*names: str) -> Swarm:
        swarm = Swarm(*names)
        for node in swarm.all():
            node.url = await serve_app(node.app(nursery))
        registry, nodes = cast("Registry", None), cast("Nodes", swarm)
        connections = KeptConnections()
        nursery.start_soon(connections.run)
        keys, settings = ApiKeys(KeyTable(cast("Store", None))), config.Settings()
        context = QueenContext(
            settings, TOKEN, registry, nodes, RequestTracker(), connections, nursery, Stopping(), keys
        )
        url = await serve_app(routes.build(context))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        client = httpx.AsyncClient(base_url=url, headers=headers, timeout=30, **LOCAL)
        swarm.client = await clients.enter_async_context(client)
        return swarm

    async with AsyncExitStack() as clients:
        yield start


def text_of(response: httpx.Response) -> str:
    """Return what an answer says, which is whole."""
    assert response.status_code == 200, response.text
    if not response.headers["Content-Type"].startswith("text/event-stream"):
        return str(response.json()["choices"][0]["message"]["content"])
    *chunks, last = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert last == "[DONE]"
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    assert [delta.get("role") for delta in deltas].count("assistant") == 1
    return "".join(delta.get("content") or "" for delta in deltas)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_worker_without_memory_is_not_seen(
    start: Callable[..., Awaitable[Swarm]], stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    swarm = await start("local")
    swarm.get("local").first_scripts = [[READ, NO_ROOM]]
    response = await swarm.chat(stream=stream)
    assert text_of(response) == "Once"
    request, steps = await swarm.story(response)
    assert (request["end"], request["node"], request["prompt_tokens"]) == ("stop", "local", 7)
    assert "Failed on local before the first token: no room; trying once more" in steps
    assert len([step for step in steps if step.startswith("Placed on local")]) == 2
    messages = [record.getMessage() for record in caplog.records]
    assert f"request {request['id']} failed on local before its answer began: no room" in messages
    assert len([message for message in messages if message.startswith("request id=") and CHAT in message]) == 1


async def test_a_worker_that_died_is_not_seen(start: Callable[..., Awaitable[Swarm]]) -> None:
    swarm = await start("local", "attic")
    local = swarm.get("local")
    local.url = "http://127.0.0.1:1"
    ended = EndedWorker(
        id="w", model_ref="m", backend="cpu", device=0, pid=7, reason="SIGSEGV", ended_at=1, log="", last_lines=[]
    )
    local.mirror.on_hive_event(WorkerGone(id="w", ended=ended))
    response = await swarm.chat()
    assert text_of(response) == "Once"
    request, steps = await swarm.story(response)
    assert request["node"] == "attic"
    assert "the worker was lost before it answered: SIGSEGV; trying once more" in " ".join(steps)
    assert swarm.tries == {"local": 1, "attic": 1}


@pytest.mark.parametrize("error", [NO_ROOM, WorkerDrainingError("the worker was told to end", worker_id="w")])
async def test_a_node_without_room_leaves_it_to_another(
    start: Callable[..., Awaitable[Swarm]], error: Exception
) -> None:
    swarm = await start("local", "barn", "attic")
    swarm.get("local").misplaced = error
    response = await swarm.chat()
    assert text_of(response) == "Once"
    request, steps = await swarm.story(response)
    assert request["node"] == "barn"
    assert f"Failed on local before the first token: {error}; trying once more" in steps


async def test_no_third_try_follows(start: Callable[..., Awaitable[Swarm]]) -> None:
    swarm = await start("local", "barn", "attic")
    swarm.get("local").misplaced = NO_ROOM
    swarm.get("barn").script = [READ, OutOfMemoryError("no room in the barn")]
    response = await swarm.chat()
    assert (response.status_code, response.headers["x-should-retry"]) == (503, "false")
    assert response.json()["error"]["message"].startswith("no room in the barn")
    assert swarm.tries == {"local": 1, "barn": 1}


async def test_the_second_failure_on_one_node_is_the_end(start: Callable[..., Awaitable[Swarm]]) -> None:
    swarm = await start("local")
    swarm.get("local").script = [READ, NO_ROOM]
    response = await swarm.chat()
    assert (response.status_code, swarm.tries) == (503, {"local": 2})


@pytest.mark.parametrize("stream", [True, False])
async def test_after_the_first_token_there_is_no_second_try(
    start: Callable[..., Awaitable[Swarm]], stream: bool
) -> None:
    swarm = await start("local", "attic")
    swarm.get("local").script = [READ, TextDelta(text="On"), NO_ROOM]
    response = await swarm.chat(stream=stream)
    assert '"vram_exhausted"' in response.text
    assert response.status_code == (200 if stream else 503)
    assert swarm.tries == {"local": 1}


async def test_what_fails_anywhere_is_not_tried_again(start: Callable[..., Awaitable[Swarm]]) -> None:
    swarm = await start("local", "attic")
    swarm.get("local").script = [READ, ModelLoadFailedError("no GGUF")]
    response = await swarm.chat()
    assert (response.status_code, swarm.tries) == (500, {"local": 1})
