"""Splits a log into lines that may leave the machine: without stacks, absolute paths and secrets."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any, Final, NamedTuple

from rbee.wire.logs import LogLine

MAX_LINE: Final = 65536
"""Bytes of one line; the rest of a longer one is dropped."""
_STACK: Final = re.compile(r"Traceback \(most recent call last\):|.*\(most recent call first\):|Extension modules: ")
"""How the interpreter begins a stack (traceback, faulthandler), which is the indented lines that follow."""
_FOLDERS: Final = re.compile(r"(?<![\w:/.~-])~?/(?!v[12]/)(?:[^\s/'\"]+/)+")
"""The folders of an absolute path. Not those of a URL, a path of our HTTP interface, or a model's reference."""
_SECRET: Final = re.compile(r"rbee_[A-Za-z0-9_-]{16,}")


class Stacks:
    """Drops the stacks that the interpreter writes, line by line: they are for the log alone."""

    def __init__(self) -> None:
        self._inside = False

    def keeps(self, line: str) -> bool:
        """Whether the next line belongs to no stack."""
        if _STACK.match(line):
            self._inside = True
        elif not (self._inside and line.startswith(" ")):
            self._inside = False
        return not self._inside


class Entry(NamedTuple):
    """A line, and when it was written: `at` is the time of the last line before it that has one, as text that sorts."""

    at: str
    line: LogLine


class Lines:
    """Takes the bytes of one log as they come."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._stacks = Stacks()
        self._begun = b""
        self._at = ""

    def feed(self, data: bytes) -> list[Entry]:
        """Return the lines that are complete now."""
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = self._begun + whole[0]
            self._begun = b""
        # A writer that never ends a line must not fill our memory.
        self._begun = (self._begun + rest)[: MAX_LINE + 1]
        return [entry for line in whole for entry in self._take(line)]

    def end(self) -> list[Entry]:
        """Return the last line if it has no end: no more is coming."""
        begun, self._begun = self._begun, b""
        return self._take(begun)

    def note(self, message: str) -> Entry:
        """Return a line of our own."""
        return Entry(self._at, LogLine(source=self._source, message=message, level="warning"))

    def _take(self, data: bytes) -> list[Entry]:
        text = data[:MAX_LINE].decode("utf-8", "replace").rstrip()
        if len(data) > MAX_LINE:
            text += "…"
        if not text or not self._stacks.keeps(text):
            return []
        line = self._read(text)
        if line.time is not None:
            self._at = line.time
        return [Entry(self._at, line)]

    def _read(self, text: str) -> LogLine:
        found: Any = None
        if text.startswith("{"):
            with suppress(ValueError, RecursionError):  # native code may write braces too
                found = json.loads(text)
        if not isinstance(found, dict) or not isinstance(message := found.get("message"), str):
            return LogLine(source=self._source, message=public(text))
        if isinstance(trace := found.get("traceback"), str):
            # The kind of failure only: the rest of its last line may quote anything.
            message += f" ({trace.rstrip().rpartition(chr(10))[2].partition(':')[0]})"
        return LogLine(
            source=self._source,
            message=public(message),
            time=_text(found.get("time")),
            level=_text(found.get("level")),
            correlation_id=_text(found.get("correlation_id")),
        )


def _text(value: object) -> str | None:
    return public(value[:64]) if isinstance(value, str) else None


def public(text: str) -> str:
    """Return `text`, as valid UTF-8, without what must not leave its machine."""
    shown = _SECRET.sub("rbee_…", _FOLDERS.sub("…/", text))
    return shown.encode("utf-8", "replace").decode()
