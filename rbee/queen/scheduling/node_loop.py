"""Owns the scheduling of one node: has the scheduler decide about what happens, and does what it says.

Whatever happens is decided about at once, by the task that it happens in: no decision waits for anything, so none can
come between the steps of another. What has to wait, as for the hive, runs in a task of its own, and what comes of it
is decided about in turn.
"""

from __future__ import annotations

import math
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from rbee.adapters.logs.json_log import correlation
from rbee.concurrency.changed import Changed
from rbee.concurrency.contained import contained, keep_running
from rbee.errors import CancelledError, DrainingError, InvalidApiKeyError, MissingApiKeyError, RbeeError
from rbee.queen.registry import identity
from rbee.queen.scheduling.effects import (
    AnswerHive,
    AnswerPlace,
    CancelStart,
    EnsureHive,
    ListWorkers,
    ReportProgress,
    StartWorker,
)
from rbee.queen.scheduling.scheduler import NodeScheduler
from rbee.wire.common import Narration
from rbee.wire.hive import SpawnRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rbee.narrower_errors import LineFullError
    from rbee.queen.hives.follower import HiveFollower
    from rbee.queen.hives.link import Find, HiveLink
    from rbee.queen.hives.mirror import HiveMirror
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.effects import Effect
    from rbee.queen.scheduling.place_request import HiveRequest, Placed, PlaceRequest
    from rbee.queen.scheduling.shared_line import SharedLine
    from rbee.wire.hive import HiveEvent, SpawnReply, WorkerRow
    from rbee.wire.progress import ProgressEvent, Report

    Decision = Callable[[float], list[Effect]]


