"""Every way in which a request can be wrong is one clear error, which repeats nothing of it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.adapters.arguments import duration
from rbee.errors import InvalidRequestError, PayloadTooLargeError
from rbee.wire import common
from rbee.wire.common import FOREVER
from rbee.wire.decode import MAX_TEXTS, check_texts, convert, decode, keep_seconds
from rbee.wire.dialects.openai_request import OpenAIChatRequest
from rbee.wire.hive import ReadyCallback, SpawnRequest
from rbee.wire.queen import TaskRequest
from rbee.wire.worker import InferenceRequest

KINDS = [TaskRequest, SpawnRequest, ReadyCallback, InferenceRequest]
SECRET = "hunter2"
UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"
DEEP = 100_000


def refused(body: bytes, kind: type[Any] = TaskRequest) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decode(body, kind)
    error = caught.value
    assert SECRET not in error.message + str(error.details)
    assert set(error.details) == {"field", "rule"}
    assert error.__cause__ is None
    assert error.__suppress_context__, "the traceback would show the payload"
    return error


def task(**fields: object) -> bytes:
    return json.dumps({"prompt": SECRET} | fields).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"hunter2",
        b'{"prompt":"hunter2"',
        b'{"prompt":"hunter2"} hunter2',
        b'{"prompt":hunter2}',
        b'{"prompt":NaN}',
        b'{"prompt":"a","temperature":NaN}',
        b'{"prompt":"a","temperature":Infinity}',
        b"{'prompt':'hunter2'}",
        b'{"prompt":"hunter2\xff"}',
        b'{"prompt":"hunter2\\ud800"}',
        b'{"prompt":"hunter2\\udc00\\ud800"}',
        b'\xef\xbb\xbf{"prompt":"hunter2"}',
        '{"prompt":"hunter2"}'.encode("utf-16"),
        b'{"prompt":"a\x00b"}',
        b'{"prompt":"a\nb"}',
        b"\xff\xfe",
    ],
)
def test_what_is_not_json_in_utf8_is_refused(body: bytes) -> None:
    error = refused(body)
    assert error.details["field"] == "$"
    assert error.details["rule"] == "a JSON object in UTF-8"


@pytest.mark.parametrize(
    "body", [b"null", b"true", b"1", b"[]", b'"hunter2"', b"[" * DEEP, b'[{"prompt":"hunter2"}]', b"1e999", b"-0.0"]
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert refused(body).details["field"] == "$"


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"prompt": None}, "prompt", "expected str, got null"),
        ({"prompt": 7}, "prompt", "expected str, got int"),
        ({"prompt": ["hunter2"]}, "prompt", "expected str, got array"),
        ({"prompt": ""}, "prompt", "length >= 1"),
        ({"prompt": "x" * 1_000_001}, "prompt", "length <= 1000000"),
        ({"prompt": "hunter2\0"}, "prompt", "without NUL"),
        ({"max_tokens": 0}, "max_tokens", ">= 1"),
        ({"max_tokens": -1}, "max_tokens", ">= 1"),
        ({"max_tokens": 2**31}, "max_tokens", "<= 2147483647"),
        ({"max_tokens": 10**400}, "max_tokens", "<= 2147483647"),
        ({"max_tokens": 1.5}, "max_tokens", "expected int, got float"),
        ({"max_tokens": True}, "max_tokens", "expected int, got bool"),
        ({"max_tokens": "20"}, "max_tokens", "expected int, got str"),
        ({"max_tokens": None}, "max_tokens", "expected int, got null"),
        ({"temperature": -0.1}, "temperature", ">= 0"),
        ({"temperature": 2.1}, "temperature", "<= 2"),
        ({"temperature": True}, "temperature", "expected float, got bool"),
        ({"top_p": 0}, "top_p", "> 0"),
        ({"top_k": -1}, "top_k", ">= 0"),
        ({"seed": 2**32 - 1}, "seed", "<= 4294967294"),
        ({"stop": "hunter2"}, "stop", "expected array | null, got str"),
        ({"stop": ["hunter2", 1]}, "stop[1]", "expected str, got int"),
        ({"stop": [""]}, "stop[0]", "length >= 1"),
        ({"stop": ["x"] * 17}, "stop", "length <= 16"),
        ({"device": -1}, "device", ">= 0"),
        ({"device": 1.0}, "device", "expected int | null, got float"),
        ({"backend": "cuda hunter2"}, "backend", "a letter or digit, then"),
        ({"backend": "-cuda"}, "backend", "a letter or digit, then"),
        ({"node": ""}, "node", "a letter or digit, then"),
        ({"node": "n" * 64}, "node", "a letter or digit, then"),
        ({"node": "local\n"}, "node", "a letter or digit, then"),
        ({"node": "\x1b[31mhunter2"}, "node", "a letter or digit, then"),
        ({"model": "hunter2\x1b[2J"}, "model", "control characters"),
        ({"model": "hf:org/repo\n"}, "model", "control characters"),
        ({"model": "m" * 513}, "model", "length <= 512"),
        ({"request_id": "hunter2"}, "request_id", "a UUID in lower case"),
        ({"request_id": UUID.upper()}, "request_id", "a UUID in lower case"),
        ({"request_id": UUID + "\n"}, "request_id", "a UUID in lower case"),
        ({"relay": 1}, "relay", "expected bool, got int"),
        ({"promt": SECRET}, "promt", "no such field"),
        ({"prompt": {"hunter2": "hunter2"}}, "prompt", "expected str, got object"),
    ],
)
def test_a_wrong_field_is_named_with_its_rule(fields: dict[str, object], field: str, rule: str) -> None:
    error = refused(task(**fields))
    assert error.details["field"] == field
    assert rule in error.details["rule"]
    assert error.message == f"field {field}: {error.details['rule']}"


def test_a_missing_field_is_named() -> None:
    assert refused(b"{}").message == "field prompt: required"


def test_a_number_too_large_for_any_float_is_refused() -> None:
    assert refused(b'{"prompt":"a","temperature":1e999}').details["field"] == "temperature"


@pytest.mark.parametrize("name", ["hunter2 hunter2", "\x1b[31mhunter2", "hunter2" * 20, "ключ hunter2"])
def test_an_unknown_field_with_an_odd_name_is_not_repeated(name: str) -> None:
    assert refused(task(**{name: 1})).message == "field $: no such field"


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt":' * DEEP,
        b'{"prompt":"a","stop":' + b"[" * DEEP,
        b'{"prompt":"a","unknown":' + b"[" * DEEP + b"]" * DEEP + b"}",
    ],
)
def test_deep_nesting_is_refused(body: bytes) -> None:
    refused(body)


class _Inner(common.Request, kw_only=True):
    count: int


class _Outer(common.Request, kw_only=True):
    inner: _Inner
    table: dict[str, int] | None = None
    any: object = None


def test_a_field_within_a_field_has_a_path() -> None:
    assert refused(b'{"inner":{}}', _Outer).details["field"] == "inner.count"
    assert refused(b'{"inner":{"count":"hunter2"}}', _Outer).details["field"] == "inner.count"
    assert "hunter2" not in refused(b'{"inner":{"count":1,"hunter2 x":2}}', _Outer).message


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (
            {"messages": [{"role": "nobody"}]},
            "messages[0].role",
            "one of assistant, developer, function, system, tool, user",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}], "tool_choice": "any"},
            "tool_choice",
            "one of auto, none, required",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "xml"}},
            "response_format.type",
            "one of json_object, json_schema, text",
        ),
    ],
)
def test_the_values_that_a_field_may_have_are_told(body: object, field: str, rule: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode(json.dumps(body).encode(), OpenAIChatRequest)
    assert (caught.value.details["field"], caught.value.details["rule"]) == (field, rule)


def test_the_key_of_a_mapping_is_not_repeated() -> None:
    refused(b'{"inner":{"count":1},"table":{"hunter2":"x"}}', _Outer)


def test_nesting_where_anything_may_stand_is_refused() -> None:
    error = refused(b'{"inner":{"count":1},"any":' + b"[" * DEEP + b"]" * DEEP + b"}", _Outer)
    assert error.message == "the request body is nested too deeply"


def test_a_good_request_is_decoded() -> None:
    got = decode(task(max_tokens=5, stop=["x"], request_id=UUID, temperature=1, node="n1.x_y-z"), TaskRequest)
    assert (got.max_tokens, got.stop, got.request_id, got.temperature) == (5, ["x"], UUID, 1.0)


@pytest.mark.parametrize("text", ["line\nline\n", "\u2028", "\x1b", "🐝" * 1000, "x" * 1_000_000])
def test_a_prompt_may_hold_all_but_nul(text: str) -> None:
    assert decode(task(prompt=text), TaskRequest).prompt == text


def test_values_that_are_no_bytes_are_checked_the_same_way() -> None:
    assert convert({"count": "3"}, _Inner) == _Inner(count=3)
    with pytest.raises(InvalidRequestError, match="field count: expected int, got str"):
        convert({"count": "3"}, _Inner, strict=True)


@pytest.mark.parametrize("kind", KINDS)
@given(body=st.binary(max_size=200))
def test_random_bytes_are_refused_or_decoded(kind: type[Any], body: bytes) -> None:
    with suppress(InvalidRequestError):
        decode(body, kind)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_random_values_are_refused_or_decoded(kind: type[Any], data: st.DataObject) -> None:
    names = st.sampled_from([*(field.name for field in msgspec.structs.fields(kind)), "unknown"])
    body = data.draw(st.dictionaries(names, VALUES, max_size=5) | VALUES)
    with suppress(InvalidRequestError):
        decode(json.dumps(body).encode(), kind)


def test_the_longest_time_of_the_command_line_is_one_that_daemons_take() -> None:
    assert keep_seconds(str(duration("forever"))) == FOREVER


def test_a_body_of_more_values_than_any_conversation_has_is_refused() -> None:
    check_texts(b'"' * 999_999)
    check_texts(msgspec.json.encode({"content": '"quoted", ' * 1_000_000}))
    check_texts(msgspec.json.encode(["a" * 20] * (MAX_TEXTS - 1)))
    with pytest.raises(PayloadTooLargeError, match=r"too many values: at most 200000 names and texts$"):
        check_texts(msgspec.json.encode(["a" * 20] * (MAX_TEXTS + 1)))
