"""Places requests on one node: at most one start of its hive, at most one start of each worker."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.logs.json_log import correlation
from rbee.errors import (
    AllSlotsBusyError,
    AlreadyRunningError,
    CancelledError,
    ConnectionTimeoutError,
    DrainingError,
    RbeeError,
    WorkerDrainingError,
)
from rbee.queen.scheduling import asking, choose_worker
from rbee.queen.scheduling.orders import PAUSES, GivenUp, Order, Placed, Started, Visit
from rbee.queen.scheduling.shared_start import Starting
from rbee.queen.scheduling.slot_queue import Queue
from rbee.wire.common import Narration
from rbee.wire.download import DownloadState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.queen.hives.copy_sources import Find
    from rbee.queen.hives.follower import HiveView
    from rbee.queen.hives.link import HiveLink
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.orders import Message
    from rbee.wire.hive import HiveEvent, SpawnReply, WorkerRow
    from rbee.wire.progress import Report

SUCCESSION_SECONDS: Final = 60.0
"""For a hive that shuts down to be gone: it lets running requests end first."""
LOST_SECONDS: Final = 1.0
"""For a hive to be gone that was there when it was looked for, and does not answer: it may be about to end."""


class Placing:
    """The loop of one node: `run` owns its state; what is asked comes in over a channel.

    `find_sources` says who else has a model.
    """

    def __init__(self, name: str, hive: HiveLink, view: HiveView, max_waiting: int, find_sources: Find) -> None:
        self.name = name
        self._hive = hive
        self._view = view
        self._find_sources = find_sources
        self._send, self._inbox = trio.open_memory_channel["Message"](math.inf)
        self._starting: dict[Wanted, Starting[Order]] = {}
        self._queue: Queue[Order] = Queue(max_waiting)
        self._current: Order | Visit | None = None
        self._scope = trio.CancelScope()

    def take(self, asked: Order | Visit) -> None:
        """Take in what is asked. Raises DrainingError once the loop has ended."""
        try:
            self._send.send_nowait(asked)
        except trio.BrokenResourceError:
            raise DrainingError("the queen is shutting down") from None

    def leave(self, order: Order) -> None:
        """Nobody waits for an order any longer."""
        order.is_given_up = True
        with suppress(trio.BrokenResourceError):
            self._send.send_nowait(GivenUp(order))

    def hear(self, event: HiveEvent | None) -> None:
        """Take in what the hive tells; None stands for its having been lost."""
        if not isinstance(event, DownloadState):
            with suppress(trio.BrokenResourceError):
                self._send.send_nowait(event)

    def stop(self) -> None:
        """Have `run` return."""
        self._scope.cancel()

    async def run(self) -> None:
        """Place orders until stopped; whoever waits then is told that the queen shuts down."""
        try:
            with self._scope:
                await self._run()
        finally:
            waiting = [order for start in self._starting.values() for order in start.waiting]
            for asked in [*waiting, *self._queue.waiters, self._current, *self._unread()]:
                if asked is not None and not asked.done.is_set():
                    asked.settle(DrainingError("the queen is shutting down"))
            self._inbox.close()

    async def _run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            while True:
                lapse = self._queue.promises.due()
                messages: list[Message] = []
                with trio.move_on_at(math.inf if lapse is None else lapse):
                    messages.append(await self._inbox.receive())
                for message in messages:
                    await self._take(message)
                self._dispatch()

    def _unread(self) -> Iterator[Order | Visit]:
        """Yield what was asked while something else was handled."""
        with suppress(trio.WouldBlock):
            while True:
                message = self._inbox.receive_nowait()
                if isinstance(message, Order | Visit):
                    yield message

    async def _take(self, message: Message) -> None:
        match message:
            case Order(is_given_up=True):
                pass
            case Order():
                self._current = message
                await self._handle(message)
                self._current = None
            case GivenUp(order=order):
                self._queue.remove(order)
                if (start := self._starting.get(order.wanted)) is not None:
                    start.leave(order)
            case Visit():
                self._current = message
                await self._welcome(message)
                self._current = None
            case Started():
                self._settle_start(message)
            case None:
                self._queue.lose_sight()
                self._again(self._queue.waiters)
            case _:
                self._queue.see(message, trio.current_time())

    async def _handle(self, order: Order) -> None:
        if (start := self._starting.get(order.wanted)) is not None:
            start.join(order)
            return
        correlation.set(order.correlation_id)  # what is asked and logged for this order, by the tasks it starts too
        try:
            url = await self._ensure(order.report)
        except RbeeError as exc:
            self._refuse(order, exc)
            return
        try:
            rows = await asking.list_workers(self.name, self._hive, url)
        except RbeeError as exc:
            self._refuse(order, exc, is_lost=isinstance(exc, ConnectionTimeoutError))
            return
        now = trio.current_time()
        found = choose_worker.choose_worker(rows, order.wanted)
        if found is None:
            scope = trio.CancelScope()
            start = self._starting[order.wanted] = Starting(order, scope.cancel)
            self._nursery.start_soon(self._start, url, order.wanted, start, scope)
        elif (free := self._queue.choose(rows, order.wanted, now)) is not None:
            self._queue.promise(free, now)
            self._settle_at(order, free)
        elif order.wait:
            self._let_wait(order)
        else:
            self._settle_at(order, found)

    async def _ensure(self, report: Report) -> str:
        """Return the URL of the hive, started if need be.

        One that starts already has not said yet where it is: a queen that was killed meanwhile had started it, or a
        user. It is waited for.
        """
        patient_until = trio.current_time() + SUCCESSION_SECONDS
        for pause in chain(PAUSES[1:], repeat(PAUSES[-1])):
            try:
                url = await self._hive.ensure(report)
            except AlreadyRunningError:
                if trio.current_time() >= patient_until:
                    raise
            else:
                self._view.look()
                return url
            if pause == PAUSES[1]:
                human = "A hive starts or ends there already; waiting for it"
                report(Narration(actor="queen-rbee", action="wait", target=self.name, human=human))
            await trio.sleep(pause)
        raise AssertionError

    async def _welcome(self, visit: Visit) -> None:
        correlation.set(visit.correlation_id)
        try:
            visit.settle(await self._ensure(visit.report))
        except RbeeError as exc:
            exc.details.setdefault("node", self.name)
            visit.settle(exc)

    def _refuse(self, order: Order, error: RbeeError, *, is_lost: bool = False) -> None:
        """Answer an order with an error; one that only the end of this hive stands in the way of waits for the next.

        `is_lost` says that the hive, which was there a moment ago, could not be reached.
        """
        now = trio.current_time()
        if is_lost and order.successor_by is None:
            order.successor_by = now + LOST_SECONDS
        # A worker that alone was told to end leaves no successor: who asked for it may ask anew.
        is_ending = isinstance(error, DrainingError) and not isinstance(error, WorkerDrainingError)
        if is_ending and order.successor_by is None:
            order.successor_by = now + SUCCESSION_SECONDS
            human = "The hive is shutting down; the next one takes the request once it has ended"
            order.report(Narration(actor="queen-rbee", action="wait", target=self.name, human=human))
        is_between = is_ending or isinstance(error, ConnectionTimeoutError)
        if is_between and order.successor_by is not None and now < order.successor_by:
            self._put_back(order)
        else:
            order.settle(error)

    def _let_wait(self, order: Order) -> None:
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
        order.report(Narration(actor="queen-rbee", action="wait", target=self.name, human=human))

    def _settle_at(self, order: Order, row: WorkerRow) -> None:
        human = f"A worker with {row.model_ref} runs on {self.name} already ({row.state})"
        order.report(Narration(actor="queen-rbee", action="choose_worker", target=self.name, human=human))
        order.settle(Placed(row.id, row.url, row.state))

    def _dispatch(self) -> None:
        """Give free slots to the requests that wait for them."""
        turns = self._queue.turns(trio.current_time())
        for order, row in turns:
            if row is not None:
                self._settle_at(order, row)
        self._again([order for order, row in turns if row is None])

    def _again(self, orders: list[Order]) -> None:
        """Place orders anew, whose workers or hive have gone."""
        for order in list(orders):
            self._queue.remove(order)
            self._put_back(order)

    def _put_back(self, order: Order) -> None:
        self._nursery.start_soon(self._return, order, order.next_pause())

    async def _return(self, order: Order, pause: float) -> None:
        try:
            await trio.sleep(pause)
        finally:
            # When the queen ends, too: it is told with the others then.
            order.patience.deadline = math.inf
            self._send.send_nowait(order)

    async def _start(self, url: str, wanted: Wanted, start: Starting[Order], scope: trio.CancelScope) -> None:
        result: SpawnReply | RbeeError = CancelledError("nobody waits for the download any longer")
        with scope:
            try:
                result = await asking.start_worker(self._hive, url, wanted, self._find_sources, start.report)
            except RbeeError as exc:
                result = exc
        self._send.send_nowait(Started(wanted, result))

    def _settle_start(self, started: Started) -> None:
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
