"""Requests in OpenAI's form: what a worker is asked for, what is accepted without a use, and what is refused."""

from __future__ import annotations

import contextlib
import json
import re
import time
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from rbee.errors import InvalidRequestError
from rbee.queen.api.openai.chat import chat_call
from rbee.queen.api.openai.errors import failure_of
from rbee.queen.api.openai.sampling import context_of
from rbee.queen.api.openai.text import text_call
from rbee.wire.dialects.foreign import decode_foreign
from rbee.wire.dialects.openai_request import OpenAIChatRequest, OpenAITextRequest
from rbee.wire.worker import GenerationSpec

GOLDEN = Path(__file__).parent / "golden"
CHATS = json.loads((GOLDEN / "chat_requests.json").read_text("utf-8"))
TEXTS = json.loads((GOLDEN / "text_requests.json").read_text("utf-8"))
USER = {"role": "user", "content": "hunter2"}
CHAT = {"messages": [USER]}
TEXT = {"prompt": "hunter2"}
TOOL = {"type": "function", "function": {"name": "hunter2"}}
DEEP: Any = "hunter2"
for _ in range(300):
    DEEP = {"hunter2": DEEP}


def builtins(spec: GenerationSpec) -> Any:
    return json.loads(msgspec.json.encode(spec))


def chat(body: object) -> Any:
    return chat_call(decode_foreign(json.dumps(body).encode(), OpenAIChatRequest)[0])


def text(body: object) -> Any:
    return text_call(decode_foreign(json.dumps(body).encode(), OpenAITextRequest)[0])


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_becomes_a_conversation(name: str) -> None:
    case = CHATS[name]
    call = chat(case["request"])
    assert builtins(call.spec) == case["spec"]
    assert {field: value for field, value in call._asdict().items() if field != "spec"} == case["call"]
    assert msgspec.json.decode(msgspec.json.encode(call.spec), type=GenerationSpec) == call.spec, "a worker takes it"


@pytest.mark.parametrize("name", TEXTS)
def test_a_completion_becomes_a_generation_for_each_prompt(name: str) -> None:
    case = TEXTS[name]
    call = text(case["request"])
    assert [builtins(spec) for spec in call.specs] == case["specs"]
    assert {field: value for field, value in call._asdict().items() if field != "specs"} == case["call"]
    for spec in call.specs:
        assert msgspec.json.decode(msgspec.json.encode(spec), type=GenerationSpec) == spec, "a worker takes it"


ATTRIBUTION = "x-anthropic-billing-header: cc_version=2.1.0; cch=3f2a1;"


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (f"{ATTRIBUTION}\nhunter2", ["hunter2"]),
        (f"{ATTRIBUTION}\n\nhunter2\n{ATTRIBUTION}", [f"hunter2\n{ATTRIBUTION}"]),
        ([{"type": "text", "text": ATTRIBUTION}, {"type": "text", "text": "hunter2"}], ["hunter2"]),
        (ATTRIBUTION, None),
        (f"hunter2 {ATTRIBUTION}", [f"hunter2 {ATTRIBUTION}"]),
    ],
)
def test_the_line_that_is_another_one_in_each_request_is_not_read(content: object, left: list[str] | None) -> None:
    messages = chat({"messages": [{"role": "system", "content": content}, USER]}).spec.conversation.messages
    found = [[part.text for part in message.content] for message in messages]
    assert found == ([] if left is None else [left]) + [["hunter2"]]


def test_the_same_line_of_a_user_is_read() -> None:
    messages = chat({"messages": [{"role": "user", "content": ATTRIBUTION}]}).spec.conversation.messages
    assert messages[0].text() == ATTRIBUTION


def test_fields_that_nobody_knows_are_named_and_those_that_somebody_knows_are_not() -> None:
    body = CHAT | {"hunter2": [1], "store": True, "num_beams": 5}
    _, unknown = decode_foreign(json.dumps(body).encode(), OpenAIChatRequest)
    assert unknown == ["hunter2", "num_beams"]


def messages(*found: object) -> dict[str, Any]:
    return {"messages": list(found)}


