"""Ends a text where a stop string comes, and shows nothing of it (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class StopStrings:
    """Text piece by piece, of which what may yet grow into a stop string is held back.

    The result does not depend on how the text is cut into pieces.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found: str | None = None
        """The stop string that has come; everything from it on is dropped."""

    def feed(self, text: str) -> str:
        """Take more text; return what may be shown now, often the empty string."""
        if self.found is not None:
            return ""
        if not self._stops:
            return text
        window = self._held + text
        if (stop := self._first(window)) is not None:
            self._held = ""
            self.found = stop
            return window[: window.index(stop)]
        shown = len(window) - self._may_begin(window)
        self._held = window[shown:]
        return window[:shown]

    def flush(self) -> str:
        """Return what is held back: nothing that follows belongs to it."""
        text, self._held = self._held, ""
        return text

    def _first(self, window: str) -> str | None:
        """Return the stop string that is complete first; of two that end together, the longer.

        "Complete first" and not "begins first": so the result is that of a reader of single characters.
        """
        ends = [(at + len(stop), at, stop) for stop in self._stops if (at := window.find(stop)) >= 0]
        return min(ends)[2] if ends else None

    def _may_begin(self, window: str) -> int:
        """Return the length of the longest suffix that is the beginning of a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(window)), longest, -1):
                if window.endswith(stop[:length]):
                    longest = length
                    break
        return longest
