"""Reads the end of a log for people: the last lines before something went wrong."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rbee.adapters.logs.redaction import Stacks

if TYPE_CHECKING:
    from pathlib import Path

LAST_LINES: Final = 20
MAX_BYTES: Final = 65536
"""How much of a log is read; what is older is not news."""
MAX_WIDTH: Final = 500
"""Characters of one line; a longer one is cut."""


def last_lines(path: Path, count: int = LAST_LINES) -> list[str]:
    """Return the last lines of the log `path`, oldest first; what was rotated away stands before it.

    A line of ours becomes its message; one that native code or the interpreter wrote stays, but for the interpreter's
    stacks, which are for the log alone. Nothing in them can draw on a terminal. Empty when there is no such file.
    """
    found: list[str] = []
    for file in (path, path.with_name(f"{path.name}.1")):
        if len(found) < count:
            found[:0] = [line for raw in filter(Stacks().keeps, _read(file)) for line in _messages(raw)]
    return found[-count:]


def _read(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - MAX_BYTES)
            file.seek(start)
            lines = file.read(MAX_BYTES).decode("utf-8", "replace").split("\n")
    except OSError:
        return []
    # Where reading began is seldom where a line begins, and half a JSON object is of no use.
    return lines[1:] if start and len(lines) > 1 else lines


def _messages(line: str) -> list[str]:
    """Return the message of a line of the log, line by line; none where it is empty."""
    message = line
    if line.startswith("{"):
        with suppress(ValueError, KeyError, RecursionError):  # native code may write braces too
            message = json.loads(line)["message"]
    return [clean for part in str(message).splitlines() if (clean := _clean(part))]


def _clean(text: str) -> str:
    letters = text.expandtabs(4).rstrip()[:MAX_WIDTH]
    shown = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in letters)
    return shown if len(shown) < MAX_WIDTH else f"{shown[: MAX_WIDTH - 1]}…"
