"""What the run of a request emits, beside its progress: the worker that has the request, then what that generates."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from rbee.adapters.http.event_parser import Event
from rbee.clients import worker
from rbee.wire.queen import TaskHandle

if TYPE_CHECKING:
    from rbee.wire.chat.answer import AnswerEvent
    from rbee.wire.progress import ProgressEvent
    from rbee.wire.worker import Done, Token


class Generated(NamedTuple):
    """An event of the worker's own stream, as it came: it can be passed on without having been read."""

    name: str
    data: str

    def decode(self) -> Token | Done | ProgressEvent | None:
        """Return what it says; None stands for an event of a newer version. Raises the error that it carries."""
        return worker.decode(Event(self.name, self.data))

    def decode_answer(self) -> AnswerEvent | None:
        """Return what it says of an answer that is typed; None for all else. Raises the error that it carries."""
        return worker.decode_answer(Event(self.name, self.data))


RunEvent = TaskHandle | Generated
"""In this order; a request whose worker turned out to be busy may be placed again, and begin anew."""


class Taker(Protocol):
    """Takes the events of a run; one that is slow holds it up, unlike one of its progress (`wire.progress.Report`).

    An error is not an event: the run raises it.
    """

    @property
    def has_room(self) -> bool:
        """Whether it can take an event without waiting."""

    async def wait_for_room(self) -> None:
        """Return when it can."""

    def take(self, event: RunEvent) -> None:
        """Take one event, for which there is room. Raises the error that one of the worker carries."""
