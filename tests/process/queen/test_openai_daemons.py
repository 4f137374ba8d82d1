"""OpenAI's interface of a queen with a hive and a stand-in for a worker, each a process of its own."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.kit.standins import standin
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    import httpx

    from tests.conftest import Daemons

CHAT = "/v1/chat/completions"
USER: dict[str, Any] = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def streamed(client: httpx.Client, **body: Any) -> tuple[list[dict[str, Any]], bool]:
    """Return the chunks of a stream, and whether it ended cleanly."""
    lines = client.post(CHAT, json={"messages": [USER], "stream": True, **body}).text.splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(one) for one in data if one != "[DONE]"], data[-1] == "[DONE]"


def text_of(chunks: list[dict[str, Any]]) -> str:
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_a_conversation_with_tools(daemons: Daemons) -> None:
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("well", "--after", "100"))
    with queen.client() as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["builtin:bee-stories"]
        chunks, is_clean = streamed(client, model="bee-stories", max_tokens=5)
        assert (text_of(chunks), is_clean) == ("Once upon a time there", True)
        messages = [USER]
        for _ in range(5):
            body = {"model": "bee-stories@local", "messages": messages, "tools": [TOOL], "max_tokens": 3}
            answer = client.post(CHAT, json=body).json()["choices"][0]
            assert answer["finish_reason"] == "tool_calls"
            (call,) = answer["message"]["tool_calls"]
            assert call["function"] == {"name": "look", "arguments": "{}"}
            messages += [answer["message"], {"role": "tool", "tool_call_id": call["id"], "content": "a bee"}]
            answer = client.post(CHAT, json=body | {"messages": messages}).json()["choices"][0]
            assert (answer["finish_reason"], answer["message"]["content"]) == ("length", "Once upon a")
            messages += [answer["message"], USER]
        body = {"prompt": ["a", "b"], "n": 2, "max_tokens": 2}
        found = client.post("/v1/completions", json=body).json()
        assert [(one["index"], one["text"]) for one in found["choices"]] == [(n, "Once upon") for n in range(4)]


def test_a_worker_that_crashes_is_no_clean_end(daemons: Daemons) -> None:
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("crash", "--after", "2"))
    with queen.client() as client:
        chunks, is_clean = streamed(client)
        assert (text_of(chunks), is_clean) == ("Once upon", False)
        assert (chunks[-1]["error"]["type"], chunks[-1]["error"]["code"]) == ("server_error", "worker_failed")
        assert not any(choice["finish_reason"] for chunk in chunks[:-1] for choice in chunk["choices"])
        response = client.post(CHAT, json={"messages": [USER]})
        assert (response.status_code, response.json()["error"]["code"]) == (500, "worker_failed")


def test_a_model_that_does_not_fit_is_not_asked_for_again(daemons: Daemons) -> None:
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("refuse"))
    with queen.client() as client:
        response = client.post(CHAT, json={"messages": [USER]})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "vram_exhausted")
    assert response.headers["x-should-retry"] == "false"


def test_a_client_that_leaves_while_the_model_loads_is_gone(daemons: Daemons) -> None:
    queen = daemons.start("queen", RBEE_WORKER_COMMAND=standin("loading"), RBEE_TIMEOUTS_HEARTBEAT="0.1")
    with queen.client() as client:
        with client.stream("POST", CHAT, json={"messages": [USER], "stream": True}) as response:
            assert response.status_code == 200
            assert next(response.iter_raw()).startswith(b": heartbeat\n")

        def is_over() -> bool:
            found = client.get("/v2/requests").json()["requests"]
            return [one["end"] for one in found if one["route"] == f"POST {CHAT}"] == ["CANCELLED"]

        wait_until(is_over, "the request is over")


def test_the_limits_of_a_real_worker_are_told_or_kept(daemons: Daemons) -> None:
    queen = daemons.start("queen")
    with queen.client() as client:
        chunks, is_clean = streamed(client, max_tokens=128_000, seed=1)
        assert is_clean
        assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        for stream in (True, False):
            long = USER | {"content": "bee " * 20_000}
            response = client.post(CHAT, json={"messages": [long], "stream": stream})
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
            words = r"prompt is too long: \d+( or more)? tokens > (\d+) maximum.* maximum context length is \2 tokens"
            assert re.search(words, error["message"])
        body = {"prompt": "Once upon a time", "echo": True, "logprobs": 2, "max_tokens": 1}
        choice = client.post("/v1/completions", json=body).json()["choices"][0]
        told = choice["logprobs"]
        assert choice["text"].startswith("Once upon a time")
        assert "".join(told["tokens"]) == choice["text"]
        assert (told["token_logprobs"][0], told["top_logprobs"][0], told["text_offset"][0]) == (None, None, 0)
        assert all(value < 0 for value in told["token_logprobs"][1:])
        assert all(len(top) == 2 for top in told["top_logprobs"][1:])
        starts = [
            choice["text"].index(token, at) for token, at in zip(told["tokens"], told["text_offset"], strict=True)
        ]
        assert starts == told["text_offset"]
