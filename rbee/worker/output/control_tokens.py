"""The control tokens of a vocabulary, as they are looked for in texts (PURE)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class ControlTokens:
    """The control tokens by their names; `ends` are those that end a text.

    `pattern` is a regular expression for the longest name at a place. It fits nowhere if there are none.
    """

    def __init__(self, tokens: Mapping[str, int], ends: Collection[int] = ()) -> None:
        self._tokens = {name: token for name, token in tokens.items() if name}
        self._ends = set(ends)
        self.names: Final = frozenset(self._tokens)
        self.pattern: Final = f"(?:{_any_of(sorted(self.names))})" if self.names else "(?!)"
        self._name: Final = re.compile(self.pattern)

    def split(self, text: str) -> list[str | int]:
        """Return what a text is made of: texts and control tokens, none of them empty."""
        parts: list[str | int] = []
        at = 0
        for found in self._name.finditer(text):
            parts += [text[at : found.start()], self._tokens[found[0]]]
            at = found.end()
        return [part for part in (*parts, text[at:]) if part != ""]

    def others(self, tokens: Iterable[int]) -> list[int]:
        """Return all but these and those that end a text."""
        return sorted(set(self._tokens.values()) - set(tokens) - self._ends)


def _any_of(texts: list[str]) -> str:
    """Return a pattern for the longest of these texts: a tree of how they begin, since there may be thousands."""
    branches: dict[str, list[str]] = {}
    for text in texts:
        if text:
            branches.setdefault(text[0], []).append(text[1:])
    parts = []
    for letter, rest in branches.items():
        parts.append(re.escape(letter + rest[0]) if len(rest) == 1 else re.escape(letter) + _any_of(rest))
    found = parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"
    return f"(?:{found})?" if "" in texts else found
