"""Splits lines of ssh_config into keyword and arguments, and matches its patterns. (PURE)"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEYWORD: Final = re.compile(r'\s*"?([A-Za-z0-9]+)"?(?:\s*=\s*|\s+|$)')
_ESCAPED: Final = "\"'\\ "


def keyword(line: str) -> tuple[str, str]:
    """Return the keyword in lower case and what follows it; empty ones for a comment."""
    found = _KEYWORD.match(line)
    return ("", "") if found is None else (found[1].lower(), line[found.end() :].strip())


def arguments(text: str) -> list[str]:
    """Return the arguments, without quotes and a comment at the end. Raises ValueError where a quote has no end."""
    if not any(mark in text for mark in "\"'\\#"):
        return text.split()
    found: list[str] = []
    index = 0
    while index < len(text):
        if text[index].isspace():
            index += 1
        elif text[index] == "#":
            break
        else:
            word, index = _word(text, index)
            found.append(word)
    return found


def _word(text: str, index: int) -> tuple[str, int]:
    """Return the word that begins at `index`, and where it ends; as argv_split of OpenSSH's misc.c."""
    word: list[str] = []
    quote = ""
    while index < len(text):
        mark = text[index]
        if mark == "\\" and text[index + 1 : index + 2] in tuple(_ESCAPED) and (not quote or text[index + 1] != " "):
            index += 1
            word.append(text[index])
        elif not quote and mark.isspace():
            break
        elif not quote and mark in "\"'":
            quote = mark
        elif mark == quote:
            quote = ""
        else:
            word.append(mark)
        index += 1
    if quote:
        raise ValueError("a quotation mark has no end")
    return "".join(word), index


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(mark) or re.escape(mark) for mark in text), re.DOTALL)


def matches(name: str, pattern: str) -> bool:
    """Whether one pattern matches, in which `*` and `?` alone stand for others (ssh_config(5), PATTERNS)."""
    if "*" not in pattern and "?" not in pattern:
        return name == pattern
    return _pattern(pattern).fullmatch(name) is not None


def matches_list(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns matches, and none of those that begin with an exclamation mark."""
    found = False
    for pattern in patterns:
        if pattern.startswith("!"):
            if matches(name, pattern[1:]):
                return False
        elif not found:
            found = matches(name, pattern)
    return found
