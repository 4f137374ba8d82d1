"""Reads the text of a model that is no conversation: all of it is the answer, up to a stop string (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee.wire.chat.answer import TextDelta
from rbee.worker.output.stop_strings import StopStrings

if TYPE_CHECKING:
    from collections.abc import Sequence


class PlainText:
    """A parser as `worker.output.parser.OutputParser` is one, for the choice of a number."""

    calls: Final = 0
    channel: Final = "text"

    def __init__(self, number: int, stops: Sequence[str]) -> None:
        self._number = number
        self._stops = StopStrings(stops)

    @property
    def stop_string(self) -> str | None:
        return self._stops.found

    @property
    def is_done(self) -> bool:
        return self._stops.found is not None

    def feed(self, text: str) -> list[TextDelta]:
        return self._pieces(self._stops.feed(text))

    def finish(self) -> list[TextDelta]:
        return [] if self.is_done else self._pieces(self._stops.flush())

    def _pieces(self, text: str) -> list[TextDelta]:
        return [TextDelta(choice=self._number, text=text)] if text else []
