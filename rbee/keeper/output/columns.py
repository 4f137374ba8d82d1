"""Measures and cuts text by the columns that a terminal needs for it (PURE)."""

from __future__ import annotations

import unicodedata
from typing import Final

_NO_COLUMN: Final = ("Mn", "Me", "Cf")
"""Accents, and signs that join or shape their neighbours (Unicode's general categories)."""
_EMOJI_STYLE: Final = "\N{VARIATION SELECTOR-16}"
"""Has the sign before it drawn as an emoji, which is one column wider."""


def columns(text: str) -> int:
    """Return how many columns a terminal needs for text without control characters (Unicode, annex 11)."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cut_end(text: str, room: int) -> str:
    """Return the beginning of the text that fits; an ellipsis stands for the rest."""
    if columns(text) <= room:
        return text
    return _fitting(text, room - 1) + "…"


def cut_start(text: str, room: int) -> str:
    """Return the end of the text that fits; an ellipsis stands for the rest."""
    if columns(text) <= room:
        return text
    kept = _fitting(text[::-1], room - 1)
    while kept and _width(kept[-1]) == 0:
        kept = kept[:-1]  # an accent whose letter is cut away
    return "…" + kept[::-1]


def wrap(text: str, room: int) -> list[str]:
    """Return the text in lines that fit, broken behind a blank where there is one, and anywhere else."""
    lines: list[str] = []
    while columns(text) > room:
        part = _fitting(text, room) or text[0]
        if " " in part and not text.startswith(" ", len(part)):
            part = part[: part.rindex(" ") + 1]
        lines.append(part.rstrip(" "))
        text = text[len(part) :].lstrip(" ")
    return [*lines, text] if text or not lines else lines


def pad(text: str, room: int, *, right: bool = False) -> str:
    """Return the text with blanks behind it, or before it with `right`, to so many columns."""
    blanks = " " * (room - columns(text))
    return blanks + text if right else text + blanks


def _fitting(letters: str, room: int) -> str:
    """Return the first letters that need no more than so many columns."""
    used = 0
    for index, letter in enumerate(letters):
        used += _width(letter)
        if used > room:
            return letters[:index]
    return letters


def _width(char: str) -> int:
    if unicodedata.category(char) in _NO_COLUMN and char != _EMOJI_STYLE:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
