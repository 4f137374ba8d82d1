"""Measures and cuts text by the columns that a terminal needs for it (PURE)."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def columns(text: str) -> int:
    """Return how many columns a terminal needs for text without control characters (Unicode, annex 11)."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cut_end(text: str, room: int) -> str:
    """Return the beginning of the text that fits; an ellipsis stands for the rest."""
    if columns(text) <= room:
        return text
    return _fitting(text, room) + "…"


def cut_start(text: str, room: int) -> str:
    """Return the end of the text that fits; an ellipsis stands for the rest."""
    if columns(text) <= room:
        return text
    return "…" + _fitting(text[::-1], room)[::-1]


def pad(text: str, room: int, *, right: bool = False) -> str:
    """Return the text with blanks behind it, or before it with `right`, to so many columns."""
    blanks = " " * (room - columns(text))
    return blanks + text if right else text + blanks


def _fitting(letters: Iterable[str], room: int) -> str:
    kept, used = [], 1  # the ellipsis
    for letter in letters:
        used += _width(letter)
        if used > room:
            break
        kept.append(letter)
    return "".join(kept)


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
