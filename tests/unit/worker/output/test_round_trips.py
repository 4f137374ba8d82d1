"""What a family's models write is read as it was meant, however it is cut."""

from __future__ import annotations

import json
import string
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.wire.chat.conversation import Tool, ToolCall
from rbee.worker.output.families import ModelFamily, families
from tests.kit.joined_answers import bytewise, meant, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

FAMILIES = families()
TRICKY = [
    "</tool_call>",
    "<tool_call>",
    "<think>",
    "</think>",
    '"',
    "'",
    "\\",
    "\n",
    "\t",
    "}",
    "]",
    "{",
    "[",
    "<|",
    "```",
    "é",
    "🐝",
    "｜",
    "</parameter>x",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|call|>",
    "<|tool_call_end|>",
    "</invoke>x",
    ";",
    "=",
]

names = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
keys = st.text(string.ascii_letters + "_", min_size=1, max_size=6)
words = st.text(string.ascii_letters + " .,-é🐝", min_size=1, max_size=20).map(str.strip).filter(bool)
strings = st.lists(st.one_of(st.text(max_size=6), st.sampled_from(TRICKY)), max_size=5).map("".join)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
calls_of_tools = st.lists(
    st.tuples(names, st.dictionaries(keys, values, max_size=4)), min_size=1, max_size=3, unique_by=lambda call: call[0]
)


def schema_of(value: object) -> dict[str, object]:
    """Return a schema that says as much as is needed to tell `5` from "5"."""
    types = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return {"type": types.get(type(value), "null")}


def tools_of(calls: Iterable[tuple[str, dict[str, Any]]]) -> list[Tool]:
    return [
        Tool(
            name=name,
            parameters={"type": "object", "properties": {key: schema_of(arguments[key]) for key in arguments}},
        )
        for name, arguments in calls
    ]


def writable(family: ModelFamily, value: Any, *, is_typed: bool = True) -> Any:
    """Return a value without what the family has no way to write: it has no escapes for its own marks."""
    tools = family.syntax.tools
    if isinstance(value, dict) and value:
        return {key: writable(family, item, is_typed=False) for key, item in value.items()}
    if isinstance(value, list) and value:
        return [writable(family, item, is_typed=False) for item in value]
    if isinstance(value, str) and tools.arguments == "elements" and not is_typed:
        return f"it: {value}".strip()  # without a type it is read as what it looks like
    if tools.arguments == "elements" and not is_typed and value in ([], {}):
        return 0
    if isinstance(value, str) and tools.arguments == "gemma":
        return value.replace("<", "")
    if isinstance(value, str) and tools.parameter:
        return value.replace("<|", "").replace("</", "")
    return value


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@given(calls=calls_of_tools, reasoning=st.just("") | words, text=st.just("") | words)
@settings(max_examples=6, deadline=None)
def test_calls_are_read_as_they_were_written(
    family: ModelFamily, calls: list[tuple[str, dict[str, Any]]], reasoning: str, text: str
) -> None:
    if not family.syntax.tools.triggers:
        text = ""  # a call of these is the whole answer
    calls = [(name, {key: writable(family, value) for key, value in arguments.items()}) for name, arguments in calls]
    written = family.write(
        [ToolCall(id="", name=name, arguments=json.dumps(arguments)) for name, arguments in calls], reasoning, text
    )
    tools = tools_of(calls)
    whole = parse(family, [written], tools)
    expected: list[Any] = [("reasoning", reasoning)] if reasoning else []
    assert meant(whole) == [*expected, *([("text", text)] if text else []), *calls]
    assert parse(family, written, tools) == whole
    assert parse(family, bytewise(written), tools) == whole


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@given(reasoning=words, text=words)
@settings(max_examples=3, deadline=None)
def test_an_answer_without_calls(family: ModelFamily, reasoning: str, text: str) -> None:
    written = family.write((), reasoning, text)
    expected = [("reasoning", reasoning), ("text", text)]
    assert parse(family, written) == parse(family, [written]) == expected
    # With the thoughts begun by the prompt, the answer goes on from there.
    rest = written.removeprefix(family.syntax.reasoning.begin)
    assert parse(family, rest, forced_open=True) == parse(family, [rest], forced_open=True) == expected


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_whatever_a_model_writes_is_no_error_and_does_not_depend_on_the_cut(
    family: ModelFamily, data: st.DataObject
) -> None:
    call = family.write([ToolCall(id="", name="f", arguments='{"a": "x", "n": 5}')], "so", "well")
    tools = [Tool(name="f", parameters={"properties": {"a": {"type": "string"}}}), Tool(name="g")]
    written = "".join(
        data.draw(
            st.lists(
                st.one_of(
                    st.tuples(st.integers(0, len(call)), st.integers(0, len(call))).map(
                        lambda cut: call[min(cut) : max(cut)]
                    ),
                    st.sampled_from(
                        [*TRICKY, *family.syntax.tools.closers, *family.syntax.tools.triggers, " ", "x", "f", "g"]
                    ),
                ),
                max_size=8,
            )
        )
    )
    forced_open = data.draw(st.booleans())
    stops = data.draw(st.sampled_from([(), ("x",), ("}\n", "lx")]))
    whole = parse(family, [written], tools, forced_open=forced_open, stops=stops)
    assert parse(family, written, tools, forced_open=forced_open, stops=stops) == whole
    half = len(written) // 2
    assert parse(family, [written[:half], written[half:]], tools, forced_open=forced_open, stops=stops) == whole


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@given(
    pieces=st.lists(
        st.one_of(words, st.sampled_from(TRICKY), st.sampled_from(["f", "<", " ", "\n{", "\n["])), max_size=9
    )
)
@settings(max_examples=5, deadline=None)
def test_nothing_is_lost(family: ModelFamily, pieces: list[str]) -> None:
    """Text in which no marker of the family stands is shown as it is, to its last character."""
    syntax = family.syntax
    markers = (*syntax.reasoning.begins, *syntax.reasoning.ends, *syntax.text.begins, *syntax.text.ends)
    begin, end = syntax.text.begin, syntax.text.end
    body = "".join(piece for piece in ["x", *pieces] if not any(marker in piece or "<|" in piece for marker in markers))
    written = begin + body + end
    for tools in ([], [Tool(name="f")]):
        ((kind, shown),) = parse(family, [written], tools)
        assert kind == "text"
        # White space before a marker is no part of the answer.
        assert shown.rstrip() == body.rstrip() if end else shown == body
        assert parse(family, written, tools) == [("text", shown)]
