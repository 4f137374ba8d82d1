"""What a worker answers, in OpenAI's form: chunk by chunk to the byte, and as one object; and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rbee import errors, narrower_errors
from rbee.queen.api.openai.chat import chat_call
from rbee.queen.api.openai.chat_answer import ChatAnswer
from rbee.queen.api.openai.chat_stream import ChatStream
from rbee.queen.api.openai.errors import failure_of
from rbee.queen.api.openai.parts import Head
from rbee.queen.api.openai.text import text_call
from rbee.queen.api.openai.text_answer import TextAnswer, TextStream
from rbee.wire.chat.answer import AnswerEvent
from rbee.wire.dialects.foreign import decode_foreign
from rbee.wire.dialects.openai_request import OpenAIChatRequest, OpenAITextRequest

GOLDEN = Path(__file__).parent / "golden"
CHATS = json.loads((GOLDEN / "chat_answers.json").read_text("utf-8"))
TEXTS = json.loads((GOLDEN / "text_answers.json").read_text("utf-8"))
CHAT_HEAD = Head("chatcmpl-1", 1700000000, "bee")
TEXT_HEAD = Head("cmpl-1", 1700000000, "bee")


def event(value: object) -> AnswerEvent:
    found: AnswerEvent = msgspec.convert(value, AnswerEvent)  # type: ignore[arg-type]
    return found


def chat(request: object) -> Any:
    return chat_call(decode_foreign(json.dumps(request).encode(), OpenAIChatRequest)[0])


def text(request: object) -> Any:
    return text_call(decode_foreign(json.dumps(request).encode(), OpenAITextRequest)[0])


def frames(chunks: list[str]) -> bytes:
    return "".join(f"data: {chunk}\n\n" for chunk in chunks).encode()


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_is_streamed(name: str) -> None:
    case = CHATS[name]
    stream = ChatStream(CHAT_HEAD, chat(case["request"]))
    assert b"".join(stream.on_event(event(value)) for value in case["events"]) == frames(case["chunks"])
    stream.check_complete()


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_is_answered_as_one_object(name: str) -> None:
    case = CHATS[name]
    answer = ChatAnswer(CHAT_HEAD, chat(case["request"]))
    for value in case["events"]:
        answer.on_event(event(value))
    assert msgspec.json.encode(answer.result()).decode() == case["answer"]


@pytest.mark.parametrize("name", TEXTS)
def test_a_completion_is_streamed(name: str) -> None:
    case = TEXTS[name]
    stream = TextStream(TEXT_HEAD, text(case["request"]))
    found = b"".join(stream.on_event(event(value), prompt) for prompt, value in case["events"])
    assert found == frames(case["chunks"])
    stream.check_complete()


@pytest.mark.parametrize("name", TEXTS)
def test_a_completion_is_answered_as_one_object(name: str) -> None:
    case = TEXTS[name]
    answer = TextAnswer(TEXT_HEAD, text(case["request"]))
    for prompt, value in case["events"]:
        answer.on_event(event(value), prompt)
    assert msgspec.json.encode(answer.result()).decode() == case["answer"]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_has_the_name_that_the_settings_say(field: Any) -> None:
    case = CHATS["reasoning"]
    stream, answer = (kind(CHAT_HEAD, chat(case["request"]), field) for kind in (ChatStream, ChatAnswer))
    chunks = b"".join(stream.on_event(event(value)) for value in case["events"])
    assert f'"delta":{{"{field}":"Hm"}}'.encode() in chunks
    for value in case["events"]:
        answer.on_event(event(value))
    message = json.loads(msgspec.json.encode(answer.result()))["choices"][0]["message"]
    assert {name: message.get(name) for name in ("reasoning_content", "reasoning")} == {
        "reasoning_content": None,
        "reasoning": None,
        field: "Hm",
    }


@pytest.mark.parametrize("name", CHATS)
def test_an_answer_that_ends_too_soon_is_none(name: str) -> None:
    case = CHATS[name]
    stream, answer = (kind(CHAT_HEAD, chat(case["request"])) for kind in (ChatStream, ChatAnswer))
    for value in case["events"][:-1]:
        stream.on_event(event(value))
        answer.on_event(event(value))
    for end in (stream.check_complete, answer.result):
        with pytest.raises(errors.WorkerFailedError):
            end()


def test_a_completion_that_ends_too_soon_is_none() -> None:
    case = TEXTS["two prompts with two choices"]
    stream, answer = (kind(TEXT_HEAD, text(case["request"])) for kind in (TextStream, TextAnswer))
    for prompt, value in case["events"][:-1]:
        stream.on_event(event(value), prompt)
        answer.on_event(event(value), prompt)
    for end in (stream.check_complete, answer.result):
        with pytest.raises(errors.WorkerFailedError):
            end()


def joined(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    """Join deltas as openai-python does: strings are concatenated, lists merged by their `index`."""
    found: dict[str, Any] = {}
    for delta in deltas:
        for name, value in delta.items():
            if isinstance(value, list):
                entries = found.setdefault(name, {})
                for entry in value:
                    entries[entry["index"]] = joined([entries.get(entry["index"], {}), entry])
            elif isinstance(value, dict):
                found[name] = joined([found.get(name, {}), value])
            elif isinstance(value, str) and name != "type":
                found[name] = found.get(name, "") + value
            else:
                found[name] = value
    return found


@pytest.mark.parametrize("name", CHATS)
def test_the_chunks_join_to_the_answer(name: str) -> None:
    case = CHATS[name]
    chunks = [json.loads(chunk) for chunk in case["chunks"]]
    for choice in json.loads(case["answer"])["choices"]:
        mine = [one for chunk in chunks for one in chunk["choices"] if one["index"] == choice["index"]]
        message = {field: value for field, value in choice["message"].items() if value}
        delta = {field: value for field, value in joined([one["delta"] for one in mine]).items() if value}
        calls = [{"index": index, **call} for index, call in enumerate(message.pop("tool_calls", []))]
        assert list(delta.pop("tool_calls", {}).values()) == calls
        assert delta == message
        assert [one["finish_reason"] for one in mine if one["finish_reason"]] == [choice["finish_reason"]]
        assert mine[-1]["finish_reason"]


ERRORS = [
    (
        errors.InvalidRequestError("m", field="conversation.format.schema", rule="r"),
        400,
        "response_format",
        "invalid_value",
    ),
    (errors.InvalidRequestError("m", field="$", rule="r"), 400, None, None),
    (
        narrower_errors.TooManyTokensError("m", field="max_tokens", rule="r", context=5),
        400,
        "max_tokens",
        "invalid_value",
    ),
    (errors.MissingApiKeyError("m"), 401, None, "invalid_api_key"),
    (errors.InvalidApiKeyError("m"), 401, None, "invalid_api_key"),
    (narrower_errors.KeyRefusedError("m", host="h"), 502, None, "server_error"),
    (errors.ModelAccessDeniedError("m"), 403, None, "model_access_denied"),
    (errors.ModelNotFoundError("m"), 404, "model", "model_not_found"),
    (errors.NodeNotFoundError("m"), 404, "model", "model_not_found"),
    (errors.RouteNotFoundError("m", field="path"), 404, None, "unknown_url"),
    (errors.MethodNotAllowedError("m", field="method"), 405, "method", "method_not_allowed"),
    (errors.PayloadTooLargeError("m", field="$"), 413, None, "request_too_large"),
    (errors.BackendUnavailableError("m"), 422, None, "backend_unavailable"),
    (errors.AllSlotsBusyError("m"), 429, None, "rate_limit_exceeded"),
    (errors.CancelledError("m"), 499, None, "cancelled"),
    (errors.OutOfMemoryError("m"), 503, None, "vram_exhausted"),
    (errors.WorkerFailedError("m"), 500, None, "worker_failed"),
    (errors.DrainingError("m"), 503, None, "shutting_down"),
    (errors.SshFailedError("m"), 502, None, "ssh_failed"),
    (errors.VersionMismatchError("m"), 500, None, "version_mismatch"),
]


@pytest.mark.parametrize(("error", "status", "param", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_has_all_four_fields(
    error: errors.RbeeError, status: int, param: str | None, code: str | None
) -> None:
    failure = failure_of(error)
    body = json.loads(msgspec.json.encode(failure.body))
    assert set(body) == {"error"}
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert (failure.status, body["error"]["type"], body["error"]["param"], body["error"]["code"]) == (
        status, kind, param, code,
    )  # fmt: skip
    assert failure.event() == b"data: " + msgspec.json.encode(failure.body) + b"\n\n"


def test_no_error_has_a_status_that_makes_clients_ask_again_in_vain() -> None:
    for kind in errors.CATALOGUE.values():
        assert failure_of(kind("m")).status not in (408, 409)
    for error in (
        errors.OutOfMemoryError("m"),
        errors.ModelLoadFailedError("m"),
        narrower_errors.UnsupportedModelError("m"),
    ):
        assert failure_of(error).headers == {"x-should-retry": "false"}
    assert failure_of(errors.WorkerFailedError("m")).headers == {}


def test_a_field_has_the_name_that_the_client_knows() -> None:
    error = errors.InvalidRequestError(
        "field conversation.format: no", field="conversation.format", rule="no", hint="h"
    )
    assert failure_of(error).body.error.message == "field response_format: no; h"
    error = errors.InvalidRequestError("field prompt: no", field="prompt", rule="no")
    assert failure_of(error, is_chat=True).body.error.message == "field messages: no"


def test_who_finds_all_slots_busy_is_told_when_to_ask_again() -> None:
    failure = failure_of(errors.AllSlotsBusyError("all slots are busy", retry_after_s=17.2))
    assert failure.headers == {"Retry-After": "17"}
    assert failure.body.error.message == "all slots are busy; try again in 17 s"
    assert failure_of(errors.AllSlotsBusyError("m")).headers == {"Retry-After": "5"}


def test_a_context_that_is_too_full_is_told_in_the_workers_words_which_agents_know() -> None:
    words = "prompt is too long: 5000 tokens > 4096 maximum"
    error = narrower_errors.PromptTooLongError(words, field="prompt", rule="r", tokens=5000, context=4096, hint="h")
    assert failure_of(error).body.error.param == "prompt"
    failure = failure_of(error, is_chat=True)
    assert (failure.status, failure.body.error.code) == (400, "context_length_exceeded")
    assert (failure.body.error.param, failure.body.error.message) == ("messages", f"{words}; h")
