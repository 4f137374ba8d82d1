"""Reads values as Python writes them, and as Gemma does: as JSON, but with other quotes and words (PURE)."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Final

from rbee.worker.output.source import SPACE, Markers, NotACall, Reading, TextSource

_MOST_DEPTH: Final = 100
_MOST_WORD: Final = 400
_WORDS: Final[dict[str, object]] = {
    "true": True,
    "false": False,
    "null": None,
    "True": True,
    "False": False,
    "None": None,
}
_ESCAPES: Final = {
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "b": "\b",
    "f": "\f",
    "a": "\a",
    "v": "\v",
    "0": "\0",
    "\\": "\\",
    "/": "/",
    "'": "'",
    '"': '"',
    "\n": "",
}
_CODES: Final = {"x": 2, "u": 4, "U": 8}
_CLOSERS: Final = {"[": "]", "(": ")", "{": "}"}
_PLAIN: Final = re.compile(r"[-+]?[0-9][0-9_]*")


@dataclass(frozen=True, slots=True)
class LiteralStyle:
    """Strings stand between two of `quotes`, in which escapes are read where `escaping` holds that quote.

    With `bare_words` an unknown word is a string, and keys are words.
    """

    quotes: Markers
    escaping: frozenset[str]
    bare_words: bool


PYTHON: Final = LiteralStyle(Markers(['"""', "'''", '"', "'"]), frozenset({'"""', "'''", '"', "'"}), False)
GEMMA: Final = LiteralStyle(Markers(['<|"|>', "<escape>", '"']), frozenset({'"'}), True)


def parsed(text: str, style: LiteralStyle = PYTHON) -> object:
    """Return the value that a whole text is.

    Raises:
        NotACall: it is none.
    """
    source = TextSource()
    source.feed(text)
    source.end()
    reading = _whole(source, style)
    try:
        next(reading)
    except StopIteration as end:
        return end.value
    raise AssertionError("a source that has ended keeps nobody waiting")


def read_value(source: TextSource, style: LiteralStyle, depth: int = 0) -> Reading[object]:
    """Take a value and the white space before it.

    Raises:
        NotACall: there is none.
    """
    if depth > _MOST_DEPTH:
        raise NotACall
    yield from source.skip()
    if quote := (yield from source.take_if(style.quotes)):
        return (yield from _strings(source, style, quote))
    opening = yield from source.peek()
    if opening == "{":
        return (yield from read_object(source, style, depth))
    if opening and opening in "[(":
        return (yield from _list(source, style, depth))
    return _word((yield from _take_word(source, style)), style)


def read_object(source: TextSource, style: LiteralStyle, depth: int = 0) -> Reading[dict[str, object]]:
    """Take an object in braces.

    Raises:
        NotACall: there is none.
    """
    found: dict[str, object] = {}
    source.take(1)
    while True:
        yield from source.skip(SPACE + ",")
        if (yield from source.peek()) == "}":
            source.take(1)
            return found
        if quote := (yield from source.take_if(style.quotes)):
            key = yield from _string(source, style, quote)
        else:
            key = (yield from _take_word(source, style, ":")).strip()
            if not style.bare_words:
                value = _word(key, style)
                key = value if isinstance(value, str) else json.dumps(value)
        yield from source.skip()
        if (yield from source.peek()) != ":":
            raise NotACall
        source.take(1)
        found[key] = yield from read_value(source, style, depth + 1)
        yield from source.skip()
        following = yield from source.peek()
        if not following or following not in ",}":
            raise NotACall


def _whole(source: TextSource, style: LiteralStyle) -> Reading[object]:
    value = yield from read_value(source, style)
    yield from source.skip()
    if (yield from source.peek()):
        raise NotACall
    return value


def _list(source: TextSource, style: LiteralStyle, depth: int) -> Reading[list[object]]:
    closer = _CLOSERS[source.take(1)]
    found: list[object] = []
    while True:
        yield from source.skip()
        if (yield from source.peek()) == closer:
            source.take(1)
            return found
        found.append((yield from read_value(source, style, depth + 1)))
        yield from source.skip()
        following = yield from source.peek()
        if following == ",":
            source.take(1)
        elif following != closer:
            raise NotACall


def _strings(source: TextSource, style: LiteralStyle, quote: str) -> Reading[str]:
    """Take a string whose first quote is taken; in Python those that follow it at once belong to it."""
    found = yield from _string(source, style, quote)
    while not style.bare_words:
        yield from source.skip()
        following = yield from source.take_if(style.quotes)
        if not following:
            break
        found += yield from _string(source, style, following)
    return found


def _string(source: TextSource, style: LiteralStyle, quote: str) -> Reading[str]:
    ends = Markers([quote, "\\"] if quote in style.escaping else [quote])
    found = ""
    while True:
        text, end = yield from source.take_until(ends)
        found += text
        if end is None:
            raise NotACall
        source.take(len(end))
        if end == quote:
            return found
        found += yield from _escape(source)


def _escape(source: TextSource) -> Reading[str]:
    letter = yield from source.peek()
    if not letter:
        raise NotACall
    source.take(1)
    if letter not in _CODES:
        return _ESCAPES.get(letter, "\\" + letter)
    digits = ""
    while len(digits) < _CODES[letter]:
        digit = yield from source.peek()
        if not digit or digit not in "0123456789abcdefABCDEF":
            return "\\" + letter + digits
        digits += source.take(1)
    code = int(digits, 16)
    if 0xD800 <= code < 0xDC00:  # the first half of a pair, as JSON writes what has no place in 16 bits
        source.mark()
        if (yield from source.take_if(Markers(["\\u"]))):
            second = yield from _escape_digits(source)
            if second is not None and 0xDC00 <= second < 0xE000:
                source.unmark()
                return chr(0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00))
        source.go_back()
    return chr(code) if code <= 0x10FFFF else "\\" + letter + digits


def _escape_digits(source: TextSource) -> Reading[int | None]:
    digits = ""
    while len(digits) < 4:
        digit = yield from source.peek()
        if not digit or digit not in "0123456789abcdefABCDEF":
            return None
        digits += source.take(1)
    return int(digits, 16)


def _take_word(source: TextSource, style: LiteralStyle, more_ends: str = "") -> Reading[str]:
    ends = ",]}" + more_ends + ("" if style.bare_words else ") \t\r\n:=([{'\"")
    text, _ = yield from source.take_until(Markers(ends), _MOST_WORD)
    return text.strip()


def _word(text: str, style: LiteralStyle) -> object:
    if text in _WORDS:
        return _WORDS[text]
    try:
        if _PLAIN.fullmatch(text):
            return int(text)
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    if style.bare_words and text:
        return text
    raise NotACall
