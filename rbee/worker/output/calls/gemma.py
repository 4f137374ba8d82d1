"""Reads calls as Gemma writes them: `call:NAME{key:value,…}`, with quotes of its own (PURE)."""

from __future__ import annotations

from typing import Final

from rbee.worker.output.calls import literals
from rbee.worker.output.calls.coercion import allows_string, coerced, property_schema
from rbee.worker.output.calls.reader import MOST_HEADER, CallReader
from rbee.worker.output.source import Markers, NotACall, Reading

_CALL: Final = Markers(["call:"])
_BRACE: Final = Markers(["{"])


def read(calls: CallReader) -> Reading[None]:
    """Read the call that follows.

    Raises:
        NotACall: it is none.
    """
    source = calls.source
    yield from source.skip()
    if not (yield from source.take_if(_CALL)):
        raise NotACall
    name, end = yield from source.take_until(_BRACE, MOST_HEADER)
    if end is None:
        raise NotACall
    name = name.strip()
    calls.check_is_offered(name)
    arguments = yield from literals.read_object(source, literals.GEMMA)
    parameters = calls.tools[name].parameters
    for key, value in arguments.items():
        schema = property_schema(parameters, key, parameters)
        if isinstance(value, str) and not allows_string(schema, parameters):
            arguments[key] = coerced(value, schema, parameters)
    calls.give(name, arguments)
    yield from calls.skip_closers()