class NodeLoop:
    """The loop of one node, while `run` runs; `find_sources` says which other nodes have a model."""

    def __init__(
        self,
        name: str,
        hive: HiveLink,
        follower: HiveFollower,
        mirror: HiveMirror,
        max_waiting: int,
        find_sources: Find,
        line: SharedLine,
    ) -> None:
        self._name = name
        self._hive = hive
        self._follower = follower
        self._find_sources = find_sources
        self._line = line
        self._scheduler = NodeScheduler(name, mirror, max_waiting, partial(line.take, name), line.turns, line.known)
        self._starts: dict[Wanted, trio.CancelScope] = {}
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._context = Context()
        self._early: list[Decision] = []
        self._has_ended = False
        self._wakes_at = math.inf
        self._due_changed = Changed()

    def take(self, request: PlaceRequest) -> None:
        """Take in a request for a worker. Raises DrainingError once the loop has ended."""
        self._take(partial(self._scheduler.on_request, request))

    def take_hive_request(self, request: HiveRequest) -> None:
        """Take in a request for the hive. Raises DrainingError once the loop has ended."""
        self._take(partial(self._scheduler.on_hive_request, request))

    def give_up(self, request: PlaceRequest | HiveRequest) -> None:
        """The caller of a request has gone."""
        self._decide(partial(self._scheduler.on_given_up, request))

    def on_hive_event(self, event: HiveEvent | None) -> None:
        """The mirror has changed; None stands for a stream that was lost."""
        self._decide(self._scheduler.on_hive_lost if event is None else self._scheduler.tick)
        self._line.offer(self._name, trio.current_time())

    def movable(self) -> list[PlaceRequest]:
        """Return the requests that wait for a slot here, and may go to another node."""
        return [] if self._has_ended else self._scheduler.movable(trio.current_time())

    def has_free(self) -> bool:
        """Return whether any slot is free here."""
        return not self._has_ended and self._scheduler.has_free(trio.current_time())

    def why_full(self, wanted: Wanted, caller: str) -> LineFullError | None:
        """Return why a request that would wait for a slot here would be refused now, if it would."""
        return None if self._has_ended else self._scheduler.why_full(wanted, caller, trio.current_time())

    def take_free(self, request: PlaceRequest) -> Placed | None:
        """Reserve a slot that is free here for a request that waits on another node."""
        if self._has_ended:
            return None
        placed = self._scheduler.take_free(request, trio.current_time())
        self._look_when_due()  # a slot that is not taken up is free again after a moment
        return placed

    def move(self, request: PlaceRequest, placed: Placed) -> None:
        """A slot of another node is reserved for a request that waits here."""
        self._decide(partial(self._scheduler.on_moved, request, placed))

    def stop(self) -> None:
        """Have `run` return."""
        self._scope.cancel()

    async def run(self) -> None:
        """Place requests until stopped; those that wait then get DrainingError."""
        self._context = copy_context()
        with self._scope:
            async with trio.open_nursery() as self._nursery:
                try:
                    for decision in self._early:
                        self._decide(decision)
                    self._early.clear()
                    await keep_running(f"the clock of node {self._name}", self._tick_when_due)
                finally:
                    # Before the tasks have ended: the start of a hive over SSH is not cut short.
                    self._has_ended = True
                    self._answer(self._scheduler.on_stop(trio.current_time()))

    async def _tick_when_due(self) -> None:
        while True:
            changed = self._due_changed.next
            due = self._scheduler.due()
            self._wakes_at = math.inf if due is None else due
            with trio.move_on_at(self._wakes_at):
                await changed.wait()
            self._perform(self._scheduler.tick(trio.current_time()))
            self._line.offer(self._name, trio.current_time())

    def _take(self, decision: Decision) -> None:
        if self._has_ended:
            raise DrainingError("the queen is shutting down")
        self._decide(decision)

    def _decide(self, decision: Decision) -> None:
        """Do what the scheduler says about something that has happened; once the loop has ended, nothing follows."""
        if self._nursery is None:
            self._early.append(decision)
        elif not self._has_ended:
            now = trio.current_time()
            self._perform(decision(now))
            self._perform(self._scheduler.tick(now))
            self._look_when_due()

    def _look_when_due(self) -> None:
        if (due := self._scheduler.due()) is not None and due < self._wakes_at:
            self._due_changed.notify()

    def _perform(self, effects: list[Effect]) -> None:
        self._answer(effects)
        for effect in effects:
            match effect:
                case EnsureHive(first=first):
                    self._start_task(first, self._ensure_hive, self._on_hive_failed)
                case ListWorkers(url=url, requests=requests):
                    listing = partial(self._list_workers, url, requests)
                    self._start_task(requests[0], listing, partial(self._on_list_failed, requests))
                case StartWorker(url=url, first=first):
                    # Made here: the start may be cancelled before its task has run a line.
                    scope = self._starts[first.wanted] = trio.CancelScope()
                    starting = partial(self._start_worker, url, first.wanted, scope)
                    self._start_task(first, starting, partial(self._on_started, first.wanted))
                case CancelStart(wanted=wanted):
                    self._starts[wanted].cancel()
                case _:
                    pass

    def _answer(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case AnswerPlace(request=request, result=result):
                    request.answer(result)
                case AnswerHive(request=request, result=result):
                    request.answer(result)
                case ReportProgress(request=request, event=event):
                    if isinstance(event, Narration):  # of work that others may share, whose id it bears then
                        event = msgspec.structs.replace(event, correlation_id=request.correlation_id)
                    request.report(event)
                case _:
                    pass

    def _report(self, on_progress: Callable[[ProgressEvent, float], list[Effect]]) -> Report:
        return lambda event: self._decide(partial(on_progress, event))

    # Effects.

    def _start_task(
        self,
        first: PlaceRequest | HiveRequest,
        work: Callable[[], Awaitable[None]],
        on_failed: Callable[[RbeeError], None],
    ) -> None:
        async def run() -> None:
            correlation.set(first.correlation_id)  # of what this task asks and logs; the loop has none
            # Whatever goes wrong is for the requests that wait for it, and ends nothing else.
            with contained(f"a request to the hive of {self._name}", on_failed):
                await work()

        assert self._nursery is not None
        self._context.run(self._nursery.start_soon, run)  # not in that of the task which the decision is made in

    async def _ensure_hive(self) -> None:
        url = await self._hive.ensure(self._report(self._scheduler.on_hive_progress))
        self._follower.wake()
        self._decide(partial(self._scheduler.on_hive_up, url))

    def _on_hive_failed(self, error: RbeeError) -> None:
        self._decide(partial(self._scheduler.on_hive_failed, error))

    async def _list_workers(self, url: str, requests: list[PlaceRequest]) -> None:
        rows = await self._workers_at(url)
        self._decide(partial(self._scheduler.on_workers_listed, requests, url, rows))

    def _on_list_failed(self, requests: list[PlaceRequest], error: RbeeError) -> None:
        self._decide(partial(self._scheduler.on_list_failed, requests, error))

    async def _workers_at(self, url: str) -> list[WorkerRow]:
        try:
            async with self._hive.connect(url) as client:
                return (await client.workers()).workers
        except (InvalidApiKeyError, MissingApiKeyError) as exc:
            # It names the hive, or the caller would take it for a refusal of its own token.
            raise identity.refused(self._name, url.removeprefix("http://")) from exc

    async def _start_worker(self, url: str, wanted: Wanted, scope: trio.CancelScope) -> None:
        result: SpawnReply | RbeeError = CancelledError("no request waits for the download any longer")
        report = self._report(partial(self._scheduler.on_start_progress, wanted))
        with scope:
            async with self._hive.connect(url) as client:
                spawn = SpawnRequest(
                    model_ref=wanted.model_ref,
                    backend=wanted.backend,
                    device=wanted.device,
                    longest=wanted.context or msgspec.UNSET,
                    reuse=True,  # the hive knows best what starts, loads or serves there already
                    sources=await self._find_sources(client, wanted.model_ref, report),
                    awaited=self._scheduler.awaited(),
                )
                result = await client.spawn(spawn, report)
        self._on_started(wanted, result)

    def _on_started(self, wanted: Wanted, result: SpawnReply | RbeeError) -> None:
        def decide(now: float) -> list[Effect]:
            del self._starts[wanted]
            return self._scheduler.on_started(wanted, result, now)

        if wanted in self._starts:
            self._decide(decide)