BAD_CHATS: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({}, "messages", "missing_required_parameter"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": None}, "messages", "invalid_value"),
    ({"messages": "hunter2"}, "messages", "invalid_value"),
    (messages(*[USER] * 10_001), "messages", "invalid_value"),
    (messages("hunter2"), "messages[0]", "invalid_value"),
    (messages({"content": "hunter2"}), "messages[0].role", "missing_required_parameter"),
    (messages({"role": "hunter2", "content": "x"}), "messages[0].role", "invalid_value"),
    (messages({"role": 1, "content": "x"}), "messages[0].role", "invalid_value"),
    (messages({"role": "user"}), "messages[0].content", "missing_required_parameter"),
    (messages({"role": "system", "content": None}), "messages[0].content", "missing_required_parameter"),
    (messages({"role": "user", "content": 1}), "messages[0].content", "invalid_value"),
    (messages({"role": "user", "content": [{"text": "x"}]}), "messages[0].content[0].type", None),
    (messages({"role": "user", "content": [{"type": "text"}]}), "messages[0].content[0].text", None),
    (messages({"role": "user", "content": [{"type": "hunter2"}]}), "messages[0].content[0].type", "invalid_value"),
    (
        messages(
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}
        ),
        "messages[0].content[0].type",
        "unsupported_value",
    ),
    (
        messages({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}),
        "messages[0].content[0].type",
        "unsupported_value",
    ),
    (messages({"role": "user", "content": [{"type": "file"}]}), "messages[0].content[0].type", "unsupported_value"),
    (messages({"role": "tool", "content": "x"}), "messages[0].tool_call_id", "invalid_value"),
    (messages(USER, {"role": "tool", "tool_call_id": "x", "content": "x"}), "messages[1].tool_call_id", None),
    (messages({"role": "function", "name": "x", "content": "x"}), "messages[0].name", None),
    (messages({"role": "assistant", "tool_calls": [{"id": "x"}]}), "messages[0].tool_calls[0].function", None),
    (
        messages({"role": "assistant", "tool_calls": [{"id": "x", "type": "custom"}]}),
        "messages[0].tool_calls[0].type",
        "unsupported_value",
    ),
    (messages({"role": "assistant", "tool_calls": "hunter2"}), "messages[0].tool_calls", "invalid_value"),
    *((CHAT | {"model": value}, "model", "invalid_value") for value in (1, "h" * 513, ["hunter2"])),
    *((CHAT | {"temperature": value}, "temperature", None) for value in (-0.1, 2.1, "1", True, [1])),
    *((CHAT | {"top_p": value}, "top_p", None) for value in (-0.1, 1.1, "1")),
    *((CHAT | {"n": value}, "n", None) for value in (0, -1, 129, 1.5, "1", True)),
    *((CHAT | {"max_tokens": value}, "max_tokens", None) for value in (0, -2, 2**31, 10**30, 1.5, "1")),
    *((CHAT | {"max_completion_tokens": value}, "max_completion_tokens", None) for value in (0, 2**31, "1")),
    *((CHAT | {"stop": value}, "stop", None) for value in (1, ["x"] * 17, "h" * 257, {"hunter2": 1})),
    (CHAT | {"stop": [1]}, "stop[0]", None),
    *((CHAT | {"seed": value}, "seed", None) for value in (2**63, -(2**63) - 1, 1.5, "1")),
    *((CHAT | {"frequency_penalty": value}, "frequency_penalty", None) for value in (-2.1, 2.1, "1")),
    *((CHAT | {"presence_penalty": value}, "presence_penalty", None) for value in (-2.1, 2.1, "1")),
    *((CHAT | {"logit_bias": value}, "logit_bias", None) for value in ({"hunter2": 1}, {"-1": 1}, {"9" * 20: 1}, [])),
    (CHAT | {"logit_bias": {str(token): 1 for token in range(4097)}}, "logit_bias", "invalid_value"),
    *((CHAT | {"logit_bias": value}, "logit_bias[...]", None) for value in ({"1": 101}, {"1": "x"})),
    *((CHAT | {"logprobs": value}, "logprobs", None) for value in (1, "true")),
    *((CHAT | {"logprobs": True, "top_logprobs": value}, "top_logprobs", None) for value in (-1, 21, "1")),
    (CHAT | {"top_logprobs": 1}, "top_logprobs", "invalid_value"),
    *((CHAT | {"top_k": value}, "top_k", None) for value in (-2, 1_000_001, "1")),
    *((CHAT | {"min_p": value}, "min_p", None) for value in (-0.1, 1.1)),
    *((CHAT | {"repeat_penalty": value}, "repeat_penalty", None) for value in (0, 11)),
    *((CHAT | {"stream": value}, "stream", None) for value in (1, "true")),
    (CHAT | {"stream_options": True}, "stream_options", None),
    (CHAT | {"stream_options": {"include_usage": "hunter2"}}, "stream_options.include_usage", None),
    (CHAT | {"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
    (CHAT | {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "unsupported_value"),
    (CHAT | {"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", None),
    (CHAT | {"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name", None),
    (
        CHAT | {"tools": [{"type": "function", "function": {"name": "x", "parameters": DEEP}}]},
        "tools[0].function.parameters",
        None,
    ),
    (CHAT | {"tools": [{"type": "function", "function": {"name": "x", "parameters": []}}]}, None, None),
    (CHAT | {"tools": [TOOL] * 1025}, "tools", None),
    (CHAT | {"tool_choice": "required"}, "tool_choice", None),
    (CHAT | {"tools": [TOOL], "tool_choice": "hunter3"}, "tool_choice", None),
    (CHAT | {"tools": [TOOL], "tool_choice": {"type": "custom"}}, "tool_choice.type", "unsupported_value"),
    (CHAT | {"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function", None),
    (CHAT | {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", None),
    (CHAT | {"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools", None),
    (CHAT | {"parallel_tool_calls": "hunter2"}, "parallel_tool_calls", None),
    (CHAT | {"functions": [{"name": "x"}], "function_call": {"name": "y"}}, "function_call", None),
    (CHAT | {"response_format": {"type": "hunter2"}}, "response_format.type", None),
    (CHAT | {"response_format": "json_object"}, "response_format", None),
    (CHAT | {"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
    (CHAT | {"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name", None),
    (
        CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": DEEP}}},
        "response_format.json_schema.schema",
        None,
    ),
    (CHAT | {"response_format": {"type": "json_object"}, "guided_regex": "x"}, "guided_regex", None),
    (CHAT | {"reasoning_effort": "hunter2"}, "reasoning_effort", None),
    (CHAT | {"reasoning": {"effort": "hunter2"}}, "reasoning.effort", None),
    (CHAT | {"thinking": {"type": "hunter2"}}, "thinking.type", None),
    (CHAT | {"chat_template_kwargs": "hunter2"}, "chat_template_kwargs", None),
    (CHAT | {"chat_template_kwargs": DEEP}, "chat_template_kwargs", None),
    (CHAT | {"continue_final_message": True}, "continue_final_message", None),
    (CHAT | {"modalities": ["text", "audio"]}, "modalities", "unsupported_value"),
    (CHAT | {"metadata": "hunter2"}, "metadata", None),
    (CHAT | {"user": 1}, "user", None),
    (CHAT | {"store": "hunter2"}, "store", None),
]


@pytest.mark.parametrize(("body", "param", "code"), BAD_CHATS)
def test_what_is_wrong_with_a_chat_is_named_and_never_repeated(
    body: dict[str, Any], param: str | None, code: str | None
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        chat(body)
    failure = failure_of(caught.value)
    assert failure.status == 400
    assert failure.body.error.type == "invalid_request_error"
    assert param in (None, failure.body.error.param)
    assert code in (None, failure.body.error.code)
    assert "hunter2" not in failure.body.error.message


BAD_TEXTS: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt"),
    *(
        ({"prompt": value}, "prompt")
        for value in (None, 1, "", [], [-1], [2**31], [1, "x"], "x\0", "x" * 1_000_001, ["x"] * 257, {})
    ),
    *(({"prompt": value}, "prompt[1]") for value in (["x", 1], ["x", ""], [[1], []], [[1], [-1]], [[1], "x"])),
    ({"prompt": [True]}, "prompt[0]"),
    ({"prompt": [["x"]]}, "prompt[0][0]"),
    (TEXT | {"best_of": 2}, "best_of"),
    (TEXT | {"n": 2, "best_of": 1}, "best_of"),
    (TEXT | {"best_of": 21}, "best_of"),
    ({"prompt": ["x"] * 3, "n": 128}, "n"),
    ({"prompt": [1], "suffix": "x"}, "suffix"),
    (TEXT | {"suffix": 1}, "suffix"),
    (TEXT | {"echo": 1}, "echo"),
    *((TEXT | {"logprobs": value}, "logprobs") for value in (-1, 6, True, "1")),
    ({"prompt": ["x" * 200_000] * 2, "echo": True, "logprobs": 0}, "logprobs"),
    ({"prompt": [[1] * 20_000], "echo": True, "logprobs": 1, "n": 14}, "logprobs"),
    *((TEXT | {"max_tokens": value}, "max_tokens") for value in (0, -2, "1")),
]


@pytest.mark.parametrize(("body", "param"), BAD_TEXTS)
def test_what_is_wrong_with_a_completion_is_named_and_never_repeated(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        text(body)
    failure = failure_of(caught.value)
    assert (failure.status, failure.body.error.param) == (400, param)
    assert "hunter2" not in failure.body.error.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"[]",
        b'"hunter2"',
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"messages":[{"role":"user","content":"x"}],"temperature":1e999}',
        b'{"messages":[{"role":"user","content":"x"}],"hunter2":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"messages":[{"role":"user","content":"x"}],"metadata":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    ],
)
def test_what_is_no_request_at_all_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode_foreign(body, OpenAIChatRequest)
    assert failure_of(caught.value).status == 400


def test_prompts_may_be_repeated_with_probabilities_where_nothing_collects_them() -> None:
    long = {"prompt": ["x" * 200_000] * 2, "echo": True, "logprobs": 0}
    for body in (long | {"stream": True}, long | {"logprobs": None}, long | {"prompt": ["x" * 300_000]}):
        assert text(body).specs


@pytest.mark.parametrize("wish", ["guided_choice", "structured_outputs"])
def test_a_choice_is_the_text_itself_whatever_is_in_it(wish: str) -> None:
    texts = ["a.b", "x|y", "two\nlines", "back\\slash", "back\\\nslash", "\t #-~&", "a/b"]
    body = CHAT | {wish: texts if wish == "guided_choice" else {"choice": texts}}
    pattern = builtins(chat(body).spec)["conversation"]["format"]["pattern"]
    assert "\n" not in pattern, "a worker's grammar has each rule on a line of its own"
    assert [text for text in texts if not re.fullmatch(pattern, text)] == []
    assert re.fullmatch(pattern, "axb") is None


def test_minus_one_is_no_limit_on_tokens() -> None:
    for body in (CHAT | {"max_tokens": -1}, CHAT | {"max_tokens": -1, "max_completion_tokens": -1}):
        assert chat(body).spec.max_tokens is msgspec.UNSET
    assert chat(CHAT | {"max_tokens": -1, "max_completion_tokens": 7}).spec.max_tokens == 7
    assert [spec.max_tokens for spec in text(TEXT | {"max_tokens": -1}).specs] == [msgspec.UNSET]
    assert [spec.max_tokens for spec in text(TEXT).specs] == [16]


def test_thousands_of_calls_without_ids_hold_up_nobody() -> None:
    calls = [{"function": {"name": f"f{number % 2}"}} for number in range(20_000)]
    results = [{"role": "function", "name": "f1", "content": "x"}] * 5000 + [{"role": "tool", "content": "y"}] * 4000
    body = messages(USER, {"role": "assistant", "tool_calls": calls}, *results)
    started = time.process_time()
    found = builtins(chat(body).spec)["conversation"]["messages"]
    assert time.process_time() - started < 3
    assert len({call["id"] for call in found[1]["tool_calls"]}) == 20_000
    assert [found[at]["tool_call_id"] for at in (2, 3, 5002, 5003)] == ["call_1", "call_3", "call_0", "call_2"]


def test_a_call_that_has_the_id_of_an_earlier_one_is_the_one_that_is_answered() -> None:
    def called(name: str) -> dict[str, Any]:
        return {"role": "assistant", "tool_calls": [{"id": "call_0", "function": {"name": name}}]}

    answered = {"role": "tool", "content": "x"}
    for first in ([called("f"), answered], [called("f")]):
        call = chat(messages(USER, *first, called("g"), answered))
        assert builtins(call.spec)["conversation"]["messages"][-1]["name"] == "g"
        with pytest.raises(InvalidRequestError, match="answers no call"):
            chat(messages(USER, *first, called("g"), answered, answered))


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": "low"}}


def test_a_model_that_sees_is_given_pictures() -> None:
    body = messages({"role": "user", "content": [{"type": "text", "text": "x"}, PICTURE]})
    call = chat_call(decode_foreign(json.dumps(body).encode(), OpenAIChatRequest)[0], sees=True)
    parts = builtins(call.spec)["conversation"]["messages"][0]["content"]
    assert parts == [{"type": "text", "text": "x"}, {"type": "image", "media_type": "image/png", "data": "aGk="}]


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1/x.png", "file:///etc/passwd", "data:text/plain;base64,aGk=", "data:image/png;base64,a"]
)
def test_pictures_that_are_not_in_the_request_are_not_fetched(url: str) -> None:
    body = messages({"role": "user", "content": [{"type": "image_url", "image_url": url}]})
    with pytest.raises(InvalidRequestError) as caught:
        chat_call(decode_foreign(json.dumps(body).encode(), OpenAIChatRequest)[0], sees=True)
    assert failure_of(caught.value).body.error.param == "messages[0].content[0].image_url.url"


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(
        ["", "none", "auto", "required", "text", "x\0", "json_object", "function", "data:image/png;base64,", "high"]
    ),
    st.text(max_size=5),
)
JSON = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "function", "name", "text", "schema", "role", "content", "id"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])},
        optional={
            "content": st.text(max_size=5)
            | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=5)}))
            | JSON,
            "tool_call_id": st.sampled_from(["a", "b"]),
            "name": st.just("f"),
            "tool_calls": st.lists(
                st.fixed_dictionaries(
                    {"id": st.sampled_from(["a", "b"]), "function": st.just({"name": "f", "arguments": "{}"})}
                ),
                max_size=2,
            )
            | JSON,
            "reasoning_content": st.text(max_size=5),
        },
    ),
    min_size=1,
    max_size=4,
)


