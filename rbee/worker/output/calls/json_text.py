"""Checks the text of a JSON value while it comes, and mends what models write wrongly in it (PURE).

Mended are line ends and other control characters in strings, escapes that JSON does not know, `True`, `False` and
`None`, and a comma before a bracket. The result does not depend on how the text is cut into pieces.
"""

from __future__ import annotations

import re
from typing import Final, Literal

_WORDS: Final = {
    "true": "true",
    "false": "false",
    "null": "null",
    "True": "true",
    "False": "false",
    "None": "null",
}
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_CONTROLS: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_SPACE: Final = re.compile(r"[ \t\r\n]+")
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]+')
_WORD: Final = re.compile(r"[A-Za-z0-9+.\-]+")

State = Literal["value", "item", "first key", "key", "colon", "next", "string", "escape", "unicode", "word"]


class _Wrong(Exception):
    """What comes next is no JSON."""


class JsonText:
    """One value. `depth` counts the brackets that are open; in `word` are numbers too."""

    def __init__(self) -> None:
        self._state: State = "value"
        self._open: list[str] = []
        self._is_key = False
        self._held = ""
        """What cannot be shown until more has come: a word, an escape, a comma."""
        self.is_done = False
        self.is_wrong = False
        """Whether what comes next is no JSON."""
        self.has_begun = False
        """Whether it is sure that it is a container: its first key or item has begun, or it is empty."""
        self.mended = ""
        """What is mended of the text that was read last."""

    def read(self, text: str) -> int:
        """Take text up to the end of the value, or to what is wrong; return how many characters that are."""
        at = 0
        self.mended = ""
        try:
            while at < len(text) and not self.is_done:
                at = self._step(text, at)
        except _Wrong:
            self.is_wrong = True
            self.mended += self._held
        return at

    def _step(self, text: str, at: int) -> int:
        match self._state:
            case "string":
                return self._in_string(text, at)
            case "escape":
                return self._escaped(text, at)
            case "unicode":
                return self._unicode(text, at)
            case "word":
                return self._in_word(text, at)
        if space := _SPACE.match(text, at):
            if self._held:  # a comma that may be one too many takes the space after it with it
                self._held += space[0]
            else:
                self.mended += space[0]
            return space.end()
        return self._between(text[at], at)

    def _between(self, character: str, at: int) -> int:
        """Take a character that stands between values; return where the text goes on."""
        state = self._state
        if character in "]}" and state in {"item", "first key", "next"} and self._open[-1] == character:
            self._held = ""
            self.has_begun = True
            self._open.pop()
            self.mended += character
            self._ended_value()
            return at + 1
        if character in "]}" and state == "key" and self._open[-1] == character:
            self._state = "next"
            return at
        if state == "colon" and character == ":":
            self._state = "value"
        elif state == "next" and character == ",":
            self._held = ","
            self._state = "key" if self._open[-1] == "}" else "item"
            return at + 1
        elif state in {"first key", "key"} and character == '"':
            self._begin_value()
            self._is_key = True
            self._state = "string"
        elif state in {"value", "item"}:
            return self._value(character, at)
        else:
            raise _Wrong
        self.mended += character
        return at + 1

    def _value(self, character: str, at: int) -> int:
        if character == '"':
            self._begin_value()
            self._is_key = False
            self._state = "string"
        elif character in "[{":
            if self._open:
                self._begin_value()
            self._open.append("]" if character == "[" else "}")
            self._state = "item" if character == "[" else "first key"
        elif _WORD.match(character):
            self._begin_value()
            self._state = "word"
            return at
        else:
            raise _Wrong
        self.mended += character
        return at + 1

    def _begin_value(self) -> None:
        self.has_begun = True
        self.mended += self._held
        self._held = ""

    def _ended_value(self) -> None:
        self.is_done = not self._open
        self._state = "next"

    def _in_string(self, text: str, at: int) -> int:
        if plain := _PLAIN.match(text, at):
            self.mended += plain[0]
            return plain.end()
        character = text[at]
        if character == '"':
            self.mended += character
            if self._is_key:
                self._state = "colon"
            else:
                self._ended_value()
        elif character == "\\":
            self._state = "escape"
        else:
            self.mended += _CONTROLS.get(character) or f"\\u{ord(character):04x}"
        return at + 1

    def _escaped(self, text: str, at: int) -> int:
        character = text[at]
        self._state = "string"
        if character == "u":
            self._state = "unicode"
        elif character in '"\\/bfnrt':
            self.mended += "\\" + character
        elif character == "'":
            self.mended += character
        else:  # a path or a regular expression whose backslash was not doubled
            self.mended += "\\\\"
            return at
        return at + 1

    def _unicode(self, text: str, at: int) -> int:
        if text[at] not in "0123456789abcdefABCDEF":
            self.mended += "\\\\u" + self._held
            self._held = ""
            self._state = "string"
            return at
        self._held += text[at]
        if len(self._held) == 4:
            self.mended += "\\u" + self._held
            self._held = ""
            self._state = "string"
        return at + 1

    def _in_word(self, text: str, at: int) -> int:
        if more := _WORD.match(text, at):
            self._held += more[0]
            return more.end()
        self._end_word()
        return at

    def _end_word(self) -> None:
        word = self._held
        if word not in _WORDS and not _NUMBER.fullmatch(word):
            raise _Wrong
        self._held = ""
        self.mended += _WORDS.get(word, word)
        self._ended_value()
