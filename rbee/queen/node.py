"""Owns what the queen does on one node: at most one start of its hive, at most one start of each worker."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import trio

from rbee.adapters.logs import correlation
from rbee.clients import hive as hive_client
from rbee.errors import DrainingError, InternalError, InvalidApiKeyError, MissingApiKeyError, RbeeError
from rbee.queen import placement
from rbee.wire.common import Narration
from rbee.wire.hive import SpawnReply, SpawnRequest, WorkerRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rbee.clients.hive import HiveClient
    from rbee.queen.local_hive import LocalHive
    from rbee.queen.placement import Wanted
    from rbee.wire.common import WorkerState

    Tell = Callable[[Narration], None]

log = logging.getLogger(__name__)


class Placed(NamedTuple):
    """A worker that serves a request."""

    worker_id: str
    url: str
    state: WorkerState


class _Order:
    """A request that waits to be placed."""

    def __init__(self, wanted: Wanted, tell: Tell) -> None:
        self.wanted = wanted
        self.tell = tell
        self.correlation_id = correlation.get()
        self.done = trio.Event()
        self.result: Placed | RbeeError = InternalError("the queen ended")

    def settle(self, result: Placed | RbeeError) -> None:
        self.result = result
        self.done.set()


class _Started(NamedTuple):
    """A start of a worker has ended, well or not."""

    wanted: Wanted
    result: SpawnReply | RbeeError


class Node:
    """One node. `run` owns its state; orders come in over a channel and are answered when they are placed."""

    def __init__(self, name: str, hive: LocalHive, token: str, *, call_seconds: float = 5.0) -> None:
        self.name = name
        self._hive = hive
        self._token = token
        self._call_seconds = call_seconds
        self._send, self._inbox = trio.open_memory_channel["_Order | _Started"](math.inf)
        self._starting: dict[Wanted, list[_Order]] = {}
        self._current: _Order | None = None

    async def place(self, wanted: Wanted, tell: Tell) -> Placed:
        """Return a worker for `wanted`, started if need be; what happens is told meanwhile."""
        order = _Order(wanted, tell)
        try:
            self._send.send_nowait(order)
        except trio.BrokenResourceError:
            raise DrainingError("the queen is shutting down") from None
        await order.done.wait()
        if isinstance(order.result, RbeeError):
            raise order.result
        return order.result

    async def workers(self) -> list[WorkerRow] | None:
        """Return the node's workers, or None when its hive does not answer; starts nothing."""
        try:
            if (url := await self._hive.find()) is None:
                return None
            async with hive_client.connect(url, self._token, timeout=self._call_seconds) as client:
                return await client.workers()
        except RbeeError as exc:
            log.warning("the hive of %s: %s", self.name, exc)
            return None

    async def run(self) -> None:
        """Place orders until cancelled; whoever waits then is told that the queen shuts down."""
        try:
            async with trio.open_nursery() as nursery:
                async for message in self._inbox:
                    if isinstance(message, _Started):
                        self._settle_start(message)
                    else:
                        self._current = message
                        await self._handle(message, nursery)
                        self._current = None
        finally:
            waiting = [order for orders in self._starting.values() for order in orders]
            for order in [*waiting, self._current, *self._unread()]:
                if order is not None and not order.done.is_set():
                    order.settle(DrainingError("the queen is shutting down"))
            self._inbox.close()

    def _unread(self) -> Iterator[_Order]:
        """Yield the orders that came while another one was handled."""
        with suppress(trio.WouldBlock):
            while True:
                message = self._inbox.receive_nowait()
                if isinstance(message, _Order):
                    yield message

    async def _handle(self, order: _Order, nursery: trio.Nursery) -> None:
        if (waiting := self._starting.get(order.wanted)) is not None:
            waiting.append(order)
            return
        correlation.set(order.correlation_id)  # what is asked and logged for this order, by the tasks it starts too
        try:
            url = await self._hive.ensure(order.tell)
            async with hive_client.connect(url, self._token, timeout=self._call_seconds) as client:
                found = placement.choose_worker(await _workers(client, url), order.wanted)
        except RbeeError as exc:
            order.settle(exc)
            return
        if found is not None:
            order.tell(
                Narration(
                    actor="queen-rbee",
                    action="choose_worker",
                    target=self.name,
                    human=f"A worker with {found.model_ref} runs on {self.name} already ({found.state})",
                )
            )
            order.settle(Placed(found.id, found.url, found.state))
            return
        self._starting[order.wanted] = [order]
        nursery.start_soon(self._start, url, order.wanted)

    async def _start(self, url: str, wanted: Wanted) -> None:
        def tell(narration: Narration) -> None:
            for order in self._starting[wanted]:
                order.tell(narration)

        request = SpawnRequest(model_ref=wanted.model_ref, backend=wanted.backend, device=wanted.device)
        result: SpawnReply | RbeeError
        try:
            async with hive_client.connect(url, self._token, timeout=self._call_seconds) as client:
                result = await client.spawn(request, tell)
        except RbeeError as exc:
            result = exc
        self._send.send_nowait(_Started(wanted, result))

    def _settle_start(self, started: _Started) -> None:
        outcome: Placed | RbeeError
        if isinstance(started.result, RbeeError):
            outcome = started.result
            outcome.details.setdefault("node", self.name)
        else:
            outcome = Placed(started.result.worker_id, started.result.url, started.result.state)
        for order in self._starting.pop(started.wanted):
            order.settle(outcome)


async def _workers(client: HiveClient, url: str) -> list[WorkerRow]:
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
