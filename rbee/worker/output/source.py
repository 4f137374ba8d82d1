"""The text that a model writes, as its readers take it: piece by piece, and the same however it was cut (PURE).

A reader is a generator. It yields where it needs more text than has come, and is resumed once there is more, or once
there will be none. So each format is read in a straight line, and no reader sees where a piece ended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]
"""Reads something that is a T, and yields whenever it needs more text."""

SPACE: Final = " \t\r\n"


class NotACall(Exception):
    """What looked like a tool call is none: its text is text."""


class Markers:
    """Literals that are looked for together. Of two at one place the longer one is meant."""

    def __init__(self, literals: Iterable[str]) -> None:
        self.literals: Final = tuple(sorted({literal for literal in literals if literal}, key=len, reverse=True))
        self._whole: Final = re.compile("|".join(map(re.escape, self.literals)) or r"(?!)")
        self._first: Final = frozenset(literal[0] for literal in self.literals)
        self._longest: Final = max(map(len, self.literals), default=0)

    def search(self, text: str, start: int, is_ended: bool) -> tuple[int, str | None]:
        """Return where the first of them begins from `start` on, and which; none where more text has to tell.

        Without one that may begin there, that is the end of the text.
        """
        found = self._whole.search(text, start)
        if not is_ended:
            last = found.start() + 1 if found else len(text)
            for at in range(max(start, len(text) - self._longest + 1), last):
                if text[at] in self._first and self._may_begin(text, at):
                    return at, None
        return (found.start(), found[0]) if found else (len(text), None)

    def at(self, text: str, start: int, is_ended: bool) -> tuple[bool, str | None]:
        """Return whether that is sure yet, and which of them stands at `start`."""
        if not is_ended and len(text) - start < self._longest and self._may_begin(text, start):
            return False, None
        found = self._whole.match(text, start)
        return True, found[0] if found else None

    def _may_begin(self, text: str, at: int) -> bool:
        """Return whether the text from there on is the beginning of one of them, and not all of it."""
        rest = text[at:]
        return any(len(literal) > len(rest) and literal.startswith(rest) for literal in self.literals)


class TextSource:
    """The text that has come and is not yet taken."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._marks: list[int] = []
        self._pieces = 0
        self._is_ended = False

    def feed(self, text: str) -> None:
        """More text has come."""
        used = self._marks[0] if self._marks else self._at  # a mark may be gone back to
        self._text = self._text[used:] + text
        self._at -= used
        self._marks = [mark - used for mark in self._marks]
        self._pieces += 1

    def end(self) -> None:
        """No more text will come."""
        self._is_ended = True

    def mark(self) -> None:
        """Remember this place; each mark is followed by one `go_back` or `unmark`."""
        self._marks.append(self._at)

    def unmark(self) -> None:
        """Forget the place that was remembered last."""
        self._marks.pop()

    def go_back(self) -> None:
        """Go back to the place that was remembered last."""
        self._at = self._marks.pop()

    def more(self) -> Reading[bool]:
        """Wait for more text; return whether there is some."""
        pieces = self._pieces
        while self._pieces == pieces:
            if self._is_ended:
                return False
            yield
        return True

    def take(self, length: int) -> str:
        """Take so many characters of `rest()`."""
        self._at += length
        return self._text[self._at - length : self._at]

    def rest(self) -> str:
        """Return all that has come, without taking it."""
        return self._text[self._at :]

    def peek(self) -> Reading[str]:
        """Return the next character without taking it; the empty string at the end."""
        while self._at == len(self._text):
            if not (yield from self.more()):
                return ""
        return self._text[self._at]

    def skip(self, characters: str = SPACE) -> Reading[str]:
        """Take all of these characters that come next."""
        skipped = ""
        while (character := (yield from self.peek())) and character in characters:
            end = self._at
            while end < len(self._text) and self._text[end] in characters:
                end += 1
            skipped += self.take(end - self._at)
        return skipped

    def next_is(self, markers: Markers) -> Reading[str | None]:
        """Return the one of them that comes next, if one does."""
        while True:
            is_sure, marker = markers.at(self._text, self._at, self._is_ended)
            if is_sure:
                return marker
            yield from self.more()

    def take_if(self, markers: Markers) -> Reading[str | None]:
        """Take the one of them that comes next, if one does."""
        marker = yield from self.next_is(markers)
        self._at += len(marker or "")
        return marker

    def pass_until(self, markers: Markers, show: Callable[[str], None]) -> Reading[str | None]:
        """Take and show text as it comes, up to the first marker; return that, not taken, or none at the end."""
        while True:
            at, marker = markers.search(self._text, self._at, self._is_ended)
            if at > self._at:
                show(self.take(at - self._at))
            if marker is not None or self._is_ended:
                return marker
            yield from self.more()

    def take_until(self, markers: Markers, limit: int | None = None) -> Reading[tuple[str, str | None]]:
        """Take the text up to the first marker; return it and the marker, not taken, or none at the end.

        Raises:
            NotACall: it is further away than `limit` characters.
        """
        known = 0  # characters in which there is no marker: they are not searched again
        while True:
            at, marker = markers.search(self._text, self._at + known, self._is_ended)
            known = at - self._at
            if limit is not None and known > limit:
                raise NotACall
            if marker is not None or self._is_ended:
                return self.take(known), marker
            yield from self.more()
