"""Turns a sequence's token bytes into text that may be shown: whole characters, and nothing of a stop string (PURE)."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Final

from rbee.worker.output.stop_strings import StopStrings

if TYPE_CHECKING:
    from collections.abc import Sequence

_new_decoder: Final = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Text of one generation, piece by piece.

    Characters are held back until all their bytes are there; bytes that are no UTF-8 become U+FFFD. A suffix that may
    yet grow into a stop string is held back too, so no part of one is ever shown. The result does not depend on how
    the bytes are cut into pieces. Where `worker.output` reads the text, stop strings are its: they end the answer
    alone, and not what the model thinks or calls.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = StopStrings(stops)
        self._decoder = _new_decoder("replace")

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string has come; everything after it is dropped."""
        return self._stops.found is not None

    def feed(self, data: bytes) -> str:
        """Take the next token's bytes; return what may be shown now, often the empty string."""
        return self._stops.feed(self._decoder.decode(data))

    def finish(self) -> str:
        """Return what was held back, unless a stop string came; an unfinished character becomes U+FFFD."""
        return self._stops.feed(self._decoder.decode(b"", True)) + self._stops.flush()
