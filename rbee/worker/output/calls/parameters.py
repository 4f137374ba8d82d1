"""Reads calls whose arguments stand between tags of their own, as texts that the tool's schema gives a type (PURE).

Where the schema says that an argument is a string, it is passed on while it comes: it may be a whole file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rbee.worker.output.calls.coercion import coerced, is_string_only, property_schema
from rbee.worker.output.calls.reader import MOST_HEADER, CallReader, json_text
from rbee.worker.output.source import Markers, NotACall, Reading

if TYPE_CHECKING:
    from collections.abc import Callable


_TYPED: Final = re.compile(r'(.*=")([^"]*)(".*)')
"""What stands between a key and a string, parted at the word that says that it is one."""


def _around_placeholder(text: str) -> tuple[str, str]:
    """Return what stands before and after the number of a call."""
    before, _, after = text.partition("{number}")
    return before, after


class ParameterCalls:
    """Reads calls of one syntax."""

    def __init__(self, calls: CallReader) -> None:
        syntax, parameter = calls.syntax, calls.syntax.parameter
        assert parameter is not None
        self._calls: Final = calls
        self._source: Final = calls.source
        self._known_by: Final = syntax.known_by or syntax.before_name
        self._call_begins: Final = Markers([self._known_by])
        self._before_key: Final = Markers([parameter.before_key.strip()])
        self._closers: Final = Markers(syntax.closers)
        # What counts the calls stands between these two, if anything does.
        self._name_end, self._number_end = (part.strip() for part in _around_placeholder(syntax.after_name))
        self._name_ends: Final = Markers(
            [self._name_end] if self._name_end else ["\n", *self._before_key.literals, *syntax.closers]
        )
        typed = _TYPED.fullmatch(parameter.after_key) if parameter.after_key_json else None
        self._type_begin, self._string_type, self._type_end = typed.groups() if typed else ("", "", "")
        after_key = [f'"{self._type_end[1:]}'] if typed else parameter.after_key.strip().split("\n")
        self._key_ends: Final = Markers([after_key[0], self._type_begin])
        self._more_after_key: Final = [Markers([more]) for more in after_key[1:]]
        # Where values stand on lines of their own, these line ends are no part of them.
        self._has_lines: Final = parameter.after_key.endswith("\n")
        closer = parameter.after_value.strip()
        self._value_ends: Final = Markers([closer, "\n" + closer] if self._has_lines else [closer])
        quotes = parameter.quotes
        self._quote: Final = Markers([quotes[0]]) if quotes else None
        self._quote_end: Final = Markers([quotes[1]] if quotes else [])
        self._after_value: Final = Markers([*self._before_key.literals, *syntax.closers])

    def read(self, opener: str) -> Reading[None]:
        """Read the calls that follow this beginning.

        Raises:
            NotACall: the first one is none. Where a later one is none, the source stands before it.
        """
        if opener == self._known_by:
            yield from self._call()
        else:
            yield from self._next()
        while True:
            yield from self._calls.skip_closers()
            if not (yield from self._calls.attempt(self._next())):
                return

    def _next(self) -> Reading[None]:
        yield from self._source.skip()
        if not (yield from self._source.take_if(self._call_begins)):
            raise NotACall
        yield from self._call()

    def _call(self) -> Reading[None]:
        name, end = yield from self._source.take_until(self._name_ends, MOST_HEADER)
        if end is None:
            raise NotACall
        if self._name_end:
            self._source.take(len(end))
        if self._number_end:
            yield from self._take_until(self._number_end)
        name = name.strip()
        self._calls.check_is_offered(name)
        yield from self._source.skip()
        if (yield from self._source.take_if(self._closers)):
            self._calls.give(name, {})
            return
        key, is_string = yield from self._key()
        answer = self._calls.answer
        answer.begin_call(name)
        answer.arguments("{")
        while (yield from self._value(name, key, is_string)):
            source = self._source
            yield from source.skip()
            if not (yield from source.peek()) or (yield from source.take_if(self._closers)):
                answer.arguments("}")
                answer.end_call()
                return
            source.mark()
            try:
                key, is_string = yield from self._key()
            except NotACall:
                source.go_back()
                break
            source.unmark()
            answer.arguments(", ")
        if self._calls.must_be_whole:
            raise NotACall
        answer.end_call()  # it has been told, though it is not complete

    def _key(self) -> Reading[tuple[str, bool | None]]:
        """Take what stands before a value; return its key, and whether it is marked as a string or as none."""
        if not (yield from self._source.take_if(self._before_key)):
            raise NotACall
        key, end = yield from self._source.take_until(self._key_ends, MOST_HEADER)
        if end is None:
            raise NotACall
        self._source.take(len(end))
        if end == self._type_begin:
            return key.strip(), (yield from self._take_until(self._type_end)) == self._string_type
        for more in self._more_after_key:
            yield from self._source.skip()
            if not (yield from self._source.take_if(more)):
                raise NotACall
        return key.strip(), None  # also where the model has forgotten the type

    def _take_until(self, end: str) -> Reading[str]:
        text, found = yield from self._source.take_until(Markers([end]), MOST_HEADER)
        if found is None:
            raise NotACall
        self._source.take(len(end))
        return text

    def _value(self, name: str, key: str, is_string: bool | None) -> Reading[bool]:
        """Take a value and what ends it, and pass it on; return whether it was complete."""
        parameters = self._calls.tools[name].parameters
        schema = property_schema(parameters, key, parameters)
        answer = self._calls.answer
        if self._has_lines and (yield from self._source.peek()) == "\n":
            self._source.take(1)
        if is_string or (is_string is None and is_string_only(schema, parameters)):
            answer.arguments(f'{json_text(key)}: "')
            is_complete = yield from self._pass(lambda text: answer.arguments(json_text(text)[1:-1]))
            answer.arguments('"' if is_complete else "")
            return is_complete
        texts: list[str] = []
        is_complete = yield from self._pass(texts.append)
        if is_complete:
            answer.arguments(f"{json_text(key)}: {json_text(coerced(''.join(texts), schema, parameters))}")
        return is_complete

    def _pass(self, show: Callable[[str], None]) -> Reading[bool]:
        """Pass on a value; return whether its end came.

        An end that neither a value nor the end of the call follows is a part of the value.
        """
        source = self._source
        if self._quote and (yield from source.take_if(self._quote)):
            if not (yield from source.pass_until(self._quote_end, show)):
                return False
            source.take(len(self._quote_end.literals[0]))
        while True:
            end = yield from source.pass_until(self._value_ends, show)
            if end is None:
                return False
            source.mark()
            source.take(len(end))
            yield from source.skip()
            if not (yield from source.peek()) or (yield from source.next_is(self._after_value)):
                source.unmark()
                return True
            source.go_back()
            show(source.take(len(end)))
