"""Makes values of the texts that models write as arguments where a format has no types (PURE)."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from rbee.worker.output.calls.literals import parsed
from rbee.worker.output.source import NotACall

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_REFERENCES: Final = 32
_PYTHON_WORDS: Final = {"True": True, "False": False, "None": None}
_UNKNOWN: Final = object()


def coerced(text: str, schema: object, root: Mapping[str, Any]) -> object:
    """Return the value that a text means where this schema says what it may be; `root` is what it refers to.

    A text that can be nothing else is a string.
    """
    types, values = _allowed(schema, root, _MOST_REFERENCES)
    if text in values:
        return text
    if types == {"string"}:
        return text
    value = _parsed(text.strip(), types)
    if value is _UNKNOWN:
        return text
    if values and not types:
        return value if value in values else text
    if not types or _type_of(value) in types:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and "number" in types:
        return value
    if isinstance(value, float) and "integer" in types and value.is_integer():
        return int(value)
    return text


def property_schema(schema: object, key: str, root: Mapping[str, Any]) -> object:
    """Return the schema of one of the values that an object of this schema has, arguments for example."""
    found = _resolved(schema, root, _MOST_REFERENCES)
    properties = found.get("properties")
    if isinstance(properties, dict) and key in properties:
        return properties[key]
    additional = found.get("additionalProperties")
    return additional if isinstance(additional, dict) else {}


def items_schema(schema: object, root: Mapping[str, Any]) -> object:
    """Return the schema of each element of a list."""
    return _resolved(schema, root, _MOST_REFERENCES).get("items", {})


def types_of(schema: object, root: Mapping[str, Any]) -> set[str]:
    """Return the types that a schema allows; none if that is open."""
    return _allowed(schema, root, _MOST_REFERENCES)[0]


def is_string_only(schema: object, root: Mapping[str, Any]) -> bool:
    """Return whether a value can be nothing but a string."""
    types, values = _allowed(schema, root, _MOST_REFERENCES)
    return types == {"string"} or (not types and bool(values) and all(isinstance(value, str) for value in values))


def allows_string(schema: object, root: Mapping[str, Any]) -> bool:
    """Return whether a value may be a string, as far as the schema says."""
    types, values = _allowed(schema, root, _MOST_REFERENCES)
    return "string" in types or (not types and (not values or any(isinstance(value, str) for value in values)))


def _resolved(schema: object, root: Mapping[str, Any], left: int) -> Mapping[str, Any]:
    """Follow `$ref`s within the parameters."""
    while isinstance(schema, dict) and isinstance(reference := schema.get("$ref"), str) and left:
        left -= 1
        found: object = root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        schema = found
    return schema if isinstance(schema, dict) else {}


def _allowed(schema: object, root: Mapping[str, Any], left: int) -> tuple[set[str], list[object]]:
    """Return the types that a schema allows, none if that is open, and the values that it names."""
    if not left:
        return set(), []
    schema = _resolved(schema, root, left)
    types: set[str] = set()
    values: list[object] = []
    declared = schema.get("type")
    if isinstance(declared, str):
        types.add(declared)
    elif isinstance(declared, list):
        types.update(name for name in declared if isinstance(name, str))
    if isinstance(schema.get("enum"), list):
        values += schema["enum"]
    if "const" in schema:
        values.append(schema["const"])
    if not types and not values:
        for word in ("anyOf", "oneOf", "allOf"):
            options = schema.get(word)
            for option in options if isinstance(options, list) else ():
                more_types, more_values = _allowed(option, root, left // 2)
                types |= more_types or {_type_of(value) for value in more_values}
                values += more_values
    if not types and not values:
        types |= {"object"} if "properties" in schema else {"array"} if "items" in schema else set()
    return types, values


def _parsed(text: str, types: set[str]) -> object:
    if text in _PYTHON_WORDS:
        return _PYTHON_WORDS[text]
    if "boolean" in types and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if "null" in types and text.lower() in {"null", "none"}:
        return None
    try:
        value: object = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        if not text.startswith(("[", "{", "(")):
            return _UNKNOWN
        try:
            value = parsed(text)  # a list or an object as Python writes it
        except NotACall:
            return _UNKNOWN
    if isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value)):
        return _UNKNOWN  # a string is written without quotes: these belong to it
    return value


def _refused(word: str) -> object:
    raise ValueError(word)  # NaN and Infinity are no JSON


def _type_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"
