"""Decides how the requests for one node get a worker: what happened goes in, what to do comes out (PURE).

Times are seconds of one monotonic clock, passed in by the caller. Nothing here asks, starts or waits for anything; the
effects returned say what is to be done, and what comes of it is reported back as a further event. There is at most one
start of the hive at a time, and at most one of each kind of worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee.errors import (
    AllSlotsBusyError,
    AlreadyRunningError,
    CancelledError,
    ConnectionTimeoutError,
    DrainingError,
    RbeeError,
)
from rbee.narrower_errors import LineFullError, WorkerDrainingError
from rbee.queen.scheduling.choose_worker import choose_worker
from rbee.queen.scheduling.effects import (
    AnswerHive,
    AnswerPlace,
    CancelStart,
    Effect,
    EnsureHive,
    ListWorkers,
    ReportProgress,
    StartWorker,
)
from rbee.queen.scheduling.hive_start import SUCCESSION_SECONDS, HiveStart
from rbee.queen.scheduling.place_request import HiveRequest, Placed, PlaceRequest
from rbee.queen.scheduling.shared_start import SharedStart
from rbee.queen.scheduling.slot_queue import SlotQueue
from rbee.wire.common import Narration

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rbee.queen.hives.mirror import HiveMirror
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.known_prompts import KnownPrompts
    from rbee.queen.scheduling.turns import CallerTurns
    from rbee.wire.hive import SpawnReply, WorkerRow
    from rbee.wire.progress import ProgressEvent

_WAITED_HINT: Final = "wait for longer (--wait), use another node (--node), or set more `slots` under [worker]"
_AT_READER: Final = " of the worker that has read the beginning"
_FULL_HINT: Final = "try again later, use another node (--node), or raise `max_waiting` under [queen]"
LOST_SECONDS: Final = 1.0
"""For a hive to be gone that was found and then does not answer: it may be about to end."""


class NodeScheduler:
    """The requests of one node, from their arrival to their answer; `mirror` shows the workers of its hive.

    `elsewhere` reserves a slot on another node, where one is free for a request that may go there; `turns_of` all nodes
    say whose turn it is, and `known` which workers have read what.
    """

    def __init__(
        self,
        name: str,
        mirror: HiveMirror,
        max_waiting: int,
        elsewhere: Callable[[PlaceRequest], Placed | None] = lambda _: None,
        turns_of: CallerTurns | None = None,
        known: KnownPrompts | None = None,
    ) -> None:
        self._name = name
        self._elsewhere = elsewhere
        self._mirror = mirror
        self._unanswered: dict[PlaceRequest | HiveRequest, None] = {}
        self._hive = HiveStart()
        self._starts: dict[Wanted, SharedStart] = {}
        self._queue = SlotQueue(max_waiting, mirror, turns_of, known)
        self._retry_at: dict[PlaceRequest, float] = {}

    # Requests come and go.

    def on_request(self, request: PlaceRequest, now: float) -> list[Effect]:
        """A request for a worker has come. One that waits for a slot already goes first."""
        self._unanswered[request] = None
        return [*self._give_slots(now), *self._place(request, now)]

    def on_hive_request(self, request: HiveRequest, now: float) -> list[Effect]:
        """A request for the hive itself has come."""
        self._unanswered[request] = None
        return self._wait_for_hive(request, now)

    def on_given_up(self, request: PlaceRequest | HiveRequest, _now: float) -> list[Effect]:
        """The caller of a request has gone."""
        self._unanswered.pop(request, None)
        self._hive.leave(request)
        if isinstance(request, HiveRequest):
            return []
        self._retry_at.pop(request, None)
        self._queue.remove(request)
        if (start := self._starts.get(request.wanted)) is None:
            return []
        start.leave(request)
        return [CancelStart(request.wanted)] if start.is_unwanted else []

    def on_stop(self, _now: float) -> list[Effect]:
        """The queen shuts down: that is the answer to every request which has none yet."""
        return [
            self._answer(request, DrainingError("the queen is shutting down")) for request in list(self._unanswered)
        ]

    # Requests that may go to another node.

    def movable(self, now: float) -> list[PlaceRequest]:
        """Return the requests that wait for a slot, and may go to another node."""
        return [request for request in self._patient() if request.may_move and not self._queue.is_held(request, now)]

    def has_free(self, now: float) -> bool:
        """Return whether any slot is free at a worker that has loaded its model."""
        return any(self._queue.loaded_and_free(now))

    def take_free(self, request: PlaceRequest, now: float) -> Placed | None:
        """Reserve a slot for a request that waits on another node; those that wait here have gone first."""
        row = self._queue.take(request, now)
        return None if row is None else Placed(row.id, row.url, row.state, self._name)

    def awaited(self) -> list[str]:
        """Return the workers that requests were sent to which have not been seen there: they had better stay."""
        return self._queue.reservations.awaited(self._mirror.finished)

    def why_full(self, wanted: Wanted, caller: str, now: float) -> LineFullError | None:
        """Return why a request that would wait for a slot here would be refused now, if it would."""
        rows = self._mirror.rows.values() if self._mirror.is_live else ()
        is_served = choose_worker(rows, wanted) is None or self._queue.is_served(rows, wanted, now)
        return None if is_served or not self._queue.is_full(caller) else self._line_full(wanted)

    def on_moved(self, request: PlaceRequest, placed: Placed, _now: float) -> list[Effect]:
        """A slot of another node is reserved for a request that waits here."""
        self._queue.remove(request)
        self._retry_at.pop(request, None)
        return self._send_elsewhere(request, placed)

    # The hive.

    def on_hive_progress(self, event: ProgressEvent, _now: float) -> list[Effect]:
        """The hive's start reports something."""
        return [ReportProgress(request, event) for request in self._hive.waiting]

    def on_hive_up(self, url: str, now: float) -> list[Effect]:
        """The hive answers at `url`. It is asked for its workers only where the mirror does not show them."""
        effects: list[Effect] = []
        unsure: list[PlaceRequest] = []
        for request in self._hive.end():
            if isinstance(request, HiveRequest):
                del self._unanswered[request]
                effects.append(AnswerHive(request, url))
            elif request.must_ask or not self._mirror.is_live:
                unsure.append(request)
            else:
                effects += self._place_or_start(request, self._mirror.rows.values(), url, now)
        return [*effects, ListWorkers(url, unsure)] if unsure else effects

    def on_hive_failed(self, error: RbeeError, now: float) -> list[Effect]:
        """The hive could be neither found nor started.

        One that starts already has not said yet where it is: a queen that was killed meanwhile had started it, or a
        user. It is waited for.
        """
        uninformed: list[PlaceRequest | HiveRequest] = []
        if isinstance(error, AlreadyRunningError):
            refused, uninformed = self._hive.postpone(now)
        else:
            refused = self._hive.end()
        human = "A hive starts or ends there already; waiting for it"
        return [
            *(effect for request in refused for effect in self._refuse(request, error, now)),
            *(self._narrate(request, "wait", human) for request in uninformed),
        ]

    def on_workers_listed(
        self, requests: list[PlaceRequest], url: str, rows: list[WorkerRow], now: float
    ) -> list[Effect]:
        """The hive at `url` has said which workers it has."""
        waiting = [request for request in requests if request in self._unanswered]
        return [effect for request in waiting for effect in self._place_or_start(request, rows, url, now)]

    def on_list_failed(self, requests: list[PlaceRequest], error: RbeeError, now: float) -> list[Effect]:
        """The hive did not say which workers it has."""
        waiting = [request for request in requests if request in self._unanswered]
        return [effect for request in waiting for effect in self._refuse(request, error, now, was_there=True)]

    def on_hive_lost(self, now: float) -> list[Effect]:
        """The hive's event stream was lost: a slot that gets free would not show any more."""
        for request in list(self._queue.waiters):
            self._queue.remove(request)
            self._retry(request, now)
        return []

    # The start of a worker.

    def on_start_progress(self, wanted: Wanted, event: ProgressEvent, _now: float) -> list[Effect]:
        """The hive reports how far a start is."""
        start = self._starts[wanted]
        start.on_progress(event)
        if start.is_unwanted:
            return [CancelStart(wanted)]
        return [ReportProgress(request, event) for request in start.waiting]

    def on_started(self, wanted: Wanted, result: SpawnReply | RbeeError, now: float) -> list[Effect]:
        """A start of a worker has ended, well or not."""
        effects: list[Effect] = []
        for request in self._starts.pop(wanted).waiting:
            match result:
                case CancelledError():
                    effects += self._place(request, now)  # it came when the download was ending already
                case RbeeError():
                    result.details.setdefault("node", self._name)
                    effects += self._refuse(request, result, now, was_there=True)
                case _ if request.wait:
                    request.must_ask = True  # it may not be the first there, and the mirror may be late
                    effects += self._place(request, now)
                case _:
                    effects.append(self._answer(request, Placed(result.worker_id, result.url, result.state)))
        return effects

    # Time passes.

    def due(self) -> float | None:
        """When `tick` has something to do next."""
        patience = [request.waits_until for request in self._patient()]
        held = self._queue.held_until()
        times = [*patience, *held, *self._retry_at.values(), self._queue.reservations.due(), self._hive.again_at]
        return min((time for time in times if time is not None), default=None)

    def tick(self, now: float) -> list[Effect]:
        """Do what is due. To be called after each event too, which may have freed a slot."""
        effects = self._give_slots(now)
        for request in self._patient():
            if request.waits_until is not None and request.waits_until <= now:
                self._queue.remove(request)
                self._retry_at.pop(request, None)
                message = f"no slot got free within the {request.wait:g} s that the request waited"
                effects.append(
                    self._answer(request, AllSlotsBusyError(message, hint=_WAITED_HINT, waited_s=request.wait))
                )
        effects += self._release(now)
        for request in [request for request, time in self._retry_at.items() if time <= now]:
            del self._retry_at[request]
            effects += self._place(request, now)
        if self._hive.begin_again(now):
            effects.append(EnsureHive(self._hive.waiting[0]))
        return [*effects, *self._tell_places(now)]

    def _release(self, now: float) -> list[Effect]:
        """Send those elsewhere that have waited for a worker of this node for as long as that is worth it."""
        effects: list[Effect] = []
        for request in list(self._queue.waiters):
            if request.stays_until is not None and request.stays_until <= now:
                request.stays_until = None
                if request.may_move and (placed := self._elsewhere(request)) is not None:
                    self._queue.remove(request)
                    effects += self._send_elsewhere(request, placed)
        return effects

    def _tell_places(self, now: float) -> list[Effect]:
        """Tell those that wait in line where they are, if that has changed."""
        effects: list[Effect] = []
        for request, ahead in self._queue.places(now):
            if ahead != request.told_ahead:
                request.told_ahead = ahead
                human = f"Waiting for a slot, {_place(ahead)}"
                effects.append(self._narrate(request, "wait", human))
        return effects

    def _patient(self) -> list[PlaceRequest]:
        """Return the requests that wait for a slot, and those that did and are about to be placed once more."""
        return [*self._queue.waiters, *self._retry_at]

    # What follows.

    def _place(self, request: PlaceRequest, now: float) -> list[Effect]:
        """Place a request at a worker that starts or that the mirror shows, else at one that the hive is to name."""
        if (start := self._starts.get(request.wanted)) is not None:
            return self._join(start, request)
        rows = self._mirror.rows.values() if self._mirror.is_live and not request.must_ask else ()
        return self._place_at(request, rows, now) or self._wait_for_hive(request, now)

    def _place_or_start(self, request: PlaceRequest, rows: Collection[WorkerRow], url: str, now: float) -> list[Effect]:
        """Place a request at one of these workers, which are all that the hive at `url` has, or have it start one."""
        if (start := self._starts.get(request.wanted)) is not None:
            return self._join(start, request)
        if placed := self._place_at(request, rows, now):
            return placed
        self._starts[request.wanted] = SharedStart(request)
        return [StartWorker(url, request)]

    def _join(self, start: SharedStart, request: PlaceRequest) -> list[Effect]:
        start.waiting.append(request)
        return [] if start.last is None else [ReportProgress(request, start.last)]

    def _wait_for_hive(self, request: PlaceRequest | HiveRequest, now: float) -> list[Effect]:
        return [EnsureHive(request)] if self._hive.join(request, now) else []

    def _place_at(self, request: PlaceRequest, rows: Collection[WorkerRow], now: float) -> list[Effect]:
        """Send a request to one of these workers, or have it wait for a slot; nothing follows where none fits."""
        if (best := choose_worker(rows, request.wanted)) is None:
            return []
        if (free := self._queue.choose(rows, request, now)) is not None:
            self._queue.reserve(free, request, now)
            return self._send_to(request, free)
        return self._wait_for_slot(request, now) if request.wait else self._send_to(request, best)

    def _send_to(self, request: PlaceRequest, row: WorkerRow) -> list[Effect]:
        human = f"A worker with {row.model_ref} runs on {self._name} already ({row.state}){request.knowledge}"
        placed = Placed(row.id, row.url, row.state)
        return [self._narrate(request, "choose_worker", human), self._answer(request, placed)]

    def _send_elsewhere(self, request: PlaceRequest, placed: Placed) -> list[Effect]:
        human = f"A worker with {request.wanted.model_ref} has a free slot on {placed.node}{request.knowledge}"
        return [self._narrate(request, "choose_worker", human), self._answer(request, placed)]

    def _wait_for_slot(self, request: PlaceRequest, now: float) -> list[Effect]:
        is_full = self._queue.is_full(request.caller)
        is_held = self._queue.is_held(request, now) and not is_full
        if request.may_move and not is_held and (placed := self._elsewhere(request)) is not None:
            return self._send_elsewhere(request, placed)
        if is_full:
            return [self._answer(request, self._line_full(request.wanted))]
        self._queue.join(request)
        if request.waits_until is None:
            request.waits_until = now + request.wait
        before = request.told_ahead = dict(self._queue.places(now))[request]
        human = f"Waiting for a slot, {_place(before)} (at most {request.wait:g} s){_AT_READER * is_held}"
        return [self._narrate(request, "wait", human)]

    def _line_full(self, wanted: Wanted) -> LineFullError:
        waiting, seconds = len(self._queue.waiters), round(self._queue.retry_after(wanted.model_ref), 1)
        message = f"all slots are busy, and {waiting} requests wait for one already"
        return LineFullError(message, hint=_FULL_HINT, waiting=waiting, retry_after_s=seconds)

    def _give_slots(self, now: float) -> list[Effect]:
        """Give free slots to the requests that wait for them; those whose workers have gone are placed anew."""
        effects: list[Effect] = []
        for request, row in self._queue.turns(now):
            if row is not None:
                effects += self._send_to(request, row)
            else:
                self._retry(request, now)
        return effects

    def _retry(self, request: PlaceRequest, now: float) -> None:
        """Place a request once more after a pause, by what the hive itself says then."""
        request.must_ask = True
        self._retry_at[request] = now + next(request.pauses)

    def _refuse(
        self, request: PlaceRequest | HiveRequest, error: RbeeError, now: float, *, was_there: bool = False
    ) -> list[Effect]:
        """Answer with an error; where only the end of this hive stands in the way, the request waits for the next one.

        `was_there` says that the hive had been found just before.
        """
        if isinstance(request, HiveRequest):
            error.details.setdefault("node", self._name)
            return [self._answer(request, error)]
        effects: list[Effect] = []
        is_lost = isinstance(error, ConnectionTimeoutError)
        if is_lost and was_there and request.successor_by is None:
            request.successor_by = now + LOST_SECONDS
        # A worker that alone was told to end leaves no successor: the caller may ask anew.
        is_ending = isinstance(error, DrainingError) and not isinstance(error, WorkerDrainingError)
        if is_ending and request.successor_by is None:
            request.successor_by = now + SUCCESSION_SECONDS
            human = "The hive is shutting down; the next one takes the request once it has ended"
            effects.append(self._narrate(request, "wait", human))
        if (is_lost or is_ending) and request.successor_by is not None and now < request.successor_by:
            self._retry(request, now)
            return effects
        return [*effects, self._answer(request, error)]

    def _answer(self, request: PlaceRequest | HiveRequest, result: Placed | RbeeError) -> Effect:
        del self._unanswered[request]
        if isinstance(request, PlaceRequest):
            return AnswerPlace(request, result)
        assert isinstance(result, RbeeError)
        return AnswerHive(request, result)

    def _narrate(self, request: PlaceRequest | HiveRequest, action: str, human: str) -> Effect:
        return ReportProgress(request, Narration(actor="queen-rbee", action=action, target=self._name, human=human))


def _place(before: int) -> str:
    """Say where in the line a request is; short, because terminals may be narrow."""
    return f"{before} before you" if before else "next in line"
