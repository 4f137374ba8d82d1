"""Reads calls that are JSON objects with a name and arguments: one, several, or a list of them (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from rbee.worker.output.calls.reader import CallReader, decoded_object, decoded_text
from rbee.worker.output.source import SPACE, NotACall, Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES: Final = frozenset({"name", "tool_name", "function", "function_name"})
_ARGUMENTS: Final = frozenset({"arguments", "parameters", "args"})
"""Llama's and Cohere's are `parameters`; each family's models write the others' word at times."""
_OTHERS: Final = frozenset({"type", "id", "tool_call_id", "call_id", "index"})
_BETWEEN: Final = SPACE + ",;]}"
"""What may stand between two calls and after them; a bracket too many is common."""


def read(calls: CallReader, *, is_bare: bool = False) -> Reading[None]:
    """Read the calls that follow; `is_bare` if nothing before them says that they are calls.

    Raises:
        NotACall: the first one is none. Where a later one is none, the source stands before it.
    """
    yield from calls.skip_fence()
    if (yield from calls.source.peek()) == "[":
        calls.source.take(1)
        yield from calls.source.skip()
    yield from _call(calls, is_bare)
    while True:
        yield from calls.source.skip(_BETWEEN)
        yield from calls.skip_closers()
        if (yield from calls.source.peek()) != "{":
            return
        if not (yield from calls.attempt(_call(calls, is_bare))):
            return


def _call(calls: CallReader, is_bare: bool) -> Reading[None]:
    """Read one object. Its arguments are passed on as they come, if its name came before them."""
    values: dict[str, str] = {}
    name: str | None = None
    is_told = False
    source = calls.source
    if (yield from source.peek()) != "{":
        raise NotACall
    source.take(1)
    while True:
        yield from source.skip(SPACE + ",")
        character = yield from source.peek()
        if character == "}" or (is_told and character != '"'):
            break  # where the arguments have been told, what is missing behind them does not matter
        key = yield from _key(calls)
        if name is None and calls.syntax.name == "json_key" and key in calls.tools:
            yield from calls.read_arguments(key)
            is_told = True
        elif name is not None and not is_told and key in _ARGUMENTS:
            yield from calls.read_arguments(name)
            is_told = True
        else:
            if is_bare and key not in _NAMES | _ARGUMENTS | _OTHERS:
                raise NotACall
            values[key] = yield from calls.read_value()
            if key in _NAMES and name is None and values[key].startswith('"'):
                name = decoded_text(values[key])
                calls.check_is_offered(name)
    if not is_told:
        _give(calls, values, is_bare)
    if character == "}":
        source.take(1)


def _key(calls: CallReader) -> Reading[str]:
    if (yield from calls.source.peek()) != '"':
        raise NotACall
    key = decoded_text((yield from calls.read_value()))
    yield from calls.source.skip()
    if (yield from calls.source.peek()) != ":":
        raise NotACall
    calls.source.take(1)
    yield from calls.source.skip()
    return key


def _give(calls: CallReader, values: Mapping[str, str], is_bare: bool) -> None:
    """Give a call whose arguments came before its name, are missing, or stand in an object of their own."""
    inner = values.get("function", "")
    if inner.startswith("{"):
        # As OpenAI's API writes it: {"type": "function", "function": {"name": …, "arguments": …}}.
        function = {key: msgspec.json.encode(value).decode() for key, value in decoded_object(inner).items()}
        return _give(calls, {key: value for key, value in function.items() if key != "function"}, is_bare)
    name = next((values[key] for key in values if key in _NAMES), None)
    arguments = next((values[key] for key in values if key in _ARGUMENTS), "null" if not is_bare else None)
    if name is None or arguments is None:
        raise NotACall
    if arguments.startswith('"'):
        arguments = decoded_text(arguments)
    calls.give(decoded_text(name), decoded_object("{}" if arguments == "null" else arguments))
    return None
