"""Writes an answer as a family's models do (PURE)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rbee.worker.output.calls.ids import new_id_of
from rbee.worker.output.syntax import ITEM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rbee.wire.chat.conversation import ToolCall
    from rbee.worker.output.syntax import AnswerSyntax, ToolSyntax

_TYPES = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}


def written(syntax: AnswerSyntax, calls: Sequence[ToolCall], reasoning: str, text: str) -> str:
    """Return what a model writes that means this."""
    parts = []
    if reasoning:
        parts.append(f"{syntax.reasoning.begin}{reasoning}{syntax.reasoning.end}")
    if text:
        parts.append(f"{syntax.text.begin}{text}{syntax.text.end}")
    if calls:
        tools = syntax.tools
        parts.append(
            tools.begin
            + tools.separator.join(_call(tools, index, call) for index, call in enumerate(calls))
            + tools.end
        )
    return syntax.between.join(parts)


def _call(tools: ToolSyntax, index: int, call: ToolCall) -> str:
    opening, end = (
        text.replace("{index}", str(index))
        .replace("{number}", str(index + 1))
        .replace("{id}", new_id_of("nine")(0, ""))
        for text in (tools.opening(call.name), tools.after_call)
    )
    return f"{opening}{_arguments(tools, call.arguments)}{end}"


def _arguments(tools: ToolSyntax, arguments: str) -> str:
    values: Mapping[str, object] = json.loads(arguments)
    match tools.arguments:
        case "json":
            return arguments
        case "pythonic":
            return ", ".join(f"{key}={_pythonic(value)}" for key, value in values.items())
        case "gemma":
            return _gemma(values, tools.quote)
        case "elements":
            return _elements(tools, values)
        case "parameters":
            return "".join(_parameter(tools, key, value) for key, value in values.items())


def _parameter(tools: ToolSyntax, key: str, value: object) -> str:
    parameter = tools.parameter
    assert parameter is not None
    if isinstance(value, str):
        if parameter.quotes and any(mark in value for mark in "<&\n"):
            value = value.join(parameter.quotes)
        return f"{parameter.before_key}{key}{parameter.after_key}{value}{parameter.after_value}"
    after_key = (parameter.after_key_json or parameter.after_key).replace("{type}", _TYPES.get(type(value), "null"))
    return f"{parameter.before_key}{key}{after_key}{json.dumps(value, ensure_ascii=False)}{parameter.after_value}"


def _elements(tools: ToolSyntax, value: object) -> str:
    parameter = tools.parameter
    assert parameter is not None
    if isinstance(value, str):
        return value
    entries = (
        value.items()
        if isinstance(value, dict)
        else [(ITEM, item) for item in value]
        if isinstance(value, list)
        else None
    )
    if entries is None:
        return json.dumps(value)
    return "".join(
        f"{parameter.before_key}{key}{parameter.after_key}{_elements(tools, item)}"
        f"{parameter.after_value.replace('{key}', key)}"
        for key, item in entries
    )


def _pythonic(value: object) -> str:
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return "[" + ", ".join(map(_pythonic, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{_pythonic(key)}: {_pythonic(item)}" for key, item in value.items()) + "}"
    return repr(value)


def _gemma(value: object, quote: str) -> str:
    match value:
        case str():
            return f"{quote}{value}{quote}"
        case list():
            return "[" + ",".join(_gemma(item, quote) for item in value) + "]"
        case dict():
            return "{" + ",".join(f"{key}:{_gemma(item, quote)}" for key, item in value.items()) + "}"
    return json.dumps(value)
