"""OpenAI's interface of a queen, before a worker whose answers the test chooses."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import trio
from quart.asgi import ASGIHTTPConnection

from rbee.adapters import config
from rbee.adapters.daemon.lifecycle import Stopping
from rbee.adapters.http.kept_connections import KeptConnections
from rbee.errors import AllSlotsBusyError, InvalidRequestError, ModelLoadFailedError, WorkerFailedError
from rbee.narrower_errors import UnknownFieldError
from rbee.queen.access.api_keys import ApiKeys
from rbee.queen.access.key_table import KeyTable
from rbee.queen.requests.tracker import RequestTracker
from rbee.queen.routes import app as routes
from rbee.queen.routes.context import QueenContext
from rbee.wire.chat.answer import ChoiceEnded, PromptRead, TextDelta, ToolCallBegan, ToolCallDelta
from rbee.wire.model_ref import FORMS
from rbee.wire.worker import EndedRequest
from tests.kit.local_http import LOCAL
from tests.kit.standin_node import ENDED, StandInNode, row_of, swarm_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from quart_trio import QuartTrio

    from rbee.adapters.store.sqlite import Store
    from rbee.queen.registry.table import Registry

TOKEN = "rbee_token"
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
USER = [{"role": "user", "content": "Hi"}]
OPTIONS: dict[str, Any] = {"headers": {"Authorization": f"Bearer {TOKEN}"}, **LOCAL}
QWEN = "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M"


@pytest.fixture
async def node(nursery: trio.Nursery, serve_app: Callable[[QuartTrio], Awaitable[str]]) -> StandInNode:
    found = StandInNode(TOKEN)
    found.url = await serve_app(found.app(nursery))
    return found


@pytest.fixture
def settings() -> config.Settings:
    return config.Settings()


@pytest.fixture
async def context(node: StandInNode, nursery: trio.Nursery, settings: config.Settings) -> QueenContext:
    registry = cast("Registry", None)  # no request asks it
    connections = KeptConnections()
    nursery.start_soon(connections.run)
    keys = ApiKeys(KeyTable(cast("Store", None)))  # none is made
    swarm = swarm_of(node)
    return QueenContext(settings, TOKEN, registry, swarm, RequestTracker(), connections, nursery, Stopping(), keys)


@pytest.fixture
async def queen(
    context: QueenContext, serve_app: Callable[[QuartTrio], Awaitable[str]]
) -> AsyncIterator[httpx.AsyncClient]:
    url = await serve_app(routes.build(context))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, **LOCAL) as client:
        yield client


def frames(text: str) -> list[str]:
    """Return the data of each event; a stream holds nothing else but comments."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        assert len(lines) <= 1
        found += [line.removeprefix("data: ") for line in lines]
    return found


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of the log about requests."""
    return [text for entry in caplog.records if (text := entry.getMessage()).startswith("request ")]


def text_of(chunks: list[str]) -> str:
    choices = [choice for chunk in chunks for choice in json.loads(chunk)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_a_chat_is_streamed(node: StandInNode, queen: httpx.AsyncClient) -> None:
    response = await queen.post(CHAT, json={"model": "Bee-Stories", "messages": USER, "stream": True, "max_tokens": 5})
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert int(response.headers["openai-processing-ms"]) < 5000
    *chunks, last = frames(response.text)
    assert (text_of(chunks), last) == ("Once", "[DONE]")
    assert {json.loads(chunk)["model"] for chunk in chunks} == {"Bee-Stories"}
    (asked,) = node.inferences
    assert asked.request_id == response.headers["x-request-id"]
    assert {json.loads(chunk)["id"] for chunk in chunks} == {f"chatcmpl-{asked.request_id.replace('-', '')}"}
    assert asked.conversation.messages[0].text() == "Hi"  # type: ignore[union-attr]
    assert (asked.max_tokens, asked.temperature, asked.stream) == (5, 1, True)
    assert node.references == ["builtin:bee-stories"]


async def test_a_chat_is_answered_as_one_object(node: StandInNode, queen: httpx.AsyncClient) -> None:
    node.script = [
        PromptRead(tokens=7),
        ToolCallBegan(index=0, id="call_a", name="f"),
        ToolCallDelta(index=0, arguments="{}"),
        ChoiceEnded(reason="tool_calls"),
        ENDED,
    ]
    response = await queen.post(CHAT, json={"messages": USER})
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    found = response.json()
    assert (found["model"], found["object"]) == ("builtin:bee-stories", "chat.completion")
    assert found["choices"][0]["finish_reason"] == "tool_calls"
    assert found["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert found["usage"]["total_tokens"] == 10


async def test_a_completion_continues_its_prompts(node: StandInNode, queen: httpx.AsyncClient) -> None:
    for body in ({"prompt": ["a", "b", "c", "d", "e"]}, {"prompt": [1, 2]}):
        response = await queen.post(TEXT, json=body)
        found = response.json()
        assert [(one["text"], one["index"]) for one in found["choices"]] == [
            ("Once", index) for index in range(len(found["choices"]))
        ]
        assert found["usage"]["prompt_tokens"] == 7 * len(found["choices"])
    assert sorted(str(one.prompt) for one in node.inferences[:5]) == ["a", "b", "c", "d", "e"]
    assert node.inferences[5].tokens == [1, 2]
    assert all(one.is_typed and one.max_tokens == 16 for one in node.inferences)
    assert len({one.request_id for one in node.inferences}) == 6


async def test_a_completion_is_streamed(queen: httpx.AsyncClient) -> None:
    body = {"prompt": ["a", "b"], "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = frames((await queen.post(TEXT, json=body)).text)
    assert last == "[DONE]"
    found = [json.loads(chunk) for chunk in chunks]
    for index in (0, 1):
        mine = [one for chunk in found for one in chunk["choices"] if one["index"] == index]
        assert "".join(one["text"] for one in mine) == "Once"
        assert mine[-1]["finish_reason"] == "stop"
    assert (found[-1]["choices"], found[-1]["usage"]["total_tokens"]) == ([], 20)


async def test_one_generation_that_fails_ends_the_others(node: StandInNode, queen: httpx.AsyncClient) -> None:
    node.script = [PromptRead(tokens=1), ModelLoadFailedError("no")]
    response = await queen.post(TEXT, json={"prompt": ["a"] * 20})
    assert (response.status_code, response.json()["error"]["code"]) == (500, "model_load_failed")
    assert len(node.inferences) < 20


@pytest.mark.parametrize("stream", [True, False])
async def test_what_the_worker_refuses_has_a_status(node: StandInNode, queen: httpx.AsyncClient, stream: bool) -> None:
    node.refusal = InvalidRequestError("m", field="prompt", rule="r", tokens=5000, context=4096)
    response = await queen.post(CHAT, json={"messages": USER, "stream": stream})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert error["type"] == "invalid_request_error"
    assert response.headers["Content-Type"] == "application/json"
    assert set(error) == {"message", "type", "param", "code"}


async def test_a_worker_of_an_earlier_version_is_named(node: StandInNode, queen: httpx.AsyncClient) -> None:
    node.refusal = UnknownFieldError("field conversation: no such field", field="conversation")
    response = await queen.post(CHAT, json={"messages": USER})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (500, "version_mismatch")
    assert "of an earlier version" in error["message"]
    assert "`rbee workers shutdown --id w`" in error["message"]
    assert response.headers["x-should-retry"] == "false"


async def test_whose_turn_it_is_and_that_nobody_waits_reaches_the_line(
    node: StandInNode, queen: httpx.AsyncClient
) -> None:
    for headers, body, turn in (
        ({}, {}, ("token 127.0.0.1", False)),
        ({"X-Session-Id": "an editor"}, {"service_tier": "flex"}, ("token 127.0.0.1 an editor", True)),
        ({"Priority": "u=7"}, {"service_tier": "auto"}, ("token 127.0.0.1", True)),
    ):
        response = await queen.post(CHAT, json={"messages": USER, **body}, headers=headers)
        assert response.status_code == 200
        assert (node.options["caller"], node.options["is_batch"]) == turn


@pytest.mark.parametrize("stream", [True, False])
async def test_a_full_queue_is_told_with_the_time_to_ask_again(
    node: StandInNode, queen: httpx.AsyncClient, stream: bool
) -> None:
    node.misplaced = AllSlotsBusyError("all slots are busy")
    response = await queen.post(CHAT, json={"messages": USER, "stream": stream})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "5")
    assert response.json()["error"]["type"] == "rate_limit_error"


async def test_what_fails_later_is_an_event_without_a_clean_end(node: StandInNode, queen: httpx.AsyncClient) -> None:
    goes_on = trio.Event()
    node.script = [PromptRead(tokens=7), TextDelta(text="On"), goes_on, WorkerFailedError("it broke")]
    async with queen.stream("POST", CHAT, json={"messages": USER, "stream": True}) as response:
        pieces = response.aiter_text()
        text = await anext(pieces)
        goes_on.set()
        text += "".join([piece async for piece in pieces])
    *chunks, last = frames(text)
    assert text_of(chunks) == "On"
    assert 'finish_reason":"' not in text
    assert json.loads(last)["error"]["type"] == "server_error"
    assert "[DONE]" not in text


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_without_an_end_is_a_failure(node: StandInNode, queen: httpx.AsyncClient, stream: bool) -> None:
    node.script = [PromptRead(tokens=7), TextDelta(text="On"), ChoiceEnded(reason="stop")]
    text = (await queen.post(CHAT, json={"messages": USER, "stream": stream})).text
    assert '"worker_failed"' in text
    assert "[DONE]" not in text


async def test_while_a_model_loads_the_head_is_there_and_heartbeats_that_no_client_takes_for_an_event(
    node: StandInNode, queen: httpx.AsyncClient, settings: config.Settings
) -> None:
    settings.timeouts.heartbeat = 0.05
    node.placed, node.loaded = "loading", trio.Event()
    async with queen.stream("POST", CHAT, json={"messages": USER, "stream": True}) as response:
        assert response.status_code == 200
        pieces = response.aiter_text()
        text = ""
        while text.count(": heartbeat") < 3:
            text += await anext(pieces)
        assert re.fullmatch(r"(: heartbeat\n)+", text)
        node.loaded.set()
        text += "".join([piece async for piece in pieces])
    *chunks, last = frames(text)
    assert (text_of(chunks), last) == ("Once", "[DONE]")


@pytest.mark.parametrize("body", [{"stream": True}, {"stream": False}])
@pytest.mark.parametrize("has_begun", [True, False])
async def test_a_client_that_leaves_ends_the_work_and_what_was_written_counts(
    node: StandInNode,
    context: QueenContext,
    queen: httpx.AsyncClient,
    body: dict[str, bool],
    has_begun: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    node.script = [*([TextDelta(text="On")] if has_begun else []), trio.Event()]
    with trio.move_on_after(0.5):
        await queen.post(CHAT, json={"messages": USER, **body})
    with trio.fail_after(10):
        await node.ended.wait()
        (asked,) = node.inferences
        words = EndedRequest(
            request_id=asked.request_id or "", prompt_tokens=7, total_tokens=1, duration_ms=500, end="CANCELLED"
        )
        context.requests.on_ended(words)
        while not (lines := lines_of(caplog)):  # noqa: ASYNC110 (it is written a moment later)
            await trio.sleep(0.01)
    (line,) = lines
    assert line.endswith("end=CANCELLED")
    assert " prompt_tokens=7 cached_tokens=0 tokens=1 " in line


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("", "builtin:bee-stories"),
        (None, "builtin:bee-stories"),
        ("my-model", QWEN),
        ("qwen2.5-0.5b-instruct:q4_k_m", QWEN),
        (f"{QWEN}@local", QWEN),
        ("hf.co/other/repo:Q8_0", "hf:other/repo:Q8_0"),
    ],
)
async def test_a_model_is_found_by_the_names_that_clients_use(
    node: StandInNode, queen: httpx.AsyncClient, settings: config.Settings, name: str | None, reference: str
) -> None:
    settings.models.aliases = {"my-model": QWEN}
    node.rows = [row_of(QWEN, "qwen2.5-0.5b-instruct-q4_k_m")]
    found = (await queen.post(CHAT, json={"model": name, "messages": USER})).json()
    assert found["model"] == (name or reference)
    assert node.references == [reference]


async def test_an_alias_that_is_made_holds_at_once_for_every_route(
    node: StandInNode, queen: httpx.AsyncClient, settings: config.Settings, tmp_path: Path
) -> None:
    settings.paths.state_dir = str(tmp_path)
    node.rows = [row_of(QWEN, "qwen2.5-0.5b-instruct-q4_k_m")]
    aliases = {"name": "coder", "target": f"{QWEN}@local"}, {"name": "mine", "target": "coder"}
    made = [(await queen.post("/v2/models/aliases", json=alias)).json() for alias in aliases]
    assert [(one["model"], one["node"], one["source"]) for one in made] == [(QWEN, "local", "command")] * 2
    listed = [one["id"] for one in (await queen.get("/v1/models")).json()["data"]]
    assert listed == ["builtin:bee-stories", QWEN, "coder", "mine"]
    assert (await queen.post(CHAT, json={"model": "Mine", "messages": USER})).json()["model"] == "Mine"
    relayed = await queen.post("/v2/tasks", json={"model": "mine", "prompt": "x", "relay": True})
    assert relayed.status_code == 200
    settings.defaults.model = "coder"
    await queen.post(CHAT, json={"messages": USER})
    await queen.post("/v2/tasks", json={"prompt": "x", "relay": True})
    assert node.references == [QWEN] * 4
    again = await queen.post("/v2/models/aliases", json={"name": "coder", "target": "builtin:bee-stories"})
    assert again.json()["model"] == "builtin:bee-stories"
    await queen.post(CHAT, json={"model": "mine", "messages": USER})
    assert node.references[-1] == "builtin:bee-stories"
    assert (await queen.post("/v2/models/aliases/remove", json={"name": "MINE"})).json() == {"name": "mine"}
    assert (await queen.post(CHAT, json={"model": "mine", "messages": USER})).status_code == 404
    assert (await queen.post("/v2/tasks", json={"model": "mine", "prompt": "x"})).status_code == 400


async def test_commands_take_the_names_that_clients_take(node: StandInNode, queen: httpx.AsyncClient) -> None:
    node.rows = [row_of(QWEN, "qwen2.5-0.5b-instruct-q4_k_m")]
    for name in ("qwen2.5-0.5b-instruct-Q4_K_M", "Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b-instruct@local"):
        relayed = await queen.post("/v2/tasks", json={"model": name, "prompt": "x", "relay": True})
        assert (relayed.status_code, node.references[-1]) == (200, QWEN), name
    error = (await queen.post("/v2/tasks", json={"model": "qwen2-instruct", "prompt": "x"})).json()["error"]
    assert (error["code"], error["message"]) == ("INVALID_REQUEST", "no model has this name: qwen2-instruct")
    assert error["hint"].startswith(f"the nearest ones are {QWEN}")
    assert error["hint"].endswith(", ".join(FORMS))
    error = (await queen.post("/v2/tasks", json={"model": "hf:qwen", "prompt": "x"})).json()["error"]
    assert error["message"] == "model reference: not one of the accepted forms"


async def test_an_unknown_model_is_not_found_and_nothing_is_started(
    node: StandInNode, queen: httpx.AsyncClient, settings: config.Settings
) -> None:
    for path, body in ((CHAT, {"messages": USER}), (TEXT, {"prompt": "x"})):
        response = await queen.post(path, json={"model": "bee-storeys", **body})
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert "builtin:bee-stories" in error["message"]
    assert node.references == []
    settings.api.unknown_model = "default"
    found = (await queen.post(CHAT, json={"model": "gpt-4o", "messages": USER})).json()
    assert (found["model"], node.references) == ("gpt-4o", ["builtin:bee-stories"])


async def test_the_models_are_listed_with_what_clients_look_for(
    node: StandInNode, queen: httpx.AsyncClient, settings: config.Settings
) -> None:
    settings.defaults.model = QWEN
    settings.models.aliases = {"gpt-4o": QWEN, "lost": "nothing"}
    node.rows = [row_of(QWEN, "qwen2.5-0.5b-instruct-q4_k_m")]
    found = (await queen.get("/v1/models?limit=1000")).json()
    assert (found["object"], found["models"]) == ("list", [])
    assert [one["id"] for one in found["data"]] == [QWEN, "builtin:bee-stories", "gpt-4o"]
    first, _, alias = found["data"]
    assert {key: first[key] for key in ("object", "created", "owned_by", "nodes")} == {
        "object": "model", "created": 1700000000, "owned_by": "Qwen", "nodes": ["local"],
    }  # fmt: skip
    for key in ("context_length", "max_model_len", "context_window", "max_input_tokens"):
        assert first[key] == 4096
    assert first["meta"]["n_ctx_train"] == 32_768
    assert first["capabilities"] == ["completion", "chat", "tools"]
    assert alias == first | {"id": "gpt-4o", "reference": QWEN}


@pytest.mark.parametrize(
    "name", [QWEN, QWEN.replace("/", "%2F").replace(":", "%3A"), "gpt-4o", "QWEN2.5-0.5B-instruct"]
)
async def test_one_model_is_shown_by_any_of_its_names(
    node: StandInNode, queen: httpx.AsyncClient, settings: config.Settings, name: str
) -> None:
    settings.models.aliases = {"gpt-4o": QWEN}
    node.rows = [row_of(QWEN, "qwen2.5-0.5b-instruct-q4_k_m")]
    response = await queen.get(f"/v1/models/{name}")
    assert response.status_code == 200
    assert response.json()["context_length"] == 4096
    assert response.json()["id"] == name.replace("%2F", "/").replace("%3A", ":")


async def test_a_model_that_is_not_there_is_not_shown(queen: httpx.AsyncClient, settings: config.Settings) -> None:
    settings.api.unknown_model = "default"
    response = await queen.get("/v1/models/gpt-4o")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


async def test_names_cost_no_question_once_the_models_are_known(node: StandInNode, queen: httpx.AsyncClient) -> None:
    for _ in range(3):
        await queen.post(CHAT, json={"model": "bee-stories", "messages": USER})
    assert node.asked_models == 1
    await queen.post(CHAT, json={"model": "gpt-4o", "messages": USER})
    assert node.asked_models == 2, "a model may have come meanwhile"


async def test_a_base_url_without_v1_and_a_path_that_there_is_not_are_told_what_there_is(
    queen: httpx.AsyncClient,
) -> None:
    response = await queen.post("/chat/completions", json={"messages": USER})
    assert response.status_code in (401, 404)
    assert response.json()["error"]["hint"] == "the base URL of OpenAI's API ends in /v1"
    assert "hint" not in (await queen.get("/nowhere")).json()["error"]
    message = (await queen.post("/v1/nowhere", json={})).json()["error"]["message"]
    assert message == "there is no such path; there are /v1/chat/completions, /v1/completions, /v1/models"


BAD: list[tuple[str, str, dict[str, Any], int, str | None]] = [
    ("POST", CHAT, {"content": b""}, 400, None),
    ("POST", CHAT, {"content": b"\xff"}, 400, None),
    ("POST", CHAT, {"content": b"[" * 100_000}, 400, None),
    ("POST", CHAT, {"json": {}}, 400, "missing_required_parameter"),
    ("POST", CHAT, {"json": {"messages": USER, "n": 0}}, 400, "invalid_value"),
    ("POST", TEXT, {"content": b"{"}, 400, None),
    ("POST", TEXT, {"json": {"prompt": 1}}, 400, "invalid_value"),
    ("GET", CHAT, {}, 405, "method_not_allowed"),
    ("DELETE", "/v1/models/x", {}, 405, "method_not_allowed"),
    ("GET", "/v1/nowhere", {}, 404, "unknown_url"),
    ("GET", "/v1/models/", {}, 404, "unknown_url"),
    *(
        ("GET", f"/v1/models/{name}", {}, 404, "model_not_found")
        for name in ("%00", "%ff", "..%2f..%2fetc%2fpasswd", "%F0%9F%90%9D", "x" * 5000, "%s%n", "@@")
    ),
    *(("POST", CHAT, {"content": b"x", "headers": {"Content-Encoding": name}}, 415, None) for name in ("gzip", "zstd")),
    (
        "GET",
        "/v1/models",
        {"headers": {"Authorization": "Bearer x", "X-Forwarded-For": "192.0.2.1"}},
        401,
        "invalid_api_key",
    ),
    ("POST", CHAT, {"json": {"messages": USER}, "headers": {"Origin": "https://evil.example"}}, 403, "forbidden"),
    ("POST", CHAT, {"json": {"messages": USER}, "headers": {"X-Keep-Seconds": "soon"}}, 400, "invalid_value"),
]


@pytest.mark.parametrize(("method", "path", "options", "status", "code"), BAD)
async def test_whatever_is_wrong_has_openais_error_object_and_starts_nothing(
    node: StandInNode,
    queen: httpx.AsyncClient,
    method: str,
    path: str,
    options: dict[str, Any],
    status: int,
    code: str | None,
) -> None:
    response = await queen.request(method, path, **options)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert set(response.json()) == {"error"}
    assert list(response.json()["error"]) == ["message", "type", "param", "code"]
    assert response.headers["x-request-id"]
    assert node.references == []


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(queen: httpx.AsyncClient) -> None:
    def post() -> httpx.Response:
        # Not by the asynchronous client, which leaves the rest of the body behind.
        return httpx.post(f"{queen.base_url}/v1/chat/completions", content=b" " * (33 * 2**20), **OPTIONS)

    response = await trio.to_thread.run_sync(post)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


async def test_a_browser_may_ask_beforehand_and_look(queen: httpx.AsyncClient, settings: config.Settings) -> None:
    headers = {
        "Origin": str(queen.base_url).rstrip("/"),
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang,x-stainless-retry-count",
        "Authorization": "",
    }
    response = await queen.options(CHAT, headers=headers)
    assert response.status_code == 204
    assert "x-stainless-retry-count" in response.headers["Access-Control-Allow-Headers"]
    assert (await queen.head("/v1/models")).status_code == 200
    answer = await queen.post(CHAT, json={"messages": USER}, headers={"Origin": headers["Origin"]})
    assert answer.headers["Access-Control-Allow-Origin"] == headers["Origin"]


async def test_fields_that_nobody_knows_are_told_once_and_never_what_is_in_them(
    queen: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for _ in range(2):
        body = {"messages": USER, "num_beams": "hunter2", "evil\x1b": 1, "store": True}
        assert (await queen.post(CHAT, json=body)).status_code == 200
    told = [entry.getMessage() for entry in caplog.records if "without a meaning" in entry.getMessage()]
    assert told == ["/v1/chat/completions: fields without a meaning here are ignored: num_beams"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_leaves_one_line_with_its_tokens(
    queen: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    caplog.set_level("INFO")
    await queen.post(CHAT, json={"messages": USER, "stream": stream})
    (line,) = lines_of(caplog)
    assert 'route="POST /v1/chat/completions" status=200 model=builtin:bee-stories node=local worker=w' in line
    assert "prompt_tokens=7 cached_tokens=2 tokens=3" in line
    assert line.endswith("end=stop")


async def test_a_stream_that_is_refused_leaves_one_line_with_its_status(
    node: StandInNode, queen: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    node.misplaced = AllSlotsBusyError("all slots are busy")
    await queen.post(CHAT, json={"messages": USER, "stream": True})
    (line,) = lines_of(caplog)
    assert "status=429" in line
    assert line.endswith("end=ALL_SLOTS_BUSY")


async def test_a_client_that_leaves_before_the_head_of_its_stream_does_not_run_for_ever(
    queen: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")

    async def without_end(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(ASGIHTTPConnection, "_send_response", without_end)  # the head finds no room on its way
    with trio.move_on_after(0.3):
        await queen.post("/v2/tasks", json={"prompt": "x", "relay": True}, headers={"Accept": "text/event-stream"})
    with trio.fail_after(10):
        while not (lines := lines_of(caplog)):  # noqa: ASYNC110 (it is written a moment later)
            await trio.sleep(0.01)
    assert [line.rpartition("end=")[2] for line in lines] == ["CANCELLED"]


@pytest.mark.parametrize("path", [CHAT, "/v2/tasks"])
async def test_a_client_that_leaves_before_its_request_has_come_does_not_run_for_ever(
    queen: httpx.AsyncClient, path: str
) -> None:
    host, port = queen.base_url.host, queen.base_url.port
    assert port is not None
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n\r\n"

    async def the_request(*, is_ended: bool) -> dict[str, Any]:
        """Return the one request, once it runs, or has ended."""
        while True:
            listed = (await queen.get("/v2/requests")).json()["requests"]
            if listed and (listed[0]["end"] is not None) == is_ended:
                (found,) = listed
                return cast("dict[str, Any]", found)
            await trio.sleep(0.01)

    with trio.fail_after(10):
        async with await trio.open_tcp_stream(host, port) as client:
            await client.send_all(head.encode() + b'{"mess')
            await the_request(is_ended=False)
        found = await the_request(is_ended=True)
    assert (found["route"], found["end"], found["status"]) == (f"POST {path}", "CANCELLED", 499)