def some_of(kind: type[msgspec.Struct], *but: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return requests that have some of the fields, with anything in them."""
    names = [name for name in kind.__struct_encode_fields__ if name not in but]
    return st.dictionaries(st.sampled_from(names), JSON, max_size=4)


def encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode("utf-8", "surrogatepass")


def is_taken(specs: list[GenerationSpec]) -> None:
    for spec in specs:
        assert msgspec.json.decode(msgspec.json.encode(spec), type=GenerationSpec) == spec


@hypothesis.given(MESSAGES, some_of(OpenAIChatRequest, "messages"))
def test_whatever_a_chat_holds_a_worker_takes_it_or_it_is_refused(messages: Any, fields: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidRequestError):
        is_taken([chat_call(decode_foreign(encoded(fields | {"messages": messages}), OpenAIChatRequest)[0]).spec])


@hypothesis.given(
    JSON
    | st.text(max_size=5)
    | st.lists(st.text(max_size=3))
    | st.lists(st.integers())
    | st.lists(st.lists(st.integers(0))),
    some_of(OpenAITextRequest, "prompt"),
)
def test_whatever_a_completion_holds_a_worker_takes_it_or_it_is_refused(prompt: Any, fields: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidRequestError):
        is_taken(text_call(decode_foreign(encoded(fields | {"prompt": prompt}), OpenAITextRequest)[0]).specs)


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({}, None),
        ({"num_ctx": 8192}, 8192),
        ({"num_ctx": None, "options": {"num_ctx": 4096, "seed": 7}}, 4096),
        ({"num_ctx": 8192, "options": {"num_ctx": 4096}}, 8192),
        ({"options": {}}, None),
        ({"num_ctx": 0}, None),
        ({"num_ctx": 5}, 16),
        ({"num_ctx": 10240.3}, 10241),
    ],
)
def test_a_request_says_what_it_may_come_to_as_clients_of_ollama_do(more: dict[str, Any], tokens: int | None) -> None:
    request, _ = decode_foreign(json.dumps(CHAT | more).encode(), OpenAIChatRequest)
    assert context_of(request) == tokens


@pytest.mark.parametrize("more", [{"num_ctx": -1}, {"num_ctx": "8k"}, {"options": {"num_ctx": 2**24 + 1}}])
def test_an_absurd_wish_for_room_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="num_ctx"):
        decode_foreign(json.dumps(CHAT | more).encode(), OpenAIChatRequest)
