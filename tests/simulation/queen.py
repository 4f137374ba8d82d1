"""A simulated queen's process: the product's node and task table; requests come in as they do at its HTTP interface."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

import trio

from rbee.adapters.http.sse_client import StreamLostError
from rbee.errors import AllSlotsBusyError, DrainingError, RbeeError, WorkerFailedError, WorkerNotReadyError
from rbee.queen.nodes import node as product
from rbee.queen.nodes.node import Node
from rbee.queen.requests.tracker import AssignedWorker, RequestTracker
from rbee.queen.requests.why_ended import explained, why_ended
from rbee.queen.scheduling.node_loop import NodeLoop
from rbee.queen.scheduling.place_request import Placed, PlaceRequest
from rbee.wire.worker import EndedRequest
from tests.simulation import reader
from tests.simulation.worker import key_of
from tests.simulation.world import Process, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.prompt_links import PromptLinks
    from tests.simulation.network import Network, Send
    from tests.simulation.site import Site
    from tests.simulation.world import World

QUEEN_URL: Final = "http://queen:8080"
TELLING_SECONDS: Final = 0.1
"""For those who wait to be told that the queen ends: no time that is measured, but many steps."""
FAREWELL_SECONDS: Final = 1.0


class WatchedRequest(PlaceRequest):
    """A request of the product's node that is answered once; `made` has those of the queen that runs."""

    made: ClassVar[list[WatchedRequest]] = []

    def __init__(self, wanted: Wanted, wait: float, report: Any, answer: Any, *rest: Any, **more: Any) -> None:
        self.is_answered = False
        self.is_given_up = False

        def answer_once(result: Placed | RbeeError) -> None:
            if self.is_answered:
                raise Violation(f"a request for {wanted.model_ref} is answered twice")
            self.is_answered = True
            answer(result)

        super().__init__(wanted, wait, report, answer_once, *rest, **more)
        self.made.append(self)


class WatchedLoop(NodeLoop):
    """The product's loop, which notes the requests that are given up."""

    def give_up(self, request: Any) -> None:
        request.is_given_up = True
        super().give_up(request)


@contextmanager
def watched() -> Iterator[None]:
    """Have the product make requests that are watched."""
    made = product.PlaceRequest, product.NodeLoop
    product.PlaceRequest, product.NodeLoop = WatchedRequest, WatchedLoop
    try:
        yield
    finally:
        product.PlaceRequest, product.NodeLoop = made


class QueenProcess(Process):
    """One queen, from its start until it is killed."""

    def __init__(self, world: World, network: Network, site: Site, max_waiting: int, number: int) -> None:
        super().__init__(world, f"queen{number}")
        WatchedRequest.made.clear()
        self.node = Node("local", site, max_waiting=max_waiting)
        self._network = network
        self._loading_seconds = site.limits.loading + site.limits.unload
        self._tracker = RequestTracker()
        self._hive_has_ended = trio.Event()
        self._stopped = trio.Event()

    async def main(self) -> str:
        self.listen(QUEEN_URL)
        self.nursery.start_soon(self.node.run)
        await self._stopped.wait()
        placed = list(WatchedRequest.made)  # requests from here on are refused at once
        await trio.sleep(TELLING_SECONDS)
        for request in placed:
            if not request.is_answered and not request.is_given_up:
                raise Violation(f"the queen ends, and a request for {request.wanted.model_ref} has no answer")
        await self._hive_has_ended.wait()
        self._tracker.end()
        await trio.sleep(FAREWELL_SECONDS)  # for the answers that this has brought about
        return "exit code 0"

    def stop(self) -> None:
        """Begin the queen's end: it places nothing more."""
        self.node.stop_placing()
        self._stopped.set()

    def finish(self) -> None:
        """Its hive has ended, and the queen does too."""
        self._hive_has_ended.set()

    # What it answers.

    async def task(
        self,
        request_id: str,
        wanted: Wanted,
        wait: float,
        tokens: int,
        relay: bool,
        prompt: PromptLinks | None,
        send: Send,
    ) -> None:
        """Place a request, and with `relay` run it, as the queen's `/v2/tasks` does."""
        with self._tracker.track(request_id, "local") as tracked:
            patient_until = trio.current_time() + wait
            must_ask = tracked.was_placed
            sent: list[object] = []

            async def pass_on(item: Any) -> None:
                sent.append(item)
                await send(item)

            while True:
                placed = await self.node.place(wanted, lambda _: None, wait, must_ask=must_ask, prompt=prompt)
                tracked.worker = AssignedWorker(placed.url, key_of(placed.worker_id), "local", placed.worker_id)
                await send(("worker", placed))
                try:
                    if relay:
                        await self._relay(placed, request_id, tokens, pass_on)
                    self._measure(placed.worker_id, request_id)
                except AllSlotsBusyError:
                    # Someone who did not ask the queen was faster.
                    must_ask = True
                    if trio.current_time() >= patient_until:
                        raise
                except (WorkerFailedError, DrainingError, WorkerNotReadyError) as exc:
                    error: RbeeError = exc
                    if isinstance(exc, WorkerFailedError):
                        error = await explained(exc, self.node, placed.worker_id)
                    if sent or not tracked.second_try.take(error):
                        raise error from exc
                    must_ask = True
                else:
                    return

    def _measure(self, worker_id: str, request_id: str) -> None:
        """Have it known how long a request took, as its worker says by its hive: long enough to be waited for."""
        ended = EndedRequest(
            request_id=request_id,
            worker_id=worker_id,
            prompt_tokens=250,
            first_token_ms=3000,
            duration_ms=5000,
            end="eos",
        )
        self.node._line.known.on_ended(ended)

    async def _relay(self, placed: Placed, request_id: str, tokens: int, send: Send) -> None:
        """Pass a worker's answer on, as `relay` does."""
        if placed.state not in ("idle", "busy"):
            await reader.wait_ready(self._network, placed.url, self._loading_seconds)
        news, heard = trio.open_memory_channel[Any](1000)
        failure: list[Exception] = []

        async def read() -> None:
            with news:
                try:
                    await reader.infer(self._network, placed, request_id, tokens, news.send_nowait)
                except (StreamLostError, RbeeError) as exc:
                    failure.append(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async for item in heard:
                await send(item)
        if failure and isinstance(failure[0], StreamLostError):
            raise WorkerFailedError(f"the worker's stream ended early: {failure[0]}")
        if failure:
            raise failure[0]

    async def tell_failure(self, worker_id: str) -> RbeeError | None:
        """Say why a worker ended, as `/v2/tasks/ID/failure` does."""
        return await why_ended(self.node, worker_id)

    async def cancel_task(self, request_id: str) -> None:
        if (worker := self._tracker.cancel(request_id)) is not None:
            await reader.cancel(self._network, (worker.url, worker.key), request_id)
