"""Owns what the queen does on one node: at most one start of its hive, at most one start of each worker."""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from rbee.adapters.logs import correlation
from rbee.errors import (
    AllSlotsBusyError,
    CancelledError,
    ConnectionTimeoutError,
    DrainingError,
    InternalError,
    InvalidApiKeyError,
    MissingApiKeyError,
    RbeeError,
)
from rbee.queen import placement
from rbee.queen.hive_view import HiveView
from rbee.queen.ranking import Candidate, devices_of
from rbee.queen.starting import Starting
from rbee.queen.waiting import Queue
from rbee.wire.common import Narration
from rbee.wire.hive import SpawnReply, SpawnRequest, WorkerGone, WorkerList, WorkerRow
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from rbee.clients.hive import HiveClient
    from rbee.queen.link import HiveLink
    from rbee.queen.placement import Wanted
    from rbee.wire.common import WorkerState
    from rbee.wire.hive import HiveEvent
    from rbee.wire.progress import Told

    Tell = Callable[[Told], None]

log = logging.getLogger(__name__)

MAX_WAITING: Final = 100
LOOK_SECONDS: Final = 2.0
"""For a hive to say that it is there, where a command asks what there is."""
SUCCESSION_SECONDS: Final = 60.0
"""For a hive that shuts down to be gone: it lets running requests end first."""
SUCCESSION_PAUSE: Final = 0.5
LOST_SECONDS: Final = 1.0
"""For a hive to be gone that was there when it was looked for, and does not answer: it may be about to end."""


class HiveNotRunningError(ConnectionTimeoutError):
    """No hive runs on this host, where that is known for sure; whoever needs one starts it."""


class Placed(NamedTuple):
    """A worker that serves a request."""

    worker_id: str
    url: str
    state: WorkerState


class _Order:
    """A request that is to be placed; `wait` is how many seconds it would wait for a slot."""

    def __init__(self, wanted: Wanted, tell: Tell, wait: float) -> None:
        self.wanted = wanted
        self.tell = tell
        self.wait = wait
        self.correlation_id = correlation.get()
        self.done = trio.Event()
        self.patience = trio.CancelScope()
        self.waits_until: float | None = None
        self.is_given_up = False
        self.successor_by: float | None = None
        self.result: Placed | RbeeError = InternalError("the queen ended")

    def settle(self, result: Placed | RbeeError) -> None:
        self.result = result
        self.done.set()


class _Visit:
    """Someone wants to ask the node's hive something, and have it started if need be."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.correlation_id = correlation.get()
        self.done = trio.Event()
        self.result: str | RbeeError = InternalError("the queen ended")

    def settle(self, result: str | RbeeError) -> None:
        self.result = result
        self.done.set()


class _GivenUp(NamedTuple):
    """Nobody waits for this order any longer."""

    order: _Order


class _Started(NamedTuple):
    """A start of a worker has ended, well or not."""

    wanted: Wanted
    result: SpawnReply | RbeeError


_Message = _Order | _Visit | _GivenUp | _Started | WorkerList | WorkerRow | WorkerGone | None
"""What a node's inbox holds; None stands for a hive whose event stream was lost."""


