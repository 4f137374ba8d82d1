"""Reads calls whose name stands in the text, and whose arguments are a JSON object behind it (PURE)."""

from __future__ import annotations

import re

from rbee.worker.output.calls.reader import MOST_HEADER, CallReader
from rbee.worker.output.source import Markers, NotACall, Reading

_OBJECT = Markers(["{"])


def read(calls: CallReader, opener: str) -> Reading[None]:
    """Read the calls that follow this beginning.

    Raises:
        NotACall: the first one is none. Where a later one is none, the source stands before it.
    """
    known_by = calls.syntax.known_by or calls.syntax.before_name
    beginning = Markers([known_by])
    if opener != known_by:
        yield from calls.source.skip()
        if not (yield from calls.source.take_if(beginning)):
            raise NotACall
    yield from _call(calls)
    while True:
        yield from calls.skip_closers()
        if not (yield from calls.attempt(_next(calls, beginning))):
            return


def _next(calls: CallReader, beginning: Markers) -> Reading[None]:
    if not (yield from calls.source.take_if(beginning)):
        raise NotACall
    yield from _call(calls)


def _call(calls: CallReader) -> Reading[None]:
    header, opening = yield from calls.source.take_until(_OBJECT, MOST_HEADER)
    found = re.fullmatch(calls.syntax.header, header)
    if opening is None or found is None:
        raise NotACall
    yield from calls.read_arguments(found["name"], found.groupdict().get("id"))
