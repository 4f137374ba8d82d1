"""Looks at a model's header while its file is fetched: what could not be used here is not fetched to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee.adapters.download import fetch
from rbee.errors import ModelLoadFailedError
from rbee.hive.catalogue import locate
from rbee.narrower_errors import UnsupportedModelError
from rbee.wire import model_kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIRST_BYTES: Final = 1 << 20
"""When to look first; then whenever there is twice as much, since a vocabulary takes 1 to 40 MB."""
MOST_BYTES: Final = 1 << 28
"""No header is longer; what has none until here is not looked at again."""


class EarlyLook:
    """Passes on the progress of one file on its way to `to`, and looks at it meanwhile.

    Only what a sound header says ends the fetch. Anything else is left to the file's hash, and to whoever loads it.
    """

    def __init__(self, to: Path, size: int, report: Callable[[fetch.Step | fetch.Retry], None]) -> None:
        self._to = to
        self._partial = to.with_name(f"{to.name}.part")
        self._size = size
        self._report = report
        self._next: float = min(FIRST_BYTES, size)

    def on_fetch(self, event: fetch.Step | fetch.Retry) -> None:
        """Take an event of the fetch. Raises ModelLoadFailedError, with the partial file removed."""
        self._report(event)
        if isinstance(event, fetch.Step) and event.bytes_done >= self._next:
            self._next = min(2 * event.bytes_done, self._size) if event.bytes_done < MOST_BYTES else float("inf")
            self._look()

    def _look(self) -> None:
        try:
            header = locate.read_beginning(self._partial, self._size)
            self._next = float("inf")
            refusal = model_kind.refusal(header, self._to.name)
        except UnsupportedModelError as exc:
            refusal = exc
        except ModelLoadFailedError:
            return  # as long as the header is not whole
        if refusal is None:
            return
        # Its lock goes with the fetch; the next one begins with a file of its own.
        self._partial.unlink(missing_ok=True)
        self._partial.with_name(f"{self._partial.name}.etag").unlink(missing_ok=True)
        raise refusal
