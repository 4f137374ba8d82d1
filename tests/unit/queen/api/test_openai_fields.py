"""Each field of OpenAI's requests, with what does not belong there: it is refused by its name, or means its default."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from rbee.errors import InvalidRequestError
from rbee.queen.api.openai.chat import chat_call
from rbee.queen.api.openai.errors import failure_of
from rbee.queen.api.openai.text import text_call
from rbee.wire.dialects.foreign import decode_foreign
from rbee.wire.dialects.openai_request import OpenAIChatRequest, OpenAITextRequest
from rbee.wire.worker import GenerationSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]

FUNCTION: Final[dict[str, Any]] = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
SAMPLING: Final[dict[str, Any]] = {
    "model": "bee",
    "temperature": 0.5,
    "top_p": 0.5,
    "n": 1,
    "stop": ["x"],
    "seed": 1,
    "max_tokens": 5,
    "frequency_penalty": 1,
    "presence_penalty": 1,
    "logit_bias": {"5": 1},
    "stream": False,
    "stream_options": {"include_usage": True, "include_obfuscation": False, "continuous_usage_stats": False},
    "user": "u",
    "top_k": 5,
    "min_p": 0.1,
    "repeat_penalty": 1.1,
    "repetition_penalty": 1.1,
    "cache": False,
    "cache_prompt": True,
    "num_ctx": 8192,
    "options": {"num_ctx": 8192},
}
CHAT: Final[dict[str, Any]] = SAMPLING | {
    "messages": [
        {"role": "system", "content": "s", "name": "n"},
        {"role": "user", "content": [{"type": "text", "text": "t"}]},
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "reasoning_content": "r",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "c"},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}, "reasoning": "r"},
    ],
    "max_completion_tokens": 5,
    "logprobs": True,
    "top_logprobs": 2,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True}},
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": True,
    "functions": [FUNCTION],
    "function_call": "auto",
    "reasoning_effort": "low",
    "modalities": ["text"],
    "audio": {"voice": "v"},
    "metadata": {"a": "b"},
    "prediction": {"type": "content"},
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "safety_identifier": "i",
    "service_tier": "auto",
    "store": False,
    "verbosity": "low",
    "web_search_options": {},
    "reasoning": {"effort": "low", "enabled": True, "exclude": False},
    "thinking": {"type": "enabled"},
    "include_reasoning": True,
    "chat_template_kwargs": {"a": 1},
    "add_generation_prompt": True,
    "continue_final_message": False,
    "grammar": "",
    "json_schema": None,
    "guided_json": None,
    "guided_regex": "",
    "guided_choice": [],
    "guided_grammar": "",
    "structured_outputs": {"json": None, "regex": "", "choice": [], "grammar": ""},
}
TEXT: Final[dict[str, Any]] = SAMPLING | {
    "prompt": ["a", "b"],
    "suffix": "s",
    "echo": True,
    "best_of": 1,
    "logprobs": 1,
}
ODD: Final[list[Any]] = [
    None, True, 0, -1, 1.5, 2**31, -(2**63), 10**30, 1e300, float("nan"), float("inf"), "", "hunter2", "\0", "\ud800",
    [], [None], ["hunter2"], [[]], {}, {"hunter2": 1}, "h" * 100_000, [0] * 5000,
]  # fmt: skip
DEEP: Final = 5000


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield where each value is, the outer ones first."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from paths(inner, (*path, key))


def replaced(value: Any, path: Path, new: Any) -> Any:
    """Return a copy with another value at a place; `...` leaves it out."""
    if not path:
        return new
    found = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and new is ...:
        del found[path[0]]
    else:
        found[path[0]] = replaced(found[path[0]], path[1:], new)
    return found


def asked(body: bytes, kind: Any) -> list[GenerationSpec]:
    if kind is OpenAIChatRequest:
        return [chat_call(decode_foreign(body, OpenAIChatRequest)[0]).spec]
    return text_call(decode_foreign(body, OpenAITextRequest)[0]).specs


def outcome(body: bytes, kind: Any) -> InvalidRequestError | None:
    """Return the refusal, whose words hold nothing of the request; else a worker takes what is asked of it."""
    try:
        specs = asked(body, kind)
    except InvalidRequestError as exc:
        failure = failure_of(exc)
        assert failure.status == 400
        assert "hunter2" not in failure.body.error.message
        assert len(failure.body.error.message) < 1000
        return exc
    for spec in specs:
        assert msgspec.json.decode(msgspec.json.encode(spec), type=GenerationSpec) == spec
    return None


def encoded(body: Any) -> bytes:
    return json.dumps(body).encode()


each_request = pytest.mark.parametrize(
    ("body", "kind"), [(CHAT, OpenAIChatRequest), (TEXT, OpenAITextRequest)], ids=["chat", "completion"]
)


@each_request
def test_every_field_is_tried(body: dict[str, Any], kind: Any) -> None:
    assert set(kind.__struct_encode_fields__) == set(body)
    assert outcome(encoded(body), kind) is None


@each_request
def test_what_does_not_belong_there_is_refused_or_of_no_account(body: dict[str, Any], kind: Any) -> None:
    for path in paths(body):
        for value in (..., *ODD):
            outcome(encoded(replaced(body, path, value)), kind)


@each_request
def test_what_is_nested_deeply_is_refused_everywhere(body: dict[str, Any], kind: Any) -> None:
    for path in paths(body):
        marked = encoded(replaced(body, path, "MARK"))
        for opens, closes in ((b"[", b"]"), (b'{"a":', b"}")):
            deep = opens * DEEP + b"1" + closes * DEEP
            assert outcome(marked.replace(b'"MARK"', deep), kind) is not None, path


@each_request
def test_null_is_the_default_of_every_field(body: dict[str, Any], kind: Any) -> None:
    least = {name: body[name] for name in ("messages", "prompt") if name in body}
    expected = asked(encoded(least), kind)
    for name in body.keys() - least.keys():
        assert asked(encoded(least | {name: None}), kind) == expected, name


@each_request
def test_a_wrong_type_is_refused_by_the_fields_name(body: dict[str, Any], kind: Any) -> None:
    for name, right in body.items():
        wrong: Any = 5 if right is None or isinstance(right, (dict, list, str, bool)) else {"a": 1}
        refusal = outcome(encoded(body | {name: wrong}), kind)
        assert refusal is not None, name
        assert str(refusal.field).partition(".")[0].partition("[")[0] == name


def test_text_is_what_is_answered_where_nothing_else_is_asked_for() -> None:
    least = {"messages": [{"role": "user", "content": "Hi"}]}
    named = least | {"response_format": {"type": "text"}, "modalities": ["text"], "tools": [], "tool_choice": "auto"}
    assert asked(encoded(named), OpenAIChatRequest) == asked(encoded(least), OpenAIChatRequest)


@pytest.mark.parametrize(
    "thoughts",
    [
        {"reasoning_content": "Hm"},
        {"reasoning": "Hm"},
        {"reasoning_content": "Hm", "reasoning": "Hm"},
        {"reasoning_content": None, "reasoning": "Hm", "reasoning_details": [{"type": "x"}]},
    ],
)
def test_thoughts_of_a_history_are_one_field_by_either_name(thoughts: dict[str, Any]) -> None:
    body = {"messages": [{"role": "assistant", "content": "A", **thoughts}, {"role": "user", "content": "Hi"}]}
    (spec,) = asked(encoded(body), OpenAIChatRequest)
    assert spec.conversation is not msgspec.UNSET
    assert spec.conversation.messages[0].reasoning == "Hm"
