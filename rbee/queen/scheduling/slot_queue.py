"""Decides which waiting request gets which slot of the workers that a hive shows (PURE)."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.queen.scheduling.choose_worker import fitting
from rbee.queen.scheduling.known_prompts import KnownPrompts
from rbee.queen.scheduling.place_request import MOST_OF_WAIT
from rbee.queen.scheduling.reservations import Reservations
from rbee.queen.scheduling.turns import CallerTurns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from rbee.queen.hives.mirror import HiveMirror
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.place_request import PlaceRequest
    from rbee.wire.hive import WorkerRow


PACE_TURNS: Final = 8
"""Of so many turns the time between two is the mean."""
RETRY_SECONDS: Final = (1.0, 60.0)
"""The least and the most after which one that finds the line full is told to ask again."""
UNKNOWN_PACE: Final = 5.0


class Turn(NamedTuple):
    """It is this request's turn: at the worker of `row`, or with None to be placed anew, since its workers are gone."""

    waiter: PlaceRequest
    row: WorkerRow | None


class SlotQueue:
    """The requests that wait on one node.

    They wait for what the hive's event stream shows (`mirror`): an answer to a call of ours may be older. Whose turn it
    is, `turns_of` all nodes say, and which worker has read what, `known`. At most `limit` wait; a caller with less than
    its share of them still gets in, until there are twice as many.
    """

    def __init__(
        self,
        limit: int,
        mirror: HiveMirror,
        turns_of: CallerTurns | None = None,
        known: KnownPrompts | None = None,
    ) -> None:
        self.limit = limit
        self.waiters: list[PlaceRequest] = []
        self.reservations = Reservations()
        self._mirror = mirror
        self._turns = CallerTurns() if turns_of is None else turns_of
        self._known = KnownPrompts() if known is None else known
        self._given: dict[str, deque[float]] = {}
        self._held: dict[PlaceRequest, float] = {}

    def is_full(self, caller: str) -> bool:
        """Whether a caller may not wait here with one request more."""
        count = len(self.waiters)
        if count < self.limit:
            return False
        callers = Counter(waiter.caller for waiter in self.waiters)
        share = max(1, self.limit // len({*callers, caller}))
        return count >= 2 * self.limit or callers[caller] >= share

    def retry_after(self, model_ref: str) -> float:
        """Return after how many seconds somebody whom the line was too full for is to ask again.

        A tenth of the line has had its turn then, at the pace of the last turns.
        """
        given = self._given.get(model_ref, deque[float]())
        pace = (given[-1] - given[0]) / (len(given) - 1) if len(given) > 1 else UNKNOWN_PACE
        least, most = RETRY_SECONDS
        return min(max(least, pace * max(1, len(self.waiters) // 10)), most)

    def places(self, now: float) -> Iterator[tuple[PlaceRequest, int]]:
        """Yield each waiting request, with how many for the same model have their turns before it."""
        ahead = Counter[str]()
        for waiter in self._turns.order(self.waiters, now):
            yield waiter, ahead[waiter.wanted.model_ref]
            ahead[waiter.wanted.model_ref] += 1

    def join(self, request: PlaceRequest) -> None:
        """Have a request wait."""
        self.waiters.append(request)
        if request.prompt is not None and (known := self._known.of(request.prompt)) is not None:
            request.known = max(known.read.values(), default=0)

    def remove(self, waiter: PlaceRequest) -> None:
        """Take a request out that waits no longer, if it still does."""
        self._held.pop(waiter, None)
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def is_served(self, rows: Iterable[WorkerRow], wanted: Wanted, now: float) -> bool:
        """Whether any of these workers has a slot left for `wanted`."""
        return any(self.reservations.free(row, now) > 0 for row in fitting(rows, wanted))

    def choose(self, rows: Collection[WorkerRow], request: PlaceRequest, now: float) -> WorkerRow | None:
        """Return the best of these workers that has a slot left for a request.

        None where there is none, or where it is worth to wait for one that has read the beginning of its prompt.
        """
        self._held.pop(request, None)
        fits = fitting(rows, request.wanted)
        free = [row for row in fits if self.reservations.free(row, now) > 0]
        if not free or len(fits) == 1 or request.prompt is None:
            return free[0] if free else None
        if (known := self._known.of(request.prompt)) is None:
            return free[0]
        running = Counter[tuple[str, int]]()
        for row in rows:
            running[row.backend, row.device] += row.slots_total - self.reservations.free(row, now)
        able = [free[0], *(row for row in free if known.knows(row.id))]
        best = min(able, key=lambda row: known.cost(row.id, running[row.backend, row.device]))
        full = max((row for row in fits if row not in free), key=lambda row: known.characters(row.id), default=None)
        if full is not None and request.wait and not self.is_full(request.caller):
            until = (request.waits_since or now) + min(known.patience(full, best), request.wait * MOST_OF_WAIT)
            if now < until:
                self._held[request] = until
                return None
        return best

    def is_held(self, request: PlaceRequest, now: float) -> bool:
        """Whether a request waits for a worker of this node that has read the beginning of its prompt."""
        return request in self._held or (request.stays_until is not None and now < request.stays_until)

    def held_until(self) -> list[float]:
        """Return until when each request that is held here is."""
        stays = [request.stays_until for request in self.waiters if request.stays_until is not None]
        return [*(until for request, until in self._held.items() if request in self.waiters), *stays]

    def reserve(self, row: WorkerRow, request: PlaceRequest, now: float) -> None:
        """Reserve a slot of a worker, which the mirror or an answer of the hive has named."""
        finished = self._mirror.finished[row.id]
        self.reservations.make(row, now, is_shown=row.id in self._mirror.rows, finished=finished)
        if request.prompt is not None:
            known = self._known.of(request.prompt)
            request.known = 0 if known is None else known.characters(row.id)
            self._known.note(request.prompt, row.id)
        self._turns.note(request, now)

    def take(self, request: PlaceRequest, now: float) -> WorkerRow | None:
        """Reserve a slot that is free now, at a worker that has loaded its model, for a request of another node."""
        if (row := self.choose(self.loaded_and_free(now), request, now)) is not None:
            self.reserve(row, request, now)
        return row

    def loaded_and_free(self, now: float) -> list[WorkerRow]:
        """Return the workers that have loaded their models, and have slots left."""
        return [row for row in self._look(now) if row.state != "loading" and self.reservations.free(row, now) > 0]

    def _look(self, now: float) -> Collection[WorkerRow]:
        """Return the workers as they are shown, after what that says of the reservations has been noted."""
        if self._mirror.is_live:
            self.reservations.update(self._mirror.rows, now)
        self.reservations.lapse(now)
        return self._mirror.rows.values() if self._mirror.is_live else ()

    def turns(self, now: float) -> list[Turn]:
        """Take out the requests whose turn it is now, and reserve their slots."""
        rows, turns = self._look(now), list[Turn]()
        if not self._mirror.is_live:
            return []
        for waiter in self._turns.order(self.waiters, now):
            row = self.choose(rows, waiter, now)
            if row is None and fitting(rows, waiter.wanted):
                continue
            if row is not None:
                self.reserve(row, waiter, now)
                self._given.setdefault(waiter.wanted.model_ref, deque(maxlen=PACE_TURNS)).append(now)
            self.remove(waiter)
            turns.append(Turn(waiter, row))
        return turns
