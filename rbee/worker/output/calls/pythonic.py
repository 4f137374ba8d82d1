"""Reads calls that are written as Python writes them: `[f(a='x', b=1), g()]`, or one on each line (PURE)."""

from __future__ import annotations

from typing import Final

from rbee.worker.output.calls import literals
from rbee.worker.output.calls.reader import MOST_HEADER, CallReader
from rbee.worker.output.source import SPACE, Markers, NotACall, Reading

_PARENTHESIS: Final = Markers(["(", "\n", '"', "{", "]"])
"""What ends a name, or shows that there is none."""
_EQUALS: Final = Markers(["=", ")", "\n"])


def read(calls: CallReader) -> Reading[None]:
    """Read the calls that follow.

    Raises:
        NotACall: the first one is none. Where a later one is none, the source stands before it.
    """
    yield from calls.source.skip()
    if (yield from calls.source.peek()) == "[":
        calls.source.take(1)
    yield from _call(calls)
    is_ended = False
    while not is_ended:
        yield from calls.source.skip(SPACE + ",;")
        if (yield from calls.source.peek()) == "]":
            calls.source.take(1)
            is_ended = True
        is_ended = (yield from calls.skip_closers()) or is_ended or not (yield from calls.attempt(_call(calls)))


def _call(calls: CallReader) -> Reading[None]:
    source = calls.source
    name, end = yield from source.take_until(_PARENTHESIS, MOST_HEADER)
    if end != "(":
        raise NotACall
    source.take(1)
    name = name.strip()
    calls.check_is_offered(name)
    arguments: dict[str, object] = {}
    while True:
        yield from source.skip()
        if (yield from source.peek()) == ")":
            source.take(1)
            break
        key, end = yield from source.take_until(_EQUALS, MOST_HEADER)
        if end != "=":
            raise NotACall
        source.take(1)
        arguments[key.strip()] = yield from literals.read_value(source, literals.PYTHON)
        yield from source.skip()
        following = yield from source.peek()
        if following == ",":
            source.take(1)
        elif following != ")":
            raise NotACall
    calls.give(name, arguments)
