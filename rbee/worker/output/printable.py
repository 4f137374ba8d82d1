"""Makes texts of strangers fit to be shown: what they say may hold control characters (PURE)."""

from __future__ import annotations


def printable(text: str, instead: str = " ") -> str:
    """Return a text in which `instead` stands for each letter that cannot be printed, line ends among them."""
    return "".join(letter if letter.isprintable() else instead for letter in text)
