"""Finds the names that one which does not exist may mean (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LIKENESS: Final = 0.7
"""How alike a word and a name must be: for difflib "node" and "models" are 0.6, "infre" and "infer" 0.8."""


def nearest(word: str, names: Iterable[str]) -> list[str]:
    """Return the names that a word is or begins, in capital letters or not, else the one that it may misspell."""
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(name.casefold(), []).append(name)
    word = word.casefold()
    if word in folded:
        return folded[word]
    if word and (longer := [name for key, same in folded.items() if key.startswith(word) for name in same]):
        return longer
    import difflib  # not for a command line that is right

    return [name for key in difflib.get_close_matches(word, folded, n=1, cutoff=LIKENESS) for name in folded[key]]


def did_you_mean(word: str, names: Iterable[str]) -> str | None:
    """Return the question of a hint, where there is a name to ask about; at most three are named."""
    found = nearest(word, names)
    return f"did you mean {' or '.join(found)}?" if 0 < len(found) <= 3 else None
