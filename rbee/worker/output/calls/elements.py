"""Reads calls whose arguments are elements in elements, as XML has them, each tag behind a token of its own (PURE).

Where the schema says that an argument is a string, it is passed on while it comes: it may be a whole file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rbee.worker.output.calls.coercion import coerced, is_string_only, items_schema, property_schema, types_of
from rbee.worker.output.calls.reader import MOST_HEADER, CallReader, json_text
from rbee.worker.output.source import Markers, NotACall, Reading
from rbee.worker.output.syntax import ITEM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MOST_DEPTH: Final = 32


def read(calls: CallReader) -> Reading[None]:
    """Read the calls that follow.

    Raises:
        NotACall: the first one is none. Where a later one is none, the source stands before it.
    """
    reader = _Elements(calls)
    yield from reader.call()
    while True:
        yield from calls.skip_closers()
        if not (yield from calls.attempt(reader.call())):
            return


class _Elements:
    """Reads calls of one syntax."""

    def __init__(self, calls: CallReader) -> None:
        syntax, parameter = calls.syntax, calls.syntax.parameter
        assert parameter is not None
        self._calls: Final = calls
        self._source: Final = calls.source
        self._call_begins: Final = Markers([syntax.before_name])
        self._name_ends: Final = Markers([syntax.after_name])
        self._begins: Final = Markers([parameter.before_key])
        self._tag_ends: Final = Markers([parameter.after_key])
        self._closes: Final = Markers([parameter.after_value.partition("{key}")[0]])
        self._tags: Final = Markers([*self._begins.literals, *self._closes.literals])
        self._call_ends: Final = Markers(syntax.closers)

    def call(self) -> Reading[None]:
        yield from self._source.skip()
        if not (yield from self._source.take_if(self._call_begins)):
            raise NotACall
        name = yield from self._up_to(self._name_ends)
        self._calls.check_is_offered(name)
        answer, parameters = self._calls.answer, self._calls.tools[name].parameters
        if (key := (yield from self._next_key())) is None:
            if not (yield from self._source.next_is(self._call_ends)):
                raise NotACall
            self._calls.give(name, {})
            return
        answer.begin_call(name)
        separator = "{"
        while key is not None:
            answer.arguments(f"{separator}{json_text(key)}: ")
            separator = ", "
            if not (yield from self._argument(property_schema(parameters, key, parameters), parameters)):
                break
            key = yield from self._next_key()
        else:
            if not (yield from self._source.peek()) or (yield from self._source.next_is(self._call_ends)):
                answer.arguments("}")
                answer.end_call()
                return
        if self._calls.must_be_whole:
            raise NotACall
        answer.end_call()  # it has been told, though it is not complete

    def _up_to(self, end: Markers) -> Reading[str]:
        text, found = yield from self._source.take_until(end, MOST_HEADER)
        if found is None:
            raise NotACall
        self._source.take(len(found))
        return text.strip()

    def _next_key(self) -> Reading[str | None]:
        """Take what begins an element, and return its key; None where there is no further one."""
        source = self._source
        yield from source.skip()
        if (yield from source.next_is(self._call_ends)) or (yield from source.next_is(self._closes)):
            return None
        if not (yield from source.take_if(self._begins)):
            return None
        return (yield from self._up_to(self._tag_ends))

    def _argument(self, schema: object, root: Mapping[str, Any]) -> Reading[bool]:
        """Take a value and what ends it, and pass it on; return whether it was complete."""
        answer = self._calls.answer
        if is_string_only(schema, root):
            answer.arguments('"')
            is_complete = yield from self._text(lambda text: answer.arguments(json_text(text)[1:-1]))
            answer.arguments('"' if is_complete else "")
            return is_complete
        try:
            value = yield from self._value(schema, root, _MOST_DEPTH)
        except NotACall:
            return False
        answer.arguments(json_text(value))
        return True

    def _text(self, show: Callable[[str], None]) -> Reading[bool]:
        """Pass on a text up to the end of its element, which is taken; return whether that came."""
        if (yield from self._source.pass_until(self._closes, show)) is None:
            return False
        yield from self._close()
        return True

    def _close(self) -> Reading[None]:
        self._source.take(len(self._closes.literals[0]))
        yield from self._up_to(self._tag_ends)

    def _value(self, schema: object, root: Mapping[str, Any], left: int) -> Reading[object]:
        """Take a value and what ends it."""
        source = self._source
        text, tag = yield from source.take_until(self._tags)
        if tag is None or not left:
            raise NotACall
        types = types_of(schema, root)
        if tag in self._closes.literals:
            yield from self._close()
            if not text.strip() and types & {"array", "object"} and "string" not in types:
                return [] if "array" in types else {}
            return coerced(text, schema, root)
        entries: list[tuple[str, object]] = []
        while (key := (yield from self._next_key())) is not None:
            inner = property_schema(schema, key, root)
            if key == ITEM and "object" not in types:
                inner = items_schema(schema, root)
            entries.append((key, (yield from self._value(inner, root, left - 1))))
        if not (yield from source.next_is(self._closes)):
            raise NotACall
        yield from self._close()
        is_list = {key for key, _ in entries} == {ITEM} and "object" not in types
        return [value for _, value in entries] if is_list else dict(entries)
