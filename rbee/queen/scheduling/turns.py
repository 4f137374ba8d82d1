"""Decides whose turn it is where several callers wait: free slots go round callers, not requests (PURE)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rbee.queen.scheduling.place_request import PlaceRequest

OVERDUE_SECONDS: Final = 60.0
"""A caller that waits, and has got nothing for so long, goes before all others: those who have just come would else
go before it for ever, if there are always some."""
MAX_REMEMBERED: Final = 1000
"""Callers whose last turn is known; one that is forgotten is as one that has just come."""


class _Turn(NamedTuple):
    """A caller's last turn: its number among all turns, and when it was."""

    number: int
    at: float


class CallerTurns:
    """When each caller has last got a slot, for each model. Times are seconds of one monotonic clock.

    The one that has gone without for the longest is next, with its oldest request; one that has just come has gone
    without for ever. So whoever has one request waits for one turn of each other caller, however many those wait with.
    Requests that nobody waits for let all others go first, until they are overdue.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], _Turn] = OrderedDict()
        self._count = 0

    def note(self, request: PlaceRequest, now: float) -> None:
        """A request has got a slot."""
        self._count += 1
        key = (request.wanted.model_ref, request.caller)
        self._last[key] = _Turn(self._count, now)
        self._last.move_to_end(key)
        while len(self._last) > MAX_REMEMBERED:
            self._last.popitem(last=False)

    def order(self, waiting: Iterable[PlaceRequest], now: float) -> list[PlaceRequest]:
        """Return the requests in the order in which slots are given to them, if nobody else comes.

        Of one caller the oldest goes first; those for different models are in no order among each other.
        """
        lines: dict[str, dict[tuple[str, bool], list[PlaceRequest]]] = {}
        for request in waiting:
            line = lines.setdefault(request.wanted.model_ref, {})
            line.setdefault((request.caller, request.is_batch), []).append(request)
        return [request for line in lines.values() for request in self._round(list(line.values()), now)]

    def _round(self, line: list[list[PlaceRequest]], now: float) -> list[PlaceRequest]:
        """Return the order of one line, which is given as the requests of each caller."""
        for requests in line:
            requests.sort(key=lambda request: request.waits_since)
        ranked = sorted(((self._rank(requests[0], now), number) for number, requests in enumerate(line)))
        soon, late = [], []
        for (is_not_overdue, *_), number in ranked:
            requests = line[number]
            if not requests[0].is_batch:
                soon.append(requests)
                continue
            due = 0 if is_not_overdue else 1
            soon.append(requests[:due])
            late.append(requests[due:])
        return [*_in_turn(soon), *_in_turn(late)]

    def _rank(self, oldest: PlaceRequest, now: float) -> tuple[float, ...]:
        """Return where a caller stands among the others: those that are overdue first, then who has gone without."""
        since = oldest.waits_since
        last = self._last.get((oldest.wanted.model_ref, oldest.caller), _Turn(0, since))
        overdue_since = max(last.at, since)
        if overdue_since + OVERDUE_SECONDS <= now:
            return 0, overdue_since
        return 1, last.number, since


def _in_turn(queues: Sequence[list[PlaceRequest]]) -> list[PlaceRequest]:
    """Return the first of each, then the second of each, and so on."""
    longest = max(map(len, queues), default=0)
    return [queue[number] for number in range(longest) for queue in queues if number < len(queue)]
