"""Turns a sequence's token bytes into text that may be shown: whole characters, and nothing of a stop string (PURE)."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_new_decoder: Final = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Text of one generation, piece by piece.

    Characters are held back until all their bytes are there; bytes that are no UTF-8 become U+FFFD. A suffix that may
    yet grow into a stop string is held back too, so no part of one is ever shown. The result does not depend on how
    the bytes are cut into pieces.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = _new_decoder("replace")
        self._held = ""
        self.is_stopped = False
        """Whether a stop string has come; everything after it is dropped."""

    def feed(self, data: bytes) -> str:
        """Take the next token's bytes; return what may be shown now, often the empty string."""
        return self._take(self._decoder.decode(data))

    def finish(self) -> str:
        """Return what was held back, unless a stop string came; an unfinished character becomes U+FFFD."""
        text = self._take(self._decoder.decode(b"", True)) + self._held
        self._held = ""
        return text

    def _take(self, text: str) -> str:
        if self.is_stopped:
            return ""
        if not self._stops:
            return text
        window = self._held + text
        if (start := self._find_stop(window)) is not None:
            self.is_stopped = True
            self._held = ""
            return window[:start]
        shown = len(window) - self._may_begin_stop(window)
        self._held = window[shown:]
        return window[:shown]

    def _find_stop(self, window: str) -> int | None:
        """Return where the stop string begins that is complete first; of two that end together, the longer.

        "Complete first" and not "begins first": so the result is that of a reader of single characters.
        """
        ends = [(at + len(stop), at) for stop in self._stops if (at := window.find(stop)) >= 0]
        return min(ends)[1] if ends else None

    def _may_begin_stop(self, window: str) -> int:
        """Return the length of the longest suffix that is the beginning of a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(window)), longest, -1):
                if window.endswith(stop[:length]):
                    longest = length
                    break
        return longest
