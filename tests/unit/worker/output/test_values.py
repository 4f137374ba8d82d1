"""Values that models write without saying what they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.worker.output.calls import literals
from rbee.worker.output.calls.coercion import allows_string, coerced, is_string_only, property_schema
from rbee.worker.output.calls.json_text import JsonText
from rbee.worker.output.source import NotACall

ROOT: dict[str, Any] = {
    "$defs": {"size": {"type": "integer"}, "round": {"$ref": "#/$defs/round"}},
    "properties": {"a": {"$ref": "#/$defs/size"}},
    "additionalProperties": {"type": "boolean"},
}


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", {"type": "string"}, "5"),
        ("5", {"type": "integer"}, 5),
        ("5.0", {"type": "integer"}, 5),
        ("5.5", {"type": "integer"}, "5.5"),
        ("5", {"type": "number"}, 5),
        (" 5\n", {"type": "number"}, 5),
        ("1e999", {"type": "number"}, "1e999"),
        ("NaN", {"type": "number"}, "NaN"),
        ("True", {"type": "boolean"}, True),
        ("FALSE", {"type": "boolean"}, False),
        ("yes", {"type": "boolean"}, "yes"),
        ("null", {"type": ["string", "null"]}, None),
        ("None", {"type": ["string", "null"]}, None),
        ("x", {"type": ["string", "null"]}, "x"),
        ("5", {"type": ["string", "null"]}, "5"),
        ("5", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, 5),
        ("5", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "5"),
        ("[1, 2]", {"type": "array"}, [1, 2]),
        ("['a', True]", {"type": "array"}, ["a", True]),
        ("{'a': None}", {"type": "object"}, {"a": None}),
        ('{"a": 1}', {"type": "string"}, '{"a": 1}'),
        ("[1, 2", {"type": "array"}, "[1, 2"),
        ("[" * 5000, {"type": "array"}, "[" * 5000),
        ("5", {"enum": ["5", "6"]}, "5"),
        ("5", {"enum": [5, 6]}, 5),
        ("7", {"enum": [5, 6]}, "7"),
        ("x", {"const": "x"}, "x"),
        ("5", {"$ref": "#/$defs/size"}, 5),
        ("5", {"$ref": "#/$defs/round"}, 5),
        ("5", {"$ref": "#/$defs/none"}, 5),
        ("5", {"allOf": [{"$ref": "#/$defs/size"}]}, 5),
        ("5", {}, 5),
        ("five", {}, "five"),
        ('"five"', {}, '"five"'),
        ("true", {}, True),
        ("5", True, 5),
        ("5", {"type": 7, "anyOf": 7, "enum": 7}, 5),
    ],
)
def test_a_text_is_what_its_schema_says(text: str, schema: object, value: object) -> None:
    assert coerced(text, schema, ROOT) == value
    assert type(coerced(text, schema, ROOT)) is type(value)


def test_which_schema_an_argument_has() -> None:
    assert property_schema(ROOT, "a", ROOT) == {"$ref": "#/$defs/size"}
    assert property_schema(ROOT, "b", ROOT) == {"type": "boolean"}
    assert property_schema({"properties": 7}, "a", {}) == {}
    assert property_schema({"$ref": "#/$defs/size"}, "a", ROOT) == {}
    assert is_string_only({"type": "string"}, {})
    assert is_string_only({"enum": ["a"]}, {})
    assert not is_string_only({"type": ["string", "null"]}, {})
    assert not is_string_only({}, {})
    assert allows_string({}, {})
    assert not allows_string({"type": "integer"}, {})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(values)
@settings(max_examples=60, deadline=None)
def test_what_python_writes_is_read(value: Any) -> None:
    assert literals.parsed(repr(value)) == value
    assert literals.parsed(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text", ["", "x", "1 2", "[1", "{1: }", "'a", '"""a"', "f(1)", "1+1", "[1,,2]", "{'a' 1}", "[" * 500 + "]" * 500]
)
def test_what_is_no_value_is_none(text: str) -> None:
    with pytest.raises(NotACall):
        literals.parsed(text)


@given(
    st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=4), values, max_size=3), st.sampled_from([None, 1])
)
@settings(max_examples=60, deadline=None)
def test_right_json_is_left_as_it_is(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    reader = JsonText()
    assert reader.read(text + "}") == len(text)
    assert reader.is_done
    assert reader.mended == text


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"a": "b\nc\td\x01"}', '{"a": "b\\nc\\td\\u0001"}'),
        ('{"a": "C:\\dir\\x"}', '{"a": "C:\\\\dir\\\\x"}'),
        ('{"a": "it\\\'s"}', '{"a": "it\'s"}'),
        ('{"a": "\\u00e9 \\u12x"}', '{"a": "\\u00e9 \\\\u12x"}'),
        ('{"a": True, "b": [None, False]}', '{"a": true, "b": [null, false]}'),
        ('{"a": [1, 2, ], }', '{"a": [1, 2]}'),
        ("{ }", "{ }"),
    ],
)
def test_what_models_write_wrongly_is_mended(text: str, right: str) -> None:
    json.loads(right)
    reader = JsonText()
    pieces = []
    at = 0
    while at < len(text):  # one character more each time, as far as it is taken
        at += reader.read(text[at : at + 1])
        pieces.append(reader.mended)
    assert "".join(pieces) == right
    assert reader.is_done
    reader = JsonText()
    assert reader.read(text) == len(text)
    assert reader.mended == right


@pytest.mark.parametrize(
    "text", ["{a", "{'", "[1 2", '{"a" 1', '{"a": 01,', "[nope,", "{]", "[}", '{"a": -,', "[1,,", ",", '{"a"}']
)
def test_what_is_no_json_is_wrong(text: str) -> None:
    reader = JsonText()
    reader.read(text)
    assert reader.is_wrong
