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
PREFIX_SECONDS: Final = 10.0
"""For so long a request lets others of its caller go first of which workers have read more: what they have read may
have had to make room by then."""
MAX_REMEMBERED: Final = 1000
"""Callers whose last turn is known; one that is forgotten is as one that has just come."""


class _Turn(NamedTuple):
    """A caller's last turn: its number among all turns, and when it was."""

    number: int
    at: float


class CallerTurns:
    """When each caller has last got a slot, for each model. Times are seconds of one monotonic clock.

    The one that has gone without for the longest is next, with the request of whose prompt a worker has read most, or
    with one that has let such requests go first for long enough. One that has just come has gone without for ever: so
    whoever has one request waits for one turn of each other caller, however many those wait with.
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

        Those for different models are in no order among each other.
        """
        lines: dict[str, dict[tuple[str, bool], list[PlaceRequest]]] = {}
        for request in waiting:
            line = lines.setdefault(request.wanted.model_ref, {})
            line.setdefault((request.caller, request.is_batch), []).append(request)
        return [request for line in lines.values() for request in self._round(list(line.values()), now)]

    def _round(self, line: list[list[PlaceRequest]], now: float) -> list[PlaceRequest]:
        """Return the order of one line, which is given as the requests of each caller."""
        for requests in line:
            requests.sort(key=lambda request: _order_of_one(request, now))
        ranked = sorted(((self._rank(requests, now), number) for number, requests in enumerate(line)))
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

    def _rank(self, requests: Sequence[PlaceRequest], now: float) -> tuple[float, ...]:
        """Return where a caller stands among the others: those that are overdue first, then who has gone without."""
        since = min(request.waits_since for request in requests)
        last = self._last.get((requests[0].wanted.model_ref, requests[0].caller), _Turn(0, since))
        overdue_since = max(last.at, since)
        if overdue_since + OVERDUE_SECONDS <= now:
            return 0, overdue_since
        return 1, last.number, since


def _order_of_one(request: PlaceRequest, now: float) -> tuple[float, ...]:
    """Return where a request stands among the others of its caller."""
    since = request.waits_since
    return (0, since) if since + PREFIX_SECONDS <= now else (1, -request.known, since)


def _in_turn(queues: Sequence[list[PlaceRequest]]) -> list[PlaceRequest]:
    """Return the first of each, then the second of each, and so on."""
    longest = max(map(len, queues), default=0)
    return [queue[number] for number in range(longest) for queue in queues if number < len(queue)]
