"""Those who send requests: they wait, ask again, give up, vanish, and note how each request ended."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio

from rbee.adapters.http.sse_client import StreamLostError
from rbee.errors import AllSlotsBusyError, ConnectionTimeoutError, DrainingError, RbeeError, WorkerFailedError
from rbee.queen.scheduling.choose_worker import Wanted
from rbee.queen.scheduling.place_request import Placed
from rbee.queen.scheduling.prompt_links import Link, PromptLinks
from tests.simulation import reader
from tests.simulation.queen import QUEEN_URL
from tests.simulation.world import NEEDED, Violation

if TYPE_CHECKING:
    from rbee.adapters.config import Timeouts
    from tests.simulation.network import Network
    from tests.simulation.world import World

BUSY_DELAYS: Final = (1, 2, 4)
START_SECONDS: Final = 30.0
ACKNOWLEDGE_SECONDS: Final = 5.0


def _prompt(world: World, model: str, conversation: int, turn: int) -> PromptLinks | None:
    """Return what one turn of a conversation is known by, in the simulations that have these."""
    if not world.has_conversations:
        return None
    digests = [f"{model} {conversation} {number}".encode() for number in range(turn)]
    return PromptLinks(tuple(Link(digest, 2000 * (at + 1)) for at, digest in enumerate(digests)), 2000 * turn)


class Request:
    """One request of one client; everything about it is drawn from its own chance."""

    def __init__(self, world: World, network: Network, number: int, limits: Timeouts, *, is_last: bool = False) -> None:
        self.id = f"r{number}"
        self._world = world
        self._network = network
        self._loading_seconds = limits.loading
        chance = world.chance(self.id)
        model = chance.choices((*NEEDED, "unknown"), (5, 5, 2, 2, 0.3))[0]
        backend, device = chance.choices(
            ((None, None), ("cpu", None), ("cpu", 0), ("cuda", None), ("cuda", 1), ("metal", None)),
            (9, 2, 1, 2, 2, 0.3),
        )[0]
        self._wanted = Wanted(model, backend, device)
        self._tokens = chance.randint(1, 12)
        self._relay = chance.random() < 0.4
        self._wait = chance.choice((0, 0, 5, 60))
        self._patience = chance.expovariate(1 / 15) if chance.random() < 0.3 else float("inf")
        self._is_polite = chance.random() < 0.6
        self._prompt = _prompt(world, model, chance.randint(0, 3), chance.randint(1, 3))
        if is_last:
            self._wanted, self._patience = Wanted("small", None, None), float("inf")

    async def run(self) -> str:
        """Send the request; returns how it ended."""
        rules, trace = self._world.rules, self._world.trace
        model, backend, device = self._wanted[:3]
        how = ("relayed" if self._relay else "direct") + (f", waits {self._wait} s" if self._wait else "")
        trace.add(self.id, f"asks for {self._tokens} tokens of {model} on {backend}:{device} ({how})")
        rules.began(self.id)
        outcome = "gives up"
        with trio.move_on_after(self._patience):
            try:
                outcome = await self._send()
            except RbeeError as exc:
                outcome = f"{exc.code}: {exc.message}"
            except StreamLostError as exc:
                outcome = f"stream lost: {exc}"
        trace.add(self.id, f"ends: {outcome}")
        rules.ended(self.id, outcome.partition(":")[0])
        return outcome

    async def _send(self) -> str:
        """Ask the queen, and the worker that it names; returns how it went."""
        for is_last in (False, False, True):
            placed = await self._ask()
            if isinstance(placed, str):
                return placed
            try:
                return await self._use(placed)
            except WorkerFailedError as exc:
                if not isinstance(await self._why_ended(placed), DrainingError) or is_last:
                    raise exc from None
            except DrainingError:
                # The worker was told to end. Nothing was generated yet, so another one may do it.
                if is_last:
                    raise
        raise AssertionError

    async def _ask(self) -> Placed | str:
        """Ask the queen; returns the worker that it names, or how the relayed answer ended."""
        heard: list[Any] = []
        with trio.move_on_after(START_SECONDS):
            while QUEEN_URL not in self._world.listeners:  # noqa: ASYNC110 (so does who has started a queen)
                await trio.sleep(0.1)
        try:
            await self._network.stream(
                QUEEN_URL,
                self.id,
                lambda queen, send: queen.task(
                    self.id, self._wanted, self._wait, self._tokens, self._relay, self._prompt, send
                ),
                heard.append,
            )
        except trio.Cancelled:
            await self._cancel(QUEEN_URL)
            raise
        placed = [item for _, item in heard if isinstance(item, Placed)]
        if self._relay:
            return self._read([item for item in heard if item[0] != "worker"])
        if len(placed) != 1:
            raise Violation(f"{self.id} is given {len(placed)} workers")
        return placed[0]

    async def _use(self, placed: Placed) -> str:
        """Wait for the worker and read its answer; a busy one is asked again."""
        await reader.wait_ready(self._network, placed.url, self._loading_seconds)
        for delay in (*BUSY_DELAYS, None):
            heard: list[Any] = []
            try:
                await reader.infer(self._network, placed, self.id, self._tokens, heard.append)
            except AllSlotsBusyError:
                if delay is None:
                    raise
                await trio.sleep(delay)
            except ConnectionTimeoutError as exc:
                raise WorkerFailedError("the worker was lost before it answered") from exc
            except DrainingError:
                if not heard:
                    raise
                return "stream lost: the worker was told to end"
            except trio.Cancelled:
                await self._cancel(placed.url, placed)
                raise
            else:
                return self._read(heard)
        raise AssertionError

    async def _why_ended(self, placed: Placed) -> RbeeError | None:
        with suppress(RbeeError):
            return await self._network.call(
                QUEEN_URL, f"the end of {self.id}'s worker", lambda queen: queen.tell_failure(placed.worker_id)
            )
        return None

    def _read(self, heard: list[Any]) -> str:
        """Check a whole answer: tokens from the first to the last, then the end, once."""
        wanted = [*(("token", count) for count in range(1, self._tokens)), ("done", self._tokens)]
        if heard != wanted:
            raise Violation(f"the answer to {self.id} is {heard}")
        return f"{self._tokens} tokens"

    async def _cancel(self, url: str, placed: Placed | None = None) -> None:
        """Say that nobody waits any more, as who is polite does before he leaves."""
        if not self._is_polite:
            return
        with trio.move_on_after(ACKNOWLEDGE_SECONDS, shield=True):
            if placed is not None:
                await reader.cancel(self._network, (url, reader.key_of(placed.worker_id)), self.id)
                return
            with suppress(RbeeError):  # a queen that does not answer has lost the stream too
                await self._network.call(url, f"the end of {self.id}", lambda queen: queen.cancel_task(self.id))
