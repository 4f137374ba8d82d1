"""Calls and event streams between simulated processes, with the delays and losses of HTTP and none of its bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from rbee.adapters.http.client import SHORT_CALL_DELAYS
from rbee.adapters.http.sse_client import STREAM_SILENCE, StreamLostError
from rbee.errors import ConnectionTimeoutError, InternalError, RbeeError
from rbee.wire.error_body import from_body, to_body

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from tests.simulation.world import Process, World

    Send = Callable[[Any], Awaitable[None]]

T = TypeVar("T")

CALL_SECONDS: Final = 5.0
HEARTBEAT: Final = 10.0
SLOW: Final = 8.0
"""Seconds that a slow exchange may take in all: some of them come too late."""


class _Unreached(Exception):
    """No answer: the connection was refused or lost, or the time is over."""


class _Handling:
    """A request in the process that serves it."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.answered = trio.Event()
        self.answer: Any = None
        self.error: RbeeError | None = None
        self.is_whole = False

    async def run(self, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            with self.scope:
                try:
                    self.answer = await work()
                except RbeeError as exc:
                    self.error = from_body(to_body(exc)) or InternalError(exc.message)
                self.is_whole = True
        finally:
            self.answered.set()


class _Stalls:
    """When a stream carries nothing for a while, as where its packets are lost; calls, on connections of their own, do.

    What was sent meanwhile comes afterwards, in order.
    """

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._begin, self._end = self._draw()

    def _draw(self) -> tuple[float, float]:
        if not (every := self._world.faults.stalled_every):
            return math.inf, math.inf
        begin = trio.current_time() + self._chance.expovariate(1 / every)
        return begin, begin + self._chance.choice((1, 5, 20, 60))

    async def wait(self, heard_at: float) -> None:
        """Return once what has been sent comes through. Raises StreamLostError where that takes too long."""
        while trio.current_time() >= self._begin:
            with trio.move_on_at(min(self._end, heard_at + STREAM_SILENCE)):
                await self._world.calmed.wait()
            if trio.current_time() >= heard_at + STREAM_SILENCE:
                raise StreamLostError("timeout")
            self._begin, self._end = self._draw()


class Network:
    """Carries calls; each caller's chance decides which of them are lost or late."""

    def __init__(self, world: World) -> None:
        self.rules = world.rules
        self._world = world
        self._chance = world.chance("network")

    async def call(
        self,
        url: str,
        name: str,
        work: Callable[[Any], Awaitable[T]],
        *,
        seconds: float = CALL_SECONDS,
        repeats: bool = False,
    ) -> T:
        """Have the process at `url` do `work`, which is given that process, and return what it returns.

        Raises what `http.call` raises; `repeats` is for calls that are safe to repeat.
        """
        reason = ""
        for delay in SHORT_CALL_DELAYS if repeats else (0.0,):
            await trio.sleep(delay)
            try:
                handling = await self._exchange(url, name, work, seconds)
            except _Unreached as exc:
                reason = str(exc)
                continue
            if handling.error is not None:
                raise handling.error
            return handling.answer  # which may be an error that was asked for
        raise ConnectionTimeoutError(f"{url} does not answer", attempts=[reason])

    async def _exchange(self, url: str, name: str, work: Callable[[Any], Awaitable[T]], seconds: float) -> _Handling:
        chance, faults = self._chance, self._world.faults
        is_lost = chance.random() < faults.call_lost
        is_answer_lost = is_lost and chance.random() < 0.5
        slowness = chance.uniform(0, SLOW) if chance.random() < faults.slow_call else 0.0
        share = chance.random()
        with trio.move_on_after(seconds):
            await self._travel(slowness * share)
            server = self._server(url)
            if is_lost and not is_answer_lost:
                self._world.trace.add("network", f"loses {name} to {server.name}")
                raise _Unreached("the connection was closed")
            handling = await self._serve(server, work)
            await self._travel(slowness * (1 - share))
            if is_answer_lost:
                self._world.trace.add("network", f"loses the answer to {name} from {server.name}")
                raise _Unreached("the connection was closed")
            return handling
        raise _Unreached("timeout")

    def _server(self, url: str) -> Process:
        server = self._world.listeners.get(url)
        if server is None:
            raise _Unreached("connection refused")
        return server

    async def _serve(self, server: Process, work: Callable[[Any], Awaitable[T]]) -> _Handling:
        async def handle() -> T:
            await server.receive()
            return await work(server)

        handling = _Handling()
        server.nursery.start_soon(handling.run, handle)
        try:
            await handling.answered.wait()
        finally:
            handling.scope.cancel()  # who hangs up ends the work for him
        if not handling.is_whole or not server.is_running:
            raise _Unreached("the connection was closed")
        return handling

    async def stream(
        self, url: str, name: str, produce: Callable[[Any, Send], Awaitable[None]], receive: Callable[[Any], None]
    ) -> None:
        """Hold a stream that `produce` writes in the process at `url`; returns when it has ended in order.

        Raises ConnectionTimeoutError when it cannot be opened, StreamLostError when it is lost, or the error that it
        brings. What is told is kept in order and, like the events of a socket, is lost with the connection.
        """
        chance, faults = self._chance, self._world.faults
        cut_after = chance.expovariate(1 / faults.cut_every) if faults.cut_every else float("inf")
        await self._travel(0)
        try:
            server = self._server(url)
        except _Unreached as exc:
            raise ConnectionTimeoutError(f"{url} does not answer", attempts=[str(exc)]) from None
        sending, receiving = trio.open_memory_channel[Any](16)

        async def write() -> None:
            with sending:
                await server.receive()
                await produce(server, send)

        async def send(item: Any) -> None:
            await server.receive()
            await sending.send(item)

        handling = _Handling()
        server.nursery.start_soon(handling.run, write)
        with receiving:
            try:
                with trio.move_on_after(cut_after) as cut:
                    await self._read(server, receiving, receive)
                    await handling.answered.wait()
            finally:
                handling.scope.cancel()
        if cut.cancelled_caught:
            self._world.trace.add("network", f"cuts {name} of {server.name}")
        if cut.cancelled_caught or not handling.is_whole or not server.is_running:
            raise StreamLostError("the connection was closed")
        if handling.error is not None:
            raise handling.error

    async def _read(
        self, server: Process, receiving: trio.MemoryReceiveChannel[Any], receive: Callable[[Any], None]
    ) -> None:
        heard_at, stalls = trio.current_time(), _Stalls(self._world, self._chance)
        while True:
            item = None
            with trio.move_on_after(HEARTBEAT if self._world.drawn.reach_the_network else math.inf):
                try:
                    item = await receiving.receive()
                except trio.EndOfChannel:
                    return
            await stalls.wait(heard_at)
            if item is not None:
                await self._travel(0)
                receive(item)
            if item is not None or trio.current_time() >= server.deaf_until:
                heard_at = trio.current_time()  # an event, or else a heartbeat
            elif trio.current_time() - heard_at >= STREAM_SILENCE:
                raise StreamLostError("timeout")

    async def _travel(self, slowness: float) -> None:
        await trio.sleep(slowness + self._chance.choice((0, 0, 0.001, 0.004, 0.02)))