class Node:
    """One node. `run` owns its state; orders come in over a channel and are answered when they are placed.

    `heard` is told what its hive tells, and None when that was lost.
    """

    def __init__(
        self,
        name: str,
        hive: HiveLink,
        *,
        max_waiting: int = MAX_WAITING,
        heard: Callable[[HiveEvent | None], None] = lambda _: None,
    ) -> None:
        self.name = name
        self._hive = hive
        self._view = HiveView(hive)
        self._heard = heard
        self._send, self._inbox = trio.open_memory_channel["_Message"](math.inf)
        self._starting: dict[Wanted, Starting[_Order]] = {}
        self._queue: Queue[_Order] = Queue(max_waiting)
        # What the event stream has told; an answer to a call of ours may be older.
        self._rows: dict[str, WorkerRow] = {}
        self._is_seen = False
        self._current: _Order | _Visit | None = None

    async def place(self, wanted: Wanted, tell: Tell, wait: float = 0) -> Placed:
        """Return a worker for `wanted`, started if need be; what happens is told meanwhile.

        Where all its slots are taken, the request waits up to `wait` seconds for one; without, it is sent there all the
        same, and the worker answers for itself. Raises AllSlotsBusyError when the wait was in vain, or too many wait.
        """
        order = _Order(wanted, tell, wait)
        try:
            self._send.send_nowait(order)
        except trio.BrokenResourceError:
            raise DrainingError("the queen is shutting down") from None
        try:
            with order.patience:
                await order.done.wait()
        finally:
            if not order.done.is_set():
                order.is_given_up = True
                with suppress(trio.BrokenResourceError):
                    self._send.send_nowait(_GivenUp(order))
        if not order.done.is_set():
            raise AllSlotsBusyError(f"no slot got free within the {wait:g} s that the request waited", waited_s=wait)
        if isinstance(order.result, RbeeError):
            raise order.result
        return order.result

    @property
    def is_direct(self) -> bool:
        """Whether others reach the node's workers too, or only the queen."""
        return self._hive.is_direct

    def reach(self, url: str) -> str:
        """Return the URL at which the queen reaches a worker of this node."""
        return self._hive.reach(url)

    @asynccontextmanager
    async def reached(self) -> AsyncIterator[HiveClient]:
        """Open a connection to the node's hive; starts nothing.

        Raises ConnectionTimeoutError when it does not answer within LOOK_SECONDS, or why it cannot be used.
        """
        url = None
        with trio.move_on_after(LOOK_SECONDS) as patience:
            url = await self._hive.find()
        if patience.cancelled_caught:
            raise _unreached(self.name, f"the hive on {self.name} did not answer within {LOOK_SECONDS:g} s")
        if url is None and self.name == LOCAL_NODE:
            raise HiveNotRunningError("no hive is running on this host", hint="the first request starts it")
        if url is None:
            raise _unreached(self.name, f"no hive answers on node {self.name}")
        async with self._hive.connect(url) as client:
            yield client

    async def candidate(self) -> Candidate:
        """Say what the node could do for a request, in at most LOOK_SECONDS; starts nothing.

        One whose hive did not answer when it was last looked for costs no time.
        """
        with trio.move_on_after(LOOK_SECONDS):
            try:
                if await self._view.is_followed():
                    async with self.reached() as client:
                        rows, backends = (await client.workers()).workers, await client.backends()
                        return Candidate(self.name, True, rows, devices_of(backends))
            except RbeeError as exc:
                log.info("the hive of %s says nothing of itself: %s", self.name, exc.message)
        return Candidate(self.name, False, [], await self._hive.devices())

    @asynccontextmanager
    async def visit(self, tell: Tell) -> AsyncIterator[HiveClient]:
        """Open a connection to the node's hive, which is started if need be. Raises why it could not be."""
        visit = _Visit(tell)
        try:
            self._send.send_nowait(visit)
        except trio.BrokenResourceError:
            raise DrainingError("the queen is shutting down") from None
        await visit.done.wait()
        if isinstance(visit.result, RbeeError):
            raise visit.result
        async with self._hive.connect(visit.result) as client:
            yield client

    async def workers(self) -> WorkerList | None:
        """Return the node's workers, or None when its hive does not answer; starts nothing."""
        try:
            async with self.reached() as client:
                return await client.workers()
        except ConnectionTimeoutError as exc:
            log.debug("the hive of %s: %s", self.name, exc)
        except RbeeError as exc:
            log.warning("the hive of %s: %s", self.name, exc)
        return None

    async def run(self) -> None:
        """Place orders until cancelled; whoever waits then is told that the queen shuts down."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._view.run, self._hear)
                while True:
                    now = trio.current_time()
                    lapse = self._queue.promises.due(now) if self._queue.waiters else None
                    messages: list[_Message] = []
                    with trio.move_on_at(math.inf if lapse is None else lapse):
                        messages.append(await self._inbox.receive())
                    for message in messages:
                        await self._take(message, nursery)
                    self._dispatch()
        finally:
            waiting = [order for start in self._starting.values() for order in start.waiting]
            for asked in [*waiting, *self._queue.waiters, self._current, *self._unread()]:
                if asked is not None and not asked.done.is_set():
                    asked.settle(DrainingError("the queen is shutting down"))
            self._inbox.close()

    def _hear(self, event: HiveEvent | None) -> None:
        self._heard(event)
        self._send.send_nowait(event)

    def _unread(self) -> Iterator[_Order | _Visit]:
        """Yield what was asked while something else was handled."""
        with suppress(trio.WouldBlock):
            while True:
                message = self._inbox.receive_nowait()
                if isinstance(message, _Order | _Visit):
                    yield message

    async def _take(self, message: _Message, nursery: trio.Nursery) -> None:
        match message:
            case _Order(is_given_up=True):
                pass
            case _Order():
                self._current = message
                await self._handle(message, nursery)
                self._current = None
            case _GivenUp(order=order):
                self._queue.remove(order)
                if (start := self._starting.get(order.wanted)) is not None:
                    start.leave(order)
            case _Visit():
                self._current = message
                await self._welcome(message)
                self._current = None
            case _Started():
                self._settle_start(message)
            case None:
                self._rows, self._is_seen = {}, False
                self._again(self._queue.waiters)
            case _:
                self._see(message)

    def _see(self, event: HiveEvent) -> None:
        """Take note of what the hive tells."""
        now = trio.current_time()
        match event:
            case WorkerList(workers=rows):
                self._is_seen = True
                ids = {row.id for row in rows}
                self._rows = {worker_id: row for worker_id, row in self._rows.items() if worker_id in ids}
                # Beside the rows, which a lost stream has cleared: workers may have gone unseen.
                self._queue.promises.keep_only(ids)
                for row in rows:
                    self._see(row)
            case WorkerRow():
                self._queue.promises.see(self._rows.get(event.id), event, now)
                self._rows[event.id] = event
            case WorkerGone():
                self._forget(event.id)

    def _forget(self, worker_id: str) -> None:
        self._rows.pop(worker_id, None)
        self._queue.promises.forget(worker_id)

    async def _handle(self, order: _Order, nursery: trio.Nursery) -> None:
        if (start := self._starting.get(order.wanted)) is not None:
            start.join(order)
            return
        correlation.set(order.correlation_id)  # what is asked and logged for this order, by the tasks it starts too
        try:
            url = await self._hive.ensure(order.tell)
            self._view.look()
        except RbeeError as exc:
            self._refuse(order, exc)
            return
        try:
            async with self._hive.connect(url) as client:
                rows = (await _workers(client, url)).workers
        except RbeeError as exc:
            self._refuse(order, exc, is_lost=isinstance(exc, ConnectionTimeoutError))
            return
        now = trio.current_time()
        found = placement.choose_worker(rows, order.wanted)
        if found is None:
            scope = trio.CancelScope()
            start = self._starting[order.wanted] = Starting(order, scope.cancel)
            nursery.start_soon(self._start, url, order.wanted, start, scope)
        elif (free := self._queue.choose(rows, order.wanted, now)) is not None:
            self._queue.promises.make(free, now)
            self._settle_at(order, free)
        elif order.wait:
            self._let_wait(order)
        else:
            self._settle_at(order, found)

    async def _welcome(self, visit: _Visit) -> None:
        correlation.set(visit.correlation_id)
        try:
            visit.settle(await self._hive.ensure(visit.tell))
            self._view.look()
        except RbeeError as exc:
            exc.details.setdefault("node", self.name)
            visit.settle(exc)

    def _refuse(self, order: _Order, error: RbeeError, *, is_lost: bool = False) -> None:
        """Answer an order with an error; one that only the end of this hive stands in the way of waits for the next.

        `is_lost` says that the hive, which was there a moment ago, could not be reached.
        """
        now = trio.current_time()
        if is_lost and order.successor_by is None:
            order.successor_by = now + LOST_SECONDS
        if isinstance(error, DrainingError) and order.successor_by is None:
            order.successor_by = now + SUCCESSION_SECONDS
            human = "The hive is shutting down; the next one takes the request once it has ended"
            order.tell(Narration(actor="queen-rbee", action="wait", target=self.name, human=human))
        is_between = isinstance(error, DrainingError | ConnectionTimeoutError)
        if is_between and order.successor_by is not None and now < order.successor_by:
            self._send.send_nowait(order)
        else:
            order.settle(error)

    def _let_wait(self, order: _Order) -> None:
        if self._queue.is_full:
            order.settle(
                AllSlotsBusyError(
                    f"all slots are busy, and {self._queue.limit} requests wait for one already",
                    waiting=self._queue.limit,
                )
            )
            return
        self._queue.waiters.append(order)
        if order.waits_until is None:
            order.waits_until = trio.current_time() + order.wait
        order.patience.deadline = order.waits_until
        before = len(self._queue.waiters) - 1
        human = f"All slots are busy; waiting up to {order.wait:g} s for one" + (f", after {before}" if before else "")
        order.tell(Narration(actor="queen-rbee", action="wait", target=self.name, human=human))

    def _settle_at(self, order: _Order, row: WorkerRow) -> None:
        human = f"A worker with {row.model_ref} runs on {self.name} already ({row.state})"
        order.tell(Narration(actor="queen-rbee", action="choose_worker", target=self.name, human=human))
        order.settle(Placed(row.id, row.url, row.state))

    def _dispatch(self) -> None:
        """Give free slots to the requests that wait for them."""
        if not self._is_seen:
            return
        turns = self._queue.turns(list(self._rows.values()), trio.current_time())
        for order, row in turns:
            if row is not None:
                self._settle_at(order, row)
        self._again([order for order, row in turns if row is None])

    def _again(self, orders: list[_Order]) -> None:
        """Place orders anew, whose workers or hive have gone."""
        for order in list(orders):
            self._queue.remove(order)
            order.patience.deadline = math.inf
            self._send.send_nowait(order)

    async def _start(self, url: str, wanted: Wanted, start: Starting[_Order], scope: trio.CancelScope) -> None:
        request = SpawnRequest(model_ref=wanted.model_ref, backend=wanted.backend, device=wanted.device, reuse=True)
        result: SpawnReply | RbeeError = CancelledError("nobody waits for the download any longer")
        with scope:
            try:
                async with self._hive.connect(url) as client:
                    result = await client.spawn(request, start.tell)
            except RbeeError as exc:
                result = exc
                if isinstance(exc, DrainingError):
                    await trio.sleep(SUCCESSION_PAUSE)
        self._send.send_nowait(_Started(wanted, result))

    def _settle_start(self, started: _Started) -> None:
        orders = self._starting.pop(started.wanted).waiting
        if isinstance(started.result, CancelledError):
            for order in orders:
                self._send.send_nowait(order)  # they came when it was ending already
            return
        if isinstance(started.result, RbeeError):
            started.result.details.setdefault("node", self.name)
            for order in orders:
                self._refuse(order, started.result, is_lost=isinstance(started.result, ConnectionTimeoutError))
            return
        reply = started.result
        for order in orders:
            if order.wait:
                self._send.send_nowait(order)  # it may not be the first there
            else:
                order.settle(Placed(reply.worker_id, reply.url, reply.state))


def _unreached(name: str, message: str) -> ConnectionTimeoutError:
    return ConnectionTimeoutError(
        message,
        hint=f'`rbee infer --node {name} --prompt "…"` starts it where it does not run, and says why where it cannot',
        node=name,
    )


async def _workers(client: HiveClient, url: str) -> WorkerList:
    """Return the hive's workers; a refusal names the hive, or our caller would take it for one of its own token."""
    try:
        return await client.workers()
    except (InvalidApiKeyError, MissingApiKeyError) as exc:
        host = url.removeprefix("http://")
        raise InvalidApiKeyError(
            f"authentication failed: the hive at {host} does not accept the queen's token",
            hint="it may belong to another user or state folder: end it, or give this hive another port "
            "(`port` under [hive])",
            host=host,
        ) from exc
