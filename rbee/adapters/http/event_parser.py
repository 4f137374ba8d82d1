"""Parses event streams as they come in, piece by piece (PURE).

By bytes, and an event of one line of data without a look at its lines: all that our daemons generate are such. To make
text of each piece, and lines of that, takes five times as long.

Source: HTML standard, section 9.2.6.
"""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """One server-sent event; `name` is `message` unless the stream says otherwise."""

    name: str
    data: str


class EventParser:
    """The events of one stream; the fields `id` and `retry` mean nothing here."""

    def __init__(self) -> None:
        self._unended: list[bytes] = []
        """The pieces of a line whose end has not come."""
        self._follows_return = False
        """Whether what came last is a carriage return, which a line feed may follow that ends the same line."""
        self._name = b""
        self._lines: list[bytes] = []
        """Of the event that has not ended: its name, and its lines of data."""

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that end within the next piece of the stream."""
        if b"\r" in piece or self._follows_return:
            piece = self._with_line_feeds(piece)
        end = piece.rfind(b"\n") + 1
        if not end:
            self._unended.append(piece)
            return []
        whole = b"".join((*self._unended, piece[:end]))
        self._unended = [piece[end:]]
        found: list[Event] = []
        *blocks, begun = whole.split(b"\n\n")
        for block in blocks:
            if block.startswith(b"data: ") and not self._lines and not self._name and b"\n" not in block:
                found.append(Event("message", block[6:].decode("utf-8", "replace")))
                continue
            for line in block.split(b"\n"):
                self._read(line, found)
            self._end(found)
        for line in begun.split(b"\n")[:-1]:
            self._read(line, found)
        return found

    def _with_line_feeds(self, piece: bytes) -> bytes:
        """Return a piece in which all lines end with a line feed."""
        if not piece:
            return piece
        if self._follows_return:
            piece = piece.removeprefix(b"\n")
        self._follows_return = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _read(self, line: bytes, found: list[Event]) -> None:
        if not line:
            self._end(found)
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._lines.append(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ")

    def _end(self, found: list[Event]) -> None:
        """An empty line ends an event; one without data is none."""
        if self._lines:
            name = self._name.decode("utf-8", "replace") or "message"
            found.append(Event(name, b"\n".join(self._lines).decode("utf-8", "replace")))
        self._name = b""
        self._lines = []
