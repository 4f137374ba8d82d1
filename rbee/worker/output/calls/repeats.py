"""Notices a call that was made before in the same answer, while it is written (PURE)."""

from __future__ import annotations

import re
from typing import Final

_LONGEST: Final = 4000
"""Characters of arguments that are compared: each time that they grow, all of them are looked at."""
_STRING_OR_SPACE: Final = re.compile(r'("(?:\\.|[^"\\])*"?)|\s+', re.DOTALL)


class CallRepeats:
    """The calls of an answer: of the one that is being written it is known whether it may yet be one of the others."""

    def __init__(self) -> None:
        self._made: list[tuple[str, str]] = []
        self._candidates: list[str] = []
        self._name = ""
        self._written = ""

    def begin(self, name: str) -> None:
        """A call begins."""
        self._name, self._written = name, ""
        self._candidates = [arguments for made, arguments in self._made if made == name]

    def add(self, text: str) -> None:
        """Its arguments go on."""
        if len(self._written) > _LONGEST:
            self._candidates = []
            return
        self._written += text
        if self._candidates:
            written = _without_space(self._written)
            self._candidates = [arguments for arguments in self._candidates if arguments.startswith(written)]

    @property
    def is_open(self) -> bool:
        """Whether what has come of it is the beginning of an earlier one."""
        return bool(self._candidates)

    def end(self) -> bool:
        """It is complete; return whether it repeats an earlier one."""
        arguments = _without_space(self._written)
        is_repeated = arguments in self._candidates
        self._candidates = []
        if not is_repeated and len(arguments) <= _LONGEST:
            self._made.append((self._name, arguments))
        return is_repeated

    def mark(self) -> int:
        """Return what `go_back` needs."""
        return len(self._made)

    def go_back(self, mark: int) -> None:
        """Forget the calls since."""
        del self._made[mark:]
        self._candidates = []


def _without_space(text: str) -> str:
    """Return the beginning of a JSON text without the white space between its parts."""
    return _STRING_OR_SPACE.sub(lambda found: found[1] or "", text)
